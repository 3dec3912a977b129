"""Which backups count: complete, recent enough, and where they can be restored from. Pure: the clock is a parameter.

A backup that failed, is partial, has expired, or is older than its schedule allows protects nothing; each is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from clusterguard.errors import ClusterGuardError
from clusterguard.policies.copies.naming import backup_of_key
from clusterguard.policies.policy import Schedule as CronSchedule
from clusterguard.policies.schedule import previous_due
from clusterguard.policies.watching.status import CLOCK_TOLERANCE
from clusterguard.policies.watching.verdict import age_in_words
from clusterguard.velero.durations import parse_go_duration
from clusterguard.velero.existing_backups import require_restorable
from clusterguard.velero.phases import LocationPhase
from clusterguard.velero.resources import valid_label

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from clusterguard.policies.policy import Policy
    from clusterguard.policies.watching.verdict import PolicyStatus
    from clusterguard.velero.options import BackupOptions
    from clusterguard.velero.resources import Backup, BackupStorageLocation, Schedule, VolumeTransfer

__all__ = [
    "NotCounted",
    "Source",
    "VeleroSeen",
    "When",
    "etcd_sources",
    "makers_of",
    "read_cron",
    "too_old",
    "velero_sources",
]

WITHOUT_SCHEDULE: Final = timedelta(hours=24)
"""How old a backup may be that no schedule makes, where nobody says otherwise."""

When: TypeAlias = CronSchedule | timedelta | None
"""When backups are due: by a cron expression, each so often, or (None) nobody knows."""

_NAMED: Final = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_GRACE: Final = timedelta(hours=1)
# What a spec may have beside filters without another object being in the backup for it.
_HARMLESS: Final = frozenset({"hooks", "metadata", "uploaderConfig"})


class NotCounted(NamedTuple):
    """A backup, a schedule or a policy's source that protects nothing now, and why.

    Attributes:
        code: Stable; those of errors where there is one.
    """

    name: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A backup that counts.

    Attributes:
        name: What makes it: ``schedule nightly``, ``backup before-upgrade``, ``policy prod/etcd``.
        backup: Its own name.
        taken: When it began, UTC.
        options: What a Velero backup was asked for; None for an etcd snapshot, which has everything that etcd has.
        snapshots: How many snapshots of volumes were begun and are complete, by the storage itself.
        transfers: Whose files or whose snapshot's data were copied.
    """

    name: str
    backup: str
    taken: datetime
    options: BackupOptions | None = None
    snapshots: tuple[int, int] = (0, 0)
    transfers: tuple[VolumeTransfer, ...] = ()

    @property
    def engine(self) -> Literal["velero", "etcd"]:
        """What made it."""
        return "etcd" if self.options is None else "velero"


# ---- how old is too old --------------------------------------------------------------------------------------


def read_cron(text: str) -> When:
    """Return when a Velero schedule is due; None for what cannot be read.

    Source of the forms: robfig/cron, which Velero reads schedules with: five fields, ``@daily`` and the like,
    ``@every 6h``, and ``CRON_TZ=`` before the fields.
    """
    text, zone = text.strip(), "UTC"
    if found := re.fullmatch(r"(?:CRON_)?TZ=(\S+)\s+(.+)", text):
        zone, text = found.groups()
    try:
        if text.startswith("@every "):
            every = parse_go_duration(text.removeprefix("@every ").strip())
            return every if every > timedelta() else None
        return CronSchedule(cron=_NAMED.get(text, text), time_zone=zone)
    except ValueError:
        return None


