"""The phases of a drill, one function each, in the order in which they run."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from clusterguard.clusters.opening import require_allowed
from clusterguard.documents.values import duration_text
from clusterguard.drills import checks
from clusterguard.drills.clusters import lock_clusters, start_cluster, start_in_background
from clusterguard.drills.diagnostics import why_silent
from clusterguard.drills.events import Note
from clusterguard.drills.marker_plan import marker_namespace
from clusterguard.drills.markers import MarkerFindings, Markers
from clusterguard.drills.recording import StopDrillError, do_step, phase, record, require_time, timed_out
from clusterguard.drills.requirements import skip_reason
from clusterguard.drills.schema import Canary
from clusterguard.drills.steps.base import StepContext
from clusterguard.drills.verdict import Verdict
from clusterguard.errors import DrillError
from clusterguard.evidence.bundle import evidence_store
from clusterguard.evidence.history import LEAST_RUNS, earlier_runs, trend_of
from clusterguard.model.durations import format_duration
from clusterguard.model.support import require_supported
from clusterguard.validate.validator import RestoreValidator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.run import DrillRun
    from clusterguard.drills.steps.base import PhaseName
    from clusterguard.drills.verdict import CheckResult
    from clusterguard.evidence.history import EarlierRun

__all__ = [
    "back_up",
    "break_it",
    "look_for_markers",
    "provision",
    "refuse_what_cannot_work",
    "require_access",
    "require_red",
    "restore",
    "set_up",
    "verify",
    "weigh_objectives",
]

_STILL = ", so the drill proves nothing"


def refuse_what_cannot_work(run: DrillRun) -> None:
    """Find out what cannot work before anything is touched.

    Raises:
        ClusterGuardError: It cannot.
    """
    if run.drill.spec.canary is not False and run.marker_plan.impossible:
        _tell_without_markers(run, run.marker_plan.impossible)
    for step in run.drill.steps:
        step.action.require(StepContext(run, step))
    for name in run.drill.spec.effective_clusters:
        require_allowed(run.cluster_ref_of(name), run.settings.allowed_contexts)
    reason = skip_reason(run.drill, default_cluster=run.settings.cluster)
    if reason and run.settings.open is None:
        raise DrillError(f"this drill cannot be run here: {reason}", hint="nothing was touched", code="drill-skipped")


def provision(run: DrillRun) -> None:
    """Open the clusters that are wanted from the beginning; those after the first come up in the background."""
    run.touched = True
    with phase(run, "provision") as opened:
        early = [name for name, spec in run.drill.spec.effective_clusters.items() if spec.start_in == "setup"]
        for position, name in enumerate(early):
            if position == 0 or not start_in_background(run, name):
                _start(run, name)
        opened.detail = "; ".join(run.descriptions.values())
    # spec.timeout does not limit getting programs and starting clusters.
    run.deadline = time.monotonic() + run.timeout.total_seconds()


def require_access(run: DrillRun) -> None:
    """Find out what the clusters do not let us do, before setup touches them.

    Raises:
        ClusterGuardError: They do not let us.
    """
    for step in run.drill.steps:
        step.action.require(StepContext(run, step))


def set_up(run: DrillRun) -> None:
    """Build what the drill is about."""
    if run.restores("velero"):
        run.velero.note_namespaces()
    if run.drill.phase("setup"):
        with phase(run, "setup"):
            _perform_all(run, "setup")


def back_up(run: DrillRun) -> None:
    """Take the baseline, write the first marker, back up, and write the second one."""
    steps = run.drill.phase("backup")
    with phase(run, "backup"):
        _await_clusters(run, [step.cluster for step in steps])
        for step in steps:
            step.action.prepare(StepContext(run, step))
        # Before the backup, not after it: what moves meanwhile is then newer in the backup, never older.
        if not run.drill.spec.proves_stored:
            do_step(run, "backup", "baseline of the scope", partial(_take_baseline, run))
        for step in run.drill.phase("verify"):
            if step.action.noted():
                do_step(run, "backup", f"notes for {step.title}", partial(step.action.note, StepContext(run, step)))
        _write_first_marker(run)
        _perform_all(run, "backup")
        for name, markers in run.markers.items():
            markers.write_after_backup(run.clusters[name].api)


def break_it(run: DrillRun) -> None:
    """Remove the first marker, and break what the drill says."""
    with phase(run, "fault"):
        # Nothing is broken before all is there that the restore needs; and its clock knows no waiting for it.
        _await_clusters(run, tuple(run.pending))
        run.faulted = run.now()
        for name, markers in run.markers.items():
            if name in run.clusters:
                markers.stop_ticking()
                markers.remove_first(run.clusters[name].api)
        _perform_all(run, "fault")


def require_red(run: DrillRun) -> None:
    """Red before green: a check that is green right after the fault shows nothing when it is green later.

    Raises:
        StopDrillError: Nothing is red.
    """
    steps = run.drill.phase("verify")
    with phase(run, "red before green") as opened:
        # A single look: waiting could let a controller turn it green, and nothing was restored yet.
        results = checks.look_at_all(run, steps)
        red = [step.title for step, result in zip(steps, results, strict=True) if not result.ok]
        run.red = (len(red), len(steps))
        opened.detail = f"red: {', '.join(red)}" if red else "nothing is red"
        for step, result in zip(steps, results, strict=True):
            run.on_event(Note(text=f"{step.title}: {'green' if result.ok else 'red'}, {result.summary}"))
        if not red and run.drill.spec.prove:
            opened.verdict = Verdict.FAIL
            run.worsen(
                Verdict.FAIL,
                f"VACUOUS: every check was green right after the fault{_STILL}",
                "break something that verify looks at, or verify what the fault breaks",
                code="drill-vacuous",
            )
            raise StopDrillError


def restore(run: DrillRun) -> None:
    """Open the clusters that are wanted only now, and restore; the recovery clock runs."""
    if run.settings.omit_restore:
        with phase(run, "restore") as opened:
            opened.detail = "left out, as asked"
            run.on_event(Note(text=opened.detail))
        return
    late = [name for name, spec in run.drill.spec.effective_clusters.items() if spec.start_in == "restore"]
    began = time.monotonic()
    if late:
        with phase(run, "provision for the restore"):
            for name in late:
                _start(run, name)
            lock_clusters(run)
    run.provision_seconds = time.monotonic() - began
    began = time.monotonic()
    with phase(run, "restore"):
        _perform_all(run, "restore")
    run.restore_seconds = time.monotonic() - began


def verify(run: DrillRun) -> None:
    """Watch until all checks hold together, and ask the markers whether it was the restore that did it."""
    steps = run.drill.phase("verify")
    began = time.monotonic()
    run.comparisons.clear()  # those from right after the fault
    with phase(run, "verify") as opened:
        require_time(run, "verify")
        results = checks.watch_together(run, steps)
        run.judged = dict(run.comparisons)  # whoever looks later looks at something else
        held = all(result.ok for result in results)
        if not held and time.monotonic() >= run.deadline:
            timed_out(run, "before all of verify held")
        for lock in run.locks.values():
            lock.require()  # what another run did meanwhile would be taken for the restore's work
        _record_checks(run, steps, results, began)
        trusted = all(_ask_markers(run, markers) for markers in run.markers.values())
        if run.without_markers:
            trusted = _judge_without_markers(run)
        _measure_stored(run, trusted=trusted)
        if held and trusted:
            run.verify_seconds = max(0.0, max(result.since for result in results) - began)
        else:
            opened.verdict = run.verdict


def weigh_objectives(run: DrillRun) -> None:
    """Compare recovery time and lost changes with what was promised."""
    objectives = run.drill.spec.objectives
    if run.rto is not None and objectives.rto and run.rto.total > objectives.rto.total_seconds():
        reason = f"recovery took {format_duration(run.rto.total)}, {_promised(objectives.rto)}"
        run.worsen(Verdict.FAIL, reason, "the table shows which phase took it", code="rto-missed")
    if run.rpo is not None and objectives.rpo and run.rpo > objectives.rpo.total_seconds():
        reason = f"{format_duration(run.rpo)} of changes were lost, {_promised(objectives.rpo)}"
        run.worsen(Verdict.FAIL, reason, "back up more often", code="rpo-missed")
    if run.rto is not None and objectives.slower_than:
        _weigh_trend(run, run.rto.total, objectives.slower_than)


def _weigh_trend(run: DrillRun, rto: float, slower_than: float) -> None:
    """Compare recovery time with that of earlier runs, which is no promise where there are too few of them."""
    earlier: tuple[EarlierRun, ...] = ()
    if (location := run.settings.evidence) is not None:
        key = run.settings.evidence_key
        public = key.public if key else None
        earlier = earlier_runs(evidence_store(location), run.drill.id, providers=run.providers, key=public)
    run.trend = trend = trend_of(rto, earlier, slower_than=slower_than)
    if trend.median_seconds is None or trend.ratio is None:
        why = f"{trend.runs} earlier runs passed, {LEAST_RUNS} are needed" if location else "no evidence is kept"
        run.on_event(Note(text=f"slowerThan: not judged: {why}"))
    elif trend.slower:
        run.worsen(
            Verdict.FAIL,
            f"recovery took {format_duration(rto)}, {trend.ratio:.2f} times the median of the last {trend.runs} runs "
            f"({format_duration(trend.median_seconds)}), more than the {slower_than:g}x promised",
            "clusterguard report of the evidence shows which phase takes longer",
            code="slower-than-before",
        )


def _promised(objective: timedelta) -> str:
    return f"more than the {duration_text(objective)} promised"


def _perform_all(run: DrillRun, name: PhaseName) -> None:
    for step in run.drill.phase(name):
        _await_clusters(run, [step.cluster])
        judges = name == "restore" or (name == "backup" and step.action.judges)
        act = partial(step.action.perform, StepContext(run, step))
        do_step(run, name, step.title, act, location=step.location, judges=judges)


# ── clusters ──────────────────────────────────────────────────────────────────────────────────────────────


def _start(run: DrillRun, name: str) -> None:
    def start() -> str:
        cluster = start_cluster(run, name)
        pods = ", pods simulated" if cluster.simulated_pods else ""
        version = cluster.api.server_version()
        require_supported("Kubernetes", version, where=f"cluster {cluster.name}")
        run.descriptions[name] = f"{cluster.provider} {cluster.name}, Kubernetes {version}{pods}"
        return run.descriptions[name]

    do_step(run, "provision", f"cluster `{name}`", start)


def _await_clusters(run: DrillRun, names: Iterable[str]) -> None:
    """Wait for clusters that are being created in the background; that does not count as the drill's own time."""
    for name in names:
        if name in run.pending:
            began = time.monotonic()
            _start(run, name)
            run.deadline += time.monotonic() - began


