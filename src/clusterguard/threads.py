"""Threads whose end is known, also after Ctrl-C."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Worker"]


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
