"""From a policy and the catalogs of its locations to what is protected right now. Pure: the clock is a parameter.

Nothing is green for want of knowledge. A location that cannot be read, a run that never was, a time that has not come
yet and a proof that nobody made are all reasons against it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final, TypeVar
from zoneinfo import ZoneInfo

from clusterguard.errors import ClusterGuardError
from clusterguard.policies.copies.catalog import Catalog, ProofRecord, RunRecord, entry_key
from clusterguard.policies.watching.verdict import (
    DayStatus,
    LocationStatus,
    PolicyStatus,
    ProofStatus,
    Reason,
    SourceStatus,
    size_in_words,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date, datetime, tzinfo

    from clusterguard.policies.copies.catalog import BackupEntry
    from clusterguard.policies.policy import Location, Policy, Proof, Schedule
    from clusterguard.policies.watching.verdict import DayState, Severity

__all__ = ["CLOCK_TOLERANCE", "DAYS", "policy_status"]

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far two clocks may be apart before it is said."""

DAYS: Final = 30
"""How many days a calendar has."""

_MOST_MISSED: Final = 1000  # counting further says nothing more
_MOST_NAMED: Final = 3
_NO_PROTECTION: Final = 2  # missed in a row
_MUCH_TOO_LONG: Final = 2  # times the interval of verification
_ORDER: Final[Mapping[Severity, int]] = {"not protected": 0, "at risk": 1, "note": 2}


def policy_status(
    policy: Policy, catalogs: Mapping[str, Catalog | ClusterGuardError], *, now: datetime
) -> PolicyStatus:
    """Judge a policy by what its locations hold.

    - ``catalogs``: by name of the location, what is there, or why it could not be read. One that is not named counts as
      not read.

    Raises:
        ConfigError: The schedule cannot be read, or the extra `policy` is not installed.
    """
    found = {each.name: _readable(each, catalogs.get(each.name), policy) for each in policy.locations}
    copies = _Copies(found, now)
    sources = tuple(_source(each.name, policy, copies, now) for each in policy.sources)
    newest = {each.name: each.newest for each in sources if each.newest}
    locations = tuple(_location(each, found[each.name], newest, policy, now) for each in policy.locations)
    proofs = tuple(_proof(each, copies, now) for each in policy.proofs)
    run = f"clusterguard run {policy.path or 'POLICY'}"
    reasons = [
        *_about_all(policy, locations, proofs),
        *(reason for each in sources for reason in _about_source(each, run)),
        *(reason for each in locations for reason in _about_location(each, policy)),
        *(reason for each in proofs for reason in _about_proof(each, run)),
    ]
    return PolicyStatus(
        policy=policy.name,
        at=now,
        sources=sources,
        locations=locations,
        proofs=proofs,
        reasons=tuple(sorted(reasons, key=lambda each: _ORDER[each.severity])),
        description=policy.description,
        time_zone=policy.schedule.time_zone if policy.schedule else "UTC",
    )


# ---- what lies in one location -------------------------------------------------------------------------------


def _readable(
    location: Location, found: Catalog | ClusterGuardError | None, policy: Policy
) -> Catalog | ClusterGuardError:
    """Return a location's catalog, or why nothing is known of the location."""
    if found is None:
        return ClusterGuardError("it was not looked at")
    if isinstance(found, Catalog) and found.policy and found.policy != policy.name:
        return ClusterGuardError(
            f"its catalog is of policy {found.policy!r}, not of {policy.name!r}",
            hint=f"give each policy a location, or a name, of its own: {location.name}",
        )
    return found


def _location(
    location: Location,
    found: Catalog | ClusterGuardError,
    newest: Mapping[str, str],
    policy: Policy,
    now: datetime,
) -> LocationStatus:
    if isinstance(found, ClusterGuardError):
        return LocationStatus(name=location.name, url=location.url, error=found.message, hint=found.hint or "")
    latest, every = now + CLOCK_TOLERANCE, policy.verification.every
    entries = found.entries.values()
    undated = {each.key for each in entries if max(each.created, each.verified or each.created) > latest}
    moments = (found.updated, *(each.at for each in found.runs.values()), *(each.at for each in found.proofs.values()))
    damaged = [each.key for each in entries if each.problem]
    read_back = [each.verified for each in entries if each.verified is not None and not each.problem]
    unread = [each.unread for each in entries if each.unread]
    return LocationStatus(
        name=location.name,
        url=location.url,
        backups=len(entries),
        size=found.size,
        oldest=min((each.created for each in entries), default=None),
        newest=max((each.created for each in entries if each.key not in undated), default=None),
        unverified=sum(each.verified is None and not each.problem for each in entries),
        unread=len(unread),
        unread_reason=next(iter(unread), ""),
        verification_overdue=sum(each < now - every for each in read_back),
        verification_long_overdue=sum(each < now - _MUCH_TOO_LONG * every for each in read_back),
        damaged=len(damaged),
        damaged_keys=tuple(damaged[:_MOST_NAMED]),
        missing=tuple(source for source, name in newest.items() if entry_key(source, name) not in found.entries),
        in_future=len(undated) + sum(each is not None and each > latest for each in moments),
        updated=found.updated,
        notes=found.notes,
        leftovers=len(found.leftovers),
        leftover_bytes=sum(each.size for each in found.leftovers),
    )


