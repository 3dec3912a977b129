"""What is shown while a rehearsal runs."""

from __future__ import annotations

import io

from rich.console import Console

from clusterguard.model.progress import Progress
from clusterguard.terminal.rehearsal_view import PhaseLine

BUILDING = "building kube-apiserver@1.34"


def shown(*moments: Progress, terminal: bool) -> str:
    """Return what is written while a phase waits for a program."""
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=terminal, _environ={"TERM": "xterm"})
    line = PhaseLine(console)
    line("find the programs")
    for moment in moments:
        line.installing(moment)
    line.close()  # draws what the spinner said last
    return file.getvalue()


def moment(done: int, *, finished: bool = False) -> Progress:
    return Progress(task=BUILDING, done=done, total=1104, unit="packages", finished=finished)


def test_lines_tell_of_programs_that_are_waited_for() -> None:
    lines = shown(moment(0), moment(1104, finished=True), terminal=False).splitlines()
    assert lines[:2] == ["find the programs …", f"{BUILDING} …"]
    assert lines[2].startswith(f"{BUILDING}, done")


def test_the_spinner_tells_how_far_a_program_is() -> None:
    assert "find the programs …" in shown(terminal=True)
    assert f"{BUILDING} … 312 of 1,104 packages" in shown(moment(312), terminal=True)


def test_what_was_installed_stays_above_the_spinner() -> None:
    assert f"{BUILDING}: done" in shown(moment(312), moment(1104, finished=True), terminal=True)
