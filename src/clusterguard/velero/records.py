"""Reading values out of the records that Velero keeps of a backup, whatever is missing in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["part_of", "text_of"]


def part_of(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object inside another one, empty where there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def text_of(record: Mapping[str, Any], key: str) -> str:
    """Return a value as text, empty where there is none."""
    value = record.get(key)
    return "" if value is None else str(value)
