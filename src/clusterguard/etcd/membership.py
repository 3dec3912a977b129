"""Replace a member that is lost or broken by an empty one: etcd's own means, for a cluster that has its majority.

The replaced member votes from the beginning. As a learner it would protect nothing, since a vote less to count and a
member less to count it need the same majority; but it refuses reads, and an API server that has all members in its
list would get such refusals until it is promoted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from clusterguard.clusters.kubeadm.replacement import KubeadmMember
from clusterguard.errors import ClusterError, EtcdError, ResourceNotFoundError, WaitTimeoutError
from clusterguard.etcd.agreement import further_members, look_at_members, statuses_of
from clusterguard.etcd.member import NO_LEADER, EtcdMember
from clusterguard.etcd.restore import RestoreStep, typed
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.clusters.capabilities import MemberPlace
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.etcd.member import ListedMember, MemberStatus

__all__ = ["MemberChange", "plan_replacement", "remove_member", "replace_member"]

# etcd wants its members connected for five seconds before it takes in another one, and to have missed one as long.
_CHANGE_SECONDS = 30.0
_ELECTION_SECONDS = 5.0
_RESTORE_HINT = "which of them is right cannot be told from here: restore a snapshot on all of them"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChange:
    """A member that was replaced, or removed.

    Attributes:
        name: What etcd calls it.
        reason: What was wrong with it, in words; ``""`` where an earlier run had replaced it, and this one ended that.
        kept: Where what it had lies, in words, or ``""``.
        steps: In their order.
    """

    name: str
    reason: str
    kept: str = ""
    steps: tuple[RestoreStep, ...] = ()


def replace_member(
    access: EtcdAccess,
    places: Mapping[str, MemberPlace],
    name: str,
    *,
    seconds: float,
    watch: Callable[[RestoreStep], object] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> MemberChange:
    """Stop a broken member, remove it, add it anew, start it empty, and return once it holds what the others do.

    Safe to repeat: what the members list, and what lies on its node, tell how far an earlier run came.

    Args:
        access: How to reach the members.
        places: Where members run, by their names.
        name: Which one.
        seconds: How long it may take until all members hold the same.
        watch: Told of each step when it is done.
        clock: Seconds, monotonic.

    Raises:
        EtcdError: It serves as it should (``member-serves``); there is no majority without it (``no-quorum``), and only
            a restore helps; another one does not serve either (``another-member-lost``), or the others hold different
            data (``members-differ``). Nothing was changed.
        ResourceNotFoundError: There is no such member (``member-unknown``), or it is not known how to get to where it
            runs (``node-not-named``). Nothing was changed.
        ClusterError: It cannot be replaced there. Nothing was changed.
        ClusterGuardError: A step failed; the same call goes on from there.
    """
    steps: list[RestoreStep] = []

    def step(what: str, act: Callable[[], _T]) -> _T:
        began = clock()
        done = act()
        steps.append(RestoreStep(name=what, seconds=clock() - began))
        watch(steps[-1])
        return done

    seen, place = step("check the members", lambda: _replaceable(access, places, name))
    if seen.reason:
        step("stop the member, and keep its data aside", place.set_aside)
        with EtcdMember(access, seen.asked) as member:
            step("remove the member", lambda: _removed(member, seen.entries))
            joined = step("add it anew", lambda: _added(member, place))
        step("start it empty", lambda: place.start_empty(joined))
    step("compare the members", lambda: _require_joined(access, seen, place, seconds=seconds))
    kept = step("start what depends on it", place.finish)
    return MemberChange(name=name, reason=seen.reason, kept=kept, steps=tuple(steps))


def plan_replacement(access: EtcdAccess, places: Mapping[str, MemberPlace], name: str) -> str:
    """Check all that `replace_member` would, and return a runbook: every command in order; nothing is touched.

    Raises:
        ClusterError: The member is not replaced by commands, or is replaced already, or as `replace_member`.
    """
    seen, place = _replaceable(access, places, name)
    with EtcdMember(access, seen.asked) as member:
        others = [each for each in member.listed() if each not in seen.entries]
        alarms = [each for each in member.alarms() if _is_of_removed(each.partition(" on ")[2], others)]
    # All of them serve, and each tells the rest.
    urls = {url for each in others for url in each.peer_urls}
    asked = next((each for each in places.values() if each is not place and each.peer_url in urls), None)
    if not isinstance(place, KubeadmMember) or not isinstance(asked, KubeadmMember):
        raise ClusterError(
            "the replacement of this member is not made of commands on nodes that were named, so there is no plan",
            code="no-plan",
            hint="plans are for kubeadm's control planes: name the nodes of all members",
        )
    removed = [each.id for each in seen.entries]
    steps = place.runbook(remove=removed, disarm=alarms, members=_peers(others, place), asked=asked)
    lines = [
        f"# Replacement of member {name}: {seen.reason or 'an earlier run began it'}.",
        "# Checked: a majority serves without it, and its node has what is needed. Nothing was touched.",
        "# Do each line once, in this order, and stop at the first that fails.",
    ]
    for number, each in enumerate(steps, start=1):
        lines += ["", f"# {number}. {each.name}", *typed(each.lines)]
    return "\n".join(lines)


def remove_member(
    access: EtcdAccess, places: Mapping[str, MemberPlace], name: str, *, api: Callable[[], KubeClient]
) -> MemberChange:
    """Remove a member whose node is gone for good, and its node from the API.

    Args:
        access: How to reach the members.
        places: Where members run, by their names, as far as that is known.
        name: Which one; kubeadm calls the node so, too.
        api: The client of the cluster's API server.

    Raises:
        EtcdError: As `replace_member`, except that others may be lost as well.
        ResourceNotFoundError: There is no such member (``member-unknown``).
        ClusterError: Its node is ready (``node-ready``), or the API knows no node of that name (``node-unknown``).
            Nothing was changed.
    """
    seen = _look(access, places.get(name), name)
    if not seen.reason:
        raise _serves(seen, name)
    with EtcdMember(access, seen.asked) as member:
        others = [each.name for each in member.listed() if each not in seen.entries]
    node = _require_dead(api(), name, others, was_asked=name in places)
    with EtcdMember(access, seen.asked) as member:
        _removed(member, seen.entries)
    if node:
        client = api()
        for kind, namespace in (("Node", None), ("Lease.coordination.k8s.io", "kube-node-lease")):
            try:
                client.delete(client.resource(kind), name, namespace)
            except ResourceNotFoundError:
                continue
    return MemberChange(name=name, reason=seen.reason)


# ---- looking -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the others say of a member.

    Attributes:
        entries: It in their list: none once it was removed.
        others: How to reach those others that answer.
        asked: The one of them that a majority stands behind.
        silent: Names of further voting members that do not answer.
        needed_bytes: How large the largest database of the others is.
        reason: What is wrong with it, ``""`` for nothing.
    """

    entries: tuple[ListedMember, ...]
    others: EtcdAccess
    asked: str
    silent: tuple[str, ...]
    needed_bytes: int
    reason: str


