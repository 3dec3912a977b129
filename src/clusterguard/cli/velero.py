"""``clusterguard velero``: install it, make backups and restores, and hear what really came of them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clusterguard.cli.options import ClusterOption, KubeconfigOption, opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, timedelta

    from clusterguard.model.backup import Backup, Restore, VeleroObject
    from clusterguard.model.backup_options import BackupOptions, LabelSelector
    from clusterguard.velero.client import VeleroClient

__all__ = ["app"]

_NO = 1  # the answer is no: it failed, partially failed, or has findings

app = typer.Typer(name="velero", help="Velero: backups and restores of API objects.", no_args_is_help=True)
location_app = typer.Typer(name="location", help="Where backups rest.", no_args_is_help=True)
backup_app = typer.Typer(name="backup", help="Backups.", no_args_is_help=True)
restore_app = typer.Typer(name="restore", help="Restores.", no_args_is_help=True)
schedule_app = typer.Typer(name="schedule", help="Backups that are made again and again.", no_args_is_help=True)
for _part in (location_app, backup_app, restore_app, schedule_app):
    app.add_typer(_part)

_Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="The namespace that Velero works in.", envvar="VELERO_NAMESPACE")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended, and judge it.")]
_Timeout = Annotated[str, typer.Option("--timeout", help="How long to wait, such as 90s or 1h30m.")]
_Words = list[str] | None
_Name = Annotated[str, typer.Argument(help="Its name.")]
_NewName = Annotated[str, typer.Argument(help="What to call it.")]
_DownloadCa = Annotated[Path | None, typer.Option("--cacert", help="The CA of the object store, as PEM.")]
_Insecure = Annotated[
    bool, typer.Option("--insecure-skip-tls-verify", help="Trust any certificate of the object store.")
]

# Options of what to back up; `backup create` and `schedule create` share them.
_IncludeNamespaces = Annotated[_Words, typer.Option("--include-namespaces", help="Only this namespace.")]
_ExcludeNamespaces = Annotated[_Words, typer.Option("--exclude-namespaces", help="Not this namespace.")]
_IncludeResources = Annotated[_Words, typer.Option("--include-resources", help="Only this kind: deployments.apps.")]
_ExcludeResources = Annotated[_Words, typer.Option("--exclude-resources", help="Not this kind.")]
_ClusterResources = Annotated[
    bool | None,
    typer.Option("--include-cluster-resources/--exclude-cluster-resources", help="Objects without a namespace."),
]
_Selector = Annotated[str, typer.Option("--selector", "-l", help="Only objects with these labels.")]
_OrSelectors = Annotated[
    _Words, typer.Option("--or-selector", help="Only objects that one of these selectors matches.")
]
_Labels = Annotated[_Words, typer.Option("--label", help="KEY=VALUE to put on it.")]
_Annotations = Annotated[_Words, typer.Option("--annotation", help="KEY=VALUE to put on it.")]
_Ttl = Annotated[str, typer.Option("--ttl", help="How long Velero keeps it, such as 72h.")]
_Location = Annotated[str, typer.Option("--storage-location", help="Where it rests; by default the default location.")]
_SnapshotLocations = Annotated[_Words, typer.Option("--volume-snapshot-locations", help="Where snapshots go.")]
_SnapshotVolumes = Annotated[bool | None, typer.Option("--snapshot-volumes/--no-snapshot-volumes")]
_MoveData = Annotated[bool | None, typer.Option("--snapshot-move-data/--no-snapshot-move-data")]
_FsBackup = Annotated[bool | None, typer.Option("--default-volumes-to-fs-backup/--no-default-volumes-to-fs-backup")]
_Ordered = Annotated[
    _Words, typer.Option("--ordered-resources", help="KIND=NAMESPACE/NAME,… to back up in this order.")
]
_Policies = Annotated[str, typer.Option("--resource-policies-configmap", help="ConfigMap with rules for volumes.")]
_OperationTimeout = Annotated[str, typer.Option("--item-operation-timeout", help="For the work of plugins.")]
_IncludeClusterScoped = Annotated[_Words, typer.Option("--include-cluster-scoped-resources")]
_ExcludeClusterScoped = Annotated[_Words, typer.Option("--exclude-cluster-scoped-resources")]
_IncludeNamespaceScoped = Annotated[_Words, typer.Option("--include-namespace-scoped-resources")]
_ExcludeNamespaceScoped = Annotated[_Words, typer.Option("--exclude-namespace-scoped-resources")]
_CsiTimeout = Annotated[str, typer.Option("--csi-snapshot-timeout", help="For a CSI snapshot.")]
_DataMover = Annotated[str, typer.Option("--data-mover", help="Who moves the data of snapshots.")]
_Parallel = Annotated[int | None, typer.Option("--parallel-files-upload", help="Files of one volume at a time.")]


# ---- the server --------------------------------------------------------------------------------------------


@app.command("install")
def install_velero(
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    image: Annotated[str, typer.Option(help="Of the server; by default that of the program's version.")] = "",
    plugins: Annotated[_Words, typer.Option("--plugin", help="Image of a plugin.")] = None,
    provider: Annotated[str, typer.Option(help="Of the first location, such as aws.")] = "",
    bucket: Annotated[str, typer.Option(help="Of the first location; without it none is made.")] = "",
    prefix: Annotated[str, typer.Option(help="The part of the bucket that is Velero's.")] = "",
    config: Annotated[_Words, typer.Option("--config", help="KEY=VALUE of the location, such as region=….")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="Credentials; without it the server has a role.")] = None,
    ca: Annotated[Path | None, typer.Option("--cacert", help="The CA of the object store, as PEM.")] = None,
    use_node_agent: Annotated[bool, typer.Option("--use-node-agent", help="For backups of volumes' files.")] = False,
    volume_snapshots: Annotated[bool, typer.Option("--volume-snapshots", help="Make a snapshot location.")] = False,
    snapshot_config: Annotated[_Words, typer.Option(help="KEY=VALUE of the snapshot location.")] = None,
    fs_backup: Annotated[bool, typer.Option("--default-volumes-to-fs-backup")] = False,
    features: Annotated[_Words, typer.Option("--feature", help="Such as EnableCSI.")] = None,
    sa_annotations: Annotated[_Words, typer.Option("--sa-annotation", help="KEY=VALUE of its ServiceAccount.")] = None,
    server_args: Annotated[_Words, typer.Option("--server-arg", help="Further argument of the server.")] = None,
    replicas: Annotated[int, typer.Option(help="0 where the server runs elsewhere.")] = 1,
    definitions_only: Annotated[bool, typer.Option("--crds-only", help="Only the definitions.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the objects as JSON, and do nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until its pods are ready.")] = True,
) -> None:
    """Install Velero, or bring an installed one to this version and these options."""
    import os

    from clusterguard.terminal import out, progress_sink
    from clusterguard.toolchain import from_environment
    from clusterguard.velero.install import InstallOptions, install, render

    options = InstallOptions(
        namespace=namespace,
        image=image,
        plugins=tuple(plugins or ()),
        provider=provider,
        bucket=bucket,
        prefix=prefix,
        location_config=_pairs(config, "--config"),
        snapshot_location_config=_pairs(snapshot_config, "--snapshot-config"),
        volume_snapshots=volume_snapshots,
        credentials=_text_of(secret_file) if secret_file else None,
        ca=_text_of(ca) if ca else "",
        node_agent=use_node_agent,
        default_volumes_to_fs_backup=fs_backup,
        features=tuple(features or ()),
        service_account_annotations=_pairs(sa_annotations, "--sa-annotation"),
        server_args=tuple(server_args or ()),
        replicas=replicas,
        definitions_only=definitions_only,
    )
    with progress_sink() as progress:
        program = from_environment(os.environ, progress=progress).ensure("velero")["velero"]
        if dry_run:
            typer.echo(json.dumps({"kind": "List", "apiVersion": "v1", "items": render(options, velero=program)}))
            return
        with opened(cluster, kubeconfig=kubeconfig, progress=progress) as target:
            done = install(
                options, api=target.api, velero=program, wait_seconds=300 if wait else None, progress=progress
            )
    out.print(f"Velero is installed in namespace {namespace}: {len(done.objects)} objects", markup=False)


@app.command("uninstall")
def uninstall_velero(
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    yes: _Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove Velero and all of its objects from the cluster; the bucket keeps the backups."""
    from clusterguard.terminal import err, out, progress_sink
    from clusterguard.velero.install import uninstall

    with progress_sink() as progress, opened(cluster, kubeconfig=kubeconfig, progress=progress) as target:
        planned = uninstall(api=target.api, namespace=namespace, dry_run=True)
        if dry_run or not planned.objects:
            out.print("\n".join(planned.objects) or f"there is no Velero in namespace {namespace}", markup=False)
            return
        if not yes:
            err.print(f"{len(planned.objects)} objects of Velero go; backups stay in their bucket.", style="yellow")
            typer.confirm("Uninstall?", abort=True, err=True)
        done = uninstall(api=target.api, namespace=namespace, progress=progress)
    out.print(f"removed {len(done.objects)} objects", markup=False)
    for each in done.finalizers:
        err.print(f"took the finalizer off {each}: its files stay in the bucket", style="yellow", markup=False)
    for each in done.kept:
        err.print(f"left {each}", style="yellow", markup=False, soft_wrap=True)


