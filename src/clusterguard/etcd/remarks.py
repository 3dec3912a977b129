"""What to know about a snapshot beside that it is whole: what it brings back, and how its member was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.model.snapshot import Remark

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clusterguard.etcd.member import MemberStatus
    from clusterguard.etcd.mvcc import StoreFacts

__all__ = ["of_database", "of_file", "of_members"]

# Where etcd itself stops taking writes because a member does not keep up with what is committed.
_FAR = 5000


def of_database(facts: StoreFacts, *, keys: int) -> Iterator[Remark]:
    """Yield what a restore of a database brings back that nobody may expect; ``keys`` are those that clients see."""
    for alarm in facts.alarms:
        consequence = {
            "NOSPACE": "a restore brings it back, and etcd refuses every write until it is disarmed",
            "CORRUPT": "that member's data differed from the others'; a restore brings it back, and etcd refuses every "
            "write until it is disarmed",
        }.get(alarm.kind, "a restore brings it back")
        yield Remark(
            code=f"alarm-{alarm.kind.lower()}", detail=f"alarm {alarm.kind} of member {alarm.member_id}: {consequence}"
        )
    if facts.auth_enabled:
        yield Remark(
            code="authentication-on",
            detail="etcd's authentication is on: a restore brings back its users and passwords as they were",
        )
    if not keys:
        yield Remark(code="no-keys", detail="it holds no key: a restore leaves an empty cluster")


def of_file(*, trailer: bool, passed_over: Sequence[str] = ()) -> Iterator[Remark]:
    """Yield what to know about a file that another program saved.

    Args:
        trailer: Whether it has etcd's trailer.
        passed_over: Newer objects beside it that are not snapshots.
    """
    if not trailer:
        yield Remark(
            code="no-trailer",
            detail="it has no sha256 of etcd's, so it is not a saved snapshot but a copy of a member's file, which may "
            "lack what was still in the write-ahead log",
        )
    if passed_over:
        more = f" and {len(passed_over) - 3} more" if len(passed_over) > 3 else ""  # noqa: PLR2004 - as many are shown
        yield Remark(
            code="newer-objects",
            detail=f"newer objects beside it are not snapshots: {', '.join(passed_over[:3])}{more}",
        )


def of_members(
    chosen: MemberStatus, others: Sequence[MemberStatus], unasked: Sequence[str], unreached: Sequence[str] = ()
) -> Iterator[Remark]:
    """Yield what to know about the members when a snapshot was saved.

    Args:
        chosen: The one that sent it.
        others: Those that were asked, too.
        unasked: What those said that gave no answer.
        unreached: Names of members that no endpoint was named for, and that do not answer where they advertise.
    """
    if chosen.is_learner:
        yield Remark(code="learner", detail="saved from a learner, which does not vote and may lack the latest changes")
    if not chosen.has_leader:
        yield Remark(code="no-leader", detail="the member followed no leader: it may lack what the others have")
    lag = chosen.raft_index - chosen.applied_index
    if lag > _FAR:
        yield Remark(code="behind", detail=f"the member had {lag:,} committed changes still to apply")
    for other in others:
        lag = chosen.revision - other.revision
        if lag > _FAR:
            yield Remark(code="behind", detail=f"{other.endpoint} is {lag:,} revisions behind; it was not saved from")
    for reason in unasked:
        yield Remark(code="member-unasked", detail=f"a member could not be asked: {reason}")
    if unreached:
        yield Remark(
            code="members-unreached",
            detail=f"no endpoint was named for {', '.join(unreached)}, and what etcd tells of them cannot be reached "
            "from here",
        )
