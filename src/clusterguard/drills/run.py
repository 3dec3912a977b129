"""The state of one run of one drill: what it opened, what it knows, and what came of it."""

from __future__ import annotations

import math
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from clusterguard.clusters.opening import CREATED
from clusterguard.drills.clusters import cluster_ref_of
from clusterguard.drills.marker_plan import MarkerPlan, plan_markers
from clusterguard.drills.storages import Storages
from clusterguard.drills.velero import VeleroClients
from clusterguard.drills.verdict import DrillResult, Mutation, PhaseResult, RecoveryTime, StepResult, Verdict
from clusterguard.errors import DrillError
from clusterguard.etcd.snapshotter import EtcdSnapshotter
from clusterguard.model.durations import format_duration
from clusterguard.scratch import private_folder
from clusterguard.validate.renaming import in_other_namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from clusterguard.clusters.base import Cluster, EtcdAccess
    from clusterguard.clusters.lock import ClusterLock
    from clusterguard.drills.backups import TakenSnapshot
    from clusterguard.drills.clusters import Pending
    from clusterguard.drills.events import EventSink
    from clusterguard.drills.files import FileTree
    from clusterguard.drills.journal import Journal
    from clusterguard.drills.load import Drill, LoadedStep
    from clusterguard.drills.markers import Markers
    from clusterguard.drills.steps.base import Engine
    from clusterguard.drills.stored import StoredBackups
    from clusterguard.evidence.history import Trend
    from clusterguard.evidence.keys import SigningKey
    from clusterguard.model.inventory import Inventory, Scope
    from clusterguard.model.report import ValidationReport
    from clusterguard.stores.base import ObjectStore

__all__ = ["DEFAULT_DRILL_TIMEOUT", "DEFAULT_WAIT", "DrillRun", "DrillSettings"]

