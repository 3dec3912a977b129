"""Restoring a real control plane: what comes back, what fails without harm, and what a SIGKILL leaves behind."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import psutil
import pytest

from clusterguard.clusters import EmbeddedCluster
from clusterguard.clusters.embedded import PROGRAMS
from clusterguard.clusters.embedded.records import ClusterRecord
from clusterguard.clusters.records import read_record, write_record
from clusterguard.errors import (
    ClusterError,
    ConflictError,
    ProgramError,
    ProvisioningError,
    ResourceNotFoundError,
    RestoreError,
    SnapshotCorruptError,
)
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.restore import restore_control_plane
from clusterguard.stores import LocalStore

pytestmark = pytest.mark.programs

RUNNING = sorted(name for name in PROGRAMS if name != "etcdutl")
_names = itertools.count()


class World:
    """A cluster with a snapshot in it, and what was changed in it since."""

    def __init__(self, cluster, folder):
        self.cluster = cluster
        self.store = LocalStore(folder)
        self.snapshotter = EtcdSnapshotter(store=self.store, access=cluster.etcd)
        self.maps = cluster.api.resource("ConfigMap")

    def make(self, name):
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}}
        return self.cluster.api.create(manifest)

    def has(self, name):
        try:
            self.cluster.api.get(self.maps, name, "default")
        except ResourceNotFoundError:
            return False
        return True

    def snapshot(self):
        """Save a snapshot that holds ``lost`` and not ``late``; now it is the other way round."""
        number = next(_names)
        self.lost, self.late = f"lost-{number}", f"late-{number}"
        self.made = self.make(self.lost)
        self.name = self.snapshotter.save(f"s{number}").name
        self.cluster.api.delete(self.maps, self.lost, "default")
        self.make(self.late)
        return self.name

    def restore(self, **options):
        return self.snapshotter.restore(self.name, self.cluster, **options)

    def pids(self):
        record = read_record(self.cluster.folder, ClusterRecord)
        return {name: process.pid for name, process in record.processes.items() if process.alive()}

    def assert_serving(self, *states):
        """Everything runs, once, takes writes, and is whole: as before the restore, or as restored."""
        assert sorted(self.pids()) == RUNNING
        assert sorted(processes_of(self.cluster)) == sorted(self.pids().values())
        assert self.cluster.api.ready()
        self.make(f"write-{next(_names)}")
        state = {(True, False): "restored", (False, True): "old"}[self.has(self.lost), self.has(self.late)]
        assert state in states

    def with_program(self, name, path):
        return with_program(self.cluster.folder, name, path)


def with_program(folder, name, path):
    """Let a program of a cluster be another one from its next start on; return what undoes that."""
    before = read_record(folder, ClusterRecord).programs

    def with_programs(programs):
        write_record(folder, replace(read_record(folder, ClusterRecord), programs=programs))

    with_programs({**before, name: str(path)})
    return lambda: with_programs(before)


def processes_of(cluster):
    """Return the processes whose command line names the cluster's folder, known to its record or not."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if any(str(cluster.folder) in word for word in command[1:]) and process.pid != os.getpid():
            found.append(process.pid)
    return found


@pytest.fixture(scope="module")
def cluster(toolchain, tmp_path_factory):
    with EmbeddedCluster(toolchain=toolchain, home=tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def world(cluster, tmp_path):
    world = World(cluster, tmp_path / "store")
    world.snapshot()
    return world


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# ---- what comes back


def test_a_restore_brings_back_what_was_lost_and_takes_what_came_after(world):
    api = world.cluster.api
    deployments, pods = api.resource("Deployment"), api.resource("Pod")
    version_before = api.get(world.maps, world.late, "default")["metadata"]["resourceVersion"]
    told = []
    result = world.restore(watch=told.append)
    world.assert_serving("restored")
    assert api.get(world.maps, world.lost, "default")["metadata"]["uid"] == world.made["metadata"]["uid"]
    assert result.revision_after > result.revision_before > result.snapshot.revision
    assert tuple(told) == result.steps
    assert [step.name for step in told] == [
        "verify the snapshot",
        "check the control plane",
        "build the new data directory",
        "stop the control plane",
        "swap the data directory",
        "start etcd",
        "start the API server",
        "commit",
        "start the controllers",
        "clean up",
    ]
    assert "--mark-compacted" in result.command
    assert result.warnings == ()
    # Versions only ever grow, and a watcher with an old one is told to start over instead of missing the change.
    assert int(world.make(f"new-{next(_names)}")["metadata"]["resourceVersion"]) > int(version_before)
    with pytest.raises(ConflictError):
        next(api.watch(world.maps, "default", resource_version=version_before, timeout_seconds=5))
    # The controllers work: a Deployment made now gets its pod.
    labels = {"app": world.lost}
    api.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": world.lost},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "c", "image": "busybox:1.37"}]},
                },
            },
        }
    )
    api.wait_for(
        deployments,
        world.lost,
        "default",
        until=lambda found: found and found.get("status", {}).get("readyReplicas"),
        what="the pod of a new Deployment",
        timeout_seconds=30,
    )
    assert len(list(api.list(pods, "default", label_selector=f"app={world.lost}"))) == 1


