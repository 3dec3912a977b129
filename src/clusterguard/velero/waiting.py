"""Following a backup or a restore: what its phase and its numbers say, and whether it moves at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from clusterguard.errors import VeleroError
from clusterguard.model.progress import Progress
from clusterguard.velero.resources import Backup, Restore

if TYPE_CHECKING:
    from clusterguard.model.progress import ProgressSink

__all__ = ["Follower", "Run", "far", "task_of"]

Run: TypeAlias = Backup | Restore


def task_of(run: Run) -> str:
    """Return what is being done, as progress shows it: ``backup nightly``."""
    return f"{run.kind.lower()} {run.name}"


def far(run: Run) -> str:
    """Return how far a run is: ``InProgress, 12 of 100 objects``, ``Queued, place 2``."""
    parts = [str(run.phase)]
    if run.progress.total:
        parts.append(f"{run.progress.done:,} of {run.progress.total:,} objects")
    if isinstance(run, Backup) and run.queue_position:
        parts.append(f"place {run.queue_position}")
    return ", ".join(parts)


@dataclass(slots=True, kw_only=True)
class Follower:
    """Looks at each state of one run: reports progress, and remembers the last.

    Attributes:
        run: The last state seen.
        sink: Called with the progress.
        moved: Whether anything changed since `still` was last asked.
    """

    run: Run
    sink: ProgressSink
    moved: bool = field(default=True)

    def ended(self, seen: Run | None) -> bool:
        """Take the next state; return whether it is the last one.

        Raises:
            VeleroError: The object was deleted, or is another one of the same name.
        """
        if seen is None or (self.run.uid and seen.uid != self.run.uid):
            self._report(finished=True)
            raise VeleroError(
                f"{self.run} was deleted while it was waited for",
                hint="its outcome cannot be known; backups expire, and deleting a backup deletes its restores",
            )
        self.moved = self.moved or seen.metadata.get("resourceVersion") != self.run.metadata.get("resourceVersion")
        self.run = seen
        self._report(finished=seen.phase.final)
        return seen.phase.final

    def give_up(self) -> None:
        """End the progress reported so far."""
        self._report(finished=True)

    def still(self) -> bool:
        """Return whether nothing changed since this was last asked."""
        still, self.moved = not self.moved, False
        return still

    def _report(self, *, finished: bool) -> None:
        progress = self.run.progress
        self.sink(
            Progress(
                task=task_of(self.run),
                done=progress.done,
                total=progress.total or None,
                unit="objects",
                note=str(self.run.phase),
                finished=finished,
            )
        )
