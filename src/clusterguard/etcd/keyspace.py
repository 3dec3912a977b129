"""Where in a snapshot the records of keys lie, found without reading any value.

etcd's bucket is ordered by revision, not by key. So there are two ways: `live` walks all leaves once and remembers
where the newest record of each key is; `history` looks for one key's bytes in the whole file, which is many times
faster, and asks the tree whether what lies there is a record of it: free pages hold old ones, values can hold anything.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from clusterguard.etcd import mvcc
from clusterguard.etcd.boltdb import corrupt
from clusterguard.etcd.protobuf import length_delimited, places_of

if TYPE_CHECKING:
    from clusterguard.etcd.boltdb import BoltFile

__all__ = ["Keyspace", "Record"]

_U64 = struct.Struct(">Q")
_REVISION, _DELETION = 17, 18  # lengths of the bucket's keys
_SEPARATOR = ord("_")
_KEY, _VALUE = 1, 5  # fields of KeyValue; the numbers are create_revision, mod_revision, version and lease
_NUMBERS = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6
_KEY_TAG, _SHORT = 0x0A, 0x7F


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
        self._bucket = mvcc.key_bucket(db.buckets(db.ledger()))
        last = db.last_key(self._bucket)
        self.revision = 0 if last is None else _U64.unpack_from(last)[0]

    def live(self) -> dict[bytes, Record]:
        """Return the newest record of each key that was not removed, in no order.

        Raises:
            SnapshotCorruptError: A page or a record is broken.
        """
        found: dict[bytes, Record] = {}
        for leaf in self._db.leaves(self._bucket, self._db.ledger()):
            data, values, ends, base = leaf.data, leaf.values, leaf.ends, leaf.base
            for index, revision in enumerate(leaf.keys):
                value = values[index]
                end = ends[index]
                if value + 1 < end and data[value] == _KEY_TAG and (size := data[value + 1]) <= _SHORT:
                    key = data[value + 2 : value + 2 + size]
                else:
                    key = self._key(data, value, end, leaf.page)
                if len(revision) == _REVISION:
                    found[key] = Record(_U64.unpack_from(revision)[0], base + value, end - value)
                else:
                    found.pop(key, None)
        return found

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

    def value(self, record: Record) -> bytes:
        """Return what a record put under its key.

        Raises:
            SnapshotCorruptError: The record is broken.
        """
        data = self._db.read_at(record.offset, record.size)
        start, end = _fields(data, 0, record.size, record.offset // self._db.meta.page_size).get(_VALUE, (0, 0))
        return data[start:end]

    def _place(self, revision: bytes) -> tuple[int, int] | None:
        """Return where the record of a revision lies and its size, or None if there is no such record."""
        if revision[8] != _SEPARATOR:
            return None
        return self._db.lookup(self._bucket, revision)

    def _key(self, data: bytes, at: int, end: int, page: int) -> bytes:
        if at == end:
            return b""  # the record that a restore with --bump-revision leaves
        start, stop = _fields(data, at, end, page).get(_KEY, (0, 0))
        return data[start:stop]


def _fields(data: bytes, at: int, end: int, page: int) -> dict[int, tuple[int, int]]:
    try:
        return places_of(data, at, end, numbers=_NUMBERS)
    except ValueError as error:
        raise corrupt(page, f"a record cannot be decoded: {error}") from error
