"""What the commands about Velero are given, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AnnotationsOption",
    "ClusterResourcesOption",
    "CsiTimeoutOption",
    "DataMoverOption",
    "DownloadCaOption",
    "ExcludeClusterScopedOption",
    "ExcludeNamespaceScopedOption",
    "ExcludeNamespacesOption",
    "ExcludeResourcesOption",
    "FsBackupOption",
    "IncludeClusterScopedOption",
    "IncludeNamespaceScopedOption",
    "IncludeNamespacesOption",
    "IncludeResourcesOption",
    "InsecureOption",
    "JsonOption",
    "LabelsOption",
    "LocationOption",
    "MoveDataOption",
    "NameArgument",
    "NamespaceOption",
    "NewNameArgument",
    "OperationTimeoutOption",
    "OrSelectorsOption",
    "OrderedOption",
    "ParallelOption",
    "PoliciesOption",
    "SelectorOption",
    "SnapshotLocationsOption",
    "SnapshotVolumesOption",
    "TimeoutOption",
    "TtlOption",
    "WaitOption",
    "Words",
    "YesOption",
]

NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", help="The namespace that Velero works in.", envvar="VELERO_NAMESPACE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended, and judge it.")]
TimeoutOption = Annotated[str, typer.Option("--timeout", help="How long to wait, such as 90s or 1h30m.")]
Words = list[str] | None
NameArgument = Annotated[str, typer.Argument(help="Its name.")]
NewNameArgument = Annotated[str, typer.Argument(help="What to call it.")]
DownloadCaOption = Annotated[Path | None, typer.Option("--cacert", help="The CA of the object store, as PEM.")]
InsecureOption = Annotated[
    bool, typer.Option("--insecure-skip-tls-verify", help="Trust any certificate of the object store.")
]

# Options of what to back up; `backup create` and `schedule create` share them.
IncludeNamespacesOption = Annotated[Words, typer.Option("--include-namespaces", help="Only this namespace.")]
ExcludeNamespacesOption = Annotated[Words, typer.Option("--exclude-namespaces", help="Not this namespace.")]
IncludeResourcesOption = Annotated[Words, typer.Option("--include-resources", help="Only this kind: deployments.apps.")]
ExcludeResourcesOption = Annotated[Words, typer.Option("--exclude-resources", help="Not this kind.")]
ClusterResourcesOption = Annotated[
    bool | None,
    typer.Option("--include-cluster-resources/--exclude-cluster-resources", help="Objects without a namespace."),
]
SelectorOption = Annotated[str, typer.Option("--selector", "-l", help="Only objects with these labels.")]
OrSelectorsOption = Annotated[
    Words, typer.Option("--or-selector", help="Only objects that one of these selectors matches.")
]
LabelsOption = Annotated[Words, typer.Option("--label", help="KEY=VALUE to put on it.")]
AnnotationsOption = Annotated[Words, typer.Option("--annotation", help="KEY=VALUE to put on it.")]
TtlOption = Annotated[str, typer.Option("--ttl", help="How long Velero keeps it, such as 72h.")]
LocationOption = Annotated[
    str, typer.Option("--storage-location", help="Where it rests; by default the default location.")
]
SnapshotLocationsOption = Annotated[Words, typer.Option("--volume-snapshot-locations", help="Where snapshots go.")]
SnapshotVolumesOption = Annotated[bool | None, typer.Option("--snapshot-volumes/--no-snapshot-volumes")]
MoveDataOption = Annotated[bool | None, typer.Option("--snapshot-move-data/--no-snapshot-move-data")]
FsBackupOption = Annotated[
    bool | None, typer.Option("--default-volumes-to-fs-backup/--no-default-volumes-to-fs-backup")
]
OrderedOption = Annotated[
    Words, typer.Option("--ordered-resources", help="KIND=NAMESPACE/NAME,… to back up in this order.")
]
PoliciesOption = Annotated[str, typer.Option("--resource-policies-configmap", help="ConfigMap with rules for volumes.")]
OperationTimeoutOption = Annotated[str, typer.Option("--item-operation-timeout", help="For the work of plugins.")]
IncludeClusterScopedOption = Annotated[Words, typer.Option("--include-cluster-scoped-resources")]
ExcludeClusterScopedOption = Annotated[Words, typer.Option("--exclude-cluster-scoped-resources")]
IncludeNamespaceScopedOption = Annotated[Words, typer.Option("--include-namespace-scoped-resources")]
ExcludeNamespaceScopedOption = Annotated[Words, typer.Option("--exclude-namespace-scoped-resources")]
CsiTimeoutOption = Annotated[str, typer.Option("--csi-snapshot-timeout", help="For a CSI snapshot.")]
DataMoverOption = Annotated[str, typer.Option("--data-mover", help="Who moves the data of snapshots.")]
ParallelOption = Annotated[int | None, typer.Option("--parallel-files-upload", help="Files of one volume at a time.")]
