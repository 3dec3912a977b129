"""The table of built-in kinds, ``kubernetes.fields``, as what the decoder runs on; no more of it than is asked for.

``tools/kubernetes_fields.py`` writes the table and says what its lines mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NEWEST_MINOR", "FieldTable", "Message", "Op", "Rule", "field_table"]

NEWEST_MINOR = 37
"""The newest minor version of Kubernetes 1.x in the table."""

_VARINT, _DELIMITED = 0, 2
_SINCE = "@"
_STRUCTS = frozenset("TUQOJ")  # in Go; the other letters are scalars and lists


class Op:
    """What to do with a field's bytes; whole numbers, as this is asked for every field of every object."""

    STRING, MESSAGE, MESSAGES, STRINGS, TEXTS, MAP, INLINE, VALUE, VALUES, NUMBER, NUMBERS, PACKED = range(12)


class Rule(NamedTuple):
    """How one field is read.

    Attributes:
        op: One of `Op`.
        name: In JSON.
        keep: Whether a value that is empty or zero is written, too.
        kind: The type's letter in the table, of a map the values' one; empty for a message.
        message: The message, where it is one.
    """

    op: int
    name: str
    keep: bool
    kind: str
    message: Message | None


@dataclass(slots=True, eq=False)
class Message:
    """How one message is read.

    Attributes:
        name: In the table.
        rules: By tag, which is the number and the wire type.
        numbers: Of all its fields.
        blank: What JSON has where nothing is stored, except messages.
        structs: Messages that JSON has even where nothing is stored, by their JSON names.
    """

    name: str
    rules: dict[int, Rule] = field(default_factory=dict)
    numbers: set[int] = field(default_factory=set)
    blank: dict[str, Any] = field(default_factory=dict)
    structs: list[tuple[str, Message]] = field(default_factory=list)

    def empty(self) -> dict[str, Any]:
        """Return what JSON has of a message without any field stored."""
        return {**self.blank, **{name: message.empty() for name, message in self.structs}}


class FieldTable:
    """The table as one minor version of Kubernetes reads it.

    Args:
        lines: Of the file.
        minor: Of Kubernetes 1.x, whose API server's JSON is wanted; readable afterwards.
    """

    def __init__(self, lines: list[str], *, minor: int) -> None:
        self.minor = minor
        self._kinds: dict[tuple[str, str], str] = {}
        self._lines: dict[str, str] = {}
        self._messages: dict[str, Message] = {}
        self._building: dict[str, Message] = {}
        self._lock = RLock()
        for line in lines:
            name, _, rest = line.partition(" ")
            if name == "kind":
                version, kind, message = rest.split(" ")
                self._kinds[version, kind] = message
            elif name != "#":
                self._lines[name] = rest

    @property
    def kinds(self) -> Mapping[tuple[str, str], str]:
        """The message of each kind, by API version and kind."""
        return self._kinds

    def kind(self, api_version: str, kind: str) -> Message | None:
        """Return how objects of a kind are read, or None for one that the table does not have."""
        name = self._kinds.get((api_version, kind))
        return self.message(name) if name else None

    def message(self, name: str) -> Message:
        """Return how a message is read."""
        found = self._messages.get(name)
        return found if found is not None else self._built(name)

    def is_versioned(self, message: Message) -> bool:
        """Return whether another version would write an object of a kind otherwise."""
        # Of its own metadata that is never true: every object has a time of creation.
        pending, seen = [rule.message for rule in message.rules.values() if rule.name != "metadata"], {message}
        if _SINCE in self._lines[message.name]:
            return True
        while pending:
            inner = pending.pop()
            if inner is not None and inner not in seen:
                if _SINCE in self._lines[inner.name]:
                    return True
                seen.add(inner)
                pending += [rule.message for rule in inner.rules.values()]
        return False

    def _built(self, name: str) -> Message:
        with self._lock:
            found = self._building.get(name)
            if found is None:
                outermost = not self._building
                found = self._building[name] = Message(name)  # before its fields, as it may hold itself
                self._fill(found)
                if outermost:  # no other thread sees one that is not whole
                    self._messages |= self._building
                    self._building = {}
            return found

    def _fill(self, message: Message) -> None:
        rules: dict[int, tuple[str, str, str, bool]] = {}
        for text in self._lines[message.name].split(" "):
            if not text:
                continue
            described, _, since = text.partition(_SINCE)
            digits, name, flags, kind = described.split(":")
            if since and int(since) > self.minor:
                # Not yet so in that version; what is on the wire all the same is read.
                rules.setdefault(int(digits), (name, flags, kind, False))
            else:
                rules[int(digits)] = (name, flags, kind, True)
        for number, (name, flags, kind, known) in rules.items():
            self._add(message, number, name, flags, kind, known=known)

    def _add(self, message: Message, number: int, name: str, flags: str, kind: str, *, known: bool) -> None:
        nested = self.message(kind) if len(kind) > 1 else None
        letter = "" if nested else kind
        op = _op(flags, letter)
        keep = "*" in flags or "?" not in flags
        if op == Op.VALUE and letter in _STRUCTS:
            keep = "0" not in flags  # omitempty has no effect on structs
        message.numbers.add(number)
        wire_type = _VARINT if op in {Op.NUMBER, Op.NUMBERS} else _DELIMITED
        message.rules[number << 3 | wire_type] = Rule(op, name, keep, letter, nested)
        if op == Op.NUMBERS:  # which may be written either way
            message.rules[number << 3 | _DELIMITED] = Rule(Op.PACKED, name, keep, letter, None)
        if not known:
            return
        if op == Op.INLINE and nested:
            message.blank |= nested.blank
            message.structs += nested.structs
        elif op == Op.MESSAGE and nested and "*" not in flags:
            message.structs.append((name, nested))
        elif "?" not in flags or (op == Op.VALUE and keep and "*" not in flags):
            message.blank[name] = _blank(flags, letter)


def _op(flags: str, letter: str) -> int:
    if "~" in flags:
        return Op.INLINE
    if "{" in flags:
        return Op.TEXTS if letter == "s" else Op.MAP
    if "[" in flags:
        return {"": Op.MESSAGES, "s": Op.STRINGS, "i": Op.NUMBERS, "b": Op.NUMBERS}.get(letter, Op.VALUES)
    return {"": Op.MESSAGE, "s": Op.STRING, "i": Op.NUMBER, "b": Op.NUMBER}.get(letter, Op.VALUE)


def _blank(flags: str, letter: str) -> object:
    """Return what Go's JSON has for a value that was never set."""
    if set("*[{") & set(flags):
        return None
    return {"s": "", "b": False, "i": 0, "Q": "0", "O": 0}.get(letter)


@cache
def _lines() -> list[str]:
    text = (resources.files("clusterguard.snapshots") / "kubernetes.fields").read_text(encoding="utf-8")
    return text.splitlines()


@cache
def field_table(minor: int = NEWEST_MINOR) -> FieldTable:
    """Return the table as a minor version of Kubernetes 1.x reads it; older and newer ones as the nearest there is."""
    return FieldTable(_lines(), minor=minor)
