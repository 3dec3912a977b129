"""Durations as Go writes them in Velero's resources: ``720h0m0s``, ``1.5s``."""

from __future__ import annotations

import math
import re
from datetime import timedelta

__all__ = ["go_duration", "parse_go_duration"]

_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def parse_go_duration(text: str) -> timedelta:
    """Read a duration as Go writes it: ``720h0m0s``, ``1.5s``, ``0s``.

    Raises:
        ValueError: It is not valid.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    parts = _GO_PART.findall(rest)
    if rest != "0" and (not parts or "".join(number + unit for number, unit in parts) != rest):
        raise ValueError(f"{text!r} is not a valid duration")
    try:
        return sign * timedelta(seconds=math.fsum(float(number) * _GO_UNITS[unit] for number, unit in parts))
    except OverflowError as error:
        raise ValueError(f"{text!r} is too long for a duration") from error


def go_duration(value: timedelta) -> str:
    """Write a duration as Go does: ``720h0m0s``, ``1.5s``, ``250ms``, ``0s``."""
    sign = "-" if value < timedelta() else ""
    microseconds = abs(value) // timedelta(microseconds=1)
    if not microseconds:
        return "0s"
    if microseconds < 1_000:  # noqa: PLR2004 - a millisecond
        return f"{sign}{microseconds}µs"
    if microseconds < 1_000_000:  # noqa: PLR2004 - a second
        return f"{sign}{_decimal(microseconds, 1_000)}ms"
    minutes, rest = divmod(microseconds, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    digits = str(part).zfill(len(str(unit)) - 1).rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
