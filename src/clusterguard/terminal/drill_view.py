"""A drill as people see it: its steps as they happen, then a table, and when it is red what explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
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
from clusterguard.model.progress import Progress as Moment
from clusterguard.terminal.console import ProgressLines, amount
from clusterguard.terminal.diff import coloured_diff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from clusterguard.drills.verdict import DrillResult, Mutation, PhaseResult, StepResult

__all__ = ["DrillView", "result_view"]

_STYLES = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.ERROR: "yellow"}
_MARKS = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.ERROR: "!"}
_TITLE, _SECONDS = 22, 6  # the width of these columns, where nothing in them is longer
_WIDE = 90  # from here on a step and what was seen of it are side by side


class DrillView:
    """Shows the events of drills on a console; in a terminal what runs right now has a spinner and the time.

    Args:
        console: Where to.
        narrate: Whether to show steps as they happen; the table at the end always comes.
        explain: Whether to show the diff and the events that explain a red drill.
    """

    def __init__(self, console: Console, *, narrate: bool = True, explain: bool = True) -> None:
        self._console = console
        self._narrate = narrate
        self._explain = explain
        self._lines = ProgressLines(lambda line: self._say(f"  · {line}", style="dim"))
        self._heading = ""
        self._doing = ""
        self._spinner: Progress | None = None

    def __call__(self, event: DrillEvent) -> None:
        """Take one event."""
        match event:
            case DrillFinished(result=result):
                self._spin(None)
                self._console.print(result_view(result, explain=self._explain))
            case _ if not self._narrate:
                pass
            case DrillStarted(drill=drill, description=description):
                self._say("")
                title = Text.assemble((drill, "bold"), "  ", description)
                self._console.print(title, soft_wrap=not self._console.is_terminal)
            case PhaseStarted(phase=phase):
                self._heading = phase
                self._spin(phase)
            case StepStarted(title=title):
                self._spin(title)
            case StepFinished(result=step):
                self._begin_phase()
                self._show_step(step)
            case PhaseFinished():
                self._spin(None)
            case Note(text=text):
                self._note(text)
            case Moment() as moment:
                self._show(moment)

    def _begin_phase(self) -> None:
        """Write the heading of a phase, once there is something to show."""
        if self._heading:
            self._say(self._heading, style="bold blue")
            self._heading = ""

    def _show_step(self, step: StepResult) -> None:
        mark = Text(f"  {_MARKS[step.verdict]}", style=_STYLES[step.verdict])
        style = "dim" if step.verdict is Verdict.PASS else _STYLES[step.verdict]
        seconds = format_duration(step.seconds)
        if not self._console.is_terminal:
            line = f"{mark} {step.title:<{_TITLE}} {seconds:>{_SECONDS}}  {' '.join(step.detail.split())}"
            self._say(line.rstrip())
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(min_width=_TITLE, no_wrap=True)
        grid.add_column(min_width=_SECONDS, justify="right", no_wrap=True)
        wide = self._console.width >= _WIDE
        grid.add_row(mark, Text(step.title), Text(seconds, style="dim"), Text(step.detail, style=style) if wide else "")
        self._console.print(grid)
        if step.detail and not wide:
            self._console.print(Padding(Text(step.detail, style=style), (0, 0, 0, 6)))

    def _note(self, text: str) -> None:
        self._begin_phase()
        if self._console.is_terminal:
            grid = Table.grid(padding=(0, 1))
            grid.add_row(Text("  ·", style="dim"), Text(text, style="dim"))
            self._console.print(grid)
        else:
            self._say(f"  · {text}")

    def _show(self, moment: Moment) -> None:
        if self._spinner is None:
            self._begin_phase()
            self._lines(moment)
        elif moment.finished:
            if moment.note:
                self._note(f"{moment.task}: {moment.note}")
            self._spin(self._doing)
        else:
            far = "  ".join(filter(None, [moment.task, amount(moment), moment.note]))
            self._spinner.update(self._spinner.task_ids[0], description=far)

    def _say(self, line: str, style: str = "") -> None:
        self._console.print(line, markup=False, style=style or None, soft_wrap=True)

    def _spin(self, text: str | None) -> None:
        """Show what runs right now, and for how long it has; None ends that."""
        if self._spinner is not None:
            if text is not None and text == self._doing:
                self._spinner.update(self._spinner.task_ids[0], description=text)
                return
            self._spinner.stop()
            self._spinner = None
        self._doing = text or ""
        if text is not None and self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            self._spinner = Progress(*columns, console=self._console, transient=True)
            self._spinner.add_task(text, total=None)
            self._spinner.start()


def result_view(result: DrillResult, *, explain: bool = True) -> RenderableType:
    """Return the table of a result, and for a red one the diff and the events that explain it."""
    return Group(*_summary(result), *(_explanation(result) if explain else ()))


def _summary(result: DrillResult) -> Iterator[RenderableType]:
    yield Text()
    yield _table(result)
    style = _STYLES[result.verdict]
    verdict = Text.assemble((f"{result.verdict}", f"bold {style}"), f"  {result.drill}  ", result.reason)
    yield verdict
    if result.hint and result.verdict is not Verdict.PASS:
        yield Text(f"  → {result.hint}", style="yellow")
    if (trend := result.trend) is not None and trend.median_seconds is not None:
        median = format_duration(trend.median_seconds)
        yield Text(f"  {trend.ratio:.2f} times the median of the last {trend.runs} runs, {median}", style="dim")
    if result.mutation is not None:
        yield from _defects(result.mutation)
    if result.suppressed:
        rules = ", ".join(f"{rule} ({number})" for rule, number in sorted(result.suppressed.items()))
        yield Text(f"  differences that named rules explain: {rules}", style="dim")
    if result.tolerated:
        names = ", ".join(f"{name} ({number})" for name, number in sorted(result.tolerated.items()))
        yield Text(f"  findings that the drill tolerates: {names}", style="yellow")
    if any("simulated" in description for description in result.clusters.values()):
        yield Text("  pods were simulated: no container ran in this drill", style="dim")


def _defects(mutation: Mutation) -> Iterator[RenderableType]:
    yield Text(f"  {mutation.summary()}", style="green" if mutation.score == 100 else "red")  # noqa: PLR2004 - percent
    for each in mutation.with_outcome("missed"):
        yield Text(f"    missed: {each.defect} in {each.target}; what would find it: {each.detail}", style="red")
    for each in mutation.with_outcome("notApplied"):
        yield Text(f"    not applied: {each.defect} to {each.target}: {each.detail}", style="dim")


def _explanation(result: DrillResult) -> Iterator[RenderableType]:
    style = _STYLES[result.verdict]
    if result.diff:
        diff = coloured_diff(result.diff, whole="the evidence")
        yield Panel(diff, title="what is not as it was", title_align="left", border_style=style)
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
        table.add_row("changes lost", f"≤ {format_duration(result.rpo)}", "", Text("by the markers", style="dim"))
    return Padding(table, (0, 0, 1, 0))


def _row(phase: PhaseResult) -> tuple[RenderableType, ...]:
    return (
        Text(phase.name),
        Text(format_duration(phase.seconds)),
        Text(phase.verdict, style=_STYLES[phase.verdict]),
        Text(phase.detail, style="dim"),
    )
