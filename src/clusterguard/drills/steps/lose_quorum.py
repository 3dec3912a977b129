"""``loseQuorum``: kill most members of etcd with their data."""

from __future__ import annotations

from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.members import await_outage, faulty_cluster


class LoseQuorum(Action):
    """Kill the smallest majority of etcd's members and throw their data away: those that remain cannot go on."""

    phases = ("fault",)
    destructive = True
    requires = frozenset({Requirement.CONTROL_PLANE})

    def plan(self) -> str:
        return "kill most members of etcd and throw away what they wrote; those that remain take no writes"

    def perform(self, here: StepContext) -> str:
        cluster = faulty_cluster(here)
        names = list(cluster.member_states())
        lost = names[-(len(names) // 2 + 1) :]
        for name in lost:
            cluster.lose_member(name)
        await_outage(here)
        return f"{', '.join(lost)} of {len(names)} members are gone with their data"
