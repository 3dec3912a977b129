"""Do all members of an etcd hold the same? All are asked: cluster, leader, revision, HashKV at one revision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterguard.errors import EtcdError
from clusterguard.etcd.member import EtcdMember

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.etcd.member import LiveHash, MemberStatus

__all__ = ["Agreement", "look_at_members", "statuses_of"]

# HashKV reads every key: seconds where a database has gigabytes.
_HASH_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What the members say at one moment.

    Attributes:
        revisions: Of those that answered, in the order of their endpoints.
        missing: What they do not agree in, in words; ``""`` where all of them hold the same.
        differ: Whether they hold different data, so that waiting does not help.
        hash_kv: The HashKV of all of them, or None.
        hash_revision: The revision that it was computed at.
    """

    revisions: tuple[int, ...] = ()
    missing: str = ""
    differ: bool = False
    hash_kv: int | None = None
    hash_revision: int = 0


def look_at_members(access: EtcdAccess) -> Agreement:
    """Ask every endpoint once.

    A member that does not answer, has no leader or computes its hash under another compaction than the others is
    ``missing``, and may agree a moment later; another cluster or another hash at the same revision is final.
    """
    statuses, unasked = statuses_of(access)
    found = tuple(status.revision for status in statuses)
    if len({status.cluster_id for status in statuses}) > 1:
        said = _each(statuses, [f"cluster {status.cluster_id}" for status in statuses])
        return Agreement(revisions=found, missing=f"members of different clusters: {said}", differ=True)
    if unasked:
        return Agreement(revisions=found, missing="; ".join(unasked))
    if unnamed := _not_asked(access, statuses):
        return Agreement(revisions=found, missing=unnamed)
    leaders = {status.leader for status in statuses}
    if len(leaders) > 1 or not statuses[0].has_leader:
        said = _each(statuses, [f"leader {status.leader}" for status in statuses])
        return Agreement(revisions=found, missing=f"they follow no common leader: {said}")
    return _compared(access, statuses)


def _not_asked(access: EtcdAccess, statuses: Sequence[MemberStatus]) -> str:
    """Tell of voting members of the cluster that no endpoint leads to, or ``""``: they might hold anything."""
    asked = {status.member_id for status in statuses}
    if len(asked) < len(statuses):
        return f"{len(statuses)} endpoints lead to {len(asked)} member(s)"
    try:
        with EtcdMember(access, statuses[0].endpoint) as member:
            others = [each for each in member.listed() if not each.is_learner and each.id not in asked]
    except EtcdError as error:
        return error.message
    return f"not asked: {', '.join(each.name or each.id for each in others)}" if others else ""


def statuses_of(access: EtcdAccess) -> tuple[list[MemberStatus], list[str]]:
    """Return what the members say that answer, and why each of the others does not."""
    statuses: list[MemberStatus] = []
    unasked: list[str] = []
    for endpoint in access.endpoints:
        try:
            with EtcdMember(access, endpoint) as member:
                statuses.append(member.status())
        except EtcdError as error:
            unasked.append(error.message)
    return statuses, unasked


def _compared(access: EtcdAccess, statuses: Sequence[MemberStatus]) -> Agreement:
    """Compare what they hold at the newest revision that all of them have."""
    revisions = tuple(status.revision for status in statuses)
    voting = [status for status in statuses if not status.is_learner]  # a learner computes no hash
    try:
        hashes = [_hash(access, status.endpoint, min(revisions)) for status in voting]
    except EtcdError as error:
        return Agreement(revisions=revisions, missing=error.message)
    if len({each.compact_revision for each in hashes}) > 1:
        said = _each(voting, [f"compaction {each.compact_revision}" for each in hashes])
        return Agreement(revisions=revisions, missing=f"their hashes cannot be compared yet: {said}")
    if len({each.hash for each in hashes}) > 1:
        said = _each(voting, [f"HashKV {each.hash} at revision {each.hash_revision}" for each in hashes])
        return Agreement(revisions=revisions, missing=f"they hold different data: {said}", differ=True)
    return Agreement(revisions=revisions, hash_kv=hashes[0].hash, hash_revision=hashes[0].hash_revision)


def _hash(access: EtcdAccess, endpoint: str, revision: int) -> LiveHash:
    with EtcdMember(access, endpoint, timeout_seconds=_HASH_SECONDS) as member:
        return member.hash_kv(revision)


def _each(statuses: Sequence[MemberStatus], said: Sequence[str]) -> str:
    return ", ".join(f"{status.endpoint}: {words}" for status, words in zip(statuses, said, strict=True))
