"""``startNode``: start nodes that were stopped."""

from __future__ import annotations

from datetime import UTC, datetime

from clusterguard.documents.model import Name, Omitted
from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.nodes import POLL_SECONDS, node_name, switchable_cluster
from clusterguard.errors import DrillError
from clusterguard.retrying import poll_until


class StartNode(Action):
    """Start nodes that were stopped, and wait until the API server answers; they are ready a while later."""

    phases = ("restore",)
    requires = frozenset({Requirement.NODES})

    name: Name | Omitted = None
    """One node by its name, as for `stopNode`; every node that this run stopped when left out."""

    def plan(self) -> str:
        which = f"node {self.name}" if self.name else "every node that was stopped"
        return f"start {which}, and wait until the API server answers"

    def perform(self, here: StepContext) -> str:
        cluster = switchable_cluster(here)
        stopped = here.run.stopped_nodes.setdefault(here.step.cluster, set())
        names = [node_name(here, cluster.node_power(), self.name)] if self.name else sorted(stopped)
        if not names:
            raise DrillError("`startNode` names no node, and this run stopped none")
        # From here on a status counts only if it is newer: the restored API server still has the one of before.
        here.run.restored_at[here.step.cluster] = datetime.now(UTC)
        for name in names:
            cluster.start_node(name)
            stopped.discard(name)

        def ask() -> str | None:
            ready = cluster.api.ready()
            return None if ready else ready.failing or "it is not ready"

        poll_until(ask, what="the API server is ready", seconds=here.seconds, every=POLL_SECONDS)
        return f"{', '.join(names)} started; the API server answers"
