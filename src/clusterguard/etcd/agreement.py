"""Do all members of an etcd hold the same? All are asked: cluster, leader, revision, HashKV at one revision."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from clusterguard.errors import ClusterGuardError, EtcdError
from clusterguard.etcd.member import EtcdMember

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.etcd.member import ListedMember, LiveHash, MemberStatus

__all__ = ["Agreement", "Further", "further_members", "look_at_members", "statuses_of"]

# HashKV reads every key: seconds where a database has gigabytes.
_HASH_SECONDS = 120.0
# A member whose URL was not named may be out of reach for good: a save does not wait for that.
_LOOK_SECONDS = 2.0


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


class Further(NamedTuple):
    """Voting members of a cluster that no endpoint was named for.

    Attributes:
        statuses: What those say that answer at a URL that they advertise.
        unreached: Names of the others: what they advertise may lead there from elsewhere alone.
    """

    statuses: tuple[MemberStatus, ...] = ()
    unreached: tuple[str, ...] = ()


def further_members(access: EtcdAccess, statuses: Sequence[MemberStatus]) -> Further:
    """Look for the members that the list of those who answered has beside them; never fails, and hardly waits.

    A URL counts only where the very member answers: behind a port-forward, 127.0.0.1 may be anybody's.

    Args:
        access: Certificates, user and password; its endpoints were asked already.
        statuses: What they said.
    """
    asked = {status.member_id for status in statuses}
    others = [
        each
        for each in _listed(access, statuses)
        if each.id not in asked and not each.is_learner and not set(each.client_urls) & set(access.endpoints)
    ]
    if not others:
        return Further()
    clusters = {status.cluster_id for status in statuses}
    # A password that was meant for TLS goes nowhere else.
    schemes = {urlsplit(status.endpoint).scheme for status in statuses}

    def ask(member: ListedMember) -> MemberStatus | None:
        for url in member.client_urls:
            if urlsplit(url).scheme in schemes:
                with contextlib.suppress(ClusterGuardError):
                    status = _status(access, url, timeout_seconds=_LOOK_SECONDS)
                    if status.member_id == member.id and status.cluster_id in clusters:
                        return status
        return None

    with ThreadPoolExecutor(len(others), thread_name_prefix="clusterguard-member") as pool:
        answers = list(zip(others, pool.map(ask, others), strict=True))
    return Further(
        tuple(status for _, status in answers if status is not None),
        tuple(each.name or each.id for each, status in answers if status is None),
    )


def _status(access: EtcdAccess, endpoint: str, **options: float) -> MemberStatus:
    with EtcdMember(access, endpoint, **options) as member:
        return member.status()


def _listed(access: EtcdAccess, statuses: Sequence[MemberStatus]) -> tuple[ListedMember, ...]:
    """Return the members as the first lists them that has a majority behind it; none where nobody has.

    By a connection of its own: where that hangs, what is done next on another one must not.
    """
    for status in statuses:
        if status.has_leader:
            with (
                contextlib.suppress(EtcdError),
                EtcdMember(access, status.endpoint, timeout_seconds=_LOOK_SECONDS) as member,
            ):
                return member.listed()
    return ()


def look_at_members(access: EtcdAccess, *, besides: Collection[str] = ()) -> Agreement:
    """Ask every endpoint once.

    A member that does not answer, has no leader or computes its hash under another compaction than the others is
    ``missing``, and may agree a moment later; another cluster or another hash at the same revision is final.

    Args:
        access: How to reach them.
        besides: IDs of members that need not be asked.
    """
    statuses, unasked = statuses_of(access)
    found = tuple(status.revision for status in statuses)
    if len({status.cluster_id for status in statuses}) > 1:
        said = _each(statuses, [f"cluster {status.cluster_id}" for status in statuses])
        return Agreement(revisions=found, missing=f"members of different clusters: {said}", differ=True)
    if unasked:
        return Agreement(revisions=found, missing="; ".join(unasked))
    if unnamed := _not_asked(access, statuses, besides):
        return Agreement(revisions=found, missing=unnamed)
    leaders = {status.leader for status in statuses}
    if len(leaders) > 1 or not statuses[0].has_leader:
        said = _each(statuses, [f"leader {status.leader}" for status in statuses])
        return Agreement(revisions=found, missing=f"they follow no common leader: {said}")
    return _compared(access, statuses)


def _not_asked(access: EtcdAccess, statuses: Sequence[MemberStatus], besides: Collection[str]) -> str:
    """Tell of voting members of the cluster that no endpoint leads to, or ``""``: they might hold anything."""
    asked = {status.member_id for status in statuses}
    if len(asked) < len(statuses):
        return f"{len(statuses)} endpoints lead to {len(asked)} member(s)"
    try:
        with EtcdMember(access, statuses[0].endpoint) as member:
            others = [each for each in member.listed() if not each.is_learner and each.id not in {*asked, *besides}]
    except EtcdError as error:
        return error.message
    return f"not asked: {', '.join(each.name or each.id for each in others)}" if others else ""


def statuses_of(access: EtcdAccess) -> tuple[list[MemberStatus], list[str]]:
    """Return what the members say that answer, and why each of the others does not."""
    statuses: list[MemberStatus] = []
    unasked: list[str] = []
    for endpoint in access.endpoints:
        try:
            statuses.append(_status(access, endpoint))
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