def _replaceable(access: EtcdAccess, places: Mapping[str, MemberPlace], name: str) -> tuple[_Seen, MemberPlace]:
    place = places.get(name)
    seen = _look(access, place, name)
    if place is None:
        raise ResourceNotFoundError(
            f"member {name} is on etcd's list, and it is not known how to get to its node",
            code="node-not-named",
            fields={"member": name, "known": sorted(places)},
            hint="name its node: --node-shell; if that is gone for good: --remove-only, then join another",
        )
    if not seen.reason and not place.begun:
        raise _serves(seen, name)
    if seen.silent:
        # Found out before anything is stopped: etcd adds none while another is away.
        raise EtcdError(
            f"{', '.join(seen.silent)} does not serve either, and etcd takes in no member while another is missing",
            code="another-member-lost",
            fields={"members": ", ".join(seen.silent)},
            hint=f"bring it back, or remove it first: clusterguard etcd replace-member {seen.silent[0]} --remove-only",
        )
    ids = [each.id for each in seen.entries]
    _require_agreement(seen.others, besides=ids, seconds=_CHANGE_SECONDS)
    if found := [each for each in _corrupt(seen) if each not in ids]:
        raise EtcdError(
            f"alarm CORRUPT is raised on {', '.join(found)}, and it would stay: etcd refuses every write meanwhile",
            code="members-differ",
            hint=_RESTORE_HINT,
        )
    place.check(needed_bytes=seen.needed_bytes)
    return seen, place


