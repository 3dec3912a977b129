"""Where in an object a text stands, and what two states of one object do not share: paths for people."""

from __future__ import annotations

from base64 import b64decode
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from clusterguard.validate.paths import Element, format_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.validate.paths import Path

__all__ = ["changed_paths", "paths_with"]

_NOISE = ("managedFields", "resourceVersion")


def paths_with(item: Mapping[str, Any], text: str) -> list[str]:
    """Return the paths of fields that have a text in their value or name; managedFields only if nothing else has."""
    secret = (item.get("apiVersion"), item.get("kind")) == ("v1", "Secret")
    found = [format_path(path) for path, value in _leaves(item) if _has(path, value, text, secret=secret)]
    own = [path for path in found if not path.startswith("metadata.managedFields")]
    return own or found


def changed_paths(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the paths of what was added, removed or changed, without managedFields and the resource version."""
    return [format_path(path) for path in _changes(before, after, ()) if not set(path[1:2]) & set(_NOISE)]


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, Element(str(index))))
    else:
        yield path, value


def _has(path: Path, value: Any, text: str, *, secret: bool) -> bool:  # noqa: ANN401 - any JSON
    if any(text in step for step in path if isinstance(step, str)):
        return True
    if secret and path[0] == "data" and isinstance(value, str):
        with suppress(ValueError):  # not base64 after all: looked at as it is
            return text.encode() in b64decode(value)
    return text in value if isinstance(value, str) else text == str(value)


def _changes(before: Any, after: Any, path: Path) -> Iterator[Path]:  # noqa: ANN401 - any JSON
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            if key in before and key in after:
                yield from _changes(before[key], after[key], (*path, key))
            else:
                yield (*path, key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _changes(old, new, (*path, Element(str(index))))
    elif before != after:
        yield path
