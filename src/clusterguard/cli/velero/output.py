"""What the commands about Velero print."""

from __future__ import annotations

import json
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clusterguard.velero.resources import VeleroObject

__all__ = ["COULD_NOT_TELL", "NO", "confirm", "print_json", "show"]

NO = 1  # the answer is no: it failed, partially failed, or has findings
COULD_NOT_TELL = 2  # what would answer could not be read


def print_json(document: object) -> None:
    """Print a document as JSON."""
    typer.echo(json.dumps(document, indent=2))


def show(found: Sequence[VeleroObject], columns: Mapping[str, str | Callable[[Any], object]], *, as_json: bool) -> None:
    """Print objects as a table, or as JSON.

    Args:
        found: The objects.
        columns: The attribute of each column, or what returns its value.
        as_json: Print the manifests.
    """
    from rich.table import Table
    from rich.text import Text

    from clusterguard.terminal import out

    if as_json:
        print_json([dict(each.manifest) for each in found])
        return
    table = Table(*columns, box=None, pad_edge=False)
    values = [attrgetter(value) if isinstance(value, str) else value for value in columns.values()]
    for each in found:
        table.add_row(*(Text(_cell(value(each))) for value in values))
    out.print(table if found else "there are none")


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")


def confirm(loss: str, *, yes: bool) -> None:
    """Say what is about to be lost, and ask, unless that was answered on the command line."""
    from clusterguard.terminal import err

    if not yes:
        err.print(loss, style="yellow", markup=False, soft_wrap=True)
        typer.confirm("Go on?", abort=True, err=True)
