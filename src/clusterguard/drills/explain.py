"""What pydantic found wrong in a drill file, in plain words and at its place.

pydantic names a problem by a type and a location in its own terms, with the branches of unions among them.
Here both become the file's: the path as written, the position of key or value, and what was probably meant.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeGuard, get_args, get_origin

from clusterguard.drills.schema import (
    API_VERSION,
    BackupStep,
    CleanupStep,
    DrillFile,
    FaultStep,
    Model,
    RestoreStep,
    SetupStep,
    Step,
    VerifyStep,
)
from clusterguard.drills.values import did_you_mean
from clusterguard.drills.yamlfile import describe, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from clusterguard.drills.schema import PhaseName
    from clusterguard.drills.yamlfile import DataPath, Problem, YamlDocument

__all__ = ["explain", "value_at"]

_STEP_CLASSES: Final[Mapping[PhaseName, type[Step]]] = {
    "setup": SetupStep,
    "backup": BackupStep,
    "fault": FaultStep,
    "restore": RestoreStep,
    "verify": VerifyStep,
    "cleanup": CleanupStep,
}
_EXPECTED: Final[Mapping[str, str]] = {
    "string": "text",
    "int": "a whole number",
    "bool": "true or false",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "union": "true, false or {every: 30s}",  # spec.canary has the only union
}


def explain(document: YamlDocument, data: object, error: ValidationError) -> Iterator[tuple[DataPath, Problem]]:
    """Yield each problem with the path that it is about; ``data`` is what was validated."""
    found = error.errors(include_url=False)
    unknown = {_path_in_file(data, details) for details in found if details["type"] == "extra_forbidden"}
    for details in found:
        if not _is_echo(data, details, unknown):
            yield _Explanation(document, data, details).problem()


def value_at(data: object, path: DataPath) -> object:
    """Return what is at a path in plain data, or None where nothing is."""
    for part in path:
        found = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if not found:
            return None
        data = data[part]  # type: ignore[index]  # found says that it can be indexed
    return data


def _is_echo(data: object, details: ErrorDetails, unknown: set[DataPath]) -> bool:
    """Return whether a problem only follows from another one.

    pydantic also says that an optional key could be null, that a list whose items are all wrong is too short,
    and that a key is missing which is there, but misspelt.
    """
    path = _path_in_file(data, details)
    match details["type"]:
        case "none_required":
            return True
        case "too_short":
            return bool(value_at(data, path))
        case "missing":
            missing = str(details["loc"][-1])
            return any(other[:-1] == path and f"did you mean `{missing}`" in _unknown_key(other) for other in unknown)
    return False


class _Explanation:
    """One problem of pydantic's."""

    def __init__(self, document: YamlDocument, data: object, details: ErrorDetails) -> None:
        self.document = document
        self.data = data
        self.type = details["type"]
        self.context: dict[str, Any] = details.get("ctx", {})
        self.fallback = details["msg"]
        self.path = _path_in_file(data, details)
        self.missing = details["loc"][-1] if self.type == "missing" else None
        self.at_key = self.type == "extra_forbidden" or "[key]" in details["loc"]

    def problem(self) -> tuple[DataPath, Problem]:
        about, place, at_key = self.path, self.path, self.at_key
        if self.type == "extra_forbidden":
            about = self.path[:-1]
        key = self.context.get("key")
        if key is not None and (*self.path, key) in self.document.values:
            place, at_key = (*self.path, key), True
        text = f"{dotted(about)}: {self._message()}".removeprefix(": ")
        return self.path, self.document.problem(place, text, key=at_key)

    def _message(self) -> str:
        match self.type:
            case "extra_forbidden":
                text = _unknown_key(self.path)
            case "missing":
                text = f"`{self.missing}` is missing"
            case "literal_error":
                text = self._not_one_of(re.findall(r"'([^']*)'", self.context["expected"]))
            case "clusterguard":
                text = str(self.context["message"])
            case "value_error":
                text = str(self.context["error"])
            case "too_short":
                text = "is empty; at least one is needed"
            case "greater_than_equal":
                text = f"{value_at(self.data, self.path)} is too small; at least {self.context['ge']}"
            case "less_than_equal":
                text = f"{value_at(self.data, self.path)} is too large; at most {self.context['le']}"
            case _:
                expected = _EXPECTED.get(self.type.split("_")[0], self.fallback)
                text = f"{expected} is expected here, not {self.seen()}"
        return text

    def _not_one_of(self, known: list[str]) -> str:
        if self.path == ("apiVersion",):
            return f"{self.seen()} is not known; this version of clusterguard reads {API_VERSION}"
        value = value_at(self.data, self.path)
        near = did_you_mean(value, known) if isinstance(value, str) else ""
        choices = ", ".join(f"`{word}`" for word in known[:-1]) + " or " * (len(known) > 1) + f"`{known[-1]}`"
        return f"{choices} is expected here, not {self.seen()}{near}"

    def seen(self) -> str:
        """Return the value in words, with what YAML made of it where that may surprise."""
        value = value_at(self.data, self.path)
        raw = self.document.raw.get(self.path, "")
        if isinstance(value, str):
            kind = "" if self.type == "literal_error" else "the text "
            return f"{kind}`{_short(value)}`"
        if not raw:
            return describe(value)
        quoting = f'; in quotes, "{_short(raw)}", it is text' if self.type == "string_type" else ""
        return f"`{_short(raw)}`, which is {describe(value)} in YAML{quoting}"


