"""Finds the verbs: those of the modules of this package, then those of other distributions."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeGuard

from clusterguard.drills import steps
from clusterguard.drills.steps.base import Action
from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINTS", "verbs"]

ENTRY_POINTS = "clusterguard.steps"


@cache
def verbs() -> Mapping[str, type[Action]]:
    """Return the class of every verb by its key in drill files, in alphabetical order, our own first.

    Raises:
        ConfigError: Another distribution's verb cannot be loaded, or has a name that is taken.
    """
    found = {verb.verb(): verb for verb in _own()}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        verb = _loaded(point)
        if found.setdefault(verb.verb(), verb) is not verb:
            raise _unusable(point, f"there is a verb `{verb.verb()}` already")
    return found


def _own() -> Iterator[type[Action]]:
    for module in sorted(pkgutil.iter_modules(steps.__path__), key=lambda each: each.name):
        name = f"{steps.__name__}.{module.name}"
        for value in vars(import_module(name)).values():
            if _is_verb(value) and value.__module__ == name:
                yield value


def _is_verb(value: object) -> TypeGuard[type[Action]]:
    return isinstance(value, type) and issubclass(value, Action) and bool(value.phases)


def _loaded(point: EntryPoint) -> type[Action]:
    try:
        verb = point.load()
    except Exception as error:
        raise _unusable(point, f"{type(error).__name__}: {error}") from error
    if not _is_verb(verb):
        raise _unusable(point, "it is not a subclass of clusterguard.drills.steps.base.Action with phases")
    return verb


def _unusable(point: EntryPoint, reason: str) -> ConfigError:
    return ConfigError(
        f"entry point {point.name} = {point.value} of {ENTRY_POINTS}: {reason}",
        hint=f"update or remove the package {point.dist.name}" if point.dist else None,
    )
