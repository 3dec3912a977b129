"""What every object store must do, as tests to inherit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

import pytest

from clusterguard.errors import ConfigError, ObjectChangedError, ObjectExistsError, ObjectNotFoundError, StoreError
from clusterguard.stores.base import PARTIAL, ObjectInfo, ObjectStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["ObjectStoreContract"]

_BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "../a",
    "a/.",
    "a\nb",
    "a\x00b",
    "a\x7fb",
    "\ud800",
    "k" * 1025,
    "ü" * 513,
    f"{PARTIAL}/a",
]


class _Interrupted(Exception):  # noqa: N818 - it stands for anything that leaves the block
    """What a test leaves a ``with`` block by."""


class ObjectStoreContract:
    """Inherit it and override the fixture ``store`` to test a store of your own.

    ::

        class TestMyStore(ObjectStoreContract):
            @pytest.fixture
            def store(self, tmp_path):
                return MyStore(tmp_path)

    Attributes:
        large: Bytes of the objects that shall need more than one part.
        many: Keys that shall need more than one page.
        exact_sizes: Whether sizes are those of what ``get`` gives; else those of what is stored.
        has_versions: Whether a certain version of an object can be replaced; several stores together have none.
    """

    large: ClassVar[int] = (17 << 20) + 13
    many: ClassVar[int] = 1003
    exact_sizes: ClassVar[bool] = True
    has_versions: ClassVar[bool] = True

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return an empty store of the kind under test."""
        raise NotImplementedError("override the fixture `store` with one that returns an empty store")

    def test_is_an_object_store(self, store: ObjectStore) -> None:
        """The port is there, and the location is told."""
        assert isinstance(store, ObjectStore)
        assert ":" in store.url

    def test_a_new_store_is_empty(self, store: ObjectStore) -> None:
        """Nothing is listed before anything was put."""
        assert list(store.list()) == []

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5], ids=["empty", "one", "small"])
    def test_gives_back_what_was_put(self, store: ObjectStore, data: bytes) -> None:
        """Bytes, size and time come back."""
        before = datetime.now(UTC)
        _put(store, "a/b.db", data)
        _require_same(_get(store, "a/b.db"), data)
        info = store.stat("a/b.db")
        assert info.key == "a/b.db"
        assert info.encoded is not self.exact_sizes
        _require_size(info, len(data))
        assert info.modified.utcoffset() == timedelta(0)
        assert abs(info.modified - before) < timedelta(minutes=1)

    def test_gives_back_a_large_object_written_in_odd_pieces(self, store: ObjectStore) -> None:
        """Pieces smaller, larger and much larger than any inner buffer join in order."""
        data = _numbered(self.large)
        with store.put("large") as writer:
            at = 0
            for size in (1, 4095, 65537, 3_000_001, 0, self.large):
                writer.write(data[at : at + size])
                at += size
        _require_size(store.stat("large"), self.large)
        _require_same(_get(store, "large", size=99_991), data)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_takes_every_kind_of_buffer(self, store: ObjectStore, kind: type[bytes | bytearray | memoryview]) -> None:
        """What may be written is what the port says."""
        with store.put("buffer") as writer:
            writer.write(kind(b"abc"))
        _require_same(_get(store, "buffer"), b"abc")

    @pytest.mark.parametrize("piece", [7, 1 << 20])
    def test_a_written_buffer_may_be_reused_at_once(self, store: ObjectStore, piece: int) -> None:
        """A caller reads into one buffer again and again."""
        buffer = bytearray(piece)
        count = self.large // piece if piece > 7 else 100
        with store.put("reused") as writer:
            for number in range(count):
                buffer[:] = bytes([number % 251]) * piece
                writer.write(memoryview(buffer))
            buffer[:] = b"\xff" * piece
        _require_same(_get(store, "reused"), b"".join(bytes([n % 251]) * piece for n in range(count)))

    def test_reads_no_more_than_asked_for(self, store: ObjectStore) -> None:
        """A read is at most its size, empty only at the end, and stays empty there."""
        _put(store, "abc", b"abcdefg")
        with store.get("abc") as reader:
            pieces = list(iter(lambda: reader.read(3), b""))
            assert reader.read(3) == b""
            assert reader.read() == b""
        _require_same(b"".join(pieces), b"abcdefg")
        assert max(map(len, pieces)) <= 3

    def test_a_read_may_be_given_up(self, store: ObjectStore) -> None:
        """Leaving a read in the middle harms nothing."""
        data = _numbered(self.large)
        _put(store, "large", data)
        with store.get("large") as reader:
            _require_same(reader.read(10), data[:10])
        _require_same(_get(store, "large"), data)

    @pytest.mark.parametrize("size", [3, 17 << 20], ids=["small", "large"])
    def test_an_object_is_invisible_until_it_is_whole(self, store: ObjectStore, size: int) -> None:
        """While it is written, nobody sees it; afterwards, everybody does."""
        with store.put("slow") as writer:
            writer.write(bytes(size))
            assert list(store.list()) == []
            with pytest.raises(ObjectNotFoundError):
                store.stat("slow")
        assert [info.key for info in store.list()] == ["slow"]

    @pytest.mark.parametrize("size", [3, 17 << 20], ids=["small", "large"])
    def test_an_exception_leaves_nothing(self, store: ObjectStore, size: int) -> None:
        """The error comes out unchanged, and the key is still free."""
        with pytest.raises(_Interrupted), store.put("torn") as writer:
            writer.write(bytes(size))
            raise _Interrupted
        assert list(store.list()) == []
        _put(store, "torn", b"whole")
        _require_same(_get(store, "torn"), b"whole")

    @pytest.mark.parametrize("size", [3, 17 << 20], ids=["small", "large"])
    def test_an_exception_leaves_the_old_object(self, store: ObjectStore, size: int) -> None:
        """Overwriting replaces all or nothing."""
        _put(store, "kept", b"old")
        with pytest.raises(_Interrupted), store.put("kept", overwrite=True) as writer:
            writer.write(bytes(size))
            raise _Interrupted
        _require_same(_get(store, "kept"), b"old")

    def test_a_taken_key_is_refused_on_entry(self, store: ObjectStore) -> None:
        """Nobody writes gigabytes only to hear that the key was taken all along."""
        _put(store, "taken", b"old")
        entered = False
        with pytest.raises(ObjectExistsError, match="taken"), store.put("taken"):
            entered = True
        assert not entered
        _require_same(_get(store, "taken"), b"old")

    @pytest.mark.parametrize("size", [3, 17 << 20], ids=["small", "large"])
    def test_a_key_taken_meanwhile_is_refused_at_the_end(self, store: ObjectStore, size: int) -> None:
        """The one who finished first stays."""
        with pytest.raises(ObjectExistsError, match="raced"), store.put("raced") as writer:
            writer.write(bytes(size))
            _put(store, "raced", b"first")
        _require_same(_get(store, "raced"), b"first")

    def test_of_many_writers_of_one_key_one_wins(self, store: ObjectStore) -> None:
        """Exactly one is told that it stored the object, and its bytes are the object."""
        writers = 6
        together = threading.Barrier(writers, timeout=60)

        def write(number: int) -> int | None:
            try:
                with store.put("contended") as writer:
                    writer.write(bytes([number]) * 100_000)
                    together.wait()
            except ObjectExistsError:
                return None
            return number

        with ThreadPoolExecutor(writers) as pool:
            winners = [number for number in pool.map(write, range(writers)) if number is not None]
        assert len(winners) == 1
        _require_same(_get(store, "contended"), bytes(winners) * 100_000)

    @pytest.mark.parametrize("size", [5, 17 << 20], ids=["small", "large"])
    def test_overwriting_replaces(self, store: ObjectStore, size: int) -> None:
        """The old object stays until the new one is whole."""
        _put(store, "same", b"old, and longer than the new one")
        with store.put("same", overwrite=True) as writer:
            writer.write(b"n" * size)
            assert _get(store, "same").startswith(b"old")
        _require_same(_get(store, "same"), b"n" * size)
        (listed,) = store.list()
        _require_size(listed, size)

    def test_overwriting_a_free_key_creates(self, store: ObjectStore) -> None:
        """``overwrite`` allows, it does not demand."""
        with store.put("fresh", overwrite=True) as writer:
            writer.write(b"new")
        _require_same(_get(store, "fresh"), b"new")

    def test_a_version_lasts_as_long_as_the_bytes(self, store: ObjectStore) -> None:
        """``stat`` and ``list`` tell the same one until the object is written again."""
        _put(store, "a", b"first")
        first = store.stat("a").version
        _put(store, "b", b"another object")
        assert store.stat("a").version == first
        assert [info.version for info in store.list("a")] == [first]
        _put(store, "a", b"again", overwrite=True)
        assert (store.stat("a").version != first) is self.has_versions
        assert bool(first) is self.has_versions

    @pytest.mark.parametrize("size", [3, 17 << 20], ids=["small", "large"])
    def test_a_version_is_replaced_once(self, store: ObjectStore, size: int) -> None:
        """Whoever names it first replaces it; whoever names it later is told, and changes nothing."""
        if not self.has_versions:
            return self._require_refusal(store)
        _put(store, "same", b"old")
        seen = store.stat("same").version
        _put(store, "same", b"n" * size, if_version=seen)
        _require_same(_get(store, "same"), b"n" * size)
        with pytest.raises(ObjectChangedError, match="same"):
            _put(store, "same", b"l" * size, if_version=seen)
        _require_same(_get(store, "same"), b"n" * size)
        (listed,) = store.list()
        assert listed.version == store.stat("same").version
        return None

    def test_a_version_that_changes_meanwhile_is_not_replaced(self, store: ObjectStore) -> None:
        """The condition is looked at when the object would appear, not when somebody begins to write it."""
        if not self.has_versions:
            return self._require_refusal(store)
        _put(store, "raced", b"old")
        seen = store.stat("raced").version
        with pytest.raises(ObjectChangedError, match="raced"), store.put("raced", if_version=seen) as writer:
            writer.write(b"late")
            _put(store, "raced", b"first", if_version=seen)
        _require_same(_get(store, "raced"), b"first")
        return None

    @pytest.mark.parametrize("version", ["seen", "of another object", ""])
    def test_what_is_gone_is_not_replaced(self, store: ObjectStore, version: str) -> None:
        """A version never makes an object, neither of a key that had one nor of one that never had."""
        if not self.has_versions:
            return self._require_refusal(store)
        _put(store, "gone", b"old")
        named = store.stat("gone").version if version == "seen" else version
        if version != "seen":
            with pytest.raises(ObjectChangedError, match="gone"):
                _put(store, "gone", b"new", if_version=named)
            _require_same(_get(store, "gone"), b"old")
        store.delete("gone")
        for key in ("gone", "never"):
            with pytest.raises(ObjectChangedError, match=key):
                _put(store, key, b"new", if_version=named)
        assert list(store.list()) == []
        return None

    def test_an_exception_leaves_the_version(self, store: ObjectStore) -> None:
        """A replacement that is given up can be tried again."""
        if not self.has_versions:
            return self._require_refusal(store)
        _put(store, "kept", b"old")
        seen = store.stat("kept").version
        with pytest.raises(_Interrupted), store.put("kept", if_version=seen) as writer:
            writer.write(b"torn")
            raise _Interrupted
        _put(store, "kept", b"whole", if_version=seen)
        _require_same(_get(store, "kept"), b"whole")
        return None

    def test_of_many_writers_that_name_one_version_one_wins(self, store: ObjectStore) -> None:
        """Again and again, with the version that the last winner made."""
        if not self.has_versions:
            return self._require_refusal(store)
        writers, rounds = 6, 10
        _put(store, "contended", b"first")
        for turn in range(rounds):
            seen = store.stat("contended").version
            winners = self._race(store, "contended", [f"{turn}: {each}".encode() for each in range(writers)], seen)
            assert len(winners) == 1
            _require_same(_get(store, "contended"), winners[0])
        return None

    def _race(self, store: ObjectStore, key: str, pieces: Sequence[bytes], version: str) -> list[bytes]:
        together = threading.Barrier(len(pieces), timeout=60)

        def write(data: bytes) -> bool:
            try:
                with store.put(key, if_version=version) as writer:
                    writer.write(data)
                    together.wait()
            except ObjectChangedError:
                return False
            return True

        with ThreadPoolExecutor(len(pieces)) as pool:
            return [data for data, won in zip(pieces, pool.map(write, pieces), strict=True) if won]

    def _require_refusal(self, store: ObjectStore) -> None:
        _put(store, "a", b"old")
        with pytest.raises(ConfigError):
            _put(store, "a", b"new", if_version="any")
        _require_same(_get(store, "a"), b"old")

    @pytest.mark.parametrize("change", ["overwrite", "delete"])
    def test_a_reader_never_mixes_two_versions(self, store: ObjectStore, change: str) -> None:
        """A reader that began before a change gets the old bytes to their end, or an error."""
        _put(store, "versions", b"o" * self.large)
        with store.get("versions") as reader:
            read = reader.read(1000)
            if change == "overwrite":
                _put(store, "versions", b"n" * self.large, overwrite=True)
            else:
                store.delete("versions")
            try:
                read += _rest(reader.read(1 << 20) for _ in iter(int, 1))
            except StoreError:
                assert set(read) == {ord("o")}
            else:
                _require_same(read, b"o" * self.large)

    def test_lists_in_the_order_of_keys(self, store: ObjectStore) -> None:
        """The order is that of code points, which is that of UTF-8, with ``/`` a character like others."""
        keys = [
            "a-b",
            "a.b",
            "a/b",
            "a/b-c/d",
            "a/c",
            "a0",
            "B",
            "b/ä",
            "b/日本",
            "b/z",
            "b/𝄞",
            "ﬁ",
            "ä b+c&d?e#f%41",
        ]
        for key in keys:
            _put(store, key, key.encode())
        assert [info.key for info in store.list()] == sorted(keys)
        for info in store.list():
            _require_size(info, len(info.key.encode()))
        for key in keys:
            _require_same(_get(store, key), key.encode())

    def test_a_prefix_is_text_not_a_directory(self, store: ObjectStore) -> None:
        """A prefix may end in the middle of a name."""
        for key in ("a/b1", "a/b2/c", "a/c", "ab", "b"):
            _put(store, key, b"")
        assert _keys(store.list("a/b")) == ["a/b1", "a/b2/c"]
        assert _keys(store.list("a/b2/")) == ["a/b2/c"]
        assert _keys(store.list("a")) == ["a/b1", "a/b2/c", "a/c", "ab"]
        assert _keys(store.list("a/c/")) == []
        assert _keys(store.list("nothing")) == []

    def test_lists_more_than_a_page(self, store: ObjectStore) -> None:
        """S3 gives a thousand keys at a time; a list gives all of them."""
        keys = [f"many/{number:05}" for number in range(self.many)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: _put(store, key, b"", overwrite=True), keys))
        assert _keys(store.list("many/")) == keys

    def test_a_deleted_object_is_gone(self, store: ObjectStore) -> None:
        """Its neighbours stay, its key is free again, and deleting it twice is no error."""
        _put(store, "d/one", b"1")
        _put(store, "d/two", b"2")
        store.delete("d/one")
        store.delete("d/one")
        assert _keys(store.list()) == ["d/two"]
        _put(store, "d/one", b"again")
        _require_same(_get(store, "d/one"), b"again")

    def test_deleting_what_never_was_is_no_error(self, store: ObjectStore) -> None:
        """Neither is deleting below an object, or what is only the beginning of keys."""
        store.delete("never")
        _put(store, "a/b", b"")
        store.delete("a")
        store.delete("a/b/c")
        assert _keys(store.list()) == ["a/b"]

    @pytest.mark.parametrize("key", ["never", "a", "a/b/c", "a/never"])
    def test_a_missing_object_is_named(self, store: ObjectStore, key: str) -> None:
        """``get`` and ``stat`` say which key has no object; a beginning of other keys has none."""
        _put(store, "a/b", b"")
        with pytest.raises(ObjectNotFoundError, match=key):
            store.stat(key)
        with pytest.raises(ObjectNotFoundError, match=key), store.get(key):
            pass

    def test_a_bad_key_is_refused_by_every_verb(self, store: ObjectStore) -> None:
        """Nothing is touched for a key that not every store could keep."""
        verbs: dict[str, Callable[[str], object]] = {
            "create": lambda key: _put(store, key, b""),
            "put": lambda key: _put(store, key, b"", overwrite=True),
            "replace": lambda key: _put(store, key, b"", if_version="any"),
            "get": lambda key: _get(store, key),
            "stat": store.stat,
            "delete": store.delete,
        }
        for key in _BAD_KEYS:
            for verb, call in verbs.items():
                with pytest.raises(ConfigError):
                    call(key)
                    pytest.fail(f"{verb} takes {key[:12]!a}")
        assert list(store.list()) == []

    def test_one_store_serves_many_threads(self, store: ObjectStore) -> None:
        """Puts and gets of different keys do not disturb each other."""

        def round_trip(number: int) -> bool:
            data = bytes([number]) * 200_000
            _put(store, f"threads/{number}", data)
            return _get(store, f"threads/{number}") == data

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(round_trip, range(24)))


