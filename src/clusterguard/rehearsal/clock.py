"""Which phase of a rehearsal runs, and how long each took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from clusterguard.rehearsal.report import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PhaseClock"]


class PhaseClock:
    """Times phases; the next one ends the one before it.

    Args:
        on_phase: Called with the name of each as it begins.
    """

    def __init__(self, on_phase: Callable[[str], object]) -> None:
        self._on_phase = on_phase
        self._begun: list[tuple[str, float]] = []

    def begin(self, name: str) -> None:
        """Begin a phase."""
        self._begun.append((name, time.monotonic()))
        self._on_phase(name)

    def phases(self) -> list[Phase]:
        """Return all phases; the last one ends now."""
        ends = [began for _, began in self._begun[1:]] + [time.monotonic()]
        return [Phase(name=name, seconds=end - began) for (name, began), end in zip(self._begun, ends, strict=True)]
