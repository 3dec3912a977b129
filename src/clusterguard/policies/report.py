"""What one run of a policy did, step by step, and what is to be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from clusterguard.documents.json_output import json_data
from clusterguard.errors import ClusterGuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

__all__ = ["Outcome", "RunReport", "StepReport", "Verb", "reported"]

Verb: TypeAlias = Literal[
    "lock",
    "backup",
    "copy",
    "verify",
    "delete",
    "restore",
    "prove",
    "reencrypt",
    "catalog",
    "audit",
    "metrics",
    "notify",
    "heartbeat",
]
Outcome: TypeAlias = Literal["ok", "warning", "failed"]

# Codes of failed steps that are an answer: what was backed up, stored or restored is not as it should be. Every other
# failure kept the run from doing something, and says nothing about the backups.
_NO: Final = frozenset(
    {
        "audit-trail-cut",
        "backup-corrupt",
        "backup-failed",
        "copy-damaged",
        "not-proven",
        "too-few-copies",
        "wrong-key",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One thing that was done, or could not be."""

    verb: Verb
    outcome: Outcome  # ``warning``: the backup counts all the same, and needs attention
    at: datetime  # when it ended, UTC
    detail: str = ""  # in words; for a failure what was seen
    code: str = ""  # stable name of what is wrong, one of those in docs/reference/errors.md; empty for nothing
    hint: str = ""  # what to do about it; empty for nothing
    source: str = ""  # of the policy; empty where it is about all of them
    location: str = ""  # of the policy; empty where it is about all of them
    backup: str = ""  # its name; empty where it is about none
    digest: str = ""  # SHA-256 of the stored bytes that this is about; empty for none
    size: int | None = None  # their number; None for none
    seconds: float = 0  # how long it took

    def __str__(self) -> str:
        where = f"in {self.location}" if self.location else ""
        about = "/".join(part for part in (self.source, self.backup) if part)
        words = " ".join(word for word in (self.verb, about, where) if word)
        return f"{words}: {self.outcome}{f': {self.detail}' if self.detail else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """One run."""

    policy: str
    run: str  # its identifier, unique
    started: datetime  # UTC
    finished: datetime  # UTC
    steps: tuple[StepReport, ...]  # in the order they ended
    recovered: tuple[str, ...] = ()  # sources that failed the last time and were backed up now

    @property
    def outcome(self) -> Outcome:
        """The worst of all steps."""
        seen = {step.outcome for step in self.steps}
        return "failed" if "failed" in seen else "warning" if "warning" in seen else "ok"

    @property
    def exit_code(self) -> int:
        """1: the answer is no. 2: a step failed or a proof is undecided, and none says no. 0: otherwise."""
        failed = [step.code for step in self.with_outcome("failed")]
        if not _NO.isdisjoint(failed):
            return 1
        return 2 if failed or any(step.code == "proof-undecided" for step in self.steps) else 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {"outcome": self.outcome, **json_data(self)}

    def with_outcome(self, outcome: Outcome) -> Iterator[StepReport]:
        """Yield the steps that ended so."""
        return (step for step in self.steps if step.outcome == outcome)


def reported(verb: Verb, detail: str, action: Callable[[], object], *, now: Callable[[], datetime]) -> StepReport:
    """Do something that a backup does not depend on, and report it: a failure is a warning.

    - ``detail``: what is said where it succeeded.
    """
    began, code, hint = now(), "", ""
    outcome: Outcome = "ok"
    try:
        action()
    except ClusterGuardError as error:
        outcome, detail, code, hint = "warning", error.message, error.code, error.hint or ""
    at = now()
    seconds = round((at - began).total_seconds(), 3)
    return StepReport(verb=verb, outcome=outcome, at=at, detail=detail, code=code, hint=hint, seconds=seconds)
