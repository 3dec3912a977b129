"""The gRPC framing of etcd's snapshot stream, decoded by hand: no I/O.

A gRPC message on the wire is one byte "compressed", four bytes of length (big-endian), then the protobuf.
``SnapshotResponse`` has the fields 1 header, 2 remaining_bytes, 3 blob, 4 version (since 3.6). The server sends
the database in blobs of at most 32 KiB while remaining_bytes falls to 0, and then **one more** message with the
32 raw bytes of the SHA-256 over everything before it (etcd: server/etcdserver/api/v3rpc/maintenance.go).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.errors import SnapshotIncompleteError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SnapshotFrames"]

_PREFIX = 5
_REMAINING, _BLOB, _VERSION = 0x10, 0x1A, 0x22
_VARINT_CONTINUES = 0x80
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}
# A member whose read of its own database failed goes on sending empty blobs for ever.
_MAX_EMPTY = 64
_MAX_MESSAGE = 64 * 1024 * 1024


class SnapshotFrames:
    """Takes what the network gives, in any pieces, and hands on the blobs.

    Args:
        take: Called with each blob, in order.

    Attributes:
        remaining: Bytes of the database still to come, as the last message said; None before the first one.
        version: Storage version, ``""`` before etcd 3.6.
        received: Bytes handed on so far.
    """

    def __init__(self, take: Callable[[memoryview], object]) -> None:
        self._take = take
        self._pending = bytearray()
        self._needed = _PREFIX  # bytes that are pending once there is anything to do
        self._empty = 0
        self.remaining: int | None = None
        self.version = ""
        self.received = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes from the network.

        Raises:
            SnapshotIncompleteError: They are not a snapshot stream, or one that makes no progress.
        """
        pending = self._pending
        pending += data
        at, end = 0, len(pending)
        if end < self._needed:
            return
        self._needed = _PREFIX
        view = memoryview(pending)
        try:
            while end - at >= _PREFIX:
                length = int.from_bytes(view[at + 1 : at + _PREFIX], "big")
                if pending[at] or length > _MAX_MESSAGE:
                    raise SnapshotIncompleteError(
                        "the member's stream is not an etcd snapshot: a message that is compressed or "
                        f"{length:,} bytes long"
                    )
                if end - at - _PREFIX < length:
                    self._needed = _PREFIX + length
                    break
                at += _PREFIX
                self._message(view, at, at + length)
                at += length
        finally:
            view.release()
        if at:
            del pending[:at]

    def finish(self) -> None:
        """Check that the stream ended where a snapshot ends.

        Raises:
            SnapshotIncompleteError: It was cut.
        """
        if self._pending:
            raise SnapshotIncompleteError(
                f"the stream was cut inside a message, after {self.received:,} bytes", hint=_AGAIN
            )
        if self.remaining is None:
            raise SnapshotIncompleteError(
                "the member ended the stream without sending anything", fields={"defect": "empty"}, hint=_AGAIN
            )
        if self.remaining:
            raise SnapshotIncompleteError(
                f"the stream ended with {self.remaining:,} bytes still to come, after {self.received:,}",
                fields={"defect": "cut-off", "received": self.received, "remaining": self.remaining},
                hint=_AGAIN,
            )

    def _message(self, view: memoryview, at: int, end: int) -> None:
        remaining, size = 0, 0
        while at < end:
            tag, at = _varint(view, at, end)
            kind = tag & 7
            if kind == _VARINT:
                value, at = _varint(view, at, end)
                if tag == _REMAINING:
                    remaining = value
                continue
            length, at = _varint(view, at, end) if kind == _LENGTH_DELIMITED else (_FIXED_SIZES.get(kind, end), at)
            if at + length > end:
                raise SnapshotIncompleteError("the member's stream is not an etcd snapshot: a broken message")
            if tag == _BLOB:
                size += length
                with view[at : at + length] as blob:
                    self._take(blob)
            elif tag == _VERSION:
                self.version = bytes(view[at : at + length]).decode(errors="replace")
            at += length
        self.remaining = remaining
        self.received += size
        self._empty = 0 if size else self._empty + 1
        if self._empty > _MAX_EMPTY:
            raise SnapshotIncompleteError(
                f"the member sends empty messages with {remaining:,} bytes still to come",
                hint="it cannot read its own database: look at its log and its disk",
            )


_AGAIN = "nothing was stored; run it again"


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < end and shift < 64:  # noqa: PLR2004 - bits of the widest varint
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _VARINT_CONTINUES:
            return value, at
        shift += 7
    raise SnapshotIncompleteError("the member's stream is not an etcd snapshot: a number without an end")