def too_old(
    taken: datetime, when: When, *, now: datetime, max_age: timedelta | None, running: datetime | None = None
) -> str:
    """Return why a backup is too old to count; empty where it is not.

    Args:
        taken: When it began.
        when: When its schedule is due: it is too old when the next one should have been made, and an hour is over.
        now: The time.
        max_age: How old it may be, whatever its schedule says.
        running: When one began that is being made; for so long the one before it counts.
    """
    if taken > now + CLOCK_TOLERANCE:
        return f"it is of {taken:%Y-%m-%d %H:%M} UTC, which has not come yet: a clock is wrong"
    age = now - taken
    if max_age is not None:
        return f"it is {age_in_words(age)} old, and {age_in_words(max_age)} is the most" if age > max_age else ""
    if when is None:
        return f"it is {age_in_words(age)} old, and no schedule makes the next one" if age > WITHOUT_SCHEDULE else ""
    if isinstance(when, timedelta):
        return f"it is {age_in_words(age)} old, and one is due each {age_in_words(when)}" if age > when + _GRACE else ""
    due = previous_due(when, at=now - when.grace)
    if running is not None and running + CLOCK_TOLERANCE >= due:
        due = previous_due(when, at=due - timedelta(seconds=1))
    if taken + CLOCK_TOLERANCE < due:
        return f"it is {age_in_words(age)} old, and one was due at {due:%Y-%m-%d %H:%M} UTC"
    return ""


