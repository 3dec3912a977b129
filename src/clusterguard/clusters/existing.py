"""A cluster that somebody else runs: reached by kubeconfig, never created and never deleted by us."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from clusterguard.clusters.kubeconfig import default_kubeconfig
from clusterguard.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from clusterguard.clusters.base import ControlPlane, EtcdAccess
    from clusterguard.clusters.capabilities import MemberPlace
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
        nodes: How to become root on the control-plane nodes, where kubeadm made the cluster, and on its workers: then
            etcd is reached with the certificates that lie there, and can be restored.
        endpoints: Client URLs of etcd's members as this machine reaches them with those certificates; by default those
            that etcd advertises.
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
        nodes: Sequence[NodeShell] = (),
        endpoints: tuple[str, ...] = (),
    ) -> None:
        self.kubeconfig = kubeconfig or default_kubeconfig()
        self.context = context
        self.name = context or str(self.kubeconfig)
        self._etcd = etcd
        self._endpoints = endpoints
        self._certificates = ExitStack()
        self._api: KubeClient | None = None
        self._kubeadm = self._kubeadm_of(nodes) if nodes else None
        self.control_plane: ControlPlane | None = self._kubeadm

    @property
    def etcd(self) -> EtcdAccess | None:
        """How to connect to etcd, or None where it is not known."""
        if self._etcd is None and self._kubeadm is not None:
            self._certificates.callback(setattr, self, "_etcd", None)
            self._etcd = self._kubeadm.etcd_access(keep=self._certificates, endpoints=self._endpoints)
        return self._etcd

    @etcd.setter
    def etcd(self, access: EtcdAccess | None) -> None:
        self._etcd = access

    def member_places(self) -> AbstractContextManager[Mapping[str, MemberPlace]]:
        """Keep restores and other replacements out, and give the members of the nodes that were named, by their names.

        Raises:
            ClusterError: No node was named (``no-node-shell``).
        """
        if self._kubeadm is None:
            raise ClusterError(
                f"no shell given for the control-plane nodes of {self.name}",
                code="no-node-shell",
                hint="name all of them: --node-shell 'ssh:root@{cp-1,cp-2,cp-3}'",
            )
        return self._kubeadm.member_places()

    def _kubeadm_of(self, nodes: Sequence[NodeShell]) -> KubeadmControlPlane:
        from clusterguard.clusters.kubeadm import KubeadmControlPlane

        return KubeadmControlPlane(nodes, workers=None, api=lambda: self.api, etcdutl=_etcdutl)

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
