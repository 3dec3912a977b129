"""Who set a field: what an object's own ``managedFields`` and kubectl's last applied manifest tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LAST_APPLIED", "last_applied", "managers", "managers_of", "names_field"]

_Object: TypeAlias = "Mapping[str, Any]"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which ``kubectl apply`` keeps the whole object once more, a Secret too."""


def managers(item: _Object) -> frozenset[str]:
    """Return everybody who has written to an object; empty where that was not kept."""
    return frozenset(str(entry.get("manager", "")) for entry in _entries(item))


def managers_of(item: _Object, field: str) -> frozenset[str]:
    """Return who owns a top-level field of an object, or something in it, such as ``status``."""
    return frozenset(
        str(entry.get("manager", "")) for entry in _entries(item) if f"f:{field}" in (entry.get("fieldsV1") or {})
    )


def names_field(item: _Object, *steps: str) -> bool:
    """Return whether somebody's writes name a field, which values that the API server chose itself never do.

    Args:
        item: The object.
        steps: As ``fieldsV1`` has them: ``f:spec``, ``f:clusterIP``.
    """
    return any(_leads_somewhere(entry.get("fieldsV1"), steps) for entry in _entries(item))


def last_applied(item: _Object) -> _Object:
    """Return the manifest that ``kubectl apply`` keeps in an annotation, or an empty one."""
    text = ((item.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        manifest = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _entries(item: _Object) -> Iterator[_Object]:
    for entry in (item.get("metadata") or {}).get("managedFields") or ():
        if isinstance(entry, dict):
            yield entry


def _leads_somewhere(fields: Any, steps: tuple[str, ...]) -> bool:  # noqa: ANN401 - any JSON
    for step in steps:
        if not isinstance(fields, dict) or step not in fields:
            return False
        fields = fields[step]
    return True
