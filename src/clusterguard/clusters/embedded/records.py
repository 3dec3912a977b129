"""What is written down about an embedded cluster, so that nothing of it is ever left behind.

A cluster is a folder. Its record names the process that owns it and every process that runs in it, each with
its start time; whoever starts a cluster later first sweeps the folders whose owner is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from clusterguard.errors import ConfigError
from clusterguard.process import ProcessRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["ClusterRecord", "Ports", "discard", "read_record", "records", "sweep", "write_record"]

_FILE = "cluster.json"
# A folder without a record belongs to a cluster that is being created right now, or to one killed in that moment.
_CREATION_SECONDS = 60
_KILL_GRACE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports that the cluster listens on."""

    etcd_client: int
    etcd_peer: int
    api: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    """One embedded cluster.

    Attributes:
        name: Also the name of its folder.
        created: Seconds since the epoch.
        owner: The process that it must not outlive, or None once ``clusterguard cluster up`` has started it.
        ports: Where it listens.
        programs: Path of each program, as it was found when the cluster was created.
        processes: What runs in it now, by program name.
    """

    name: str
    created: float
    owner: ProcessRecord | None
    ports: Ports
    programs: Mapping[str, str]
    processes: Mapping[str, ProcessRecord] = field(default_factory=dict)

    def orphaned(self) -> bool:
        """Return whether the process that owned it is gone."""
        return self.owner is not None and not self.owner.alive()

    def running(self) -> list[str]:
        """Return the names of its programs that run."""
        return [name for name, process in self.processes.items() if process.alive()]

    def with_process(self, name: str, process: ProcessRecord) -> ClusterRecord:
        """Return the record with one more process in it."""
        return replace(self, processes={**self.processes, name: process})


def write_record(folder: Path, record: ClusterRecord) -> None:
    """Replace the record of a cluster, all or nothing."""
    temporary = folder / f".{_FILE}.{os.getpid()}"
    with temporary.open("w") as file:
        json.dump(asdict(record), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _FILE)


def read_record(folder: Path) -> ClusterRecord | None:
    """Read the record of a cluster, or None where there is none."""
    try:
        data = json.loads((folder / _FILE).read_text())
        return ClusterRecord(
            name=data["name"],
            created=data["created"],
            owner=ProcessRecord(**data["owner"]) if data["owner"] else None,
            ports=Ports(**data["ports"]),
            programs=data["programs"],
            processes={name: ProcessRecord(**process) for name, process in data["processes"].items()},
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{folder / _FILE} is not a cluster record: {error!r}", hint=f"look at {folder} and remove it"
        ) from error


def records(home: Path) -> Iterator[tuple[Path, ClusterRecord]]:
    """Yield the clusters under ``home``, in the order of their names."""
    for folder in _folders(home):
        record = read_record(folder)
        if record is not None:
            yield folder, record


def sweep(home: Path, *, now: float | None = None) -> list[str]:
    """Remove what dead runs left behind under ``home``; return the names of their clusters."""
    swept = []
    for folder in _folders(home):
        record = read_record(folder)
        if not (_abandoned(folder, time.time() if now is None else now) if record is None else record.orphaned()):
            continue
        discard(folder, record)
        swept.append(folder.name)
    return swept


def _folders(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def _abandoned(folder: Path, now: float) -> bool:
    """Return whether a folder without a record is too old to belong to a cluster that is being created."""
    try:
        return now - folder.stat().st_mtime > _CREATION_SECONDS
    except FileNotFoundError:
        return False  # another process swept it meanwhile


def discard(folder: Path, record: ClusterRecord | None) -> None:
    """End every process of a cluster and remove its folder: the state goes too, so nobody needs a graceful end."""
    processes = list((record.processes if record else {}).values())
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _KILL_GRACE_SECONDS
    for process in processes:
        process.stop(grace_seconds=max(0.0, deadline - time.monotonic()))
    shutil.rmtree(folder, ignore_errors=True)