@app.command()
def status(
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    as_json: _Json = False,
) -> None:
    """Ask the server whether it lives, and what it is."""
    from clusterguard.terminal import out

    with _client(cluster, kubeconfig, namespace) as velero:
        velero.require_installed()
        answer = velero.status()
        locations = velero.locations.list()
    if as_json:
        plugins = [{"name": each.name, "kind": each.kind} for each in answer.plugins]
        document = {"version": answer.version, "plugins": plugins, "locations": [dict(x.manifest) for x in locations]}
        typer.echo(json.dumps(document, indent=2))
        return
    stores = sorted({each.name for each in answer.plugins if each.kind == "ObjectStore"})
    out.print(
        f"Velero {answer.version} answers in namespace {namespace}\n"
        f"object stores: {', '.join(stores) or 'none: a plugin is missing'}\n"
        f"locations: {', '.join(f'{each.name} ({each.phase})' for each in locations) or 'none'}",
        markup=False,
        soft_wrap=True,
    )


# ---- locations ---------------------------------------------------------------------------------------------


@location_app.command("create")
def create_location(
    name: _NewName,
    bucket: Annotated[str, typer.Option(help="The bucket; it must exist.")],
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    prefix: Annotated[str, typer.Option(help="The part of the bucket that is Velero's.")] = "",
    provider: Annotated[str, typer.Option(help="The plugin that reaches it.")] = "aws",
    config: Annotated[_Words, typer.Option("--config", help="KEY=VALUE, such as region=… or s3Url=….")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="Credentials of its own, in a file.")] = None,
    credential: Annotated[str, typer.Option(help="Credentials of its own: SECRET=KEY.")] = "",
    ca: Annotated[Path | None, typer.Option("--cacert", help="The CA of the object store, as PEM.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Backups go here unless they say otherwise.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Restore only.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until Velero has looked at it.")] = True,
) -> None:
    """Create a location, and return once Velero can use it."""
    from clusterguard.terminal import out
    from clusterguard.velero import LocationSpec

    pairs = _pairs([credential] if credential else None, "--credential")
    spec = LocationSpec(
        bucket=bucket,
        prefix=prefix,
        provider=provider,
        config=_pairs(config, "--config"),
        credentials=_text_of(secret_file) if secret_file else None,
        credential=next(iter(pairs.items()), None),
        ca=_text_of(ca) if ca else "",
        default=default,
        read_only=read_only,
    )
    with _client(cluster, kubeconfig, namespace) as velero:
        made = velero.locations.create(name, spec, wait=wait)
    out.print(f"location {name} is {made.phase}", markup=False)


