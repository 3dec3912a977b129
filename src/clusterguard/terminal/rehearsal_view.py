"""A rehearsal in a terminal: phases while they run, then the verdict, a table by kind, namespaces, and findings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from clusterguard.model.durations import format_duration
from clusterguard.rehearsal.report import Level
from clusterguard.terminal.console import ProgressLines, amount
from clusterguard.terminal.diff import coloured_diff

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console, RenderableType
    from rich.status import Status

    from clusterguard.model.progress import Progress
    from clusterguard.rehearsal.report import KindCount, RehearsalFinding, RehearsalReport

__all__ = ["PhaseLine", "rehearsal_view"]

_STYLES: Final = {Level.ERROR: "red", Level.WARNING: "yellow", Level.NOTE: "dim"}
_MOST_NAMESPACES: Final = 12
_MOST_KINDS: Final = 6


class PhaseLine:
    """Shows the phase that runs: as a spinner in a terminal, as a line elsewhere.

    Args:
        console: Where.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._lines = ProgressLines(self._print)

    def __call__(self, phase: str) -> None:
        """Show that a phase begins."""
        if not self._console.is_terminal:
            self._print(f"{phase} …")
        elif self._status is None:
            self._status = self._console.status(f"{phase} …")
            self._status.start()
        else:
            self._status.update(f"{phase} …")

    def installing(self, moment: Progress) -> None:
        """Show how far a program is that a phase waits for; compiling one takes many minutes."""
        if not self._console.is_terminal:
            self._lines(moment)
        elif moment.finished:
            self._print(f"{moment.task}: {moment.note or 'done'}")
        elif self._status is not None:
            self._status.update(Text(f"{moment.task} … {amount(moment)}".rstrip()))

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            self._status.stop()


def rehearsal_view(report: RehearsalReport) -> RenderableType:
    """Return everything that a report says."""
    return Group(*_parts(report))


def _parts(report: RehearsalReport) -> Iterator[RenderableType]:
    yield _verdict(report)
    facts = Table.grid(padding=(0, 2))
    for name, value in report.facts.items():
        facts.add_row(Text(name, "dim"), Text(value))
    facts.add_row(Text("took", "dim"), Text(_phases(report)))
    yield Padding(facts, (0, 0, 1, 2))
    if report.kinds:
        yield Padding(_kinds(report), (0, 0, 1, 2))
    if report.namespaces:
        yield Padding(_namespaces(report.namespaces), (0, 0, 1, 2))
    for finding in report.findings:
        yield _finding(finding)
    for each in report.changes:
        style = "green" if each.none else "yellow"
        diff = coloured_diff(each.to_text(), whole="the report of --json")
        yield Panel(diff, title=each.title, title_align="left", border_style=style)


def _verdict(report: RehearsalReport) -> Text:
    backed_up = sum(kind.backed_up for kind in report.kinds)
    equal = sum(kind.equal for kind in report.kinds)
    word = Text("RESTORES", "bold green") if report.ok else Text("DOES NOT RESTORE WHOLE", "bold red")
    took = format_duration(report.seconds)
    return Text.assemble(word, f"  {report.source}: {equal:,} of {backed_up:,} objects came back equal, in {took}")


def _phases(report: RehearsalReport) -> str:
    shown = [phase for phase in report.phases if phase.seconds >= 0.05]  # noqa: PLR2004 - what rounds to nothing
    return ", ".join(f"{phase.name} {format_duration(phase.seconds)}" for phase in shown)


def _kinds(report: RehearsalReport) -> Table:
    table = Table("", "kind", box=None, pad_edge=False, header_style="dim")
    for column in ("backed up", "equal"):
        table.add_column(column, justify="right")
    table.add_column("otherwise")
    for kind in sorted(report.kinds, key=lambda kind: (kind.ok, kind.kind)):
        mark = Text("✓", "green") if kind.ok else Text("✗", "red")
        table.add_row(mark, kind.kind, f"{kind.backed_up:,}", f"{kind.equal:,}", _otherwise(kind))
    return table


def _otherwise(kind: KindCount) -> Text:
    outcome = kind.outcome()
    return Text("" if outcome == "equal" else outcome, "yellow" if kind.ok else "red")


def _namespaces(namespaces: Mapping[str, Mapping[str, int]]) -> Tree:
    tree = Tree(Text(f"{len([name for name in namespaces if name])} namespaces", "dim"), guide_style="dim")
    largest = sorted(namespaces, key=lambda name: -sum(namespaces[name].values()))
    for name in largest[:_MOST_NAMESPACES]:
        kinds = sorted(namespaces[name].items(), key=lambda pair: -pair[1])
        shown = ", ".join(f"{count:,} {kind.partition('.')[0]}" for kind, count in kinds[:_MOST_KINDS])
        more = f", {len(kinds) - _MOST_KINDS} more kinds" if len(kinds) > _MOST_KINDS else ""
        tree.add(Text.assemble((name or "(cluster-scoped)", "bold"), f"  {shown}{more}"))
    if len(largest) > _MOST_NAMESPACES:
        tree.add(Text(f"{len(largest) - _MOST_NAMESPACES} more", "dim"))
    return tree


def _finding(finding: RehearsalFinding) -> RenderableType:
    head = Text.assemble(
        (str(finding.level), _STYLES[finding.level]), f": {finding.message} ", (f"({finding.code})", "dim")
    )
    lines = [Text(f"  {each}", "dim") for each in finding.examples]
    more = finding.count - len(finding.examples)
    if finding.examples and more > 0:
        lines.append(Text(f"  and {more:,} more", "dim"))
    return Padding(Group(head, *lines, Text(f"  → {finding.hint}")), (0, 0, 0, 2))
