"""Attacks a drill that has passed: one defect after the other, each of which its checks must find.

It is the checks that are judged here, not the backup. So each defect is put into the restored cluster by itself, every
check is looked at once, the defect is taken out again, and the check that found it must be green at once: then it was
red because of the defect.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from clusterguard.clusters.capabilities import StopsControllers
from clusterguard.drills import checks
from clusterguard.drills.defects.attempts import attacked_clusters, attempts_in
from clusterguard.drills.defects.placing import NotAppliedError, NotUndoneError
from clusterguard.drills.events import Note, StepStarted
from clusterguard.drills.phases import look_for_markers
from clusterguard.drills.recording import StopDrillError, phase, record
from clusterguard.drills.verdict import Mutation, TriedDefect, Verdict
from clusterguard.errors import ClusterError, ClusterGuardError, WaitTimeoutError
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterguard.drills.defects.attempts import Attempt
    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.run import DrillRun

__all__ = ["mutate"]

PHASE: Final = "defects"
_MARKERS: Final = "markers"
# What an API server learns a moment later, such as a definition that changed.
_PAUSE_SECONDS: Final = 0.5
# Until the checks are green again; where controllers go on they may have work to undo.
_AGAIN_SECONDS: Final = 15.0
_SETTLED_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.2
_UNSTEADY: Final = "checks that held together a moment ago do not hold any more: give them `stableFor`"
_WORDS: Final = {"found": "", "missed": "missed; what would find it: ", "notApplied": "not applied: "}
_VERDICTS: Final = {"found": Verdict.PASS, "missed": Verdict.FAIL, "notApplied": Verdict.ERROR}


class _NotGreenError(Exception):
    """The checks are red without a defect."""


class _NotSeenError(Exception):
    """A check could not be looked at, since something did not answer: that tells nothing of a defect."""


def mutate(run: DrillRun, *, sleep: Callable[[float], object] = time.sleep) -> None:  # noqa: TID251 - the real one
    """Put defects into what was restored, where that is asked for and it is proven, and count those that are found.

    Raises:
        StopDrillError: A defect may still be in the cluster, or the checks cannot be told from it.
    """
    minimum = run.settings.mutate
    if minimum is None or run.verdict is not Verdict.PASS or run.settings.omit_restore:
        return
    run.deadline = math.inf  # the drill's own time is over; this is not part of it
    tried: list[TriedDefect] = []
    stopped = "it was interrupted"
    with phase(run, PHASE) as opened:
        try:
            stopped = _try_all(run, tried, sleep)
        finally:
            run.mutation = Mutation(tried=tuple(tried), minimum=minimum, stopped=stopped)
            opened.detail = run.mutation.summary()
        if not run.mutation.enough and run.verdict is Verdict.PASS:
            opened.verdict = Verdict.FAIL
            _fall_short(run, run.mutation)
        elif stopped:
            opened.verdict = Verdict.ERROR
            raise StopDrillError


def _fall_short(run: DrillRun, mutation: Mutation) -> None:
    missed = mutation.with_outcome("missed")
    reason = f"{mutation.summary()}, at least {mutation.minimum:g} % asked for"
    hint = "nothing of the scope can have a defect: look at spec.scope"
    if missed:
        some = ", ".join(f"{each.defect} in {each.target}" for each in missed[:3])
        reason += f"; missed: {some}" + (f" and {len(missed) - 3} more" if missed[3:] else "")
        hint = f"add to verify: {missed[0].detail}"
    run.worsen(Verdict.FAIL, reason, hint, code="defects-missed")


def _try_all(run: DrillRun, tried: list[TriedDefect], sleep: Callable[[float], object]) -> str:
    """Try every defect in every cluster; return why not all of them were tried, or nothing."""
    for name in attacked_clusters(run):
        cluster = run.clusters[name]
        seconds = _AGAIN_SECONDS if isinstance(cluster, StopsControllers) else _SETTLED_SECONDS
        with ExitStack() as opened:
            if isinstance(cluster, StopsControllers):
                opened.enter_context(cluster.controllers_stopped())
            else:
                run.on_event(Note(text=f"the controllers of cluster `{name}` go on: what they repair may be missed"))
            attempts = list(attempts_in(run, name, opened))
            try:
                _require_green(run, seconds)
                for attempt in attempts:
                    _try_one(run, attempt, tried, seconds, sleep)
                _require_green(run, seconds)
            except _NotGreenError as error:
                return _not_undone(run, name, str(error)) if tried else _not_steady(run, str(error), _UNSTEADY)
            except _NotSeenError as error:
                return _not_steady(run, str(error), "see why the cluster did not answer, and run the drill again")
            except NotUndoneError as error:
                return _not_undone(run, name, str(error))
    return ""


def _try_one(
    run: DrillRun, attempt: Attempt, tried: list[TriedDefect], seconds: float, sleep: Callable[[float], object]
) -> None:
    title = f"{attempt.defect}: {attempt.target}"
    run.on_event(StepStarted(phase=PHASE, title=title))
    began, red = time.monotonic(), None
    for lock in run.locks.values():
        lock.require()
    ended = partial(TriedDefect, defect=attempt.defect, target=attempt.target)
    try:
        with attempt.put():
            red = _first_red_seen(run, seconds)
            if red is None:
                sleep(_PAUSE_SECONDS)
                red = _first_red_seen(run, seconds)
        if red is not None:
            _await_green(run, red[0], seconds)
            tried.append(ended(outcome="found", detail=f"{_title(red[0])}: {red[1]}"))
        else:
            tried.append(ended(outcome="missed", detail=attempt.found_by))
    except NotAppliedError as error:
        tried.append(ended(outcome="notApplied", detail=str(error)))
    except NotUndoneError as error:
        raise NotUndoneError(f"{title}: {error}") from error
    seconds_taken, last = time.monotonic() - began, tried[-1]
    record(run, PHASE, title, _VERDICTS[last.outcome], seconds_taken, _WORDS[last.outcome] + last.detail)


# ---- looking ------------------------------------------------------------------------------------------------


def _first_red(run: DrillRun) -> tuple[LoadedStep | None, str] | None:
    """Return the first check that is red, None standing for the markers, and what it says; nothing if all are green.

    Red is what is so twice in a row: a request that fails once is no defect.

    Raises:
        _NotSeenError: One cannot be looked at now.
    """
    for step in (None, *run.drill.phase("verify")):
        if _why_red(run, step) and (why := _why_red(run, step)):
            return step, why
    return None


def _first_red_seen(run: DrillRun, seconds: float) -> tuple[LoadedStep | None, str] | None:
    """As ``_first_red``, after an outage is over.

    Raises:
        _NotSeenError: It is not over within `seconds`.
    """
    found: list[tuple[LoadedStep | None, str] | None] = []

    def ask() -> str | None:
        try:
            found.append(_first_red(run))
        except _NotSeenError as error:
            return str(error)
        return None

    try:
        poll_until(ask, what="every check can be looked at", seconds=seconds, every=_POLL_SECONDS)
    except WaitTimeoutError as error:
        raise _NotSeenError(error.message) from error
    return found[0]


def _why_red(run: DrillRun, step: LoadedStep | None) -> str:
    """Look at a check once, or at the markers; return why it is not green.

    Raises:
        _NotSeenError: It cannot be looked at now.
    """
    try:
        if step is None:
            looks = [look_for_markers(run, each) for each in run.markers.values()]
            why, seen = "; ".join(what for each in looks for what in each.problems), all(each.seen for each in looks)
        else:
            result = checks.look_once(run, step)
            why, seen = "" if result.ok else result.summary, result.seen
    except ClusterGuardError as error:
        # Of one object, such as one whose kind is gone, that is no pass either.
        why, seen = f"it cannot be looked at: {error.message}", not error.retryable
    if why and not (seen and _answers(run)):
        raise _NotSeenError(f"{_title(step)}: {why}")
    return why


def _answers(run: DrillRun) -> bool:
    """Return whether every API server answers: to many a check one that does not looks like an object that is gone."""
    try:
        for cluster in run.clusters.values():
            cluster.api.server_version()
    except ClusterError:
        return False
    return True


def _title(step: LoadedStep | None) -> str:
    return step.title if step else _MARKERS


def _await_green(run: DrillRun, step: LoadedStep | None, seconds: float) -> None:
    """Wait until the check that was red is green again.

    Raises:
        NotUndoneError: It is not.
    """

    def ask() -> str | None:
        try:
            return _why_red(run, step) or None
        except _NotSeenError as error:
            return str(error)

    try:
        poll_until(ask, what=f"{_title(step)} is green again", seconds=seconds, every=_POLL_SECONDS)
    except WaitTimeoutError as error:
        raise NotUndoneError(error.message) from error


def _require_green(run: DrillRun, seconds: float) -> None:
    """Wait until every check is green.

    Raises:
        _NotGreenError: One is not.
    """

    def ask() -> str | None:
        try:
            red = _first_red(run)
        except _NotSeenError as error:
            return str(error)
        return f"{_title(red[0])}: {red[1]}" if red else None

    try:
        poll_until(ask, what="every check is green without a defect", seconds=seconds, every=_POLL_SECONDS)
    except WaitTimeoutError as error:
        raise _NotGreenError(error.message) from error


# ---- what went wrong ----------------------------------------------------------------------------------------


def _not_steady(run: DrillRun, why: str, hint: str) -> str:
    run.worsen(Verdict.ERROR, f"defects cannot be told from it: {why}", hint, code="checks-not-steady")
    return why


def _not_undone(run: DrillRun, name: str, why: str) -> str:
    """Say that a defect may still be there; a cluster of the run's own is not kept with it."""
    run.spoiled.add(name)
    hint = "the cluster of this run is thrown away"
    if not run.owns(name):
        hint = f"cluster `{name}` is not the run's own and stays: restore it from its backup before it is used"
    run.worsen(
        Verdict.ERROR, f"a defect could not be undone in cluster `{name}`: {why}", hint, code="defect-not-undone"
    )
    return why