@location_app.command("list")
def list_locations(
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    as_json: _Json = False,
) -> None:
    """Show the locations."""
    with _client(cluster, kubeconfig, namespace) as velero:
        found = velero.locations.list()
    rows = [
        (
            each.name,
            f"{each.bucket}/{each.prefix}".rstrip("/"),
            str(each.phase),
            "read-only" if each.read_only else "read-write",
            "default" if each.default else "",
            _stamp(each.last_validated),
            each.message,
        )
        for each in found
    ]
    _show(found, ("name", "bucket", "phase", "access", "", "seen (UTC)", "message"), rows, as_json=as_json)


@location_app.command("set")
def set_location(
    name: _Name,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    default: Annotated[bool, typer.Option("--default", help="Backups go here unless they say otherwise.")] = False,
    read_only: Annotated[bool | None, typer.Option("--read-only/--read-write")] = None,
) -> None:
    """Change a location."""
    from clusterguard.terminal import out

    with _client(cluster, kubeconfig, namespace) as velero:
        if default:
            velero.locations.set_default(name)
        if read_only is not None:
            velero.locations.set_read_only(name, read_only=read_only)
        now = velero.locations.get(name)
    access = "read-only" if now.read_only else "read-write"
    out.print(f"location {name} is {access}{', the default one' if now.default else ''}", markup=False)


