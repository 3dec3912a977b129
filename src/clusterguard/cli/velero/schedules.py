"""``clusterguard velero schedule``: backups that the server makes at fixed times."""

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
from clusterguard.cli.velero.output import confirm, show

__all__ = ["app"]

app = typer.Typer(name="schedule", help="Backups at fixed times.", no_args_is_help=True)


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
        bool, typer.Option("--use-owner-references-in-backup", help="Its Backup objects are deleted with it.")
    ] = False,
) -> None:
    """Create a schedule, and return once the server has accepted it."""
    from clusterguard.velero import BackupOptions

    options = BackupOptions(**flags.given())
    with server.client() as velero:
        made = velero.create_schedule(
            name, schedule, options, paused=paused, skip_immediately=skip_immediately, own_backups=own_backups
        )
    typer.echo(f"schedule {name} is {'paused' if made.paused else made.phase}")


@app.command("list")
@with_options
def list_schedules(server: ServerFlags, as_json: JsonOption = False) -> None:
    """Show the schedules."""
    columns = {
        "name": lambda each: each.name,
        "when (UTC)": lambda each: each.cron,
        "state": lambda each: "paused" if each.paused else each.phase,
        "last backup (UTC)": lambda each: each.last_backup,
    }
    with server.client() as velero:
        show(velero.schedules(), columns, as_json=as_json)


@app.command("pause")
@with_options
def pause_schedule(name: NameArgument, server: ServerFlags) -> None:
    """Stop a schedule from making backups."""
    with server.client() as velero:
        velero.pause_schedule(name)
    typer.echo(f"schedule {name} is paused")


@app.command("unpause")
@with_options
def unpause_schedule(name: NameArgument, server: ServerFlags) -> None:
    """Let a paused schedule make backups again."""
    with server.client() as velero:
        velero.unpause_schedule(name)
    typer.echo(f"schedule {name} is unpaused")


@app.command("delete")
@with_options
def delete_schedule(name: NameArgument, server: ServerFlags, yes: YesOption = False) -> None:
    """Delete a schedule; its backups stay."""
    with server.client() as velero:
        velero.schedule(name)
        confirm(f"Deletes schedule {name}; its backups stay, unless it owns them.", yes=yes)
        velero.delete_schedule(name)
    typer.echo(f"schedule {name} deleted")