# ── baseline and checks ───────────────────────────────────────────────────────────────────────────────────


def _take_baseline(run: DrillRun) -> str:
    names = {step.cluster for step in run.drill.phase("backup")} | {run.drill.default_cluster}
    for name in sorted(names & run.clusters.keys()):
        run.baselines[name] = RestoreValidator(api=run.clusters[name].api).capture(run.scope)
    number = sum(len(baseline.objects) for baseline in run.baselines.values())
    if not number:
        raise DrillError(f"there is nothing in the scope{_STILL}", hint="correct spec.scope", code="scope-empty")
    return f"{number} object(s)"


def _record_checks(run: DrillRun, steps: Sequence[LoadedStep], results: Sequence[CheckResult], began: float) -> None:
    for step, result in zip(steps, results, strict=True):
        seconds = (result.since or time.monotonic()) - began
        verdict = Verdict.PASS if result.ok else Verdict.FAIL
        record(run, "verify", step.title, verdict, seconds, result.summary, step.location)
        for rule, number in (result.suppressed or {}).items():
            run.suppressed[rule] = run.suppressed.get(rule, 0) + number
        if not result.ok:
            run.diff = "\n\n".join(filter(None, [run.diff, result.detail]))
            reason = f"not recovered: {step.title}: {result.summary}"
            run.worsen(Verdict.FAIL, reason, f"see {step.location}", code="not-recovered")


