"""The records of embedded clusters: every process that runs in one, with its start time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from clusterguard.clusters.records import Record, left_behind
from clusterguard.process import ProcessRecord, stop_together

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["ClusterRecord", "Ports", "discard", "sweep"]

_KILL_GRACE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports that the cluster listens on; those of further members are pairs for clients and for peers."""

    etcd_client: int
    etcd_peer: int
    api: int
    further: tuple[tuple[int, int], ...] = ()

    @property
    def members(self) -> tuple[tuple[int, int], ...]:
        """For clients and for peers, of each member."""
        return ((self.etcd_client, self.etcd_peer), *self.further)

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        """Return the ports that JSON describes."""
        return cls(**{**data, "further": tuple((client, peer) for client, peer in data.get("further", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord(Record):
    """One embedded cluster: its programs as they were found when it was created, and what runs in it now."""

    ports: Ports
    programs: Mapping[str, str]
    processes: Mapping[str, ProcessRecord] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        """Return the record that JSON describes; any error of a lookup or a type means that it describes none."""
        return cls(
            name=data["name"],
            created=data["created"],
            owner=ProcessRecord(**data["owner"]) if data["owner"] else None,
            ports=Ports.parse(data["ports"]),
            programs=data["programs"],
            processes={name: ProcessRecord(**process) for name, process in data["processes"].items()},
        )

    def running(self) -> list[str]:
        """Return the names of its programs that run."""
        return [name for name, process in self.processes.items() if process.alive()]


def sweep(home: Path, *, now: float | None = None) -> list[str]:
    """Remove what dead runs left behind under ``home``; return the names of their clusters."""
    swept = []
    for folder, record in left_behind(home, ClusterRecord, now=now):
        discard(folder, record)
        swept.append(folder.name)
    return swept


def discard(folder: Path, record: ClusterRecord | None) -> None:
    """End every process of a cluster and remove its folder: the state goes too, so nobody needs a graceful end."""
    stop_together((record.processes if record else {}).values(), grace_seconds=_KILL_GRACE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
