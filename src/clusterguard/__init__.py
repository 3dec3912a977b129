"""Prove that Kubernetes backups restore.

Three classes carry the library: `EtcdSnapshotter` saves, verifies and restores etcd snapshots, `VeleroClient`
speaks to a Velero server, and `RestoreValidator` shows from evidence whether a restored cluster is what it was.
`open_cluster` gives the clusters they work on. Importing this package loads none of the SDKs underneath: a name
is imported from its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterguard.clusters import Cluster, EmbeddedCluster, ExistingCluster, open_cluster
    from clusterguard.drills import Drill, DrillRunner, Verdict, load_drill
    from clusterguard.errors import ClusterGuardError, RestoreValidationError
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.model.inventory import Inventory, Scope
    from clusterguard.model.report import Finding, ValidationReport
    from clusterguard.model.snapshot import Snapshot, VerifyReport
    from clusterguard.stores import ObjectStore, open_store
    from clusterguard.validate import RestoreValidator
    from clusterguard.velero.client import VeleroClient
    from clusterguard.velero.options import BackupOptions, RestoreOptions

__all__ = [
    "BackupOptions",
    "Cluster",
    "ClusterGuardError",
    "Drill",
    "DrillRunner",
    "EmbeddedCluster",
    "EtcdSnapshotter",
    "ExistingCluster",
    "Finding",
    "Inventory",
    "ObjectStore",
    "RestoreOptions",
    "RestoreValidationError",
    "RestoreValidator",
    "Scope",
    "Snapshot",
    "ValidationReport",
    "VeleroClient",
    "Verdict",
    "VerifyReport",
    "load_drill",
    "open_cluster",
    "open_store",
]

_HOMES = {
    "BackupOptions": "velero.options",
    "Cluster": "clusters",
    "ClusterGuardError": "errors",
    "Drill": "drills",
    "DrillRunner": "drills",
    "EmbeddedCluster": "clusters",
    "EtcdSnapshotter": "etcd",
    "ExistingCluster": "clusters",
    "Finding": "model.report",
    "Inventory": "model.inventory",
    "ObjectStore": "stores",
    "RestoreOptions": "velero.options",
    "RestoreValidationError": "errors",
    "RestoreValidator": "validate",
    "Scope": "model.inventory",
    "Snapshot": "model.snapshot",
    "ValidationReport": "model.report",
    "VeleroClient": "velero.client",
    "Verdict": "drills",
    "VerifyReport": "model.snapshot",
    "load_drill": "drills",
    "open_cluster": "clusters",
    "open_store": "stores",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    if name == "__version__":
        from importlib import metadata  # slow to load, and rarely asked for

        return metadata.version("clusterguard")
    if name not in _HOMES:
        raise AttributeError(f"module 'clusterguard' has no attribute {name!r}")
    value = getattr(import_module(f"clusterguard.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
