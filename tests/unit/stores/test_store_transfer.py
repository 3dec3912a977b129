from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import (
    ConfigError,
    ObjectExistsError,
    ObjectNotFoundError,
    ScratchError,
    StoreUnavailableError,
)
from clusterguard.process import run
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
        with pytest.raises(StoreUnavailableError) as caught:
            copy_object(source, "a", target)
        assert (caught.value.code, caught.value.fields) == ("object-cut-off", {"key": "a", "read": 3, "size": 6})
        assert list(target.list()) == []


class TestLocalCopy:
    def test_of_a_directory_is_the_objects_own_file(self, tmp_path):
        store = LocalStore(tmp_path)
        put(store, "a/b.db", b"bytes")
        with local_copy(store, "a/b.db") as path:
            assert path == tmp_path / "a" / "b.db"
        assert path.read_bytes() == b"bytes"

    def test_of_another_store_has_no_name_and_goes_with_the_block(self, tmp_path):
        store = MemoryStore()
        put(store, "a/b.db", b"bytes")
        with local_copy(store, "a/b.db", scratch=tmp_path) as path:
            assert list(tmp_path.iterdir()) == []
            assert path.read_bytes() == path.read_bytes() == b"bytes"
            assert run(["cat", path], timeout_seconds=10).stdout == "bytes"
        assert not path.exists()

    def test_goes_after_an_error_of_the_caller_too(self, tmp_path):
        store = MemoryStore()
        put(store, "a", b"bytes")
        with pytest.raises(ZeroDivisionError), local_copy(store, "a", scratch=tmp_path) as path:
            raise ZeroDivisionError
        assert not path.exists()

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
        with pytest.raises(ScratchError) as raised, local_copy(store, "a", scratch=tmp_path):
            pass
        assert "--scratch" in raised.value.hint

    def test_that_runs_out_of_room_leaves_nothing(self, tmp_path, largest_file):
        store = MemoryStore()
        put(store, "a", bytes(3 << 20))
        with largest_file(1 << 20), pytest.raises(ScratchError) as raised, local_copy(store, "a", scratch=tmp_path):
            pass
        assert raised.value.__cause__.errno == errno.EFBIG
        assert list(tmp_path.iterdir()) == []

    def test_of_a_source_that_stops_early_is_refused(self, tmp_path):
        store = CutShort()
        put(store, "a", b"abcdef")
        with (
            pytest.raises(StoreUnavailableError) as caught,
            local_copy(store, "a", scratch=tmp_path),
        ):
            pass
        assert (caught.value.code, caught.value.fields) == ("object-cut-off", {"key": "a", "read": 3, "size": 6})
        assert list(tmp_path.iterdir()) == []

    def test_into_a_directory_that_is_not_there(self, tmp_path):
        store = MemoryStore()
        put(store, "a", b"")
        with pytest.raises(ConfigError, match="nowhere"), local_copy(store, "a", scratch=tmp_path / "nowhere"):
            pass
