"""How to reach the etcd of a cluster: with the certificates that lie on its nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.kubeadm.etcd_setup import Identity
from clusterguard.errors import ClusterError, ProgramError
from clusterguard.scratch import in_memory

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["KUBEADM_IDENTITY", "etcd_access"]

_PKI = "/etc/kubernetes/pki/etcd"
KUBEADM_IDENTITY = Identity(
    ca=f"{_PKI}/ca.crt", cert=f"{_PKI}/healthcheck-client.crt", key=f"{_PKI}/healthcheck-client.key"
)
"""The client certificate that kubeadm makes for etcd's health check, where it puts it by default."""


def etcd_access(
    shell: NodeShell, *, keep: ExitStack, endpoints: tuple[str, ...], identity: Identity = KUBEADM_IDENTITY
) -> EtcdAccess:
    """Copy etcd's authority and a client certificate from the node into memory, until ``keep`` is closed.

    Args:
        shell: A node that has them.
        keep: Forgets them when it is closed.
        endpoints: Client URLs of the members, as this machine reaches them.
        identity: Where they lie there.
    """
    if not identity.ca:
        return EtcdAccess(endpoints=endpoints)
    files: list[Path] = []
    for path in (identity.ca, identity.cert, identity.key):
        try:
            content = shell.read(path)
        except ProgramError as error:
            if "No such file" not in error.output:
                raise
            raise ClusterError(
                f"{shell.name} has no {path}",
                hint="name a control-plane node that kubeadm made; managed control planes hide etcd: use Velero there",
            ) from error
        files.append(keep.enter_context(in_memory(content)).path)
    ca, cert, key = files
    return EtcdAccess(endpoints=endpoints, ca=ca, cert=cert, key=key)
