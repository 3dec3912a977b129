"""What is special about the messages for mistakes in drill files: a verb belongs to some phases only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterguard.documents.explain import Grammar, known_words
from clusterguard.documents.values import did_you_mean
from clusterguard.drills.schema import STEP_CLASSES, DrillFile, Step
from clusterguard.drills.steps.registry import verbs

if TYPE_CHECKING:
    from clusterguard.documents.model import Model

__all__ = ["DRILL_GRAMMAR"]


def _unknown_action(model: type[Model], key: str) -> str | None:
    if not issubclass(model, Step):
        return None
    if key in verbs():
        here = next(phase for phase, step in STEP_CLASSES.items() if step is model)
        return f"`{key}` is an action of {' and '.join(verbs()[key].phases)}, not of {here}"
    # A slip in another phase's action is still that action.
    return f"unknown action `{key}`{did_you_mean(key, [*model.keys(), *verbs()]) or known_words(model.fields_of_verbs)}"


DRILL_GRAMMAR: Final = Grammar(
    root=DrillFile,
    union="true, false or {every: 30s}",  # spec.canary
    unknown_key=_unknown_action,
)
