"""Runs a drill: set up, back up, break, restore, verify, clean up, and say what that proves."""

from __future__ import annotations

import math
import secrets
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from clusterguard.clusters.opening import require_allowed
from clusterguard.documents.values import equalities
from clusterguard.drills import checks
from clusterguard.drills.actions import perform, remove_applied
from clusterguard.drills.canary import NO_CLUSTER, RUN_LABEL, Canaries, CanaryFindings
from clusterguard.drills.diagnostics import collect, why_silent
from clusterguard.drills.events import (
    DrillEvent,
    DrillFinished,
    DrillStarted,
    EventSink,
    Note,
    PhaseFinished,
    PhaseStarted,
    StepFinished,
    StepStarted,
)
from clusterguard.drills.in_cluster import note_files
from clusterguard.drills.journal import Journal
from clusterguard.drills.needs import why_not_run
from clusterguard.drills.remains import clear_remains
from clusterguard.drills.run import DEFAULT_DRILL_TIMEOUT, DrillSettings, Run
from clusterguard.drills.schema import (
    Canary,
    DeleteCluster,
    EtcdRestore,
    EtcdSnapshot,
    SameFiles,
    VeleroBackup,
    VeleroRestore,
    VerifyBackup,
)
from clusterguard.drills.verdict import DrillResult, PhaseResult, RecoveryTime, StepResult, Verdict
from clusterguard.errors import (
    BackupCorruptError,
    BackupFailedError,
    ClusterGuardError,
    ClusterUnreachableError,
    DrillError,
    NotAllowedError,
    ObjectCorruptError,
    ObjectNotFoundError,
    ResourceNotFoundError,
    RestoreError,
    RestoreFailedError,
    SnapshotError,
    WaitTimeoutError,
)
from clusterguard.model.durations import format_duration
from clusterguard.model.support import require_supported
from clusterguard.validate.validator import RestoreValidator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.drills.load import Drill, LoadedStep
    from clusterguard.drills.schema import PhaseName
    from clusterguard.drills.verdict import CheckResult

__all__ = ["DrillRunner"]

_STILL = ", so the drill proves nothing"


