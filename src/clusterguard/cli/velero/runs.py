"""``clusterguard velero backup`` and ``restore``: make them, and show and judge what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import with_options
from clusterguard.cli.velero.options import (
    BackupFlags,
    DownloadFlags,
    JsonOption,
    NameArgument,
    NewNameArgument,
    RestoreFlags,
    ServerFlags,
    TimeoutOption,
    TolerateOption,
    WaitOption,
    YesOption,
)
from clusterguard.cli.velero.output import COULD_NOT_TELL, NO, confirm, print_json, show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import timedelta

    from clusterguard.velero.client import VeleroClient
    from clusterguard.velero.findings import Rule
    from clusterguard.velero.resources import Backup, Restore

__all__ = ["backups", "restores"]

backups = typer.Typer(name="backup", help="Backups.", no_args_is_help=True)
restores = typer.Typer(name="restore", help="Restores.", no_args_is_help=True)


@backups.command("create")
@with_options
def create_backup(
    name: NewNameArgument,
    server: ServerFlags,
    from_schedule: Annotated[str, typer.Option(help="Take the options of this schedule.")] = "",
    *,
    flags: BackupFlags,
    wait: WaitOption = True,
    timeout: TimeoutOption = "4h",
    tolerate: TolerateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a backup. Exit code 1: it failed, partially failed, or has findings."""
    from clusterguard.velero import BackupOptions

    given = flags.given()
    options = BackupOptions(**given) if given or not from_schedule else None
    with server.client() as velero:
        backup = velero.back_up(name, options, from_schedule=from_schedule, wait=False)
        _finish(velero, backup, wait=wait, timeout=timeout, tolerate=tolerate, as_json=as_json)


@restores.command("create")
@with_options
def create_restore(
    server: ServerFlags,
    name: Annotated[str, typer.Argument(help="What to call it; by default the backup's name and the time.")] = "",
    from_backup: Annotated[str, typer.Option(help="The backup.")] = "",
    from_schedule: Annotated[str, typer.Option(help="The schedule whose latest backup it is.")] = "",
    *,
    flags: RestoreFlags,
    wait: WaitOption = True,
    timeout: TimeoutOption = "4h",
    tolerate: TolerateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup. Exit code 1: it failed, partially failed, did nothing, or has other findings."""
    from clusterguard.velero import RestoreOptions

    options = RestoreOptions(**flags.given())
    with server.client() as velero:
        restore = velero.restore(from_backup, options, schedule=from_schedule, name=name, wait=False)
        _finish(velero, restore, wait=wait, timeout=timeout, tolerate=tolerate, as_json=as_json)


def _finish(
    velero: VeleroClient,
    run: Backup | Restore,
    *,
    wait: bool,
    timeout: timedelta | None,
    tolerate: Sequence[str] | None,
    as_json: bool,
) -> None:
    """Wait for a run, judge it and print what came of it; exit with 1 if it has findings."""
    if not wait:
        print_json(dict(run.manifest)) if as_json else typer.echo(f"{run.kind.lower()} {run.name} was requested")
        return
    last = velero.wait(run, timeout_seconds=timeout.total_seconds() if timeout else 0)
    outcome = velero.outcome(last, tolerate=_rules(tolerate))
    print_json(outcome.to_dict()) if as_json else typer.echo(outcome.to_text())
    if not outcome.ok:
        raise typer.Exit(COULD_NOT_TELL if outcome.undecided else NO)


def _rules(tolerate: Sequence[str] | None) -> AbstractSet[Rule]:
    from clusterguard.velero.findings import DEFAULT_TOLERATED, Rule

    return DEFAULT_TOLERATED | {Rule(each) for each in tolerate or ()}


def _find(velero: VeleroClient, noun: str, name: str) -> Backup | Restore:
    return velero.backup(name) if noun == "backup" else velero.get_restore(name)


def _add_commands(app: typer.Typer, columns: Mapping[str, str], *, loss: str) -> None:
    """Add the commands that backups and restores have in common."""
    noun = str(app.info.name)

    @app.command("list", help=f"Show the {noun}s that the server knows, oldest first.")
    @with_options
    def list_runs(server: ServerFlags, as_json: JsonOption = False) -> None:
        with server.client() as velero:
            show(velero.backups() if noun == "backup" else velero.restores(), columns, as_json=as_json)

    @app.command("describe", help=f"Show everything about a {noun}, and judge it. Exit code 1: it has findings.")
    @with_options
    def describe(
        name: NameArgument,
        server: ServerFlags,
        download: DownloadFlags,
        tolerate: TolerateOption = None,
        as_json: JsonOption = False,
    ) -> None:
        with server.client(download) as velero:
            description = velero.describe(_find(velero, noun, name), tolerate=_rules(tolerate))
        print_json(description.to_dict()) if as_json else typer.echo(description.to_text())
        if description.facts["verdict"] != "ok":
            raise typer.Exit(NO)

    @app.command("logs", help=f"Print the log of a {noun}.")
    @with_options
    def logs(name: NameArgument, server: ServerFlags, download: DownloadFlags) -> None:
        with server.client(download) as velero:
            for line in velero.logs(_find(velero, noun, name)):
                typer.echo(line)

    @app.command("delete", help=f"Delete a {noun}: {loss}.")
    @with_options
    def delete(name: NameArgument, server: ServerFlags, yes: YesOption = False) -> None:
        with server.client() as velero:
            run = _find(velero, noun, name)
            confirm(f"Deletes {noun} {name}: {loss}.", yes=yes)
            (velero.delete_backup if noun == "backup" else velero.delete_restore)(run.name)
        typer.echo(f"{noun} {name} deleted")


_COUNTS = {"phase": "phase", "errors": "errors", "warnings": "warnings", "objects": "progress.done"}
_add_commands(
    backups,
    {"name": "name", **_COUNTS, "started (UTC)": "started", "expires (UTC)": "expires", "location": "storage_location"},
    loss="its files in the bucket, its snapshots, and the records of its restores",
)
_add_commands(
    restores,
    {"name": "name", "backup": "backup_name", **_COUNTS, "started (UTC)": "started", "ended (UTC)": "completed"},
    loss="its record and its log; the restored objects stay",
)
