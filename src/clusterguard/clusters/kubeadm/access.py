"""How to reach the etcd of a kubeadm node: with the client certificate that kubeadm made for its health check."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import ClusterError, ProgramError

if TYPE_CHECKING:
    from pathlib import Path

    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["etcd_access"]

_PKI = "/etc/kubernetes/pki/etcd"
_FILES = ("ca.crt", "healthcheck-client.crt", "healthcheck-client.key")


def etcd_access(shell: NodeShell, *, folder: Path, endpoint: str) -> EtcdAccess:
    """Copy etcd's authority and a client certificate from the node into a private folder.

    Args:
        shell: How to reach the node.
        folder: Where the files go, readable for this user alone; it is made if need be. Whoever calls removes it.
        endpoint: etcd's client URL as this machine reaches it.

    Raises:
        ClusterError: The node has no such certificates.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in _FILES:
        try:
            content = shell.read(f"{_PKI}/{name}")
        except ProgramError as error:
            if "No such file" not in error.output:
                raise
            raise ClusterError(
                f"{shell.name} has no {_PKI}/{name}",
                hint="name a control-plane node that kubeadm made; managed control planes hide etcd: use Velero there",
            ) from error
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return EtcdAccess(
        endpoints=(endpoint,),
        ca=folder / "ca.crt",
        cert=folder / "healthcheck-client.crt",
        key=folder / "healthcheck-client.key",
    )
