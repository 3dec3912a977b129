"""How to reach the etcd of a kubeadm node: with the client certificate that kubeadm made for its health check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import ClusterError, ProgramError
from clusterguard.scratch import in_memory

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["ETCD_PKI", "etcd_access"]

ETCD_PKI = "/etc/kubernetes/pki/etcd"  # kubeadm's default
_FILES = ("ca.crt", "healthcheck-client.crt", "healthcheck-client.key")


def etcd_access(shell: NodeShell, *, keep: ExitStack, endpoints: tuple[str, ...], pki: str = ETCD_PKI) -> EtcdAccess:
    """Copy etcd's authority and a client certificate from the node into memory, until ``keep`` is closed.

    Args:
        shell: A control-plane node.
        keep: Forgets them when it is closed.
        endpoints: Client URLs of the members, as this machine reaches them.
        pki: The folder of etcd's certificates there.
    """
    files: list[Path] = []
    for name in _FILES:
        try:
            content = shell.read(f"{pki}/{name}")
        except ProgramError as error:
            if "No such file" not in error.output:
                raise
            raise ClusterError(
                f"{shell.name} has no {pki}/{name}",
                hint="name a control-plane node that kubeadm made; managed control planes hide etcd: use Velero there",
            ) from error
        files.append(keep.enter_context(in_memory(content)).path)
    ca, cert, key = files
    return EtcdAccess(endpoints=endpoints, ca=ca, cert=cert, key=key)
