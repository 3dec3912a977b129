"""``loseEtcd``: kill etcd with all its data."""

from __future__ import annotations

from clusterguard.clusters.capabilities import EtcdFaults
from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.members import await_outage
from clusterguard.drills.steps.nodes import own_cluster
from clusterguard.errors import DrillError


class LoseEtcd(Action):
    """Kill etcd and throw its data away, as a broken disk would: it does not come up again by itself."""

    phases = ("fault",)
    destructive = True
    requires = frozenset({Requirement.CONTROL_PLANE})

    def plan(self) -> str:
        return "kill etcd and throw away what it wrote"

    def perform(self, here: StepContext) -> str:
        cluster = own_cluster(here)
        if not isinstance(cluster, EtcdFaults):
            raise DrillError(
                f"the etcd data of {cluster.provider} cluster {cluster.name} cannot be thrown away",
                hint="run this drill on an embedded or a kind cluster",
            )
        cluster.lose_etcd()
        await_outage(here)
        return "etcd is gone with its data"
