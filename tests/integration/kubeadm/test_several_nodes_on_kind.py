"""etcd of three control planes and a worker, in kind: saved, broken and restored as one."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import threading
import time
from datetime import UTC, datetime

import pytest
from witnesses import is_there, marker

from clusterguard.clusters.kind import KindCluster
from clusterguard.clusters.kubeadm import KubeadmControlPlane
from clusterguard.clusters.kubeadm.manifests import EtcdManifest
from clusterguard.clusters.node_shell import DockerNodeShell
from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    ClusterUnreachableError,
    EtcdError,
    ResourceNotFoundError,
    RestoreError,
)
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.agreement import look_at_members
from clusterguard.etcd.membership import replace_member
from clusterguard.stores import open_store
from clusterguard.validate import Selection, wait_ready

SECONDS = 180


@pytest.fixture(scope="module")
def several(docker):
    """Three control planes and a worker, for all tests of this file; each leaves them working."""
    with KindCluster(f"clusterguard-test-{secrets.token_hex(4)}", control_planes=3, workers=1) as cluster:
        yield cluster


@pytest.fixture
def snapshotter(several, store):
    return EtcdSnapshotter(store=open_store(store), access=several.etcd)


@pytest.fixture(scope="module")
def pod(several, workload_image):
    """A pod on the worker, in the state that every snapshot has."""
    api, name = several.api, "on-the-worker"
    spec = {
        "containers": [
            {"name": "web", "image": workload_image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "9999"]}
        ],
        "nodeName": f"{several.name}-worker",
        "terminationGracePeriodSeconds": 0,
    }
    api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
    selection = Selection(kind="Pod", namespace="default", names=(name,))
    wait_ready(api, selection, timeout_seconds=SECONDS)
    return selection


def until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def agree(cluster):
    seen = look_at_members(cluster.etcd)
    return not seen.missing and len(seen.revisions) == 3


def works(cluster):
    """Every member holds the same, every node is ready, and controllers act on what is written."""
    until(lambda: agree(cluster))
    name = f"works-{secrets.token_hex(4)}"
    cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def has_account():
        with contextlib.suppress(ResourceNotFoundError):
            return cluster.api.get(cluster.api.resource("ServiceAccount"), "default", name)

    until(has_account)
    cluster.api.delete(cluster.api.resource("Namespace"), name)
    until(lambda: all(map(is_ready, cluster.api.list(cluster.api.resource("Node")))))


def is_ready(node):
    return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])


def target(cluster, on_command):
    """The cluster with a control plane whose commands are watched."""

    class Target:
        name, etcd, api = cluster.name, cluster.etcd, cluster.api
        control_plane = KubeadmControlPlane(
            [DockerNodeShell(each.name) for each in cluster.nodes if each.is_leader],
            workers=[DockerNodeShell(f"{cluster.name}-worker")],
            api=lambda: cluster.api,
            on_command=on_command,
        )

    return Target


# ---- the cluster -------------------------------------------------------------------------------------------


def test_every_control_plane_has_a_member_and_any_of_them_gives_a_snapshot(several, snapshotter):
    assert [each.role for each in several.nodes] == ["control-plane"] * 3 + ["worker"]
    assert len(several.etcd.endpoints) == 3
    assert agree(several)
    saved = snapshotter.save(f"cg-{secrets.token_hex(4)}")
    snapshotter.verify(saved.name).raise_for_findings()
    assert saved.total_keys > 100


def test_without_one_control_plane_the_api_is_served_and_the_node_comes_back_where_it_was(several, snapshotter):
    name = f"{several.name}-control-plane2"
    before = {each.name: each.address for each in several.nodes}
    several.stop_node(f"{several.name}-worker")  # Docker would give the one the other's address
    several.stop_node(name)
    try:
        assert several.api.ready()
        assert marker(several.api)
        saved = EtcdSnapshotter(store=snapshotter._store, access=several.etcd).save(f"cg-{secrets.token_hex(4)}")
        assert saved.total_keys > 100
        with KindCluster.attach(several.name) as attached:
            assert attached.node_power()[name] is False
            assert len(attached.etcd.endpoints) == 2
            assert attached.api.ready()
    finally:
        several.start_node(name)
        several.start_node(f"{several.name}-worker")
    assert {each.name: each.address for each in several.nodes} == before
    works(several)


# ---- restores ----------------------------------------------------------------------------------------------


def test_three_members_are_restored_from_one_file_as_one(several, snapshotter, pod):
    api, pods = several.api, several.api.resource("Pod")
    (name,) = pod.names
    before = api.get(pods, name, "default")
    earlier = marker(api)
    saved = snapshotter.save(f"cg-{secrets.token_hex(4)}")
    later = marker(api)
    api.delete(pods, name, "default", grace_seconds=0)

    started = datetime.now(UTC)
    result = snapshotter.restore(saved.name, several)

    assert is_there(api, earlier)
    assert not is_there(api, later)
    assert result.revision_after > result.revision_before
    assert result.warnings == ()
    assert agree(several)
    # The worker's kubelet runs it again, which a restored status alone does not tell.
    wait_ready(api, pod, timeout_seconds=SECONDS, fresh_since=started)
    assert api.get(pods, name, "default")["metadata"]["uid"] == before["metadata"]["uid"]
    works(several)


def test_one_node_that_fails_brings_all_back(several, snapshotter):
    saved = snapshotter.save(f"cg-{secrets.token_hex(4)}")
    later = marker(several.api)
    second = DockerNodeShell(f"{several.name}-control-plane2")
    spoilt, lock = [], threading.Lock()

    def spoil(command):
        with lock:
            if command.why == "the restored member goes live" and not spoilt:
                spoilt.append(second.run(["sh", "-c", "rm -rf /var/lib/etcd/.clusterguard/prepared*"]))

    with pytest.raises(RestoreError) as caught:
        snapshotter.restore(saved.name, target(several, spoil))
    assert spoilt == [""]
    assert caught.value.rolled_back
    assert is_there(several.api, later)
    works(several)


def test_a_node_that_loses_power_half_way_is_brought_back_by_the_next_run(several, snapshotter):
    saved = snapshotter.save(f"cg-{secrets.token_hex(4)}")
    later = marker(several.api)
    name = f"{several.name}-control-plane3"
    cut, lock = [], threading.Lock()

    def power_cut(command):
        with lock:
            if command.why == "etcd serves" and not cut:
                cut.append(subprocess.run(["docker", "restart", "--time=0", name], check=True, capture_output=True))

    with contextlib.suppress(RestoreError):  # its lock went with the node; all may have gone back by themselves
        snapshotter.restore(saved.name, target(several, power_cut))
        pytest.fail("a restore that lost a node did not say so")
    assert cut
    recovered(several)
    assert is_there(several.api, later)
    works(several)


def recovered(cluster):
    """Do what the next restore would begin with, once every node takes commands again."""
    with KindCluster.attach(cluster.name) as attached:

        def recover():
            with contextlib.suppress(ClusterError, ClusterGuardError), attached.control_plane.exclusive():
                attached.control_plane.recover()
                return True

        until(recover, seconds=600)
    until(cluster.api.ready)


# ---- one of them -------------------------------------------------------------------------------------------


def replaced(cluster, name, **options):
    with cluster.member_places() as places:
        return replace_member(cluster.etcd, places, name, seconds=SECONDS, **options)


@pytest.mark.parametrize(
    "until_step", [None, "stop the member, and keep its data aside", "add it anew", "start it empty"]
)
def test_a_lost_member_is_replaced_and_nothing_is_lost(several, until_step):
    """On the first node, whose manifest would let it begin a cluster on an empty disk."""
    name, kept = f"{several.name}-control-plane", marker(several.api)

    def stop(step):
        if step.name == until_step:
            raise KeyboardInterrupt

    with pytest.raises(EtcdError) as serves:
        replaced(several, name)
    assert serves.value.code == "member-serves"
    several.lose_member(name)
    if until_step:
        with pytest.raises(KeyboardInterrupt):
            replaced(several, name, watch=stop)
    late = []

    def written():
        with contextlib.suppress(ClusterUnreachableError):  # the first API server has lost its etcd
            late.append(marker(several.api))
        return late

    until(written)
    replaced(several, name)
    works(several)
    assert is_there(several.api, kept)
    assert is_there(several.api, late[-1])
    manifest = EtcdManifest.parse(DockerNodeShell(name).run(["cat", "/etc/kubernetes/manifests/etcd.yaml"]), where=name)
    assert manifest.joins
    assert len(manifest.initial_cluster) == 3


def test_a_replacement_that_a_recovery_gives_up_is_begun_anew(several):
    name = f"{several.name}-control-plane2"

    def stop(step):
        if step.name == "remove the member":
            raise KeyboardInterrupt

    several.lose_member(name)
    with pytest.raises(KeyboardInterrupt):
        replaced(several, name, watch=stop)
    with pytest.raises(ClusterError) as unfit:
        several.control_plane.check(needed_bytes=1)
    assert "rollback-incomplete" in unfit.value.fields["problems"]
    with several.control_plane.exclusive():
        assert "given up" in several.control_plane.recover()
    replaced(several, name)  # it was removed, and what it got back is of no use
    works(several)
