"""Judge what the nodes said of etcd's members and API servers, before anything is touched. No I/O."""

from __future__ import annotations

from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING

from clusterguard.clusters.kubeadm.etcd_setup import host_of
from clusterguard.clusters.kubeadm.survey import minor
from clusterguard.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from clusterguard.clusters.kubeadm.node import Surveyed

__all__ = ["judge_api_servers", "judge_clocks", "judge_gone", "judge_members", "judge_versions"]

_NO_NODES: Mapping[str, bool] = MappingProxyType({})
# etcd complains of its peers' clocks from one second on; certificates and leases bear more.
_CLOCK_SECONDS = 5.0


def judge_members(
    nodes: Mapping[str, Surveyed], *, gone: Collection[str] = (), nodes_of_api: Mapping[str, bool] = _NO_NODES
) -> Iterator[ClusterError]:
    """Yield complaints if the nodes (by their shells' names) are not the members that a restore has to replace.

    etcd's own list decides, not what a manifest said when its node joined. Only where no etcd answers do the
    manifests and the API tell which members there may be.

    Args:
        nodes: What was seen on each.
        gone: Names of members whose nodes are dead for good.
        nodes_of_api: The nodes that the API knows, and whether each is a control plane.
    """
    yield from _twice(nodes)
    members = [node.etcd for node in nodes.values() if node.etcd]
    here = {member.peer_url for member in members}
    quorum = any(node.seen.one("quorum") for node in nodes.values())
    listed = _listed(nodes)
    strange = list(_strangers(nodes))
    yield from strange
    if quorum and not strange:
        yield from _not_listed(nodes, listed)
    known = listed or {url: name for member in members for name, url in member.initial_cluster}
    lacking = {name: url for url, name in known.items() if url not in here and name not in gone}
    if not listed and all(node.etcd for node in nodes.values()):  # else a control plane need not be a member
        names = {member.name for member in members}
        planes = [name for name, is_plane in nodes_of_api.items() if is_plane]
        lacking |= {name: "by its label" for name in planes if name not in {*names, *gone, *lacking}}
    if gone and quorum:
        yield _quorum_is_there(gone)
    elif lacking:
        yield _lacking(lacking, asked=bool(listed))
    yield from judge_gone(gone, nodes_of_api=nodes_of_api, listed=listed.values())
    if wrong := sorted({member.name for member in members} & set(gone)):
        yield ClusterError(
            f"{', '.join(wrong)} is said to be gone, and a restore onto it was asked for",
            code="not-gone",
            fields={"members": ", ".join(wrong)},
            hint="leave its --node-shell away, or its --gone",
        )


def judge_gone(
    gone: Collection[str], *, nodes_of_api: Mapping[str, bool], listed: Collection[str] = ()
) -> Iterator[ClusterError]:
    """Yield a complaint if what is said to be dead is no member: it would be removed from the API all the same.

    Args:
        gone: Names of members whose nodes are dead for good.
        nodes_of_api: The nodes that the API knows, and whether each is a control plane.
        listed: The names of all members that etcd knows; none where it does not answer.
    """
    workers = [name for name in gone if nodes_of_api.get(name) is False and name not in listed]
    strange = [name for name in gone if listed and name not in listed and name not in workers]
    if workers or strange:
        told = [*(f"{name} is a worker" for name in workers), *(f"etcd has no member {name}" for name in strange)]
        known = sorted(set(listed) or {name for name, is_plane in nodes_of_api.items() if is_plane})
        yield ClusterError(
            f"not a control plane, and so nothing that a restore can leave out: {', '.join(told)}",
            code="gone-not-a-member",
            fields={"members": ", ".join([*workers, *strange])},
            hint=f"--gone takes the names of members: {', '.join(known) or 'none are known'}",
        )


def judge_api_servers(nodes: Mapping[str, Surveyed], *, leases: Collection[str]) -> Iterator[ClusterError]:
    """Yield complaints if API servers were not named, or use another etcd: they would go on serving the old state.

    Args:
        nodes: What was seen on each.
        leases: The addresses by which API servers say in etcd that they live; none where it does not serve.
    """
    servers = {shell: node.api for shell, node in nodes.items() if node.api}
    known = {server.address for server in servers.values()}
    unknown = sorted(set(leases) - known)
    # A server that finds its address by itself may have any of them.
    if not servers or len(unknown) > sum(not server.address for server in servers.values()):
        told = f"API servers that were not named: {', '.join(unknown)}" if unknown else "no API server was named"
        yield ClusterError(
            f"{told}; they would go on serving the old state from memory",
            code="api-servers-missing",
            fields={"addresses": ", ".join(unknown)},
            hint="name the shell of every control-plane node, too: --node-shell 'ssh:root@{cp-1,cp-2,etcd-1,etcd-2}'",
        )
    yield from _other_etcd(nodes)


