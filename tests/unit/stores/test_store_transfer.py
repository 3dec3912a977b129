from __future__ import annotations

import errno
import hashlib
import os
import resource
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ObjectExistsError, ObjectNotFoundError, StoreError, StoreUnavailableError
from clusterguard.stores import LocalStore, MemoryStore, copy_object, local_copy


def put(store, key, data):
    with store.put(key) as writer:
        writer.write(data)


def get(store, key):
    with store.get(key) as reader:
        return reader.read()


class CutShort(MemoryStore):
    """A store that ends its streams early without saying so."""

    @contextmanager
    def get(self, key):
        with super().get(key) as reader:
            reader.truncate(3)
            yield reader


class TestCopy:
    @given(data=st.binary(max_size=3000))
    def test_the_copy_is_the_object_and_the_digest_is_its_own(self, data):
        source, target = MemoryStore(), MemoryStore()
        put(source, "a", data)
        assert copy_object(source, "a", target) == hashlib.sha256(data).hexdigest()
        assert get(target, "a") == data

    def test_more_than_one_chunk(self, tmp_path):
        data = os.urandom((3 << 20) + 7)
        source, target = MemoryStore(), LocalStore(tmp_path)
        put(source, "a", data)
        assert copy_object(source, "a", target, target_key="b/c") == hashlib.sha256(data).hexdigest()
        assert get(target, "b/c") == data

    def test_a_taken_key_is_refused_unless_overwriting_is_allowed(self):
        source, target = MemoryStore(), MemoryStore()
        put(source, "a", b"new")
        put(target, "a", b"old")
        with pytest.raises(ObjectExistsError):
            copy_object(source, "a", target)
        assert get(target, "a") == b"old"
        copy_object(source, "a", target, overwrite=True)
        assert get(target, "a") == b"new"

    def test_a_missing_object_leaves_nothing_behind(self):
        target = MemoryStore()
        with pytest.raises(ObjectNotFoundError):
            copy_object(MemoryStore(), "a", target)
        assert list(target.list()) == []

    def test_a_source_that_stops_early_leaves_nothing_behind(self):
        source, target = CutShort(), MemoryStore()
        put(source, "a", b"abcdef")
        with pytest.raises(StoreUnavailableError, match="3 bytes were read of an object of 6"):
            copy_object(source, "a", target)
        assert list(target.list()) == []


class TestLocalCopy:
    def test_of_a_directory_is_the_objects_own_file(self, tmp_path):
        store = LocalStore(tmp_path)
        put(store, "a/b.db", b"bytes")
        with local_copy(store, "a/b.db") as path:
            assert path == tmp_path / "a" / "b.db"
        assert path.read_bytes() == b"bytes"

    def test_of_another_store_is_a_private_copy_removed_afterwards(self, tmp_path):
        store = MemoryStore()
        put(store, "a/b.db", b"bytes")
        with local_copy(store, "a/b.db", scratch=tmp_path) as path:
            assert path.name == "b.db"
            assert path.read_bytes() == b"bytes"
            assert path.parent.stat().st_mode & 0o777 == 0o700
            (path.parent / "beside").touch()
        assert list(tmp_path.iterdir()) == []

    def test_is_removed_after_an_error_of_the_caller_too(self, tmp_path):
        store = MemoryStore()
        put(store, "a", b"bytes")
        with pytest.raises(ZeroDivisionError), local_copy(store, "a", scratch=tmp_path):
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("store", [MemoryStore(), LocalStore("/nonexistent")], ids=["memory", "local"])
    def test_of_a_missing_object(self, store, tmp_path):
        with pytest.raises(ObjectNotFoundError), local_copy(store, "a", scratch=tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_that_has_no_room_says_so_before_anything_is_read(self, tmp_path, monkeypatch):
        store = MemoryStore()
        put(store, "a", b"bytes")
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 4}))
        monkeypatch.setattr(store, "get", pytest.fail)
        with (
            pytest.raises(StoreError, match="5 bytes, 4 are free") as raised,
            local_copy(store, "a", scratch=tmp_path),
        ):
            pass
        assert "another scratch directory" in raised.value.hint

    def test_that_runs_out_of_room_leaves_nothing(self, tmp_path):
        store = MemoryStore()
        put(store, "a", bytes(3 << 20))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with (
                pytest.raises(StoreError, match="no room") as raised,
                local_copy(store, "a", scratch=tmp_path),
            ):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert raised.value.__cause__.errno == errno.EFBIG
        assert list(tmp_path.iterdir()) == []

    def test_of_a_source_that_stops_early_is_refused(self, tmp_path):
        store = CutShort()
        put(store, "a", b"abcdef")
        with (
            pytest.raises(StoreUnavailableError, match="3 bytes were read of an object of 6"),
            local_copy(store, "a", scratch=tmp_path),
        ):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_into_a_directory_that_is_not_there(self, tmp_path):
        store = MemoryStore()
        put(store, "a", b"")
        with (
            pytest.raises(StoreError, match="nowhere") as raised,
            local_copy(store, "a", scratch=tmp_path / "nowhere"),
        ):
            pass
        assert "scratch directory" in raised.value.hint