# ── markers ───────────────────────────────────────────────────────────────────────────────────────────────


def _write_first_marker(run: DrillRun) -> None:
    canary, plan = run.drill.spec.canary, run.marker_plan
    if canary is False or run.drill.spec.stored_in_velero:
        return  # a Velero restore neither brings such a marker back nor loses it
    api, baseline = run.clusters[plan.cluster].api, run.baselines.get(plan.cluster)
    namespace = marker_namespace(plan, api, scope=run.scope.namespaces, baseline=baseline)
    if plan.impossible or not namespace:
        _do_without_markers(run, plan.impossible or "no namespace has anything else that is backed up and restored")
        if not plan.impossible:
            _tell_without_markers(run, run.without_markers)
        return
    markers = Markers(namespace=namespace, run_id=run.run_id, labels=plan.labels, now=run.now)
    run.markers[plan.cluster] = markers
    if run.drill.spec.proves_stored:
        return  # nothing that is written now can be in it; only the marker that a restore must lose is of use
    markers.write_before_backup(api)
    if isinstance(canary, Canary):
        markers.tick(api, every_seconds=canary.every.total_seconds())


def _do_without_markers(run: DrillRun, reason: str) -> None:
    """Go on without markers that would not come back, or would change what is backed up.

    Raises:
        DrillError: They are to measure data loss, which nothing else does.
    """
    if isinstance(run.drill.spec.canary, Canary) or run.drill.spec.objectives.rpo:
        raise DrillError(
            f"data loss cannot be measured, because no marker can be backed up: {reason}",
            code="no-place-for-markers",
            hint="leave `rpo` and `canary: {every: …}` out, or back up more",
        )
    run.without_markers = reason


