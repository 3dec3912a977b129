"""The backups of one run: what was taken, where it is, and whether its cluster can be backed up that way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterguard.errors import DrillError

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from clusterguard.clusters.base import Cluster
    from clusterguard.drills.steps.base import StepContext
    from clusterguard.model.snapshot import Snapshot
    from clusterguard.stores.base import ObjectStore

__all__ = ["TakenBackup", "TakenSnapshot", "require_etcd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenSnapshot:
    """An etcd snapshot of this run, in its storages, first the original; or an older one, in a store of its own."""

    record: Snapshot
    cluster: str = ""
    storages: tuple[str | None, ...] = ()
    store: ObjectStore | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBackup:
    """A Velero backup of this run, by its name on the server; or one that was there before.

    Attributes:
        storages: Those that have it, first the original.
        repositories: The namespaces whose volumes' data is in its location; kopia keeps a repository for each.
        files: Whether files of Pods' volumes are among it.
        volumes: Whether the data of volumes was asked for.
        snapshots: The claims, as ``namespace/claim``, whose data is a CSI snapshot in the storage of their cluster.
        moved: Those whose data was moved from such a snapshot into its location.
        expect: The phase that it was expected to end in; empty for Completed.
        tolerated: Its findings that do not count.
        existing: Whether it was there before the run: then nothing of it is changed or removed.
        location: What its location is called in its cluster, where that is no storage of the drill.
        started: When it began, UTC, where it was there before.
    """

    name: str
    cluster: str
    storages: tuple[str | None, ...]
    repositories: tuple[str, ...] = ()
    files: bool = False
    volumes: bool = True
    snapshots: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    expect: str = ""
    tolerated: AbstractSet[str] = frozenset()
    existing: bool = False
    location: str = ""
    started: datetime | None = None


def require_etcd(here: StepContext, part: Callable[[Cluster], object]) -> None:
    """Refuse a cluster that hides a part of its etcd or control plane; one that starts later is asked then.

    Raises:
        DrillError: It hides that.
    """
    step = here.step
    cluster = here.run.clusters.get(step.cluster)
    if cluster is not None and part(cluster) is None:
        raise DrillError(
            f"{step.location}: cluster `{step.cluster}` ({cluster.provider} {cluster.name}) gives no access to its "
            f"etcd and control plane, which `{step.verb}` needs; nothing was touched",
            hint="run it on kind or on an embedded cluster; where a provider hides etcd, use Velero",
        )
