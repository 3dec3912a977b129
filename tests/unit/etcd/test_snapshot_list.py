"""What a list of snapshots says of objects that are none."""

from datetime import UTC, datetime

import pytest

from clusterguard.errors import ConfigError, ObjectNotFoundError, SnapshotCorruptError, StoreUnavailableError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.model.snapshot import Snapshot
from clusterguard.stores.memory import MemoryStore


def record(name, day=1):
    return Snapshot(
        name=name, key=f"{name}.db", taken=datetime(2030, 1, day, tzinfo=UTC), revision=7, total_keys=3, size=4096,
        sha256="0" * 64, etcd_version="3.6.5", storage_version="3.6.0", cluster_id="1", member_id="2", member_name="a",
        endpoint="https://127.0.0.1:2379", hash_kv=1, hash_revision=7, compact_revision=-1,
    )  # fmt: skip


def put(store, key, data):
    with store.put(key) as writer:
        writer.write(data)


@pytest.fixture
def store():
    store = MemoryStore()
    put(store, "later.json", record("later", 2).to_json().encode())
    put(store, "earlier.json", record("earlier", 1).to_json().encode())
    return store


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"", SnapshotCorruptError),
        (b"[]", SnapshotCorruptError),
        (b'{"todo": "buy milk"}', SnapshotCorruptError),
        (b"x" * 100_000, SnapshotCorruptError),
        (b'{"format": 99}', ConfigError),  # of a later release
    ],
)
def test_a_foreign_object_is_named_and_the_others_are_listed(store, text, kind):
    put(store, "notes.json", text)
    listed = EtcdSnapshotter(store=store).list()
    assert [snapshot.name for snapshot in listed] == ["earlier", "later"]
    assert {key: type(error) for key, error in listed.unreadable.items()} == {"notes.json": kind}
    assert "notes.json" in listed.unreadable["notes.json"].message
    with pytest.raises(kind):  # whoever asks for that very one is still told
        EtcdSnapshotter(store=store).find("notes")


def test_a_snapshot_that_is_deleted_meanwhile_is_not_listed(store, monkeypatch):
    get = store.get

    def deleted(key, **options):
        if key == "earlier.json":
            raise ObjectNotFoundError(key)
        return get(key, **options)

    monkeypatch.setattr(store, "get", deleted)
    listed = EtcdSnapshotter(store=store).list()
    assert ([snapshot.name for snapshot in listed], listed.unreadable) == (["later"], {})


@pytest.mark.parametrize("kind", [StoreUnavailableError, ConfigError])
def test_a_store_that_cannot_be_read_is_no_odd_record(store, monkeypatch, kind):
    """Part of the answer is no answer: what a 503 or a missing certificate hides may be the newest snapshot."""

    def away(key, **_):
        raise kind("away")

    monkeypatch.setattr(store, "get", away)
    with pytest.raises(kind):
        EtcdSnapshotter(store=store).list()