def _path_in_file(data: object, details: ErrorDetails) -> DataPath:
    """Return pydantic's location without what the file does not have: branches of unions, a missing key."""
    path: DataPath = ()
    for part in details["loc"]:
        deeper = value_at(data, (part,))
        if deeper is None and not (isinstance(data, dict) and part in data):
            continue
        data, path = deeper, (*path, part)
    return path


def _unknown_key(path: DataPath) -> str:
    key, model = str(path[-1]), _model_at(path[:-1])
    if model is None:
        return f"unknown key `{key}`"
    known = [field.alias or name for name, field in model.model_fields.items()]
    if issubclass(model, Step):
        return _unknown_action(key, model, known)
    return f"unknown key `{key}`{did_you_mean(key, known) or _known(known)}"


def _unknown_action(key: str, step: type[Step], known: list[str]) -> str:
    homes = [phase for phase, other in _STEP_CLASSES.items() if key in other.actions() and phase != "cleanup"]
    if homes:
        here = next(phase for phase, other in _STEP_CLASSES.items() if other is step)
        return f"`{key}` is an action of {' and '.join(homes)}, not of {here}"
    everywhere = [*known, *CleanupStep.actions()]  # a slip in another phase's action is still that action
    return f"unknown action `{key}`{did_you_mean(key, everywhere) or _known(list(step.actions()))}"


def _known(words: list[str]) -> str:
    return f"; known here: {', '.join(words)}" if words else ""


def _model_at(path: DataPath) -> type[Model] | None:
    """Return the model that describes the mapping at a path."""
    found: object = DrillFile
    for part in path:
        found = next(_inside(found, part), None)
    return next((branch for branch in _branches(found) if _is_model(branch)), None)


def _inside(annotation: object, part: str | int) -> Iterator[object]:
    for branch in _branches(annotation):
        if _is_model(branch):
            fields = branch.model_fields.items()
            yield from (field.annotation for name, field in fields if part == (field.alias or name))
        elif get_origin(branch) is tuple and isinstance(part, int):
            yield get_args(branch)[0]
        elif get_origin(branch) is dict:
            yield get_args(branch)[1]


def _branches(annotation: object) -> Iterator[object]:
    """Yield what an annotation may stand for, without its unions and its metadata."""
    if get_origin(annotation) is Annotated:
        yield from _branches(get_args(annotation)[0])
    elif get_origin(annotation) in (tuple, dict) or not get_args(annotation):
        yield annotation
    else:
        for branch in get_args(annotation):
            yield from _branches(branch)


def _is_model(annotation: object) -> TypeGuard[type[Model]]:
    return isinstance(annotation, type) and issubclass(annotation, Model)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - what fits a line
