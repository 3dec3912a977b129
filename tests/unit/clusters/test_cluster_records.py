"""What is written down about embedded clusters, and what is swept by it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace

import pytest

from clusterguard.clusters.embedded import EmbeddedCluster
from clusterguard.clusters.embedded.records import ClusterRecord, Ports, sweep
from clusterguard.clusters.records import read_record, survey, write_record
from clusterguard.errors import ConfigError
from clusterguard.process import ProcessRecord

ME = ProcessRecord.of(os.getpid())
PORTS = Ports(etcd_client=1, etcd_peer=2, api=3)


@pytest.fixture
def gone():
    """A process that ended."""
    child = subprocess.Popen(["/bin/true"])
    record = ProcessRecord.of(child.pid)
    child.wait()
    return record


def record(name="c", owner=ME, **processes):
    return ClusterRecord(
        name=name, created=1.0, owner=owner, ports=PORTS, programs={"etcd": "/opt/etcd"}, processes=processes
    )


def write(home, name, owner, **processes):
    (home / name).mkdir()
    write_record(home / name, record(name, owner, **processes))
    return home / name


def test_a_record_reads_back_as_it_was_written(tmp_path):
    original = record(owner=ME, etcd=ME)
    write_record(tmp_path, original)
    assert read_record(tmp_path, ClusterRecord) == original
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]


def test_a_folder_without_a_record_has_none(tmp_path):
    assert read_record(tmp_path, ClusterRecord) is None
    assert read_record(tmp_path / "nowhere", ClusterRecord) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "c", "owner": 5}', '"x"'])
def test_what_is_no_record_is_named(tmp_path, text):
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_record(tmp_path, ClusterRecord)
    assert (raised.value.code, raised.value.fields) == (
        "not-a-cluster-record",
        {"path": str(tmp_path / "cluster.json")},
    )
    assert str(tmp_path) in raised.value.hint


def test_orphaned_is_who_had_an_owner_and_lost_it(gone):
    assert record(owner=gone).orphaned()
    assert not record(owner=ME).orphaned()
    assert not record(owner=None).orphaned()


def test_a_later_process_with_the_owners_number_is_not_the_owner():
    assert record(owner=replace(ME, started=ME.started - 1)).orphaned()


def test_a_cluster_of_another_container_that_shares_the_folder_is_left_alone():
    assert not record(owner=replace(ME, pid_namespace="pid:[1]", started=0.0)).orphaned()


def test_a_record_of_an_older_release_is_read(tmp_path):
    old = {"name": "c", "created": 1.0, "owner": {"pid": ME.pid, "started": ME.started}}
    old |= {"ports": {"etcd_client": 1, "etcd_peer": 2, "api": 3}, "programs": {}, "processes": {}}
    (tmp_path / "cluster.json").write_text(json.dumps(old))
    assert not read_record(tmp_path, ClusterRecord).orphaned()


def test_running_names_the_programs_that_run(gone):
    assert record(etcd=ME, kwok=gone).running() == ["etcd"]


def test_the_sweep_takes_what_dead_owners_left_and_nothing_else(tmp_path, gone):
    write(tmp_path, "orphan", gone)
    write(tmp_path, "mine", ME)
    write(tmp_path, "kept", None)
    (tmp_path / "being-created").mkdir()
    (tmp_path / "a-file").touch()
    assert sweep(tmp_path) == ["orphan"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-file", "being-created", "kept", "mine"]
    assert sweep(tmp_path) == []


def test_a_folder_that_never_got_a_record_is_swept_once_it_is_old(tmp_path):
    (tmp_path / "half").mkdir()
    assert sweep(tmp_path, now=time.time() + 50) == []
    assert sweep(tmp_path, now=time.time() + 70) == ["half"]


def test_the_sweep_ends_the_processes_too(tmp_path, gone):
    child = subprocess.Popen(["/bin/sleep", "1000"])
    try:
        process = ProcessRecord.of(child.pid)
        write(tmp_path, "orphan", gone, etcd=process)
        assert sweep(tmp_path) == ["orphan"]
        assert not process.alive()
    finally:
        child.kill()
        child.wait()


def test_known_are_the_clusters_that_live(tmp_path, gone):
    for name, owner in (("b-kept", None), ("a-mine", ME), ("orphan", gone)):
        write(tmp_path, name, owner)
    assert [each.name for each in EmbeddedCluster.known(home=tmp_path)] == ["a-mine", "b-kept"]
    assert EmbeddedCluster.sweep(home=tmp_path) == ["orphan"]


def test_a_look_changes_nothing_and_tells_of_what_is_no_cluster(tmp_path, gone):
    write(tmp_path, "mine", ME)
    write(tmp_path, "orphan", gone)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "cluster.json").write_text("{}")
    found = EmbeddedCluster.survey(home=tmp_path)
    assert ([each.name for each in found.known], found.left_behind) == (["mine"], ["orphan"])
    assert [str(tmp_path / "odd") in error.message for error in found.unreadable] == [True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "odd", "orphan"]


def test_a_record_that_cannot_be_read_keeps_no_other_from_being_found_or_swept(tmp_path, gone):
    (tmp_path / "a-odd").mkdir()
    (tmp_path / "a-odd" / "cluster.json").write_text("{}")
    write(tmp_path, "mine", ME)
    write(tmp_path, "orphan", gone)
    assert [each.name for each in EmbeddedCluster.known(home=tmp_path)] == ["mine"]
    assert sweep(tmp_path) == ["orphan"]
    assert (tmp_path / "a-odd" / "cluster.json").is_file()  # nobody knows whose processes it names


def test_no_home_yet_means_no_clusters(tmp_path):
    found = survey(tmp_path / "none", ClusterRecord)
    assert (found.known, found.left_behind, found.unreadable, sweep(tmp_path / "none")) == ([], [], [], [])
