"""What a rehearsal found: a verdict, a table by kind, and findings with what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from clusterguard.errors import RehearsalFailedError
from clusterguard.model.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clusterguard.rehearsal.changes import Changes

__all__ = [
    "FIND_PROGRAMS",
    "Examples",
    "KindCount",
    "Level",
    "Phase",
    "RehearsalFinding",
    "RehearsalReport",
    "worst_first",
]

FIND_PROGRAMS: Final = "find the programs"
"""The phase in which programs may be downloaded or compiled."""


class Level(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"  # what was backed up does not come back, or nobody can tell
    WARNING = "warning"  # it comes back, and would hurt
    NOTE = "note"  # good to know


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalFinding:
    """One thing to know, and what to do about it.

    Attributes:
        code: Stable name; docs/reference/rehearsals.md has them all.
        level: How much it weighs. An error makes the verdict "no".
        message: What was seen.
        hint: What to do.
        count: How many objects it is about; 0 if it is about none.
        examples: Some of these, as ``NAMESPACE/NAME`` or what else names them.
    """

    code: str
    level: Level
    message: str
    hint: str
    count: int = 0
    examples: tuple[str, ...] = ()


class Examples:
    """Counts objects, and remembers the first few.

    Attributes:
        count: How many.
        shown: The first of them.
    """

    MOST: Final = 5

    def __init__(self) -> None:
        self.count = 0
        self.shown: list[str] = []

    def add(self, example: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.shown) < self.MOST:
            self.shown.append(example)

    def finding(self, code: str, level: Level, message: str, hint: str) -> Iterator[RehearsalFinding]:
        """Yield a finding about them, unless there are none; ``{n}`` in the message is how many."""
        if self.count:
            yield RehearsalFinding(
                code=code,
                level=level,
                message=message.format(n=f"{self.count:,}"),
                hint=hint,
                count=self.count,
                examples=tuple(self.shown),
            )


@dataclass(slots=True, kw_only=True)
class KindCount:
    """How many objects of one kind were compared, and how that ended.

    Attributes:
        kind: Such as ``deployments.apps``.
        backed_up: In the backup.
        equal: Served, and equal field by field, but for what the API server fills in.
        converted: Served, but stored in an API version that is not, so compared by name alone.
        different: Served, and not equal.
        missing: Not served.
        extra: Served, and not in the backup.
        unreadable: In the backup, and could not be read.
    """

    kind: str
    backed_up: int = 0
    equal: int = 0
    converted: int = 0
    different: int = 0
    missing: int = 0
    extra: int = 0
    unreadable: int = 0

    @property
    def ok(self) -> bool:
        """Whether every object came back as it was, and no other."""
        return self.equal + self.converted == self.backed_up and not self.extra

    def outcome(self) -> str:
        """Return what did not come back as it was, in a few words, or ``equal``."""
        wrong = ("converted", "different", "missing", "extra", "unreadable")
        return ", ".join(f"{getattr(self, name)} {name}" for name in wrong if getattr(self, name)) or "equal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase and how long it took, in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalReport:
    """The outcome of a rehearsal.

    Attributes:
        source: What was rehearsed, and where it lay.
        facts: What is known of it, for people: revision, size, versions.
        kinds: One row for each kind, by name.
        namespaces: How many objects each namespace has, by kind; cluster-scoped ones under ``""``.
        findings: Worst first.
        phases: In the order in which they ran.
        changes: How what was asked for differs from the backup; it has no say in the verdict.
    """

    source: str
    facts: Mapping[str, str] = field(default_factory=dict)
    kinds: Sequence[KindCount] = ()
    namespaces: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    findings: Sequence[RehearsalFinding] = ()
    phases: Sequence[Phase] = ()
    changes: Sequence[Changes] = ()

    @property
    def ok(self) -> bool:
        """Whether it restores, and everything in it came back: there are no errors, and something was compared."""
        compared = sum(kind.equal for kind in self.kinds)
        return compared > 0 and not any(finding.level is Level.ERROR for finding in self.findings)

    @property
    def unchanged(self) -> bool:
        """Whether everything that it was to be compared with was compared, and is as it is in the backup."""
        return all(each.none for each in self.changes)

    @property
    def seconds(self) -> float:
        """How long it took in all."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def recovery_seconds(self) -> float:
        """How long it took without getting the programs: one that is compiled first takes no longer to restore."""
        return sum(phase.seconds for phase in self.phases if phase.name != FIND_PROGRAMS)

    def summary(self) -> str:
        """Return the verdict in one line."""
        backed_up = sum(kind.backed_up for kind in self.kinds)
        equal = sum(kind.equal for kind in self.kinds)
        verdict = "restores" if self.ok else "DOES NOT RESTORE WHOLE"
        took = format_duration(self.seconds)
        return f"{self.source}: {verdict}: {equal:,} of {backed_up:,} objects came back equal, in {took}"

    def to_text(self) -> str:
        """Return the verdict, one line for each kind that did not come back whole, and the findings."""
        lines = [self.summary()]
        lines += [f"  {name}: {value}" for name, value in self.facts.items()]
        lines += [f"  {kind.kind}: {kind.outcome()}" for kind in self.kinds if not kind.ok]
        for finding in self.findings:
            lines.append(f"  {finding.level}: {finding.message} ({finding.code})")
            lines += [f"    {each}" for each in finding.examples]
            lines.append(f"    → {finding.hint}")
        for each in self.changes:
            lines += [f"{each.title}:", *(f"  {line}" for line in each.to_text().splitlines())]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return {
            "source": self.source,
            "ok": self.ok,
            "facts": dict(self.facts),
            "kinds": [asdict(kind) for kind in self.kinds],
            "namespaces": {name: dict(kinds) for name, kinds in self.namespaces.items()},
            "findings": [
                {
                    "code": finding.code,
                    "level": str(finding.level),
                    "message": finding.message,
                    "hint": finding.hint,
                    "count": finding.count,
                    "examples": list(finding.examples),
                }
                for finding in self.findings
            ],
            "phases": [{"name": phase.name, "seconds": round(phase.seconds, 3)} for phase in self.phases],
            "changes": [each.to_dict() for each in self.changes],
            "seconds": round(self.seconds, 3),
        }

    def raise_for_findings(self) -> None:
        """Turn a "no" into an exception.

        Raises:
            RehearsalFailedError: Something does not come back, or nothing was compared.
        """
        if not self.ok:
            raise RehearsalFailedError(self)


def worst_first(findings: Iterable[RehearsalFinding]) -> tuple[RehearsalFinding, ...]:
    """Return findings by level, and as they were within each."""
    order = list(Level)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.level)))
