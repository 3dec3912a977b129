"""Where in a snapshot the records of keys lie, found without reading any value.

etcd's bucket is ordered by revision, not by key. So there are two ways: `live` walks all leaves once and remembers
where the newest record of each key is; `history` looks for one key's bytes in the whole file, which is many times
faster, and asks the tree whether what lies there is a record of it: free pages hold old ones, values can hold anything.
"""

from __future__ import annotations

import struct
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from clusterguard.etcd import mvcc
from clusterguard.etcd.bolt_leaves import ELEMENT, ELEMENTS_AT, corrupt
from clusterguard.etcd.protobuf import length_delimited, places_of

if TYPE_CHECKING:
    from clusterguard.errors import SnapshotCorruptError
    from clusterguard.etcd.boltdb import BoltFile

__all__ = ["Keyspace", "Record", "size_at"]

_U64 = struct.Struct(">Q")
_REVISION, _DELETION = 17, 18  # lengths of the bucket's keys
_SEPARATOR = ord("_")
_KEY, _VALUE = 1, 5  # fields of KeyValue; the numbers are create_revision, mod_revision, version and lease
_NUMBERS = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6
_KEY_TAG, _SHORT = 0x0A, 0x7F
_SIZE_BITS = 32


def size_at(place: int) -> int:
    """Return how many bytes a record has that `Keyspace.live` found."""
    return place & (1 << _SIZE_BITS) - 1


class Record(NamedTuple):
    """One change of one key.

    Attributes:
        revision: Of the change.
        offset: Where its KeyValue lies in the file.
        size: Bytes of it; 0 for a deletion.
    """

    revision: int
    offset: int
    size: int

    @property
    def is_deletion(self) -> bool:
        """Whether the key was removed by it."""
        return self.size == 0


class Keyspace:
    """The keys of one database.

    Args:
        db: The file.

    Raises:
        SnapshotCorruptError: It is not etcd's database, or a page is broken.
    """

    def __init__(self, db: BoltFile) -> None:
        self._db = db
        self._lock = Lock()  # walking a tree uses what the file read last
        self._bucket = mvcc.key_bucket(db.buckets(db.ledger()))
        last = db.last_key(self._bucket)
        self.revision = 0 if last is None else _U64.unpack_from(last)[0]

    def live(self) -> dict[bytes, int]:
        """Return the newest record of each key that was not removed, in no order, for `record` to take apart.

        Raises:
            SnapshotCorruptError: A page or a record is broken.
        """
        with self._lock:
            return self._live()

    def _live(self) -> dict[bytes, int]:
        # This runs once for every record of the database: what it does not do costs nothing.
        found: dict[bytes, int] = {}
        unpack = ELEMENT.iter_unpack
        for data, base, counts in self._db.runs(self._bucket, self._db.ledger()):
            length_of_page = len(data) // len(counts)
            for index, count in enumerate(counts):
                element = index * length_of_page + ELEMENTS_AT
                end = element + length_of_page - ELEMENTS_AT
                for flags, position, size, length in unpack(data[element : element + count * ELEMENT.size]):
                    value = element + position + size
                    stop = value + length
                    if stop > end or flags:
                        raise self._corrupt(base + value, "has an element that is no record")
                    # Nearly all begin with the key, and its length is one byte.
                    if length > 1 and data[value] == _KEY_TAG and (named := data[value + 1]) <= _SHORT:
                        key = data[value + 2 : value + 2 + named]
                    else:
                        key = self._key(data, value, stop, base + value)
                    if size == _REVISION:
                        found[key] = base + value << _SIZE_BITS | length
                    else:
                        found.pop(key, None)
                    element += ELEMENT.size
        return found

    def record(self, place: int) -> Record:
        """Return one record that `live` found."""
        offset = place >> _SIZE_BITS
        revision = self._db.read_at(offset - _REVISION, _REVISION)
        return Record(_U64.unpack_from(revision)[0], offset, size_at(place))

    def history(self, key: bytes) -> list[Record]:
        """Return all records of one key that the file holds, oldest first.

        Raises:
            SnapshotCorruptError: A page or a record is broken.
        """
        begins = length_delimited(_KEY, key)
        found: dict[bytes, Record] = {}
        for offset in self._db.find(begins):
            for size in (_REVISION, _DELETION):
                revision = self._db.read_at(max(0, offset - size), size)
                place = self._place(revision)
                if place is not None and place[0] == offset:
                    is_deletion = len(revision) == _DELETION
                    found[revision] = Record(_U64.unpack_from(revision)[0], offset, 0 if is_deletion else place[1])
        return [found[revision] for revision in sorted(found)]

    def stored(self, place: int) -> bytes:
        """Return a record that `live` found as it lies in the file: key, revisions, lease and value."""
        return self._db.read_at(place >> _SIZE_BITS, size_at(place))

    def differing(self, ours: dict[bytes, int], theirs: dict[bytes, int], other: Keyspace) -> set[bytes]:
        """Return the keys that only one of two files has, or that are not stored alike.

        Where much of a file is in the other at the same place, as in two snapshots of one member, that costs one read
        of both from beginning to end, and nothing for each record.

        Args:
            ours: What `live` returned here.
            theirs: What it returned of the other file.
            other: The other file.

        Raises:
            SnapshotCorruptError: One of the files ends too early.
        """
        first_difference = self._db.pages_alike(other._db).find
        size_of_page = self._db.meta.page_size
        differing = {key for key in theirs if key not in ours}
        for key, mine in ours.items():
            yours = theirs.get(key)
            if mine == yours:
                offset, size = mine >> _SIZE_BITS, size_at(mine)
                if first_difference(0, offset // size_of_page, (offset + size - 1) // size_of_page + 1) < 0:
                    continue
            if yours is None or size_at(mine) != size_at(yours) or self.stored(mine) != other.stored(yours):
                differing.add(key)
        return differing

    def value(self, record: Record) -> bytes:
        """Return what a record put under its key.

        Raises:
            SnapshotCorruptError: The record is broken.
        """
        data = self._db.read_at(record.offset, record.size)
        start, end = self._fields(data, 0, record.size, record.offset).get(_VALUE, (0, 0))
        return data[start:end]

    def _place(self, revision: bytes) -> tuple[int, int] | None:
        """Return where the record of a revision lies and its size, or None if there is no such record."""
        if revision[8] != _SEPARATOR:
            return None
        with self._lock:
            return self._db.lookup(self._bucket, revision)

    def _key(self, data: bytes, at: int, end: int, offset: int) -> bytes:
        if at == end:
            return b""  # the record that a restore with --bump-revision leaves
        start, stop = self._fields(data, at, end, offset).get(_KEY, (0, 0))
        return data[start:stop]

    def _fields(self, data: bytes, at: int, end: int, offset: int) -> dict[int, tuple[int, int]]:
        try:
            return places_of(data, at, end, numbers=_NUMBERS)
        except ValueError as error:
            raise self._corrupt(offset, f"a record cannot be decoded: {error}") from error

    def _corrupt(self, offset: int, problem: str) -> SnapshotCorruptError:
        return corrupt(offset // self._db.meta.page_size, problem)
