"""``loseEtcd``: kill etcd with all its data."""

from __future__ import annotations

from clusterguard.clusters.capabilities import EtcdFaults
from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.nodes import POLL_SECONDS, own_cluster
from clusterguard.errors import DrillError
from clusterguard.retrying import poll_until

# An API server notices only when a request or its own probe fails.
_NOTICED_SECONDS = 60.0


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
        poll_until(
            lambda: "it calls itself ready" if cluster.api.ready() else None,
            what="the API server misses its etcd",
            seconds=here.run.at_least(here.seconds, _NOTICED_SECONDS),
            every=POLL_SECONDS,
        )
        return "etcd is gone with its data"
