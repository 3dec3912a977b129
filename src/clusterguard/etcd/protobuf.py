"""Protobuf's wire format, as far as etcd's small messages need it: no I/O.

Source: protobuf.dev/programming-guides/encoding. The snapshot stream, with a message for every 32 KiB, has a quicker
reader of its own in ``wire.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fields_of", "length_delimited", "places_of", "varint_field"]

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
_SHORT = 0x7F  # the greatest number that is one byte
_WORD = 1 << 64


def fields_of(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message: varints as int, all others as bytes.

    Raises:
        ValueError: It is no protobuf message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            content, at = _varint(message, at)
            yield number, content
            continue
        if kind == _LENGTH_DELIMITED:
            size, at = _varint(message, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"field {number} has the unknown wire type {kind}")
        if number == 0 or at + size > len(message):
            raise ValueError(f"field {number} ends behind the message")
        yield number, message[at : at + size]
        at += size


def places_of(data: bytes, at: int, end: int, *, numbers: int = 0) -> dict[int, tuple[int, int]]:
    """Return where the fields of a small message lie, by number, the last one of each.

    Args:
        data: Bytes that hold it.
        at: Where it begins.
        end: Where it ends.
        numbers: A bit for each field that is a number; all others have lengths.

    Raises:
        ValueError: It is not such a message.
    """
    found: dict[int, tuple[int, int]] = {}
    while at < end:
        tag = data[at]
        at += 1
        if tag > _SHORT:
            tag, at = _varint(data, at - 1)
        number = tag >> 3
        if tag & 7 == _LENGTH_DELIMITED and not numbers >> number & 1:
            size, start = (data[at], at + 1) if at < end and data[at] <= _SHORT else _varint(data, at)
            at = start + size
        elif tag & 7 == _VARINT and numbers >> number & 1:
            start = at
            _, at = _varint(data, at)
        else:
            raise ValueError(f"byte {at}: field {number} has the wire type {tag & 7}")
        if at > end:
            raise ValueError(f"byte {start}: field {number} ends behind what holds it")
        found[number] = start, at
    return found


def varint_field(number: int, value: int) -> bytes:
    """Return a field with a whole number; a negative one is its two's complement."""
    return _varint_bytes(number << 3 | _VARINT) + _varint_bytes(value % _WORD)


def length_delimited(number: int, value: bytes) -> bytes:
    """Return a field with bytes, a text or a message."""
    return _varint_bytes(number << 3 | _LENGTH_DELIMITED) + _varint_bytes(len(value)) + value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * step
        if byte <= _SHORT:
            return value, at + step + 1
    raise ValueError("a number does not end")


def _varint_bytes(value: int) -> bytes:
    encoded = bytearray()
    while value > _SHORT:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
