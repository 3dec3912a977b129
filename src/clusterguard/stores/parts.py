"""Parts of an object on their way into several stores at once: the bytes are there once, and so is their checksum."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from clusterguard.stores.s3_checksums import checksum_of

if TYPE_CHECKING:
    from collections import deque

    from clusterguard.stores.s3_checksums import Checksum

__all__ = ["Part"]


class Part:
    """A run of bytes that nobody changes until everybody who sends them has let go of them.

    Args:
        buffer: Has them at its beginning; goes to the spare ones when the last holder lets go. Where one never does,
            because it failed, the buffer is lost to the garbage collector.
        size: How many they are.
        holders: How many will let go.
        spare: Buffers to be filled again: memory that is given back and asked for again all the time is kept by the
            allocator.

    Attributes:
        body: The bytes, and nothing behind them.
    """

    __slots__ = ("_buffer", "_checksums", "_holders", "_lock", "_spare", "body")

    def __init__(self, buffer: bytearray, size: int, *, holders: int = 1, spare: deque[bytearray]) -> None:
        self.body: bytes | bytearray = buffer if size == len(buffer) else bytes(memoryview(buffer)[:size])
        self._buffer = buffer
        self._holders = holders
        self._spare = spare
        self._checksums: dict[Checksum, str] = {}
        self._lock = threading.Lock()

    def checksum(self, kind: Checksum) -> str:
        """Return the checksum as S3 writes it, computed by who asks first; empty where none is sent."""
        with self._lock:
            if kind not in self._checksums:
                self._checksums[kind] = checksum_of(self.body, kind)
            return self._checksums[kind]

    def let_go(self) -> None:
        """Say that one of the holders is done with the bytes."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._spare.append(self._buffer)
