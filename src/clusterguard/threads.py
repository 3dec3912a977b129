"""Threads whose end is known, also after Ctrl-C, and a Ctrl-C that leaves their locks whole."""

from __future__ import annotations

import _thread
import contextlib
import queue
import signal
import sys
import threading
import time
from concurrent import futures
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Worker", "interrupt_between_locks"]

# Where Python itself takes and gives back locks, in code that an exception may tear apart at any point.
_LOCKING = frozenset(
    sys.modules[each.__module__].__file__
    for each in (threading.Condition, queue.Queue, futures.Future, futures.ThreadPoolExecutor, contextlib.ExitStack)
)
_AGAIN_SECONDS = 0.001


def interrupt_between_locks(*signals: signal.Signals) -> None:
    """Raise KeyboardInterrupt in the main thread on these signals, yet never while it takes or gives back a lock.

    Python's own handler raises between any two instructions, also in ``Condition.__enter__`` after the lock was taken
    and before anybody is bound to give it back: a worker that wants to tell its result then waits for ever, and so
    does the end of the program, which waits for the worker. Raised while a pool starts a thread, it leaves one that
    is never told to end; raised in a ``__del__``, it is lost. Here the signal comes again a millisecond later, until
    the main thread has left such code, or is seen at the same place twice: then it waits there, and holds nothing.
    """
    blocked_at: tuple[int, int] | None = None

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal blocked_at
        here = (id(frame), frame.f_lasti) if frame is not None else None
        if frame is not None and (_must_go_on(frame) or (_is_about_locks(frame) and here != blocked_at)):
            blocked_at = here
            # Not by a class of threading, whose locks the main thread may hold right now.
            _thread.start_new_thread(_signal_again, (number,))
            return
        blocked_at = None
        raise KeyboardInterrupt

    for each in signals:
        signal.signal(each, interrupt)


def _is_about_locks(frame: FrameType) -> bool:
    return frame.f_code.co_filename in _LOCKING


def _must_go_on(frame: FrameType) -> bool:
    """Tell whether a thread is being started, of which nobody would know, or an exception would be swallowed."""
    each: FrameType | None = frame
    while each is not None:
        name = each.f_code.co_name
        if name == "__del__" or (name in {"start", "submit"} and _is_about_locks(each)):
            return True
        each = each.f_back
    return False


def _signal_again(number: int) -> None:
    time.sleep(_AGAIN_SECONDS)  # noqa: TID251 - nothing is waited for but the next instructions of another thread
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, number)  # a real one, which wakes whoever is blocked in a lock


class Worker(threading.Thread):
    """A daemon thread that counts as running until it has ended.

    Before Python 3.13, a ``join`` that Ctrl-C or SIGTERM interrupts marks the thread as ended while it is still at
    work: the next ``join`` returns at once, and whoever clears up after it does so too early.

    Args:
        work: What it does.
        name: Of the thread.
    """

    def __init__(self, work: Callable[[], object], *, name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self._has_ended = threading.Event()

    def run(self) -> None:
        """Do the work."""
        try:
            super().run()
        finally:
            self._has_ended.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the work has ended, at most so many seconds."""
        if self._has_ended.wait(timeout):
            super().join()  # for the moment in which the thread itself is given back

    def is_alive(self) -> bool:
        """Return whether it was started and has not ended."""
        return self.ident is not None and not self._has_ended.is_set()
