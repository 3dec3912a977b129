"""What a running drill tells: a stream that the terminal, the journal and pytest each make their own picture of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from clusterguard.model.progress import Progress

if TYPE_CHECKING:
    from clusterguard.drills.verdict import DrillResult, PhaseResult, StepResult

__all__ = [
    "DrillEvent",
    "DrillFinished",
    "DrillStarted",
    "EventSink",
    "Note",
    "PhaseFinished",
    "PhaseStarted",
    "StepFinished",
    "StepStarted",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillStarted:
    """A drill begins: its id, the run's id, and its description."""

    drill: str
    run_id: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted:
    """A phase begins."""

    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A step begins."""

    phase: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished:
    """A step ended."""

    result: StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFinished:
    """A phase ended."""

    result: PhaseResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something worth knowing while it runs, such as why a check does not hold yet."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillFinished:
    """A drill ended, cleanup included."""

    result: DrillResult


DrillEvent: TypeAlias = (
    DrillStarted | PhaseStarted | StepStarted | StepFinished | PhaseFinished | Note | Progress | DrillFinished
)
EventSink: TypeAlias = Callable[[DrillEvent], None]
