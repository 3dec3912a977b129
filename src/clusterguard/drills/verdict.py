"""What a drill came to.

A restore is proven, which is PASS, when all of these held, each decided by a function of `clusterguard.drills.phases`:

    require_red         after the fault something of ``verify`` was red, so a green look later means something
    verify              every check of ``verify`` holds, all at once, by statuses newer than the restore
    _ask_markers        the marker from before the backup is back, and that from after it is gone
    weigh_objectives    recovery time and lost changes are within what was promised, and recovery is no slower

What one of them denies is FAIL; what could not be looked at is ERROR.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from clusterguard.documents.json_output import json_data

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from clusterguard.evidence.history import Trend

__all__ = [
    "CheckResult",
    "DrillResult",
    "Mutation",
    "PhaseResult",
    "RecoveryTime",
    "StepResult",
    "TriedDefect",
    "Verdict",
]


class Verdict(StrEnum):
    """PASS: recovery is proven. FAIL: it is not. ERROR: the drill could not tell, which is never a pass."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    FAIL = "FAIL"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step that ran; ``location`` is its ``path:line:column``, or ``""`` for what the runner adds by itself."""

    phase: str
    title: str
    verdict: Verdict
    seconds: float
    detail: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseResult:
    """One phase that ran."""

    name: str
    verdict: Verdict
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One look at one check of ``verify``.

    Attributes:
        summary: What was seen, in one line; `detail` is more of it, such as the diff.
        suppressed: Differences that named rules explain, by rule.
        since: When it began to hold, on the monotonic clock; 0 while it does not.
        seen: Whether the cluster answered at all; where it did not, the look says nothing of what the cluster holds.
    """

    ok: bool
    summary: str
    detail: str = ""
    suppressed: Mapping[str, int] | None = None
    since: float = 0.0
    seen: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryTime:
    """Recovery time, in seconds, from the end of the fault until all of ``verify`` held.

    Time that only the drill spends (looking for red after the fault, watching that a check stays green) is
    taken out of it.
    """

    provision: float
    restore: float
    verify: float

    @property
    def total(self) -> float:
        """The whole of it."""
        return self.provision + self.restore + self.verify


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedDefect:
    """One defect that was put into the restored cluster, or could not be.

    Attributes:
        defect: Its name, as docs/reference/defects.md lists it.
        target: What it was put into, such as ``Secret shop/web``.
        outcome: ``found`` when a check went red, ``missed`` when all stayed green, ``notApplied`` when it could not be
            put there, which counts for nothing.
        detail: Which check found it and what that said, which one would have, or why it could not be put there.
    """

    defect: str
    target: str
    outcome: Literal["found", "missed", "notApplied"]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """How many defects a drill's checks found.

    Attributes:
        tried: All of them, in the order in which they were tried.
        minimum: The score that was asked for, in percent.
        stopped: Why no more of them were tried; ``""`` if all were.
    """

    tried: tuple[TriedDefect, ...]
    minimum: float
    stopped: str = ""

    @property
    def found(self) -> int:
        """How many were found."""
        return len(self.with_outcome("found"))

    @property
    def counted(self) -> int:
        """How many were put there."""
        return self.found + len(self.with_outcome("missed"))

    @property
    def score(self) -> float | None:
        """How many of those were found, in percent; None where none was put there."""
        return 100 * self.found / self.counted if self.counted else None

    @property
    def enough(self) -> bool:
        """Whether that is what was asked for; no defect at all shows nothing."""
        return not self.stopped and self.score is not None and self.score >= self.minimum

    def with_outcome(self, outcome: str) -> tuple[TriedDefect, ...]:
        """Return those that ended so."""
        return tuple(each for each in self.tried if each.outcome == outcome)

    def summary(self) -> str:
        """Return it in one line."""
        score = "" if self.score is None else f" ({int(self.score)} %)"
        other = len(self.with_outcome("notApplied"))
        return f"{self.found} of {self.counted} defects found{score}" + (f", {other} not applied" if other else "")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        counts = {"score": self.score, "found": self.found, "counted": self.counted}
        return {**counts, **json_data(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillResult:
    """What one run of one drill showed.

    Attributes:
        drill: Its id, such as ``etcd-pods[k8s=1.36]``.
        run_id: Of this run; everything it created is labelled with it.
        reason: Why, in one sentence; for a FAIL or an ERROR, what to look at.
        hint: What to do next, or ``""``.
        code: What went wrong, as docs/reference/errors.md lists it; ``""`` for a PASS.
        seconds: From start to the end of cleanup.
        rto: Recovery time, or None where recovery was not reached.
        rpo: Seconds of data lost at most, measured by the markers, or None where they could not tell.
        red_after_fault: Checks that were red after the fault, of how many.
        suppressed: How many differences named rules explain, by rule.
        tolerated: How many findings its Velero steps tolerated because they say so, by name.
        stored: Velero backups from before the run that it took, by name.
        diagnostics: Title and text of what was collected from a red drill.
        clusters: Descriptions, by the name in the drill.
        providers: What runs them, such as ``kind``, likewise.
        objectives: What was promised: ``rtoSeconds``, ``rpoSeconds``, ``slowerThan``, each only where it was.
        trend: Recovery time beside that of earlier runs, where the drill promises something of it.
        mutation: How good its checks are, or None where that was not asked or not reached.
    """

    drill: str
    run_id: str
    verdict: Verdict
    reason: str
    hint: str
    code: str = ""
    started: datetime
    seconds: float
    phases: tuple[PhaseResult, ...]
    steps: tuple[StepResult, ...]
    rto: RecoveryTime | None
    rpo: float | None
    red_after_fault: tuple[int, int] | None
    diff: str
    suppressed: Mapping[str, int]
    diagnostics: tuple[tuple[str, str], ...]
    clusters: Mapping[str, str]
    controls: tuple[str, ...]
    tolerated: Mapping[str, int] = field(default_factory=dict)
    stored: tuple[str, ...] = ()
    providers: Mapping[str, str] = field(default_factory=dict)
    objectives: Mapping[str, float] = field(default_factory=dict)
    trend: Trend | None = None
    mutation: Mutation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data for JSON; seconds have three decimals."""
        red = self.red_after_fault
        data = json_data(self) | {
            "started": self.started.isoformat(),
            "rtoSeconds": {"total": self.rto.total, **json_data(self.rto)} if self.rto else None,
            "rpoSeconds": self.rpo,
            "redAfterFault": {"red": red[0], "checks": red[1]} if red else None,
            "trend": self.trend.to_dict() if self.trend else None,
            "diagnostics": [{"title": title, "text": text} for title, text in self.diagnostics],
            "mutation": self.mutation.to_dict() if self.mutation else None,
        }
        return {key: _rounded(value) for key, value in data.items() if key not in ("rto", "rpo")}


def _rounded(data: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_rounded(value) for value in data]
    return round(data, 3) if isinstance(data, float) else data
