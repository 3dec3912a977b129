"""A policy's schedule for cron, in the dialects that there are.

cronie, the cron of Red Hat, SUSE, Arch and Alpine's package of that name, takes ``CRON_TZ``. The cron of Debian and
Ubuntu knows the machine's zone only, and would hand ``CRON_TZ`` to the command without a word: what is due in another
zone is put into the machine's there, where the two keep their distance all year.
"""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from clusterguard.errors import ConfigError
from clusterguard.policies.policy import Schedule
from clusterguard.policies.schedule import due_times, read_time_zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

__all__ = ["Dialect", "crontab", "in_zone"]

Dialect: TypeAlias = Literal["cronie", "debian"]

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NUMBERS: Final = re.compile(r"[0-9]+(,[0-9]+)*")
_COMPARED: Final = 400
_HOURS: Final = 24


def crontab(
    schedule: Schedule,
    command: Sequence[str],
    *,
    policy: str,
    dialect: Dialect,
    system_zone: str,
    mail_to: str = "",
) -> str:
    """Return the lines of a crontab that run a command when a policy is due.

    - ``command``: program and arguments; the program by its whole path, since cron's own is short.
    - ``dialect``: whose cron reads it.
    - ``system_zone``: the machine's time zone, by its IANA name; empty where nobody knows.
    - ``mail_to``: who gets what a run prints; empty for the crontab's owner.

    Raises:
        ConfigError: This cron cannot express that time.
    """
    cron, zone = schedule.cron, ""
    theirs = read_time_zone(schedule.time_zone)
    if not system_zone or _distance(theirs, read_time_zone(system_zone)) != timedelta(0):
        if dialect == "cronie":
            zone = schedule.time_zone
        elif system_zone:
            cron = in_zone(schedule, system_zone)
        else:
            raise ConfigError(
                "this machine's time zone is not known, and Debian's cron has no other",
                code="schedule-not-possible",
                fields={"reason": "no-system-zone"},
                hint="say it with --system-time-zone, such as Europe/Berlin",
            )
    lines = [
        f"# clusterguard: policy {policy}, due {schedule.cron} in {schedule.time_zone}.",
        "# It needs no flock: a run that finds another at work ends, and says so.",
    ]
    if mail_to:
        lines.append(f"MAILTO={_plain(mail_to)}")
    # cron gives commands /usr/bin:/bin; kubectl's credential plugins and ssh are often elsewhere.
    lines.append(f"PATH={_PATH}")
    if zone:
        lines += ["# It holds for every line below it.", f"CRON_TZ={zone}"]
    elif cron != schedule.cron:
        lines.append(f"# In the machine's own zone, {system_zone}: this cron takes no other.")
    return "\n".join([*lines, f"{cron} {_escaped(command)}"]) + "\n"


def in_zone(schedule: Schedule, zone: str) -> str:
    """Return the expression that is due at the same moments in another time zone.

    Raises:
        ConfigError: It cannot be expressed: the zones change their clocks apart, or it is not a fixed time of day.
    """
    theirs, ours = read_time_zone(schedule.time_zone), read_time_zone(zone)
    distance = _distance(theirs, ours)
    shifted = _shifted(schedule.cron, distance) if distance is not None else None
    if shifted is None or not _due_together(schedule, Schedule(cron=shifted, time_zone=zone)):
        reason, words = (
            ("clock-changes", "the two zones change their clocks on different days")
            if distance is None
            else ("days-wrap", "days or hours would wrap around")
        )
        raise ConfigError(
            f"{schedule.cron} in {schedule.time_zone} cannot be expressed in {zone}: {words}",
            code="schedule-not-possible",
            fields={"zone": zone, "reason": reason},
            hint=f"set timeZone: {zone} in the policy, or use a scheduler that knows time zones",
        )
    return shifted


def _distance(theirs: ZoneInfo, ours: ZoneInfo) -> timedelta | None:
    """Return how far our clock is ahead of theirs, or None where that changes within the coming year."""
    now = datetime.now(UTC)
    seen = set()
    for hours in range(0, _COMPARED * _HOURS, 6):
        moment = now + timedelta(hours=hours)
        ahead, behind = moment.astimezone(ours).utcoffset(), moment.astimezone(theirs).utcoffset()
        seen.add((ahead or timedelta(0)) - (behind or timedelta(0)))
    return seen.pop() if len(seen) == 1 else None


def _shifted(cron: str, distance: timedelta) -> str | None:
    """Return an expression of fixed times by another clock, or None where its fields do not say that."""
    if not distance:
        return cron
    minute, hour, *days = cron.split()
    if not minute.isdigit() or not _NUMBERS.fullmatch(hour):
        return None
    times = [int(each) * 60 + int(minute) + distance // timedelta(minutes=1) for each in hour.split(",")]
    another_day = any(not 0 <= time < _HOURS * 60 for time in times)
    if another_day and days != ["*"] * 3:
        return None
    hours = sorted({time // 60 % _HOURS for time in times})
    return " ".join([str(times[0] % 60), ",".join(map(str, hours)), *days])


def _due_together(one: Schedule, other: Schedule) -> bool:
    now = datetime.now(UTC)
    return list(islice(due_times(one, after=now), _COMPARED)) == list(islice(due_times(other, after=now), _COMPARED))


def _escaped(command: Sequence[str]) -> str:
    line = shlex.join(command)
    if not line.isprintable():
        raise ConfigError(f"{line!r} cannot be a line of a crontab", hint="use a path without line breaks")
    return line.replace("%", "\\%")  # cron takes a bare % for the end of the line


def _plain(address: str) -> str:
    if not re.fullmatch(r"[^\s\"'%]+", address):
        raise ConfigError(f"{address!r} is not a valid address for MAILTO", hint="write it like ops@example.com")
    return address
