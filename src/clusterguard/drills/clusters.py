"""The clusters of a run: opened when they are wanted, locked, and closed or kept at its end."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from clusterguard.clusters.capabilities import Persistable
from clusterguard.clusters.lock import lock_cluster
from clusterguard.clusters.node_shell import open_node_shells
from clusterguard.clusters.opening import CREATED, open_cluster, require_allowed
from clusterguard.drills.csi_driver import install_driver
from clusterguard.drills.events import Note
from clusterguard.drills.marker_plan import plan_markers
from clusterguard.drills.requirements import needs_snapshots
from clusterguard.errors import ClusterGuardError
from clusterguard.model.progress import ProgressSink, ignore_progress

if TYPE_CHECKING:
    from clusterguard.clusters.base import Cluster
    from clusterguard.clusters.kind import KindCluster
    from clusterguard.drills.load import Drill
    from clusterguard.drills.run import DrillRun
    from clusterguard.drills.schema import ClusterSpec

__all__ = [
    "Pending",
    "changed_clusters",
    "cluster_ref_of",
    "kept_clusters",
    "lock_clusters",
    "start_cluster",
    "start_in_background",
]

_LONGEST_KIND_NAME = 49


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A cluster that is being created in another thread."""

    cluster: KindCluster
    future: Future[KindCluster]


def cluster_ref_of(spec: ClusterSpec, drill: Drill, *, default: str) -> str:
    """Return the reference by which `open_cluster` opens a cluster; the default for one that names no provider."""
    match spec.provider(default):
        case "context":
            return f"context:{spec.context}"
        case "kubeconfig":
            return f"kubeconfig:{(drill.path.parent / str(spec.kubeconfig)).resolve()}"
        case provider:
            return provider or default


def changed_clusters(drill: Drill) -> set[str]:
    """Return the clusters that a drill writes to, and does not only look at in the end."""
    written = {step.cluster for step in drill.steps if step.phase != "verify"}
    return written | ({plan_markers(drill.spec).cluster} if drill.spec.canary is not False else set())


def start_cluster(run: DrillRun, name: str) -> Cluster:
    """Create a cluster of the drill, or connect to it.

    Raises:
        NotAllowedError: It existed before, and its context is not allowed; nothing was touched.
    """
    ref = run.cluster_ref_of(name)
    require_allowed(ref, run.settings.allowed_contexts)
    if name in run.pending:
        run.clusters[name] = run.pending[name].future.result()
        run.created.add(name)
        del run.pending[name]
        _give_driver(run, name)
    elif run.settings.open is not None:
        run.clusters[name] = run.settings.open(ref)
    elif ref in CREATED:
        cluster = _cluster(run, name, ref)
        cluster.__enter__()
        run.on_close.callback(_close_or_keep, run, cluster)
        run.clusters[name] = cluster
        run.created.add(name)
        _give_driver(run, name)
    else:
        run.clusters[name] = _cluster(run, name, ref)
        # It existed before the drill, and stays: only our connection to it is closed.
        run.on_close.callback(run.clusters[name].close)
    return run.clusters[name]


def _give_driver(run: DrillRun, name: str) -> None:
    """Put the user's CSI driver into a cluster of ours, where the drill takes snapshots of volumes."""
    if needs_snapshots(run.drill):
        install_driver(run.clusters[name].api, progress=run.on_event)


def start_in_background(run: DrillRun, name: str) -> bool:
    """Begin to create a cluster while others are used; `start_cluster` then waits for it, and raises its error.

    Return False where that is not worth it: then nothing is begun.
    """
    if run.cluster_ref_of(name) != "kind" or run.settings.open is not None:
        return False
    cluster = _kind_cluster(run, name, ignore_progress)  # the terminal belongs to what runs in front
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"clusterguard-{name}")
    run.pending[name] = Pending(cluster=cluster, future=executor.submit(cluster.__enter__))
    executor.shutdown(wait=False)
    run.on_close.callback(_close_pending, run, name, run.pending[name])
    return True


def lock_clusters(run: DrillRun) -> None:
    """Lock the clusters that this drill changes, as far as they are there and existed before the run.

    Raises:
        ClusterLockedError: Another run works in one.
        ForbiddenError: We may not write Leases in one.
    """
    for name in sorted(run.clusters.keys() & changed_clusters(run.drill)):
        if name not in run.locks and not run.owns(name):
            began = time.monotonic()
            run.locks[name] = lock_cluster(
                run.clusters[name].api,
                what=f"drill {run.drill.id}, run {run.run_id}",
                wait_seconds=run.settings.lock_timeout.total_seconds(),
                on_wait=partial(_note, run, name),
            )
            run.on_close.callback(run.locks[name].release)
            run.deadline += time.monotonic() - began  # waiting for others does not count as the drill's own time


def kept_clusters(run: DrillRun) -> tuple[str, ...]:
    """Return how to use each kept kind cluster again, and how to remove it."""
    return tuple(
        f"again on {cluster.name}: --drill-cluster kind:{cluster.name} --drill-allow-context {cluster.context}; "
        f"to remove it: clusterguard cluster down {cluster.name} --provider kind"
        for name, cluster in run.clusters.items()
        if run.owns(name) and cluster.provider == "kind"
    )


def _note(run: DrillRun, cluster: str, text: str) -> None:
    run.on_event(Note(text=f"cluster `{cluster}`: {text}"))


def _cluster(run: DrillRun, name: str, ref: str) -> Cluster:
    if ref == "kind":
        return _kind_cluster(run, name, run.on_event)
    embedded = run.drill.spec.effective_clusters[name].embedded
    members = embedded.members if embedded else 1
    if ref == "embedded" and (run.settings.keep != "never" or members > 1):
        from clusterguard.clusters.embedded import EmbeddedCluster

        # It can only be kept if it was never tied to this process.
        outlive_us = run.settings.keep != "never"
        return EmbeddedCluster(outlive_us=outlive_us, members=members, progress=run.on_event)
    nodes = open_node_shells(run.settings.node_shell)
    return open_cluster(ref, kubeconfig=run.settings.kubeconfig, nodes=nodes, progress=run.on_event)


def _kind_cluster(run: DrillRun, name: str, progress: ProgressSink) -> KindCluster:
    from clusterguard.clusters.kind import KindCluster
    from clusterguard.drills.schema import KindProvider

    spec = run.drill.spec.effective_clusters[name].kind or KindProvider()
    return KindCluster(
        f"clusterguard-{run.run_id}-{name}"[:_LONGEST_KIND_NAME].rstrip("-"),
        version=spec.version,
        control_planes=spec.control_planes,
        workers=spec.workers,
        progress=progress,
    )


def _close_or_keep(run: DrillRun, cluster: Cluster) -> None:
    if not run.keep_clusters:
        cluster.close()
    elif isinstance(cluster, Persistable) and cluster in run.clusters.values():
        cluster.keep()  # until now it was to go with this process, however that ends


def _close_pending(run: DrillRun, name: str, pending: Pending) -> None:
    if name in run.created or name not in run.pending:
        _close_or_keep(run, pending.cluster)  # it was waited for
        return
    del run.pending[name]
    try:
        with contextlib.suppress(ClusterGuardError):
            if not pending.future.done():
                pending.cluster.abandon()
        with contextlib.suppress(ClusterGuardError):  # its result is not wanted, and a failed creation cleans up
            pending.future.result()
    finally:
        pending.cluster.close()
