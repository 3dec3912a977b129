"""Objects of built-in kinds from protobuf into what the API server's JSON says, driven by the field table.

The wire alone does not decide what JSON has: Go leaves an empty value out or not by the tag of its field, keeps
pointers that are set, always writes structs, and writes nil lists as null. `clusterguard.snapshots.fields` has these
rules; this walks the bytes. Every length and wire type is checked; what is wrong raises ValueError, which
`clusterguard.snapshots.values` makes an error of this project. Fields that the table does not have are counted.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from clusterguard.etcd.protobuf import places_of
from clusterguard.snapshots.fields import Op

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from clusterguard.snapshots.fields import Message, Rule

__all__ = ["decode_message"]

_SHORT = 0x7F  # the greatest number that is one byte
_LONGEST_VARINT = 63  # bits before its last byte
_SIGN, _WORD = 1 << 63, 1 << 64
_DELIMITED = 2
_SIZES = {1: 8, 5: 4}  # of the wire types that no stored kind uses
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Asked for every field of every object: as names of this module they are found faster than on the class.
_STRING, _MESSAGE, _MESSAGES, _STRINGS = Op.STRING, Op.MESSAGE, Op.MESSAGES, Op.STRINGS
_TEXTS, _MAP, _INLINE, _VALUE, _PACKED, _NUMBERS = Op.TEXTS, Op.MAP, Op.INLINE, Op.VALUE, Op.PACKED, Op.NUMBERS


def decode_message(  # noqa: C901, PLR0912, PLR0915 - the one loop over every byte: a call for each field would double its time
    data: bytes, at: int, end: int, message: Message, unknown: Counter[str]
) -> dict[str, Any]:
    """Return a message as the API server's JSON has it.

    Args:
        data: Bytes that hold it.
        at: Where it begins.
        end: Where it ends.
        message: How it is read.
        unknown: Counts the fields that the table does not have, by message and number.

    Raises:
        ValueError: It is not such a message.
    """
    out = message.blank.copy()
    rules = message.rules
    while at < end:
        tag = data[at]
        at += 1
        if tag > _SHORT:
            tag, at = _varint(data, at - 1, end)
        rule = rules.get(tag)
        if rule is None:
            at = _skip(data, at, end, tag, message, unknown)
            continue
        op, name, keep, kind, nested = rule
        if tag & 7 != _DELIMITED:
            number, at = _varint(data, at, end)
            value = number != 0 if kind == "b" else number - _WORD if number >= _SIGN else number
            if op == _NUMBERS:
                _list(out, name).append(value)
            elif number or keep:
                out[name] = value
            continue
        if at >= end:
            raise _cut(at, name)
        size = data[at]
        at += 1
        if size > _SHORT:
            size, at = _varint(data, at - 1, end)
        stop = at + size
        if stop > end:
            raise _cut(at, name)
        if op == _STRING:
            if size or keep:
                out[name] = data[at:stop].decode()
        elif op == _TEXTS:
            held = out.get(name)
            if held is None:
                held = out[name] = {}
            key, start, close = _entry(data, at, stop)
            held[key] = data[start:close].decode()
        elif nested is not None:
            if op == _MESSAGE:
                out[name] = decode_message(data, at, stop, nested, unknown)
            elif op == _MESSAGES:
                _list(out, name).append(decode_message(data, at, stop, nested, unknown))
            elif op == _INLINE:
                out.update(decode_message(data, at, stop, nested, unknown))
            else:
                key, start, close = _entry(data, at, stop)
                _map(out, name)[key] = decode_message(data, start, close, nested, unknown)
        elif op == _STRINGS:
            _list(out, name).append(data[at:stop].decode())
        elif op == _VALUE:
            value = _value(data, at, stop, kind)
            if value or keep:
                out[name] = value
        elif op == _MAP:
            key, start, close = _entry(data, at, stop)
            _map(out, name)[key] = _value(data, start, close, kind)
        elif op == _PACKED:
            _list(out, name).extend(_packed(data, at, stop, rule))
        else:
            _list(out, name).append(_value(data, at, stop, kind))
        at = stop
    for name, nested in message.structs:
        if name not in out:
            out[name] = nested.empty()
    return out


def _list(out: dict[str, Any], name: str) -> list[Any]:
    held: list[Any] | None = out.get(name)
    if held is None:
        held = out[name] = []
    return held


def _map(out: dict[str, Any], name: str) -> dict[str, Any]:
    held: dict[str, Any] | None = out.get(name)
    if held is None:
        held = out[name] = {}
    return held


def _entry(data: bytes, at: int, end: int) -> tuple[str, int, int]:
    """Return one key of a map, and where its value lies."""
    fields = places_of(data, at, end)
    start, stop = fields.get(1, (at, at))
    return (data[start:stop].decode(), *fields.get(2, (end, end)))


def _value(data: bytes, at: int, end: int, kind: str) -> Any:  # noqa: ANN401 - whatever JSON has
    return _READERS[kind](data, at, end)


def _text(data: bytes, at: int, end: int) -> str:
    return data[at:end].decode()


def _base64(data: bytes, at: int, end: int) -> str:
    return b64encode(data[at:end]).decode()


def _quantity(data: bytes, at: int, end: int) -> str:
    start, stop = places_of(data, at, end).get(1, (at, at))
    return data[start:stop].decode() or "0"


def _json(data: bytes, at: int, end: int) -> Any:  # noqa: ANN401 - whatever JSON has
    start, stop = places_of(data, at, end).get(1, (at, at))
    return orjson.loads(memoryview(data)[start:stop]) if start < stop else None


def _int_or_string(data: bytes, at: int, end: int) -> int | str:
    fields = places_of(data, at, end, numbers=0b110)
    if 1 in fields and _number(data, fields[1]) == 1:
        start, stop = fields.get(3, (at, at))
        return data[start:stop].decode()
    return _number(data, fields[2]) if 2 in fields else 0  # noqa: PLR2004 - the field's number


def _time(data: bytes, at: int, end: int) -> str | None:
    if at == end:
        return None
    fields = places_of(data, at, end, numbers=0b110)
    return _seconds(_number(data, fields[1]) if 1 in fields else 0)


def _micro_time(data: bytes, at: int, end: int) -> str | None:
    if at == end:
        return None
    fields = places_of(data, at, end, numbers=0b110)
    seconds, nanos = (_number(data, fields[each]) if each in fields else 0 for each in (1, 2))
    return f"{_seconds(seconds)[:-1]}.{nanos // 1000:06d}Z"


@lru_cache(maxsize=4096)
def _seconds(since_1970: int) -> str:
    try:
        return f"{_EPOCH + timedelta(seconds=since_1970):%Y-%m-%dT%H:%M:%S}Z"
    except OverflowError as error:
        raise ValueError(f"{since_1970} seconds after 1970 are beyond the calendar") from error


def _wrapped(data: bytes, at: int, end: int) -> list[str] | None:
    """Return a list of strings that is a message of its own."""
    found = []
    while at < end:
        start, stop = _first_string(data, at, end)
        found.append(data[start:stop].decode())
        at = stop
    return found or None


def _first_string(data: bytes, at: int, end: int) -> tuple[int, int]:
    tag, at = _varint(data, at, end)
    size, start = _varint(data, at, end)
    if tag != 1 << 3 | _DELIMITED or start + size > end:
        raise ValueError(f"byte {at}: this is no list of strings")
    return start, start + size


_READERS: dict[str, Callable[[bytes, int, int], Any]] = {
    "s": _text,
    "y": _base64,
    "T": _time,
    "U": _micro_time,
    "Q": _quantity,
    "O": _int_or_string,
    "J": _json,
    "W": _wrapped,
}


def _packed(data: bytes, at: int, end: int, rule: Rule) -> list[int | bool]:
    found: list[int | bool] = []
    while at < end:
        number, at = _varint(data, at, end)
        found.append(number != 0 if rule.kind == "b" else number - _WORD if number >= _SIGN else number)
    return found


def _number(data: bytes, place: tuple[int, int]) -> int:
    number, _ = _varint(data, *place)
    return number - _WORD if number >= _SIGN else number


def _skip(data: bytes, at: int, end: int, tag: int, message: Message, unknown: Counter[str]) -> int:
    """Return where a field ends that the table does not have."""
    number, wire_type = tag >> 3, tag & 7
    if number in message.numbers or number == 0:
        raise ValueError(f"byte {at}: field {number} of {message.name} has the wire type {wire_type}")
    unknown[f"{message.name} {number}"] += 1
    if wire_type == 0:
        return _varint(data, at, end)[1]
    if wire_type == _DELIMITED:
        size, at = _varint(data, at, end)
    elif wire_type in _SIZES:
        size = _SIZES[wire_type]
    else:
        raise ValueError(f"byte {at}: field {number} of {message.name} has the unknown wire type {wire_type}")
    if at + size > end:
        raise _cut(at, f"field {number} of {message.name}")
    return at + size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift <= _LONGEST_VARINT:
        byte = data[at]
        at += 1
        value |= (byte & _SHORT) << shift
        if byte <= _SHORT:
            return value & _WORD - 1, at
        shift += 7
    raise ValueError(f"byte {at}: a number does not end")


def _cut(at: int, name: str) -> ValueError:
    return ValueError(f"byte {at}: {name} ends behind what holds it")
