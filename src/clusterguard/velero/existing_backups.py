"""Backups that exist: which one is meant by a name, by a schedule, or by "the newest", and whether it can be restored.

The newest one is the newest, whatever became of it: where last night's backup failed, the one from the night before
must not be taken for it in silence.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from clusterguard.errors import BackupFailedError, ObjectNotFoundError, VeleroError
from clusterguard.velero.phases import BackupPhase

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clusterguard.velero.resources import Backup

__all__ = ["choose_backup", "require_restorable"]

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MOST_NAMED: Final = 10
_BAD: Final = {
    BackupPhase.PARTIALLY_FAILED: ("backup-partial", "not all that was to be backed up is in it"),
    BackupPhase.FAILED: ("backup-failed", "it was given up, so nothing can be restored from it"),
    BackupPhase.FAILED_VALIDATION: ("backup-invalid", "the server refused it, and backed up nothing"),
    BackupPhase.DELETING: ("backup-deleting", "it is being deleted"),
}


def choose_backup(backups: Iterable[Backup], *, name: str = "", schedule: str = "", where: str) -> Backup:
    """Return the backup of a name, or the newest: of a schedule, or at all.

    One that is still being made is passed over unless it is named, or the only one.

    Args:
        backups: Those that are there.
        name: Its name.
        schedule: The schedule that made it.
        where: Where they are, for errors.

    Raises:
        ObjectNotFoundError: There is none.
    """
    known = list(backups)
    if name:
        return _named(known, name, where)
    found = [each for each in known if not schedule or each.schedule == schedule]
    if not found:
        raise _none(known, schedule, where)
    ended = [each for each in found if not _under_way(each)]
    return max(ended or found, key=_begun)


def require_restorable(backup: Backup, *, now: datetime) -> None:
    """Return if all of a backup can be restored, as far as its object says.

    Raises:
        BackupFailedError: It cannot; the code says why.
        VeleroError: It has not ended yet.
    """
    if backup.being_deleted or backup.phase in _BAD:
        code, why = _BAD[BackupPhase.DELETING if backup.being_deleted else backup.phase]
        said = backup.failure_reason or "; ".join(backup.validation_errors)
        detail = f"{why}: {said}" if said else why
        hint = f"clusterguard velero backup describe {backup.name}"
        raise BackupFailedError(f"{backup}: {detail}", phase=str(backup.phase), hint=hint, code=code)
    if backup.phase != BackupPhase.COMPLETED:
        raise VeleroError(
            f"{backup} has not ended", code="backup-unfinished", hint="try again when it has, or name another one"
        )
    if backup.expires_by(now):
        raise BackupFailedError(
            f"{backup} expired at {backup.status.get('expiration')}: Velero may delete it at any moment",
            phase=str(backup.phase),
            hint="is its schedule paused? make a new one, or give backups a longer ttl",
            code="backup-expired",
        )


def _under_way(backup: Backup) -> bool:
    """Return whether it is still being made; what a newer server calls otherwise is not passed over."""
    return backup.phase.listed and not backup.phase.final and backup.phase != BackupPhase.DELETING


def _begun(backup: Backup) -> tuple[datetime, str]:
    return backup.started or backup.created or _EPOCH, backup.name


def _named(known: Sequence[Backup], name: str, where: str) -> Backup:
    found = next((each for each in known if each.name == name), None)
    if found is None:
        raise ObjectNotFoundError(f"{where} has no backup {name}", code="no-such-backup", hint=_others(known))
    return found


def _none(known: Sequence[Backup], schedule: str, where: str) -> ObjectNotFoundError:
    if not schedule:
        hint = "is that the right cluster, or bucket and prefix?"
        return ObjectNotFoundError(f"{where} has no backup", code="no-backups", hint=hint)
    schedules = sorted({each.schedule for each in known} - {""})
    hint = f"there are backups of {', '.join(schedules[:_MOST_NAMED])}" if schedules else _others(known)
    return ObjectNotFoundError(
        f"{where} has no backup of schedule {schedule}", code="schedule-without-backups", hint=hint
    )


def _others(known: Sequence[Backup]) -> str:
    newest = [each.name for each in sorted(known, key=_begun, reverse=True)]
    more = ", …" if len(newest) > _MOST_NAMED else ""
    return f"the newest are {', '.join(newest[:_MOST_NAMED])}{more}" if newest else "it has no backup at all"
