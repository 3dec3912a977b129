"""What is known of a policy right now: is it protected, where are the copies, when was a restore last proven."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DayState",
    "DayStatus",
    "LocationStatus",
    "PolicyStatus",
    "ProofStatus",
    "Reason",
    "Severity",
    "SourceStatus",
    "Verdict",
    "age_in_words",
    "size_in_words",
]

Verdict: TypeAlias = Literal["protected", "at risk", "not protected"]
"""``protected``: everything is as the policy says. ``at risk``: there is something to restore from, but not all that
the policy says. ``not protected``: a source has nothing that is known to restore, or no longer anything recent."""

Severity: TypeAlias = Literal["not protected", "at risk", "note"]

DayState: TypeAlias = Literal["verified", "unverified", "damaged", "missed", "none"]
"""What is left of a day's backups: ``verified``, with as many verified copies as wanted; ``unverified``, with fewer;
``damaged``, one that was found so; ``missed``, due and not made; ``none``, nothing kept, or nothing due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Something worth saying.

    Attributes:
        severity: What it makes of the verdict; a ``note`` makes nothing of it.
        about: The source, location or proof; empty for the policy.
        text: What was seen.
        hint: What to do; empty for nothing.
    """

    severity: Severity
    about: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.about}: {self.text}" if self.about else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class DayStatus:
    """What is kept of one day, in the policy's time zone.

    Attributes:
        day: Which.
        state: The best backup of that day; ``damaged`` where none of that day is better.
        backups: How many are kept of it.
        copies: The most verified copies that one of them has.
    """

    day: date
    state: DayState
    backups: int = 0
    copies: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """One source.

    Attributes:
        name: Of the policy.
        newest: Name of the newest backup; empty for none.
        newest_at: When it was taken, UTC; None for none.
        newest_bytes: Its size as it is stored.
        verified_copies: How many locations hold a copy of it that was read back whole.
        verified_in: Their names.
        required_copies: How many are wanted.
        restorable: The newest backup with any verified copy in reach; empty for none.
        restorable_at: When that was taken.
        backups: How many are kept, each counted once.
        last_run: When the last run ended.
        last_outcome: How; None before the first.
        last_detail: What was wrong.
        last_seconds: How long it took.
        last_success: When a backup with enough verified copies was last made; None for never.
        age: Since that; None for never.
        next_due: When the next is due; None without a schedule.
        overdue: Whether one was due, the grace is over and none was made, or none ever was.
        overdue_since: The first due time that nothing came of.
        missed: How many of them.
        days: The last thirty days, today last.
    """

    name: str
    required_copies: int
    newest: str = ""
    newest_at: datetime | None = None
    newest_bytes: int | None = None
    verified_copies: int = 0
    verified_in: tuple[str, ...] = ()
    restorable: str = ""
    restorable_at: datetime | None = None
    backups: int = 0
    last_run: datetime | None = None
    last_outcome: str | None = None
    last_detail: str = ""
    last_seconds: float | None = None
    last_success: datetime | None = None
    age: timedelta | None = None
    next_due: datetime | None = None
    overdue: bool = False
    overdue_since: datetime | None = None
    missed: int = 0
    days: tuple[DayStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationStatus:
    """One location.

    Attributes:
        name: Of the policy.
        url: Where it is.
        error: Why it could not be read; empty where it could.
        hint: What to do about that.
        backups: How many copies lie there.
        size: Their bytes.
        oldest: When the oldest was taken; None for none.
        newest: When the newest was taken.
        unverified: Copies that were never read back.
        unread: Copies, verified before or not, that could not be read the last time a run wanted to: nothing is known
            against them.
        unread_reason: What kept it from one of them.
        verification_overdue: Copies that were last read back longer ago than the policy says.
        verification_long_overdue: Those of them where it is twice as long ago, or longer.
        damaged: Copies that were found damaged.
        damaged_keys: Which, the first few of them.
        missing: Sources whose newest backup is not there.
        in_future: Entries of a time that has not come yet: a clock jumped.
        updated: When its catalog was last written; None for never.
        notes: What was found wrong with its catalog.
        leftovers: Backups and copies that broke off half-way, or are being made, and left bytes that no record names.
        leftover_bytes: Their bytes.
    """

    name: str
    url: str
    error: str = ""
    hint: str = ""
    backups: int = 0
    size: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    unverified: int = 0
    unread: int = 0
    unread_reason: str = ""
    verification_overdue: int = 0
    verification_long_overdue: int = 0
    damaged: int = 0
    damaged_keys: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    in_future: int = 0
    updated: datetime | None = None
    notes: tuple[str, ...] = ()
    leftovers: int = 0
    leftover_bytes: int = 0

    @property
    def reachable(self) -> bool:
        """Whether it could be read."""
        return not self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofStatus:
    """One proof.

    Attributes:
        name: Of the policy.
        source: What it proves.
        every: How long a proof is good for.
        last_proven: When it was last green; None for never.
        age: Since then.
        overdue: Whether it was never green, or longer ago than it is good for.
        last_at: When it was last tried.
        last_outcome: How that ended; None before the first time.
        detail: What was missing then.
        backup: The backup that was restored then.
        rto_seconds: How long the restore took; None where unknown.
        rpo_seconds: How old the backup was; None where unknown.
    """

    name: str
    source: str
    every: timedelta
    last_proven: datetime | None = None
    age: timedelta | None = None
    overdue: bool = True
    last_at: datetime | None = None
    last_outcome: str | None = None
    detail: str = ""
    backup: str = ""
    rto_seconds: float | None = None
    rpo_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatus:
    """One policy.

    Attributes:
        policy: Its name.
        at: The moment all ages count to, UTC.
        sources: In the policy's order, as are the next two.
        locations: Where the copies are.
        proofs: When a restore was last proven.
        reasons: Everything worth saying, the worst first.
        description: Of the policy.
        time_zone: Of its schedule; what days mean.
    """

    policy: str
    at: datetime
    sources: tuple[SourceStatus, ...]
    locations: tuple[LocationStatus, ...]
    proofs: tuple[ProofStatus, ...] = ()
    reasons: tuple[Reason, ...] = ()
    description: str = ""
    time_zone: str = "UTC"

    @property
    def verdict(self) -> Verdict:
        """The worst of all reasons."""
        severities = {reason.severity for reason in self.reasons}
        return (
            "not protected" if "not protected" in severities else "at risk" if "at risk" in severities else "protected"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON: times in RFC 3339, durations in seconds, names in camelCase."""
        return {"verdict": self.verdict, **_plain(self)}


def _plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON has
    match value:
        case datetime() | date():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case tuple():
            return [_plain(each) for each in value]
        case _ if is_dataclass(value):
            return _plain_fields(value)
        case _:
            return value


def _plain_fields(value: Any) -> Mapping[str, Any]:  # noqa: ANN401 - any of the dataclasses above
    return {_camel(each.name): _plain(getattr(value, each.name)) for each in fields(value)}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def age_in_words(age: timedelta | None) -> str:
    """Return how long ago something was, to the precision that people ask for: ``12 min``, ``6 h``, ``3 days``."""
    if age is None:
        return "never"
    minutes = int(age.total_seconds() // 60)
    if minutes < 100:  # noqa: PLR2004 - 100 minutes are told apart from two hours
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"  # noqa: PLR2004 - two days


def size_in_words(size: float) -> str:
    """Return bytes with a unit: ``512 B``, ``29.3 KiB``, ``1.2 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:  # noqa: PLR2004 - three digits
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"  # noqa: PLR2004 - likewise
        size /= 1024
    return f"{size:,.1f} TiB"
