"""Which programs drills will need: whoever runs them gets these first, outside of anybody's time limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.drills import schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterguard.drills.load import Drill

__all__ = ["programs_for"]


def programs_for(drills: Iterable[Drill], *, default_cluster: str) -> tuple[str, ...]:
    """Return the names of the programs that drills need on this machine, each once.

    Args:
        drills: What will run.
        default_cluster: The word for the cluster of drills that name no provider.
    """
    needed: dict[str, None] = {}
    for drill in drills:
        if not _starts_embedded(drill, default_cluster):
            continue
        from clusterguard.clusters.embedded import PROGRAMS
        from clusterguard.clusters.embedded.velero_server import VELERO_PROGRAMS

        velero = any(isinstance(step.action, (schema.VeleroBackup, schema.VeleroRestore)) for step in drill.steps)
        needed |= dict.fromkeys((*PROGRAMS, *(VELERO_PROGRAMS if velero else ())))
        if velero or any(_is_local(spec) for spec in drill.spec.storage.values()):
            needed["versitygw"] = None
    return tuple(needed)


def _starts_embedded(drill: Drill, default_cluster: str) -> bool:
    return any(
        spec.embedded is not None or (default_cluster == "embedded" and not (spec.existing or spec.kind))
        for spec in drill.spec.effective_clusters.values()
    )


def _is_local(spec: schema.StorageSpec) -> bool:
    return spec.s3 is not None and spec.s3.endpoint == "local"