# ---- what lies in all of them --------------------------------------------------------------------------------


_Record = TypeVar("_Record", RunRecord, ProofRecord)


@dataclass(slots=True, kw_only=True)
class _Backup:
    created: datetime
    name: str
    size: int
    verified_in: list[str] = field(default_factory=list)
    damaged: bool = False


class _Copies:
    """What the locations that can be read hold between them; nothing of it is from the future."""

    def __init__(self, found: Mapping[str, Catalog | ClusterGuardError], now: datetime) -> None:
        self._latest = now + CLOCK_TOLERANCE
        self._catalogs = {name: each for name, each in found.items() if isinstance(each, Catalog)}
        self._backups: dict[str, dict[str, _Backup]] = defaultdict(dict)
        for name, catalog in self._catalogs.items():
            for entry in catalog.entries.values():
                if entry.created <= self._latest:
                    self._add(name, entry)

    def of_source(self, source: str) -> list[_Backup]:
        """Return the backups of one source, newest first."""
        found = self._backups.get(source, {}).values()
        return sorted(found, key=lambda each: (each.created, each.name), reverse=True)

    def last_run(self, source: str) -> RunRecord | None:
        """Return the last run that any location knows."""
        return self._last(each.runs.get(source) for each in self._catalogs.values())

    def last_success(self, source: str) -> datetime | None:
        """Return the last success that any location knows."""
        runs = (each.runs.get(source) for each in self._catalogs.values())
        return self._latest_of(each.last_success for each in runs if each is not None)

    def last_proof(self, proof: str) -> ProofRecord | None:
        """Return the last attempt that any location knows."""
        return self._last(each.proofs.get(proof) for each in self._catalogs.values())

    def last_proven(self, proof: str) -> datetime | None:
        """Return the last green one that any location knows."""
        proofs = (each.proofs.get(proof) for each in self._catalogs.values())
        return self._latest_of(each.last_proven for each in proofs if each is not None)

    def _last(self, records: Iterable[_Record | None]) -> _Record | None:
        known = (each for each in records if each is not None and each.at <= self._latest)
        return max(known, key=lambda each: each.at, default=None)

    def _latest_of(self, moments: Iterable[datetime | None]) -> datetime | None:
        return max((each for each in moments if each is not None and each <= self._latest), default=None)

    def _add(self, location: str, entry: BackupEntry) -> None:
        backups = self._backups[entry.source]
        backup = backups.get(entry.name)
        if backup is None:
            backup = backups[entry.name] = _Backup(created=entry.created, name=entry.name, size=entry.size)
        if entry.sound and entry.verified is not None and entry.verified <= self._latest:
            backup.verified_in.append(location)
        backup.damaged = backup.damaged or bool(entry.problem)


# ---- sources, locations, proofs ------------------------------------------------------------------------------


