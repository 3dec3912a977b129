"""What long work tells whoever is watching; the doors decide how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Progress", "ProgressSink", "ignore_progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One moment of one task.

    Attributes:
        task: What is being done, in words a user reads ("building kube-apiserver").
        done: Units finished so far, counted from zero.
        total: Units in all, or None while that is unknown.
        unit: What is counted.
        finished: True exactly once, for the last moment of the task.
        note: A short remark beside the bar, such as the package being compiled.
    """

    task: str
    done: int = 0
    total: int | None = None
    unit: Literal["bytes", "packages", "objects", "keys", "steps"] = "steps"
    finished: bool = False
    note: str = ""


ProgressSink: TypeAlias = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Discard progress: the sink of callers that show none."""
