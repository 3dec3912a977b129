"""What ``veleroBackup`` and ``veleroRestore`` may end as: which phase is expected, which findings do not count."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, TypeVar

from clusterguard.documents.model import FindingName, Omitted
from clusterguard.drills.events import Note
from clusterguard.drills.steps.base import Action
from clusterguard.errors import UnexpectedOutcomeError
from clusterguard.velero.findings import DEFAULT_TOLERATED, EXPECTED, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from clusterguard.drills.steps.base import StepContext
    from clusterguard.velero.outcome import BackupOutcome, OutcomeFinding, RestoreOutcome

__all__ = ["Judged"]

_Outcome = TypeVar("_Outcome", "BackupOutcome", "RestoreOutcome")
_MOST_NOTED = 10


class Judged(Action):
    """An action whose outcome has a phase and findings."""

    expect: Literal["Completed", "PartiallyFailed", "Failed", "FailedValidation"] | Omitted = None
    """The phase that it must end in; another one fails the drill, a better one too. That it ended so, and the errors
    that made it so, then do not count; everything else does."""
    tolerate: tuple[FindingName, ...] = ()
    """Findings that do not count, by name, such as `exists-different` or `job-runs-again`. They are reported."""

    @property
    def tolerated(self) -> AbstractSet[Rule]:
        """The findings that do not count."""
        return DEFAULT_TOLERATED | {*self.tolerate} | EXPECTED.get(self.expect or "", frozenset())

    def accept(self, here: StepContext, outcome: _Outcome) -> str:
        """Return in words what was tolerated of an outcome, and tell of each finding that only this step tolerates.

        Raises:
            UnexpectedOutcomeError: It ended in another phase than the expected one.
            BackupFailedError: There are findings that count.
            RestoreFailedError: Likewise.
            VeleroError: What tells whether it succeeded could not be read.
        """
        if self.expect and outcome.phase != self.expect:
            raise UnexpectedOutcomeError(
                f"{outcome.to_text()}; {self.expect} was expected",
                fields={"expected": self.expect, "phase": outcome.phase},
                hint="find out what changed, or correct `expect`",
            )
        outcome.raise_for_findings()
        asked = [each for each in outcome.tolerated if each.rule in self.tolerated - DEFAULT_TOLERATED]
        for text in _noted(asked):
            here.run.on_event(Note(text=f"{here.step.title}: {text}"))
        for each in asked:
            here.run.tolerated[each.rule] = here.run.tolerated.get(each.rule, 0) + 1
        return _counted(outcome.tolerated)

    def ended(self, phase: str) -> str:
        """Return the phase it ended in for the beginning of a phrase, where that is not plain success."""
        return "" if phase == "Completed" else f"{phase}, as expected: " if self.expect else f"{phase}: "

    def limits_of_outcome(self) -> Iterator[str]:
        """Yield what is expected and tolerated, for the plan."""
        if self.expect:
            yield f"expected to end as {self.expect}"
        if self.tolerate:
            yield f"tolerating {', '.join(self.tolerate)}"


def _noted(findings: list[OutcomeFinding]) -> Iterator[str]:
    yield from (f"tolerated: {each}" for each in findings[:_MOST_NOTED])
    if len(findings) > _MOST_NOTED:
        yield f"tolerated: {len(findings) - _MOST_NOTED} more"


def _counted(findings: Iterable[OutcomeFinding]) -> str:
    counts = Counter(each.rule for each in findings)
    return f"; tolerated: {', '.join(f'{number} {rule}' for rule, number in counts.items())}" if counts else ""