def test_a_lost_etcd_is_restored(world):
    record = world.cluster.record
    record.processes["etcd"].stop(grace_seconds=0)
    (world.cluster.folder / "etcd" / "member" / "snap" / "db").write_bytes(b"not a database any more")
    result = world.restore()
    assert result.revision_before is None
    assert result.revision_after > 1_000_000_000
    world.assert_serving("restored")


# ---- what fails before anything is touched


@pytest.fixture
def untouched(world):
    """Run a restore that must fail, and show that nothing was restarted."""

    def refused(error, act=world.restore, **expected):
        before = world.pids()
        with pytest.raises(error, **expected) as raised:
            act()
        assert world.pids() == before
        world.assert_serving("old")
        return raised.value

    return refused


def test_a_corrupted_snapshot_touches_nothing(world, untouched):
    path = world.store.local_path(f"{world.name}.db")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    untouched(SnapshotCorruptError, match="the trailer says")


def test_an_etcdutl_that_fails_touches_nothing(world, untouched, tmp_path):
    undo = world.with_program("etcdutl", script(tmp_path / "etcdutl", "echo it cannot >&2; exit 7"))
    error = untouched(RestoreError)
    assert error.rolled_back
    assert (error.__cause__.exit_code, error.__cause__.output) == (7, "it cannot")
    undo()


def test_an_etcdutl_that_is_not_there_touches_nothing(world, untouched, tmp_path):
    undo = world.with_program("etcdutl", tmp_path / "etcdutl")
    assert untouched(RestoreError).__cause__.code == "program-missing"
    undo()


def test_too_little_room_touches_nothing(world, untouched):
    snapshot = replace(world.snapshotter.find(world.name), size=1 << 60)
    path = world.store.local_path(snapshot.key)

    def act():
        restore_control_plane(world.cluster.control_plane, world.cluster.etcd, snapshot=snapshot, file=path)

    assert untouched(RestoreError, act).__cause__.code == "no-room"


def test_a_second_restore_at_the_same_time_touches_nothing(world, untouched):
    with world.cluster.control_plane.exclusive():
        assert untouched(ClusterError).code == "restore-running"


# ---- what fails afterwards


@pytest.mark.parametrize("name", ["etcd", pytest.param("kube-apiserver", marks=pytest.mark.slow)])
def test_a_program_that_does_not_start_on_the_new_state_brings_the_old_one_back(world, name, tmp_path):
    real, mark = world.cluster.record.programs[name], tmp_path / "failed-once"
    once = f'[ -e {mark} -o "$1" = --version ] && exec {real} "$@"; touch {mark}; echo cannot read it; exit 3'
    undo = world.with_program(name, script(tmp_path / name, once))
    with pytest.raises(RestoreError) as raised:
        world.restore()
    assert raised.value.__cause__.fields["program"] == name
    undo()
    assert raised.value.rolled_back
    assert f"{name} ended right after its start:\ncannot read it" in raised.value.message
    world.cluster.control_plane.recover()  # so that the record names the real program again
    world.assert_serving("old")


@pytest.mark.slow  # above, start_etcd fails
@pytest.mark.parametrize("step", ["stop", "swap_in", "start_api"])
def test_an_error_in_any_step_brings_the_old_state_back(world, monkeypatch, step):
    kind = type(world.cluster.control_plane)
    real = getattr(kind, step)
    failed = []

    def fail_once(self):
        real(self)
        if not failed:
            failed.append(step)
            raise ProvisioningError("it failed")

    monkeypatch.setattr(kind, step, fail_once)
    with pytest.raises(RestoreError) as raised:
        world.restore()
    assert raised.value.__cause__.args == ("it failed",)
    assert raised.value.rolled_back
    world.assert_serving("old")


# ---- what fails once it is proven


def fail_from(monkeypatch, cluster, step, *, times):
    """Let a step of the control plane fail so many times, after it was done."""
    kind = type(cluster.control_plane)
    real, left = getattr(kind, step), [times]

    def failing(self):
        real(self)
        if left[0]:
            left[0] -= 1
            raise ProvisioningError("it failed")

    monkeypatch.setattr(kind, step, failing)


def test_a_proven_restore_does_not_fail_over_what_fails_once(world, monkeypatch):
    for step in ("commit", "start_controllers", "clean_up"):
        fail_from(monkeypatch, world.cluster, step, times=1)
    assert world.restore().warnings == ()
    world.assert_serving("restored")
    assert world.cluster.control_plane.recover() is None


@pytest.mark.parametrize("step", ["start_controllers", "clean_up"])
def test_what_is_written_to_a_proven_state_stays_whoever_comes_next(world, monkeypatch, step):
    with monkeypatch.context() as patched:
        fail_from(patched, world.cluster, step, times=99)
        if step == "clean_up":
            assert "clusterguard etcd recover" in world.restore().warnings[0]
        else:
            with pytest.raises(RestoreError) as raised:
                world.restore()
            assert (raised.value.restored, raised.value.rolled_back) == (True, False)
    since = world.make(f"since-{next(_names)}")["metadata"]["name"]
    world.cluster.control_plane.recover()
    world.assert_serving("restored")
    assert world.cluster.api.get(world.maps, since, "default")


