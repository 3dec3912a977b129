"""Bytes on their way from one thread to another, a few pieces at a time.

It is the only such queue. What looks like three others is none: `clusterguard.etcd.spool` goes through a file, since
etcd must never wait for a slow store; `clusterguard.etcd.behind` fills the same few buffers again and again, which stay
in the cache of the processor; and an S3 upload is a pool of parts that travel side by side, in no order.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Literal, TypeVar

__all__ = ["Channel", "GivenUpError"]

_PIECES = 3
_Piece = TypeVar("_Piece")


class GivenUpError(Exception):
    """The other side stopped without a failure of its own, because nobody wants the bytes any more."""


class Channel(Generic[_Piece]):
    """Hands pieces over in order; whoever sends waits while too many are on their way.

    Either side may stop: the sender by `end`, the receiver by `refuse`. A failure given with it is raised on the
    other side, so nobody waits for a thread that is gone.

    Args:
        pieces: How many may be on their way; times their size that is the memory it takes.
    """

    def __init__(self, *, pieces: int = _PIECES) -> None:
        self._room = pieces
        self._underway: deque[_Piece] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._failure: BaseException | None = None
        self._refusal: BaseException | None = None

    def send(self, piece: _Piece) -> None:
        """Hand a piece over, waiting for room; an empty one is none.

        Raises:
            BaseException: What the receiver refused with.
        """
        if not piece:
            return
        with self._changed:
            self._changed.wait_for(lambda: len(self._underway) < self._room or self._refusal is not None)
            if self._refusal is not None:
                raise self._refusal
            self._underway.append(piece)
            self._changed.notify_all()

    def end(self, failure: BaseException | None = None) -> None:
        """Say that nothing more comes: everything was sent, or, with a failure, it never will be."""
        with self._changed:
            self._ended = True
            self._failure = self._failure or failure
            self._changed.notify_all()

    def receive(self) -> _Piece | Literal[b""]:
        """Take the next piece, waiting for it; ``b""`` only at the end.

        Raises:
            BaseException: What the sender ended with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._underway or self._ended)
            # Before what is still on its way: the bytes of a stream that broke off are worth nothing.
            if self._failure is not None:
                raise self._failure
            if not self._underway:
                return b""
            self._changed.notify_all()
            return self._underway.popleft()

    def refuse(self, why: BaseException) -> None:
        """Take nothing more; the sender hears why."""
        with self._changed:
            self._refusal = self._refusal or why
            # Nobody takes them any more, and a sender that waits for room must wake up.
            self._underway.clear()
            self._changed.notify_all()
