"""A kind cluster whose etcd is on three hosts of their own: saved, broken and restored as one."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

import pytest
from etcd_hosts import cluster_with_etcd_hosts, run_docker
from witnesses import is_there, marker

from clusterguard.clusters.kubeadm import KubeadmControlPlane, Timeouts
from clusterguard.clusters.node_shell import DockerNodeShell
from clusterguard.errors import ClusterError, ResourceNotFoundError, RestoreError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.agreement import look_at_members
from clusterguard.etcd.member import EtcdMember
from clusterguard.stores import open_store

SECONDS = 180
QUICK = Timeouts(etcd=15)


@pytest.fixture(scope="module")
def image(docker):
    """The node image of kind."""
    return os.environ.get("CLUSTERGUARD_KIND_IMAGE") or pytest.skip("NOT RUN: no CLUSTERGUARD_KIND_IMAGE")


@pytest.fixture(scope="module")
def external(image, toolchain, tmp_path_factory):
    """The cluster and hosts with units of systemd, for the tests of this file; each leaves them working."""
    programs = [Path(path) for path in toolchain.ensure("etcd", "etcdutl").values()]
    name = f"clusterguard-test-{secrets.token_hex(4)}"
    folder = tmp_path_factory.mktemp("hosts")
    with cluster_with_etcd_hosts(name, folder=folder, programs=programs, image=image) as found:
        yield found


class Target:
    """The cluster, with its control plane reached by node shells; others than all of them may be named."""

    def __init__(self, external, shells=None, **options):
        cluster, hosts = external
        self.name, self.api = cluster.name, cluster.api
        shells = shells or [DockerNodeShell(f"{cluster.name}-control-plane"), *hosts.shells]
        self.control_plane = KubeadmControlPlane(shells, workers=None, api=lambda: cluster.api, **options)
        self._kept = contextlib.ExitStack()
        self.etcd = self.control_plane.etcd_access(keep=self._kept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._kept.close()


@pytest.fixture
def target(external):
    with Target(external) as target:
        yield target


@pytest.fixture
def snapshotter(target, store):
    return EtcdSnapshotter(store=open_store(store), access=target.etcd)


def until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def works(target):
    """Every member holds the same, and controllers act on what is written."""
    until(lambda: not look_at_members(target.etcd).missing)
    name = f"works-{secrets.token_hex(4)}"
    target.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def has_account():
        with contextlib.suppress(ResourceNotFoundError):
            return target.api.get(target.api.resource("ServiceAccount"), "default", name)

    until(has_account)
    target.api.delete(target.api.resource("Namespace"), name)


def cluster_ids(target):
    found = set()
    for endpoint in target.etcd.endpoints:
        with EtcdMember(target.etcd, endpoint) as member:
            found.add(member.status().cluster_id)
    return found


def test_members_that_kubelets_of_their_own_start_are_restored_as_one(image, store, tmp_path):
    """Set up by the commands of kubeadm's guide: such an etcd does not listen on loopback.

    The first of the file: before the hosts and the cluster of all others take their part of the machine.
    """
    name = f"clusterguard-test-{secrets.token_hex(4)}"
    with cluster_with_etcd_hosts(name, folder=tmp_path, image=image) as found, Target(found) as target:
        snapshotter = EtcdSnapshotter(store=open_store(store), access=target.etcd)
        saved, late = snapshotter.save(f"cg-{secrets.token_hex(4)}").name, marker(target.api)
        result = snapshotter.restore(saved, target)
        assert (is_there(target.api, late), result.warnings) == (False, ())
        assert len(look_at_members(target.etcd).revisions) == 3
        works(target)


def test_members_set_up_in_three_ways_are_restored_as_one(external, target, snapshotter):
    assert len(target.etcd.endpoints) == 3
    early = marker(target.api)
    name = snapshotter.save(f"cg-{secrets.token_hex(4)}").name
    late, before = marker(target.api), cluster_ids(target)
    target.api.delete(target.api.resource("ConfigMap"), early, "default")
    result = snapshotter.restore(name, target)
    assert (is_there(target.api, early), is_there(target.api, late)) == (True, False)
    server = next(node for node in target.control_plane._nodes if not node.etcd)
    assert {each["name"] for each in server.look().seen.members} == set(external[1].names)
    assert result.warnings == ()
    assert result.previous.endswith(", ".join(external[1].names))
    seen = look_at_members(target.etcd)
    assert (seen.missing, len(seen.revisions)) == ("", 3)
    (after,) = cluster_ids(target)
    assert after not in before
    works(target)


def test_a_host_that_starts_again_in_between_does_not_start_its_etcd(external, target, snapshotter, monkeypatch):
    _, hosts = external
    shell, swap_in, states = hosts.shells[1], target.control_plane.swap_in, []
    name = snapshotter.save(f"cg-{secrets.token_hex(4)}").name
    late = marker(target.api)

    def after_a_power_cut():
        run_docker("restart", "--time", "0", shell.name)
        up = "until systemctl is-system-running | grep -Eq 'running|degraded'; do sleep 0.2; done"
        shell.run(["sh", "-c", f"{up}; systemctl is-enabled etcd"])
        states.append(shell.run(["systemctl", "show", "--property=ActiveState", "--value", "etcd"]).strip())
        swap_in()  # the line to that host is broken

    monkeypatch.setattr(target.control_plane, "swap_in", after_a_power_cut)
    with pytest.raises(RestoreError) as caught:
        snapshotter.restore(name, target)
    assert (states, caught.value.rolled_back) == (["inactive"], True)
    assert is_there(target.api, late)
    works(target)


@pytest.mark.slow
def test_a_member_that_does_not_start_brings_all_hosts_back(external, target, snapshotter):
    _, hosts = external
    late = marker(target.api)
    name = snapshotter.save(f"cg-{secrets.token_hex(4)}").name
    later, ids = marker(target.api), cluster_ids(target)
    broken = hosts.shells[2]

    def spoil(command):
        if command.why == "systemd starts etcd":
            broken.run(["sh", "-c", "test ! -e /opt/etcd/etcd || mv /opt/etcd/etcd /opt/etcd/etcd.away"])

    with Target(external, on_command=spoil, timeouts=QUICK) as watched, pytest.raises(RestoreError):
        snapshotter.restore(name, watched)
    broken.run(["mv", "/opt/etcd/etcd.away", "/opt/etcd/etcd"])
    with target.control_plane.exclusive():
        target.control_plane.recover()
    assert (is_there(target.api, late), is_there(target.api, later)) == (True, True)
    works(target)
    assert cluster_ids(target) == ids


def test_api_servers_that_were_not_named_are_seen_by_their_leases(external):
    cluster, hosts = external
    (address,) = [
        each["address"]
        for node in cluster.api.list(cluster.api.resource("Node"))
        for each in node["status"]["addresses"]
        if each["type"] == "InternalIP"
    ]
    with Target(external, hosts.shells) as target, pytest.raises(ClusterError) as caught:
        target.control_plane.check(needed_bytes=10)
    assert (caught.value.fields["problems"], caught.value.fields["addresses"]) == (["api-servers-missing"], address)
