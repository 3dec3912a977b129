"""``clusterguard velero backup``: make, show and delete backups."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterguard.cli.options import with_options
from clusterguard.cli.velero.options import (
    BackupFlags,
    DownloadFlags,
    JsonOption,
    NameArgument,
    NewNameArgument,
    ServerFlags,
    TimeoutOption,
    WaitOption,
    YesOption,
)
from clusterguard.cli.velero.shared import confirm, finish, print_lines, show, stamp, tell

__all__ = ["app"]

app = typer.Typer(name="backup", help="Backups.", no_args_is_help=True)


@app.command("create")
@with_options
def create_backup(
    name: NewNameArgument,
    server: ServerFlags,
    from_schedule: Annotated[str, typer.Option(help="Take the options of this schedule.")] = "",
    *,
    flags: BackupFlags,
    wait: WaitOption = True,
    timeout: TimeoutOption = "4h",
    as_json: JsonOption = False,
) -> None:
    """Make a backup. Exit code 1: it failed, partially failed, or has findings."""
    if from_schedule and flags.given:
        from clusterguard.errors import ConfigError

        raise ConfigError("a backup from a schedule takes its options: give either, not both")
    options = None if from_schedule else flags.options()
    with server.client() as velero:
        backup = velero.back_up(name, options, from_schedule=from_schedule, wait=False)
        finish(velero, backup, wait=wait, timeout=timeout, as_json=as_json)


@app.command("list")
@with_options
def list_backups(server: ServerFlags, as_json: JsonOption = False) -> None:
    """Show the backups that the server knows, oldest first."""
    with server.client() as velero:
        found = velero.backups()
    rows = [
        (
            each.name,
            str(each.phase),
            str(each.errors),
            str(each.warnings),
            f"{each.progress.done:,}",
            stamp(each.started),
            stamp(each.expires),
            each.storage_location,
        )
        for each in found
    ]
    columns = ("name", "phase", "errors", "warnings", "objects", "started (UTC)", "expires (UTC)", "location")
    show(found, columns, rows, as_json=as_json)


@app.command("describe")
@with_options
def describe_backup(
    name: NameArgument,
    server: ServerFlags,
    download: DownloadFlags,
    as_json: JsonOption = False,
) -> None:
    """Tell everything about a backup, and judge it. Exit code 1: it has findings."""
    with server.client(download) as velero:
        tell(velero, velero.backup(name), as_json=as_json)


@app.command("logs")
@with_options
def backup_logs(name: NameArgument, server: ServerFlags, download: DownloadFlags) -> None:
    """Print the log of a backup."""
    with server.client(download) as velero:
        print_lines(velero.logs(velero.backup(name)))


@app.command("delete")
@with_options
def delete_backup(name: NameArgument, server: ServerFlags, yes: YesOption = False) -> None:
    """Delete a backup for good: in the bucket, its snapshots, and the records of its restores."""
    from clusterguard.terminal import out

    with server.client() as velero:
        velero.backup(name)
        confirm(f"Backup {name} goes for good, from the bucket, too.", yes=yes)
        velero.delete_backup(name)
    out.print(f"backup {name} is deleted", markup=False)
