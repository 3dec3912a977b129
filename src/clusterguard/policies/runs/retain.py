"""Retention: what the plan says goes, goes, in every location by itself."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from clusterguard.errors import (
    ClusterGuardError,
    ObjectNotFoundError,
    RunInProgressError,
    SnapshotCorruptError,
    StoreError,
)
from clusterguard.policies.copies.catalog import entry_key
from clusterguard.policies.copies.locations import RECORD, VeleroRecord, is_record, objects_of, read_record
from clusterguard.policies.copies.naming import backup_of_key
from clusterguard.policies.copies.volumes import SHARED, is_shared, unnamed
from clusterguard.policies.retention import RetentionPlan, StoredBackup, plan_retention
from clusterguard.policies.runs.session import Task
from clusterguard.policies.runs.verify import stored_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from clusterguard.policies.copies.catalog import BackupEntry, Leftover
    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.policy import Policy
    from clusterguard.policies.runs.session import Session
    from clusterguard.stores.base import ObjectStore

__all__ = ["PlannedLeftover", "PlannedRetention", "clock_problem", "plan_for", "plan_retention_of", "retain"]

_CLOCK_TOLERANCE: Final = timedelta(minutes=5)
# No run works for so long; what is younger may be of one that does.
_LEFTOVER_AGE: Final = timedelta(days=1)
# Nobody lets a nightly backup rest for so long and then wants the old ones removed by the first run that comes.
_LONGEST_PAUSE: Final = timedelta(days=45)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRetention:
    """What becomes of the backups of one source in one location."""

    source: str
    location: StorageLocation
    plan: RetentionPlan
    leftovers: tuple[PlannedLeftover, ...] = ()  # what broke off there, and what becomes of it


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLeftover:
    """What becomes of bytes that no record names."""

    leftover: Leftover
    removed: bool  # whether they go
    reason: str  # why they go, or stay


def plan_for(
    entries: Iterable[BackupEntry],
    policy: Policy,
    *,
    now: datetime,
    locks: Mapping[str, datetime | None] | None = None,
) -> RetentionPlan:
    """Decide about the backups of one source in one location.

    - ``locks``: until when a location holds which backup, by name; None where it could not be asked.
    """
    zone = ZoneInfo(policy.schedule.time_zone if policy.schedule else "UTC")
    held = locks or {}
    stored = [
        StoredBackup(
            name=each.name,
            created=each.created,
            size=each.size,
            verified=each.sound,
            damaged=bool(each.problem),
            # A record that names no run was not written by a policy: somebody put it there.
            ours=bool(each.run),
            locked_until=held.get(each.name),
            lock_unknown=each.name in held and held[each.name] is None,
        )
        for each in entries
    ]
    return plan_retention(stored, policy.retention, now=now, zone=zone)


def plan_retention_of(session: Session) -> tuple[PlannedRetention, ...]:
    """Decide about everything; locations are asked for the locks of what would go."""
    plans = []
    for location in session.locations:
        for source in session.policy.sources:
            entries = session.catalogs[location.name].of_source(source.name)
            plan = plan_for(entries, session.policy, now=session.now())
            locks = _locks(location, [entry for entry in entries if entry.name in {gone.name for gone in plan.removed}])
            # Only those that would go were asked about: a lock is a request for each object. What is held may keep
            # others, too.
            if locks:
                plan = plan_for(entries, session.policy, now=session.now(), locks=locks)
            leftovers = _planned_leftovers(location, source.name, session)
            plans.append(PlannedRetention(source=source.name, location=location, plan=plan, leftovers=leftovers))
    return tuple(plans)


def retain(session: Session) -> None:
    """Remove what the plan removes, oldest first; one that cannot be removed does not keep the others."""
    untrusted = set()
    for location in session.locations:
        if problem := clock_problem(session, location):
            with session.step("delete", location=location.name) as task:
                task.outcome, task.code = "failed", "clock-untrusted"
                task.detail = f"nothing was removed: {problem}"
                task.hint = "set the clock right; if it is right, `clusterguard retain POLICY --trust-clock`"
            untrusted.add(location.name)
    for planned in plan_retention_of(session):
        if planned.location.name not in untrusted and planned.location in session.locations:
            _remove(planned, session)
            if session.policy.source(planned.source).velero is not None and planned.location in session.locations:
                _remove_unnamed(planned, session)


def clock_problem(session: Session, location: StorageLocation) -> str:
    """Return why this machine's clock cannot be trusted with the age of backups; nothing where it can.

    Three signs count: the location's own clock, backups from the future, and a long pause.
    """
    if session.trust_clock:
        return ""
    catalog, now = session.catalogs[location.name], session.now()
    future = [entry for entry in catalog.entries.values() if entry.created > now + _CLOCK_TOLERANCE]
    if future:
        return (
            f"{future[0].key} was made at {future[0].created:%Y-%m-%d %H:%M} UTC, and this machine says it is earlier"
        )
    if catalog.updated is not None and now - catalog.updated > _LONGEST_PAUSE:
        return (
            f"the last run was at {catalog.updated:%Y-%m-%d %H:%M} UTC by this policy's own account, "
            f"{(now - catalog.updated).days} days ago: the clock may have jumped"
        )
    written = session.location_clocks.get(location.name)
    if written is not None and abs(written) > _CLOCK_TOLERANCE:
        return f"its own clock and this machine's are {abs(written)} apart"
    return ""


def _remove(planned: PlannedRetention, session: Session) -> None:
    location = planned.location
    entries = {entry.name: entry for entry in session.catalogs[location.name].of_source(planned.source)}
    reasons = {each.backup.name: "; ".join(each.reasons) for each in planned.plan.decisions}
    for backup in planned.plan.removed:
        entry = entries[backup.name]
        said = Task(digest=entry.sha256, size=entry.size, detail=reasons[backup.name])
        _remove_one(planned, backup.name, said, partial(_delete, location, entry, session), session)
    for each in planned.leftovers:
        if each.removed:
            said = Task(size=each.leftover.size, detail=each.reason)
            _remove_one(
                planned, each.leftover.name, said, partial(_delete_leftover, location, each.leftover, session), session
            )


def _remove_one(
    planned: PlannedRetention, backup: str, said: Task, remove: Callable[[], None], session: Session
) -> None:
    """Remove one thing as a step of the run; in a location that went away nothing is removed, which is no failure."""
    location = planned.location
    if location not in session.locations:
        return
    with session.step("delete", source=planned.source, location=location.name, backup=backup) as task:
        task.digest, task.size, task.detail = said.digest, said.size, said.detail
        try:
            remove()
        except RunInProgressError:
            raise
        except ClusterGuardError as error:
            if session.answers(location):
                raise
            task.outcome, task.code, task.detail = "warning", error.code, f"not removed: {error.message}"


def _delete(location: StorageLocation, entry: BackupEntry, session: Session) -> None:
    """Remove a backup, its record first: a partial deletion is then not listed as a backup."""
    store = location.of_source(entry.source)
    try:
        # The blobs of volumes go once no record names them.
        keys = [key for key in stored_objects(location, entry) if not is_shared(key)]
    except (ObjectNotFoundError, SnapshotCorruptError):
        keys = [info.key for info in store.list(entry.name) if backup_of_key(entry.source, info.key) == entry.name]
    session.require_lease(location)  # after every look: this run may have stood still during one
    store.delete(f"{entry.name}{RECORD}")
    _require_gone(store, f"{entry.name}{RECORD}")
    # Without its record it is no backup any more, whatever becomes of its bytes: they would be found as a leftover.
    session.forget(location, [entry.key])
    _delete_objects(location, store, keys, session)


def _require_gone(store: ObjectStore, record: str) -> None:
    """Make sure that a record is gone: as long as it is listed, its bytes must stay.

    Raises:
        StoreError: It is still there, whatever the store said.
    """
    with suppress(ObjectNotFoundError):
        store.stat(record)
        raise StoreError(
            f"{store.url}: {record} is still there, although its deletion succeeded",
            hint="its bytes were kept; check what stores it, such as a cache or a proxy in front of it",
            code="record-not-deleted",
        )


def _delete_objects(location: StorageLocation, store: ObjectStore, keys: Iterable[str], session: Session) -> None:
    for key in keys:
        session.require_lease(location)
        store.delete(key)


def _remove_unnamed(planned: PlannedRetention, session: Session) -> None:
    """Remove the blobs of volumes that no backup of a source needs any more, those of broken runs among them."""
    location = planned.location
    store = location.of_source(planned.source)
    now = session.now() + session.location_clocks.get(location.name, timedelta(0))
    try:
        # A blob that a run at work brings is young, and named by no record yet.
        old = {info.key: info for info in store.list(SHARED) if now - info.modified >= _LEFTOVER_AGE}
        # Of this very moment: whatever a record names stays. One that cannot be read may name any of them.
        records = [read_record(store, info.key) for info in store.list() if is_record(info.key)] if old else []
        gone = unnamed(old, [each for each in records if isinstance(each, VeleroRecord)])
        until = {key: _held_until(location, [f"{planned.source}/{key}"]) for key in gone}
        gone = [key for key in gone if (held := until[key]) is None or held <= session.now()]
    except ClusterGuardError as error:
        if session.answers(location):
            with session.step("delete", source=planned.source, location=location.name) as task:
                task.outcome, task.code, task.hint = "warning", error.code, error.hint or ""
                task.detail = f"no blob of volumes was removed: {error.message}"
        return
    if gone:
        size = sum(old[key].size for key in gone)
        said = Task(size=size, detail=f"{len(gone)} blobs of volumes that no backup needs any more")
        _remove_one(planned, "", said, partial(_delete_objects, location, store, gone, session), session)


def _delete_leftover(location: StorageLocation, leftover: Leftover, session: Session) -> None:
    """Remove what no record names, after one more look at whether there is none."""
    try:
        named = objects_of(read_record(location.root, f"{entry_key(leftover.source, leftover.name)}{RECORD}"))
    except ObjectNotFoundError:
        named = {}
    unnamed = [key for key in leftover.keys if key not in named]
    _delete_objects(location, location.of_source(leftover.source), unnamed, session)


def _planned_leftovers(location: StorageLocation, source: str, session: Session) -> tuple[PlannedLeftover, ...]:
    found = (each for each in session.catalogs[location.name].leftovers if each.source == source)
    # Its age is counted by the clock that it was dated by.
    now = session.now() + session.location_clocks.get(location.name, timedelta(0))
    return tuple(_planned_leftover(location, each, session, age=now - each.modified) for each in found)


def _planned_leftover(
    location: StorageLocation, leftover: Leftover, session: Session, *, age: timedelta
) -> PlannedLeftover:
    if age < _LEFTOVER_AGE:
        return PlannedLeftover(leftover=leftover, removed=False, reason="not a day old yet: its run may be at work")
    try:
        until = _held_until(location, (f"{leftover.source}/{key}" for key in leftover.keys))
    except ClusterGuardError as error:
        return PlannedLeftover(leftover=leftover, removed=False, reason=f"locks could not be asked: {error.message}")
    if until is not None and until > session.now():
        return PlannedLeftover(leftover=leftover, removed=False, reason=f"an object lock holds it until {until}")
    return PlannedLeftover(leftover=leftover, removed=True, reason="it broke off half-way: no record names it")


def _locks(location: StorageLocation, entries: Iterable[BackupEntry]) -> dict[str, datetime | None]:
    """Ask a location that knows locks until when it holds these backups; None stands where it could not be asked."""
    found: dict[str, datetime | None] = {}
    for entry in entries:
        try:
            until = _held_until(location, _keys_of(location, entry))
        except ClusterGuardError:
            found[entry.name] = None
        else:
            if until is not None:
                found[entry.name] = until
    return found


def _keys_of(location: StorageLocation, entry: BackupEntry) -> Iterator[str]:
    yield f"{entry.key}{RECORD}"
    with suppress(ObjectNotFoundError, SnapshotCorruptError):
        yield from (f"{entry.source}/{key}" for key in stored_objects(location, entry) if not is_shared(key))


def _held_until(location: StorageLocation, keys: Iterable[str]) -> datetime | None:
    """Return until when a location holds any of these objects; None where it does not, or knows no locks."""
    ask: Callable[[str], datetime | None] | None = getattr(location.root, "locked_until", None)
    if ask is None:
        return None
    held = []
    for key in keys:
        with suppress(ObjectNotFoundError):
            held.append(ask(key))
    return max((until for until in held if until is not None), default=None)
