"""What the API of a cluster, and the keys of its API servers in etcd, say about the nodes that were named."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from clusterguard.errors import ClusterError, ClusterGuardError, ClusterUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kubeadm.node import KubeadmNode

__all__ = ["ApiView"]

_API_SECONDS = 15
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"  # kubeadm's label
_UNANSWERED = (ClusterGuardError, ValueError, KeyError, binascii.Error)


class ApiView:
    """Asks what nodes cannot tell of each other.

    Args:
        api: The client of the cluster's API server.
    """

    def __init__(self, api: Callable[[], KubeClient]) -> None:
        self._api = api
        self._answers = False

    def other_cluster(self, nodes: Sequence[KubeadmNode]) -> list[ClusterError]:
        """Return a complaint if a node and the API that we speak to belong to different clusters."""
        api = self._api()
        try:
            resource = api.resource("ConfigMap")
            # An API server that has lost its etcd keeps the question for a minute, and the restore with it.
            published = api.get(resource, "kube-root-ca.crt", "kube-system", timeout_seconds=_API_SECONDS)
        except ClusterUnreachableError:
            self._answers = False
            return []  # a lost cluster is why people restore
        self._answers = True
        theirs = "".join(str((published.get("data") or {}).get("ca.crt", "")).split())
        # Contained, not equal: while authorities are exchanged the bundle has both.
        strange = [node.name for node in nodes if "".join(node.authority().split()) not in theirs]
        if not strange:
            return []
        return [
            ClusterError(
                f"{', '.join(strange)} is no node of the cluster in the kubeconfig: its certificate authority differs",
                code="other-cluster",
                hint="name the control-plane node of that very cluster",
            )
        ]

    def nodes(self, *, again: bool = False) -> dict[str, bool]:
        """Return the nodes that the API has, and whether each is a control plane; none if it does not answer.

        Args:
            again: Ask also an API that did not answer before: it may keep the question for a minute.
        """
        if not (self._answers or again):
            return {}
        api = self._api()
        try:
            nodes = api.list(api.resource("Node"))
            return {str(n["metadata"]["name"]): _CONTROL_PLANE in (n["metadata"].get("labels") or {}) for n in nodes}
        except ClusterGuardError:
            return {}  # a lost cluster is why people restore

    def other_nodes(self, reached: Collection[str]) -> list[str]:
        """Return warnings of the nodes whose kubelets were not restarted, since nobody said how to reach them."""
        api = self._api()
        try:
            names = {str(each["metadata"]["name"]) for each in api.list(api.resource("Node"))}
        except ClusterGuardError as error:  # the restore is done; this must not make it look undone
            return [f"which nodes there are could not be asked: {error.message}"]
        others = sorted(names - set(reached))
        if not others:
            return []
        what = "may hold what the restored state does not know: systemctl restart kubelet, there"
        return [f"the kubelets of {', '.join(others)} were not restarted, and {what}"]

    def leases(self, nodes: Sequence[KubeadmNode]) -> list[str]:
        """Return the addresses by which API servers say in etcd that they live; none where etcd does not serve."""
        member = next((node for node in nodes if node.etcd and node.look().seen.one("quorum")), None)
        if member is None:
            return []
        try:
            return [key.rpartition("/")[2] for key in member.api_server_leases(_prefix(nodes))]
        except _UNANSWERED as error:
            raise ClusterError(f"the leases of API servers could not be asked for: {error}") from error

    def dead_api_servers(self, nodes: Sequence[KubeadmNode]) -> list[str]:
        """Each control plane has one API server: any other lease keeps an address of nobody in Service kubernetes."""
        member = next(node for node in nodes if node.etcd)
        try:
            keys = member.api_server_leases(_prefix(nodes))
        except _UNANSWERED as error:
            return [f"the leases of API servers could not be asked for: {error}"]
        there = sum(node.api is not None for node in nodes)
        if len(keys) <= there:
            return []
        told = f"{len(keys)} API servers hold a lease in etcd, and this control plane has {_count(there)}"
        what = f"Service kubernetes leads to dead addresses as well until theirs run out: {', '.join(keys)}"
        return [f"{told}: {what}"]


def foreign_keys(nodes: Sequence[KubeadmNode]) -> list[str]:
    """Return in words what else than Kubernetes keeps its state in this etcd: it goes back together with it."""
    member, prefix = next(node for node in nodes if node.etcd), _prefix(nodes)
    try:
        found = member.foreign_keys(prefix)
    except _UNANSWERED:
        return []  # without a quorum nobody can tell
    if not found:
        return []
    return [f"etcd holds {found:,} keys outside of {prefix}: whatever keeps them there goes back as well"]


def _prefix(nodes: Sequence[KubeadmNode]) -> str:
    return next((node.api.etcd_prefix for node in nodes if node.api), "/registry")


def _count(number: int) -> str:
    return "one" if number == 1 else str(number)
