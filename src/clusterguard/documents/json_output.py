"""What commands print as JSON: times in RFC 3339, durations in seconds, names of fields in camelCase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from typing import Any

from pydantic.alias_generators import to_camel

__all__ = ["json_data"]


def json_data(value: object) -> Any:  # noqa: ANN401 - whatever JSON has
    """Return a dataclass, and what is in it, as plain data."""
    match value:
        case datetime() | date():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case tuple() | list():
            return [json_data(each) for each in value]
        case Mapping():
            return {key: json_data(each) for key, each in value.items()}
        case _ if is_dataclass(value):
            return {to_camel(each.name): json_data(getattr(value, each.name)) for each in fields(value)}
    return value
