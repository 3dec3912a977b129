"""``sameMembers``: hold while every member of etcd holds the same."""

from __future__ import annotations

from clusterguard.drills.backups import require_etcd
from clusterguard.drills.steps.base import Action, Look, Requirement, StepContext
from clusterguard.drills.verdict import CheckResult


class SameMembers(Action):
    """Hold while every member of etcd answers, follows the same leader, and has the same HashKV at one revision."""

    phases = ("verify",)
    requires = frozenset({Requirement.CONTROL_PLANE})

    def plan(self) -> str:
        return "find every member of etcd with the same leader, and the same HashKV at one revision"

    def require(self, here: StepContext) -> None:
        require_etcd(here, lambda cluster: cluster.etcd)

    def check(self, here: StepContext, look: Look) -> CheckResult:
        from clusterguard.etcd.agreement import look_at_members

        access = here.cluster.etcd
        if access is None:
            return CheckResult(ok=False, summary=f"cluster {here.cluster.name} gives no access to its etcd")
        found = look_at_members(access)
        same = f"{len(found.revisions)} member(s), HashKV {found.hash_kv} at revision {found.hash_revision}"
        return CheckResult(ok=not found.missing, summary=found.missing or same)
