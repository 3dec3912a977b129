"""When a schedule is due, through all that clocks do.

cronsim reads the expression and walks the wall clock; what a wall-clock time means where clocks change is decided here,
as Debian's cron has it: a job of fixed times runs once, right after a gap that its time fell into, and at the first of
two equal times; a job that goes by ``*`` in minute or hour goes by the wall clock, through both passes of a repeated
hour, and has nothing to do in a skipped one.
"""

from __future__ import annotations

import heapq
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, available_timezones

from clusterguard.documents.values import did_you_mean, short
from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.policies.policy import Schedule

__all__ = ["changes_around", "check_cron", "due_times", "next_due", "previous_due", "read_time_zone"]

_FIELDS: Final = ("minute", "hour", "day-of-month", "month", "day-of-week")
_LARGEST: Final = dict(zip(_FIELDS, (59, 23, 31, 12, 6), strict=True))
_SOME_TIME: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - cronsim walks a wall clock, which has no zone
_TERM = re.compile(r"(\*|[0-9]+(-[0-9]+)?|[A-Za-z]{3}(-[A-Za-z]{3})?)(/[0-9]+)?")
_CHANGE_LASTS: Final = timedelta(hours=3)  # what comes twice comes again within this
# Looking back: most schedules are due within days; the 29th of February is eight years away around 2100.
_LOOKS_BACK: Final = tuple(timedelta(days=days) for days in (0.1, 2, 40, 400, 9 * 366))


def due_times(schedule: Schedule, *, after: datetime) -> Iterator[datetime]:
    """Yield when it is due, in UTC, strictly after a moment and strictly increasing.

    Raises:
        ValueError: The schedule or its time zone is invalid, or the moment has no time zone.
    """
    if after.tzinfo is None:
        raise ValueError(f"{after} has no time zone")
    zone = read_time_zone(schedule.time_zone)
    last = after.astimezone(UTC)
    for moment in _moments(schedule.cron, zone, last):
        if moment > last:
            last = moment
            yield moment


def next_due(schedule: Schedule, *, after: datetime) -> datetime:
    """Return the first due time strictly after a moment, in UTC."""
    found = next(due_times(schedule, after=after), None)
    if found is None:
        raise ValueError(f"{short(schedule.cron)} is never due")
    return found


def previous_due(schedule: Schedule, *, at: datetime) -> datetime:
    """Return the last due time at a moment or before it, in UTC."""
    for span in _LOOKS_BACK:
        found = None
        for moment in due_times(schedule, after=at - span):
            if moment > at:
                break
            found = moment
        if found is not None:
            return found
    raise ValueError(f"{short(schedule.cron)} was not due in nine years")


def _moments(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Yield due times in UTC, never decreasing; the first ones may be before ``after``, and some come twice."""
    goes_by_the_clock = any(field.startswith("*") for field in cron.split()[:2])
    start = (after - _CHANGE_LASTS).astimezone(zone).replace(tzinfo=None)
    second_pass: list[datetime] = []
    for wall in _cronsim(cron, start):
        first, again = (wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        moment = first.astimezone(UTC)
        if first.utcoffset() != again.utcoffset():
            skipped = moment.astimezone(zone).replace(tzinfo=None) != wall
            if skipped and goes_by_the_clock:
                continue
            if skipped:
                moment = _end_of_gap(again.astimezone(UTC), moment, zone)
            elif goes_by_the_clock:
                heapq.heappush(second_pass, again.astimezone(UTC))
        while second_pass and second_pass[0] < moment:
            yield heapq.heappop(second_pass)
        yield moment


def _end_of_gap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment at which clocks go forward, between two others, to the second."""
    old = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // timedelta(seconds=2) * timedelta(seconds=1)
        if middle.astimezone(zone).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after


def check_cron(cron: str) -> str:
    """Return a schedule unchanged that cron, Kubernetes and cronsim all take, and mean the same by.

    Raises:
        ValueError: It is invalid, only some of them take it, or it is never due.
        ConfigError: The extra ``policy`` is not installed.
    """
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f'invalid schedule {short(cron)}: write five fields, such as "30 2 * * *"')
    for name, field in zip(_FIELDS, fields, strict=True):
        for term in field.split(","):
            _check_term(name, field, term)
    _check_days(fields[2], fields[4])
    _cronsim(cron, _SOME_TIME)
    return cron


def _check_days(day_of_month: str, day_of_week: str) -> None:
    """Refuse a step beside another day field: `*/2` counts as `*` for Debian's cron, and as days for Kubernetes.

    Where both fields name days, either of them is enough; where one is `*`, both must hold. So the two run such a
    schedule on different days (findings/cron-star-step.sh).
    """
    limited = [field for field in (day_of_month, day_of_week) if field not in ("*", "*/1")]
    if len(limited) > 1 and any(field.startswith("*") for field in limited):
        raise ValueError(
            f"cron and Kubernetes run day-of-month {short(day_of_month)} with day-of-week {short(day_of_week)}"
            " on different days; leave one of the two at *, or write the days out"
        )


def _check_term(name: str, field: str, term: str) -> None:
    found = _TERM.fullmatch(term)
    if found is None:
        raise ValueError(f"{short(field)} is not a {name} that both cron and Kubernetes take")
    base, step = found[1], found[4]
    if step and base != "*" and "-" not in base:
        raise ValueError(f"{short(term)} has a step without a range; write {base}-{_LARGEST[name]}{step}")
    if name == "day-of-week" and "7" in base:
        raise ValueError("Sunday is 0 or SUN: 7 is not known to Kubernetes")


def _cronsim(cron: str, start: datetime) -> Iterator[datetime]:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError as error:
        raise ConfigError(
            "schedules need the package cronsim, which is not installed", hint="pip install 'clusterguard[policy]'"
        ) from error
    try:
        wall_times: Iterator[datetime] = CronSim(cron, start)
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        if field == "day-of-month" and _day_is_a_number(cron):
            raise ValueError(f"{short(cron)} is never due: no month has that day") from error
        raise ValueError(f"invalid schedule {short(cron)}: invalid {field}") from error
    return wall_times


def _day_is_a_number(cron: str) -> bool:
    days = re.findall(r"[0-9]+", cron.split()[2].partition("/")[0])
    return bool(days) and all(1 <= int(day) <= _LARGEST["day-of-month"] for day in days)


def read_time_zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        ValueError: There is none of that name, as far as this machine knows.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # a path out of the database, or a folder in it
        zones = available_timezones()
        near = did_you_mean(name, zones) or "; write it like Europe/Berlin or UTC"
        if not zones:
            near = "; this machine has no time zones: pip install tzdata"
        raise ValueError(f"there is no time zone {short(name)}{near}") from error


def changes_around(schedule: Schedule, *, after: datetime, days: int = 400) -> tuple[datetime, ...]:
    """Return the due times of fixed times of day that clocks skip or show twice, by the wall clock, in the coming days.

    Schedulers do not agree on these: see docs/how-to/schedule.md.
    """
    if any(field.startswith("*") for field in schedule.cron.split()[:2]):
        return ()
    zone = read_time_zone(schedule.time_zone)
    start = after.astimezone(zone).replace(tzinfo=None)
    found = []
    for wall in _cronsim(schedule.cron, start):
        if wall > start + timedelta(days=days):
            break
        if wall.replace(tzinfo=zone, fold=0).utcoffset() != wall.replace(tzinfo=zone, fold=1).utcoffset():
            found.append(wall)
    return tuple(found)
