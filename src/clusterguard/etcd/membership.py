"""Replace a member that is lost by an empty one: etcd's own means, for a cluster that still has its majority."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.errors import EtcdError, WaitTimeoutError
from clusterguard.etcd.agreement import look_at_members, statuses_of
from clusterguard.etcd.member import EtcdMember
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from clusterguard.clusters.base import EtcdAccess

__all__ = ["replace_member"]

# etcd wants its members connected for five seconds before it takes in another one.
_ADD_SECONDS = 30.0
_ELECTION_SECONDS = 5.0


def replace_member(access: EtcdAccess, *, peer_url: str, start: Callable[[], object], seconds: float) -> None:
    """Remove a member, add it anew, start it, and return once it holds what the others do. Safe to repeat.

    Args:
        access: How to reach every member, the lost one among them.
        peer_url: Where the other members reach it, before and after.
        start: Starts it with an empty data directory.
        seconds: How long it may take until all members hold the same.

    Raises:
        EtcdError: It serves (``member-serves``), or there is no majority without it (``no-quorum``): then only a
            restore helps. Nothing was changed.
        WaitTimeoutError: It was added and started, and does not hold the same in time.
    """
    serving = {status.member_id: status.endpoint for status in statuses_of(access)[0]}
    with _member_of_majority(access, serving.values()) as member:
        for each in member.listed():
            if peer_url in each.peer_urls:
                _require_lost(each.id, serving)
                member.remove(each.id)
        poll_until(lambda: _added(member, peer_url), what="the others take in a member", seconds=_ADD_SECONDS)
    start()
    poll_until(lambda: look_at_members(access).missing, what="all members hold the same", seconds=seconds)


def _member_of_majority(access: EtcdAccess, endpoints: Collection[str]) -> EtcdMember:
    """Return one that a majority stands behind: only then does it list the members."""
    found: list[EtcdMember] = []

    def seek() -> str:
        refusals: list[str] = []
        for endpoint in endpoints:
            member = EtcdMember(access, endpoint)
            try:
                member.listed()
            except EtcdError as error:
                refusals.append(error.message)
                member.close()
            else:
                found.append(member)
                return ""
        return "; ".join(refusals) or "none answers"

    try:
        # Right after a leader was lost there is none, until the others have elected one.
        poll_until(seek, what="a majority of the members answers", seconds=_ELECTION_SECONDS)
    except WaitTimeoutError as error:
        raise EtcdError(
            "no majority of the members answers, and without one no member can be replaced",
            code="no-quorum",
            hint="restore a snapshot on all of them: clusterguard etcd restore",
        ) from error
    return found[0]


def _require_lost(member_id: str, serving: dict[str, str]) -> None:
    if member_id in serving:
        raise EtcdError(
            f"member {member_id} serves at {serving[member_id]}: it is not lost",
            code="member-serves",
            hint="stop it first, if it is to be replaced all the same",
        )


def _added(member: EtcdMember, peer_url: str) -> str | None:
    try:
        member.add(peer_url)
    except EtcdError as error:
        return error.message
    return None