def _tell_without_markers(run: DrillRun, reason: str) -> None:
    run.on_event(Note(text=f"no markers: {reason}; what the restore itself lists must show that it did it"))


def _judge_without_markers(run: DrillRun) -> bool:
    """Let the restore's own list say whether it did it, where no marker can."""
    summary = f"none: {run.without_markers}; the restore itself brought something of the scope back"
    if not run.brought_back:
        summary = f"none: {run.without_markers}; and no restore created or updated anything of the scope"
        run.worsen(Verdict.FAIL, f"not proven: markers: {summary}", code="marker-wrong")
    record(run, "verify", "markers", Verdict.PASS if run.brought_back else Verdict.FAIL, 0.0, summary)
    return run.brought_back


def _ask_markers(run: DrillRun, markers: Markers) -> bool:
    """Let the markers say whether the restore did it, and how much was lost."""
    began = time.monotonic()
    findings = look_for_markers(run, markers)
    summary = "; ".join(findings.problems) or _markers_are_right(run)
    verdict = Verdict.FAIL if findings.problems else Verdict.PASS
    record(run, "verify", "markers", verdict, time.monotonic() - began, summary)
    if findings.problems:
        run.worsen(Verdict.FAIL, f"not proven: {summary}", code="marker-wrong")
    # Without a restore the markers that are there were never lost, and say nothing.
    elif findings.newest is not None and run.faulted is not None:
        run.rpo = (run.faulted - findings.newest).total_seconds()
    return not findings.problems


def look_for_markers(run: DrillRun, markers: Markers) -> MarkerFindings:
    """Ask for the markers; a cluster that does not answer has not been recovered, and needs no waiting for."""
    target = run.clusters.get(run.marker_plan.target)
    if target is None:
        problem = "the cluster that the markers must be back in does not run"
        return MarkerFindings(problems=(problem,), newest=None, seen=False)
    if reason := why_silent(target.api):
        problem = f"the cluster that the markers must be back in does not answer: {reason}"
        return MarkerFindings(problems=(problem,), newest=None, seen=False)
    namespace = run.namespace_mapping.get(markers.namespace, "")
    return markers.look(target.api, etcd_restored=run.restores("etcd"), namespace=namespace)


def _markers_are_right(run: DrillRun) -> str:
    if run.drill.spec.proves_stored:
        return "the marker from before the restore is gone"
    gone = ", the one from after it is gone" if run.restores("etcd") else ""
    return f"the marker from before the backup is back{gone}"


def _measure_stored(run: DrillRun, *, trusted: bool) -> None:
    """What was written since a stored backup was taken would be lost if its cluster broke now."""
    if run.drill.spec.proves_stored and trusted and run.faulted is not None:
        snapshots = [taken.record.taken for taken in run.snapshots.values()]
        backups = [taken.started for taken in run.velero.backups.values() if taken.started]
        run.rpo = (run.faulted - min([*snapshots, *backups])).total_seconds()
