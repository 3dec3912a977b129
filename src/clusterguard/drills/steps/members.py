"""The members of etcd under a cluster: which one a step means, and how to wait for what its loss does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

from clusterguard.clusters.capabilities import MemberFaults
from clusterguard.drills.steps.nodes import POLL_SECONDS, own_cluster
from clusterguard.errors import DrillError
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from clusterguard.drills.steps.base import StepContext

__all__ = ["Number", "await_outage", "faulty_cluster", "member_name", "running_member"]

Number: TypeAlias = Annotated[int, Field(ge=1, le=9)]
# An API server notices only when a request or its own probe fails.
_NOTICED_SECONDS = 60.0


def faulty_cluster(here: StepContext) -> MemberFaults:
    """Return the cluster of a step whose members of etcd can be stopped and lost one by one.

    Raises:
        NotAllowedError: This run did not create the cluster.
        DrillError: It has no such members.
    """
    cluster = own_cluster(here)
    if not isinstance(cluster, MemberFaults):
        raise DrillError(
            f"the members of etcd of {cluster.provider} cluster {cluster.name} cannot be stopped and lost one by one",
            hint="let the drill create a cluster of its own: `embedded: {members: 3}` or `kind: {controlPlanes: 3}`",
        )
    return cluster


def member_name(cluster: MemberFaults, number: int) -> str:
    """Return the name of a member by its number; a DrillError says that there are fewer."""
    names = list(cluster.member_states())
    if number > len(names):
        raise DrillError(
            f"there is no member {number}: etcd has {len(names)}",
            hint="`embedded: {members: 3}` and `kind: {controlPlanes: 3}` give it three",
        )
    return names[number - 1]


def running_member(cluster: MemberFaults, number: int) -> str:
    """Return the name of a member that runs; a DrillError says that stopping it would break nothing."""
    name = member_name(cluster, number)
    if not cluster.member_states()[name]:
        raise DrillError(f"member {name} does not run", code="nothing-broken")
    return name


def await_outage(here: StepContext) -> None:
    """Wait until the API server says that it misses its etcd."""
    api = here.api
    poll_until(
        lambda: "it calls itself ready" if api.ready() else None,
        what="the API server misses its etcd",
        seconds=here.run.at_least(here.seconds, _NOTICED_SECONDS),
        every=POLL_SECONDS,
    )
