"""What is special about the words for mistakes in drill files: a step's action belongs to some phases only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterguard.documents.explain import Grammar, known_words
from clusterguard.documents.values import did_you_mean
from clusterguard.drills.schema import (
    BackupStep,
    CleanupStep,
    DrillFile,
    FaultStep,
    RestoreStep,
    SetupStep,
    Step,
    VerifyStep,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.documents.model import Model
    from clusterguard.drills.schema import PhaseName

__all__ = ["DRILL_GRAMMAR"]

_STEP_CLASSES: Final[Mapping[PhaseName, type[Step]]] = {
    "setup": SetupStep,
    "backup": BackupStep,
    "fault": FaultStep,
    "restore": RestoreStep,
    "verify": VerifyStep,
    "cleanup": CleanupStep,
}


def _unknown_action(model: type[Model], key: str) -> str | None:
    if not issubclass(model, Step):
        return None
    homes = [phase for phase, other in _STEP_CLASSES.items() if key in other.actions() and phase != "cleanup"]
    if homes:
        here = next(phase for phase, other in _STEP_CLASSES.items() if other is model)
        return f"`{key}` is an action of {' and '.join(homes)}, not of {here}"
    # A slip in another phase's action is still that action.
    everywhere = [*model.keys(), *CleanupStep.actions()]
    return f"unknown action `{key}`{did_you_mean(key, everywhere) or known_words(model.actions())}"


DRILL_GRAMMAR: Final = Grammar(
    root=DrillFile,
    union="true, false or {every: 30s}",  # spec.canary
    unknown_key=_unknown_action,
)
