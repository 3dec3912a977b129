"""The two consoles, and progress on them: bars in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from rich.console import Console

from clusterguard.model.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.model.progress import Progress, ProgressSink

__all__ = ["ProgressLines", "amount", "console_on", "err", "out", "progress_sink"]

_WIDTH_OF_LOGS = 120
_BROKEN_PIPE = 141  # as a shell calls an end by SIGPIPE


class _Console(Console):
    """Ends where nobody reads any more as other programs do there; rich's own exit code, 1, is a verdict here."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit as end:
            raise SystemExit(_BROKEN_PIPE) from end.__context__


def console_on(file: IO[str] | None = None, *, stderr: bool = False) -> Console:
    """Return a console; where there is no terminal to ask, and no COLUMNS, lines are as long as logs show them.

    What is printed stands there as it is: an address such as ``[::1]:100:`` has no emoji in it.
    """
    console = _Console(file=file, stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH_OF_LOGS
    return console


out = console_on()
err = console_on(stderr=True)

_SECONDS_BETWEEN_LINES = 15.0
_BYTES_IN_MIB = 1024 * 1024


@contextmanager
def progress_sink(console: Console = err) -> Iterator[ProgressSink]:
    """Give a sink that shows progress on a console while the ``with`` block runs."""
    if not console.is_terminal:
        yield ProgressLines(lambda line: console.print(line, markup=False, soft_wrap=True))
        return
    from clusterguard.terminal.bars import bars_on  # slow, and most runs that nobody watches draw none

    with bars_on(console) as sink:
        yield sink


class ProgressLines:
    """A sink for places without a terminal: a line when a task begins, now and then, and when it ends.

    Args:
        write: Takes one line.
        clock: Seconds that only grow.
    """

    def __init__(self, write: Callable[[str], object], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._began: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def __call__(self, moment: Progress) -> None:
        """Take one moment of a task."""
        now = self._clock()
        note = f": {moment.note}" if moment.note else ""
        if moment.finished:
            began = self._began.pop(moment.task, None)
            if began is not None:
                self._write(f"{moment.task}{note or ', done'} ({format_duration(now - began)})")
            elif note:  # a remark; what began and ended at once is not worth a line
                self._write(f"{moment.task}{note}")
        elif moment.task not in self._began:
            self._began[moment.task] = self._told[moment.task] = now
            self._write(f"{moment.task} …{note}")
        elif now - self._told[moment.task] >= _SECONDS_BETWEEN_LINES:
            self._told[moment.task] = now
            self._write(f"{moment.task} … {amount(moment)}")


def amount(moment: Progress) -> str:
    """Return how far a task is, in words: ``312 of 1104 packages``, ``61 of 800 MiB``, or nothing yet."""
    if not moment.done and not moment.total:
        return ""
    divisor, unit = (_BYTES_IN_MIB, "MiB") if moment.unit == "bytes" else (1, moment.unit)
    done = f"{moment.done // divisor:,}"
    return f"{done} of {moment.total // divisor:,} {unit}" if moment.total else f"{done} {unit}"
