"""The storages of a drill as Velero sees them: buckets with credentials, each cut off alone."""

from types import SimpleNamespace
from typing import ClassVar

import pytest

from clusterguard.drills.storages import Storages
from clusterguard.errors import DrillError
from clusterguard.stores import LocalStore

STORAGE = {
    "west": {"s3": {"bucket": "drill-west", "endpoint": "local"}},
    "central": {"s3": {"bucket": "drill-central", "endpoint": "local", "prefix": "velero"}},
    "folder": {"directory": {"path": "backups"}},
    "cloud": {"s3": {"bucket": "company-backups", "region": "eu-central-1", "prefix": "drills"}},
    "own-cloud": {"s3": {"bucket": "our-bucket", "endpoint": "https://s3.example.com"}},
}


class FakeServer:
    """Stands in the place of `LocalS3Server`."""

    made: ClassVar[list] = []
    region = "us-east-1"
    endpoint_for_pods = None

    def __init__(self, *, program, folder):
        self.folder, self.running, self.buckets = folder, False, set()
        self.endpoint = f"http://127.0.0.1:{9000 + len(self.made)}"
        self.made.append(self)

    def create_bucket(self, bucket):
        self.buckets.add(bucket)

    def start(self):
        self.running = True
        return self

    def stop(self):
        self.running = False

    def store(self, bucket, prefix=""):
        return SimpleNamespace(server=self, bucket=bucket, prefix=prefix)

    def credentials_file(self):
        return f"keys of {self.endpoint}"

    __enter__ = start

    def __exit__(self, *_):
        self.stop()


@pytest.fixture
def servers(monkeypatch):
    monkeypatch.setattr("clusterguard.drills.servers.local_s3.LocalS3Server", FakeServer)
    tools = SimpleNamespace(ensure=lambda name: {name: "/nowhere/versitygw"})
    monkeypatch.setattr("clusterguard.toolchain.from_environment", lambda *_, **__: tools)
    monkeypatch.setattr(FakeServer, "made", [])
    return FakeServer.made


@pytest.fixture
def storages(load, spec, servers, tmp_path):
    storages = Storages(load(spec | {"storage": STORAGE}), tmp_path / "run", lambda _: None)
    yield storages
    storages.close()


def test_nothing_is_started_before_it_is_used(storages, servers):
    assert servers == []


def test_each_local_storage_is_a_server_of_its_own_with_its_bucket(storages, servers):
    west, central = storages.store("west"), storages.store("central")
    assert west.server is not central.server
    assert west.server.folder != central.server.folder
    assert [server.buckets for server in servers] == [{"drill-west"}, {"drill-central"}]
    assert (central.bucket, central.prefix) == ("drill-central", "velero")
    assert storages.store("west") is west
    assert len(servers) == 2


def test_cutting_one_off_leaves_the_others(storages):
    west, central = storages.store("west"), storages.store("central")
    storages.block("west")
    assert (west.server.running, central.server.running) == (False, True)
    storages.unblock("west")
    assert west.server.running


def test_a_storage_that_was_not_used_yet_can_be_cut_off(storages, servers):
    storages.block("west")
    assert [server.running for server in servers] == [False]


@pytest.mark.parametrize("name", ["folder", "cloud"])
def test_only_servers_of_the_run_can_be_cut_off(storages, name):
    with pytest.raises(DrillError) as seen:
        storages.block(name)
    assert (seen.value.code, seen.value.fields) == ("storage-not-throwaway", {"storage": name})
    assert seen.value.hint


def test_velero_gets_no_directory(storages):
    with pytest.raises(DrillError) as seen:
        storages.velero_location("folder")
    assert seen.value.code == "not-a-bucket"
    assert seen.value.hint


def test_velero_is_told_the_same_place_that_we_read(storages):
    location, store = storages.velero_location("central"), storages.for_velero("central")
    assert (location.bucket, location.prefix) == (store.bucket, store.prefix)
    assert location.config["s3Url"] == store.server.endpoint
    assert location.config["s3ForcePathStyle"] == "true"
    assert location.credentials == store.server.credentials_file()
    assert location.credentials not in repr(location)


def test_velero_reaches_a_bucket_of_the_cloud_by_the_role_of_its_own(storages):
    location = storages.velero_location("cloud")
    assert (location.bucket, location.prefix) == ("company-backups", "drills")
    assert location.config == {"region": "eu-central-1"}
    assert location.credentials is None


def test_another_endpoint_is_told_with_the_style_that_such_servers_need(storages):
    config = storages.velero_location("own-cloud").config
    assert config == {"region": "us-east-1", "s3Url": "https://s3.example.com", "s3ForcePathStyle": "true"}


def test_without_a_storage_velero_gets_a_throwaway_bucket_and_etcd_the_runs_folder(storages, servers, tmp_path):
    location, store = storages.velero_location(None), storages.for_velero(None)
    assert location.bucket == store.bucket
    assert storages.for_velero(None).server is store.server
    assert len(servers) == 1
    assert isinstance(storages.store(None), LocalStore)


def test_at_the_end_things_are_done_last_first_while_servers_serve_and_then_these_stop(storages, servers):
    done = []
    storages.before_close(lambda: done.append(("first", servers[0].running)))
    storages.before_close(lambda: done.append(("second", servers[0].running)))
    storages.store("west")
    storages.close()
    assert done == [("second", True), ("first", True)]
    assert not servers[0].running


def test_servers_stop_whatever_becomes_of_what_was_to_be_done_before(storages, servers):
    def fail():
        raise DrillError("no")

    storages.before_close(fail)
    storages.store("west")
    with pytest.raises(DrillError):
        storages.close()
    assert not servers[0].running


# ---- for pods


class FakeContainer(FakeServer):
    """Stands in the place of `ContainerS3Server`."""

    endpoint_for_pods = "http://clusterguard-s3:7070"

    def __init__(self, *, network):
        super().__init__(program=None, folder=network)


def test_what_pods_use_is_a_server_that_they_reach_and_so_do_we(storages, servers, monkeypatch):
    monkeypatch.setattr("clusterguard.drills.servers.container_s3.ContainerS3Server", FakeContainer)
    storages.serve_pods("kind")
    location = storages.velero_location("west", in_pods=True)
    assert [server.folder for server in servers] == ["kind"]
    assert location.config["s3Url"] == "http://clusterguard-s3:7070"
    assert location.config["publicUrl"] == servers[0].endpoint == storages.store("west").server.endpoint


def test_a_velero_beside_the_cluster_gets_the_address_of_this_machine(storages, servers, monkeypatch):
    monkeypatch.setattr("clusterguard.drills.servers.container_s3.ContainerS3Server", FakeContainer)
    storages.serve_pods("kind")
    config = storages.velero_location("west", in_pods=False).config
    assert (config["s3Url"], "publicUrl" in config) == (servers[0].endpoint, False)


def test_pods_are_not_sent_to_a_server_that_they_do_not_reach(storages):
    with pytest.raises(DrillError) as seen:
        storages.velero_location("west", in_pods=True)
    assert (seen.value.code, seen.value.fields) == ("storage-not-reachable", {"storage": "west"})
    assert seen.value.hint
