"""A verification tells damage of the bytes from trouble on the way to them."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pyrage
import pytest

from bolt_pages import etcd_image, key_value, revision_key, with_trailer
from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import ScratchError, StoreUnavailableError, WrongKeyError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.verification import verify_file
from clusterguard.model.snapshot import Snapshot
from clusterguard.stores import MemoryStore
from clusterguard.stores.encryption import EncryptedStore, Encryption

SNAPSHOT = with_trailer(etcd_image([(revision_key(n), key_value(b"k%d" % n, n, n, 1, b"v")) for n in range(2, 22)]))


def new_encryption():
    identity = pyrage.x25519.Identity.generate()
    return Encryption(recipients=(str(identity.to_public()),), identities=(str(identity),))


ENCRYPTION = new_encryption()


@pytest.fixture
def store(tmp_path):
    """A encrypted store with one snapshot."""
    (tmp_path / "plain.db").write_bytes(SNAPSHOT)
    evidence = verify_file(tmp_path / "plain.db")
    structure = evidence.structure
    record = Snapshot(
        name="before", key="before.db", taken=datetime(2026, 6, 1, tzinfo=UTC), revision=structure.revision,
        total_keys=structure.client_keys, size=len(SNAPSHOT), etcd_version="3.6.0", storage_version="3.6.0",
        cluster_id="1", member_id="2", member_name="one", sha256=evidence.sha256,
        hash_kv=structure.hash_kv.hash, hash_revision=structure.revision,
        compact_revision=structure.hash_kv.compact_revision, endpoint="http://127.0.0.1:2379",
    )  # fmt: skip
    encrypted = EncryptedStore(MemoryStore(), ENCRYPTION)
    for key, data in (("before.db", SNAPSHOT), ("before.json", record.to_json().encode())):
        with encrypted.put(key) as writer:
            writer.write(data)
    return encrypted


def checks(store, **options):
    report = EtcdSnapshotter(store=store, **options).verify("before")
    return {check.name: check.ok for check in report.checks}


def test_encrypted_bytes_that_were_cut_are_a_finding(store):
    inner = store.inner
    with inner.get("before.db.zst.age") as reader:
        cut = reader.read()[:-7]
    with inner.put("before.db.zst.age", overwrite=True) as writer:
        writer.write(cut)
    assert checks(store) == {"bytes": False}


def test_bytes_that_are_gone_are_a_finding(store):
    store.inner.delete("before.db.zst.age")
    assert checks(store) == {"bytes": False}


@pytest.mark.parametrize("encryption", [new_encryption(), Encryption()], ids=["another key", "no key"])
def test_a_key_that_does_not_open_them_is_none(store, encryption):
    with pytest.raises(WrongKeyError):
        checks(EncryptedStore(store.inner, encryption))


def test_a_store_that_does_not_answer_is_none(store):
    error = StoreUnavailableError("503")
    real = store.inner.get
    store.inner.get = lambda key: real(key) if key.endswith(".json") else (_ for _ in ()).throw(error)
    with pytest.raises(StoreUnavailableError):
        checks(store)


def test_no_room_in_the_scratch_folder_is_none(store, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(ScratchError):
        checks(store)


def test_a_certificate_that_cannot_be_read_leaves_the_file_proven(store, tmp_path):
    access = EtcdAccess(endpoints=("https://127.0.0.1:2379",), ca=tmp_path / "ca.crt")
    assert checks(store, access=access) == {"bytes": True, "structure": True, "record": True, "live HashKV": None}
