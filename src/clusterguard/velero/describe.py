"""Backups and restores in words: everything worth knowing, as text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterguard.model.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from clusterguard.velero.outcome import BackupOutcome, Outcome, RestoreOutcome
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
    """Describe a backup by its outcome, and by its contents and volumes as Velero lists them (None: unknown)."""
    backup = outcome.backup
    first = {
        "location": backup.storage_location,
        "expires": _stamp(backup.expires),
        "format": backup.format_version,
    }
    last = {"asked for": backup.spec, "contents": _contents(resource_list), "volumes": volume_infos or None}
    return _description(backup, outcome, first, last)


def describe_restore(outcome: RestoreOutcome, *, volume_infos: object = None) -> Description:
    """Describe a restore by its outcome, and by its volumes as Velero lists them (None: unknown)."""
    restore = outcome.restore
    last = {"actions": dict(outcome.actions), "asked for": restore.spec, "volumes": volume_infos or None}
    return _description(restore, outcome, {"backup": restore.backup_name}, last)


def _description(
    run: Backup | Restore, outcome: Outcome, first: Mapping[str, Any], last: Mapping[str, Any]
) -> Description:
    took = (run.completed - run.started).total_seconds() if run.started and run.completed else None
    facts = {
        "name": run.name,
        "namespace": run.namespace,
        "phase": str(run.phase),
        "labels": run.labels,
        **first,
        "started": _stamp(run.started),
        "completed": _stamp(run.completed),
        "took": None if took is None else format_duration(took),
        "objects": f"{run.progress.done:,} of {run.progress.total:,}" if run.progress.total else None,
        "errors": run.errors,
        "warnings": run.warnings,
        "hooks": f"{run.hooks_failed} of {run.hooks_attempted} failed" if run.hooks_attempted else None,
        **last,
        "verdict": "ok" if outcome.ok else outcome.summary(),
        "findings": [str(each) for each in outcome.findings],
        "tolerated": [str(each) for each in outcome.tolerated],
    }
    known = {key: value for key, value in facts.items() if value not in (None, "", [], {})}
    return Description(title=f"{run.kind} {run.name}", facts=known)


def _contents(resource_list: object) -> object:
    if not isinstance(resource_list, Mapping) or "unreadable" in resource_list:
        return resource_list
    return {kind: list(names or ()) for kind, names in sorted(resource_list.items())}


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
