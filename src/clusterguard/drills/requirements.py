"""Why a drill is skipped where its steps would mean nothing: decided from its file and the environment alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clusterguard.drills.csi_driver import VARIABLE, names_driver
from clusterguard.drills.steps.base import Requirement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.drills.load import Drill

__all__ = ["Requirement", "needs_snapshots", "skip_reason"]

_ONLY_API = "a kubeconfig gives access to the API server alone. On kind it can be run"
# What a provider is known to lack before anything is opened, and why. Of a cluster that exists already only opening it
# tells, and the runner asks again then.
_LACKS = {
    "embedded": (
        {Requirement.CONTAINERS, Requirement.NODES, Requirement.SNAPSHOTS},
        "pods and nodes of embedded clusters are simulated. On kind it can be run",
    ),
    "context": ({Requirement.NODES, Requirement.CONTROL_PLANE}, _ONLY_API),
    "kubeconfig": ({Requirement.NODES, Requirement.CONTROL_PLANE}, _ONLY_API),
}
_NO_DRIVER = ({Requirement.SNAPSHOTS}, f"new clusters of kind have none, and {VARIABLE} names no manifests of one")


def skip_reason(drill: Drill, *, default_cluster: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return why a drill is skipped, or None if it can run; clusters that name no provider are the default one."""
    for step in drill.steps:
        spec = drill.spec.effective_clusters.get(step.cluster)
        ref = (spec.provider(default_cluster) if spec else "") or default_cluster
        lacks, why = _LACKS.get(ref.partition(":")[0], (set(), ""))
        if ref == "kind" and not names_driver(environ):
            lacks, why = _NO_DRIVER
        if missing := step.action.requirements() & lacks:
            wanted = " and ".join(sorted(missing))
            return f"`{step.verb}` ({step.location}) needs {wanted}; {why}"
    return None


def needs_snapshots(drill: Drill, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether clusters that a drill creates get a CSI driver.

    What a backup holds that was there before is only seen when it is read: there the user's driver is enough.
    """
    asked = any(Requirement.SNAPSHOTS in step.action.requirements() for step in drill.steps)
    return asked or (drill.spec.stored_in_velero and names_driver(environ))
