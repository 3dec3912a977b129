"""Phases and steps as they happen: timed, reported to listeners, and counted into the verdict."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterguard.documents.values import duration_text
from clusterguard.drills.events import PhaseFinished, PhaseStarted, StepFinished, StepStarted
from clusterguard.drills.verdict import PhaseResult, StepResult, Verdict
from clusterguard.errors import (
    BackupCorruptError,
    BackupFailedError,
    ClusterGuardError,
    ObjectCorruptError,
    ObjectNotFoundError,
    RestoreError,
    RestoreFailedError,
    SnapshotError,
    UnexpectedOutcomeError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.drills.run import DrillRun

__all__ = ["OpenPhase", "StopDrillError", "do_step", "phase", "record", "require_time", "timed_out"]

_PROVEN_BAD = (
    RestoreError,
    SnapshotError,
    ObjectCorruptError,
    ObjectNotFoundError,
    WaitTimeoutError,
    BackupCorruptError,
    BackupFailedError,
    RestoreFailedError,
)
"""A backup or a restore that ends so is bad; one that could not be tried is an error."""


class StopDrillError(Exception):
    """The drill cannot go on; its run says why."""


@dataclass(slots=True)
class OpenPhase:
    """A phase that runs: what will be said of it."""

    verdict: Verdict = Verdict.PASS
    detail: str = ""


@contextmanager
def phase(run: DrillRun, name: str) -> Iterator[OpenPhase]:
    """Time a phase and record its end, however it ends."""
    run.on_event(PhaseStarted(phase=name))
    began, open_phase = time.monotonic(), OpenPhase()
    try:
        yield open_phase
    except BaseException as error:
        if open_phase.verdict is Verdict.PASS:
            open_phase.verdict = run.verdict if isinstance(error, StopDrillError) else Verdict.ERROR
        raise
    finally:
        seconds = time.monotonic() - began
        result = PhaseResult(name=name, verdict=open_phase.verdict, seconds=seconds, detail=open_phase.detail)
        run.phases.append(result)
        run.on_event(PhaseFinished(result=result))


def do_step(
    run: DrillRun, name: str, title: str, act: Callable[[], str], *, location: str = "", judges: bool = False
) -> None:
    """Do one step of a phase and record what it returns; if it judges, what it proves bad is a FAIL, not an ERROR.

    Raises:
        StopDrillError: It failed, or the drill has no time left for it.
    """
    run.on_event(StepStarted(phase=name, title=title))
    began = time.monotonic()
    require_time(run, title)
    try:
        for lock in run.locks.values():
            lock.require()
        detail = act()
    except ClusterGuardError as error:
        red = isinstance(error, UnexpectedOutcomeError) or (judges and isinstance(error, _PROVEN_BAD))
        verdict = Verdict.FAIL if red else Verdict.ERROR
        record(run, name, title, verdict, time.monotonic() - began, error.message, location)
        place = f" ({location})" if location else ""
        run.worsen(verdict, f"{name}: {title}: {error.message}{place}", error.hint, code=error.code)
        raise StopDrillError from error
    record(run, name, title, Verdict.PASS, time.monotonic() - began, detail, location)


def record(
    run: DrillRun, name: str, title: str, verdict: Verdict, seconds: float, detail: str, location: str = ""
) -> None:
    """Record the end of a step."""
    result = StepResult(phase=name, title=title, verdict=verdict, seconds=seconds, detail=detail, location=location)
    run.steps.append(result)
    run.on_event(StepFinished(result=result))


def require_time(run: DrillRun, what: str) -> None:
    """Stop a drill whose time is over.

    Raises:
        StopDrillError: It is.
    """
    if time.monotonic() > run.deadline:
        timed_out(run, f"before {what}")
        raise StopDrillError


def timed_out(run: DrillRun, when: str) -> None:
    """Note that the drill's time is over: it could not tell."""
    reason = f"drill timed out after {duration_text(run.timeout)}, {when}"
    run.worsen(Verdict.ERROR, reason, "raise spec.timeout", code="drill-timed-out")
