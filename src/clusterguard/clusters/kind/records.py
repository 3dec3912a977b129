"""What is written down about a kind cluster, so that no container of it is ever left behind, and no other touched.

A cluster has a folder. Its record names the process that owns it, and the ports of this machine that its etcd members
are published at: Docker tells the same port of a container, from the moment it exists, and of no other container.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterguard.clusters.records import Record, left_behind
from clusterguard.errors import ProvisioningError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clusterguard.clusters.kind.docker import Docker, NodeContainer

__all__ = ["KindRecord", "is_ours", "sweep"]

# Docker may run in a virtual machine, whose clock is not quite ours.
_CLOCK_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRecord(Record):
    """One kind cluster that clusterguard created.

    Attributes:
        etcd_port: The loopback port of its first etcd member.
        more_etcd_ports: Those of the others.
        image: The image of its nodes, or None for kind's own.
    """

    etcd_port: int
    more_etcd_ports: list[int] = field(default_factory=list)
    image: str | None = None


def is_ours(nodes: Sequence[NodeContainer], record: KindRecord) -> bool:
    """Return whether the nodes of a cluster's name are the record's, not of a later cluster of that name."""
    leaders = [node for node in nodes if node.is_leader]
    if leaders:
        return any(node.etcd_port in {record.etcd_port, *record.more_etcd_ports} for node in leaders)
    return all(node.created > record.created - _CLOCK_SECONDS for node in nodes)  # killed before the leader was made


def sweep(home: Path, docker: Docker, *, now: float | None = None) -> list[str]:
    """Remove the containers and then the folders of dead runs; return the names of the clusters.

    Where there is nothing to remove Docker is not asked; where it does not answer the records stay.
    """
    swept = []
    for folder, record in left_behind(home, KindRecord, now=now):
        if record is not None:
            _remove(record, docker)
            swept.append(record.name)
        shutil.rmtree(folder, ignore_errors=True)
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
