"""``stopMember``: kill one member of etcd, and leave its data."""

from __future__ import annotations

from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.members import Number, faulty_cluster, running_member


class StopMember(Action):
    """Kill one member of etcd, as a power cut would; its data stays."""

    phases = ("fault",)
    destructive = True
    requires = frozenset({Requirement.CONTROL_PLANE})

    member: Number
    """Which one, counted from 1."""

    def plan(self) -> str:
        return f"kill member {self.member} of etcd; its data stays"

    def perform(self, here: StepContext) -> str:
        cluster = faulty_cluster(here)
        name = running_member(cluster, self.member)
        cluster.stop_member(name)
        return f"member {name} is down"
