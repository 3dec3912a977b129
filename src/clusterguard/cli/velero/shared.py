"""What the commands about Velero have in common: what words mean, and how results look."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    from clusterguard.velero.client import VeleroClient
    from clusterguard.velero.resources import Backup, Restore, VeleroObject
    from clusterguard.velero.selectors import LabelSelector

__all__ = [
    "confirm",
    "duration",
    "finish",
    "pairs",
    "print_lines",
    "selector_of",
    "selectors_of",
    "show",
    "stamp",
    "tell",
    "text_of",
]

NO = 1  # the answer is no: it failed, partially failed, or has findings


def finish(velero: VeleroClient, run: Backup | Restore, *, wait: bool, timeout: str, as_json: bool) -> None:
    """Wait for a run, judge it and print what came of it; exit with 1 if it has findings."""
    from clusterguard.terminal import out

    if not wait:
        typer.echo(json.dumps(dict(run.manifest), indent=2)) if as_json else out.print(
            f"{run.kind.lower()} {run.name} was asked for", markup=False
        )
        return
    limit = duration(timeout, "--timeout")
    done = velero.wait(run, timeout_seconds=limit.total_seconds() if limit else 0)
    outcome = velero.outcome(done)
    typer.echo(json.dumps(outcome.to_dict(), indent=2) if as_json else outcome.to_text())
    if not outcome.ok:
        raise typer.Exit(NO)


def tell(velero: VeleroClient, run: Backup | Restore, *, as_json: bool) -> None:
    """Print everything about a run; exit with 1 if it has findings."""
    description = velero.describe(run)
    typer.echo(json.dumps(description.to_dict(), indent=2) if as_json else description.to_text())
    if description.facts["verdict"] != "ok":
        raise typer.Exit(NO)


def show(
    found: Sequence[VeleroObject], columns: Sequence[str], rows: Iterable[Sequence[str]], *, as_json: bool
) -> None:
    """Print objects as a table, or as JSON."""
    from rich.table import Table
    from rich.text import Text

    from clusterguard.terminal import out

    if as_json:
        typer.echo(json.dumps([dict(each.manifest) for each in found], indent=2))
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out.print(table if found else "there are none")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        typer.echo(line)


def confirm(told: str, *, yes: bool) -> None:
    """Tell what is about to be lost, and ask, unless that was answered on the command line."""
    from clusterguard.terminal import err

    if not yes:
        err.print(told, style="yellow", markup=False, soft_wrap=True)
        typer.confirm("Go on?", abort=True, err=True)


def pairs(words: Sequence[str] | None, option: str, *, sign: str = "=") -> dict[str, str]:
    """Return words such as ``KEY=VALUE`` as a dictionary."""
    from clusterguard.errors import ConfigError

    pairs: dict[str, str] = {}
    for word in words or ():
        key, found, value = word.partition(sign)
        if not found or not key:
            raise ConfigError(f"{option} {word}: write NAME{sign}VALUE")
        pairs[key] = value
    return pairs


def duration(text: str, option: str) -> timedelta | None:
    """Return how long a text such as ``90s`` means, or None for an empty one."""
    from clusterguard.errors import ConfigError
    from clusterguard.velero.durations import parse_go_duration

    if not text:
        return None
    try:
        return parse_go_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}", hint="write it like 90s, 15m or 72h") from error


def selector_of(text: str) -> LabelSelector | None:
    """Return the labels that a text selects by, or None for an empty one."""
    from clusterguard.velero.selectors import LabelSelector

    return LabelSelector.parse(text) if text else None


def selectors_of(texts: Sequence[str] | None) -> tuple[LabelSelector, ...]:
    """Return the labels that each of several texts selects by."""
    from clusterguard.velero.selectors import LabelSelector

    return tuple(LabelSelector.parse(text) for text in texts or ())


def text_of(file: Path) -> str:
    """Return what a file holds, as text."""
    from clusterguard.errors import ConfigError

    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def stamp(moment: datetime | None) -> str:
    """Return a moment as it stands in tables, or an empty text."""
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