def _require_size(info: ObjectInfo, size: int) -> None:
    """Compare a size, unless the object says that it is the one of encrypted bytes."""
    assert info.size == size or info.encoded


def _put(store: ObjectStore, key: str, data: bytes, *, overwrite: bool = False, if_version: str | None = None) -> None:
    with store.put(key, overwrite=overwrite, if_version=if_version) as writer:
        writer.write(data)


def _require_same(found: bytes, wanted: bytes) -> None:
    """Compare bytes without a diff: pytest spends minutes on one of megabytes, which in CI it does not shorten."""
    if found != wanted:
        pairs = enumerate(zip(found, wanted, strict=False))
        first = next((at for at, (one, other) in pairs if one != other), min(len(found), len(wanted)))
        raise AssertionError(f"{len(found)} bytes came back instead of {len(wanted)}; they differ from byte {first} on")


def _get(store: ObjectStore, key: str, *, size: int = 1 << 20) -> bytes:
    with store.get(key) as reader:
        return _rest(reader.read(size) for _ in iter(int, 1))


def _rest(pieces: Iterator[bytes]) -> bytes:
    return b"".join(iter(lambda: next(pieces), b""))


def _keys(found: Iterable[ObjectInfo]) -> list[str]:
    return [info.key for info in found]


def _numbered(size: int) -> bytes:
    """Return bytes in which every eight tell their place, so that a swap or a gap shows."""
    return b"".join(number.to_bytes(8) for number in range(size // 8 + 1))[:size]
