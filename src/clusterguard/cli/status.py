"""``clusterguard status``: what is protected, what is overdue, where the copies are, when a restore was last proven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import PolicyArguments, read_policy

if TYPE_CHECKING:
    from clusterguard.coverage.recorded import RecordedCoverage
    from clusterguard.policies.watching.verdict import PolicyStatus

__all__ = ["looked_at", "status"]

_NOT_PROTECTED, _COULD_NOT_TELL = 1, 2


def status(
    policy: PolicyArguments,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_metrics: Annotated[bool, typer.Option("--metrics", help="Print Prometheus metrics.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page for browsers to this file.")] = None,
    coverage: Annotated[
        list[Path] | None,
        typer.Option(help="Also show what `coverage --json` wrote to this file, with its age.", metavar="FILE"),
    ] = None,
    allow_at_risk: Annotated[bool, typer.Option("--allow-at-risk", help="Exit code 0 for `at risk` too.")] = False,
    within: Annotated[float, typer.Option(help="Seconds that locations get to answer in.", min=0.1)] = 30,
) -> None:
    """Show what is protected right now. Exit code 1: a policy is not, or is at risk; 2: of one nothing can be read."""
    if as_json and as_metrics:
        raise typer.BadParameter("choose one of --json and --metrics")
    if coverage and (as_json or as_metrics) and html is None:
        raise typer.BadParameter("--coverage is for the screen and for --html; `coverage --json` is JSON itself")
    covered = _recorded(coverage or [])
    found = looked_at(policy, within_seconds=within)
    if html is not None:
        _write_page(html, found, covered)
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in found], indent=2))
    elif as_metrics:
        from clusterguard.policies.watching.metrics import render

        typer.echo(render(*found), nl=False)
    else:
        _show(found, covered)
    if any(each.locations and not any(location.reachable for location in each.locations) for each in found):
        raise typer.Exit(_COULD_NOT_TELL)
    good = {"protected", "at risk"} if allow_at_risk else {"protected"}
    if not all(each.verdict in good for each in found):
        raise typer.Exit(_NOT_PROTECTED)


def looked_at(files: list[Path], *, within_seconds: float) -> list[PolicyStatus]:
    """Return the status of each policy, by looking at its locations now.

    Raises:
        ConfigError: A policy cannot be read.
    """
    from clusterguard.policies.copies.locations import open_locations
    from clusterguard.policies.watching.watch import PolicyWatch

    policies = [read_policy(file) for file in files]
    return [PolicyWatch(each, open_locations(each), within_seconds=within_seconds).status() for each in policies]


def _recorded(files: list[Path]) -> list[RecordedCoverage]:
    if not files:
        return []
    from clusterguard.coverage.recorded import read_coverage

    return [read_coverage(file) for file in files]


def _write_page(html: Path, found: list[PolicyStatus], covered: list[RecordedCoverage]) -> None:
    from clusterguard.policies.watching.page import write_page

    more: list[str] = []
    if covered:
        from clusterguard.coverage.page import render_coverage

        more = [render_coverage(each, now=found[0].at) for each in covered]
    write_page(html, *found, more=more)


def _show(found: list[PolicyStatus], covered: list[RecordedCoverage]) -> None:
    from clusterguard.terminal import out
    from clusterguard.terminal.status_view import status_view

    for number, each in enumerate(found):
        if number:
            out.print()
        out.print(status_view(each))
    if covered:
        from clusterguard.terminal.coverage_view import coverage_line

        out.print()
        for recorded in covered:
            out.print(coverage_line(recorded, found[0].at))