@location_app.command("delete")
def delete_location(
    name: _Name,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    yes: _Yes = False,
) -> None:
    """Delete a location and its Backup objects; the bucket keeps everything."""
    from clusterguard.terminal import out

    with _client(cluster, kubeconfig, namespace) as velero:
        velero.locations.get(name)
        _confirm(f"Velero forgets location {name} and the backups in it; the bucket keeps them.", yes=yes)
        deleted = velero.locations.delete(name)
    out.print("deleted " + ", ".join(deleted), markup=False, soft_wrap=True)


# ---- backups -----------------------------------------------------------------------------------------------


@backup_app.command("create")
def create_backup(
    name: _NewName,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    from_schedule: Annotated[str, typer.Option(help="Take the options of this schedule.")] = "",
    include_namespaces: _IncludeNamespaces = None,
    exclude_namespaces: _ExcludeNamespaces = None,
    include_resources: _IncludeResources = None,
    exclude_resources: _ExcludeResources = None,
    include_cluster_resources: _ClusterResources = None,
    include_cluster_scoped_resources: _IncludeClusterScoped = None,
    exclude_cluster_scoped_resources: _ExcludeClusterScoped = None,
    include_namespace_scoped_resources: _IncludeNamespaceScoped = None,
    exclude_namespace_scoped_resources: _ExcludeNamespaceScoped = None,
    selector: _Selector = "",
    or_selector: _OrSelectors = None,
    label: _Labels = None,
    annotation: _Annotations = None,
    ttl: _Ttl = "",
    storage_location: _Location = "",
    volume_snapshot_locations: _SnapshotLocations = None,
    snapshot_volumes: _SnapshotVolumes = None,
    snapshot_move_data: _MoveData = None,
    data_mover: _DataMover = "",
    default_volumes_to_fs_backup: _FsBackup = None,
    ordered_resources: _Ordered = None,
    resource_policies: _Policies = "",
    csi_snapshot_timeout: _CsiTimeout = "",
    item_operation_timeout: _OperationTimeout = "",
    parallel_files_upload: _Parallel = None,
    wait: _Wait = True,
    timeout: _Timeout = "4h",
    as_json: _Json = False,
) -> None:
    """Make a backup. Exit code 1: it failed, partially failed, or has findings."""
    options = _backup_options(locals())
    if from_schedule and any(value not in _NOTHING for value in options.values()):
        from clusterguard.errors import ConfigError

        raise ConfigError("a backup from a schedule takes its options: give either, not both")
    with _client(cluster, kubeconfig, namespace) as velero:
        backup = velero.back_up(
            name, None if from_schedule else _made(options), from_schedule=from_schedule, wait=False
        )
        _finish(velero, backup, wait=wait, timeout=timeout, as_json=as_json)


