"""Looks at the checks of ``verify``: once, or side by side until each holds."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from clusterguard.drills.diagnostics import why_silent
from clusterguard.drills.steps.base import Look, StepContext
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import ClusterUnreachableError, ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.run import DrillRun

__all__ = ["look_at_all", "look_once", "watch_all", "watch_together"]

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.2, 1.0
_SHORT_LOOK_SECONDS = 60.0  # what a look gets also where less is left
_MOST_AT_ONCE = 8
# Where a restore is under way these pass by themselves; a check that meets them is red, not broken.
_PASSING = (ClusterUnreachableError, ConflictError)


def look_once(run: DrillRun, step: LoadedStep) -> CheckResult:
    """Look at a check once, whatever the age of what it sees.

    Raises:
        ClusterGuardError: It cannot be looked at, which is neither green nor red.
    """
    return _look(run, step, Look())


def look_at_all(run: DrillRun, steps: Sequence[LoadedStep]) -> list[CheckResult]:
    """Look at all checks once, at the same time.

    An API server that misses its etcd takes seconds to say so, to each of them.

    Raises:
        ClusterGuardError: One cannot be looked at.
    """
    with ThreadPoolExecutor(max_workers=min(len(steps), _MOST_AT_ONCE), thread_name_prefix="check") as pool:
        return list(pool.map(partial(look_once, run), steps))


def watch_all(
    run: DrillRun,
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
            # Leaving the pool waits for its threads: after Ctrl-C a check must not be waited out.
            stop.set()


def watch_together(
    run: DrillRun,
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
        again = look_at_all(run, steps)
        red = [index for index, result in enumerate(again) if not result.ok]
        if not red:
            break
        for index in red:
            over = time.monotonic() >= deadlines[index]
            results[index] = again[index] if over else _watch(run, steps[index], deadlines[index], sleep)
    return results


def _watch(
    run: DrillRun,
    step: LoadedStep,
    deadline: float,
    sleep: Callable[[float], object],
    *,
    stop: threading.Event | None = None,
) -> CheckResult:
    def clock() -> float:
        """Tell the time; once this watch is not waited for any more, its time is over."""
        return float("inf") if stop is not None and stop.is_set() else time.monotonic()

    since = run.restored_at.get(step.cluster)
    pause = _FIRST_RETRY_SECONDS
    while True:
        began = clock()
        result = _look(
            run, step, Look(seconds=max(0.0, deadline - began), watching=True, fresh_since=since, clock=clock)
        )
        now = clock()
        # One more look that takes as long would be cut off, and say nothing of what was seen now.
        too_long = result.seen and now - began > max(deadline - now, _SHORT_LOOK_SECONDS)
        if result.ok or now >= deadline or too_long:
            return result
        sleep(min(pause, max(0.0, deadline - clock())))
        pause = min(pause * 1.5, _LONGEST_RETRY_SECONDS)


def _look(run: DrillRun, step: LoadedStep, look: Look) -> CheckResult:
    try:
        if step.cluster not in run.clusters:
            return CheckResult(ok=False, summary=f"cluster `{step.cluster}` does not run", seen=False)
        # An API server that says that it is not ready need not be waited for by a check.
        if silent := why_silent(run.clusters[step.cluster].api):
            return CheckResult(ok=False, summary=silent, seen=False)
        result = step.action.check(StepContext(run, step), look)
    except _PASSING as error:
        return CheckResult(ok=False, summary=error.message, seen=not error.retryable)
    if result.ok and not result.since:
        return replace(result, since=time.monotonic())
    return result
