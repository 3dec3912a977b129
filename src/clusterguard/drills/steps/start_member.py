"""``startMember``: start members of etcd that were stopped."""

from __future__ import annotations

from datetime import UTC, datetime

from clusterguard.documents.model import Omitted
from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.members import Number, faulty_cluster, member_name
from clusterguard.drills.steps.nodes import POLL_SECONDS
from clusterguard.errors import DrillError
from clusterguard.retrying import poll_until


class StartMember(Action):
    """Start a member of etcd that was stopped, on the data that it has, and wait until the API server answers."""

    phases = ("restore",)
    requires = frozenset({Requirement.CONTROL_PLANE})

    member: Number | Omitted = None
    """Which one, counted from 1; every one that does not run when left out."""

    def plan(self) -> str:
        which = f"member {self.member} of etcd" if self.member else "every member of etcd that does not run"
        return f"start {which}, and wait until the API server answers"

    def perform(self, here: StepContext) -> str:
        cluster = faulty_cluster(here)
        stopped = [name for name, runs in cluster.member_states().items() if not runs]
        names = [member_name(cluster, self.member)] if self.member else stopped
        if not names:
            raise DrillError("`startMember` names no member, and every one runs")
        # From here on a status counts only if it is newer: without a majority nothing of it could change.
        here.run.restored_at[here.step.cluster] = datetime.now(UTC)
        for name in names:
            cluster.start_member(name)

        def ask() -> str | None:
            ready = here.api.ready()
            return None if ready else ready.failing or "it is not ready"

        poll_until(ask, what="the API server is ready", seconds=here.seconds, every=POLL_SECONDS)
        return f"{', '.join(names)} started; the API server answers"
