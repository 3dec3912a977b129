"""What a encrypted store does beyond the contract of stores: suffixes, digests, objects that were stored otherwise."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pyrage
import pytest

from clusterguard.errors import ConfigError, ObjectCorruptError, ObjectExistsError, ObjectNotFoundError, WrongKeyError
from clusterguard.stores import LocalStore, MemoryStore, PrefixedStore, copy_object, local_copy, open_store
from clusterguard.stores.encryption import EncryptedStore, Encryption


def new_encryption(**more):
    identity = pyrage.x25519.Identity.generate()
    return Encryption(recipients=(str(identity.to_public()),), identities=(str(identity),), **more)


ENCRYPTED = new_encryption()
ONLY_ENCRYPTED = Encryption(recipients=ENCRYPTED.recipients, identities=ENCRYPTED.identities, compression_level=None)
COMPRESSED = Encryption()
PLAIN = Encryption(compression_level=None)
ALL = [ENCRYPTED, ONLY_ENCRYPTED, COMPRESSED, PLAIN]


def put(store, key, data=b"bytes", *, overwrite=False):
    with store.put(key, overwrite=overwrite) as writer:
        writer.write(data)


def read(store, key):
    with store.get(key) as reader:
        return b"".join(iter(lambda: reader.read(1 << 20), b""))


def keys(store):
    return [info.key for info in store.list()]


class TestSuffixes:
    @pytest.mark.parametrize("encryption", ALL, ids=lambda encryption: encryption.suffix)
    def test_an_object_rests_under_its_key_and_what_was_done_to_it(self, encryption):
        inner = MemoryStore()
        put(EncryptedStore(inner, encryption), "a/NAME.db")
        put(EncryptedStore(inner, encryption), "a/NAME.json", b"{}")
        assert keys(inner) == sorted([f"a/NAME.db{encryption.suffix}", "a/NAME.json"])
        assert read(inner, "a/NAME.json") == b"{}"

    @pytest.mark.parametrize("before", ALL, ids=lambda encryption: encryption.suffix)
    @pytest.mark.parametrize("now", ALL, ids=lambda encryption: encryption.suffix)
    def test_what_was_stored_otherwise_is_found_and_opened(self, before, now):
        """A policy changes, and its old backups stay."""
        inner = MemoryStore()
        put(EncryptedStore(inner, before), "NAME.db", b"old")
        identities = now.identities or (ENCRYPTED.identities if before.encrypts else ())
        recipients = ENCRYPTED.recipients if identities else ()
        store = EncryptedStore(
            inner, Encryption(recipients=recipients, identities=identities, compression_level=now.compression_level)
        )
        assert read(store, "NAME.db") == b"old"
        assert store.stat("NAME.db").key == "NAME.db"
        assert store.stat_stored("NAME.db") == inner.stat(f"NAME.db{before.suffix}")
        assert keys(store) == ["NAME.db"]
        with pytest.raises(ObjectExistsError):
            put(store, "NAME.db")
        put(store, "NAME.db", b"new", overwrite=True)
        assert read(store, "NAME.db") == b"new"
        assert len(keys(inner)) == 1
        store.delete("NAME.db")
        assert keys(inner) == []

    def test_one_that_was_stored_otherwise_meanwhile_takes_the_key(self):
        inner = MemoryStore()
        store = EncryptedStore(inner, ENCRYPTED)
        with pytest.raises(ObjectExistsError), store.put("a") as writer:
            writer.write(b"late")
            put(EncryptedStore(inner, COMPRESSED), "a", b"first")
        assert keys(inner) == ["a.zst"]

    def test_where_an_object_lies_in_two_ways_its_own_counts(self):
        inner = MemoryStore()
        put(EncryptedStore(inner, COMPRESSED), "a", b"old")
        put(inner, "a", b"plain")
        assert read(EncryptedStore(inner, COMPRESSED), "a") == b"old"
        assert read(EncryptedStore(inner, PLAIN), "a") == b"plain"
        (listed,) = EncryptedStore(inner, COMPRESSED).list()
        assert listed.encoded
        (listed,) = EncryptedStore(inner, PLAIN).list()
        assert not listed.encoded

    @pytest.mark.parametrize("key", ["a.zst", "a.age", "a.db.zst.age"])
    def test_a_key_that_looks_encrypted_is_refused(self, key):
        store = EncryptedStore(MemoryStore(), COMPRESSED)
        with pytest.raises(ConfigError, match="encrypted already"):
            put(store, key)
        with pytest.raises(ConfigError, match="encrypted already"):
            store.stat(key)

    def test_neighbours_are_not_taken_for_it(self):
        inner = MemoryStore()
        for key in ("NAME.db-2", "NAME.db.zst.bak", "NAME.dbx.zst", "NAME.db/x.zst"):
            put(inner, key)
        store = EncryptedStore(inner, ENCRYPTED)
        with pytest.raises(ObjectNotFoundError) as caught:
            store.stat("NAME.db")
        assert caught.value.fields == {"key": "NAME.db"}
        store.delete("NAME.db")
        assert len(keys(inner)) == 4

    def test_what_no_encrypted_store_would_write_is_not_listed(self):
        inner = MemoryStore()
        for key in ("a.json.zst", "a.zst.zst", "dir/.age", "a.db.age"):
            put(inner, key)
        assert keys(EncryptedStore(inner, ENCRYPTED)) == ["a.db"]

    def test_a_listing_has_the_order_of_keys_without_their_suffixes(self):
        inner = MemoryStore()
        store = EncryptedStore(inner, ENCRYPTED)
        for key in ("a", "a-b", "a.b", "a.db", "a0"):
            put(store, key)
        assert keys(store) == ["a", "a-b", "a.b", "a.db", "a0"]
        assert keys(inner) != [f"{key}.zst.age" for key in keys(store)]
        assert [info.key for info in store.list("a.d")] == ["a.db"]
        assert list(store.list("a.db.z")) == []


class TestDigest:
    @pytest.mark.parametrize("encryption", ALL, ids=lambda encryption: encryption.suffix)
    def test_it_is_of_the_stored_bytes(self, encryption):
        inner = MemoryStore()
        store = EncryptedStore(inner, encryption)
        put(store, "NAME.db", b"x" * 300_000)
        told, stored = store.stored("NAME.db"), read(inner, f"NAME.db{encryption.suffix}")
        assert (told.key, told.size) == (f"NAME.db{encryption.suffix}", len(stored))
        assert told.sha256 == hashlib.sha256(stored).hexdigest()

    def test_of_a_plain_object_too_and_of_none_that_was_not_put(self):
        store = EncryptedStore(MemoryStore(), ENCRYPTED)
        put(store, "a.json", b"{}")
        assert store.stored("a.json").sha256 == hashlib.sha256(b"{}").hexdigest()
        with pytest.raises(ObjectNotFoundError):
            store.stored("a.db")

    def test_a_put_that_failed_left_none(self):
        store = EncryptedStore(MemoryStore(), ENCRYPTED)
        with pytest.raises(ZeroDivisionError), store.put("a") as writer:
            writer.write(b"x")
            raise ZeroDivisionError
        with pytest.raises(ObjectNotFoundError):
            store.stored("a")


class TestReading:
    def test_without_the_key_it_is_told_and_the_rest_still_works(self):
        inner = MemoryStore()
        put(EncryptedStore(inner, ENCRYPTED), "a")
        writer_only = EncryptedStore(inner, Encryption(recipients=ENCRYPTED.recipients))
        with pytest.raises(WrongKeyError), writer_only.get("a"):
            pass
        assert writer_only.stat("a").size == inner.stat("a.zst.age").size
        put(writer_only, "b", b"more")
        assert read(EncryptedStore(inner, ENCRYPTED), "b") == b"more"

    def test_another_key_is_told(self):
        inner = MemoryStore()
        put(EncryptedStore(inner, ENCRYPTED), "a")
        with pytest.raises(WrongKeyError):
            read(EncryptedStore(inner, new_encryption()), "a")

    @pytest.mark.parametrize("encryption", [ENCRYPTED, COMPRESSED], ids=lambda encryption: encryption.suffix)
    def test_a_local_copy_is_the_opened_object_and_a_cut_one_makes_none(self, encryption, tmp_path):
        inner = MemoryStore()
        store = EncryptedStore(inner, encryption)
        put(store, "a.db", b"x" * 500_000)
        with local_copy(store, "a.db", scratch=tmp_path) as path:
            assert path.read_bytes() == b"x" * 500_000
        put(inner, f"a.db{encryption.suffix}", read(inner, f"a.db{encryption.suffix}")[:-1], overwrite=True)
        with pytest.raises(ObjectCorruptError), local_copy(store, "a.db", scratch=tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_an_object_may_be_copied_from_one_encryption_to_another(self):
        source, target = EncryptedStore(MemoryStore(), ENCRYPTED), EncryptedStore(MemoryStore(), COMPRESSED)
        put(source, "a.db", b"x" * 500_000)
        assert copy_object(source, "a.db", target) == hashlib.sha256(b"x" * 500_000).hexdigest()
        assert read(target, "a.db") == b"x" * 500_000


class _Locking(MemoryStore):
    def locked_until(self, key):
        self.stat(key)
        return datetime(2030, 1, 1, tzinfo=UTC) if key.endswith("held.db.zst") else None


class TestOfTheInnerStore:
    def test_locks_are_asked_for_as_the_objects_lie_there(self):
        inner = _Locking()
        store = PrefixedStore(EncryptedStore(inner, COMPRESSED), "nightly")
        put(store, "held.db")
        put(store, "free.db")
        assert store.locked_until("held.db") == datetime(2030, 1, 1, tzinfo=UTC)
        assert store.locked_until("free.db") is None
        with pytest.raises(ObjectNotFoundError):
            store.locked_until("none.db")

    def test_there_is_no_such_method_where_the_inner_store_has_none(self):
        assert not hasattr(EncryptedStore(MemoryStore(), COMPRESSED), "locked_until")
        assert not hasattr(PrefixedStore(MemoryStore(), "a"), "locked_until")
        assert not hasattr(PrefixedStore(MemoryStore(), "a"), "local_path")

    def test_a_part_of_a_directory_gives_the_files_themselves(self, tmp_path):
        store = PrefixedStore(LocalStore(tmp_path), "teams/blue")
        put(store, "a.db")
        with local_copy(store, "a.db") as path:
            assert path == tmp_path / "teams" / "blue" / "a.db"
        assert path.exists()

    @pytest.mark.parametrize(
        "location",
        ["/var/backups", "s3://bucket/prefix?endpoint=http://127.0.0.1:9000&pathStyle=true", "s3://bucket"],
    )
    def test_the_location_of_a_part_opens_the_part(self, location):
        inner = open_store(location)
        part = open_store(PrefixedStore(inner, "my nightly/é?").url)
        whole = LocalStore._file if isinstance(inner, LocalStore) else type(inner)._place
        assert whole(part, "x") == whole(inner, "my nightly/é?/x")

    def test_a_folder_that_is_no_key_is_refused(self):
        with pytest.raises(ConfigError):
            PrefixedStore(MemoryStore(), "../elsewhere")
