"""The outermost proof of an etcd snapshot: its size, and the sha256 that etcd sends after the database.

A snapshot object is a bbolt database, whose size is a multiple of 512, and 32 bytes more: the sha256 of
everything before them. Source: etcd's Maintenance.Snapshot (server/etcdserver/api/v3rpc) and the test
``size % 512 == 32`` in its clients.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from clusterguard.errors import SnapshotCorruptError, SnapshotIncompleteError

__all__ = [
    "DIGEST_SIZE",
    "Integrity",
    "TrailerChecker",
    "has_trailer",
    "is_bare_database",
    "require_snapshot_size",
]

DIGEST_SIZE = 32
_BLOCK = 512  # the size of a bbolt database is a multiple of this on every platform
_AGAIN = "save the snapshot again; if it was copied, compare it with its source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrity:
    """What was read of a whole, intact object.

    Attributes:
        size: Bytes, trailer included.
        sha256: Lower-case hexadecimal digest of all of them, trailer included.
    """

    size: int
    sha256: str


class TrailerChecker:
    """Checks the trailer of a snapshot as it streams by, in pieces of any size.

    One sha256 runs over the bytes: the digest of the whole object continues a copy of the state that the
    trailer is compared with. Pieces above 2 KiB are hashed without the GIL.
    """

    __slots__ = ("_body", "_size", "_tail")

    def __init__(self) -> None:
        self._body = hashlib.sha256()
        self._tail = b""  # the last bytes seen, at most 32: the trailer, if nothing follows
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes seen so far."""
        return self._size

    def update(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; the buffer may be reused as soon as this returns."""
        view = memoryview(piece).cast("B")
        self._size += len(view)
        if len(view) >= DIGEST_SIZE:
            self._body.update(self._tail)
            self._body.update(view[:-DIGEST_SIZE])
            self._tail = bytes(view[-DIGEST_SIZE:])
        else:
            joined = self._tail + bytes(view)
            surplus = max(0, len(joined) - DIGEST_SIZE)
            self._body.update(joined[:surplus])
            self._tail = joined[surplus:]

    def finish_without_trailer(self) -> Integrity:
        """Return the digest of all bytes, none of which are a trailer."""
        whole = self._body.copy()
        whole.update(self._tail)
        return Integrity(size=self._size, sha256=whole.hexdigest())

    def finish(self) -> Integrity:
        """Judge the object whose last byte was given.

        Raises:
            SnapshotIncompleteError: It is empty, or its size is not that of a database with a trailer.
            SnapshotCorruptError: The trailer is not the sha256 of what precedes it.
        """
        require_snapshot_size(self._size)
        found = self._body.digest()
        if found != self._tail:
            raise SnapshotCorruptError(
                f"the sha256 of the database is {found.hex()}, but the trailer says {self._tail.hex()}",
                fields={"defect": "trailer", "computed": found.hex(), "trailer": self._tail.hex()},
                hint=f"bytes were changed after etcd sent them, or the end was cut off: {_AGAIN}",
            )
        return self.finish_without_trailer()


def has_trailer(size: int) -> bool:
    """Return whether a file of so many bytes ends with a trailer: databases are a multiple of 512 bytes."""
    return size % _BLOCK == DIGEST_SIZE


def is_bare_database(size: int) -> bool:
    """Return whether a file of so many bytes may be a database without a trailer."""
    return size > 0 and size % _BLOCK == 0


def require_snapshot_size(size: int) -> None:
    """Refuse sizes that no snapshot can have.

    Args:
        size: Bytes, trailer included.

    Raises:
        SnapshotIncompleteError: No database with a trailer is that long.
    """
    if size == 0:
        raise SnapshotIncompleteError("the snapshot is empty: 0 bytes", fields={"defect": "empty"}, hint=_AGAIN)
    if size % _BLOCK == 0:
        raise SnapshotIncompleteError(
            f"the snapshot has no sha256 trailer: {size} bytes, a multiple of {_BLOCK}",
            fields={"defect": "trailer-missing", "size": size},
            hint="the end was cut off, or this is a member's own database file (member/snap/db), which may "
            "lack what is still in its write-ahead log: save a snapshot through etcd's API instead",
        )
    if not has_trailer(size) or size < _BLOCK + DIGEST_SIZE:
        raise SnapshotIncompleteError(
            f"the snapshot is truncated, or not a snapshot: {size} bytes are not a multiple of {_BLOCK} "
            f"plus {DIGEST_SIZE} for the trailer",
            fields={"defect": "cut-off", "size": size},
            hint=_AGAIN,
        )
