"""A cluster that somebody else runs: reached by kubeconfig, never created and never deleted by us."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from clusterguard.clusters.kubeconfig import default_kubeconfig

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from clusterguard.clusters.base import ControlPlane, EtcdAccess
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kubeadm import KubeadmControlPlane
    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["ExistingCluster"]


class ExistingCluster:
    """Any cluster that a kubeconfig names: kubeadm, EKS, GKE, AKS, k3s.

    Args:
        kubeconfig: The file, or several with colons between them; by default what kubectl reads.
        context: The context in it; by default its current one.
        etcd: How to connect to etcd, where the provider lets you; snapshots need it.
        node: How to become root on the control-plane node, where kubeadm made the cluster: then etcd is reached with
            the certificates that lie there, and can be restored.
        endpoint: etcd's client URL as this machine reaches it with those certificates; by default the one that etcd
            advertises.
    """

    provider = "existing"
    simulated_pods = False
    created_by_us = False

    def __init__(
        self,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        etcd: EtcdAccess | None = None,
        node: NodeShell | None = None,
        endpoint: str = "",
    ) -> None:
        self.kubeconfig = kubeconfig or default_kubeconfig()
        self.context = context
        self.name = context or str(self.kubeconfig)
        self.control_plane: ControlPlane | None = None
        self._etcd = etcd
        self._node = node
        self._endpoint = endpoint
        self._certificates = ExitStack()
        self._api: KubeClient | None = None
        if node is not None:
            self.control_plane = self._kubeadm(node)

    @property
    def etcd(self) -> EtcdAccess | None:
        """How to connect to etcd, or None where it is not known."""
        if self._etcd is None and self._node is not None:
            from clusterguard.clusters.kubeadm import etcd_access

            endpoint = self._endpoint or self._kubeadm(self._node).client_url
            self._certificates.callback(setattr, self, "_etcd", None)
            self._etcd = etcd_access(self._node, keep=self._certificates, endpoint=endpoint)
        return self._etcd

    @etcd.setter
    def etcd(self, access: EtcdAccess | None) -> None:
        self._etcd = access

    def _kubeadm(self, node: NodeShell) -> KubeadmControlPlane:
        from clusterguard.clusters.kubeadm import KubeadmControlPlane

        return KubeadmControlPlane(shell=node, api=lambda: self.api, etcdutl=_etcdutl)

    @property
    def api(self) -> KubeClient:
        """The client of its API server, with the rights of the kubeconfig's user."""
        if self._api is None:
            from clusterguard.clusters.kube import KubeClient

            self._api = KubeClient.from_kubeconfig(self.kubeconfig, context=self.context)
        return self._api

    def close(self) -> None:
        """Close the connections and forget the certificates that were copied here; the cluster stays as it is."""
        self._certificates.close()
        if self._api is not None:
            self._api.close()
            self._api = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _etcdutl() -> Path:
    from clusterguard.toolchain import from_environment

    return from_environment(os.environ).ensure("etcdutl")["etcdutl"]
