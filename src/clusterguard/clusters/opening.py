"""Cluster references, as they are given on the command line."""

from __future__ import annotations

from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard.errors import ConfigError, NotAllowedError
from clusterguard.model.progress import ProgressSink, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from clusterguard.clusters.base import Cluster, EtcdAccess
    from clusterguard.clusters.node_shell import NodeShell
    from clusterguard.toolchain import Toolchain

__all__ = ["CREATED", "context_of", "existing_cluster", "open_cluster", "require_allowed"]

CREATED = ("embedded", "kind")
"""References to clusters that are created when they are opened; any other names one that is there already."""


def open_cluster(
    cluster_ref: str,
    *,
    kubeconfig: Path | None = None,
    etcd: EtcdAccess | None = None,
    nodes: Sequence[NodeShell] = (),
    toolchain: Toolchain | None = None,
    progress: ProgressSink = ignore_progress,
) -> Cluster:
    """Return the cluster that a reference names; use it in a ``with`` statement.

    Args:
        cluster_ref: ``embedded`` for a new throwaway cluster, ``embedded:NAME`` for one of ``clusterguard cluster up``,
            ``kind`` for a new throwaway cluster in Docker, ``kind:NAME`` for a kind cluster that is there,
            ``context:NAME`` for a context of the kubeconfig, ``kubeconfig:PATH`` for a file.
        kubeconfig: The file that ``context:`` looks in, by default what kubectl reads.
        etcd: How to connect to the etcd of a ``context:`` or ``kubeconfig:`` cluster.
        nodes: How to become root on the control-plane nodes of such a cluster, if kubeadm made it, and on its workers.
        toolchain: Where the programs of a cluster come from.
        progress: Called as programs are installed and clusters start.

    Raises:
        ConfigError: The reference is not valid.
        ClusterError: There is no cluster ``embedded:NAME`` or ``kind:NAME``.
        ProvisioningError: Docker does not answer for ``kind:NAME``.
    """
    # Slow to load, and one of them is asked for, if any: whoever imports this may only look at names.
    from clusterguard.clusters.embedded import EmbeddedCluster
    from clusterguard.clusters.existing import ExistingCluster
    from clusterguard.clusters.kind import KindCluster

    provider, colon, rest = cluster_ref.partition(":")
    match provider, bool(rest):
        case "embedded", False if not colon:
            return EmbeddedCluster(toolchain=toolchain, progress=progress)
        case "embedded", True:
            return EmbeddedCluster.attach(rest)
        case "kind", False if not colon:
            return KindCluster(toolchain=toolchain, progress=progress)
        case "kind", True:
            return KindCluster.attach(rest, toolchain=toolchain, progress=progress)
        case "context", True:
            return ExistingCluster(kubeconfig=kubeconfig, context=rest, etcd=etcd, nodes=nodes)
        case "kubeconfig", True:
            return ExistingCluster(kubeconfig=Path(rest).expanduser(), etcd=etcd, nodes=nodes)
        case _:
            raise ConfigError(
                f"{cluster_ref!r} is not a valid cluster reference",
                hint="write embedded, embedded:NAME, kind, kind:NAME, context:NAME or kubeconfig:PATH",
            )


def context_of(cluster_ref: str) -> str:
    """Return the name that a cluster is allowed by: that of its context, or the path of a ``kubeconfig:``."""
    provider, _, name = cluster_ref.partition(":")
    return {"embedded": f"clusterguard-{name}", "kind": f"kind-{name}"}.get(provider, name)


def require_allowed(cluster_ref: str, allowed: Iterable[str]) -> None:
    """Refuse to break anything in a cluster that was there before and that nobody allowed by name.

    This is the one rule for whatever destroys: drills, and the fixtures of the pytest plugin.

    Args:
        cluster_ref: As of `open_cluster`.
        allowed: Globs of the contexts that may be destroyed in, from whoever runs it.

    Raises:
        NotAllowedError: It was not; nothing was touched.
    """
    name = context_of(cluster_ref)
    if cluster_ref in CREATED or any(fnmatchcase(name, glob) for glob in allowed):
        return
    raise NotAllowedError(
        f"{cluster_ref} was not created by this run, and is not allowed by name; nothing was touched",
        fields={"cluster": cluster_ref, "context": name},
        hint=f"if you mean it: --drill-allow-context '{name}' with pytest, --allow-context '{name}' elsewhere",
    )


@contextmanager
def existing_cluster(
    cluster_ref: str,
    *,
    kubeconfig: Path | None = None,
    nodes: Sequence[NodeShell] = (),
    progress: ProgressSink = ignore_progress,
) -> Iterator[Cluster]:
    """Open a cluster that was there before, as `open_cluster` does, and close it afterwards."""
    if cluster_ref in CREATED:
        raise ConfigError(
            f"{cluster_ref} means a new, empty cluster",
            hint=f"clusterguard cluster up NAME --provider {cluster_ref}, then {cluster_ref}:NAME",
        )
    cluster = open_cluster(cluster_ref, kubeconfig=kubeconfig, nodes=nodes, progress=progress)
    try:
        yield cluster
    finally:
        cluster.close()