def _look(access: EtcdAccess, place: MemberPlace | None, name: str) -> _Seen:
    def is_it(listed: ListedMember) -> bool:
        return listed.name == name or (place is not None and place.peer_url in listed.peer_urls)

    def is_beside(status: MemberStatus) -> bool:
        return not (place and status.endpoint == place.client_url) and not _takes_itself_for(access, status, is_it)

    statuses, _ = statuses_of(access)
    # One on an empty disk may have begun a cluster of its own, and lists itself as its majority.
    beside = [each for each in statuses if is_beside(each)]
    further = further_members(access, beside).statuses
    statuses += further
    beside += [each for each in further if is_beside(each)]
    asked, listed = _majority(access, [each.endpoint for each in beside])
    entries = tuple(each for each in listed if is_it(each))
    # One that was removed is taken in again, but not by a wiped node that has begun a cluster of its own.
    if not entries and not (place and (place.begun or len(listed) > 1)):
        raise ResourceNotFoundError(
            f"etcd has no member {name}; it has {', '.join(sorted(each.name or each.id for each in listed))}",
            code="member-unknown",
            fields={"member": name, "known": sorted(each.name for each in listed)},
            hint="name a member as etcd calls it; one that was removed is taken in again where its node is named",
        )
    ids = {each.id for each in entries}
    others = [each for each in beside if each.member_id not in ids]
    if len({each.cluster_id for each in others}) > 1:
        told = ", ".join(f"{each.endpoint}: cluster {each.cluster_id}" for each in others)
        raise EtcdError(f"beside {name} there are members of different clusters: {told}", code="members-differ")
    if not others:
        raise _no_quorum()
    own = next((each for each in statuses if each not in others), None)
    answering = {each.member_id for each in others}
    silent = tuple(m.name or m.id for m in listed if not m.is_learner and m.id not in {*ids, *answering})
    reachable = replace(access, endpoints=tuple(each.endpoint for each in others))
    return _Seen(
        entries=entries,
        others=reachable,
        asked=asked,
        silent=silent,
        needed_bytes=max(each.db_size for each in others),
        reason=_why_broken(reachable, asked, own, others[0].cluster_id, ids, place),
    )


def _takes_itself_for(access: EtcdAccess, status: MemberStatus, is_it: Callable[[ListedMember], bool]) -> bool:
    """Return whether the one that answers is called so in its own list: it may be reached by any URL."""
    try:
        with EtcdMember(access, status.endpoint) as member:
            return any(each.id == status.member_id and is_it(each) for each in member.listed(linearizable=False))
    except EtcdError:
        return False


def _majority(access: EtcdAccess, endpoints: Collection[str]) -> tuple[str, tuple[ListedMember, ...]]:
    """Return an endpoint that a majority stands behind, and the members: only then are they listed."""
    found: list[tuple[str, tuple[ListedMember, ...]]] = []

    def seek() -> str:
        refusals: list[str] = []
        for endpoint in endpoints:
            try:
                with EtcdMember(access, endpoint) as member:
                    found.append((endpoint, member.listed()))
            except EtcdError as error:
                refusals.append(error.message)
            else:
                return ""
        return "; ".join(refusals) or "none answers"

    try:
        # Right after a leader was lost there is none, until the others have elected one.
        poll_until(seek, what="a majority of the members answers", seconds=_ELECTION_SECONDS)
    except WaitTimeoutError as error:
        raise _no_quorum() from error
    return found[0]


