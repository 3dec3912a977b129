"""Durations as Kubernetes writes them, and days: ``90s``, ``15m``, ``1h30m``, ``250ms``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["format_duration", "parse_duration"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(text: str) -> timedelta:
    """Read a duration such as ``1h30m``; a day is 24 hours, whatever clocks do that day.

    Raises:
        ValueError: The text is not a duration, or is zero.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 15m or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds == 0:
        raise ValueError(f"{text!r} is not longer than zero")
    return timedelta(seconds=seconds)


def format_duration(seconds: float) -> str:
    """Write seconds for people: ``0.4s``, ``12.3s``, ``4m05s``, ``1h02m``."""
    if round(seconds, 1) < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"