@backup_app.command("list")
def list_backups(
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    as_json: _Json = False,
) -> None:
    """Show the backups that the server knows, oldest first."""
    with _client(cluster, kubeconfig, namespace) as velero:
        found = velero.backups()
    rows = [
        (
            each.name,
            str(each.phase),
            str(each.errors),
            str(each.warnings),
            f"{each.progress.done:,}",
            _stamp(each.started),
            _stamp(each.expires),
            each.storage_location,
        )
        for each in found
    ]
    columns = ("name", "phase", "errors", "warnings", "objects", "started (UTC)", "expires (UTC)", "location")
    _show(found, columns, rows, as_json=as_json)


@backup_app.command("describe")
def describe_backup(
    name: _Name,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    ca: _DownloadCa = None,
    insecure: _Insecure = False,
    as_json: _Json = False,
) -> None:
    """Tell everything about a backup, and judge it. Exit code 1: it has findings."""
    with _client(cluster, kubeconfig, namespace, ca=ca, insecure=insecure) as velero:
        _tell(velero, velero.backup(name), as_json=as_json)


@backup_app.command("logs")
def backup_logs(
    name: _Name,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    ca: _DownloadCa = None,
    insecure: _Insecure = False,
) -> None:
    """Print the log of a backup."""
    with _client(cluster, kubeconfig, namespace, ca=ca, insecure=insecure) as velero:
        _print_lines(velero.logs(velero.backup(name)))


@backup_app.command("delete")
def delete_backup(
    name: _Name,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    yes: _Yes = False,
) -> None:
    """Delete a backup for good: in the bucket, its snapshots, and the records of its restores."""
    from clusterguard.terminal import out

    with _client(cluster, kubeconfig, namespace) as velero:
        velero.backup(name)
        _confirm(f"Backup {name} goes for good, from the bucket, too.", yes=yes)
        velero.delete_backup(name)
    out.print(f"backup {name} is deleted", markup=False)


# ---- restores ----------------------------------------------------------------------------------------------


@restore_app.command("create")
def create_restore(
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    name: Annotated[str, typer.Argument(help="What to call it; by default the backup's name and the time.")] = "",
    from_backup: Annotated[str, typer.Option(help="The backup.")] = "",
    from_schedule: Annotated[str, typer.Option(help="The schedule whose latest backup it is.")] = "",
    include_namespaces: _IncludeNamespaces = None,
    exclude_namespaces: _ExcludeNamespaces = None,
    include_resources: _IncludeResources = None,
    exclude_resources: _ExcludeResources = None,
    include_cluster_resources: _ClusterResources = None,
    selector: _Selector = "",
    or_selector: _OrSelectors = None,
    namespace_mappings: Annotated[_Words, typer.Option(help="OLD:NEW name of a namespace.")] = None,
    existing_resource_policy: Annotated[
        Literal["", "none", "update"], typer.Option(help="What becomes of objects that exist and differ.")
    ] = "",
    restore_volumes: Annotated[bool | None, typer.Option("--restore-volumes/--no-restore-volumes")] = None,
    preserve_nodeports: Annotated[bool | None, typer.Option("--preserve-nodeports/--no-preserve-nodeports")] = None,
    status_include_resources: Annotated[_Words, typer.Option(help="Kinds whose status is restored, too.")] = None,
    status_exclude_resources: Annotated[_Words, typer.Option(help="Kinds whose status is not.")] = None,
    resource_modifier: Annotated[
        str, typer.Option("--resource-modifier-configmap", help="ConfigMap with patches to apply.")
    ] = "",
    resource_policies: Annotated[
        str, typer.Option("--resource-policies-configmap", help="ConfigMap with filters.")
    ] = "",
    write_sparse_files: Annotated[bool | None, typer.Option("--write-sparse-files/--no-write-sparse-files")] = None,
    parallel_files_download: Annotated[int | None, typer.Option(help="Files of one volume at a time.")] = None,
    item_operation_timeout: _OperationTimeout = "",
    label: _Labels = None,
    annotation: _Annotations = None,
    wait: _Wait = True,
    timeout: _Timeout = "4h",
    as_json: _Json = False,
) -> None:
    """Restore a backup. Exit code 1: it failed, partially failed, did nothing, or has other findings."""
    from clusterguard.velero import RestoreOptions

    options = RestoreOptions(
        included_namespaces=tuple(include_namespaces or ()),
        excluded_namespaces=tuple(exclude_namespaces or ()),
        included_resources=tuple(include_resources or ()),
        excluded_resources=tuple(exclude_resources or ()),
        include_cluster_resources=include_cluster_resources,
        label_selector=_selector(selector),
        or_label_selectors=_selectors(or_selector),
        namespace_mapping=_pairs(namespace_mappings, "--namespace-mappings", sign=":") or None,
        restore_volumes=restore_volumes,
        status_included_resources=tuple(status_include_resources or ()),
        status_excluded_resources=tuple(status_exclude_resources or ()),
        preserve_node_ports=preserve_nodeports,
        existing_resource_policy=existing_resource_policy,
        item_operation_timeout=_duration(item_operation_timeout, "--item-operation-timeout"),
        resource_modifier=resource_modifier,
        resource_policy=resource_policies,
        write_sparse_files=write_sparse_files,
        parallel_files_download=parallel_files_download,
        labels=_pairs(label, "--label"),
        annotations=_pairs(annotation, "--annotation"),
    )
    with _client(cluster, kubeconfig, namespace) as velero:
        restore = velero.restore(from_backup, options, schedule=from_schedule, name=name, wait=False)
        _finish(velero, restore, wait=wait, timeout=timeout, as_json=as_json)


