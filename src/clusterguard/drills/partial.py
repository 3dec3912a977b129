"""Does an object have what a partial tree asks for? Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["mismatches"]

# Fields by which Kubernetes itself tells the items of a list apart.
_MERGE_KEYS = ("name", "containerPort", "port", "type", "key", "ip", "uid")


def mismatches(wanted: Any, found: Any) -> list[str]:  # noqa: ANN401 - JSON
    """Return, one line each, where ``found`` lacks what ``wanted`` asks for; what is not asked for is ignored.

    The items of a list may stand anywhere in the found list: those that bear a name (or port, type, key) are
    looked for by it, others by having all that is asked for.
    """
    return list(_compare(wanted, found, ""))


def _compare(wanted: Any, found: Any, path: str) -> Iterator[str]:  # noqa: ANN401 - JSON
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            yield f"{path or '.'}: {_shown(found)} instead of a mapping"
            return
        for key, value in wanted.items():
            inner = f"{path}.{key}" if path else key
            if key in found:
                yield from _compare(value, found[key], inner)
            else:
                yield f"{inner}: not there, {_shown(value)} expected"
    elif isinstance(wanted, list):
        if not isinstance(found, list):
            yield f"{path}: {_shown(found)} instead of a list"
            return
        for index, item in enumerate(wanted):
            yield from _in_list(item, found, f"{path}[{_label(item, index)}]")
    elif wanted != found or isinstance(wanted, bool) != isinstance(found, bool):
        yield f"{path}: {_shown(found)}, {_shown(wanted)} expected"


def _in_list(wanted: Any, found: list[Any], path: str) -> Iterator[str]:  # noqa: ANN401 - JSON
    key = _merge_key(wanted)
    if key is not None:
        same = [item for item in found if isinstance(item, dict) and item.get(key) == wanted[key]]
        if same:
            best = min((mismatches(wanted, item) for item in same), key=len)
            yield from (f"{path}.{line}" for line in best)
            return
    elif any(not mismatches(wanted, item) for item in found):
        return
    yield f"{path}: not there, {_shown(wanted)} expected"


def _merge_key(item: Any) -> str | None:  # noqa: ANN401 - JSON
    if not isinstance(item, dict):
        return None
    return next((key for key in _MERGE_KEYS if key in item and not isinstance(item[key], (dict, list))), None)


def _label(item: Any, index: int) -> str:  # noqa: ANN401 - JSON
    key = _merge_key(item)
    return str(index) if key is None else f"{key}={item[key]}"


def _shown(value: Any) -> str:  # noqa: ANN401 - JSON
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:120]}…"  # noqa: PLR2004 - a terminal line