def _no_quorum() -> EtcdError:
    return EtcdError(
        "no majority of the other members answers, and without one no member can be replaced",
        code="no-quorum",
        hint="restore a snapshot on all of them: clusterguard etcd restore",
    )


def _why_broken(
    others: EtcdAccess,
    asked: str,
    own: MemberStatus | None,
    cluster_id: str,
    ids: Collection[str],
    place: MemberPlace | None,
) -> str:
    """Return what is wrong with a member, ``""`` if nothing is."""
    if own is None:
        if place is not None and place.serves():
            raise EtcdError(
                f"member {place.name} serves on its node, and is not within reach of this machine: it is not lost",
                code="member-serves",
                hint="name client URLs that lead to the members from here: --endpoints",
            )
        return "it does not answer"
    if own.cluster_id != cluster_id:
        return f"it is a member of another cluster, {own.cluster_id}"
    if own.member_id not in ids:
        return "it was removed from the cluster"
    with EtcdMember(others, asked) as member:
        alarms = member.alarms()
    if f"CORRUPT on {own.member_id}" in alarms:
        return "etcd found its data corrupt"
    # A wiped first node of kubeadm begins its cluster once more: under the same IDs, and as its own leader.
    try:
        poll_until(lambda: _astray(others, asked, own), what="it follows the leader", seconds=_ELECTION_SECONDS)
    except WaitTimeoutError as error:
        return error.last_seen
    # Whether the others agree, is looked at for its own sake.
    every = replace(others, endpoints=(*others.endpoints, own.endpoint))
    return found.missing if (found := look_at_members(every)).differ else ""


def _astray(access: EtcdAccess, asked: str, own: MemberStatus) -> str:
    """Return whom a member follows if not the leader of the others."""
    try:
        theirs, followed = (_leader(access, endpoint) for endpoint in (asked, own.endpoint))
    except EtcdError as error:
        return error.message
    if followed == theirs:
        return ""
    return "it follows no leader" if followed == NO_LEADER else f"it follows another leader than the others, {followed}"


def _leader(access: EtcdAccess, endpoint: str) -> str:
    with EtcdMember(access, endpoint) as member:
        return member.status().leader


def _serves(seen: _Seen, name: str) -> EtcdError:
    ids = ", ".join(each.id for each in seen.entries)
    return EtcdError(
        f"member {name} ({ids}) serves, and holds what the others hold: it is not lost",
        code="member-serves",
        fields={"member": name},
        hint="stop it first, if it is to be replaced all the same",
    )


def _corrupt(seen: _Seen) -> tuple[str, ...]:
    """Return the IDs on the list for which etcd has raised CORRUPT, and that of nobody where it does not know whose."""
    with EtcdMember(seen.others, seen.asked) as member:
        raised = [each.partition(" on ") for each in member.alarms()]
        listed = member.listed()
    return tuple(id_ for kind, _, id_ in raised if kind == "CORRUPT" and not _is_of_removed(id_, listed))


def _require_joined(access: EtcdAccess, seen: _Seen, place: MemberPlace, *, seconds: float) -> None:
    """Return once the new member holds what the others do, and etcd trusts all of them."""

    def missing() -> str:
        try:
            with EtcdMember(seen.others, seen.asked) as member:
                ids = {each.id for each in member.listed() if place.peer_url in each.peer_urls}
            if found := _corrupt(seen):
                return f"alarm CORRUPT is raised on {', '.join(found)}"
        except EtcdError as error:
            return error.message
        urls = [each for each in (*access.endpoints, place.client_url) if each not in seen.others.endpoints]
        # By whichever it answers: where URLs were named, what it advertises may lead nowhere from here.
        own = next((url for url in urls if _answers_as(access, url, ids)), None)
        return _disagreement(replace(access, endpoints=(*seen.others.endpoints, *([own] if own else []))))

    hint = "if this machine does not reach it where it says: --endpoints, and the same again"
    poll_until(missing, what="all members hold the same", seconds=seconds, hint=hint)


