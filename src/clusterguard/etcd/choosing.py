"""Which member a snapshot is saved from, where there are several."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from clusterguard.errors import EtcdError, WaitTimeoutError
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterguard.etcd.member import EtcdMember, MemberStatus

__all__ = ["Choice", "choose"]

# A healthy follower is milliseconds behind its leader.
_CATCH_UP_SECONDS = 1.0
_POLL_SECONDS = 0.05


class Choice(NamedTuple):
    """A member, what it said, and why it was chosen: ``""`` where there was no choice."""

    member: EtcdMember
    status: MemberStatus
    why: str = ""


def choose(candidates: Sequence[Choice]) -> Choice:
    """Return the member to save from: a follower that has every change that any of them told of, if there is one.

    Its stream takes nothing from the leader, which all writes wait for. Where no follower has caught up, the one
    that is furthest ahead loses least; a learner may lag by any amount, and comes last.
    """
    # One without a leader may be what is left of another cluster, however high its revision.
    candidates = [each for each in candidates if each.status.has_leader] or candidates
    voting = [each for each in candidates if not each.status.is_learner]
    if len(voting) > 1:
        newest = max(each.status.revision for each in voting)
        followers = [each for each in voting if _follows(each.status)]
        for each in sorted(followers, key=lambda each: -each.status.revision):
            if (status := _caught_up(each, newest)) is not None:
                return Choice(each.member, status, "a follower that has all that the others have")
    best = max(candidates, key=lambda each: (not each.status.is_learner, each.status.revision))
    return best._replace(why="no follower had all that it has" if len(voting) > 1 else "")


def _follows(status: MemberStatus) -> bool:
    return status.has_leader and status.leader != status.member_id and not status.errors


def _caught_up(choice: Choice, newest: int) -> MemberStatus | None:
    """Return what a member says once it has a revision, or None if it does not get there soon."""
    status = choice.status

    def missing() -> str | None:
        nonlocal status
        if status.revision < newest:
            status = choice.member.status()
        return f"revision {status.revision}" if status.revision < newest else None

    try:
        poll_until(missing, what="it catches up", seconds=_CATCH_UP_SECONDS, every=_POLL_SECONDS)
    except (EtcdError, WaitTimeoutError):
        return None
    return status