@restore_app.command("list")
def list_restores(
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    as_json: _Json = False,
) -> None:
    """Show the restores that the server knows, oldest first."""
    with _client(cluster, kubeconfig, namespace) as velero:
        found = velero.restores()
    rows = [
        (
            each.name,
            each.backup_name,
            str(each.phase),
            str(each.errors),
            str(each.warnings),
            f"{each.progress.done:,}",
            _stamp(each.started),
            _stamp(each.completed),
        )
        for each in found
    ]
    columns = ("name", "backup", "phase", "errors", "warnings", "objects", "started (UTC)", "ended (UTC)")
    _show(found, columns, rows, as_json=as_json)


@restore_app.command("describe")
def describe_restore(
    name: _Name,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    ca: _DownloadCa = None,
    insecure: _Insecure = False,
    as_json: _Json = False,
) -> None:
    """Tell everything about a restore, and judge it. Exit code 1: it has findings."""
    with _client(cluster, kubeconfig, namespace, ca=ca, insecure=insecure) as velero:
        _tell(velero, velero.get_restore(name), as_json=as_json)


@restore_app.command("logs")
def restore_logs(
    name: _Name,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    ca: _DownloadCa = None,
    insecure: _Insecure = False,
) -> None:
    """Print the log of a restore."""
    with _client(cluster, kubeconfig, namespace, ca=ca, insecure=insecure) as velero:
        _print_lines(velero.logs(velero.get_restore(name)))


@restore_app.command("delete")
def delete_restore(
    name: _Name,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    yes: _Yes = False,
) -> None:
    """Delete the record of a restore; what it restored stays."""
    from clusterguard.terminal import out

    with _client(cluster, kubeconfig, namespace) as velero:
        velero.get_restore(name)
        _confirm(f"The record of restore {name} goes, with its log; what it restored stays.", yes=yes)
        velero.delete_restore(name)
    out.print(f"the record of restore {name} is deleted", markup=False)


# ---- schedules ---------------------------------------------------------------------------------------------


