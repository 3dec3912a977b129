"""A cluster that somebody else runs: reached by kubeconfig, never created and never deleted by us."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

    from clusterguard.clusters.base import ControlPlane, EtcdAccess
    from clusterguard.clusters.kube import KubeClient

__all__ = ["ExistingCluster"]


class ExistingCluster:
    """Any cluster that a kubeconfig reaches: kubeadm, EKS, GKE, AKS, k3s.

    Args:
        kubeconfig: The file; by default ``~/.kube/config``.
        context: The context in it; by default its current one.
        etcd: How to reach etcd, where the provider lets you; snapshots need it.
    """

    provider = "existing"
    simulated_pods = False
    created_by_us = False

    def __init__(
        self, *, kubeconfig: Path | None = None, context: str | None = None, etcd: EtcdAccess | None = None
    ) -> None:
        self.kubeconfig = kubeconfig or Path.home() / ".kube" / "config"
        self.context = context
        self.name = context or str(self.kubeconfig)
        self.etcd = etcd
        self.control_plane: ControlPlane | None = None
        self._api: KubeClient | None = None

    @property
    def api(self) -> KubeClient:
        """The client of its API server, with the rights of the kubeconfig's user."""
        if self._api is None:
            from clusterguard.clusters.kube import KubeClient

            if not self.kubeconfig.is_file():
                raise ConfigError(f"no kubeconfig at {self.kubeconfig}", hint="name one, or set KUBECONFIG")
            self._api = KubeClient.from_kubeconfig(self.kubeconfig, context=self.context)
        return self._api

    def close(self) -> None:
        """Close the connections; the cluster stays as it is."""
        if self._api is not None:
            self._api.close()
            self._api = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
