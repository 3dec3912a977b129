"""The body of an HTTP response, read within bounds: of bytes, and of time however slowly it trickles in.

A time limit of a socket is one on silence: a server that sends something every second is never silent.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import urllib3
    from _typeshed import WriteableBuffer

__all__ = ["BodyBoundError", "BodyTooLargeError", "BodyUnfinishedError", "BoundedBody"]


class BodyBoundError(Exception):
    """A body went over one of its bounds; the text says which."""


class BodyTooLargeError(BodyBoundError):
    """It has more bytes than it may."""


class BodyUnfinishedError(BodyBoundError):
    """It had not ended when its time was over."""


class BoundedBody(io.RawIOBase):
    """A body as a file: each read returns what has come, at the latest when the time is over.

    Args:
        response: The response, which the caller closes.
        deadline: When its time is over, by the clock.
        most_bytes: How many there may be, unpacked; None for any number.
        decode_content: Whether to unpack what the transfer compressed.
        clock: Seconds that only grow.

    Reading raises `BodyTooLargeError`, `BodyUnfinishedError`, and what urllib3 raises where the connection breaks.
    """

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        *,
        deadline: float,
        most_bytes: int | None = None,
        decode_content: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._response = response
        self._deadline = deadline
        self._most_bytes = most_bytes
        self._decode_content = decode_content
        self._clock = clock
        self._count = 0

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read what has come, or the first byte that comes."""
        view = memoryview(buffer).cast("B")
        piece = self._piece(len(view))
        self._count += len(piece)
        if self._most_bytes is not None and self._count > self._most_bytes:
            raise BodyTooLargeError(f"the answer is larger than {self._most_bytes:,} bytes")
        view[: len(piece)] = piece
        return len(piece)

    def _piece(self, size: int) -> bytes:
        import urllib3

        left = self._deadline - self._clock()
        if left <= 0:
            raise BodyUnfinishedError("the answer did not end in time")
        # No single read may wait beyond the deadline either.
        socket = getattr(self._response.connection, "sock", None)
        if socket is not None and not 0 < (socket.gettimeout() or 0) <= left:
            socket.settimeout(left)
        try:
            return self._response.read1(size, decode_content=self._decode_content)
        except urllib3.exceptions.ReadTimeoutError as error:
            if self._clock() < self._deadline:
                raise
            raise BodyUnfinishedError("the answer did not end in time") from error
