"""Saving from releases of etcd that clusters still run, and from what only looks like etcd."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
from etcd_proxy import http_1_proxy

from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import EtcdError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.member import EtcdMember
from clusterguard.process import run, spawn, tail
from clusterguard.stores import LocalStore
from etcd_member import free_port, member
from other_versions import etcd_programs, kine_program

# The first builds compile for minutes, all others for seconds.
pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(1800)]

VERSIONS = ["3.4.13", "3.5.9", "3.5.35", "3.6.16"]


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def outcomes(report):
    return {check.name: check.ok for check in report.checks}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_snapshot_of_any_release_is_compared_with_its_member(version, tmp_path, store):
    # The gateway has a route for HashKV since 3.5.10 only.
    with member(etcd_programs(version)["etcd"], tmp_path / "etcd") as started:
        started.put("/a", "/b", "/c")
        started.compact(started.delete("/b"))
        started.put("/d")
        snapshotter = EtcdSnapshotter(store=store, access=started.access)
        snapshot = snapshotter.save("s")
        assert (snapshot.etcd_version, snapshot.total_keys, snapshot.member_name) == (version, 3, "m1")
        assert outcomes(snapshotter.verify("s")) == {
            "bytes": True,
            "structure": True,
            "record": True,
            "live HashKV": True,
        }


def test_a_hash_that_cannot_be_had_is_told_once_and_rightly(tmp_path, store):
    with member(etcd_programs("3.5.9")["etcd"], tmp_path / "etcd") as started:
        started.put("/a")
        EtcdSnapshotter(store=store, access=started.access).save("s")
        with http_1_proxy(started.port) as access:
            live = EtcdSnapshotter(store=store, access=access).verify("s").checks[-1]
    assert (live.name, live.ok) == ("live HashKV", None)
    (reason,) = live.unasked
    assert "no maintenance/hashkv in its JSON gateway" in reason
    assert live.detail.count(reason) == 1


def test_3_4_by_configuration_file_has_no_gateway(tmp_path, store, toolchain):
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    (tmp_path / "etcd.yaml").write_text(
        f"name: m1\ndata-dir: {tmp_path / 'data'}\n"
        f"listen-client-urls: {client}\nadvertise-client-urls: {client}\n"
        f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: m1={peer}\n"
    )
    access = EtcdAccess(endpoints=(client,))
    with running([etcd_programs("3.4.13")["etcd"], f"--config-file={tmp_path / 'etcd.yaml'}"], access, tmp_path):
        etcdctl = toolchain.ensure("etcdctl")["etcdctl"]
        run([etcdctl, "--endpoints", client, "put", "/a", "v"], timeout_seconds=30)
        snapshotter = EtcdSnapshotter(store=store, access=access)
        assert snapshotter.save("s").total_keys == 1
        assert outcomes(snapshotter.verify("s"))["live HashKV"]


def test_kine_is_recognised(tmp_path, store):
    access = EtcdAccess(endpoints=(f"http://127.0.0.1:{free_port()}",))
    kine = [kine_program(), f"--endpoint=sqlite://{tmp_path}/kine.db", "--metrics-bind-address=0"]
    listening = f"--listen-address={access.endpoints[0].replace('http', 'tcp')}"
    with running([*kine, listening], access, tmp_path):
        for user in (None, "root"):  # it has no service for authentication either
            asked = EtcdAccess(endpoints=access.endpoints, username=user, password=user)
            with pytest.raises(EtcdError) as raised:
                EtcdSnapshotter(store=store, access=asked).save("s")
            assert raised.value.code == "kine"
            assert "back up its database" in raised.value.hint
    assert list(store.list()) == []


@contextmanager
def running(argv, access, folder):
    """Run a server until it answers in gRPC, whatever it answers."""
    process = spawn(argv, log=folder / "log")
    try:
        deadline = time.monotonic() + 30
        while not answers(access):
            assert process.alive(), tail(folder / "log")
            assert time.monotonic() < deadline, tail(folder / "log")
            time.sleep(0.05)
        yield
    finally:
        process.stop(grace_seconds=0)


def answers(access):
    with EtcdMember(access, access.endpoints[0]) as one:
        try:
            return one.status().has_leader
        except EtcdError as error:
            return error.code == "kine"