def _answers_as(access: EtcdAccess, endpoint: str, ids: Collection[str]) -> bool:
    try:
        with EtcdMember(access, endpoint) as member:
            return member.status().member_id in ids
    except EtcdError:
        return False


def _require_agreement(access: EtcdAccess, *, seconds: float, besides: Collection[str] = ()) -> None:
    poll_until(lambda: _disagreement(access, besides), what="all members hold the same", seconds=seconds)


def _disagreement(access: EtcdAccess, besides: Collection[str] = ()) -> str:
    found = look_at_members(access, besides=besides)
    if found.differ:
        raise EtcdError(found.missing, code="members-differ", hint=_RESTORE_HINT)
    return found.missing


def _require_dead(api: KubeClient, name: str, others: Collection[str], *, was_asked: bool) -> bool:
    """Return whether the API has a node of that name; a ready one is not dead.

    None at all may have been deleted; but where no other member is a node there, it is the API of another cluster, or
    its nodes are called otherwise. One that was asked where it runs is known without it.
    """
    node = _found(api, name)
    if node is None:
        if was_asked or any(_found(api, each) is not None for each in others):
            return False
        raise ClusterError(
            f"the API knows no node {name}, and none of {', '.join(sorted(others))}: it does not tell whether "
            "it is gone for good",
            code="node-unknown",
            fields={"node": name},
            hint="use the kubeconfig of that very cluster; where nodes are called otherwise than members: etcdctl "
            "member remove",
        )
    conditions = {each["type"]: each["status"] for each in (node.get("status") or {}).get("conditions") or ()}
    if conditions.get("Ready") == "True":
        raise ClusterError(
            f"node {name} is ready, so it is not gone for good; nothing was changed",
            code="node-ready",
            fields={"node": name},
            hint="to replace its member of etcd, leave --remove-only away",
        )
    return True


def _found(api: KubeClient, name: str) -> Mapping[str, Any] | None:
    try:
        return api.get(api.resource("Node"), name)
    except ResourceNotFoundError:
        return None


# ---- changing ----------------------------------------------------------------------------------------------


def _removed(member: EtcdMember, entries: Collection[ListedMember]) -> None:
    def remove() -> None:
        # Asked for here: where it was the leader, nobody lists members until the others have elected one.
        there = {each.id for each in member.listed()}
        for each in entries:
            if each.id in there:
                member.remove(each.id)
        # Nothing else ever ends its alarms, and CORRUPT makes the whole cluster refuse writes. An earlier run may
        # have come as far as to the removal.
        listed = member.listed()
        member.disarm(of=lambda id_: _is_of_removed(id_, listed))

    _until_taken(remove, "the others let it go")


def _is_of_removed(id_: str, listed: Collection[ListedMember]) -> bool:
    """Return whether an alarm's ID is that of nobody any more; 0 stands for one that etcd could not tell."""
    return id_ != "0" and id_ not in {each.id for each in listed}


def _added(member: EtcdMember, place: MemberPlace) -> dict[str, str]:
    """Add it, and return the members that it joins."""
    peers: dict[str, str] = {}

    def add() -> None:
        # Its answer may have been lost.
        if not any(place.peer_url in each.peer_urls for each in member.listed()):
            member.add(place.peer_url)
        peers.update(_peers(member.listed(), place))

    _until_taken(add, "the others take it in")
    return peers


def _until_taken(change: Callable[[], object], what: str) -> None:
    def refused() -> str | None:
        try:
            change()
        except EtcdError as error:
            return error.message
        return None

    poll_until(refused, what=what, seconds=_CHANGE_SECONDS)


def _peers(listed: Collection[ListedMember], place: MemberPlace) -> dict[str, str]:
    """Return the members that it joins, itself among them: peer URLs by name."""
    peers = {each.name: each.peer_urls[0] for each in listed if each.name and place.peer_url not in each.peer_urls}
    return peers | {place.name: place.peer_url}
