"""Which programs drills will need: they are installed first, outside of any time limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.drills.requirements import skip_reason
from clusterguard.drills.schema import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterguard.drills.load import Drill
    from clusterguard.drills.schema import StorageSpec

__all__ = ["programs_for", "require_docker_for"]


def programs_for(drills: Iterable[Drill], *, default_cluster: str) -> tuple[str, ...]:
    """Return the names of the programs that drills need on this machine, each once.

    Args:
        drills: What will run.
        default_cluster: The reference of the cluster of drills that name no provider.
    """
    needed: dict[str, None] = {}
    for drill in drills:
        if skip_reason(drill, default_cluster=default_cluster):
            continue
        if _uses_kind(drill, default_cluster):
            from clusterguard.clusters.kind.cluster import PROGRAMS as KIND_PROGRAMS

            needed |= dict.fromkeys(KIND_PROGRAMS)
        if not _starts_embedded(drill, default_cluster):
            continue
        from clusterguard.clusters.embedded import PROGRAMS
        from clusterguard.clusters.embedded.velero_server import VELERO_PROGRAMS

        velero = any(step.action.engine == "velero" for step in drill.steps)
        needed |= dict.fromkeys((*PROGRAMS, *(VELERO_PROGRAMS if velero else ())))
        if velero or any(_is_local(spec) for spec in drill.spec.storage.values()):
            needed["versitygw"] = None
    return tuple(needed)


def require_docker_for(drills: Iterable[Drill], *, default_cluster: str) -> None:
    """Find out at once, before the first drill, whether Docker is there for those who asked for kind.

    A drill whose file names kind while others run elsewhere says so itself, in its own verdict.

    Raises:
        ProvisioningError: It is not, or does not answer.
    """
    if default_cluster.partition(":")[0] == "kind" and any(_uses_kind(drill, default_cluster) for drill in drills):
        from clusterguard.clusters.kind import Docker

        Docker().require()


def _uses_kind(drill: Drill, default_cluster: str) -> bool:
    return any(
        spec.kind is not None or (default_cluster.partition(":")[0] == "kind" and not (spec.existing or spec.embedded))
        for spec in drill.spec.effective_clusters.values()
    )


def _starts_embedded(drill: Drill, default_cluster: str) -> bool:
    return any(
        spec.embedded is not None or (default_cluster == "embedded" and not (spec.existing or spec.kind))
        for spec in drill.spec.effective_clusters.values()
    )


def _is_local(spec: StorageSpec) -> bool:
    return spec.s3 is not None and spec.s3.endpoint == LOCAL
