"""The checks of ``verify``: each can be looked at once, or watched until it holds."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from clusterguard.drills import in_cluster, schema
from clusterguard.drills.actions import perform
from clusterguard.drills.diagnostics import why_silent
from clusterguard.drills.partial import mismatches
from clusterguard.drills.values import Comparison
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import (
    ClusterUnreachableError,
    ConflictError,
    ResourceNotFoundError,
    WaitTimeoutError,
)
from clusterguard.model.report import FindingKind
from clusterguard.validate.readiness import Selection, wait_ready
from clusterguard.validate.rules import ETCD_RESTORE, SAME_CLUSTER, VELERO_RESTORE
from clusterguard.validate.validator import RestoreValidator, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.run import Run
    from clusterguard.drills.schema import Action
    from clusterguard.model.report import ValidationReport

__all__ = ["look", "watch_all", "watch_together"]

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.2, 1.0
_MOST_AT_ONCE = 8
# Where a restore is under way these pass by themselves; a check that meets them is red, not broken.
_PASSING = (ClusterUnreachableError, ConflictError)


@dataclass(frozen=True, slots=True)
class _Look:
    """How to look: for how long, for how long it must hold, and how new a status must be."""

    seconds: float
    stable_seconds: float
    fresh_since: datetime | None
    clock: Callable[[], float] = time.monotonic


def look(run: Run, step: LoadedStep, *, fresh: bool) -> CheckResult:
    """Look at a check once.

    Args:
        run: The run.
        step: The check.
        fresh: Whether status must be newer than the restore.

    Raises:
        ClusterGuardError: It cannot be looked at, which is neither green nor red.
    """
    since = run.restored_at.get(step.cluster) if fresh else None
    return _look(run, step, _Look(0.0, 0.0, since))


def _api_is_down(run: Run, step: LoadedStep) -> CheckResult | None:
    """Return red where the API server says that it is not ready: no check need wait for it to say so."""
    silent = why_silent(run.clusters[step.cluster].api)
    return CheckResult(ok=False, summary=silent) if silent else None


def watch_all(
    run: Run,
    steps: Sequence[LoadedStep],
    *,
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one
) -> list[CheckResult]:
    """Watch all checks side by side until each holds or its time is over.

    They are watched at once, not in turn: otherwise the time that one is watched to stay green would hide when
    the next one became so.

    Raises:
        ClusterGuardError: One cannot be looked at.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=min(len(steps), _MOST_AT_ONCE), thread_name_prefix="check") as pool:
        watches = [
            pool.submit(_watch, run, step, time.monotonic() + run.wait_of(step), sleep, stop=stop) for step in steps
        ]
        try:
            return [watch.result() for watch in watches]
        finally:
            # Leaving the pool waits for its threads: after Ctrl-C nobody wants to wait out a check.
            stop.set()


def watch_together(
    run: Run,
    steps: Sequence[LoadedStep],
    *,
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one
) -> list[CheckResult]:
    """Watch all checks until they hold together, or until the time of one that does not is over.

    Each comes to hold at its own time, and one that held may be red again meanwhile. That their status is newer
    than the restore is shown by the watch; the last look only asks whether they still hold.

    Raises:
        ClusterGuardError: One cannot be looked at.
    """
    deadlines = [time.monotonic() + run.wait_of(step) for step in steps]
    results = watch_all(run, steps, sleep=sleep)
    while all(result.ok for result in results):
        again = [look(run, step, fresh=False) for step in steps]
        red = [index for index, result in enumerate(again) if not result.ok]
        if not red:
            break
        for index in red:
            over = time.monotonic() >= deadlines[index]
            results[index] = again[index] if over else _watch(run, steps[index], deadlines[index], sleep)
    return results


def _watch(
    run: Run,
    step: LoadedStep,
    deadline: float,
    sleep: Callable[[float], object],
    *,
    stop: threading.Event | None = None,
) -> CheckResult:
    def clock() -> float:
        """Tell the time; once nobody waits for this watch any more, it is over."""
        return float("inf") if stop is not None and stop.is_set() else time.monotonic()

    since = run.restored_at.get(step.cluster)
    stable = step.action.stable_for if isinstance(step.action, schema.Ready) else None
    pause = _FIRST_RETRY_SECONDS
    while True:
        left = max(0.0, deadline - clock())
        result = _look(run, step, _Look(left, stable.total_seconds() if stable else 0.0, since, clock))
        if result.ok or clock() >= deadline:
            return result
        sleep(min(pause, max(0.0, deadline - clock())))
        pause = min(pause * 1.5, _LONGEST_RETRY_SECONDS)


def _look(run: Run, step: LoadedStep, how: _Look) -> CheckResult:
    try:
        if step.cluster not in run.clusters:
            return CheckResult(ok=False, summary=f"cluster `{step.cluster}` does not run")
        result = _api_is_down(run, step) or _check(step.action, run, step, how)
    except _PASSING as error:
        return CheckResult(ok=False, summary=error.message)
    if result.ok and not result.since:
        return replace(result, since=time.monotonic())
    return result


@singledispatch
def _check(action: Action, run: Run, step: LoadedStep, how: _Look) -> CheckResult:
    """Look at one check; actions that are no checks are performed, and hold when that works."""
    return CheckResult(ok=True, summary=perform(action, run, step))


