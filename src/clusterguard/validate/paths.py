"""Paths to fields, as reports write them and as rules match them.

``spec.containers[name=web].ports[containerPort=80,protocol=TCP].name`` leads through keys of maps and
elements of lists. An element is named by its merge key where Kubernetes gives it one, else by its index:
``args[0]``. A key that is more than a plain word stands in brackets and quotes:
``metadata.annotations["example.com/owner"]``.

A pattern is such a path, with ``*`` for any run of characters inside one key or one pair of brackets. It
covers the field it names and everything below. In a pattern the quotes may be left out.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from clusterguard.errors import ConfigError

__all__ = ["Element", "Path", "Pattern", "format_path", "parse_pattern"]


class Element(NamedTuple):
    """One element of a list: ``name=web``, or its index."""

    label: str


Path: TypeAlias = tuple[str | Element, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z_$][\w$-]*")
_STEP = re.compile(
    r"""
    \.?(?P<key>[^.\[\]"]+)                  # .spec
  | \[(?P<quoted>"(?:[^"\\]|\\.)*")\]       # ["example.com/owner"]
  | \[(?P<bracket>[^\]"]+)\]                # [name=web] [0] [*] [example.com/owner]
    """,
    re.VERBOSE,
)


def format_path(path: Path) -> str:
    """Write a path."""
    text = "".join(_format_step(step) for step in path)
    return text.removeprefix(".")


def _format_step(step: str | Element) -> str:
    if isinstance(step, Element):
        return f"[{step.label}]"
    return f".{step}" if _PLAIN_KEY.fullmatch(step) else f"[{json.dumps(step, ensure_ascii=False)}]"


class _Matcher(NamedTuple):
    element: bool
    literal: str | None
    regex: re.Pattern[str]

    def matches(self, step: str | Element) -> bool:
        if isinstance(step, Element) is not self.element:
            return False
        label = step.label if isinstance(step, Element) else step
        return label == self.literal if self.literal is not None else self.regex.fullmatch(label) is not None


class Pattern(NamedTuple):
    """Says which fields are meant."""

    text: str
    steps: tuple[_Matcher, ...]

    def key_at(self, step: int) -> str | None:
        """Return the key that a path must have at a step, or None where that is not a single one."""
        matcher = self.steps[step] if step < len(self.steps) else None
        return None if matcher is None or matcher.element else matcher.literal

    def covers(self, path: Path) -> bool:
        """Return whether the path leads to the field that is meant, or below it."""
        return len(path) >= len(self.steps) and all(
            matcher.matches(step) for matcher, step in zip(self.steps, path, strict=False)
        )


@lru_cache(maxsize=1024)
def parse_pattern(text: str) -> Pattern:
    """Read a pattern.

    Raises:
        ConfigError: The text is not a field path.
    """
    steps: list[_Matcher] = []
    position = 0
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            raise ConfigError(f"{text!r} is not a valid field path: cannot parse {text[position:]!r}", hint=_EXAMPLES)
        steps.append(_matcher(found))
        position = found.end()
    if not steps:
        raise ConfigError("an empty field path", hint=_EXAMPLES)
    return Pattern(text, tuple(steps))


_EXAMPLES = "write it like spec.replicas, metadata.annotations[example.com/owner], spec.volumes[name=data].nfs"


def _matcher(found: re.Match[str]) -> _Matcher:
    if found["quoted"] is not None:
        literal = _unquoted(found["quoted"])
        return _Matcher(element=False, literal=literal, regex=re.compile(re.escape(literal)))
    text = found["key"] if found["key"] is not None else found["bracket"]
    is_element = found["key"] is None and (text == "*" or text.isdigit() or "=" in text)
    return _Matcher(element=is_element, literal=None if "*" in text else text, regex=_glob(text))


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{text} is not a quoted key: {error.msg}", hint=_EXAMPLES) from error


def _glob(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)
