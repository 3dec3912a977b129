"""A copy is re-encrypted; killed at any moment it stays readable, and the next attempt finishes the work."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pyrage
import pytest
from policy_worlds import Killed, Mortal

from clusterguard.errors import (
    ObjectCorruptError,
    ObjectNotFoundError,
    RunInProgressError,
    SnapshotCorruptError,
    StoreError,
    WrongKeyError,
)
from clusterguard.model.snapshot import Snapshot
from clusterguard.policies.copies.rotation import reencrypt_copy
from clusterguard.stores import MemoryStore, PrefixedStore
from clusterguard.stores.encryption import EncryptedStore, Encryption

DATA = os.urandom(3 << 20)
NAME, SOURCE = "main-20300131T020000Z", "main"
NEIGHBOUR = f"{NAME}-2"


def new_encryption(**more):
    identity = pyrage.x25519.Identity.generate()
    return Encryption(recipients=(str(identity.to_public()),), identities=(str(identity),), **more)


OLD, NEW = new_encryption(), new_encryption(compression_level=None)


@pytest.fixture
def root():
    return prepared(Mortal())


def prepared(store, encryption=OLD):
    """Put one backup there as a run does, and a neighbour whose name begins alike."""
    for name in (NAME, NEIGHBOUR):
        folder = EncryptedStore(PrefixedStore(store, SOURCE), encryption)
        with folder.put(f"{name}.db") as writer:
            writer.write(DATA)
        stored = folder.stored(f"{name}.db")
        record = Snapshot(
            name=name,
            key=f"{name}.db",
            taken=datetime(2030, 1, 31, 2, tzinfo=UTC),
            revision=7,
            total_keys=3,
            size=len(DATA),
            etcd_version="3.7.3",
            storage_version="3.7.0",
            cluster_id="1",
            member_id="2",
            member_name="m",
            sha256=hashlib.sha256(DATA).hexdigest(),
            hash_kv=1,
            hash_revision=7,
            compact_revision=-1,
            endpoint="https://127.0.0.1:2379",
            extra=MappingProxyType(
                {"run": "r1", "sealed": True, "stored_key": stored.key, "stored_sha256": stored.sha256}
            ),
        )
        with folder.put(f"{name}.json") as writer:
            writer.write(record.to_json().encode())
    if isinstance(store, Mortal):
        store.moments.clear()
    return store


def record_of(root):
    with root.get(f"{SOURCE}/{NAME}.json") as reader:
        return Snapshot.from_json(reader.read())


def readable(root, *encryptions):
    """Return what the record names, opened by whichever key does."""
    key = record_of(root).key
    for encryption in encryptions:
        store = EncryptedStore(PrefixedStore(root, SOURCE), encryption)
        with suppress(WrongKeyError), store.get(key) as reader:
            return reader.read()
    raise AssertionError(f"{key} cannot be opened")


def objects(root):
    return [info.key for info in root.list(f"{SOURCE}/{NAME}") if ".db" in info.key and NEIGHBOUR not in info.key]


def reencrypt(root, **more):
    return reencrypt_copy(root, SOURCE, NAME, **{"old": OLD, "new": NEW, **more})


class TestWithoutLeave:
    """Whoever holds no lease any more replaces and removes nothing."""

    @pytest.mark.parametrize("at", [1, 2])
    def test_nothing_is_replaced_or_removed(self, root, at):
        before, asked = record_of(root), iter(range(1, at))

        def confirm():
            if next(asked, None) is None:
                raise RunInProgressError("another run took over")

        with pytest.raises(RunInProgressError):
            reencrypt(root, confirm=confirm)
        assert f"{SOURCE}/{before.extra['stored_key']}" in objects(root)
        assert readable(root, OLD, NEW) == DATA
        if at == 1:
            assert record_of(root) == before
            assert len(objects(root)) == 1

    def test_leave_is_asked_for_before_the_record_and_before_the_removal(self, root):
        reencrypt(root, confirm=lambda: root.moments.append("asked"))
        first, second = (place for place, what in enumerate(root.moments) if what == "asked")
        changes = [
            place for place, what in enumerate(root.moments) if what.startswith("before putting") and "json" in what
        ]
        removals = [place for place, what in enumerate(root.moments) if what.startswith("before removing")]
        assert first < min(changes) <= max(changes) < second < min(removals)


class TestWhatItLeaves:
    def test_one_object_that_only_the_new_key_opens(self, root):
        made = reencrypt(root)
        assert objects(root) == [f"{SOURCE}/{made.key}"]
        assert readable(root, NEW) == DATA
        with pytest.raises(AssertionError):
            readable(root, OLD)

    def test_the_record_names_it_and_keeps_the_rest(self, root):
        before = record_of(root)
        made = reencrypt(root)
        after = record_of(root)
        assert after.key != before.key
        assert after.key.startswith(f"{NAME}~")
        with root.get(f"{SOURCE}/{made.key}") as reader:
            stored = reader.read()
        told = {"stored_key": made.key, "stored_sha256": hashlib.sha256(stored).hexdigest(), "stored_size": len(stored)}
        assert after.extra == {"run": "r1", "sealed": True, **told}
        assert (made.sha256, made.size) == (told["stored_sha256"], told["stored_size"])
        assert (after.sha256, after.size, after.revision, after.taken) == (
            before.sha256,
            before.size,
            before.revision,
            before.taken,
        )

    def test_the_neighbour_is_untouched(self, root):
        before = {info.key: info.size for info in root.list() if NEIGHBOUR in info.key}
        reencrypt(root)
        assert {info.key: info.size for info in root.list() if NEIGHBOUR in info.key} == before

    def test_whoever_only_writes_re_encrypts_too(self, root):
        made = reencrypt(root, new=Encryption(recipients=NEW.recipients))
        assert readable(root, NEW) == DATA
        assert made.key.endswith(".db.zst.age")

    def test_encryption_may_begin_and_end(self):
        root = prepared(MemoryStore(), Encryption())
        reencrypt(root, old=Encryption(), new=NEW)
        assert record_of(root).extra["sealed"] is True
        reencrypt(root, old=NEW, new=Encryption())
        assert record_of(root).extra["sealed"] is False
        assert readable(root, Encryption()) == DATA


def moments():
    store = prepared(Mortal())
    reencrypt(store)
    return store.moments


MOMENTS = moments()


class TestKilled:
    def test_there_are_enough_moments(self):
        assert len(MOMENTS) >= 11

    @pytest.mark.parametrize("number", range(len(MOMENTS)))
    def test_at_any_moment_the_backup_stays_readable_and_the_next_attempt_finishes(self, root, number):
        root.left = number
        with pytest.raises(Killed):
            reencrypt(root)
        root.left = None
        assert readable(root, OLD, NEW) == DATA
        try:
            reencrypt(root)
        except WrongKeyError:  # the record names the new object already
            reencrypt(root, old=NEW)
        assert readable(root, NEW) == DATA
        assert len(objects(root)) == 1

    @pytest.mark.parametrize("number", range(len(MOMENTS)))
    def test_with_both_keys_at_hand_the_next_attempt_need_not_know(self, root, number):
        both = Encryption(recipients=NEW.recipients, identities=(*OLD.identities, *NEW.identities))
        root.left = number
        with pytest.raises(Killed):
            reencrypt(root)
        root.left = None
        reencrypt(root, old=both)
        assert readable(root, NEW) == DATA
        assert len(objects(root)) == 1


class Forgetful(MemoryStore):
    """Gives other bytes back than it was given, once they are encrypted anew."""

    def get(self, key):
        if "~" in key and self._objects[key][0][-1:]:
            data, *rest = self._objects[key]
            self._objects[key] = (data[:-1] + bytes([data[-1] ^ 1]), *rest)
        return super().get(key)


class TestRefusals:
    def test_the_wrong_old_key(self, root):
        before = dict(root._objects)
        with pytest.raises(WrongKeyError):
            reencrypt(root, old=NEW)
        assert root._objects == before

    def test_old_bytes_that_are_not_those_of_the_record(self, root):
        other = EncryptedStore(PrefixedStore(root, SOURCE), OLD)
        with other.put(f"{NAME}.db", overwrite=True) as writer:
            writer.write(DATA[:-1] + b"?")
        before = dict(root._objects)
        with pytest.raises(ObjectCorruptError, match="not those of the record"):
            reencrypt(root)
        assert root._objects == before

    @pytest.mark.parametrize("new", [NEW, Encryption(recipients=NEW.recipients)], ids=["opened", "bytes"])
    def test_new_bytes_that_come_back_otherwise(self, new):
        root = prepared(Forgetful())
        with pytest.raises(ObjectCorruptError):
            reencrypt(root, new=new)
        assert objects(root) == [f"{SOURCE}/{NAME}.db.zst.age"]
        assert readable(root, OLD) == DATA

    def test_no_such_backup(self, root):
        with pytest.raises(ObjectNotFoundError):
            reencrypt_copy(root, SOURCE, "none", old=OLD, new=NEW)

    def test_a_record_that_cannot_be_read(self, root):
        with root.put(f"{SOURCE}/{NAME}.json", overwrite=True) as writer:
            writer.write(b"{" * 70_000)
        with pytest.raises(SnapshotCorruptError):
            reencrypt(root)

    def test_an_object_that_a_lock_holds(self):
        class Locking(MemoryStore):
            until = datetime(2030, 3, 1, tzinfo=UTC)

            def locked_until(self, key):
                return self.until

        root = prepared(Locking())
        with pytest.raises(StoreError) as caught:
            reencrypt(root, now=lambda: root.until - timedelta(days=1))
        assert (caught.value.code, caught.value.fields["until"]) == ("object-locked", root.until)
        assert objects(root) == [f"{SOURCE}/{NAME}.db.zst.age"]
        reencrypt(root, now=lambda: root.until)
        assert readable(root, NEW) == DATA
