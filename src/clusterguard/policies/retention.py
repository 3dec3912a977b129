"""Which backups to keep and which to remove: a pure plan, with a reason for each of them.

Rules keep, limits remove, and guards have the last word:

- A **rule** keeps the newest backup of each of the last *n* hours, days, weeks, months or years *that have one*; a week
  without any backup does not use one of them up, and neither does a damaged backup. Without any rule everything is kept
  by rule.
- A **limit** (age, bytes) removes what rules would keep, oldest first.
- A **guard** keeps what must not go whatever rules and limits say: the newest verified backup (where none is verified,
  the newest that is not known to be damaged), what clusterguard did not write, and what an object lock still holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from clusterguard.policies.policy import RetentionPolicy

__all__ = ["Decision", "RetentionPlan", "StoredBackup", "plan_retention"]

_NO_RULE = "no rule limits how many are kept"
_SUPERSEDED = "no rule keeps it"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBackup:
    """A backup as a location holds it."""

    name: str  # unique in its location
    created: datetime  # when it was made, with a time zone
    size: int = 0  # bytes that it takes up
    verified: bool = False  # whether it was read back since, and was intact
    damaged: bool = False  # whether it was read back since, and was not
    ours: bool = True  # whether clusterguard wrote it; anything else is never touched
    locked_until: datetime | None = None  # until when the location forbids its removal, or None
    lock_unknown: bool = False  # whether the location could not be asked for that


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one backup."""

    backup: StoredBackup
    keep: bool  # whether it stays
    reasons: tuple[str, ...]  # why, the strongest first; never empty

    def __str__(self) -> str:
        return f"{'keep' if self.keep else 'remove'} {self.backup.name}: {'; '.join(self.reasons)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What becomes of every backup of one location, newest first."""

    decisions: tuple[Decision, ...] = field(default_factory=tuple)

    @property
    def kept(self) -> tuple[StoredBackup, ...]:
        """What stays, newest first."""
        return tuple(each.backup for each in self.decisions if each.keep)

    @property
    def removed(self) -> tuple[StoredBackup, ...]:
        """What goes, oldest first: should the work be cut short, the newest are still there."""
        return tuple(each.backup for each in reversed(self.decisions) if not each.keep)

    @property
    def freed_bytes(self) -> int:
        """How much room that makes."""
        return sum(backup.size for backup in self.removed)


def plan_retention(
    backups: Iterable[StoredBackup], policy: RetentionPolicy, *, now: datetime, zone: tzinfo = UTC
) -> RetentionPlan:
    """Decide about every backup of one location.

    - ``zone``: whose days, weeks, months and years are meant.

    Raises:
        ValueError: A time has no time zone, or two backups bear the same name.
    """
    newest_first = sorted(backups, key=_newest_first)
    if len({backup.name for backup in newest_first}) != len(newest_first):
        raise ValueError("two backups have the same name")
    guards = _guards(newest_first, now)
    # What is not ours is never touched, so it must not use up a rule either.
    ours = [backup for backup in newest_first if backup.ours]
    # Nor must what is damaged; it stays as long as a sound one in its place would, since it may still be mended.
    damaged = {backup.name for backup in ours if backup.damaged}
    in_its_place = {name: why for name, why in _kept_by_rules(ours, policy, zone).items() if name in damaged}
    rules = in_its_place | _kept_by_rules([each for each in ours if each.name not in damaged], policy, zone)
    limits = _removed_by_limits(ours, policy, now=now, wanted=set(rules), guarded=set(guards))
    return RetentionPlan(decisions=tuple(_decide(each, guards, rules, limits) for each in newest_first))


def _decide(
    backup: StoredBackup, guards: Mapping[str, str], rules: Mapping[str, Sequence[str]], limits: Mapping[str, str]
) -> Decision:
    guard, limit, kept_by = guards.get(backup.name), limits.get(backup.name), rules.get(backup.name, ())
    if guard is not None:
        return Decision(backup=backup, keep=True, reasons=(guard, *kept_by))
    if limit is not None:
        return Decision(backup=backup, keep=False, reasons=(limit,))
    return Decision(backup=backup, keep=bool(kept_by), reasons=tuple(kept_by) or (_SUPERSEDED,))


