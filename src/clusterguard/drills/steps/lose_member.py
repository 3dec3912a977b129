"""``loseMember``: kill one member of etcd with its data."""

from __future__ import annotations

from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.members import Number, faulty_cluster, running_member


class LoseMember(Action):
    """Kill one member of etcd and throw its data away, as a broken disk would: it does not come up again by itself."""

    phases = ("fault",)
    destructive = True
    requires = frozenset({Requirement.CONTROL_PLANE})

    member: Number
    """Which one, counted from 1."""

    def plan(self) -> str:
        return f"kill member {self.member} of etcd and throw away what it wrote"

    def perform(self, here: StepContext) -> str:
        cluster = faulty_cluster(here)
        name = running_member(cluster, self.member)
        cluster.lose_member(name)
        return f"member {name} is gone with its data"
