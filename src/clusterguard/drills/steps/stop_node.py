"""``stopNode``: cut the power of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from clusterguard.documents.model import Name, Omitted, Selector
from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.nodes import node_name, switchable_cluster
from clusterguard.errors import DrillError

if TYPE_CHECKING:
    from clusterguard.clusters.kube import KubeClient


class StopNode(Action):
    """Stop nodes as a power cut would: nothing on them gets time to end. Selecting none is an error."""

    phases = ("fault",)
    destructive = True
    requires = frozenset({Requirement.NODES})

    name: Name | Omitted = None
    """One node by its name; that of its cluster may be left out, as in `control-plane2` or `worker`."""
    selector: Selector | Omitted = None
    """Nodes by their labels, such as `node-role.kubernetes.io/control-plane`."""

    @model_validator(mode="after")
    def _sensible(self) -> StopNode:
        self.need_one("name", "selector")
        return self

    def plan(self) -> str:
        nodes = f"node {self.name}" if self.name else f"every node with labels {self.selector}"
        return f"cut the power of {nodes}; selecting none is an error"

    def perform(self, here: StepContext) -> str:
        cluster = switchable_cluster(here)
        power = cluster.node_power()
        names = [node_name(here, power, self.name)] if self.name else _names_by_label(cluster.api, self.selector or "")
        if not names:
            raise DrillError(f"`stopNode` selects no node ({self.selector})", code="nothing-broken")
        for name in names:
            if not power.get(name, True):
                raise DrillError(f"node {name} is off already", code="nothing-broken")
            here.run.stopped_nodes.setdefault(here.step.cluster, set()).add(name)
            cluster.stop_node(name)
        return f"{', '.join(names)} without power"


def _names_by_label(api: KubeClient, selector: str) -> list[str]:
    nodes = api.list(api.resource("Node", api_version="v1"), label_selector=selector)
    return sorted(str(node["metadata"]["name"]) for node in nodes)
