"""Where Kubernetes runs: embedded child processes, containers of kind, or any cluster that a kubeconfig reaches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterguard.clusters.base import Cluster, ControlPlane, EtcdAccess, EtcdLayout
    from clusterguard.clusters.embedded import EmbeddedCluster
    from clusterguard.clusters.existing import ExistingCluster
    from clusterguard.clusters.kind import KindCluster
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.opening import open_cluster

__all__ = [
    "Cluster",
    "ControlPlane",
    "EmbeddedCluster",
    "EtcdAccess",
    "EtcdLayout",
    "ExistingCluster",
    "KindCluster",
    "KubeClient",
    "open_cluster",
]

_HOMES = {
    "Cluster": "base",
    "ControlPlane": "base",
    "EmbeddedCluster": "embedded",
    "EtcdAccess": "base",
    "EtcdLayout": "base",
    "ExistingCluster": "existing",
    "KindCluster": "kind",
    "KubeClient": "kube",
    "open_cluster": "opening",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    if name not in _HOMES:
        raise AttributeError(f"module 'clusterguard.clusters' has no attribute {name!r}")
    return getattr(import_module(f"clusterguard.clusters.{_HOMES[name]}"), name)