# ---- killed half-way


RESTORING = """
    import os, signal, sys
    from pathlib import Path
    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.stores import LocalStore
    from clusterguard.stores.encryption import Encryption, EncryptedStore

    home, store, name, when = sys.argv[1:]
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)
    rename = Path.rename
    def renamed(path, target):
        result = rename(path, target)
        if when == f"rename to {target.name}":
            die()
        return result
    Path.rename = renamed
    cluster = EmbeddedCluster.attach("kept", home=Path(home))
    print("attached", flush=True)
    # One that gives no files of its own: the snapshot goes through the scratch folder.
    store = EncryptedStore(LocalStore(Path(store)), Encryption())
    snapshotter = EtcdSnapshotter(store=store, access=cluster.etcd)
    snapshotter.restore(name, cluster, watch=lambda step: step.name == when and die())
"""
MOMENTS = {
    "verify the snapshot": "old",
    "check the control plane": "old",
    "build the new data directory": "old",
    "stop the control plane": "old",
    "rename to etcd.before": "old",
    "swap the data directory": "old",
    "start etcd": "old",
    "start the API server": "old",
    "rename to etcd.proven": "restored",
    "commit": "restored",
    "start the controllers": "restored",
    "rename to etcd.kept": "restored",
    "clean up": "restored",
}
QUICK = {"rename to etcd.before", "start the API server", "commit"}


@pytest.fixture(scope="module")
def kept(toolchain, tmp_path_factory):
    """A cluster as ``clusterguard cluster up`` makes it."""
    home = tmp_path_factory.mktemp("home")
    cluster = EmbeddedCluster("kept", toolchain=toolchain, home=home, outlive_us=True).start()
    yield home
    cluster.delete()
    assert processes_of(cluster) == []
    assert list(home.iterdir()) == []


def killed_restore(home, world, when, temporary):
    """Run a restore in a process of its own that kills itself at a moment; the opened snapshot goes with it."""
    temporary.mkdir()
    environ = {**os.environ, "TMPDIR": str(temporary)}
    argv = [sys.executable, "-c", textwrap.dedent(RESTORING), home, world.store.local_path(f"{world.name}.db").parent]
    process = subprocess.Popen([*map(str, argv), world.name, when], stdout=subprocess.PIPE, text=True, env=environ)
    assert process.communicate(timeout=120)[0] == "attached\n"
    assert list(temporary.iterdir()) == []
    assert process.returncode == -signal.SIGKILL, "it was over before that moment came"


@pytest.mark.parametrize(
    "when", [moment if moment in QUICK else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS]
)
def test_a_restore_killed_at_any_moment_is_recovered_from(kept, tmp_path, when):
    world = World(EmbeddedCluster.attach("kept", home=kept), tmp_path / "store")
    world.snapshot()
    killed_restore(kept, world, when, tmp_path / "tmp")
    world.cluster.close()
    world.cluster = EmbeddedCluster.attach("kept", home=kept)
    world.assert_serving(MOMENTS[when])
    assert {path.name for path in world.cluster.folder.glob("etcd*")} <= {"etcd", "etcd.kept"}
    world.cluster.close()


def test_whoever_attaches_leaves_the_cluster_running(kept):
    with EmbeddedCluster.attach("kept", home=kept) as cluster:
        assert not cluster.created_by_us
        assert cluster.api.ready()
    assert sorted(EmbeddedCluster.attach("kept", home=kept).record.running()) == RUNNING
    assert [record.name for record in EmbeddedCluster.known(home=kept)] == ["kept"]
    assert EmbeddedCluster.sweep(home=kept) == []


def test_attaching_during_a_restore_leaves_it_alone(kept):
    cluster = EmbeddedCluster.attach("kept", home=kept)
    (cluster.folder / "etcd.prepared").mkdir()
    with cluster.control_plane.exclusive():
        EmbeddedCluster.attach("kept", home=kept)
        assert (cluster.folder / "etcd.prepared").exists()
    EmbeddedCluster.attach("kept", home=kept)
    assert not (cluster.folder / "etcd.prepared").exists()


def test_a_program_that_ended_is_started_again_or_named(kept, tmp_path):
    cluster = EmbeddedCluster.attach("kept", home=kept)
    undo = World(cluster, tmp_path / "store").with_program("etcd", tmp_path / "gone")
    for process in cluster.record.processes.values():
        process.stop(grace_seconds=0)
    with pytest.raises(ProgramError) as caught:
        EmbeddedCluster.attach("kept", home=kept)
    assert (caught.value.code, caught.value.fields) == ("program-missing", {"program": str(tmp_path / "gone")})
    undo()
    assert sorted(EmbeddedCluster.attach("kept", home=kept).record.running()) == RUNNING
