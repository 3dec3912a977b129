"""Retention: what the plan says goes, goes, in every location by itself."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from clusterguard.errors import ClusterGuardError, ObjectNotFoundError, SnapshotCorruptError
from clusterguard.model.retention import RetentionPlan, StoredBackup, plan_retention
from clusterguard.policies.copies.places import RECORD
from clusterguard.policies.runs.verify import stored_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from clusterguard.model.catalog import BackupEntry
    from clusterguard.model.policy import Policy
    from clusterguard.policies.copies.places import Place
    from clusterguard.policies.runs.session import Session

__all__ = ["PlannedRetention", "clock_problem", "plan_for", "plan_retention_of", "retain"]

_CLOCK_TOLERANCE: Final = timedelta(minutes=5)
# Nobody lets a nightly backup rest for so long and then wants the old ones removed by the first run that comes.
_LONGEST_PAUSE: Final = timedelta(days=45)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRetention:
    """What becomes of the backups of one source in one location.

    Attributes:
        source: Of the policy.
        place: The location.
        plan: The decisions.
    """

    source: str
    place: Place
    plan: RetentionPlan


def plan_for(
    entries: Iterable[BackupEntry], policy: Policy, *, now: datetime, locks: Mapping[str, datetime] | None = None
) -> RetentionPlan:
    """Decide about the backups of one source in one location.

    Args:
        entries: All of them.
        policy: What to keep, and by whose calendar.
        now: The time.
        locks: Until when a location holds which backup, by name.
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
        )
        for each in entries
    ]
    return plan_retention(stored, policy.retention, now=now, zone=zone)


def plan_retention_of(session: Session) -> tuple[PlannedRetention, ...]:
    """Decide about everything; locations are asked for the locks of what would go."""
    plans = []
    for place in session.places:
        for source in session.policy.sources:
            entries = session.catalogs[place.name].of_source(source.name)
            plan = plan_for(entries, session.policy, now=session.now())
            locks = _locks(place, [entry for entry in entries if entry.name in {gone.name for gone in plan.removed}])
            if locks:
                plan = plan_for(entries, session.policy, now=session.now(), locks=locks)
            plans.append(PlannedRetention(source=source.name, place=place, plan=plan))
    return tuple(plans)


def retain(session: Session) -> None:
    """Remove what the plan removes, oldest first; one that cannot be removed does not keep the others."""
    for place in session.places:
        if problem := clock_problem(session, place):
            with session.step("delete", location=place.name) as task:
                task.outcome = "failed"
                task.detail = f"nothing was removed: {problem}"
                task.hint = "set the clock right; if it is right, `clusterguard retain POLICY --trust-clock`"
            session.drop_from_retention.add(place.name)
    for planned in plan_retention_of(session):
        if planned.place.name not in session.drop_from_retention:
            _remove(planned, session)


def clock_problem(session: Session, place: Place) -> str:
    """Return why this machine's clock cannot be trusted with the age of backups; nothing where it can.

    Three things tell: the location's own clock, backups from the future, and a long pause that nobody made.
    """
    if session.trust_clock:
        return ""
    catalog, now = session.catalogs[place.name], session.now()
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
    written = session.location_clocks.get(place.name)
    if written is not None and abs(written) > _CLOCK_TOLERANCE:
        return f"its own clock and this machine's are {abs(written)} apart"
    return ""


def _remove(planned: PlannedRetention, session: Session) -> None:
    place = planned.place
    entries = {entry.name: entry for entry in session.catalogs[place.name].of_source(planned.source)}
    reasons = {each.backup.name: "; ".join(each.reasons) for each in planned.plan.decisions}
    for backup in planned.plan.removed:
        entry = entries[backup.name]
        if place not in session.places:
            return
        with session.step("delete", source=planned.source, location=place.name, backup=backup.name) as task:
            task.digest, task.size = entry.sha256, entry.size
            task.detail = reasons[backup.name]
            try:
                session.require_lease(place)
                _delete(place, entry)
            except ClusterGuardError as error:
                # A location that is away keeps everything until the next run: that is told of it, and no failure.
                if session.answers(place):
                    raise
                task.outcome, task.code, task.detail = "warning", error.code, f"nothing was removed: {error.message}"
            else:
                session.forget(place, [entry.key])


def _delete(place: Place, entry: BackupEntry) -> None:
    """Remove a backup, its record first: half of a deletion leaves bytes that nobody takes for a backup."""
    store = place.of_source(entry.source)
    try:
        keys = list(stored_objects(place, entry))
    except (ObjectNotFoundError, SnapshotCorruptError):
        keys = [info.key for info in store.list(f"{entry.name}.")]
    store.delete(f"{entry.name}{RECORD}")
    for key in keys:
        store.delete(key)


def _locks(place: Place, entries: Iterable[BackupEntry]) -> dict[str, datetime]:
    """Ask a location that knows locks until when it holds these backups."""
    locked_until: Callable[[str], datetime | None] | None = getattr(place.root, "locked_until", None)
    if locked_until is None:
        return {}
    found: dict[str, datetime] = {}
    for entry in entries:
        with suppress(ClusterGuardError):
            keys = [f"{entry.source}/{key}" for key in stored_objects(place, entry)]
            held = [until for key in (*keys, f"{entry.key}{RECORD}") if (until := locked_until(key)) is not None]
            if held:
                found[entry.name] = max(held)
    return found