@_check.register(schema.Restored)
def _restored(action: schema.Restored, run: Run, step: LoadedStep, how: _Look) -> CheckResult:
    baseline = run.baseline_for(step)
    profile = ETCD_RESTORE if run.etcd_restores else VELERO_RESTORE if run.velero_restores else SAME_CLUSTER
    report = RestoreValidator(api=run.cluster_of(step).api).validate(
        baseline,
        profile=profile,
        identity=action.identity if "identity" in action.model_fields_set else None,
        ignore=action.ignore,
        tolerate=Tolerance(missing=_limit(action.missing), changed=_limit(action.changed), extra=_limit(action.extra)),
    )
    off = [*_off(report, action)]
    ok = report.ok and not off
    return CheckResult(
        ok=ok,
        summary="; ".join([report.summary(), *off]),
        detail="" if ok else report.to_text(),
        suppressed=report.suppressed_by_rule,
    )


@_check.register(schema.Ready)
def _ready(action: schema.Ready, run: Run, step: LoadedStep, how: _Look) -> CheckResult:
    selection = Selection(
        kind=action.kind,
        namespace=action.namespace or "",
        selector=action.selector or "",
        names=(action.name,) if action.name else (),
    )
    try:
        evidence = wait_ready(
            run.cluster_of(step).api,
            selection,
            timeout_seconds=how.seconds,
            count=action.count,
            stable_seconds=how.stable_seconds,
            fresh_since=how.fresh_since,
            clock=how.clock,
        )
    except WaitTimeoutError as error:
        return CheckResult(ok=False, summary=f"{selection}: {error.last_seen}")
    words = f", {evidence.freshness}" if evidence.freshness else ""
    return CheckResult(
        ok=True,
        summary=f"{len(evidence.objects)} ready{words}",
        since=time.monotonic() - evidence.stable_seconds,
    )


@_check.register(schema.Assert)
def _assert(action: schema.Assert, run: Run, step: LoadedStep, how: _Look) -> CheckResult:
    api = run.cluster_of(step).api
    wanted = dict(action.resource)
    metadata = dict(wanted.get("metadata") or {})
    resource = api.resource(wanted["kind"], api_version=wanted["apiVersion"])
    namespace = metadata.get("namespace") if resource.namespaced else None
    if "name" in metadata:
        try:
            found = [api.get(resource, metadata["name"], namespace or ("default" if resource.namespaced else None))]
        except ResourceNotFoundError:
            found = []
    else:
        labels = metadata.get("labels") or {}
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found = list(api.list(resource, namespace, label_selector=selector))
    count = action.count or Comparison(">=", 1)
    if not count.holds(len(found)):
        return CheckResult(ok=False, summary=f"{len(found)} {resource.kind} found, {count.in_words()} expected")
    problems = {item["metadata"]["name"]: mismatches(wanted, item) for item in found}
    wrong = {name: lines for name, lines in problems.items() if lines}
    ok = len(wrong) < len(found) if action.match == "any" else not wrong
    if resource.kind == "Secret":  # its values are nobody's business
        wrong = {name: [line.partition(":")[0] + ": differs" for line in lines] for name, lines in wrong.items()}
    detail = "\n".join(f"{resource.kind} {name}: {line}" for name, lines in wrong.items() for line in lines)
    matching = len(found) - len(wrong)
    return CheckResult(ok=ok, summary=f"{matching} of {len(found)} {resource.kind} match", detail="" if ok else detail)


@_check.register(schema.Absent)
def _absent(action: schema.Absent, run: Run, step: LoadedStep, how: _Look) -> CheckResult:
    api = run.cluster_of(step).api
    resource = api.resource(action.kind)
    if action.name:
        try:
            found: list[Any] = [api.get(resource, action.name, action.namespace)]
        except ResourceNotFoundError:
            found = []
    else:
        found = list(api.list(resource, action.namespace, label_selector=action.selector or ""))
    names = ", ".join(item["metadata"]["name"] for item in found[:5])
    return CheckResult(ok=not found, summary=f"{len(found)} {resource.kind} there" + (f": {names}" if names else ""))


@_check.register(schema.Exec)
def _exec(action: schema.Exec, run: Run, step: LoadedStep, how: _Look) -> CheckResult:
    return in_cluster.execute_once(action, run, step, seconds=how.seconds)


@_check.register(schema.SameFiles)
def _same_files(action: schema.SameFiles, run: Run, step: LoadedStep, how: _Look) -> CheckResult:
    return in_cluster.compare_once(action, run, step, seconds=how.seconds)


@_check.register(schema.Http)
def _http(action: schema.Http, run: Run, step: LoadedStep, how: _Look) -> CheckResult:
    return in_cluster.ask_once(action, run, step, seconds=how.seconds)


def _limit(asked: object) -> int | None:
    """Return how many findings are no fault; what no limit can say is judged by `_off` afterwards."""
    if isinstance(asked, Comparison):
        if asked.operator == "<=" or (asked.operator == "==" and asked.value == 0):
            return asked.value
        if asked.operator == "<" and asked.value > 0:
            return asked.value - 1
    return None


def _off(report: ValidationReport, action: schema.Restored) -> list[str]:
    counted = [*report.findings, *report.tolerated]
    off = []
    for kind, asked in (
        (FindingKind.MISSING, action.missing),
        (FindingKind.CHANGED, action.changed),
        (FindingKind.EXTRA, action.extra),
    ):
        number = sum(finding.kind is kind for finding in counted)
        if isinstance(asked, Comparison) and _limit(asked) is None and not asked.holds(number):
            off.append(f"{number} {kind}, {asked.in_words()} asked for")
    return off