# ---- Velero --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class VeleroSeen:
    """What a Velero server has.

    Attributes:
        transfers: PodVolumeBackups and DataUploads, by the name of their backup as a label has it.
        rules: ConfigMaps that backups name, by name: the keys of the document in each; None where it cannot be read.
    """

    backups: Sequence[Backup] = ()
    schedules: Sequence[Schedule] = ()
    locations: Sequence[BackupStorageLocation] = ()
    transfers: Mapping[str, tuple[VolumeTransfer, ...]] = field(default_factory=dict)
    rules: Mapping[str, Collection[str] | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Series:
    """Backups that one thing makes."""

    name: str
    when: When
    backups: Sequence[Backup]
    readable: bool = True


def velero_sources(
    seen: VeleroSeen, policies: Sequence[Policy] = (), *, now: datetime, max_age: timedelta | None = None
) -> tuple[list[Source], list[NotCounted]]:
    """Return the backups that count, the newest of each schedule, and what does not.

    Args:
        seen: What the server has.
        policies: Those whose Velero sources are of this cluster: their schedules say how old is too old.
        now: The time.
        max_age: How old a backup may be, whatever its schedule says.
    """
    sources: list[Source] = []
    refused: list[NotCounted] = []
    for series in _series(seen, policies):
        newest_first = sorted(series.backups, key=lambda each: each.started or each.created or now, reverse=True)
        running = next((each.started for each in newest_first if each.phase.listed and not each.phase.final), None)
        ended = [each for each in newest_first if not (each.phase.listed and not each.phase.final)] or newest_first
        if not ended:
            refused.append(NotCounted(series.name, "schedule-without-backups", "it has made no backup"))
        for backup in ended:
            why = _refusal(backup, series, seen, now=now, max_age=max_age, running=running)
            if why is None:
                sources.append(_source(backup, series, seen))
                break
            refused.append(why)
            if why.code == "too-old":
                break  # those before it are older
    return sources, refused


def makers_of(seen: VeleroSeen, policies: Sequence[Policy] = ()) -> Mapping[str, str]:
    """Return the name of the source that made each backup, by the name of the backup."""
    return {each.name: series.name for series in _series(seen, policies) for each in series.backups}


def _series(seen: VeleroSeen, policies: Sequence[Policy]) -> Iterator[_Series]:
    left = {each.name: each for each in seen.backups}

    def taken(wanted: Callable[[Backup], bool]) -> list[Backup]:
        found = [each for each in left.values() if wanted(each)]
        for each in found:
            del left[each.name]
        return found

    for schedule in seen.schedules:
        when = read_cron(schedule.cron)
        name = schedule.name
        yield _Series(f"schedule {name}", when, taken(lambda each, name=name: each.schedule == name), when is not None)  # type: ignore[misc]
    for policy in policies:
        for source in policy.sources:
            if source.velero:
                found = taken(
                    lambda each, of=source.name: backup_of_key(of, f"backups/{each.name}/-") == each.name  # type: ignore[misc]
                )
                yield _Series(f"policy {policy.name}/{source.name}", policy.schedule, found)
    for each in left.values():
        yield _Series(f"backup {each.name}", None, [each])


def _refusal(
    backup: Backup,
    series: _Series,
    seen: VeleroSeen,
    *,
    now: datetime,
    max_age: timedelta | None,
    running: datetime | None,
) -> NotCounted | None:
    name = series.name if series.name.endswith(f" {backup.name}") else f"{series.name}: {backup.name}"
    try:
        require_restorable(backup, now=now)
    except ClusterGuardError as error:
        return NotCounted(name, error.code, error.message)
    problem = _problem(backup, seen)
    if problem is None and not series.readable and max_age is None:
        problem = "schedule-unreadable", "when its schedule is due cannot be read, so how old is too old is unknown"
    if problem is None and (old := too_old(_taken(backup), series.when, now=now, max_age=max_age, running=running)):
        problem = "too-old", old
    return NotCounted(name, *problem) if problem else None


def _taken(backup: Backup) -> datetime:
    return backup.started or datetime.fromtimestamp(0, UTC)


def _problem(backup: Backup, seen: VeleroSeen) -> tuple[str, str] | None:
    """Return why a completed backup cannot be taken for what its spec says."""
    if backup.errors or backup.item_operations_failed:
        return "backup-partial", f"{backup.errors + backup.item_operations_failed} error(s) are in its status"
    location = next((each for each in seen.locations if each.name == backup.storage_location), None)
    if location is None or location.phase != LocationPhase.AVAILABLE:
        state = f"is {location.phase}" if location else "is not there"
        return "location-unavailable", f"its location {backup.storage_location or '(none)'} {state}"
    options = backup.options
    if strange := sorted(key for key, value in options.extra.items() if value and key not in _HARMLESS):
        return "filters-unknown", f"what {', '.join(strange)} in its spec leaves out is not known to this release"
    if options.resource_policy:
        rules = seen.rules.get(options.resource_policy)
        if rules is None or set(rules) - {"version", "volumePolicies"}:
            detail = f"what the rules in ConfigMap {options.resource_policy} leave out cannot be told"
            return "filters-unknown", detail
    return None


def _source(backup: Backup, series: _Series, seen: VeleroSeen) -> Source:
    begun, done = (int(backup.status.get(f"csiVolumeSnapshots{end}") or 0) for end in ("Attempted", "Completed"))
    return Source(
        name=series.name,
        backup=backup.name,
        taken=_taken(backup),
        options=backup.options,
        snapshots=(begun, done),
        transfers=tuple(seen.transfers.get(valid_label(backup.name), ())),
    )


# ---- etcd snapshots ------------------------------------------------------------------------------------------


def etcd_sources(
    looks: Sequence[tuple[Policy, PolicyStatus]], *, now: datetime, max_age: timedelta | None = None
) -> tuple[list[Source], list[NotCounted]]:
    """Return the etcd snapshots of policies that count, the newest of each source, and what does not.

    Args:
        looks: Policies whose etcd sources are those of this cluster, and what is known of them.
        now: The time.
        max_age: How old a snapshot may be, whatever the schedule says.
    """
    sources: list[Source] = []
    refused: list[NotCounted] = []
    for policy, status in looks:
        by_name = {each.name: each for each in status.sources}
        for source in policy.sources:
            if not source.etcd:
                continue
            name, seen = f"policy {policy.name}/{source.name}", by_name.get(source.name)
            if seen is None or seen.restorable_at is None:
                refused.append(NotCounted(name, "no-backups", "no location in reach has a snapshot that was read back"))
            elif old := too_old(seen.restorable_at, policy.schedule, now=now, max_age=max_age):
                refused.append(NotCounted(name, "too-old", f"{seen.restorable}: {old}"))
            else:
                sources.append(Source(name=name, backup=seen.restorable, taken=seen.restorable_at))
    return sources, refused
