"""What is written down about a kind cluster, so that no container of it is ever left behind, and no other touched.

A cluster has a folder. Its record names the process that owns it, and the port of this machine that its etcd is
published at: Docker tells the same port of the container, from the moment it exists, and of no other container.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from clusterguard.errors import ConfigError, ProvisioningError
from clusterguard.process import ProcessRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clusterguard.clusters.kind.docker import Docker, NodeContainer

__all__ = ["KindRecord", "is_ours", "read_record", "records", "sweep", "write_record"]

_FILE = "cluster.json"
# A folder without a record belongs to a cluster that is being created right now, or to one killed in that moment.
_CREATION_SECONDS = 60
# Docker may run in a virtual machine, whose clock is not quite ours.
_CLOCK_SECONDS = 60
_CONTROL_PLANE = "control-plane"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRecord:
    """One kind cluster that clusterguard created.

    Attributes:
        name: As kind knows it; also the name of its folder.
        created: Seconds since the epoch.
        owner: The process that it must not outlive, or None once it was kept.
        etcd_port: The loopback port that its etcd is published at.
        image: Of its nodes, or None for kind's default.
    """

    name: str
    created: float
    owner: ProcessRecord | None
    etcd_port: int
    image: str | None = None

    def orphaned(self) -> bool:
        """Return whether the process that owned it is gone."""
        return self.owner is not None and not self.owner.alive()


def is_ours(nodes: Sequence[NodeContainer], record: KindRecord) -> bool:
    """Return whether the nodes that bear a cluster's name are those that the record is about.

    Somebody else may have created a cluster of the same name since.
    """
    leaders = [node for node in nodes if node.role == _CONTROL_PLANE]
    if leaders:
        return any(node.etcd_port == record.etcd_port for node in leaders)
    return all(node.created > record.created - _CLOCK_SECONDS for node in nodes)  # killed before the leader was made


def write_record(folder: Path, record: KindRecord) -> None:
    """Replace the record of a cluster, all or nothing."""
    temporary = folder / f".{_FILE}.{os.getpid()}"
    with temporary.open("w") as file:
        json.dump(asdict(record), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _FILE)


def read_record(folder: Path) -> KindRecord | None:
    """Read the record of a cluster, or None where there is none.

    Raises:
        ConfigError: The file is no record.
    """
    try:
        data = json.loads((folder / _FILE).read_text())
        owner = ProcessRecord(**data.pop("owner")) if data["owner"] else data.pop("owner")
        return KindRecord(owner=owner, **data)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{folder / _FILE} is not a cluster record: {error!r}", hint=f"look at {folder} and remove it"
        ) from error


def records(home: Path) -> Iterator[tuple[Path, KindRecord]]:
    """Yield the clusters under ``home``, in the order of their names."""
    for folder in _folders(home):
        record = read_record(folder)
        if record is not None:
            yield folder, record


def sweep(home: Path, docker: Docker, *, now: float | None = None) -> list[str]:
    """Remove what dead runs left behind: their containers, then their folders; return the names of the clusters.

    Where there is nothing to remove Docker is not asked.

    Raises:
        ProvisioningError: Docker does not answer; the records stay, for the next time.
    """
    swept = []
    for folder in _folders(home):
        record = read_record(folder)
        if record is None:
            if _abandoned(folder, time.time() if now is None else now):
                shutil.rmtree(folder, ignore_errors=True)
        elif record.orphaned():
            _remove(record, docker)
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(record.name)
    return swept


def _remove(record: KindRecord, docker: Docker) -> None:
    nodes = docker.nodes(record.name)
    if not nodes or not is_ours(nodes, record):
        return
    try:
        docker.remove(nodes)
    except ProvisioningError:
        if docker.nodes(record.name):  # otherwise another process swept it at the same time
            raise


def _folders(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def _abandoned(folder: Path, now: float) -> bool:
    """Return whether a folder without a record is too old to belong to a cluster that is being created."""
    try:
        return now - folder.stat().st_mtime > _CREATION_SECONDS
    except FileNotFoundError:
        return False  # another process swept it meanwhile
