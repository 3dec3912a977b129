"""Save, verify and restore on real etcd of every minor version that is supported, and at its edges."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from etcd_node import EtcdNode

from clusterguard.clusters.kubeadm import KubeadmControlPlane, Timeouts
from clusterguard.errors import ClusterError, EtcdUnavailableError, RestoreError, UnsupportedVersionError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.member import EtcdMember
from clusterguard.model.support import SUPPORTED, parse_version
from clusterguard.process import run
from clusterguard.stores import LocalStore
from etcd_member import Member
from kubeadm_node import Api
from other_versions import etcd_programs, newest_etcd_programs

# The first builds compile for a minute or two each, all others for seconds.
pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(1800)]

# Edges: the oldest there is, the last etcdutl that cannot raise revisions, the first that can, the first /readyz,
# and the newest of each minor version. None is the one of the toolchain.
VERSIONS = ("3.4.13", "3.5.9", "3.5.10", "3.5.11", "3.5.35", "3.6.16", None)
QUICK = Timeouts(etcd=30, api=5, gone=20)


@pytest.fixture(params=VERSIONS, ids=lambda version: version or "of the toolchain")
def world(request, tmp_path):
    """A node with an etcd of one version that holds a key, and a snapshotter."""
    programs = etcd_programs(request.param) if request.param else newest_etcd_programs()
    version = request.param or version_of(programs["etcd"])
    node = EtcdNode(tmp_path / "node", program=programs["etcd"], version=version, etcdutl=programs.get("etcdutl"))
    store = LocalStore(tmp_path / "store")
    with node.kubelet():
        member = Member(node.access, None, node.root / "etcd.log")
        wait_until_serving(node)
        member.put("/registry/pods/default/before", "/registry/pods/default/deleted")
        member.delete("/registry/pods/default/deleted")
        yield SimpleNamespace(
            node=node, member=member, version=version, snapshotter=EtcdSnapshotter(store=store, access=node.access)
        )


def version_of(program):
    return ".".join(map(str, parse_version(run([program, "--version"], timeout_seconds=20).stdout)))


def wait_until_serving(node):
    until = time.monotonic() + 30
    while True:
        with suppress(EtcdUnavailableError), EtcdMember(node.access, node.access.endpoints[0]) as member:
            member.status()
            return
        assert time.monotonic() < until, node.log()
        time.sleep(0.05)


def target(world, **options):
    plane = KubeadmControlPlane(
        [world.node.shell],
        api=Api,
        etcdutl=lambda: newest_etcd_programs()["etcdutl"],
        timeouts=QUICK,
        run="run1",
        **options,
    )
    return SimpleNamespace(name="node-1", etcd=world.node.access, api=Api(), control_plane=plane)


def keys(world):
    answer = world.member.ask("kv/range", {"key": "AA==", "range_end": "AA==", "keys_only": True})
    return int(answer.get("count", 0))


def test_every_supported_minor_version_is_among_them():
    oldest, (major, end) = SUPPORTED["etcd"].at_least, SUPPORTED["etcd"].below
    tested = {parse_version(version or version_of(newest_etcd_programs()["etcd"]))[:2] for version in VERSIONS}
    assert tested == {(major, minor) for minor in range(oldest[1], end)}


def test_a_snapshot_is_saved_verified_and_restored(world):
    saved = world.snapshotter.save("s")
    assert saved.etcd_version == world.version
    world.snapshotter.verify("s").raise_for_findings()
    late = world.member.put("/registry/pods/default/late")

    result = world.snapshotter.restore("s", target(world))

    assert keys(world) == 1
    assert result.revision_after > late
    assert result.warnings == ()
    assert world.member.put("/registry/pods/default/after") > result.revision_after
    assert (world.node.data / ".clusterguard/kept/member").is_dir()
    # What was restored is as good as any other etcd: it can be saved, verified and restored again.
    world.snapshotter.save("again")
    world.snapshotter.verify("again").raise_for_findings()
    world.snapshotter.restore("again", target(world))
    assert keys(world) == 2


def test_a_restore_that_fails_is_rolled_back(world):
    world.snapshotter.save("s")
    world.member.put("/registry/pods/default/late")

    failed = []

    def fail_once(command):
        if command.why == "the API server is ready" and not failed:
            failed.append(command)
            raise ClusterError("it failed")

    with pytest.raises(RestoreError) as caught:
        world.snapshotter.restore("s", target(world, on_command=fail_once))
    assert caught.value.rolled_back
    assert keys(world) == 2


@pytest.mark.parametrize("alarm", ["NOSPACE", "CORRUPT"])
def test_an_alarm_that_the_snapshot_carries_is_disarmed_or_nothing_is_touched(world, alarm):
    with EtcdMember(world.node.access, world.node.access.endpoints[0]) as member:
        number = str(int(member.status().member_id, 16))
    world.member.ask("maintenance/alarm", {"action": "ACTIVATE", "memberID": number, "alarm": alarm})
    world.snapshotter.save("s")
    with pytest.raises(RestoreError) as refused:
        world.snapshotter.restore("s", target(world))
    assert (refused.value.code, refused.value.rolled_back) == ("alarm-in-snapshot", True)
    assert not (world.node.data / ".clusterguard").exists()
    assert world.snapshotter.restore("s", target(world), disarm_alarms=True).warnings == ()
    assert world.member.put("/registry/pods/default/after")


def test_authentication_is_not_brought_to_where_it_is_off(world, tmp_path):
    if parse_version(world.version) < (3, 5, 0):
        pytest.skip("etcd 3.4 does not tell whether authentication is on")
    for path, body in (
        ("user/add", {"name": "root", "password": "secret"}),
        ("role/add", {"name": "root"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("enable", {}),
    ):
        world.member.ask(f"auth/{path}", body)
    access = replace(world.node.access, username="root", password="secret")
    saved = EtcdSnapshotter(store=LocalStore(tmp_path / "store"), access=access).save("s")
    assert "authentication-on" in {remark.code for remark in saved.remarks}
    programs = newest_etcd_programs()
    version = version_of(programs["etcd"])
    node = EtcdNode(tmp_path / "other", program=programs["etcd"], version=version, etcdutl=programs["etcdutl"])
    with node.kubelet():
        wait_until_serving(node)
        with pytest.raises(RestoreError) as refused:
            world.snapshotter.restore("s", target(SimpleNamespace(node=node)))
    assert (refused.value.code, refused.value.rolled_back) == ("authentication-in-snapshot", True)


@pytest.mark.parametrize(
    "live", ["3.4.13", "3.5.35", "3.6.16", None], ids=lambda version: version or "of the toolchain"
)
def test_what_is_not_refused_starts_and_holds_the_same(world, live, tmp_path):
    """Snapshots of each version on each minor version; of those refused, only 3.7 on 3.6 would not start."""
    world.member.put("/registry/pods/default/kept", "/registry/pods/default/kept-too")
    until = time.monotonic() + 20
    saved = world.snapshotter.save("s0")
    while parse_version(world.version) >= (3, 6, 0) and not saved.storage_version:  # it comes seconds after the start
        assert time.monotonic() < until
        time.sleep(1)
        saved = world.snapshotter.save(f"s{time.monotonic():.0f}")
    programs = etcd_programs(live) if live else newest_etcd_programs()
    version = live or version_of(programs["etcd"])
    newer = parse_version(world.version)[:2] > parse_version(version)[:2]
    node = EtcdNode(tmp_path / "other", program=programs["etcd"], version=version, etcdutl=programs.get("etcdutl"))
    with node.kubelet():
        wait_until_serving(node)
        there = SimpleNamespace(node=node)
        if newer:
            with pytest.raises(UnsupportedVersionError):
                world.snapshotter.restore(saved.name, target(there))
            return
        world.snapshotter.restore(saved.name, target(there))
        member = Member(node.access, None, node.root / "etcd.log")
        assert keys(SimpleNamespace(member=member)) == saved.total_keys
        assert member.put("/registry/pods/default/after")