def _other_etcd(nodes: Mapping[str, Surveyed]) -> Iterator[ClusterError]:
    """Where its etcd does not answer, an API server's own words are all there is to tell that it uses another one."""
    members = [node.etcd for node in nodes.values() if node.etcd]
    urls = [url for each in members for url in (each.advertised_url, each.peer_url)]
    urls += [url for each in members for _, url in each.initial_cluster]
    here = {host_of(url) for url in urls}
    for shell, node in nodes.items():
        if node.api is None or node.etcd or node.seen.members:  # a list from its etcd was compared
            continue
        theirs = {host_of(url) for url in node.api.etcd_servers}
        # Names may stand for any address.
        if theirs and here.isdisjoint(theirs) and all(map(_is_address, here | theirs)):
            yield ClusterError(
                f"the API server of {shell} uses an etcd on {', '.join(sorted(theirs))}, and none of the members is "
                f"there: {', '.join(sorted(here))}",
                code="other-etcd",
                fields={"node": shell, "servers": ", ".join(sorted(theirs))},
                hint="name the hosts of the etcd that this cluster uses",
            )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def judge_versions(versions: Mapping[str, str]) -> Iterator[ClusterError]:
    """Yield a complaint if the members' etcd (by node) is of several minor versions: they would not form a cluster."""
    if len({minor(version) for version in versions.values() if version}) > 1:
        told = ", ".join(f"{version} on {node}" for node, version in versions.items())
        yield ClusterError(
            f"etcd is of different versions: {told}",
            code="versions-differ",
            fields={"versions": told},
            hint="finish the upgrade first: kubeadm upgrade node, there",
        )


def judge_clocks(nodes: Mapping[str, Surveyed]) -> Iterator[ClusterError]:
    """Yield a complaint if clocks are further apart than etcd and its certificates bear."""
    ahead = {name: node.seen.clock_ahead for name, node in nodes.items()}
    apart = max(ahead.values()) - min(ahead.values())
    if apart > _CLOCK_SECONDS:
        first, last = max(ahead, key=ahead.__getitem__), min(ahead, key=ahead.__getitem__)
        yield ClusterError(
            f"the clock of {first} is {apart:.0f} s ahead of that of {last}",
            code="clocks-differ",
            fields={"seconds": round(apart), "nodes": f"{first}, {last}"},
            hint="let both synchronise their time: timedatectl status, there",
        )


def _twice(nodes: Mapping[str, Surveyed]) -> Iterator[ClusterError]:
    seen: dict[str, str] = {}
    for shell, node in nodes.items():
        if node.etcd is None:
            continue
        first = seen.setdefault(node.etcd.peer_url, shell)
        if first != shell:
            yield ClusterError(
                f"{first} and {shell} are the same member, {node.etcd.name} ({node.etcd.peer_url})",
                code="same-member-twice",
                fields={"members": node.etcd.name},
                hint="name each node once",
            )


def _listed(nodes: Mapping[str, Surveyed]) -> dict[str, str]:
    """Return the names of all members that any node lists, by peer URL; a split cluster has several lists."""
    return {
        url: str(member.get("name") or "(not started)")
        for node in nodes.values()
        for member in node.seen.members or ()
        for url in member.get("peerURLs") or ()
    }


def _not_listed(nodes: Mapping[str, Surveyed], listed: Mapping[str, str]) -> Iterator[ClusterError]:
    for shell, node in nodes.items():
        if node.etcd and node.etcd.peer_url not in listed:
            members = ", ".join(f"{name} ({url})" for url, name in listed.items())
            yield ClusterError(
                f"{shell} starts etcd as {node.etcd.name} ({node.etcd.peer_url}), and the members are {members}",
                code="not-a-member",
                fields={"node": shell, "members": ", ".join(listed.values())},
                hint="if it was removed from the cluster, leave it out; if its address changed, repair its etcd.yaml",
            )


def _strangers(nodes: Mapping[str, Surveyed]) -> Iterator[ClusterError]:
    """Yield a complaint for each etcd on a host without API server that no other node knows: it may be anybody's."""
    for shell, node in nodes.items():
        if node.etcd is None or node.api is not None:
            continue
        others = {name: each for name, each in nodes.items() if name != shell}
        if any(each.seen.members for each in others.values()):
            known = node.etcd.peer_url in _listed(others)
        else:  # then by what they are started with
            peers = {url for each in others.values() if each.etcd for _, url in each.etcd.initial_cluster}
            hosts = {host_of(url) for each in others.values() if each.api for url in each.api.etcd_servers}
            own = {host_of(node.etcd.peer_url), host_of(node.etcd.advertised_url)} - {""}
            # Names may stand for any address.
            known = node.etcd.peer_url in peers or bool(hosts & own) or not all(map(_is_address, hosts | own))
        if not known:
            yield ClusterError(
                f"no other node knows the etcd on {shell}, {node.etcd.name} ({node.etcd.peer_url})",
                code="not-a-member",
                fields={"node": shell, "members": node.etcd.name},
                hint="if it is the etcd of something else, leave its host out",
            )


def _quorum_is_there(gone: Collection[str]) -> ClusterError:
    return ClusterError(
        f"etcd has a quorum, so the loss of {', '.join(gone)} is no case for a restore",
        code="quorum-is-there",
        fields={"members": ", ".join(gone)},
        hint="replace the lost member, which loses nothing: clusterguard etcd replace-member; if its node is gone for "
        "good: --remove-only",
    )


def _lacking(lacking: Mapping[str, str], *, asked: bool) -> ClusterError:
    names = ", ".join(sorted(f"{name} ({where})" for name, where in lacking.items()))
    source = "etcd has" if asked else "no etcd answers there, and by its manifests and the API it has"
    return ClusterError(
        f"{source} members that were not named: {names}; they would bring the old state back",
        code="members-missing",
        fields={"members": ", ".join(sorted(lacking))},
        hint="name the shell of every node with etcd, such as --node-shell 'ssh:root@{cp-1,cp-2,cp-3}'; "
        "one that is dead for good: --gone NAME",
    )
