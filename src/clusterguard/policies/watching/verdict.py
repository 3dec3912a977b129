"""What is known of a policy right now: is it protected, where are the copies, when was a restore last proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from clusterguard.documents.json_output import json_data

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime, timedelta

__all__ = [
    "DAY_WORDS",
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


DAY_WORDS: Final[Mapping[DayState, str]] = {
    "verified": "verified",
    "unverified": "too few verified copies",
    "damaged": "damaged",
    "missed": "missed",
    "none": "none kept",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Something worth saying."""

    severity: Severity  # what it makes of the verdict; a ``note`` makes nothing of it
    about: str  # the source, location or proof; empty for the policy
    text: str
    hint: str = ""  # what to do; empty for nothing

    def __str__(self) -> str:
        return f"{self.about}: {self.text}" if self.about else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class DayStatus:
    """What is kept of one day, in the policy's time zone."""

    day: date
    state: DayState  # the best backup of that day; ``damaged`` where none of that day is better
    backups: int = 0  # how many are kept of it
    copies: int = 0  # the most verified copies that one of them has


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """One source."""

    name: str
    required_copies: int  # how many are wanted
    newest: str = ""  # name of the newest backup; empty for none
    newest_at: datetime | None = None  # when it was taken, UTC; None for none
    newest_bytes: int | None = None  # its size as it is stored
    verified_copies: int = 0  # how many locations hold a copy of it that was read back whole
    verified_in: tuple[str, ...] = ()  # their names
    restorable: str = ""  # the newest backup with any verified copy in reach; empty for none
    restorable_at: datetime | None = None  # when that was taken
    backups: int = 0  # how many are kept, each counted once
    last_run: datetime | None = None  # when the last run ended
    last_outcome: str | None = None  # how; None before the first
    last_detail: str = ""  # what was wrong
    last_seconds: float | None = None  # how long it took
    last_success: datetime | None = None  # when a backup with enough verified copies was last made; None for never
    age: timedelta | None = None  # since that; None for never
    next_due: datetime | None = None  # when the next is due; None without a schedule
    overdue: bool = False  # whether one was due, the grace is over and none was made, or none ever was
    overdue_since: datetime | None = None  # the first due time that nothing came of
    missed: int = 0  # how many of them
    days: tuple[DayStatus, ...] = ()  # the last thirty days, today last


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationStatus:
    """One location.

    Attributes:
        unread: Copies, verified before or not, that could not be read the last time a run wanted to: nothing is known
            against them.
        leftovers: Backups and copies that broke off half-way, or are being made, and left bytes that no record names.
    """

    name: str
    url: str  # where it is
    error: str = ""  # why it could not be read; empty where it could
    hint: str = ""  # what to do about that
    backups: int = 0  # how many copies lie there
    size: int = 0  # their bytes
    oldest: datetime | None = None  # when the oldest was taken; None for none
    newest: datetime | None = None  # when the newest was taken
    unverified: int = 0  # copies that were never read back
    unread: int = 0
    unread_reason: str = ""  # what kept it from one of them
    verification_overdue: int = 0  # copies that were last read back longer ago than the policy says
    verification_long_overdue: int = 0  # those of them where it is twice as long ago, or longer
    damaged: int = 0  # copies that were found damaged
    damaged_keys: tuple[str, ...] = ()  # which, the first few of them
    missing: tuple[str, ...] = ()  # sources whose newest backup is not there
    in_future: int = 0  # entries of a time that has not come yet: a clock jumped
    updated: datetime | None = None  # when its catalog was last written; None for never
    notes: tuple[str, ...] = ()  # what was found wrong with its catalog
    leftovers: int = 0
    leftover_bytes: int = 0  # their bytes

    @property
    def reachable(self) -> bool:
        """Whether it could be read."""
        return not self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofStatus:
    """One proof."""

    name: str
    source: str  # what it proves
    every: timedelta  # how long a proof is good for
    last_proven: datetime | None = None  # when it was last green; None for never
    age: timedelta | None = None  # since then
    overdue: bool = True  # whether it was never green, or longer ago than it is good for
    last_at: datetime | None = None  # when it was last tried
    last_outcome: str | None = None  # how that ended; None before the first time
    detail: str = ""  # what was missing then
    backup: str = ""  # the backup that was restored then
    rto_seconds: float | None = None  # how long the restore took; None where unknown
    rpo_seconds: float | None = None  # how old the backup was; None where unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatus:
    """One policy."""

    policy: str
    at: datetime  # the moment all ages count to, UTC
    sources: tuple[SourceStatus, ...]  # in the policy's order, as are the next two
    locations: tuple[LocationStatus, ...]  # where the copies are
    proofs: tuple[ProofStatus, ...] = ()  # when a restore was last proven
    reasons: tuple[Reason, ...] = ()  # everything worth saying, the worst first
    description: str = ""
    time_zone: str = "UTC"  # of its schedule; what days mean

    @property
    def verdict(self) -> Verdict:
        """The worst of all reasons."""
        severities = {reason.severity for reason in self.reasons}
        return (
            "not protected" if "not protected" in severities else "at risk" if "at risk" in severities else "protected"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON: times in RFC 3339, durations in seconds, names in camelCase."""
        return {"verdict": self.verdict, **json_data(self)}


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
