"""One member of etcd with another state than the others, as a restore from two snapshots leaves it.

No member can be made so while it serves. So a key of ours is written through all of them, one is stopped, and the value
is exchanged for another one of the same length where it lies in that member's file; the way back is the same. The key
lies outside of what the API server reads, and HashKV counts it like any other.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from clusterguard.clusters.capabilities import EditsMembers, MemberFaults
from clusterguard.drills.defects.placing import NotAppliedError, NotUndoneError
from clusterguard.errors import ClusterGuardError
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.clusters.kube import KubeClient

__all__ = ["EditableCluster", "another_state", "last_member"]

# etcd writes what it applied into its file ten times a second.
_COMMITTED_SECONDS: Final = 0.5
_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2


class EditableCluster(EditsMembers, MemberFaults, Protocol):
    """A cluster with all that it takes."""

    @property
    def api(self) -> KubeClient:
        """The client of its API server."""


def last_member(cluster: MemberFaults) -> str:
    """Return the name of the member that gets another state."""
    return list(cluster.member_states())[-1]


@contextmanager
def another_state(
    cluster: EditableCluster,
    access: EtcdAccess,
    *,
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one
) -> Iterator[None]:
    """Let the last member hold other data than the others while the ``with`` block runs.

    Raises:
        NotAppliedError: It cannot be made so.
        NotUndoneError: The members are not the same again.
    """
    from clusterguard.etcd.member import EtcdMember

    name = last_member(cluster)
    key = f"clusterguard.dev/defects/{secrets.token_hex(8)}".encode()
    theirs, ours = (secrets.token_hex(16).encode() for _ in range(2))
    with EtcdMember(access, access.endpoints[0]) as etcd:
        try:
            etcd.replace(key, theirs, revision=0)
            sleep(_COMMITTED_SECONDS)
            placed = _exchange(cluster, name, theirs, ours)
            if placed:
                _await(cluster, access, "the members differ", differ=True)
        except ClusterGuardError as error:
            _put_back(cluster, name, ours, theirs)
            raise NotAppliedError(error.message) from error
        try:
            if not placed:
                raise NotAppliedError(f"member {name} has not written to its file yet")
            yield
        finally:
            try:
                if placed and not _exchange(cluster, name, ours, theirs):
                    raise NotUndoneError(f"what was put into the file of member {name} is not there any more")
                stored = etcd.stored(key)
                if stored is not None:
                    etcd.replace(key, None, revision=stored.revision)
                _await(cluster, access, "the members hold the same again", differ=False)
            except ClusterGuardError as error:
                raise NotUndoneError(error.message) from error


def _put_back(cluster: EditableCluster, name: str, ours: bytes, theirs: bytes) -> None:
    try:
        _exchange(cluster, name, ours, theirs)
    except ClusterGuardError as error:
        raise NotUndoneError(error.message) from error


def _exchange(cluster: EditableCluster, name: str, old: bytes, new: bytes) -> int:
    """Exchange bytes in the file of a member, which is stopped for it; return how often they were there."""
    if cluster.member_states()[name]:
        cluster.stop_member(name)
    try:
        return cluster.replace_in_member(name, old, new)
    finally:
        cluster.start_member(name)


def _await(cluster: EditableCluster, access: EtcdAccess, what: str, *, differ: bool) -> None:
    from clusterguard.etcd.agreement import look_at_members

    def ask() -> str | None:
        found = look_at_members(access)
        if found.differ is not differ or (found.missing and not differ):
            return found.missing or "they hold the same"
        ready = cluster.api.ready()
        return None if ready else ready.failing

    poll_until(ask, what=what, seconds=_SECONDS, every=_POLL_SECONDS)
