"""One run of one drill: what it opened, what it made, what it knows."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from clusterguard.clusters.capabilities import Persistable
from clusterguard.clusters.lock import ClusterLock, lock_cluster
from clusterguard.clusters.node_shell import open_node_shell
from clusterguard.clusters.opening import CREATED, open_cluster, require_allowed
from clusterguard.drills import schema
from clusterguard.drills.events import Note
from clusterguard.drills.storages import Storages
from clusterguard.errors import ClusterGuardError, DrillError
from clusterguard.etcd.snapshotter import EtcdSnapshotter
from clusterguard.model.inventory import Scope
from clusterguard.model.progress import ProgressSink, ignore_progress
from clusterguard.scratch import private_folder
from clusterguard.validate.renaming import in_other_namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from clusterguard.clusters.base import Cluster, EtcdAccess
    from clusterguard.clusters.kind import KindCluster
    from clusterguard.drills.canary import Canaries
    from clusterguard.drills.events import EventSink
    from clusterguard.drills.files import FileTree
    from clusterguard.drills.load import Drill, LoadedStep
    from clusterguard.drills.schema import ClusterSpec
    from clusterguard.drills.stored import StoredBackups
    from clusterguard.drills.velero_actions import VeleroSteps
    from clusterguard.model.inventory import Inventory
    from clusterguard.model.snapshot import Snapshot
    from clusterguard.stores.base import ObjectStore

__all__ = ["DrillSettings", "Run", "TakenSnapshot", "changed_clusters", "cluster_ref_of"]

DEFAULT_WAIT = timedelta(minutes=2)
DEFAULT_DRILL_TIMEOUT = timedelta(minutes=30)
_LONGEST_KIND_NAME = 49


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillSettings:
    """What the person who runs a drill decides, as against the person who wrote it.

    Attributes:
        cluster: The cluster of drills that name no provider, as `open_cluster` takes it.
        allowed_contexts: Globs of kubeconfig contexts that may be destroyed in. A drill file cannot allow itself.
        kubeconfig: The file that ``context:`` clusters are looked for in, by default what kubectl reads.
        node_shell: How to become root on the control-plane node of such a cluster, where kubeadm made it, in the words
            of `open_node_shell`; without it nothing restores its etcd.
        keep: When to leave created clusters running for a look: ``never``, ``on-failure`` or ``always``.
        lock_timeout: How long to wait for another run that is at work in a cluster, before giving up.
        omit_restore: Leave the restore phase out: a drill that is still green then proves nothing.
        longest_wait: The most that any check of ``verify`` may take; None for what the file says.
        evidence: Folder for the journal and the result of each run; None for none.
        stored: Finds the backups of policies; None where drills of a ``storedBackup`` are not run.
        scratch: Folder for databases on their way, by default that of `scratch_folder`.
        open: Opens a cluster by its reference; tests and fixtures may hand out one that already runs.
    """

    cluster: str = "embedded"
    allowed_contexts: tuple[str, ...] = ()
    kubeconfig: Path | None = None
    node_shell: str = ""
    keep: str = "never"
    lock_timeout: timedelta = timedelta(0)
    omit_restore: bool = False
    longest_wait: timedelta | None = None
    evidence: Path | None = None
    stored: StoredBackups | None = None
    scratch: Path | None = None
    open: Callable[[str], Cluster] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenSnapshot:
    """A snapshot to restore.

    Attributes:
        record: What it is.
        cluster: The cluster it is of; empty for one that was there before the run.
        storages: The storages that have it, first the original; none for one that was there before.
        store: Where that one is.
    """

    record: Snapshot
    cluster: str = ""
    storages: tuple[str | None, ...] = ()
    store: ObjectStore | None = None


def cluster_ref_of(spec: ClusterSpec, drill: Drill, *, default: str) -> str:
    """Return the reference by which `open_cluster` opens a cluster of a drill.

    Args:
        spec: The cluster.
        drill: The drill.
        default: The reference for one that names no provider.
    """
    if spec.kind is not None:
        return "kind"
    if spec.embedded is not None:
        return "embedded"
    if spec.context is not None:
        return f"context:{spec.context}"
    if spec.kubeconfig is not None:
        return f"kubeconfig:{(drill.path.parent / spec.kubeconfig).resolve()}"
    return default


def changed_clusters(drill: Drill) -> set[str]:
    """Return the clusters that a drill writes to, and does not only look at in the end."""
    written = {step.cluster for step in drill.steps if step.phase != "verify"}
    return written | ({drill.default_cluster} if drill.spec.canary is not False else set())


@dataclass(slots=True)
class Run:
    """The state of a run; closing it gives everything back that was opened."""

    drill: Drill
    run_id: str
    settings: DrillSettings
    tell: EventSink
    deadline: float
    clusters: dict[str, Cluster] = field(default_factory=dict)
    snapshots: dict[str, TakenSnapshot] = field(default_factory=dict)
    baselines: dict[str, Inventory] = field(default_factory=dict)
    canaries: dict[str, Canaries] = field(default_factory=dict)
    # The files of containers before the backup, by the place of the check that compares them.
    files: dict[str, FileTree] = field(default_factory=dict)
    # When the restore of a cluster began, UTC: a status that is not newer proves nothing.
    restored_at: dict[str, datetime] = field(default_factory=dict)
    # Nodes that this run switched off, by their cluster: a cluster without them cannot tell which they were.
    stopped_nodes: dict[str, set[str]] = field(default_factory=dict)
    keep_clusters: bool = False
    _created: set[str] = field(default_factory=set)
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _locks: dict[str, ClusterLock] = field(default_factory=dict)
    _storages: Storages | None = None
    _velero: VeleroSteps | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _folder: Path | None = None

    @property
    def scope(self) -> Scope:
        """What must come back."""
        spec = self.drill.spec.scope
        return Scope(
            namespaces=spec.namespaces,
            kinds=spec.kinds,
            selector=spec.selector or "",
            exclude=spec.exclude,
        )

    def cluster_of(self, step: LoadedStep) -> Cluster:
        """Return the running cluster that a step acts on.

        Raises:
            DrillError: It is not there yet, or not any more.
        """
        try:
            return self.clusters[step.cluster]
        except KeyError as error:
            raise DrillError(f"cluster `{step.cluster}` is not running at this point of the drill") from error

    @property
    def etcd_restores(self) -> bool:
        """Whether the drill restores etcd itself: then objects come back under their own UIDs."""
        return any(isinstance(step.action, schema.EtcdRestore) for step in self.drill.phase("restore"))

    @property
    def velero_restores(self) -> bool:
        """Whether the drill restores a Velero backup: then objects are new, under their old names."""
        return any(isinstance(step.action, schema.VeleroRestore) for step in self.drill.phase("restore"))

    @property
    def namespace_mapping(self) -> Mapping[str, str]:
        """Old and new names of namespaces that the restore renames."""
        mapping: dict[str, str] = {}
        for step in self.drill.phase("restore"):
            if isinstance(step.action, schema.VeleroRestore):
                mapping |= step.action.namespace_mapping
        return mapping

    def baseline_for(self, step: LoadedStep) -> Inventory:
        """Return what must be there: the baseline of the step's cluster, or of the one that was backed up."""
        name = step.cluster if step.cluster in self.baselines else self.drill.default_cluster
        return in_other_namespaces(self.baselines[name], self.namespace_mapping)

    def wait_of(self, step: LoadedStep) -> float:
        """Return how many seconds a step may take."""
        wait = step.timeout or DEFAULT_WAIT
        if self.settings.longest_wait is not None and step.phase == "verify":
            wait = min(wait, self.settings.longest_wait)
        return max(0.0, min(wait.total_seconds(), self.deadline - time.monotonic()))

    def at_least(self, seconds: float, least: float) -> float:
        """Return how many seconds to give what needs some time even where none is asked for.

        Never more than the drill has left; but one second, without which nothing could be told at all.
        """
        return max(1.0, min(max(seconds, least), self.deadline - time.monotonic()))

    def open_cluster(self, name: str) -> Cluster:
        """Create or reach a cluster of the drill.

        Raises:
            NotAllowedError: It is somebody's, and nobody allowed to destroy in it; nothing was touched.
        """
        spec = self.drill.spec.effective_clusters[name]
        cluster_ref = self.cluster_ref_of(spec)
        require_allowed(cluster_ref, self.settings.allowed_contexts)
        if name in self._pending:
            self.clusters[name] = self._pending[name].future.result()
            self._created.add(name)
            del self._pending[name]
        elif self.settings.open is not None:
            self.clusters[name] = self.settings.open(cluster_ref)
        elif cluster_ref in CREATED:
            self.clusters[name] = self._entered(self._open(name, cluster_ref, progress=self.tell))
            self._created.add(name)
        else:
            cluster = self._open(name, cluster_ref, progress=self.tell)
            # It was there before the drill, and stays: only what we hold of it goes.
            self._stack.callback(cluster.close)
            self.clusters[name] = cluster
        return self.clusters[name]

    def open_in_background(self, name: str) -> bool:
        """Begin to create a cluster beside the work on others; `open_cluster` then waits for it, and raises its error.

        Return False where that is not worth it: then nothing is begun.
        """
        cluster_ref = self.cluster_ref_of(self.drill.spec.effective_clusters[name])
        if cluster_ref != "kind" or self.settings.open is not None:
            return False
        cluster = self._kind_cluster(name, ignore_progress)  # the terminal belongs to what runs in front
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"clusterguard-{name}")
        pending = _Pending(cluster=cluster, future=executor.submit(cluster.__enter__))
        executor.shutdown(wait=False)
        self._pending[name] = pending
        self._stack.callback(self._give_back, name, pending)
        return True

    def pending(self) -> tuple[str, ...]:
        """Return the names of the clusters that were begun in the background, and that nobody has waited for yet."""
        return tuple(self._pending)

    def owns(self, name: str) -> bool:
        """Return whether this run created a cluster, so that it goes as a whole, with all that is in it."""
        return name in self._created

    def ways_back(self) -> tuple[str, ...]:
        """Return how to run on each kept kind cluster again, and how to be rid of it."""
        return tuple(
            f"again on {cluster.name}: --drill-cluster kind:{cluster.name} --drill-allow-context {cluster.context}; "
            f"to remove it: clusterguard cluster down {cluster.name} --provider kind"
            for name, cluster in self.clusters.items()
            if self.owns(name) and cluster.provider == "kind"
        )

    def creates(self, name: str) -> bool:
        """Return whether a cluster of the drill is one that this run creates, or will."""
        return self.settings.open is None and self.cluster_ref_of(self.drill.spec.effective_clusters[name]) in CREATED

    def lock_clusters(self) -> None:
        """Take the locks of the clusters that this drill changes, as far as they are there and were so before the run.

        Raises:
            ClusterLockedError: Another run is at work in one.
            ForbiddenError: We may not write Leases in one.
        """
        for name in sorted(self.clusters.keys() & changed_clusters(self.drill)):
            if name not in self._locks and not self.owns(name):
                began = time.monotonic()
                self._locks[name] = lock_cluster(
                    self.clusters[name].api,
                    what=f"drill {self.drill.id}, run {self.run_id}",
                    wait_seconds=self.settings.lock_timeout.total_seconds(),
                    tell=partial(self._tell_of, name),
                )
                self._stack.callback(self._locks[name].release)
                self.deadline += time.monotonic() - began  # waiting for others is no part of the drill's own time

    def _tell_of(self, cluster: str, text: str) -> None:
        self.tell(Note(text=f"cluster `{cluster}`: {text}"))

    def require_locks(self) -> None:
        """Make sure that nobody else is at work in the clusters that are locked.

        Raises:
            ClusterLockedError: Somebody may be.
        """
        for lock in self._locks.values():
            lock.require()

    def store(self, name: str | None) -> ObjectStore:
        """Return a storage of the drill by its name, or the run's own temporary one."""
        return self.storages.store(name)

    @property
    def storages(self) -> Storages:
        """The storages of the drill."""
        if self._storages is None:
            self._storages = Storages(self.drill, self.folder, self.tell)
            self._stack.callback(self._storages.close)
        return self._storages

    @property
    def velero(self) -> VeleroSteps:
        """Velero in the clusters of the drill."""
        if self._velero is None:
            from clusterguard.drills.velero_actions import VeleroSteps

            self._velero = VeleroSteps(self)
        return self._velero

    def snapshotter(self, cluster: str | None, storage: str | None) -> EtcdSnapshotter:
        """Return a snapshotter between a cluster's etcd and a storage."""
        access = self.clusters[cluster].etcd if cluster else None
        return self._snapshotter(self.store(storage), access)

    def snapshotter_of(self, taken: TakenSnapshot, *, access: EtcdAccess | None = None) -> EtcdSnapshotter:
        """Return a snapshotter that has a snapshot, wherever it is."""
        return self._snapshotter(taken.store or self.store(taken.storages[0]), access)

    def _snapshotter(self, store: ObjectStore, access: EtcdAccess | None) -> EtcdSnapshotter:
        return EtcdSnapshotter(store=store, access=access, progress=self.tell, scratch=self.settings.scratch)

    @property
    def folder(self) -> Path:
        """A folder of this run alone, removed at its end."""
        if self._folder is None:
            self._folder = self._stack.enter_context(private_folder())
        return self._folder

    def close_cluster(self, name: str) -> None:
        """Delete a cluster that this run created."""
        self._created.discard(name)
        self.clusters.pop(name).close()

    def close(self) -> None:
        """Give everything back, but for clusters to be kept; a failure of one does not keep the others from it.

        Raises:
            ClusterGuardError: Something could not be given back.
        """
        self._stack.close()

    def cluster_ref_of(self, spec: ClusterSpec) -> str:
        """Return the reference by which `open_cluster` opens a cluster of the drill."""
        return cluster_ref_of(spec, self.drill, default=self.settings.cluster)

    def _open(self, name: str, cluster_ref: str, *, progress: ProgressSink) -> Cluster:
        if cluster_ref == "kind":
            return self._kind_cluster(name, progress)
        if cluster_ref == "embedded" and self.settings.keep != "never":
            from clusterguard.clusters.embedded import EmbeddedCluster

            # It can only be kept if it was never tied to this process.
            return EmbeddedCluster(outlive_us=True, progress=progress)
        node = open_node_shell(self.settings.node_shell) if self.settings.node_shell else None
        return open_cluster(cluster_ref, kubeconfig=self.settings.kubeconfig, node=node, progress=progress)

    def _kind_cluster(self, name: str, progress: ProgressSink) -> KindCluster:
        from clusterguard.clusters.kind import KindCluster

        spec = self.drill.spec.effective_clusters[name].kind
        return KindCluster(
            f"clusterguard-{self.run_id}-{name}"[:_LONGEST_KIND_NAME].rstrip("-"),
            version=spec.version if spec else None,
            workers=spec.workers if spec else 0,
            progress=progress,
        )

    def _entered(self, cluster: Cluster) -> Cluster:
        cluster.__enter__()
        self._stack.callback(self._leave, cluster)
        return cluster

    def _leave(self, cluster: Cluster) -> None:
        if not self.keep_clusters:
            cluster.close()
        elif isinstance(cluster, Persistable) and cluster in self.clusters.values():
            cluster.keep()  # until now it was to go with this process, however that ends

    def _give_back(self, name: str, pending: _Pending) -> None:
        if name in self._created or name not in self._pending:
            self._leave(pending.cluster)  # it was waited for
            return
        del self._pending[name]
        try:
            with contextlib.suppress(ClusterGuardError):
                if not pending.future.done():
                    pending.cluster.abandon()
            with contextlib.suppress(ClusterGuardError):  # nobody wants it, and what it had made it took away again
                pending.future.result()
        finally:
            pending.cluster.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A cluster that is being created in another thread."""

    cluster: KindCluster
    future: Future[KindCluster]
