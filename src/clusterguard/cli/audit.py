"""``clusterguard audit``: what was done to the backups, and whether that record is whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import PolicyArgument, read_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.watching.audit import TrailOfLocation

__all__ = ["app"]

_BROKEN, _COULD_NOT_TELL = 1, 2
_MOST_FINDINGS = 20
_MOST_RUNS = 3

app = typer.Typer(
    name="audit",
    help="The audit trail: what was done with backups, chained by hashes.",
    no_args_is_help=True,
)

_Location = Annotated[str, typer.Option(help="Only the trail in this location.")]


@app.command()
def verify(
    policy: PolicyArgument,
    location: _Location = "",
    head: Annotated[str, typer.Option(help="Hash of a line that is known to have been there.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read the whole trail of each location and check it. Exit code 1: one is broken; 2: one cannot be read."""
    from clusterguard.policies.watching.audit import compare_trails
    from clusterguard.terminal import out

    locations = _locations(policy, location)
    trails = compare_trails(locations, expected_head=head)
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in trails], indent=2))
    else:
        for each in trails:
            for line, style in _lines(each):
                out.print(line, style=style, markup=False, soft_wrap=True)
    if any(each.broken for each in trails):
        raise typer.Exit(_BROKEN)
    if any(each.error for each in trails):
        raise typer.Exit(_COULD_NOT_TELL)


@app.command()
def show(
    policy: PolicyArgument,
    location: _Location = "",
    since: Annotated[str, typer.Option(help="Only from this day or time on, such as 2030-01-31 (UTC).")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Print the events of the trail, the oldest first; without --location, of the first location that has any."""
    from clusterguard.policies.watching.audit import read_events
    from clusterguard.policies.watching.chain import as_json_line
    from clusterguard.terminal import out

    first = _moment(since)
    for event in read_events(_locations(policy, location)):
        if first is not None and event.time < first:
            continue
        if as_json:
            typer.echo(as_json_line(event))
        else:
            line = f"{event.time:%Y-%m-%d %H:%M:%S}  {event.actor}@{event.host}  {event}"
            style = {"failed": "red", "warning": "yellow"}.get(event.outcome)
            out.print(line, style=style, markup=False, soft_wrap=True)


def _locations(file: Path, location: str) -> tuple[StorageLocation, ...]:
    from clusterguard.errors import ConfigError
    from clusterguard.policies.copies.locations import open_locations

    policy = read_policy(file)
    locations = open_locations(policy)
    chosen = tuple(each for each in locations if location in {"", each.name})
    if not chosen:
        raise ConfigError(
            f"the policy has no location {location!r}", hint=f"it has {', '.join(each.name for each in locations)}"
        )
    return chosen


def _moment(text: str) -> datetime | None:
    from clusterguard.errors import ConfigError

    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a date or time", hint="write 2030-01-31 or 2030-01-31T06:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _lines(trail: TrailOfLocation) -> Iterator[tuple[str, str]]:
    report = trail.report
    if report is None:
        yield f"{trail.location}: cannot be read: {trail.error}", "red"
        return
    what = f"{report.lines:,} events in {report.segments:,} segments, head {report.head[:16] or 'none'}"
    if report.since_head is not None:
        what += f", {report.since_head:,} of them after the expected head"
    yield f"{trail.location}: {'intact' if report.ok else 'BROKEN'}: {what}", "green" if report.ok else "red"
    yield from ((f"  {each}", "red") for each in report.findings[:_MOST_FINDINGS])
    if (more := len(report.findings) - _MOST_FINDINGS) > 0:
        yield f"  … and {more} more: --json has them all", "red"
    if trail.catalog_head_missing:
        yield f"  the catalog's head, {trail.catalog_head[:16]}, is not in the trail: it was cut off", "red"
    if trail.missing_runs:
        runs = ", ".join(trail.missing_runs[:_MOST_RUNS]) + (" …" if len(trail.missing_runs) > _MOST_RUNS else "")
        yield f"  {len(trail.missing_runs)} runs of other locations' trails are not there: {runs}", "yellow"
