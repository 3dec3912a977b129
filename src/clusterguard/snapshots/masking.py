"""Secrets as they may be shown: every key, no value."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any

from clusterguard.validate.field_owners import LAST_APPLIED

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["masked"]


def masked(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object with what a Secret keeps replaced by how long it is; anything else is returned as it is."""
    if (item.get("apiVersion"), item.get("kind")) != ("v1", "Secret"):
        return item
    hidden = {name: _masked_values(item[name]) for name in ("data", "stringData") if isinstance(item.get(name), dict)}
    metadata = dict(item["metadata"])
    annotations = metadata.get("annotations") or {}
    if LAST_APPLIED in annotations:
        metadata["annotations"] = {**annotations, LAST_APPLIED: "(hidden)"}
    return {**item, **hidden, "metadata": metadata}


def _masked_values(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: f"(hidden: {_length(value)} bytes)" for key, value in values.items()}


def _length(value: object) -> int:
    try:
        return len(b64decode(str(value), validate=True))
    except ValueError:
        return len(str(value))
