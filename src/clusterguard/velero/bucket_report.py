"""The result of verifying one backup."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterguard.errors import BackupCorruptError
from clusterguard.model.snapshot import Checked, CheckOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "EXCLUDED_LABEL",
    "RULES",
    "STRICT",
    "Answer",
    "BackupFinding",
    "BackupVerifyReport",
    "BucketPolicy",
    "Explanation",
    "Flaws",
    "count_of",
    "report_of",
]

EXCLUDED_LABEL: Final = "velero.io/exclude-from-backup"
_MOST_SHOWN = 20  # findings of one check in the text form; the data form has all of them

RULES: Final[Mapping[str, str]] = {
    "tolerated phase": "the policy accepts backups that ended in this phase",
    "tolerated warning": "the policy names it",
    "tolerated error": "the policy names it",
    "tolerated finding": "the policy names it",
    "volume without data": "the policy says that the data of this volume is not in the backup",
    "volume data not asked for": "the backup was told to hold no data of volumes: neither snapshots nor files",
    "volume left out by choice": "a volume policy, a label or an annotation keeps its data out of the backup",
    "unbound claim": "a claim that has no volume has no data",
    "excluded by label": f"its owner keeps it out of backups ({EXCLUDED_LABEL}=true)",
    "added when operations ended": "plugins name objects that are stored once their operations have ended, after the "
    "resource list was written",
    "errors of operations": "errors of asynchronous operations are counted after the results were written",
    "no log": "Velero uploads the log on best effort",
    "unknown file": "a newer Velero may write files that this release does not know",
}
"""Why something that looks wrong is right: every use of a rule is listed in the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketPolicy:
    """What counts against a backup.

    Attributes:
        tolerate_phases: Phases other than Completed that will do.
        tolerate_warnings: Globs over the texts of warnings that do not count.
        tolerate_errors: Globs over the texts of errors that do not count; a backup with errors is PartiallyFailed.
        tolerate_rules: What does not count, by the rule that an outcome gives it (see `Rule`).
        volumes_without_data: Globs over ``namespace/claim``: volumes whose data is not expected in the backup.
        skipped_volumes_ok: Whether volumes will do that nobody was asked to back up; one that failed never does.
        expired_ok: Whether a backup that Velero may delete at any moment will do.
    """

    tolerate_phases: tuple[str, ...] = ()
    tolerate_warnings: tuple[str, ...] = ()
    tolerate_errors: tuple[str, ...] = ()
    tolerate_rules: frozenset[str] = frozenset()
    volumes_without_data: tuple[str, ...] = ()
    skipped_volumes_ok: bool = False
    expired_ok: bool = False


STRICT: Final = BucketPolicy()
"""Everything counts."""


@dataclass(frozen=True, slots=True)
class BackupFinding:
    """One thing that is wrong with a backup.

    Attributes:
        check: Which question it answers.
        subject: The object, file or volume.
        detail: What was seen.
        code: What kind of damage it is, where the data of volumes was read; see the reference. Else empty.
    """

    check: str
    subject: str
    detail: str
    code: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One thing that looks wrong and is not.

    Attributes:
        rule: One of `RULES`.
        subject: The object, file or volume.
        detail: What was seen.
    """

    rule: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupVerifyReport(Checked):
    """What a verification of one backup found.

    Attributes:
        name: Of the backup.
        store: Where it is, without secrets.
        objects: How many Kubernetes objects were read.
        checks: In the order they were made.
        findings: What is wrong, by check.
        explained: What looks wrong and is not.
    """

    name: str
    store: str
    objects: int
    checks: Sequence[CheckOutcome]
    findings: Sequence[BackupFinding] = field(default=(), repr=False)
    explained: Sequence[Explanation] = field(default=(), repr=False)

    def raise_for_findings(self) -> None:
        """Turn findings into an exception.

        Raises:
            BackupCorruptError: A check failed, or none could be made.
        """
        if not self.ok:
            raise BackupCorruptError(self.to_text(), hint="do not rely on it: make a new backup, and verify that one")

    def to_text(self) -> str:
        """Return the verdict, one line for each check, and below it what is wrong."""
        return "\n".join(line.rstrip() for line in self._lines())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        return {
            "name": self.name,
            "store": self.store,
            "ok": self.ok,
            "objects": self.objects,
            **{part: list(map(asdict, getattr(self, part))) for part in ("checks", "findings", "explained")},
        }

    def _lines(self) -> Iterator[str]:
        failed = any(check.ok is False for check in self.checks)
        verdict = "intact" if self.ok else "NOT INTACT" if failed else "NOT PROVEN"
        yield f"{self.name}: {verdict} ({count_of(self.objects, 'object')}, {self.store})"
        width = max((len(check.name) for check in self.checks), default=0)
        marks = {True: "ok", False: "FAILED", None: "not asked"}
        for check in self.checks:
            yield f"  {check.name:<{width}}  {marks[check.ok]:<9}  {check.detail}"
            wrong = [one for one in self.findings if one.check == check.name]
            if len(wrong) > 1:  # the check itself shows a single one
                yield from (f"    - {one}" for one in wrong[:_MOST_SHOWN])
            if len(wrong) > _MOST_SHOWN:
                yield f"    … {len(wrong) - _MOST_SHOWN} more"
        if self.explained:
            rules = Counter(one.rule for one in self.explained).most_common()
            yield f"  explained: {', '.join(f'{rule} {count}' for rule, count in rules)}"


Flaws: TypeAlias = "tuple[tuple[str, str] | tuple[str, str, str], ...]"
"""Subject, detail and, where it has one, code of each."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one check came to.

    Attributes:
        seen: What was seen, where nothing is wrong.
        flaws: What is wrong.
        explained: What only looks so.
        asked: Whether it could be asked; if not, ``seen`` says why.
        check: Its name.
    """

    seen: str
    flaws: Flaws = ()
    explained: tuple[Explanation, ...] = ()
    asked: bool = True
    check: str = ""

    def outcome(self) -> CheckOutcome:
        """Return it for the report."""
        if not self.asked:
            return CheckOutcome(name=self.check, ok=None, detail=self.seen)
        detail = self.seen
        if self.flaws:
            subject, what = self.flaws[0][:2]
            detail = f"{subject}: {what}" if len(self.flaws) == 1 else count_of(len(self.flaws), "finding")
        return CheckOutcome(name=self.check, ok=not self.flaws, detail=detail)


def report_of(name: str, store: str, answers: Sequence[Answer], *, objects: int) -> BackupVerifyReport:
    """Return the report that these answers make."""
    return BackupVerifyReport(
        name=name,
        store=store,
        objects=objects,
        checks=[answer.outcome() for answer in answers],
        findings=[BackupFinding(answer.check, *flaw) for answer in answers for flaw in answer.flaws],
        explained=[one for answer in answers for one in answer.explained],
    )


def count_of(number: int, noun: str, plural: str = "") -> str:
    """Return such as ``1 object``, ``2 objects``."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"
