"""``replaceMember``: replace a lost member of etcd by an empty one."""

from __future__ import annotations

from clusterguard.clusters.capabilities import ReplacesMembers
from clusterguard.drills.backups import require_etcd
from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.members import Number, faulty_cluster, member_name
from clusterguard.errors import DrillError


class ReplaceMember(Action):
    """Remove a lost member from etcd, add it anew, start it empty, and wait until it holds what the others do."""

    phases = ("restore",)
    destructive = True
    requires = frozenset({Requirement.CONTROL_PLANE})

    member: Number
    """Which one, counted from 1."""

    def plan(self) -> str:
        return f"remove member {self.member} from etcd, add it anew and start it empty; no snapshot is needed"

    def require(self, here: StepContext) -> None:
        require_etcd(here, lambda cluster: cluster.etcd)

    def perform(self, here: StepContext) -> str:
        from clusterguard.etcd.membership import replace_member

        cluster, access = faulty_cluster(here), here.cluster.etcd
        if access is None or not isinstance(cluster, ReplacesMembers):
            raise DrillError(f"cluster {here.cluster.name} gives no access to its etcd")
        name = member_name(cluster, self.member)
        with cluster.member_places() as places:
            replace_member(access, places, name, seconds=here.seconds)
        return f"member {name} is another one now, and holds what the others do"
