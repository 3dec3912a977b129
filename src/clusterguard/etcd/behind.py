"""Work on a stream beside whoever receives it: to digest and to write, Python lets other threads run."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Self

from clusterguard.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WorkBehind"]

_BUFFERS = 4
_BUFFER_BYTES = 256 * 1024  # small enough to stay in the cache of the processor


class WorkBehind:
    """Gathers pieces in buffers, and works on full ones in a thread of its own, in their order.

    Whoever gives pieces waits while all buffers are full, so memory is bounded. Leaving the ``with`` block ends the
    thread; what was not worked on by then is dropped, unless `finish` was called.

    Args:
        work: Called with each buffer, which is used again as soon as it returns.
        name: Of the thread.
    """

    def __init__(self, work: Callable[[memoryview], object], *, name: str) -> None:
        self._work = work
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            # Views: what is assigned to a part of a bytearray itself is copied twice.
            self._free.put(memoryview(bytearray(_BUFFER_BYTES)))
        self._buffer = self._free.get()
        self._filled = 0
        self._failure: BaseException | None = None
        self._given_up = False
        self._thread = Worker(self._run, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up = True
        self._full.put(None)
        self._thread.join()

    def write(self, piece: memoryview) -> None:
        """Take the next bytes.

        Raises:
            Exception: What the work on earlier ones has raised.
        """
        at, size = 0, len(piece)
        while at < size:
            taken = min(size - at, _BUFFER_BYTES - self._filled)
            self._buffer[self._filled : self._filled + taken] = piece[at : at + taken]
            self._filled += taken
            at += taken
            if self._filled == _BUFFER_BYTES:
                self._pass_on()

    def finish(self) -> None:
        """Wait until all bytes have been worked on.

        Raises:
            Exception: What the work has raised.
        """
        self._full.put((self._buffer, self._filled))
        self._full.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _pass_on(self) -> None:
        self._full.put((self._buffer, self._filled))
        buffer = self._free.get()
        if self._failure is not None:
            raise self._failure
        self._buffer, self._filled = buffer, 0

    def _run(self) -> None:
        try:
            while (full := self._full.get()) is not None and not self._given_up:
                buffer, filled = full
                with buffer[:filled] as bytes_in_it:
                    self._work(bytes_in_it)
                self._free.put(buffer)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever writes or finishes
            self._failure = error
            self._free.put(self._buffer)  # whoever waits for one finds the failure