@schedule_app.command("create")
def create_schedule(
    name: _NewName,
    schedule: Annotated[str, typer.Option(help="When, in UTC: '0 3 * * *' or '@every 6h'.")],
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    include_namespaces: _IncludeNamespaces = None,
    exclude_namespaces: _ExcludeNamespaces = None,
    include_resources: _IncludeResources = None,
    exclude_resources: _ExcludeResources = None,
    include_cluster_resources: _ClusterResources = None,
    include_cluster_scoped_resources: _IncludeClusterScoped = None,
    exclude_cluster_scoped_resources: _ExcludeClusterScoped = None,
    include_namespace_scoped_resources: _IncludeNamespaceScoped = None,
    exclude_namespace_scoped_resources: _ExcludeNamespaceScoped = None,
    selector: _Selector = "",
    or_selector: _OrSelectors = None,
    label: _Labels = None,
    annotation: _Annotations = None,
    ttl: _Ttl = "",
    storage_location: _Location = "",
    volume_snapshot_locations: _SnapshotLocations = None,
    snapshot_volumes: _SnapshotVolumes = None,
    snapshot_move_data: _MoveData = None,
    data_mover: _DataMover = "",
    default_volumes_to_fs_backup: _FsBackup = None,
    ordered_resources: _Ordered = None,
    resource_policies: _Policies = "",
    csi_snapshot_timeout: _CsiTimeout = "",
    item_operation_timeout: _OperationTimeout = "",
    parallel_files_upload: _Parallel = None,
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

    options = _made(_backup_options(locals()))
    with _client(cluster, kubeconfig, namespace) as velero:
        made = velero.create_schedule(
            name, schedule, options, paused=paused, skip_immediately=skip_immediately, own_backups=own_backups
        )
    out.print(f"schedule {name} is {'paused' if made.paused else made.phase}", markup=False)


@schedule_app.command("list")
def list_schedules(
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    as_json: _Json = False,
) -> None:
    """Show the schedules."""
    with _client(cluster, kubeconfig, namespace) as velero:
        found = velero.schedules()
    rows: list[tuple[str, ...]] = [
        (each.name, each.cron, "paused" if each.paused else str(each.phase), _stamp(each.last_backup)) for each in found
    ]
    _show(found, ("name", "when (UTC)", "state", "last backup (UTC)"), rows, as_json=as_json)


@schedule_app.command("pause")
def pause_schedule(
    name: _Name, cluster: ClusterOption, kubeconfig: KubeconfigOption = None, namespace: _Namespace = "velero"
) -> None:
    """Let a schedule make no backups."""
    from clusterguard.terminal import out

    with _client(cluster, kubeconfig, namespace) as velero:
        velero.pause_schedule(name)
    out.print(f"schedule {name} is paused", markup=False)


@schedule_app.command("unpause")
def unpause_schedule(
    name: _Name, cluster: ClusterOption, kubeconfig: KubeconfigOption = None, namespace: _Namespace = "velero"
) -> None:
    """Let a schedule make backups again."""
    from clusterguard.terminal import out

    with _client(cluster, kubeconfig, namespace) as velero:
        velero.unpause_schedule(name)
    out.print(f"schedule {name} makes backups", markup=False)


@schedule_app.command("delete")
def delete_schedule(
    name: _Name,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: _Namespace = "velero",
    yes: _Yes = False,
) -> None:
    """Delete a schedule; its backups stay."""
    from clusterguard.terminal import out

    with _client(cluster, kubeconfig, namespace) as velero:
        velero.schedule(name)
        _confirm(f"Schedule {name} goes; its backups stay, unless it owns them.", yes=yes)
        velero.delete_schedule(name)
    out.print(f"schedule {name} is deleted", markup=False)


# ---- what they share ---------------------------------------------------------------------------------------

_NOTHING: tuple[object, ...] = (None, (), "", {})


@contextmanager
def _client(
    cluster: str, kubeconfig: Path | None, namespace: str, *, ca: Path | None = None, insecure: bool = False
) -> Iterator[VeleroClient]:
    from clusterguard.terminal import progress_sink
    from clusterguard.velero import VeleroClient

    with progress_sink() as progress, opened(cluster, kubeconfig=kubeconfig, progress=progress) as target:
        yield VeleroClient(api=target.api, namespace=namespace, ca=ca, insecure=insecure, progress=progress)


def _backup_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of BackupOptions that a command's parameters describe.

    Two commands share them, and Typer wants each spelled out in both: so they hand over all they were given.
    """
    several = {
        f"{word}d_{what}": tuple(given[f"{word}_{what}"] or ())
        for word in ("include", "exclude")
        for what in ("namespaces", "resources", "cluster_scoped_resources", "namespace_scoped_resources")
    }
    same = (
        "include_cluster_resources",
        "storage_location",
        "snapshot_volumes",
        "snapshot_move_data",
        "data_mover",
        "default_volumes_to_fs_backup",
        "parallel_files_upload",
    )
    ordered = _pairs(given["ordered_resources"], "--ordered-resources")
    return {
        **several,
        **{name: given[name] for name in same},
        "label_selector": _selector(given["selector"]),
        "or_label_selectors": _selectors(given["or_selector"]),
        "volume_snapshot_locations": tuple(given["volume_snapshot_locations"] or ()),
        "ttl": _duration(given["ttl"], "--ttl"),
        "csi_snapshot_timeout": _duration(given["csi_snapshot_timeout"], "--csi-snapshot-timeout"),
        "item_operation_timeout": _duration(given["item_operation_timeout"], "--item-operation-timeout"),
        "ordered_resources": {kind: tuple(names.split(",")) for kind, names in ordered.items()} or None,
        "resource_policy": given["resource_policies"],
        "labels": _pairs(given["label"], "--label"),
        "annotations": _pairs(given["annotation"], "--annotation"),
    }


def _made(options: dict[str, Any]) -> BackupOptions:
    from clusterguard.velero import BackupOptions

    return BackupOptions(**options)


def _finish(velero: VeleroClient, run: Backup | Restore, *, wait: bool, timeout: str, as_json: bool) -> None:
    from clusterguard.terminal import out

    if not wait:
        typer.echo(json.dumps(dict(run.manifest), indent=2)) if as_json else out.print(
            f"{run.kind.lower()} {run.name} was asked for", markup=False
        )
        return
    limit = _duration(timeout, "--timeout")
    done = velero.wait(run, timeout_seconds=limit.total_seconds() if limit else 0)
    outcome = velero.outcome(done)
    typer.echo(json.dumps(outcome.to_dict(), indent=2) if as_json else outcome.to_text())
    if not outcome.ok:
        raise typer.Exit(_NO)


def _tell(velero: VeleroClient, run: Backup | Restore, *, as_json: bool) -> None:
    description = velero.describe(run)
    typer.echo(json.dumps(description.to_dict(), indent=2) if as_json else description.to_text())
    if description.facts["verdict"] != "ok":
        raise typer.Exit(_NO)


def _show(
    found: Sequence[VeleroObject], columns: Sequence[str], rows: Iterable[Sequence[str]], *, as_json: bool
) -> None:
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


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)


def _confirm(told: str, *, yes: bool) -> None:
    from clusterguard.terminal import err

    if not yes:
        err.print(told, style="yellow", markup=False, soft_wrap=True)
        typer.confirm("Go on?", abort=True, err=True)


def _pairs(words: Sequence[str] | None, option: str, *, sign: str = "=") -> dict[str, str]:
    from clusterguard.errors import ConfigError

    pairs: dict[str, str] = {}
    for word in words or ():
        key, found, value = word.partition(sign)
        if not found or not key:
            raise ConfigError(f"{option} {word}: write NAME{sign}VALUE")
        pairs[key] = value
    return pairs


def _duration(text: str, option: str) -> timedelta | None:
    from clusterguard.errors import ConfigError
    from clusterguard.model.backup_options import parse_go_duration

    if not text:
        return None
    try:
        return parse_go_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}", hint="write it like 90s, 15m or 72h") from error


def _selector(text: str) -> LabelSelector | None:
    from clusterguard.model.backup_options import LabelSelector

    return LabelSelector.parse(text) if text else None


def _selectors(texts: Sequence[str] | None) -> tuple[LabelSelector, ...]:
    from clusterguard.model.backup_options import LabelSelector

    return tuple(LabelSelector.parse(text) for text in texts or ())


def _text_of(file: Path) -> str:
    from clusterguard.errors import ConfigError

    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _stamp(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
