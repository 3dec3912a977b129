"""A drill as people see it: its steps as they happen, then a table, and when it is red what explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clusterguard.drills.events import (
    DrillEvent,
    DrillFinished,
    DrillStarted,
    Note,
    PhaseFinished,
    PhaseStarted,
    StepFinished,
    StepStarted,
)
from clusterguard.drills.verdict import Verdict
from clusterguard.model.durations import format_duration
from clusterguard.model.progress import Progress
from clusterguard.terminal.console import ProgressLines, amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType
    from rich.status import Status

    from clusterguard.drills.verdict import DrillResult, PhaseResult

__all__ = ["DrillView", "result_view"]

_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.ERROR: "yellow"}
_MARKS = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.ERROR: "!"}
_DIFF_STYLES = {"+++": "bold green", "---": "bold red", "@@": "cyan", "+": "green", "-": "red"}
_MOST_DIFF_LINES = 200


class DrillView:
    """Shows the events of drills on a console; in a terminal what runs right now has a spinner and the time.

    Args:
        console: Where to.
        narrate: Whether to show steps as they happen; the table at the end always comes.
    """

    def __init__(self, console: Console, *, narrate: bool = True) -> None:
        self._console = console
        self._narrate = narrate
        self._lines = ProgressLines(lambda line: self._say(f"  · {line}", style="dim"))
        self._status: Status | None = None
        self._doing = ""

    def __call__(self, event: DrillEvent) -> None:
        """Take one event."""
        match event:
            case DrillFinished(result=result):
                self._spin(None)
                self._console.print(result_view(result))
            case _ if not self._narrate:
                pass
            case DrillStarted(drill=drill, description=description):
                self._console.print(f"\n[bold]{escape(drill)}[/bold]  {escape(description)}", soft_wrap=True)
            case PhaseStarted(phase=phase):
                self._say(phase, style="bold blue")
                self._spin(phase)
            case StepStarted(title=title):
                self._spin(title)
            case StepFinished(result=step):
                mark = f"[{_STYLES[step.verdict]}]{_MARKS[step.verdict]}[/]"
                detail = escape(step.detail.replace("\n", " "))
                self._console.print(
                    f"  {mark} {escape(step.title)}  [dim]{format_duration(step.seconds)}[/dim]  {detail}",
                    soft_wrap=True,
                )
            case PhaseFinished():
                self._spin(None)
            case Note(text=text):
                self._say(f"  · {text}", style="dim")
            case Progress() as moment:
                self._show(moment)

    def _show(self, moment: Progress) -> None:
        if self._status is None:
            self._lines(moment)
        elif moment.finished:
            if moment.note:
                self._say(f"  · {moment.task}: {moment.note}", style="dim")
            self._spin(self._doing)
        else:
            self._status.update(f"{escape(moment.task)}  [dim]{escape(amount(moment))}  {escape(moment.note)}[/dim]")

    def _say(self, line: str, style: str = "") -> None:
        self._console.print(line, markup=False, style=style or None, soft_wrap=True)

    def _spin(self, text: str | None) -> None:
        if not self._console.is_terminal:
            return
        self._doing = text or ""
        if text is None:
            if self._status is not None:
                self._status.stop()
                self._status = None
        elif self._status is None:
            self._status = self._console.status(escape(text))
            self._status.start()
        else:
            self._status.update(escape(text))


def result_view(result: DrillResult) -> RenderableType:
    """Return the table of a result, and for a red one the diff and the events that explain it."""
    from rich.console import Group

    return Group(*_parts(result))


def _parts(result: DrillResult) -> Iterator[RenderableType]:
    yield Text()
    yield _table(result)
    style = _STYLES[result.verdict]
    verdict = Text.assemble((f"{result.verdict}", f"bold {style}"), f"  {result.drill}  ", result.reason)
    yield verdict
    if result.hint and result.verdict is not Verdict.PASS:
        yield Text(f"  → {result.hint}", style="yellow")
    if result.suppressed:
        rules = ", ".join(f"{rule} ({number})" for rule, number in sorted(result.suppressed.items()))
        yield Text(f"  differences that named rules explain: {rules}", style="dim")
    if any("simulated" in description for description in result.clusters.values()):
        yield Text("  pods were simulated: no container ran in this drill", style="dim")
    if result.diff:
        yield Panel(_coloured(result.diff), title="what is not as it was", title_align="left", border_style=style)
    for title, text in result.diagnostics:
        yield Panel(Text(text), title=title, title_align="left", border_style="dim")


def _table(result: DrillResult) -> RenderableType:
    table = Table("phase", "duration", "verdict", "", box=None, pad_edge=False, header_style="bold")
    table.columns[1].justify = "right"
    for phase in result.phases:
        table.add_row(*_row(phase))
    if result.rto is not None:
        rto = result.rto
        parts = ", ".join(
            f"{name} {format_duration(seconds)}"
            for name, seconds in (
                ("provision", rto.provision),
                ("restore", rto.restore),
                ("verify", rto.verify),
            )
            if seconds >= 0.05  # noqa: PLR2004 - what would be shown as 0.0s
        )
        table.add_section()
        table.add_row("recovery time", format_duration(rto.total), "", Text(parts, style="dim"))
    if result.rpo is not None:
        table.add_row("changes lost", f"≤ {format_duration(result.rpo)}", "", Text("by the canaries", style="dim"))
    return Padding(table, (0, 0, 1, 0))


def _row(phase: PhaseResult) -> tuple[RenderableType, ...]:
    return (
        Text(phase.name),
        Text(format_duration(phase.seconds)),
        Text(phase.verdict, style=_STYLES[phase.verdict]),
        Text(phase.detail, style="dim"),
    )


def _coloured(diff: str) -> Text:
    lines = diff.splitlines()
    text = Text()
    for line in lines[:_MOST_DIFF_LINES]:
        style = next((style for start, style in _DIFF_STYLES.items() if line.startswith(start)), "")
        text.append(line + "\n", style=style)
    if len(lines) > _MOST_DIFF_LINES:
        text.append(f"… {len(lines) - _MOST_DIFF_LINES} more lines are in the evidence")
    text.rstrip()
    return text
