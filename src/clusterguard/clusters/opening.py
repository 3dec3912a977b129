"""One word for a cluster, as it is given on the command line."""

from __future__ import annotations

from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard.clusters.embedded import EmbeddedCluster
from clusterguard.clusters.existing import ExistingCluster
from clusterguard.clusters.kind import KindCluster
from clusterguard.errors import ConfigError, NotAllowedError
from clusterguard.model.progress import ProgressSink, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterguard.clusters.base import Cluster, EtcdAccess
    from clusterguard.clusters.node_shell import NodeShell
    from clusterguard.toolchain import Toolchain

__all__ = ["CREATED", "context_of", "existing_cluster", "open_cluster", "require_allowed"]

CREATED = ("embedded", "kind")
"""Words for clusters that whoever opens them creates; any other word names one that is there already."""


def open_cluster(
    word: str,
    *,
    kubeconfig: Path | None = None,
    etcd: EtcdAccess | None = None,
    node: NodeShell | None = None,
    toolchain: Toolchain | None = None,
    progress: ProgressSink = ignore_progress,
) -> Cluster:
    """Return the cluster that a word names; use it in a ``with`` statement.

    Args:
        word: ``embedded`` for a new throwaway cluster, ``embedded:NAME`` for one that ``clusterguard cluster up``
            started, ``kind`` for a new throwaway cluster in Docker, ``kind:NAME`` for a kind cluster that is there,
            ``context:NAME`` for a context of the kubeconfig, ``kubeconfig:PATH`` for a file.
        kubeconfig: The file that ``context:`` looks in, by default what kubectl reads.
        etcd: How to reach the etcd of a ``context:`` or ``kubeconfig:`` cluster.
        node: How to become root on the control-plane node of such a cluster, where kubeadm made it.
        toolchain: Where the programs of a cluster come from.
        progress: Told of toolchain work.

    Raises:
        ConfigError: The word names no cluster.
        ClusterError: There is no cluster ``embedded:NAME`` or ``kind:NAME``.
        ProvisioningError: Docker does not answer for ``kind:NAME``.
    """
    provider, colon, rest = word.partition(":")
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
            return ExistingCluster(kubeconfig=kubeconfig, context=rest, etcd=etcd, node=node)
        case "kubeconfig", True:
            return ExistingCluster(kubeconfig=Path(rest).expanduser(), etcd=etcd, node=node)
        case _:
            raise ConfigError(
                f"{word!r} names no cluster",
                hint="write embedded, embedded:NAME, kind, kind:NAME, context:NAME or kubeconfig:PATH",
            )


def context_of(word: str) -> str:
    """Return the name that a cluster is allowed by: that of its context, or the path of a ``kubeconfig:``."""
    provider, _, name = word.partition(":")
    return {"embedded": f"clusterguard-{name}", "kind": f"kind-{name}"}.get(provider, name)


def require_allowed(word: str, allowed: Iterable[str]) -> None:
    """Refuse to break anything in a cluster that was there before and that nobody allowed by name.

    This is the one rule for whatever destroys: drills, and the fixtures of the pytest plugin.

    Args:
        word: As of `open_cluster`.
        allowed: Globs of the contexts that may be destroyed in, from whoever runs it.

    Raises:
        NotAllowedError: It was not; nothing was touched.
    """
    name = context_of(word)
    if word in CREATED or any(fnmatchcase(name, glob) for glob in allowed):
        return
    raise NotAllowedError(
        f"{word} was not created by this run, and nobody allowed to destroy in it; nothing was touched",
        fields={"cluster": word, "context": name},
        hint=f"if you mean it: --drill-allow-context '{name}' with pytest, --allow-context '{name}' elsewhere",
    )


@contextmanager
def existing_cluster(
    word: str,
    *,
    kubeconfig: Path | None = None,
    node: NodeShell | None = None,
    progress: ProgressSink = ignore_progress,
) -> Iterator[Cluster]:
    """Give a cluster that was there before, and afterwards only let go of it.

    Args:
        word: As of `open_cluster`, but for new throwaway clusters: there is nothing in them.
        kubeconfig: As of `open_cluster`.
        node: As of `open_cluster`.
        progress: Told of toolchain work.

    Raises:
        ConfigError: The word names no cluster, or a throwaway one.
        ClusterError: There is no such cluster.
    """
    if word in CREATED:
        raise ConfigError(
            f"{word} means a new throwaway cluster, and there is nothing in it",
            hint=f"clusterguard cluster up NAME --provider {word}, then {word}:NAME",
        )
    cluster = open_cluster(word, kubeconfig=kubeconfig, node=node, progress=progress)
    try:
        yield cluster
    finally:
        cluster.close()
