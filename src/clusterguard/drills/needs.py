"""What a drill needs of the ground it runs on, and why it is not run where that is missing. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from clusterguard.drills import schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterguard.drills.load import Drill, LoadedStep
    from clusterguard.drills.schema import Action, ClusterSpec

__all__ = ["Need", "needs_of", "why_not_run"]


class Need(StrEnum):
    """What a step acts on that not every cluster has; the value is what messages call it."""

    CONTAINERS = "containers that run"
    NODES = "nodes that can be stopped and started"
    CONTROL_PLANE = "a control plane that can be broken"


# What a provider is known to lack before anything is opened. Of a cluster that is there already only opening it
# tells, and the runner asks again then.
_LACKS = {
    "embedded": frozenset({Need.CONTAINERS, Need.NODES}),
    "context": frozenset({Need.NODES, Need.CONTROL_PLANE}),
    "kubeconfig": frozenset({Need.NODES, Need.CONTROL_PLANE}),
}
_ONLY_API = "a kubeconfig reaches the API server alone"
_WHY = {
    "embedded": "pods and nodes of embedded clusters are simulated",
    "context": _ONLY_API,
    "kubeconfig": _ONLY_API,
}


def needs_of(action: Action) -> frozenset[Need]:
    """Return what one action needs."""
    match action:
        case schema.Exec() | schema.Http() | schema.WriteFile() | schema.SameFiles():
            return frozenset({Need.CONTAINERS})
        case schema.VeleroBackup(volumes="fileSystem"):
            return frozenset({Need.CONTAINERS})
        case schema.StopNode() | schema.StartNode():
            return frozenset({Need.NODES})
        case schema.LoseEtcd():
            return frozenset({Need.CONTROL_PLANE})
        case schema.VeleroBackup(volumes="fileSystem"):
            return frozenset({Need.CONTAINERS})
    return frozenset()


def why_not_run(drill: Drill, *, default_cluster: str) -> str | None:
    """Return why a drill cannot be run where it would be, or None where nothing speaks against it.

    Args:
        drill: The drill.
        default_cluster: The cluster reference for clusters that name no provider.
    """
    for step in drill.steps:
        spec = drill.spec.effective_clusters.get(step.cluster)
        provider = _provider_of(spec, default_cluster)
        missing = needs_of(step.action) & _LACKS.get(provider, frozenset())
        if missing:
            return _reason(step, missing, provider)
    return None


def _reason(step: LoadedStep, missing: Iterable[Need], provider: str) -> str:
    wanted = " and ".join(sorted(missing))
    return f"`{step.verb}` ({step.location}) needs {wanted}; {_WHY[provider]}. On kind it can be run"


def _provider_of(spec: ClusterSpec | None, default: str) -> str:
    given = (
        {}
        if spec is None
        else {"kind": spec.kind, "embedded": spec.embedded, "context": spec.context, "kubeconfig": spec.kubeconfig}
    )
    return next((provider for provider, value in given.items() if value is not None), default.partition(":")[0])
