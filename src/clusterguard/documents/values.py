"""The small languages that documents share: durations, names, label selectors, cron schedules.

Pure text in, values out; every ValueError says what was seen and what to write instead.
"""

from __future__ import annotations

import difflib
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from clusterguard.model.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "check_cron",
    "check_label",
    "check_name",
    "check_selector",
    "did_you_mean",
    "duration_text",
    "equalities",
    "read_duration",
    "selects",
    "short",
]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9A-Z]([-a-z0-9A-Z._:]*[a-z0-9A-Z])?")

_LABEL_KEY = r"(?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_VALUE = r"(?:[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"!?\s*{_LABEL_KEY}"
    rf"|{_LABEL_KEY}\s*(==|=|!=)\s*{_LABEL_VALUE}"
    rf"|{_LABEL_KEY}\s+(in|notin)\s*\(\s*{_LABEL_VALUE}\s*(,\s*{_LABEL_VALUE}\s*)*\)"
)
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")

_DAY: Final = 86_400
_LONGEST_SELECTOR: Final = 2000  # splitting one looks ahead from every comma

_CRON_FIELD = re.compile(r"(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?(,(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?)*")
_CRON_FIELDS: Final = 5


def read_duration(written: object, *, zero: bool = False) -> timedelta:
    """Read a duration such as ``90s``; ``0s`` only where ``zero`` makes sense.

    Raises:
        ValueError: It is not a duration, or too long a one.
    """
    match written:
        case timedelta():
            return written
        case int() | float() if not isinstance(written, bool):
            raise ValueError(f"`{written}` has no unit; write it like {written}s")
        case str():
            return _read_duration(written, zero=zero)
    raise ValueError("a duration is expected here, such as 90s, 15m or 1h30m")


def _read_duration(written: str, *, zero: bool) -> timedelta:
    if zero and written == "0s":
        return timedelta()
    try:
        duration = parse_duration(written)
    except OverflowError as error:
        raise ValueError(f"{written!r} is longer than can be waited for") from error
    if not duration:
        raise ValueError(f"{written!r} is not longer than zero")
    return duration


def duration_text(duration: timedelta) -> str:
    """Write a duration so that `read_duration` gives the same one: ``90s``, ``15m``, ``1.5ms``."""
    microseconds = duration // timedelta(microseconds=1)
    seconds, rest = divmod(microseconds, 1_000_000)
    if rest:
        return f"{microseconds // 1000}.{microseconds % 1000:03d}".rstrip("0").rstrip(".") + "ms"
    if seconds > _DAY and seconds % _DAY == 0:  # one day is 24h: of days people speak from two on
        return f"{seconds // _DAY}d"
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def check_label(text: str) -> str:
    """Return a DNS label unchanged: what names namespaces, drills, and whatever a drill file names itself.

    Raises:
        ValueError: It is not one.
    """
    if not _LABEL.fullmatch(text):
        raise ValueError(f"{short(text)} is not a DNS label: lower-case letters, digits and `-`, at most 63 characters")
    return text


def check_name(text: str) -> str:
    """Return the name of a Kubernetes object unchanged.

    Raises:
        ValueError: No object can have that name.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(f"{short(text)} cannot be the name of an object")
    return text


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector chooses something with these labels; the empty one chooses everything.

    Raises:
        ValueError: It is not a label selector.
    """
    if not selector:
        return True
    requirements = _COMMA_OUTSIDE_PARENTHESES.split(check_selector(selector))
    return all(_requirement_holds(requirement.strip(), labels) for requirement in requirements)


def equalities(selector: str) -> dict[str, str]:
    """Return the labels that a selector asks for by ``key=value``: what a new object needs to be selected."""
    found = (re.fullmatch(r"([^\s=!]+)\s*==?\s*(.*)", part.strip()) for part in selector.split(",") if part)
    return {match[1]: match[2] for match in found if match}


def _requirement_holds(requirement: str, labels: Mapping[str, str]) -> bool:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s*\((.*)\)", requirement):
        key, word, values = found.groups()
        return (labels.get(key) in [value.strip() for value in values.split(",")]) == (word == "in")
    if found := re.fullmatch(r"([^\s=!]+)\s*(==|=|!=)\s*(.*)", requirement):
        key, sign, value = found.groups()
        return (labels.get(key) == value) == (sign != "!=")
    if requirement.startswith("!"):
        return requirement[1:].strip() not in labels
    return requirement in labels


def check_selector(text: str) -> str:
    """Return a label selector unchanged. The API server has the last word; this catches slips at collection.

    Raises:
        ValueError: It has no requirement, or one that is malformed.
    """
    if len(text) > _LONGEST_SELECTOR:
        raise ValueError(f"a selector of more than {_LONGEST_SELECTOR} characters")
    for requirement in _COMMA_OUTSIDE_PARENTHESES.split(text):
        if not _REQUIREMENT.fullmatch(requirement.strip()):
            raise ValueError(
                f"invalid label selector {short(requirement.strip())}: write app=web, tier!=cache,"
                " env in (test,live) or !canary"
            )
    return text


def check_cron(text: str) -> str:
    """Return a cron schedule unchanged, in the five fields that Kubernetes' CronJob takes.

    Raises:
        ValueError: It is not one.
    """
    parts = text.split()
    if len(parts) != _CRON_FIELDS or not all(_CRON_FIELD.fullmatch(part) for part in parts):
        raise ValueError(f'invalid schedule {short(text)}: write five fields, such as "0 4 * * 1"')
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean `x`?`` for the nearest known word, or nothing when none is near."""
    candidates = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    return f"; did you mean `{candidates[close[0]]}`?" if close else ""


def short(text: str) -> str:
    """Return a text in quotes, cut to what fits a line of a message."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")  # noqa: PLR2004 - what fits a line
