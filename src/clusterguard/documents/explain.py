"""What pydantic found wrong in a document, in plain words and at its place.

pydantic names a problem by a type and a location in its own terms, with the branches of unions among them.
Here both become the file's: the path as written, the position of key or value, and what was probably meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeGuard, get_args, get_origin

from clusterguard.documents.model import API_VERSION, Model
from clusterguard.documents.reading import value_at
from clusterguard.documents.values import did_you_mean
from clusterguard.documents.yamlfile import describe, dotted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from clusterguard.documents.yamlfile import DataPath, Problem, YamlDocument

__all__ = ["Grammar", "explain", "known_words"]

_EXPECTED: Final[Mapping[str, str]] = {
    "string": "text",
    "int": "a whole number",
    "bool": "true or false",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What kind of document is explained.

    Attributes:
        root: The model of the whole of it.
        union: What is expected where its only union is.
        unknown_key: Has a say of its own about a key that a model does not know; None leaves it to the common words.
    """

    root: type[Model]
    union: str
    unknown_key: Callable[[type[Model], str], str | None] = lambda _model, _key: None


def explain(
    document: YamlDocument, data: object, error: ValidationError, *, grammar: Grammar
) -> Iterator[tuple[DataPath, Problem]]:
    """Yield each problem with the path that it is about; ``data`` is what was validated."""
    found = error.errors(include_url=False)
    unknown = {_path_in_file(data, details) for details in found if details["type"] == "extra_forbidden"}
    for details in found:
        if not _is_echo(data, details, unknown, grammar):
            yield _Explanation(document, data, details, grammar).problem()


def _is_echo(data: object, details: ErrorDetails, unknown: set[DataPath], grammar: Grammar) -> bool:
    """Return whether a problem only follows from another one.

    pydantic also says that an optional key could be null, that a list whose items are all wrong is too short,
    that a key is missing which is there, but misspelt, and that a default depends on what is wrong elsewhere.
    """
    path = _path_in_file(data, details)
    match details["type"]:
        case "none_required" | "default_factory_not_called":
            return True
        case "too_short":
            return bool(value_at(data, path))
        case "missing":
            missing = str(details["loc"][-1])
            meant = f"did you mean `{missing}`"
            return any(other[:-1] == path and meant in _unknown_key(other, grammar) for other in unknown)
    return False


class _Explanation:
    def __init__(self, document: YamlDocument, data: object, details: ErrorDetails, grammar: Grammar) -> None:
        self.document = document
        self.data = data
        self.grammar = grammar
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
                text = _unknown_key(self.path, self.grammar)
            case "missing":
                text = f"`{self.missing}` is missing"
            case "literal_error" | "enum":
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
                kind = self.type.split("_")[0]
                expected = self.grammar.union if kind == "union" else _EXPECTED.get(kind, self.fallback)
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
            kind = "" if self.type in {"literal_error", "enum"} else "the text "
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


def _unknown_key(path: DataPath, grammar: Grammar) -> str:
    key, model = str(path[-1]), _model_at(path[:-1], grammar.root)
    if model is None:
        return f"unknown key `{key}`"
    known = model.keys()
    own = grammar.unknown_key(model, key)
    return own or f"unknown key `{key}`{did_you_mean(key, known) or known_words(known)}"


def known_words(words: Iterable[str]) -> str:
    """Return ``; known here: a, b`` for the end of a message, or nothing for no words."""
    words = list(words)
    return f"; known here: {', '.join(words)}" if words else ""


def _model_at(path: DataPath, root: type[Model]) -> type[Model] | None:
    found: object = root
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