def _newest_first(backup: StoredBackup) -> tuple[float, str]:
    if backup.created.tzinfo is None:
        raise ValueError(f"backup {backup.name}: its time {backup.created} has no time zone")
    return -backup.created.timestamp(), backup.name


def _guards(newest_first: Sequence[StoredBackup], now: datetime) -> dict[str, str]:
    guards = {}
    for backup in newest_first:
        if backup.locked_until is not None and backup.locked_until > now:
            guards[backup.name] = f"an object lock holds it until {backup.locked_until.isoformat()}"
        if backup.lock_unknown:
            guards[backup.name] = "whether an object lock holds it could not be asked"
        if not backup.ours:
            guards[backup.name] = "clusterguard did not write it"
    ours = [backup for backup in newest_first if backup.ours]
    verified = next((backup for backup in ours if backup.verified), None)
    last = verified or next((backup for backup in ours if not backup.damaged), next(iter(ours), None))
    if last is not None:
        guards[last.name] = (
            "it is the newest verified one" if verified else "it is the newest one, and none is verified"
        )
    return guards


def _kept_by_rules(ours: Sequence[StoredBackup], policy: RetentionPolicy, zone: tzinfo) -> dict[str, list[str]]:
    rules = policy.rules
    if not rules:
        return {backup.name: [_NO_RULE] for backup in ours}
    kept: dict[str, list[str]] = {}
    for number, backup in enumerate(ours[: rules.get("last", 0)], start=1):
        kept.setdefault(backup.name, []).append(f"last {number} of {rules['last']}")
    local = [(backup, backup.created.astimezone(zone)) for backup in ours]
    for rule, period_of in _PERIODS.items():
        if wanted := rules.get(rule, 0):
            _keep_newest_of_each(local, rule, period_of, wanted, kept)
    return kept


def _keep_newest_of_each(
    local: Sequence[tuple[StoredBackup, datetime]],
    rule: str,
    period_of: Callable[[datetime], Hashable],
    wanted: int,
    kept: dict[str, list[str]],
) -> None:
    seen: set[Hashable] = set()
    for backup, moment in local:
        period = period_of(moment)
        if period in seen:
            continue
        seen.add(period)
        kept.setdefault(backup.name, []).append(f"{rule} {len(seen)} of {wanted}")
        if len(seen) == wanted:
            return


def _removed_by_limits(
    ours: Sequence[StoredBackup], policy: RetentionPolicy, *, now: datetime, wanted: set[str], guarded: set[str]
) -> dict[str, str]:
    removed = {}
    if policy.maximum_age is not None:
        oldest = now - policy.maximum_age
        removed = {each.name: f"it is older than {policy.maximum_age}" for each in ours if each.created < oldest}
    if policy.maximum_bytes is not None:
        # What stays anyway takes up its room first; the rest gets what is left of it, newest first.
        room = policy.maximum_bytes - sum(each.size for each in ours if each.name in guarded)
        full = False
        for each in ours:
            if each.name in guarded or each.name not in wanted or each.name in removed:
                continue
            # Nothing older is kept once one did not fit: otherwise small old ones would outlive newer ones.
            full = full or each.size > room
            if full:
                removed[each.name] = f"all newer ones and it take up more than {policy.maximum_bytes:,} bytes"
            else:
                room -= each.size
    return removed


def _hour(moment: datetime) -> Hashable:
    # When clocks go back an hour comes twice, told apart by its offset only.
    return moment.year, moment.month, moment.day, moment.hour, moment.utcoffset()


_PERIODS: Mapping[str, Callable[[datetime], Hashable]] = {
    "hourly": _hour,
    "daily": lambda moment: moment.date(),
    "weekly": lambda moment: moment.isocalendar()[:2],
    "monthly": lambda moment: (moment.year, moment.month),
    "yearly": lambda moment: moment.year,
}
