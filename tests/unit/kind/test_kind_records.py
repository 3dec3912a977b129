"""Leftovers of dead runs go; what belongs to somebody else stays."""

import os
import subprocess
import sys

import pytest
from fake_kind import node

from clusterguard.clusters.kind.records import KindRecord, is_ours, sweep
from clusterguard.clusters.records import read_record, write_record
from clusterguard.errors import ConfigError, ProvisioningError
from clusterguard.process import ProcessRecord


def record(name="test", *, owner=None, **changes):
    return KindRecord(**({"name": name, "created": 1000.0, "owner": owner, "etcd_port": 30001} | changes))


def dead_process():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = ProcessRecord.of(child.pid)
    child.communicate(b"\n")
    return owner


def written(home, made):
    folder = home / made.name
    folder.mkdir(parents=True)
    write_record(folder, made)
    return folder


@pytest.mark.parametrize("owner", [None, ProcessRecord(pid=1, started=2.5)])
@pytest.mark.parametrize("image", [None, "my/node"])
def test_a_record_is_read_as_it_was_written(tmp_path, owner, image):
    made = record(owner=owner, image=image, more_etcd_ports=[30002, 30003])
    assert read_record(written(tmp_path, made), KindRecord) == made


def test_a_record_of_one_member_alone_is_read(tmp_path):
    (tmp_path / "cluster.json").write_text('{"name": "test", "created": 1000.0, "owner": null, "etcd_port": 30001}')
    assert read_record(tmp_path, KindRecord) == record()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"owner": null, "more": 1}', '{"owner": {"pid": 1}}'])
def test_a_broken_record_is_an_error_and_not_a_missing_one(tmp_path, text):
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(ConfigError, match="is not a cluster record"):
        read_record(tmp_path, KindRecord)


def test_the_cluster_of_a_dead_run_is_removed(docker, home):
    folder = written(home, record(owner=dead_process()))
    docker.ours["test"] = (node(etcd_port=30001), node(id="id-of-worker", role="worker", etcd_port=None))
    assert sweep(home, docker) == ["test"]
    assert docker.removed == ["id-of-leader", "id-of-worker"]
    assert not folder.exists()


@pytest.mark.parametrize("kept", [True, False])
def test_the_cluster_of_a_living_run_and_a_kept_one_stay(docker, home, kept):
    folder = written(home, record(owner=None if kept else ProcessRecord.of(os.getpid())))
    docker.ours["test"] = (node(etcd_port=30001),)
    assert sweep(home, docker) == []
    assert docker.removed == []
    assert folder.exists()


def test_a_cluster_that_somebody_created_under_the_old_name_is_not_touched(docker, home):
    folder = written(home, record(owner=dead_process()))
    docker.theirs["test"] = (node(etcd_port=None),)
    sweep(home, docker)
    assert docker.removed == []
    assert not folder.exists()


def test_what_is_left_while_docker_is_stopped_is_remembered(docker, home):
    folder = written(home, record(owner=dead_process()))
    docker.error = ProvisioningError("Docker does not answer")
    with pytest.raises(ProvisioningError):
        sweep(home, docker)
    docker.error = None
    docker.ours["test"] = (node(etcd_port=30001),)
    assert sweep(home, docker) == ["test"]
    assert docker.removed == ["id-of-leader"]
    assert not folder.exists()


def test_docker_is_not_asked_when_nothing_is_left(docker, home):
    docker.error = ProvisioningError("Docker does not answer")
    written(home, record(owner=None))
    assert sweep(home, docker) == []


def test_a_folder_without_a_record_is_given_time(docker, home):
    folder = home / "test"
    folder.mkdir(parents=True)
    born = folder.stat().st_mtime
    sweep(home, docker, now=born + 59)
    assert folder.exists()
    sweep(home, docker, now=born + 61)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("nodes", "ours"),
    [
        ([node(etcd_port=30001)], True),
        ([node(etcd_port=30002)], False),
        ([node(etcd_port=None)], False),
        ([node(etcd_port=None), node(etcd_port=30001)], True),
        ([node(etcd_port=30001), node(role="worker", etcd_port=None, created=0)], True),
        ([node(role="worker", etcd_port=None, created=1000.5)], True),
        ([node(role="worker", etcd_port=None, created=900)], False),
    ],
)
def test_the_published_port_of_etcd_tells_whose_a_cluster_is(nodes, ours):
    assert is_ours(nodes, record()) is ours


def test_a_cluster_that_lost_its_first_member_is_still_known():
    """Members are created side by side, and one may be removed already when whoever removes them is killed."""
    assert is_ours([node(etcd_port=30003)], record(more_etcd_ports=[30002, 30003]))