DEFAULT_WAIT = timedelta(minutes=2)
DEFAULT_DRILL_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillSettings:
    """What the person who runs a drill decides, as against the person who wrote it.

    Attributes:
        cluster: The cluster of drills that name no provider, as a reference of `open_cluster`.
        allowed_contexts: Globs of kubeconfig contexts that may be destroyed in. A drill file cannot allow itself.
        kubeconfig: The file that ``context:`` clusters are looked for in, by default what kubectl reads.
        node_shell: How to become root on the control-plane node of such a cluster, where kubeadm made it, in the words
            of `open_node_shell`; without it nothing restores its etcd.
        keep: When to leave created clusters running for a look: ``never``, ``on-failure`` or ``always``.
        lock_timeout: How long to wait for another run that works in a cluster, before giving up.
        omit_restore: Leave the restore phase out: a drill that is still green then proves nothing.
        longest_wait: The most that any check of ``verify`` may take; None for what the file says.
        mutate: Put defects into what was restored, once it is proven, and fail if a smaller share of them than this is
            found, in percent; None for no defects.
        evidence: Folder, or location of a bucket, for the bundle of each run; None for none.
        evidence_key: What signs it; None signs nothing.
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
    mutate: float | None = None
    evidence: Path | str | None = None
    evidence_key: SigningKey | None = None
    stored: StoredBackups | None = None
    scratch: Path | None = None
    open: Callable[[str], Cluster] | None = None


@dataclass(slots=True, kw_only=True)
class DrillRun:
    """One run; closing it releases everything that it opened."""

    drill: Drill
    settings: DrillSettings = field(default_factory=DrillSettings)
    on_event: EventSink = lambda _: None
    journal: Journal | None = None  # what keeps the evidence of this run, if anything does
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))
    deadline: float = math.inf  # on the monotonic clock

    # What is open. `created`: clusters of this run, which go as a whole; `pending`: those still being created.
    clusters: dict[str, Cluster] = field(default_factory=dict)
    created: set[str] = field(default_factory=set)
    pending: dict[str, Pending] = field(default_factory=dict)
    locks: dict[str, ClusterLock] = field(default_factory=dict)
    keep_clusters: bool = False
    spoiled: set[str] = field(default_factory=set)  # clusters that a defect could not be taken out of again
    on_close: ExitStack = field(default_factory=ExitStack)
    _storages: Storages | None = None
    _velero: VeleroClients | None = None
    _folder: Path | None = None

    # What it knows, by cluster; `snapshots` by the name in the drill, `files` by the location of the check.
    snapshots: dict[str, TakenSnapshot] = field(default_factory=dict)
    baselines: dict[str, Inventory] = field(default_factory=dict)
    markers: dict[str, Markers] = field(default_factory=dict)
    files: dict[str, FileTree] = field(default_factory=dict)
    # When the restore of a cluster began, UTC: a status that is not newer proves nothing.
    restored_at: dict[str, datetime] = field(default_factory=dict)
    # Nodes that this run switched off: a cluster without them cannot tell which they were.
    stopped_nodes: dict[str, set[str]] = field(default_factory=dict)

    # What came of it. The first thing that went wrong stays the verdict.
    started: datetime = field(init=False)
    began: float = field(default_factory=time.monotonic)
    verdict: Verdict = Verdict.PASS
    reason: str = ""
    hint: str = ""
    code: str = ""
    interrupted: bool = False
    touched: bool = False  # whether any cluster was opened: before that there is nothing to clean up
    phases: list[PhaseResult] = field(default_factory=list)
    steps: list[StepResult] = field(default_factory=list)
    descriptions: dict[str, str] = field(default_factory=dict)
    red: tuple[int, int] | None = None
    faulted: datetime | None = None
    provision_seconds: float = 0.0
    restore_seconds: float = 0.0
    verify_seconds: float | None = None
    rpo: float | None = None
    trend: Trend | None = None
    diff: str = ""
    # What each `restored` saw last, by its location, with the name of the rules it compared by.
    comparisons: dict[str, tuple[str, ValidationReport]] = field(default_factory=dict)
    judged: dict[str, tuple[str, ValidationReport]] = field(default_factory=dict)  # those that `verify` ended with
    suppressed: dict[str, int] = field(default_factory=dict)
    tolerated: dict[str, int] = field(default_factory=dict)
    # Why there are no markers although the drill asks for them; the restore's own list stands in for them then.
    without_markers: str = ""
    brought_back: bool = False  # whether a Velero restore lists something of the scope as created or updated
    diagnostics: tuple[tuple[str, str], ...] = ()
    mutation: Mutation | None = None

    def __post_init__(self) -> None:
        self.started = self.now()

    # ── what the drill says ──

    @property
    def scope(self) -> Scope:
        """What must come back."""
        return self.drill.spec.scope.scope()

    @property
    def timeout(self) -> timedelta:
        """The most that the drill may take, cleanup and the creation of clusters aside."""
        return self.drill.spec.timeout or DEFAULT_DRILL_TIMEOUT

    @property
    def namespace_mapping(self) -> Mapping[str, str]:
        """Old and new names of namespaces that the restore renames."""
        mapping: dict[str, str] = {}
        for step in self.drill.phase("restore"):
            mapping |= getattr(step.action, "namespace_mapping", {})
        return mapping

    @property
    def marker_plan(self) -> MarkerPlan:
        """Where the markers are written, and where the first one must be back."""
        return plan_markers(self.drill.spec)

    def restores(self, engine: Engine) -> bool:
        """Return whether the drill restores with etcd (objects keep their UIDs) or Velero (they get new ones)."""
        return any(step.action.engine == engine for step in self.drill.phase("restore"))

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

        Never more than the drill has left; but one second, without which nothing could be learned at all.
        """
        return max(1.0, min(max(seconds, least), self.deadline - time.monotonic()))

    # ── what it opened ──

    def cluster_ref_of(self, name: str) -> str:
        """Return the reference that `open_cluster` knows a cluster of the drill by."""
        return cluster_ref_of(self.drill.spec.effective_clusters[name], self.drill, default=self.settings.cluster)

    def cluster_of(self, step: LoadedStep) -> Cluster:
        """Return the running cluster that a step acts on.

        Raises:
            DrillError: It is not there yet, or not any more.
        """
        try:
            return self.clusters[step.cluster]
        except KeyError as error:
            raise DrillError(f"cluster `{step.cluster}` is not running at this point of the drill") from error

    def owns(self, name: str) -> bool:
        """Return whether this run created a cluster, so that it goes as a whole, with all that is in it."""
        return name in self.created

    def creates(self, name: str) -> bool:
        """Return whether a cluster of the drill is one that this run creates, or will."""
        return self.settings.open is None and self.cluster_ref_of(name) in CREATED

    @property
    def providers(self) -> dict[str, str]:
        """What runs the clusters, by the name in the drill."""
        return {name: cluster.provider for name, cluster in self.clusters.items()}

    @property
    def storages(self) -> Storages:
        """The storages of the drill."""
        if self._storages is None:
            self._storages = Storages(self.drill, self.folder, self.on_event)
            self.on_close.callback(self._storages.close)
        return self._storages

    @property
    def velero(self) -> VeleroClients:
        """Velero in the clusters of the drill."""
        if self._velero is None:
            self._velero = VeleroClients(self)
        return self._velero

    @property
    def folder(self) -> Path:
        """A folder of this run alone, removed at its end."""
        if self._folder is None:
            self._folder = self.on_close.enter_context(private_folder())
        return self._folder

    def store(self, name: str | None) -> ObjectStore:
        """Return a storage of the drill by its name, or the run's own temporary one."""
        return self.storages.store(name)

    def store_of(self, taken: TakenSnapshot) -> ObjectStore:
        """Return where a snapshot is."""
        return taken.store or self.store(taken.storages[0])

    def snapshot(self, name: str) -> TakenSnapshot:
        """Return a snapshot by the name that the drill gives it.

        Raises:
            DrillError: There is none.
        """
        try:
            return self.snapshots[name]
        except KeyError as error:
            raise DrillError(f"no snapshot `{name}` was saved in this run") from error

    def snapshotter(self, store: ObjectStore, *, access: EtcdAccess | None = None) -> EtcdSnapshotter:
        """Return a snapshotter between a cluster's etcd and a store."""
        return EtcdSnapshotter(store=store, access=access, progress=self.on_event, scratch=self.settings.scratch)

    def close(self) -> None:
        """Release everything, but for clusters to be kept; a failure of one does not keep the others from it.

        Raises:
            ClusterGuardError: Something could not be released.
        """
        self.on_close.close()

    # ── what came of it ──

    def worsen(self, verdict: Verdict, reason: str, hint: str | None = None, *, code: str) -> None:
        """Note what went wrong, unless something did before."""
        if self.verdict is Verdict.PASS:
            self.verdict, self.reason, self.hint, self.code = verdict, reason, hint or "", code

    @property
    def rto(self) -> RecoveryTime | None:
        """How long recovery took, or None if it was not reached."""
        if self.verify_seconds is None:
            return None
        return RecoveryTime(provision=self.provision_seconds, restore=self.restore_seconds, verify=self.verify_seconds)

    def result(self) -> DrillResult:
        """Return what the run showed."""
        return DrillResult(
            drill=self.drill.id,
            run_id=self.run_id,
            verdict=self.verdict,
            reason=self.reason or self._why_proven(),
            hint=self.hint,
            code=self.code,
            started=self.started,
            seconds=time.monotonic() - self.began,
            phases=tuple(self.phases),
            steps=tuple(self.steps),
            rto=self.rto,
            rpo=self.rpo,
            red_after_fault=self.red,
            diff=self.diff,
            suppressed=self.suppressed,
            tolerated=self.tolerated,
            diagnostics=self.diagnostics,
            clusters=self.descriptions,
            providers=self.providers,
            objectives=self.drill.spec.objectives.to_dict(),
            trend=self.trend,
            controls=self.drill.spec.evidence.controls,
            stored=tuple(each.name for each in self.velero.backups.values() if each.existing),
            mutation=self.mutation,
        )

    def _why_proven(self) -> str:
        if self.red is None or self.rto is None:
            return ""
        number, checked = self.red
        red = f"{number} of {checked} checks were red after the fault and all hold now"
        if not number:
            red = "all checks hold, but none of them was red after the fault (prove: false)"
        return f"{red}; recovered in {format_duration(self.rto.total)}"
