"""CBOR as the API server stores custom resources in it (RFC 8949), read into what JSON has.

It writes texts as byte strings, bytes as byte strings with tag 22 (expected to become base64), and only definite
lengths; the rest of what its reader takes is taken here, too. Big numbers and values that JSON lacks are refused.
"""

from __future__ import annotations

import math
import struct
from base64 import b16encode, b64encode, urlsafe_b64encode
from typing import Any

__all__ = ["MAGIC", "decode_cbor"]

MAGIC = b"\xd9\xd9\xf7"  # tag 55799, "this is CBOR"

_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_SIMPLE: dict[int, bool | None] = {20: False, 21: True, 22: None}
_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}
_INDEFINITE, _BREAK = 31, 0xFF
_ENCODINGS = {21: urlsafe_b64encode, 22: b64encode, 23: b16encode}
_REFUSED = {2: "a big number", 3: "a big number"}
_DEEPEST = 200  # each level is two calls, and Python takes a thousand
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
_INT64 = 1 << 63


def decode_cbor(data: bytes) -> Any:  # noqa: ANN401 - whatever JSON has
    """Return the one item that the bytes are.

    Raises:
        ValueError: They are not CBOR, or say what JSON cannot.
    """
    value, at = _item(data, 0, 0)
    if at != len(data):
        raise ValueError(f"byte {at}: there is more behind the value")
    return value


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data) or depth > _DEEPEST:
        raise ValueError(f"byte {at}: the value does not end")
    major, low = data[at] >> 5, data[at] & 31
    if major == _TAG + 1:
        return _simple(data, at + 1, low)
    if low == _INDEFINITE and major in {_BYTES, _TEXT, _ARRAY, _MAP}:
        return _indefinite(data, at + 1, major, depth)
    number, at = _argument(data, at + 1, low)
    if major in {_UNSIGNED, _NEGATIVE}:
        if number >= _INT64:
            raise ValueError(f"byte {at}: a number is too large for the API")
        return number if major == _UNSIGNED else -1 - number, at
    if major in {_BYTES, _TEXT}:
        return _string(data, at, number).decode(), at + number
    return {_ARRAY: _array, _MAP: _mapping, _TAG: _tagged}[major](data, at, number, depth)


def _argument(data: bytes, at: int, low: int) -> tuple[int, int]:
    if low < min(_SIZES):
        return low, at
    size = _SIZES.get(low)
    if size is None or at + size > len(data):
        raise ValueError(f"byte {at}: a length does not end")
    return int.from_bytes(data[at : at + size], "big"), at + size


def _string(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ValueError(f"byte {at}: a string of {size} bytes does not end")
    return data[at : at + size]


def _array(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    found = []
    for _ in range(count):
        value, at = _item(data, at, depth + 1)
        found.append(value)
    return found, at


def _mapping(data: bytes, at: int, count: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    for _ in range(count):
        at = _pair(data, at, depth, found)
    return found, at


def _pair(data: bytes, at: int, depth: int, found: dict[str, Any]) -> int:
    key, after = _item(data, at, depth + 1)
    if not isinstance(key, str) or key in found:
        raise ValueError(f"byte {at}: a key that is no text, or there twice")
    found[key], after = _item(data, after, depth + 1)
    return after


def _indefinite(data: bytes, at: int, major: int, depth: int) -> tuple[Any, int]:
    items: list[Any] = []
    pairs: dict[str, Any] = {}
    while at < len(data) and data[at] != _BREAK:
        if major == _MAP:
            at = _pair(data, at, depth, pairs)
        else:
            item, at = _item(data, at, depth + 1)
            items.append(item)
    if at >= len(data):
        raise ValueError(f"byte {at}: the value does not end")
    if major in {_BYTES, _TEXT}:
        return "".join(map(str, items)), at + 1
    return (pairs if major == _MAP else items), at + 1


def _simple(data: bytes, at: int, low: int) -> tuple[Any, int]:
    if low in _SIMPLE:
        return _SIMPLE[low], at
    if low not in _FLOATS or at + _FLOATS[low].size > len(data):
        raise ValueError(f"byte {at}: the simple value {low} is unknown")
    (number,) = _FLOATS[low].unpack_from(data, at)
    if not math.isfinite(number):
        raise ValueError(f"byte {at}: {number} is not in JSON")
    return number, at + _FLOATS[low].size


def _tagged(data: bytes, at: int, tag: int, depth: int) -> tuple[Any, int]:
    if tag in _REFUSED:
        raise ValueError(f"byte {at}: {_REFUSED[tag]} is not in the API")
    if tag in _ENCODINGS and at < len(data) and data[at] >> 5 == _BYTES and data[at] & 31 != _INDEFINITE:
        size, start = _argument(data, at + 1, data[at] & 31)
        return _ENCODINGS[tag](_string(data, start, size)).decode(), start + size
    return _item(data, at, depth + 1)
