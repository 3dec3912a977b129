"""A run of a policy on the terminal: a line for each step as it ends, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from clusterguard.model.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

    from clusterguard.model.policy_run import Outcome, RunReport, StepReport
    from clusterguard.model.retention import RetentionPlan

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


def show_retention(console: Console, plans: Iterable[tuple[str, str, RetentionPlan]]) -> None:
    """Show what becomes of every backup, by source and location, newest first, with the reasons."""
    for source, location, plan in plans:
        table = Table(
            "", "backup", "made (UTC)", "bytes", "why", box=None, pad_edge=False,
            title=f"{source} in {location}: {len(plan.kept)} stay, {len(plan.removed)} go, "
            f"{plan.freed_bytes:,} bytes become free",
            title_justify="left",
        )  # fmt: skip
        for decision in plan.decisions:
            backup = decision.backup
            table.add_row(
                Text("keep", style="green") if decision.keep else Text("remove", style="red"),
                Text(backup.name),
                f"{backup.created:%Y-%m-%d %H:%M}",
                f"{backup.size:,}",
                Text("; ".join(decision.reasons)),
            )
        console.print(table)
