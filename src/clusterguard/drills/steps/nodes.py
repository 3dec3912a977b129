"""The machines under a cluster: who may break them, and how to wait for its API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.clusters.capabilities import NodePowerControl
from clusterguard.drills.steps.base import StepContext
from clusterguard.errors import DrillError, NotAllowedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.clusters.base import Cluster

__all__ = ["POLL_SECONDS", "node_name", "own_cluster", "switchable_cluster"]

POLL_SECONDS = 0.5


def own_cluster(here: StepContext) -> Cluster:
    """Return the cluster of a step that breaks its machines: allowing a drill in a cluster means its objects only.

    Raises:
        NotAllowedError: This run did not create the cluster.
    """
    cluster = here.cluster
    if not (here.run.owns(here.step.cluster) or cluster.created_by_us):
        raise NotAllowedError(
            f"`{here.step.verb}` breaks the machines of {cluster.provider} cluster {cluster.name}, which this run did "
            "not create",
            hint="let the drill create its own cluster: --drill-cluster kind",
        )
    return cluster


def switchable_cluster(here: StepContext) -> NodePowerControl:
    """Return the cluster of a step whose nodes can be stopped and started.

    Raises:
        NotAllowedError: This run did not create the cluster.
        DrillError: It has no such nodes.
    """
    cluster = own_cluster(here)
    if not isinstance(cluster, NodePowerControl):
        raise DrillError(
            f"the nodes of {cluster.provider} cluster {cluster.name} cannot be stopped and started",
            hint="run this drill on a kind cluster",
        )
    return cluster


def node_name(here: StepContext, power: Mapping[str, bool], name: str) -> str:
    """Return the whole name of a node; that of its cluster, which differs from run to run, may be left out."""
    whole = f"{here.cluster.name}-{name}"
    return whole if name not in power and whole in power else name
