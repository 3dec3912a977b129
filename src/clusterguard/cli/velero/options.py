"""What the commands about Velero are given, spelled once."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterguard.cli.options import ClusterOption, KubeconfigOption, opened
from clusterguard.cli.velero.shared import duration, pairs, selector_of, selectors_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.velero.client import VeleroClient
    from clusterguard.velero.options import BackupOptions

__all__ = [
    "AnnotationsOption",
    "BackupFlags",
    "DownloadFlags",
    "JsonOption",
    "LabelsOption",
    "NameArgument",
    "NewNameArgument",
    "OperationTimeoutOption",
    "SelectionFlags",
    "ServerFlags",
    "TimeoutOption",
    "WaitOption",
    "Words",
    "YesOption",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended, and judge it.")]
TimeoutOption = Annotated[str, typer.Option("--timeout", help="How long to wait, such as 90s or 1h30m.")]
Words = list[str] | None
NameArgument = Annotated[str, typer.Argument(help="Its name.")]
NewNameArgument = Annotated[str, typer.Argument(help="What to call it.")]
LabelsOption = Annotated[Words, typer.Option("--label", help="KEY=VALUE to put on it.")]
AnnotationsOption = Annotated[Words, typer.Option("--annotation", help="KEY=VALUE to put on it.")]
OperationTimeoutOption = Annotated[str, typer.Option("--item-operation-timeout", help="For the work of plugins.")]

_NOTHING: tuple[object, ...] = (None, (), "", {})


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFlags:
    """How the object store is trusted that the files of a backup or restore are fetched from."""

    ca: Annotated[Path | None, typer.Option("--cacert", help="The CA of the object store, as PEM.")] = None
    insecure: Annotated[
        bool, typer.Option("--insecure-skip-tls-verify", help="Trust any certificate of the object store.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFlags:
    """Which Velero is meant: that of a cluster, in a namespace."""

    cluster: ClusterOption
    kubeconfig: KubeconfigOption = None
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The namespace that Velero works in.", envvar="VELERO_NAMESPACE")
    ] = "velero"

    @contextmanager
    def client(self, download: DownloadFlags | None = None) -> Iterator[VeleroClient]:
        """Give a client of it, for as long as the ``with`` block runs."""
        from clusterguard.terminal import progress_sink
        from clusterguard.velero import VeleroClient

        trust = download or DownloadFlags()
        with (
            progress_sink() as progress,
            opened(self.cluster, kubeconfig=self.kubeconfig, progress=progress) as target,
        ):
            yield VeleroClient(
                api=target.api, namespace=self.namespace, ca=trust.ca, insecure=trust.insecure, progress=progress
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionFlags:
    """Which objects are backed up or restored."""

    include_namespaces: Annotated[Words, typer.Option(help="Only this namespace.")] = None
    exclude_namespaces: Annotated[Words, typer.Option(help="Not this namespace.")] = None
    include_resources: Annotated[Words, typer.Option(help="Only this kind: deployments.apps.")] = None
    exclude_resources: Annotated[Words, typer.Option(help="Not this kind.")] = None
    include_cluster_resources: Annotated[
        bool | None,
        typer.Option("--include-cluster-resources/--exclude-cluster-resources", help="Objects without a namespace."),
    ] = None
    selector: Annotated[str, typer.Option("--selector", "-l", help="Only objects with these labels.")] = ""
    or_selector: Annotated[Words, typer.Option(help="Only objects that one of these selectors matches.")] = None

    def selection(self) -> dict[str, Any]:
        """Return the fields of what a backup or a restore is asked for that they decide."""
        return {
            "included_namespaces": tuple(self.include_namespaces or ()),
            "excluded_namespaces": tuple(self.exclude_namespaces or ()),
            "included_resources": tuple(self.include_resources or ()),
            "excluded_resources": tuple(self.exclude_resources or ()),
            "include_cluster_resources": self.include_cluster_resources,
            "label_selector": selector_of(self.selector),
            "or_label_selectors": selectors_of(self.or_selector),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFlags(SelectionFlags):
    """What a backup is asked for, made by hand or by a schedule."""

    include_cluster_scoped_resources: Annotated[Words, typer.Option()] = None
    exclude_cluster_scoped_resources: Annotated[Words, typer.Option()] = None
    include_namespace_scoped_resources: Annotated[Words, typer.Option()] = None
    exclude_namespace_scoped_resources: Annotated[Words, typer.Option()] = None
    label: LabelsOption = None
    annotation: AnnotationsOption = None
    ttl: Annotated[str, typer.Option(help="How long Velero keeps it, such as 72h.")] = ""
    storage_location: Annotated[str, typer.Option(help="Where it rests; by default the default location.")] = ""
    volume_snapshot_locations: Annotated[Words, typer.Option(help="Where snapshots go.")] = None
    snapshot_volumes: Annotated[bool | None, typer.Option("--snapshot-volumes/--no-snapshot-volumes")] = None
    snapshot_move_data: Annotated[bool | None, typer.Option("--snapshot-move-data/--no-snapshot-move-data")] = None
    data_mover: Annotated[str, typer.Option(help="Who moves the data of snapshots.")] = ""
    default_volumes_to_fs_backup: Annotated[
        bool | None, typer.Option("--default-volumes-to-fs-backup/--no-default-volumes-to-fs-backup")
    ] = None
    ordered_resources: Annotated[Words, typer.Option(help="KIND=NAMESPACE/NAME,… to back up in this order.")] = None
    resource_policies: Annotated[
        str, typer.Option("--resource-policies-configmap", help="ConfigMap with rules for volumes.")
    ] = ""
    csi_snapshot_timeout: Annotated[str, typer.Option(help="For a CSI snapshot.")] = ""
    item_operation_timeout: OperationTimeoutOption = ""
    parallel_files_upload: Annotated[int | None, typer.Option(help="Files of one volume at a time.")] = None

    @property
    def given(self) -> bool:
        """Whether anything was asked for."""
        return any(value not in _NOTHING for value in self._fields().values())

    def options(self) -> BackupOptions:
        """Return what a backup is asked for."""
        from clusterguard.velero import BackupOptions

        return BackupOptions(**self._fields())

    def _fields(self) -> dict[str, Any]:
        ordered = pairs(self.ordered_resources, "--ordered-resources")
        return {
            **self.selection(),
            "included_cluster_scoped_resources": tuple(self.include_cluster_scoped_resources or ()),
            "excluded_cluster_scoped_resources": tuple(self.exclude_cluster_scoped_resources or ()),
            "included_namespace_scoped_resources": tuple(self.include_namespace_scoped_resources or ()),
            "excluded_namespace_scoped_resources": tuple(self.exclude_namespace_scoped_resources or ()),
            "labels": pairs(self.label, "--label"),
            "annotations": pairs(self.annotation, "--annotation"),
            "ttl": duration(self.ttl, "--ttl"),
            "storage_location": self.storage_location,
            "volume_snapshot_locations": tuple(self.volume_snapshot_locations or ()),
            "snapshot_volumes": self.snapshot_volumes,
            "snapshot_move_data": self.snapshot_move_data,
            "data_mover": self.data_mover,
            "default_volumes_to_fs_backup": self.default_volumes_to_fs_backup,
            "ordered_resources": {kind: tuple(names.split(",")) for kind, names in ordered.items()} or None,
            "resource_policy": self.resource_policies,
            "csi_snapshot_timeout": duration(self.csi_snapshot_timeout, "--csi-snapshot-timeout"),
            "item_operation_timeout": duration(self.item_operation_timeout, "--item-operation-timeout"),
            "parallel_files_upload": self.parallel_files_upload,
        }
