"""From a policy's sources to what can be asked for a backup: etcd, or a Velero server."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.opening import existing_cluster
from clusterguard.errors import ClusterError, ConfigError
from clusterguard.policies.copies.encryption import read_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.model.progress import ProgressSink
    from clusterguard.policies.policy import EtcdSource, VeleroSource
    from clusterguard.velero import VeleroClient

__all__ = ["connect_etcd", "connect_velero"]


@contextmanager
def connect_etcd(source: EtcdSource, *, environ: Mapping[str, str], progress: ProgressSink) -> Iterator[EtcdAccess]:
    """Give access to the etcd of a source.

    Raises:
        ConfigError: A certificate, the user or the password is not there.
        ClusterError: The cluster hides its etcd.
    """
    user = read_secret(source.user, environ, what="etcd's user") if source.user else None
    password = read_secret(source.password, environ, what="etcd's password") if source.password else None
    if source.endpoints:
        yield EtcdAccess(
            endpoints=source.endpoints,
            ca=_file(source.ca_file),
            cert=_file(source.cert_file),
            key=_file(source.key_file),
            username=user,
            password=password,
        )
        return
    from clusterguard.clusters.node_shell import open_node_shells  # slow, and endpoints need none

    nodes = open_node_shells(source.node_shell)
    kubeconfig = _file(source.kubeconfig)
    with existing_cluster(source.cluster, kubeconfig=kubeconfig, nodes=nodes, progress=progress) as cluster:
        if cluster.etcd is None:
            raise ClusterError(
                f"cluster {cluster.name!r} does not tell how to reach its etcd",
                hint="name its endpoints and certificates in the policy, or a nodeShell; a managed control plane (EKS) "
                "hides it: use a velero source",
            )
        yield replace(cluster.etcd, username=user, password=password) if user else cluster.etcd


@contextmanager
def connect_velero(source: VeleroSource, *, progress: ProgressSink) -> Iterator[VeleroClient]:
    """Give the Velero server of a source."""
    from clusterguard.velero import VeleroClient

    with existing_cluster(source.cluster, kubeconfig=_file(source.kubeconfig), progress=progress) as cluster:
        yield VeleroClient(api=cluster.api, namespace=source.namespace, progress=progress)


def _file(path: str) -> Path | None:
    if not path:
        return None
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"no such file: {file}", hint="the policy names it")
    return file
