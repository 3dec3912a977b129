"""Backups and restores in words: everything worth knowing, as text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterguard.model.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from clusterguard.velero.outcome import BackupOutcome, RestoreOutcome
    from clusterguard.velero.resources import Backup, Restore

__all__ = ["Description", "describe_backup", "describe_restore"]

_MOST_NAMES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is known about one backup or restore.

    Attributes:
        title: Its kind and name.
        facts: In order; values are text, numbers, lists of text, or objects of these.
    """

    title: str
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return dict(self.facts)

    def to_text(self) -> str:
        """Return it for people."""
        return "\n".join([self.title, *_lines(self.facts, indent=2)])


def describe_backup(
    outcome: BackupOutcome, *, resource_list: object = None, volume_infos: object = None
) -> Description:
    """Describe a backup.

    Args:
        outcome: What it came to.
        resource_list: What is in it, as Velero lists it; None where that is unknown.
        volume_infos: What became of its volumes, likewise.
    """
    backup = outcome.backup
    facts: dict[str, Any] = {
        **_begin(backup),
        "location": backup.storage_location,
        "expires": _stamp(backup.expires),
        "format": backup.format_version,
        **_middle(backup),
        "asked for": dict(backup.spec),
        "contents": _contents(resource_list),
        "volumes": volume_infos or None,
        **_end(outcome),
    }
    return Description(title=f"Backup {backup.name}", facts=_without_blanks(facts))


def describe_restore(outcome: RestoreOutcome, *, volume_infos: object = None) -> Description:
    """Describe a restore.

    Args:
        outcome: What it came to.
        volume_infos: What became of its volumes, as Velero lists it; None where that is unknown.
    """
    restore = outcome.restore
    facts: dict[str, Any] = {
        **_begin(restore),
        "backup": restore.backup_name,
        **_middle(restore),
        "actions": dict(outcome.actions),
        "asked for": dict(restore.spec),
        "volumes": volume_infos or None,
        **_end(outcome),
    }
    return Description(title=f"Restore {restore.name}", facts=_without_blanks(facts))


def _begin(run: Backup | Restore) -> dict[str, Any]:
    return {"name": run.name, "namespace": run.namespace, "phase": str(run.phase), "labels": dict(run.labels)}


def _middle(run: Backup | Restore) -> dict[str, Any]:
    took = (run.completed - run.started).total_seconds() if run.started and run.completed else None
    return {
        "started": _stamp(run.started),
        "completed": _stamp(run.completed),
        "took": None if took is None else format_duration(took),
        "objects": f"{run.progress.done:,} of {run.progress.total:,}" if run.progress.total else None,
        "errors": run.errors,
        "warnings": run.warnings,
        "hooks": f"{run.hooks_failed} of {run.hooks_attempted} failed" if run.hooks_attempted else None,
    }


def _end(outcome: BackupOutcome | RestoreOutcome) -> dict[str, Any]:
    return {
        "verdict": "ok" if outcome.ok else outcome.summary(),
        "findings": [str(each) for each in outcome.findings],
        "tolerated": [str(each) for each in outcome.tolerated],
    }


def _contents(resource_list: object) -> object:
    if not isinstance(resource_list, Mapping) or "unreadable" in resource_list:
        return resource_list
    return {kind: list(names or ()) for kind, names in sorted(resource_list.items())}


def _without_blanks(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value not in (None, "", [], {})}


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _lines(facts: Mapping[str, Any], *, indent: int) -> Iterator[str]:
    width = max((len(str(key)) for key in facts), default=0)
    pad = " " * indent
    for key, value in facts.items():
        match value:
            case Mapping():
                yield f"{pad}{key}"
                yield from _lines(value, indent=indent + 2)
            case list() | tuple():
                yield f"{pad}{key}  ({len(value)})"
                yield from _items(value, indent=indent + 2)
            case _:
                yield f"{pad}{key!s:<{width}}  {value}"


def _items(values: Sequence[Any], *, indent: int) -> Iterator[str]:
    pad = " " * indent
    for value in values[:_MOST_NAMES]:
        if isinstance(value, Mapping):
            yield from _lines(value, indent=indent)
        else:
            yield f"{pad}{value}"
    if len(values) > _MOST_NAMES:
        yield f"{pad}… {len(values) - _MOST_NAMES} more"
