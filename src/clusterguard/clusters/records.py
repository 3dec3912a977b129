"""What is written down about the clusters that we make, so that nothing of them is ever left behind.

A cluster is a folder, and its record a file in it. The record names the process that owns the cluster; whoever starts
a cluster later first sweeps the folders whose owner is gone.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from clusterguard.errors import ClusterError, ConfigError
from clusterguard.process import ProcessRecord
from clusterguard.scratch import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Record", "Survey", "checked_name", "left_behind", "not_running", "read_record", "survey", "write_record"]

_FILE = "cluster.json"
# A folder without a record belongs to a cluster that is being created right now, or to one killed in that moment.
_CREATION_SECONDS = 60
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One cluster that clusterguard created; it must not outlive its owner, None once it was kept."""

    name: str
    created: float
    owner: ProcessRecord | None

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        """Return the record that JSON describes; any error of a lookup or a type means that it describes none."""
        return cls(**{**data, "owner": ProcessRecord(**data["owner"]) if data["owner"] else None})

    def orphaned(self) -> bool:
        """Return whether the process that owned it is gone; of another container's process, nobody here can tell."""
        return self.owner is not None and self.owner.ended()


_R = TypeVar("_R", bound=Record)


def checked_name(name: str, *, of: str, longest: int) -> str:
    """Return a name if a cluster can have it, or raise a ConfigError."""
    wrong = set(name) - _NAME_CHARACTERS
    if not name or wrong or name.startswith("-") or len(name) > longest:
        raise ConfigError(
            f"invalid {of} name {name!r}",
            code="invalid-cluster-name",
            fields={"name": name},
            hint=f"use at most {longest} lower-case letters, digits and dashes",
        )
    return name


def not_running(name: str) -> ClusterError:
    """Return the error of using a cluster before it starts, or after it was deleted."""
    return ClusterError(
        f"cluster {name!r} is not running",
        code="cluster-not-running",
        fields={"cluster": name},
        hint="use it in a with statement",
    )


def write_record(folder: Path, record: Record) -> None:
    """Replace the record of a cluster, all or nothing."""
    with replacing(folder / _FILE) as file:
        file.write(json.dumps(asdict(record), indent=2).encode())


def read_record(folder: Path, kind: type[_R]) -> _R | None:
    """Read the record of a cluster, or None where there is none; any other file is a ConfigError."""
    try:
        return kind.parse(json.loads((folder / _FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{folder / _FILE} is not a cluster record: {error!r}",
            code="not-a-cluster-record",
            fields={"path": str(folder / _FILE)},
            hint=f"look at {folder} and remove it",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey(Generic[_R]):
    """The records under a home, the folders that dead runs left behind, and what is wrong with other records."""

    known: list[_R] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    unreadable: list[ConfigError] = field(default_factory=list)


def survey(home: Path, kind: type[_R]) -> Survey[_R]:
    """Look at the clusters under ``home``, and change nothing."""
    found: Survey[_R] = Survey(left_behind=[folder.name for folder, _ in left_behind(home, kind)])
    for folder in _folders(home):
        try:
            record = read_record(folder, kind)
        except ConfigError as error:
            found.unreadable.append(error)
        else:
            if record is not None and not record.orphaned():
                found.known.append(record)
    return found


def left_behind(home: Path, kind: type[_R], *, now: float | None = None) -> Iterator[tuple[Path, _R | None]]:
    """Yield the folders under ``home`` that nobody owns any more; without a record, what died before it had one.

    A folder whose record cannot be read is left alone: it does not say which processes are the cluster's.
    """
    for folder in _folders(home):
        try:
            record = read_record(folder, kind)
        except ConfigError:
            continue
        gone = _abandoned(folder, time.time() if now is None else now) if record is None else record.orphaned()
        if gone:
            yield folder, record


def _folders(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def _abandoned(folder: Path, now: float) -> bool:
    """Return whether a folder without a record is too old to belong to a cluster that is being created."""
    try:
        return now - folder.stat().st_mtime > _CREATION_SECONDS
    except FileNotFoundError:
        return False  # another process swept it meanwhile