def _source(name: str, policy: Policy, copies: _Copies, now: datetime) -> SourceStatus:
    backups = copies.of_source(name)
    newest = backups[0] if backups else None
    restorable = next((each for each in backups if each.verified_in), None)
    run, success = copies.last_run(name), copies.last_success(name)
    dues = _Dues.of(policy.schedule, success, now)
    zone = ZoneInfo(policy.schedule.time_zone) if policy.schedule else ZoneInfo("UTC")
    return SourceStatus(
        name=name,
        required_copies=policy.copies,
        newest=newest.name if newest else "",
        newest_at=newest.created if newest else None,
        newest_bytes=newest.size if newest else None,
        verified_copies=len(newest.verified_in) if newest else 0,
        verified_in=tuple(newest.verified_in) if newest else (),
        restorable=restorable.name if restorable else "",
        restorable_at=restorable.created if restorable else None,
        backups=len(backups),
        last_run=run.at if run else None,
        last_outcome=run.outcome if run else None,
        last_detail=run.detail if run else "",
        last_seconds=run.seconds if run else None,
        last_success=success,
        age=max(now - success, timedelta(0)) if success else None,
        next_due=dues.next,
        overdue=success is None or bool(dues.missed),
        overdue_since=dues.missed[0] if dues.missed else None,
        missed=len(dues.missed),
        days=_calendar(backups, dues.missed, policy.copies, now=now, zone=zone),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dues:
    """When backups were and are due."""

    missed: tuple[datetime, ...] = ()  # due times since the last success whose grace is over
    next: datetime | None = None  # the next one

    @classmethod
    def of(cls, schedule: Schedule | None, success: datetime | None, now: datetime) -> _Dues:
        if schedule is None:
            return cls()
        from clusterguard.policies.schedule import due_times, next_due, previous_due

        upcoming = next_due(schedule, after=now)
        last = previous_due(schedule, at=now - schedule.grace)
        # A run that the clock of another machine started a moment early is the run that was due.
        if success is None or success + CLOCK_TOLERANCE >= last:
            return cls(next=upcoming)
        past = takewhile(lambda due: due <= last, due_times(schedule, after=success + CLOCK_TOLERANCE))
        return cls(missed=tuple(islice(past, _MOST_MISSED)), next=upcoming)


def _calendar(
    backups: Sequence[_Backup], missed: Iterable[datetime], copies: int, *, now: datetime, zone: tzinfo
) -> tuple[DayStatus, ...]:
    today = now.astimezone(zone).date()
    first = today - timedelta(days=DAYS - 1)
    # Two days earlier in any zone: only what may belong to the calendar is put into local time.
    oldest = now - timedelta(days=DAYS + 1)
    by_day: dict[date, list[_Backup]] = defaultdict(list)
    for each in takewhile(lambda backup: backup.created >= oldest, backups):
        by_day[each.created.astimezone(zone).date()].append(each)
    missed_days = {each.astimezone(zone).date() for each in missed}
    days = (first + timedelta(days=number) for number in range(DAYS))
    return tuple(_day(day, by_day.get(day, ()), copies, missed=day in missed_days) for day in days)


def _day(day: date, backups: Sequence[_Backup], copies: int, *, missed: bool) -> DayStatus:
    most = max((len(each.verified_in) for each in backups), default=0)
    state: DayState
    if most >= copies:
        state = "verified"
    elif backups and all(each.damaged and not each.verified_in for each in backups):
        state = "damaged"
    elif backups:
        state = "unverified"
    else:
        state = "missed" if missed else "none"
    return DayStatus(day=day, state=state, backups=len(backups), copies=most)


def _proof(proof: Proof, copies: _Copies, now: datetime) -> ProofStatus:
    last, proven = copies.last_proof(proof.name), copies.last_proven(proof.name)
    return ProofStatus(
        name=proof.name,
        source=proof.source,
        every=proof.every,
        last_proven=proven,
        age=max(now - proven, timedelta(0)) if proven else None,
        overdue=proven is None or now - proven > proof.every,
        last_at=last.at if last else None,
        last_outcome=last.outcome if last else None,
        detail=last.detail if last else "",
        backup=last.backup if last else "",
        rto_seconds=last.rto_seconds if last else None,
        rpo_seconds=last.rpo_seconds if last else None,
    )


# ---- reasons -------------------------------------------------------------------------------------------------


def _about_all(policy: Policy, locations: Sequence[LocationStatus], proofs: Sequence[ProofStatus]) -> Iterator[Reason]:
    if not any(each.reachable for each in locations):
        yield Reason(severity="not protected", about="", text="no location can be read, so nothing is known")
    if policy.schedule is None:
        yield Reason(
            severity="at risk",
            about="",
            text="the policy has no schedule, so overdue backups cannot be detected",
            hint="add the schedule that backups are run on, whatever starts them",
        )
    proven = {each.source for each in proofs}
    for source in policy.sources:
        if source.name not in proven:
            yield Reason(
                severity="note",
                about=source.name,
                text="nothing proves that it restores",
                hint="add a proof to the policy: a backup is worth what its last restore proved",
            )


def _about(name: str) -> Callable[..., Reason]:
    def say(severity: Severity, text: str, hint: str = "") -> Reason:
        return Reason(severity=severity, about=name, text=text, hint=hint)

    return say


def _about_source(source: SourceStatus, run: str) -> Iterator[Reason]:
    say = _about(source.name)
    if not source.newest:
        yield say("not protected", "there is no backup of it in any location that can be read", run)
    elif not source.restorable:
        yield say("not protected", "no copy of any backup was read back whole", f"{run} --step verify")
    elif source.verified_copies < source.required_copies:
        wanted = f"{source.verified_copies} of the {source.required_copies} verified copies that are wanted"
        yield say("at risk", f"the newest backup, {source.newest}, has {wanted}", run)
    if source.newest and source.last_success is None:
        yield say("not protected", "no run of it ever succeeded", run)
    elif source.missed:
        severity: Severity = "not protected" if source.missed >= _NO_PROTECTION else "at risk"
        since = f"{source.overdue_since:%Y-%m-%d %H:%M} UTC" if source.overdue_since else ""
        backups = "a backup was" if source.missed == 1 else f"{source.missed} backups were"
        yield say(severity, f"{backups} due since {since} and not made", f"find out why nothing ran, then: {run}")
    if source.last_outcome in {"failed", "warning"}:
        words = {"failed": "the last run failed", "warning": "the last run was not all well"}[source.last_outcome]
        yield say("at risk", f"{words}{f': {source.last_detail}' if source.last_detail else ''}")


def _about_location(location: LocationStatus, policy: Policy) -> Iterator[Reason]:
    say = _about(location.name)
    if not location.reachable:
        yield say("at risk", f"it cannot be read: {location.error}", location.hint)
        return
    if location.damaged:
        yield say(
            "at risk",
            f"{_many(location.damaged, 'copy is', 'copies are')} damaged: {_first_of(location)}",
            "find out what changed the bytes; a copy in another location is another chance",
        )
    if location.missing:
        yield say("at risk", f"the newest backup of {', '.join(location.missing)} is not there", "a run catches up")
    if location.in_future:
        yield say(
            "at risk",
            f"{_many(location.in_future, 'entry is', 'entries are')} from the future: a clock was wrong",
            "check the time on the machines that run backups",
        )
    for note in location.notes:
        yield say("at risk", note)
    yield from _about_verification(location, policy)
    if location.leftovers:
        yield say(
            "note",
            f"{_many(location.leftovers, 'copy', 'copies')} broke off half-way, or may be being made, with "
            f"{size_in_words(location.leftover_bytes)}",
            "retention removes what is a day old",
        )


def _about_verification(location: LocationStatus, policy: Policy) -> Iterator[Reason]:
    say = _about(location.name)
    if location.verification_long_overdue:
        yield say(
            "at risk",
            f"{_many(location.verification_long_overdue, 'copy was', 'copies were')} last read back twice as long ago "
            f"as the policy says, or longer ({_days(policy.verification.every)})",
            "let runs verify more: verification.perRun",
        )
    elif location.verification_overdue:
        yield say("note", f"{_many(location.verification_overdue, 'copy is', 'copies are')} due to be read back")
    if location.unverified:
        yield say("note", f"{_many(location.unverified, 'copy was', 'copies were')} never read back")
    if location.unread:
        copies = _many(location.unread, "copy", "copies")
        yield say("note", f"{copies} could not be read the last time: {location.unread_reason}", "a run tries again")


def _about_proof(proof: ProofStatus, run: str) -> Iterator[Reason]:
    say = _about(proof.name)
    if proof.last_outcome == "not proven":
        yield say("not protected", f"the last proof failed: {proof.source} did not come back: {proof.detail}")
    elif proof.last_outcome == "error":
        yield say("at risk", f"the last proof could not tell: {proof.detail}")
    if proof.last_proven is None:
        yield say("at risk", f"no restore of {proof.source} was ever proven", f"{run} --step prove")
    elif proof.overdue:
        yield say(
            "at risk", f"a restore of {proof.source} was last proven {_days(proof.age)} ago", f"{run} --step prove"
        )


def _days(age: timedelta | None) -> str:
    if age is None or age < timedelta(days=2):
        return f"{(age or timedelta(0)).total_seconds() / 3600:.0f} hours"
    return f"{age.days} days"


def _first_of(location: LocationStatus) -> str:
    more = location.damaged - len(location.damaged_keys)
    return ", ".join(location.damaged_keys) + (f" and {more} more" if more > 0 else "")


def _many(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"
