"""``clusterguard velero restore``: restore backups, and show what came of it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from clusterguard.cli.options import with_options
from clusterguard.cli.velero.options import (
    AnnotationsOption,
    DownloadFlags,
    JsonOption,
    LabelsOption,
    NameArgument,
    OperationTimeoutOption,
    SelectionFlags,
    ServerFlags,
    TimeoutOption,
    WaitOption,
    Words,
    YesOption,
)
from clusterguard.cli.velero.shared import confirm, duration, finish, pairs, print_lines, show, stamp, tell

__all__ = ["app"]

app = typer.Typer(name="restore", help="Restores.", no_args_is_help=True)


@app.command("create")
@with_options
def create_restore(
    server: ServerFlags,
    name: Annotated[str, typer.Argument(help="What to call it; by default the backup's name and the time.")] = "",
    from_backup: Annotated[str, typer.Option(help="The backup.")] = "",
    from_schedule: Annotated[str, typer.Option(help="The schedule whose latest backup it is.")] = "",
    *,
    flags: SelectionFlags,
    namespace_mappings: Annotated[Words, typer.Option(help="OLD:NEW name of a namespace.")] = None,
    existing_resource_policy: Annotated[
        Literal["", "none", "update"], typer.Option(help="What becomes of objects that exist and differ.")
    ] = "",
    restore_volumes: Annotated[bool | None, typer.Option("--restore-volumes/--no-restore-volumes")] = None,
    preserve_nodeports: Annotated[bool | None, typer.Option("--preserve-nodeports/--no-preserve-nodeports")] = None,
    status_include_resources: Annotated[Words, typer.Option(help="Kinds whose status is restored, too.")] = None,
    status_exclude_resources: Annotated[Words, typer.Option(help="Kinds whose status is not.")] = None,
    resource_modifier: Annotated[
        str, typer.Option("--resource-modifier-configmap", help="ConfigMap with patches to apply.")
    ] = "",
    resource_policies: Annotated[
        str, typer.Option("--resource-policies-configmap", help="ConfigMap with filters.")
    ] = "",
    write_sparse_files: Annotated[bool | None, typer.Option("--write-sparse-files/--no-write-sparse-files")] = None,
    parallel_files_download: Annotated[int | None, typer.Option(help="Files of one volume at a time.")] = None,
    item_operation_timeout: OperationTimeoutOption = "",
    label: LabelsOption = None,
    annotation: AnnotationsOption = None,
    wait: WaitOption = True,
    timeout: TimeoutOption = "4h",
    as_json: JsonOption = False,
) -> None:
    """Restore a backup. Exit code 1: it failed, partially failed, did nothing, or has other findings."""
    from clusterguard.velero import RestoreOptions

    options = RestoreOptions(
        **flags.selection(),
        namespace_mapping=pairs(namespace_mappings, "--namespace-mappings", sign=":") or None,
        restore_volumes=restore_volumes,
        status_included_resources=tuple(status_include_resources or ()),
        status_excluded_resources=tuple(status_exclude_resources or ()),
        preserve_node_ports=preserve_nodeports,
        existing_resource_policy=existing_resource_policy,
        item_operation_timeout=duration(item_operation_timeout, "--item-operation-timeout"),
        resource_modifier=resource_modifier,
        resource_policy=resource_policies,
        write_sparse_files=write_sparse_files,
        parallel_files_download=parallel_files_download,
        labels=pairs(label, "--label"),
        annotations=pairs(annotation, "--annotation"),
    )
    with server.client() as velero:
        restore = velero.restore(from_backup, options, schedule=from_schedule, name=name, wait=False)
        finish(velero, restore, wait=wait, timeout=timeout, as_json=as_json)


@app.command("list")
@with_options
def list_restores(server: ServerFlags, as_json: JsonOption = False) -> None:
    """Show the restores that the server knows, oldest first."""
    with server.client() as velero:
        found = velero.restores()
    rows = [
        (
            each.name,
            each.backup_name,
            str(each.phase),
            str(each.errors),
            str(each.warnings),
            f"{each.progress.done:,}",
            stamp(each.started),
            stamp(each.completed),
        )
        for each in found
    ]
    columns = ("name", "backup", "phase", "errors", "warnings", "objects", "started (UTC)", "ended (UTC)")
    show(found, columns, rows, as_json=as_json)


@app.command("describe")
@with_options
def describe_restore(
    name: NameArgument,
    server: ServerFlags,
    download: DownloadFlags,
    as_json: JsonOption = False,
) -> None:
    """Tell everything about a restore, and judge it. Exit code 1: it has findings."""
    with server.client(download) as velero:
        tell(velero, velero.get_restore(name), as_json=as_json)


@app.command("logs")
@with_options
def restore_logs(name: NameArgument, server: ServerFlags, download: DownloadFlags) -> None:
    """Print the log of a restore."""
    with server.client(download) as velero:
        print_lines(velero.logs(velero.get_restore(name)))


@app.command("delete")
@with_options
def delete_restore(name: NameArgument, server: ServerFlags, yes: YesOption = False) -> None:
    """Delete the record of a restore; what it restored stays."""
    from clusterguard.terminal import out

    with server.client() as velero:
        velero.get_restore(name)
        confirm(f"The record of restore {name} goes, with its log; what it restored stays.", yes=yes)
        velero.delete_restore(name)
    out.print(f"the record of restore {name} is deleted", markup=False)
