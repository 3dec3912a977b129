"""``clusterguard toolchain``: which programs are there, and getting the ones that are not."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from clusterguard.toolchain import ProgramStatus

__all__ = ["app"]

app = typer.Typer(
    name="toolchain",
    help="The programs that clusterguard runs: etcd, kube-apiserver, ….",
    no_args_is_help=True,
)


@app.command("list")
def list_programs(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object for each program.")] = False,
) -> None:
    """Show where each program is, or how it would be obtained. Downloads and compiles nothing."""
    from clusterguard.toolchain import from_environment  # slow, and no other command needs it

    statuses = from_environment(os.environ).list()
    if as_json:
        typer.echo(json.dumps([asdict(status) for status in statuses], default=str, indent=2))
        return

    from clusterguard.terminal import out

    out.print(_table(statuses))
    for status in statuses:
        for remark in _remarks(status):
            out.print(f"{status.name}: {remark}", style="yellow", markup=False, highlight=False)


@app.command("install")
def install_programs(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Programs to install; by default those of an embedded cluster."),
    ] = None,
) -> None:
    """Download programs that are missing, or compile them where downloads cannot be reached."""
    from clusterguard.terminal import out, progress_sink
    from clusterguard.toolchain import from_environment

    with progress_sink() as progress:
        paths = from_environment(os.environ, progress=progress).ensure(*(names or embedded()))
    for name, path in paths.items():
        out.print(f"{name}  {path}", markup=False, highlight=False, soft_wrap=True)


def embedded() -> tuple[str, ...]:
    """Return the programs of an embedded cluster."""
    from clusterguard.toolchain import PROGRAMS

    wanted = (program for program in PROGRAMS.values() if not program.is_other_version)
    return tuple(each.name for each in wanted if each.name == "kwok" or each.name.startswith(("etcd", "kube-")))


def _table(statuses: Iterable[ProgramStatus]) -> Table:
    from rich.table import Table

    table = Table("program", "version", "from", "where, or how it would be obtained", box=None, pad_edge=False)
    for status in statuses:
        table.add_row(status.name, *_cells(status))
    return table


def _cells(status: ProgramStatus) -> tuple[str, str, str]:
    if status.found:
        return status.found.version or "unknown", status.found.source.value, str(status.found.path)
    how = ", else ".join(status.otherwise) or "nowhere: no source is allowed that has it"
    return status.wanted, "wrong" if status.problem else "missing", how


def _remarks(status: ProgramStatus) -> tuple[str, ...]:
    problem = (status.problem,) if status.problem else ()
    return *problem, *status.passed_over
