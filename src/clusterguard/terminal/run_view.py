"""A run of a policy on the terminal: a line for each step as it ends, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Column, Table
from rich.text import Text

from clusterguard.model.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from rich.console import Console

    from clusterguard.policies.report import Outcome, RunReport, StepReport
    from clusterguard.policies.runs.retain import PlannedRetention

__all__ = ["RunView", "show_retention"]

_STYLES: Final[Mapping[Outcome, str]] = {"ok": "green", "warning": "yellow", "failed": "bold red"}


class RunView:
    """Shows a run as it goes.

    Args:
        console: Where.
        quiet: Show only what is not well.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet

    def __call__(self, step: StepReport) -> None:
        """Show a step that ended."""
        if self._quiet and step.outcome == "ok":
            return
        line = Text()
        line.append(f"{step.outcome:<7} ", style=_STYLES[step.outcome])
        line.append(f"{step.verb:<9} ")
        line.append("/".join(part for part in (step.source, step.backup) if part), style="bold")
        if step.location:
            line.append(f" in {step.location}" if step.source else step.location)
        if step.seconds >= 1:
            line.append(f" ({format_duration(step.seconds)})", style="dim")
        if step.detail:
            line.append(f": {step.detail}" if step.source or step.location else step.detail)
        self._console.print(line, soft_wrap=True)
        if step.hint and step.outcome != "ok":
            self._console.print(Text(f"          → {step.hint}", style="yellow"), soft_wrap=True)

    def finish(self, report: RunReport) -> None:
        """Show the verdict."""
        took = format_duration((report.finished - report.started).total_seconds())
        words = {
            "ok": f"policy {report.policy}: done in {took}",
            "warning": f"policy {report.policy}: done in {took}, and something wants a look",
            "failed": f"policy {report.policy}: FAILED after {took}",
        }
        self._console.print(Text(words[report.outcome], style=_STYLES[report.outcome]), soft_wrap=True)


def show_retention(console: Console, plans: Iterable[PlannedRetention]) -> None:
    """Show what becomes of every backup, by source and location, newest first, and why; then of what broke off."""
    for planned in plans:
        plan = planned.plan
        gone = [each.leftover for each in planned.leftovers if each.removed]
        freed = plan.freed_bytes + sum(each.size for each in gone)
        table = Table(
            "", Column("backup", no_wrap=True), "made (UTC)", "bytes", "why", box=None, pad_edge=False,
            title=f"{planned.source} in {planned.location.name}: {len(plan.kept)} stay, {len(plan.removed)} go"
            + (f", {len(gone)} broke off and go" if gone else "") + f", {freed:,} bytes become free",
            title_justify="left",
        )  # fmt: skip
        for decision in plan.decisions:
            backup = decision.backup
            _add(table, backup.name, backup.created, backup.size, keep=decision.keep, why="; ".join(decision.reasons))
        for each in planned.leftovers:
            left = each.leftover
            _add(table, left.name, left.modified, left.size, keep=not each.removed, why=each.reason)
        console.print(table)


def _add(table: Table, name: str, made: datetime, size: int, *, keep: bool, why: str) -> None:
    verb = Text("keep", style="green") if keep else Text("remove", style="red")
    table.add_row(verb, Text(name), f"{made:%Y-%m-%d %H:%M}", f"{size:,}", Text(why))
