"""``clusterguard velero schedule``: backups that are made again and again."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterguard.cli.options import with_options
from clusterguard.cli.velero.options import (
    BackupFlags,
    JsonOption,
    NameArgument,
    NewNameArgument,
    ServerFlags,
    YesOption,
)
from clusterguard.cli.velero.shared import confirm, show, stamp

__all__ = ["app"]

app = typer.Typer(name="schedule", help="Backups that are made again and again.", no_args_is_help=True)


@app.command("create")
@with_options
def create_schedule(
    name: NewNameArgument,
    schedule: Annotated[str, typer.Option(help="When, in UTC: '0 3 * * *' or '@every 6h'.")],
    server: ServerFlags,
    flags: BackupFlags,
    paused: Annotated[bool, typer.Option("--paused", help="Make no backups yet.")] = False,
    skip_immediately: Annotated[
        bool | None, typer.Option("--skip-immediately/--start-immediately", help="Whether the first one waits.")
    ] = None,
    own_backups: Annotated[
        bool, typer.Option("--use-owner-references-in-backup", help="Its Backup objects go with it.")
    ] = False,
) -> None:
    """Create a schedule, and return once the server has accepted it."""
    from clusterguard.terminal import out

    options = flags.options()
    with server.client() as velero:
        made = velero.create_schedule(
            name, schedule, options, paused=paused, skip_immediately=skip_immediately, own_backups=own_backups
        )
    out.print(f"schedule {name} is {'paused' if made.paused else made.phase}", markup=False)


@app.command("list")
@with_options
def list_schedules(server: ServerFlags, as_json: JsonOption = False) -> None:
    """Show the schedules."""
    with server.client() as velero:
        found = velero.schedules()
    rows: list[tuple[str, ...]] = [
        (each.name, each.cron, "paused" if each.paused else str(each.phase), stamp(each.last_backup)) for each in found
    ]
    show(found, ("name", "when (UTC)", "state", "last backup (UTC)"), rows, as_json=as_json)


@app.command("pause")
@with_options
def pause_schedule(name: NameArgument, server: ServerFlags) -> None:
    """Let a schedule make no backups."""
    from clusterguard.terminal import out

    with server.client() as velero:
        velero.pause_schedule(name)
    out.print(f"schedule {name} is paused", markup=False)


@app.command("unpause")
@with_options
def unpause_schedule(name: NameArgument, server: ServerFlags) -> None:
    """Let a schedule make backups again."""
    from clusterguard.terminal import out

    with server.client() as velero:
        velero.unpause_schedule(name)
    out.print(f"schedule {name} makes backups", markup=False)


@app.command("delete")
@with_options
def delete_schedule(name: NameArgument, server: ServerFlags, yes: YesOption = False) -> None:
    """Delete a schedule; its backups stay."""
    from clusterguard.terminal import out

    with server.client() as velero:
        velero.schedule(name)
        confirm(f"Schedule {name} goes; its backups stay, unless it owns them.", yes=yes)
        velero.delete_schedule(name)
    out.print(f"schedule {name} is deleted", markup=False)
