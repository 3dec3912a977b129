"""Drills: declarative rehearsals that back up, break, restore, and prove from evidence that what was lost is back."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterguard.drills.load import Drill, LoadedStep, load_drill, load_drills
    from clusterguard.drills.run import DrillSettings
    from clusterguard.drills.runner import DrillRunner
    from clusterguard.drills.verdict import DrillResult, Verdict

__all__ = [
    "Drill",
    "DrillResult",
    "DrillRunner",
    "DrillSettings",
    "LoadedStep",
    "Verdict",
    "load_drill",
    "load_drills",
]

_HOMES = {
    "Drill": "load",
    "DrillResult": "verdict",
    "DrillRunner": "runner",
    "DrillSettings": "run",
    "LoadedStep": "load",
    "Verdict": "verdict",
    "load_drill": "load",
    "load_drills": "load",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    if name not in _HOMES:
        raise AttributeError(f"module 'clusterguard.drills' has no attribute {name!r}")
    return getattr(import_module(f"clusterguard.drills.{_HOMES[name]}"), name)
