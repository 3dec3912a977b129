"""Why a drill is skipped where its steps would mean nothing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.drills.steps.base import Requirement

if TYPE_CHECKING:
    from clusterguard.drills.load import Drill
    from clusterguard.drills.schema import ClusterSpec

__all__ = ["Requirement", "skip_reason"]

_ONLY_API = "a kubeconfig gives access to the API server alone"
# What a provider is known to lack before anything is opened, and why. Of a cluster that exists already only opening it
# tells, and the runner asks again then.
_LACKS = {
    "embedded": ({Requirement.CONTAINERS, Requirement.NODES}, "pods and nodes of embedded clusters are simulated"),
    "context": ({Requirement.NODES, Requirement.CONTROL_PLANE}, _ONLY_API),
    "kubeconfig": ({Requirement.NODES, Requirement.CONTROL_PLANE}, _ONLY_API),
}


def skip_reason(drill: Drill, *, default_cluster: str) -> str | None:
    """Return why a drill is skipped, or None if it can run; clusters that name no provider are the default one."""
    for step in drill.steps:
        provider = _provider(drill.spec.effective_clusters.get(step.cluster), default_cluster)
        lacks, why = _LACKS.get(provider, (set(), ""))
        if missing := step.action.requirements() & lacks:
            wanted = " and ".join(sorted(missing))
            return f"`{step.verb}` ({step.location}) needs {wanted}; {why}. On kind it can be run"
    return None


def _provider(spec: ClusterSpec | None, default: str) -> str:
    return (spec.provider(default) if spec else "") or default.partition(":")[0]
