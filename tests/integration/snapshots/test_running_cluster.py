"""The law on a cluster at work, with its controllers, scheduler and simulated nodes: read is what is served."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_objects import OBJECTS, WIDGET, differences
from what_comes_back import fill

from clusterguard import EmbeddedCluster, EtcdSnapshotter, SnapshotReader
from clusterguard.errors import ResourceNotFoundError
from clusterguard.stores import LocalStore

pytestmark = pytest.mark.programs

# What changes by itself every few seconds in a cluster that nobody touches.
RESTLESS = {"leases.coordination.k8s.io", "nodes", "events"}


@pytest.fixture(scope="module")
def cluster(toolchain, tmp_path_factory):
    with EmbeddedCluster(toolchain=toolchain, home=tmp_path_factory.mktemp("clusters")) as running:
        yield running


@pytest.fixture(scope="module")
def api(cluster):
    api = cluster.api
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "law"}})
    for item in OBJECTS:
        api.apply(item, namespace="law")
    api.await_kind(WIDGET)
    api.apply(WIDGET, namespace="law")
    fill(api)  # objects of every kind, filled in, and what controllers make of them
    return api


def served(api, item):
    resource = api.resource(item["kind"], api_version=item["apiVersion"])
    return api.get(resource, item["metadata"]["name"], item["metadata"].get("namespace"))


def compared(cluster, api, folder):
    """Save a snapshot and compare it; return what was equal, and what has moved since."""
    EtcdSnapshotter(store=LocalStore(folder), access=cluster.etcd).save("now")
    (path,) = folder.rglob("*.db")
    equal, moved = [], []
    with SnapshotReader(path=path, kubernetes=api.server_version()) as reader:
        for each in reader.objects():
            assert each.error is None
            try:
                now = served(api, each.data)
            except ResourceNotFoundError:
                moved.append(each.key)
                continue
            if now["metadata"]["resourceVersion"] != each.data["metadata"]["resourceVersion"]:
                moved.append(each.key)
                continue
            assert list(differences(each.data, now)) == [], str(each.key)
            equal.append(each.key)
        assert not reader.unknown_fields
    return equal, moved


def test_what_is_read_is_what_is_served(cluster, api, tmp_path):
    for number in range(20):  # until the controllers have done with what was created
        equal, moved = compared(cluster, api, tmp_path / str(number))
        if {key.resource for key in moved} <= RESTLESS:
            break
    assert {key.resource for key in moved} <= RESTLESS
    assert len(equal) > 350
    kinds = {key.resource for key in equal}
    # Every kind that can be created here, but for those that are never at rest, and those that are not stored.
    created = {f"{each.plural}.{each.group}".rstrip(".") for each in api.resources() if {"create", "get"} <= each.verbs}
    assert created - kinds <= RESTLESS | {"events.events.k8s.io"}


def test_an_older_state_is_read_from_the_history(cluster, api, tmp_path):
    name = {"name": "changing", "namespace": "law"}
    seen = []
    for text in ("one", "two"):
        item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": {"text": text}}
        seen.append(api.apply(item))
    api.delete(api.resource("ConfigMap"), "changing", "law")
    EtcdSnapshotter(store=LocalStore(tmp_path / "store"), access=cluster.etcd).save("now")
    (path,) = (each for each in Path(tmp_path / "store").rglob("*.db"))
    with SnapshotReader(path=path) as reader:
        changes = reader.history("cm", "changing", namespace="law")
        assert [str(each.revision) for each in changes[:2]] == [one["metadata"]["resourceVersion"] for one in seen]
        assert [reader.read(each) for each in changes[:2]] == seen
        assert changes[2].is_deletion
        with pytest.raises(ResourceNotFoundError):
            reader.get("cm", "changing", namespace="law")
