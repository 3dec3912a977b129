"""Progress in a terminal: a bar for each task."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from clusterguard.terminal.console import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from clusterguard.model.progress import Progress, ProgressSink

__all__ = ["bars_on"]


@contextmanager
def bars_on(console: Console) -> Iterator[ProgressSink]:
    """Give a sink that draws bars on a console while the ``with`` block runs."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _BarsSink(bars)


class _BarsSink:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, moment: Progress) -> None:
        if moment.finished:
            if moment.task in self._tasks:
                self._bars.remove_task(self._tasks.pop(moment.task))
            note = f": {moment.note}" if moment.note else ""
            self._bars.console.print(f"{moment.task}{note or ', done'}", markup=False, style="dim")
            return
        far = amount(moment)
        if moment.task not in self._tasks:
            self._tasks[moment.task] = self._bars.add_task(
                moment.task, total=moment.total, amount=far, note=moment.note
            )
        self._bars.update(
            self._tasks[moment.task], completed=moment.done, total=moment.total, amount=far, note=moment.note
        )