class DrillRunner:
    """Runs drills.

        result = DrillRunner().run(load_drill(Path("drills/deleted-pods.drill.yaml")))
        assert result.verdict is Verdict.PASS

    Args:
        settings: What the person who runs the drill decides.
        tell: Told of everything that happens, as it happens.
        now: The time, UTC.
    """

    def __init__(
        self,
        *,
        settings: DrillSettings | None = None,
        tell: EventSink = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings or DrillSettings()
        self._tell = tell
        self._now = now

    def run(self, drill: Drill) -> DrillResult:
        """Run a drill to its end, cleanup included, and return what it showed.

        A drill that fails or cannot tell is a result, not an exception. Ctrl-C cleans up, tells the result, and
        is raised again; so is what nobody expected.
        """
        tell = self._tell
        if self._settings.evidence is not None:
            tell = _both(Journal(self._settings.evidence, drill, now=self._now), tell)
        return _Execution(drill, self._settings, tell, self._now).run()


def _both(first: EventSink, second: EventSink) -> EventSink:
    def tell(event: DrillEvent) -> None:
        first(event)
        second(event)

    return tell


@dataclass(slots=True)
class _Outcome:
    """The verdict so far: the first thing that went wrong stays."""

    verdict: Verdict = Verdict.PASS
    reason: str = ""
    hint: str = ""

    def worsen(self, verdict: Verdict, reason: str, hint: str | None = None) -> None:
        if self.verdict is Verdict.PASS:
            self.verdict, self.reason, self.hint = verdict, reason, hint or ""


class _StopError(Exception):
    """The drill cannot go on; the outcome says why."""


@dataclass(slots=True)
class _Execution:
    drill: Drill
    settings: DrillSettings
    tell: EventSink
    now: Callable[[], datetime]
    outcome: _Outcome = field(default_factory=_Outcome)
    phases: list[PhaseResult] = field(default_factory=list)
    steps: list[StepResult] = field(default_factory=list)
    red: tuple[int, int] | None = None
    diff: str = ""
    suppressed: dict[str, int] = field(default_factory=dict)
    diagnostics: tuple[tuple[str, str], ...] = ()
    descriptions: dict[str, str] = field(default_factory=dict)
    faulted: datetime | None = None
    provision_seconds: float = 0.0
    restore_seconds: float = 0.0
    verify_seconds: float | None = None
    rpo: float | None = None
    touched: bool = False  # whether any cluster was opened: before that there is nothing to clean up
    interrupted: bool = False
    _run: Run | None = None

    # ---- the whole ---------------------------------------------------------------------------------------

    def run(self) -> DrillResult:
        started, began = self.now(), time.monotonic()
        run = Run(
            drill=self.drill,
            run_id=secrets.token_hex(4),
            settings=self.settings,
            tell=self.tell,
            deadline=float("inf"),
        )
        self._run = run
        self.tell(DrillStarted(drill=self.drill.id, run_id=run.run_id, description=self.drill.spec.description))
        try:
            self._go(run)
        except _StopError:
            pass
        except ClusterGuardError as error:
            self.outcome.worsen(Verdict.ERROR, error.message, error.hint)
        except BaseException as error:
            self.outcome.worsen(Verdict.ERROR, _what_broke_in(error))
            self.interrupted = True
            raise
        finally:
            try:
                self._end(run)
            finally:
                result = self._result(run, started, time.monotonic() - began)
                self.tell(DrillFinished(result=result))
        return result

    def _go(self, run: Run) -> None:
        self._require_support(run)
        self._provision(run)
        self._require_reach(run)
        run.lock_clusters()
        self._clear_remains(run)
        self._steps(run, "setup")
        self._backup(run)
        self._fault(run)
        self._require_red(run)
        if self.settings.omit_restore:
            with self._phase("restore") as phase:
                phase.detail = "left out, as asked"
                self.tell(Note(text=phase.detail))
        else:
            self._restore(run)
        self._verify(run)
        self._weigh_objectives()

    def _end(self, run: Run) -> None:
        """Collect what explains a red drill, then clean up, whatever happened before."""
        if not self.touched:
            return
        run.deadline = math.inf  # the drill's own time may be over; cleanup takes what it needs
        try:
            for canaries in run.canaries.values():
                canaries.stop_ticking()
            if self.outcome.verdict is not Verdict.PASS and not self.interrupted:
                self.diagnostics = collect(run)
        finally:
            self._clean_up(run)

    def _clean_up(self, run: Run) -> None:
        failed = self.outcome.verdict is not Verdict.PASS and not self.interrupted
        run.keep_clusters = self.settings.keep == "always" or (self.settings.keep == "on-failure" and failed)
        with self._phase("cleanup") as phase, ExitStack() as stack:
            # Last in, first out; each runs whatever becomes of the others, a second Ctrl-C included.
            stack.callback(self._cleanup, phase, "give everything back", run.close)
            stack.callback(self._remove_own_objects, phase, run)
            for step in self.drill.phase("cleanup"):
                stack.callback(self._cleanup_step, phase, run, step)
            kept = [
                f"{run.clusters[name].name} ({run.clusters[name].kubeconfig})"
                for name in run.clusters
                if run.owns(name)
            ]
            if run.keep_clusters and kept:
                phase.detail = f"kept: {', '.join(kept)}"
                self.tell(Note(text=phase.detail))
                for again in run.ways_back():
                    self.tell(Note(text=again))

    def _result(self, run: Run, started: datetime, seconds: float) -> DrillResult:
        rto = None
        if self.verify_seconds is not None:
            rto = RecoveryTime(
                provision=self.provision_seconds, restore=self.restore_seconds, verify=self.verify_seconds
            )
        return DrillResult(
            drill=self.drill.id,
            run_id=run.run_id,
            verdict=self.outcome.verdict,
            reason=self.outcome.reason or self._why_proven(rto),
            hint=self.outcome.hint,
            started=started,
            seconds=seconds,
            phases=tuple(self.phases),
            steps=tuple(self.steps),
            rto=rto,
            rpo=self.rpo,
            red_after_fault=self.red,
            diff=self.diff,
            suppressed=self.suppressed,
            diagnostics=self.diagnostics,
            clusters=self.descriptions,
            controls=self.drill.spec.evidence.controls,
        )

    def _timeout_seconds(self) -> float:
        return (self.drill.spec.timeout or DEFAULT_DRILL_TIMEOUT).total_seconds()

    def _why_proven(self, rto: RecoveryTime | None) -> str:
        if self.red is None or rto is None:
            return ""
        number, checked = self.red
        red = f"{number} of {checked} checks were red after the fault and all hold now"
        if not number:
            red = "all checks hold, but none of them was red after the fault (prove: false)"
        return f"{red}; recovered in {format_duration(rto.total)}"

    # ---- the phases --------------------------------------------------------------------------------------

    def _require_support(self, run: Run) -> None:
        """Find out what cannot work before anything is touched."""
        for step in self.drill.steps:
            if isinstance(step.action, DeleteCluster) and not run.creates(step.action.name):
                raise NotAllowedError(
                    f"{step.location}: cluster `{step.action.name}` is not created by this run, and clusterguard "
                    "never deletes such a cluster; nothing was touched"
                )
        for spec in self.drill.spec.effective_clusters.values():
            require_allowed(run.cluster_ref_of(spec), self.settings.allowed_contexts)
        reason = why_not_run(self.drill, default_cluster=self.settings.cluster)
        if reason and self.settings.open is None:
            raise DrillError(f"this drill cannot be run here: {reason}", hint="nothing was touched")

    def _require_reach(self, run: Run) -> None:
        """Find out what the clusters at hand do not let us do, before setup touches them."""
        for step in self.drill.steps:
            cluster = run.clusters.get(step.cluster)
            if cluster is None:
                continue  # it starts later
            hidden = (isinstance(step.action, EtcdSnapshot) and cluster.etcd is None) or (
                isinstance(step.action, EtcdRestore) and cluster.control_plane is None
            )
            if hidden:
                raise DrillError(
                    f"{step.location}: cluster `{step.cluster}` ({cluster.provider} {cluster.name}) does not let us "
                    f"reach its etcd and control plane, which `{step.verb}` needs; nothing was touched",
                    hint="run it on kind or on an embedded cluster; where a provider hides etcd, use Velero",
                )
        velero = {step.cluster for step in self.drill.steps if isinstance(step.action, VeleroBackup | VeleroRestore)}
        for name in velero & run.clusters.keys():
            run.velero.require_supported(name)

    def _provision(self, run: Run) -> None:
        self.touched = True
        with self._phase("provision") as phase:
            early = [name for name, spec in self.drill.spec.effective_clusters.items() if spec.start_in == "setup"]
            for position, name in enumerate(early):
                # The first one is wanted at once; the others come into being while work on it goes on.
                if position == 0 or not run.open_in_background(name):
                    self._open(run, name)
            phase.detail = "; ".join(self.descriptions.values())
        # Getting programs and starting clusters is no part of what spec.timeout limits.
        run.deadline = time.monotonic() + self._timeout_seconds()

    def _clear_remains(self, run: Run) -> None:
        for name in run.clusters:
            if number := clear_remains(run, name):
                self.tell(Note(text=f"removed {number} object(s) of an earlier run from the kept cluster `{name}`"))

    def _open(self, run: Run, name: str) -> None:
        def open_it() -> str:
            cluster = run.open_cluster(name)
            pods = ", pods simulated" if cluster.simulated_pods else ""
            version = cluster.api.server_version()
            require_supported("Kubernetes", version, where=f"cluster {cluster.name}")
            self.descriptions[name] = f"{cluster.provider} {cluster.name}, Kubernetes {version}{pods}"
            return self.descriptions[name]

        self._step("provision", f"cluster `{name}`", open_it)

    def _await_clusters(self, run: Run, names: Iterable[str]) -> None:
        """Wait for clusters that are being created in the background; that is no part of the drill's own time."""
        for name in names:
            if name in run.pending():
                began = time.monotonic()
                self._open(run, name)
                run.deadline += time.monotonic() - began

    def _steps(self, run: Run, phase: PhaseName) -> None:
        if self.drill.phase(phase):
            with self._phase(phase):
                for step in self.drill.phase(phase):
                    self._perform(run, step)

    def _backup(self, run: Run) -> None:
        with self._phase("backup"):
            self._await_clusters(run, [step.cluster for step in self.drill.phase("backup")])
            for name in {step.cluster for step in self.drill.phase("backup") if isinstance(step.action, VeleroBackup)}:
                run.velero.prepare(name)
            # Before the backup, not after it: what moves meanwhile is then newer in the backup, never older.
            if not self.drill.spec.proves_stored:
                self._step("backup", "baseline of the scope", lambda: self._take_baseline(run))
            if any(isinstance(step.action, SameFiles) for step in self.drill.phase("verify")):
                self._step("backup", "digests of the files", lambda: note_files(run))
            self._write_canaries(run)
            for step in self.drill.phase("backup"):
                self._perform(run, step)
            for name, canaries in run.canaries.items():
                canaries.write_after_backup(run.clusters[name].api)

    def _write_canaries(self, run: Run) -> None:
        canary = self.drill.spec.canary
        if canary is False:
            return
        cluster = run.clusters[self.drill.default_cluster]
        canaries = Canaries(
            namespace=self._canary_namespace(run),
            run_id=run.run_id,
            labels=equalities(run.scope.selector),
            now=self.now,
        )
        run.canaries[self.drill.default_cluster] = canaries
        if self.drill.spec.proves_stored:
            return  # nothing that is written now can be in it; only the marker that a restore must lose is of use
        canaries.write_before_backup(cluster.api)
        if isinstance(canary, Canary):
            canaries.tick(cluster.api, every_seconds=canary.every.total_seconds())

    def _canary_namespace(self, run: Run) -> str:
        """Choose a namespace that the backup has: one of the scope, where it names one that is there."""
        api = run.clusters[self.drill.default_cluster].api
        for name in run.scope.namespaces:
            try:
                api.get(api.resource("Namespace"), name)
            except ResourceNotFoundError:
                continue  # a glob, or a namespace that only the restore makes
            return name
        return "default"

    def _take_baseline(self, run: Run) -> str:
        names = {step.cluster for step in self.drill.phase("backup")} | {self.drill.default_cluster}
        for name in sorted(names & run.clusters.keys()):
            run.baselines[name] = RestoreValidator(api=run.clusters[name].api).capture(run.scope)
        number = sum(len(baseline.objects) for baseline in run.baselines.values())
        if not number:
            raise DrillError(f"there is nothing in the scope{_STILL}", hint="correct spec.scope")
        return f"{number} object(s)"

    def _fault(self, run: Run) -> None:
        with self._phase("fault"):
            # Nothing is broken before all is there that the restore needs; and its clock knows no waiting for it.
            self._await_clusters(run, run.pending())
            self.faulted = self.now()
            for name, canaries in run.canaries.items():
                if name in run.clusters:
                    canaries.stop_ticking()
                    canaries.remove_first(run.clusters[name].api)
            for step in self.drill.phase("fault"):
                self._perform(run, step)

    def _require_red(self, run: Run) -> None:
        """Red before green: a check that is green right after the fault shows nothing when it is green later."""
        steps = self.drill.phase("verify")
        with self._phase("red before green") as phase:
            results = [checks.look(run, step, fresh=False) for step in steps]
            red = [step.title for step, result in zip(steps, results, strict=True) if not result.ok]
            self.red = (len(red), len(steps))
            phase.detail = f"red: {', '.join(red)}" if red else "nothing is red"
            for step, result in zip(steps, results, strict=True):
                self.tell(Note(text=f"{step.title}: {'green' if result.ok else 'red'}, {result.summary}"))
            if not red and self.drill.spec.prove:
                phase.verdict = Verdict.FAIL
                self.outcome.worsen(
                    Verdict.FAIL,
                    f"VACUOUS: every check was green right after the fault{_STILL}",
                    "break something that verify looks at, or verify what the fault breaks",
                )
                raise _StopError

    def _restore(self, run: Run) -> None:
        late = [name for name, spec in self.drill.spec.effective_clusters.items() if spec.start_in == "restore"]
        began = time.monotonic()
        if late:
            with self._phase("provision for the restore"):
                for name in late:
                    self._open(run, name)
                run.lock_clusters()
        self.provision_seconds = time.monotonic() - began
        began = time.monotonic()
        with self._phase("restore"):
            for step in self.drill.phase("restore"):
                self._perform(run, step)
        self.restore_seconds = time.monotonic() - began

    def _verify(self, run: Run) -> None:
        steps = self.drill.phase("verify")
        began = time.monotonic()
        with self._phase("verify") as phase:
            self._require_time(run, "verify")
            results = checks.watch_together(run, steps)
            held = all(result.ok for result in results)
            if not held and time.monotonic() >= run.deadline:
                self.outcome.worsen(
                    Verdict.ERROR, "the drill's time was over before all of verify held", "raise spec.timeout"
                )
            run.require_locks()  # what somebody else did meanwhile would be taken for the restore's work
            self._record_checks(steps, results, began)
            trusted = self._ask_canaries(run)
            if held and trusted:
                self.verify_seconds = max(0.0, max(result.since for result in results) - began)
            else:
                phase.verdict = self.outcome.verdict

    def _record_checks(self, steps: Sequence[LoadedStep], results: Sequence[CheckResult], began: float) -> None:
        for step, result in zip(steps, results, strict=True):
            seconds = (result.since or time.monotonic()) - began
            verdict = Verdict.PASS if result.ok else Verdict.FAIL
            self._tell_step("verify", step.title, verdict, seconds, result.summary, step.location)
            for rule, number in (result.suppressed or {}).items():
                self.suppressed[rule] = self.suppressed.get(rule, 0) + number
            if not result.ok:
                self.diff = "\n\n".join(filter(None, [self.diff, result.detail]))
                self.outcome.worsen(
                    Verdict.FAIL, f"not recovered: {step.title}: {result.summary}", f"see {step.location}"
                )

    def _ask_canaries(self, run: Run) -> bool:
        """Let the markers tell whether the restore did it, and how much was lost."""
        trusted = True
        for canaries in run.canaries.values():
            target = run.clusters.get(self._restored_cluster())
            began = time.monotonic()
            etcd = run.etcd_restores
            renamed = run.namespace_mapping.get(canaries.namespace, "")
            findings = NO_CLUSTER
            if target is not None:
                findings = _asked(canaries, target.api, etcd_restored=etcd, namespace=renamed)
            ok = not findings.problems
            back = "the marker from before the backup is back" + (", the one from after it is gone" if etcd else "")
            if self.drill.spec.proves_stored:
                back = "the marker from before the restore is gone"
            summary = "; ".join(findings.problems) or back
            verdict = Verdict.PASS if ok else Verdict.FAIL
            self._tell_step("verify", "canaries", verdict, time.monotonic() - began, summary, "")
            if not ok:
                trusted = False
                self.outcome.worsen(Verdict.FAIL, f"not proven: {summary}")
            # Without a restore the markers that are there were never lost, and tell nothing.
            if ok and findings.newest is not None and self.faulted is not None:
                self.rpo = (self.faulted - findings.newest).total_seconds()
        if self.drill.spec.proves_stored and trusted and self.faulted is not None:
            # What was written since it was taken would be lost if its cluster broke now.
            oldest = min(taken.record.taken for taken in run.snapshots.values())
            self.rpo = (self.faulted - oldest).total_seconds()
        return trusted

    def _restored_cluster(self) -> str:
        return self.drill.phase("restore")[-1].cluster

    def _weigh_objectives(self) -> None:
        objectives = self.drill.spec.objectives
        taken = self.provision_seconds + self.restore_seconds + (self.verify_seconds or 0.0)
        if self.verify_seconds is not None and objectives.rto and taken > objectives.rto.total_seconds():
            self.outcome.worsen(
                Verdict.FAIL,
                f"recovery took {format_duration(taken)}, more than the {objectives.rto.total_seconds():g} s promised",
                "the table shows which phase took it",
            )
        if objectives.rpo and self.rpo is not None and self.rpo > objectives.rpo.total_seconds():
            self.outcome.worsen(
                Verdict.FAIL,
                f"{format_duration(self.rpo)} of changes were lost, more than the "
                f"{objectives.rpo.total_seconds():g} s promised",
                "back up more often",
            )

    def _remove_own_objects(self, phase: _OpenPhase, run: Run) -> None:
        for name, cluster in run.clusters.items():
            if run.owns(name):
                continue  # it goes as a whole, or is kept as a whole
            if silent := why_silent(cluster.api):
                self._cleanup(phase, "remove what this run made", partial(_refuse, name, silent))
                continue
            if name in run.canaries:
                self._cleanup(phase, "remove canaries", partial(run.canaries[name].remove_all, cluster.api))
            self._cleanup(phase, "remove what setup made", partial(remove_applied, run, name))

    # ---- steps and phases --------------------------------------------------------------------------------

    def _perform(self, run: Run, step: LoadedStep) -> None:
        self._await_clusters(run, [step.cluster])

        def act() -> str:
            if step.phase == "setup" and step.verb == "ready":
                result = checks.watch_all(run, [step])[0]
                if not result.ok:
                    raise WaitTimeoutError(step.title, seconds=run.wait_of(step), last_seen=result.summary)
                return result.summary
            return perform(step.action, run, step)

        failed_backup = Verdict.FAIL if isinstance(step.action, VerifyBackup) else Verdict.ERROR
        verdicts = {"backup": failed_backup, "restore": Verdict.FAIL}
        self._step(step.phase, step.title, act, location=step.location, on_error=verdicts.get(step.phase))

    def _step(
        self,
        phase: str,
        title: str,
        act: Callable[[], str],
        *,
        location: str = "",
        on_error: Verdict | None = None,
    ) -> None:
        self.tell(StepStarted(phase=phase, title=title))
        began = time.monotonic()
        if self._run is not None:
            self._require_time(self._run, title)
        try:
            if self._run is not None:
                self._run.require_locks()
            detail = act()
        except ClusterGuardError as error:
            verdict = _verdict_of(error, on_error)
            self._tell_step(phase, title, verdict, time.monotonic() - began, error.message, location)
            place = f" ({location})" if location else ""
            self.outcome.worsen(verdict, f"{phase}: {title}: {error.message}{place}", error.hint)
            raise _StopError from error
        self._tell_step(phase, title, Verdict.PASS, time.monotonic() - began, detail, location)

    def _require_time(self, run: Run, title: str) -> None:
        if time.monotonic() > run.deadline:
            self.outcome.worsen(Verdict.ERROR, f"the drill's time was over before {title}", "raise spec.timeout")
            raise _StopError

    def _cleanup_step(self, phase: _OpenPhase, run: Run, step: LoadedStep) -> None:
        if step.cluster not in run.clusters:
            self.tell(Note(text=f"{step.title}: cluster `{step.cluster}` is not there, so nothing of it is cleaned up"))
            return
        self._cleanup(phase, step.title, partial(perform, step.action, run, step), step.location)

    def _cleanup(self, phase: _OpenPhase, title: str, act: Callable[[], object], location: str = "") -> None:
        """Do one thing of the cleanup; where it fails the others still follow, and the drill is no PASS any more."""
        began = time.monotonic()
        try:
            detail = act()
        except ClusterGuardError as error:
            phase.verdict = Verdict.ERROR
            self._tell_step("cleanup", title, Verdict.ERROR, time.monotonic() - began, error.message, location)
            self.outcome.worsen(Verdict.ERROR, f"cleanup: {title}: {error.message}", error.hint)
        else:
            if isinstance(detail, str):
                self._tell_step("cleanup", title, Verdict.PASS, time.monotonic() - began, detail, location)

    def _tell_step(self, phase: str, title: str, verdict: Verdict, seconds: float, detail: str, location: str) -> None:
        result = StepResult(
            phase=phase, title=title, verdict=verdict, seconds=seconds, detail=detail, location=location
        )
        self.steps.append(result)
        self.tell(StepFinished(result=result))

    @contextmanager
    def _phase(self, name: str) -> Iterator[_OpenPhase]:
        self.tell(PhaseStarted(phase=name))
        began = time.monotonic()
        phase = _OpenPhase()
        try:
            yield phase
        except BaseException as error:
            if phase.verdict is Verdict.PASS:
                phase.verdict = self.outcome.verdict if isinstance(error, _StopError) else Verdict.ERROR
            raise
        finally:
            seconds = time.monotonic() - began
            result = PhaseResult(name=name, verdict=phase.verdict, seconds=seconds, detail=phase.detail)
            self.phases.append(result)
            self.tell(PhaseFinished(result=result))


@dataclass(slots=True)
class _OpenPhase:
    verdict: Verdict = Verdict.PASS
    detail: str = ""


def _refuse(cluster: str, silent: str) -> None:
    raise ClusterUnreachableError(
        f"cluster `{cluster}` does not answer, so what this run made in it stays: {silent}",
        hint=f"once it answers: delete what has the label {RUN_LABEL}",
    )


def _asked(canaries: Canaries, api: KubeClient, *, etcd_restored: bool, namespace: str) -> CanaryFindings:
    """Ask for the markers; a cluster that does not answer has not been recovered, and needs no waiting for."""
    reason = why_silent(api)
    if reason is None:
        return canaries.look(api, etcd_restored=etcd_restored, namespace=namespace)
    return CanaryFindings(
        problems=(f"the cluster that the markers must be back in does not answer: {reason}",), newest=None
    )


def _verdict_of(error: ClusterGuardError, preferred: Verdict | None) -> Verdict:
    """A restore or a backup that is proven bad fails the drill; what could not be tried is an error."""
    proven_bad = (
        RestoreError,
        SnapshotError,
        ObjectCorruptError,
        ObjectNotFoundError,
        WaitTimeoutError,
        BackupCorruptError,
        BackupFailedError,
        RestoreFailedError,
    )
    return Verdict.FAIL if preferred is Verdict.FAIL and isinstance(error, proven_bad) else Verdict.ERROR


def _what_broke_in(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else f"unexpected {type(error).__name__}: {error}"
