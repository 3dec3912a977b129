"""LZW as Go's ``compress/lzw`` writes it, least significant bit first with literals of 8 bits: a choice of gardener's.

It has no mark of its own and no checksum. Codes begin with 9 bits and grow to 12; one clears the table, another one
ends the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.stores.base import ByteReader

__all__ = ["LzwReader", "begins_with_clear", "first_bytes"]

_CLEAR, _END = 256, 257
_LEAST_BITS, _MOST_BITS = 9, 12
_AT_ONCE: Final = 4096  # compressed bytes; at most ten megabytes come out of them
_LITERALS: Final = (*(bytes([each]) for each in range(256)), b"", b"")


def begins_with_clear(data: bytes) -> bool:
    """Return whether the first code is the one that such writers begin with."""
    return len(data) > 1 and int.from_bytes(data[:2], "little") & 0x1FF == _CLEAR


def first_bytes(data: bytes) -> bytes:
    """Return what the beginning of a stream stands for, as far as it can be told."""
    found = bytearray()
    try:
        for piece in _pieces(iter((data[:_AT_ONCE],))):
            found += piece
    except ValueError:
        pass  # it is the beginning only, or no such stream at all
    return bytes(found)


class LzwReader:
    """Reads what comes out of a stream.

    Reading raises:
        ValueError: It is cut off, or has a code that cannot be.
    """

    def __init__(self, source: ByteReader) -> None:
        self._pieces = _pieces(iter(lambda: source.read(_AT_ONCE), b""))
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to this many bytes; none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_AT_ONCE), b""))
        while size and not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    table, last = list(_LITERALS), b""
    width, mask = _LEAST_BITS, (1 << _LEAST_BITS) - 1
    bits = count = 0
    for chunk in chunks:
        found: list[bytes] = []
        for byte in chunk:
            bits |= byte << count
            count += 8
            if count < width:
                continue
            code = bits & mask
            bits >>= width
            count -= width
            if code == _CLEAR:
                table, last = list(_LITERALS), b""
                width, mask = _LEAST_BITS, (1 << _LEAST_BITS) - 1
                continue
            if code == _END:
                yield b"".join(found)
                return
            if code < len(table):
                text = table[code]
            elif code == len(table) and last:
                text = last + last[:1]  # the one that this code itself completes
            else:
                yield b"".join(found)
                raise ValueError(f"code {code} cannot be there")
            if last and len(table) < 1 << _MOST_BITS:
                table.append(last + text[:1])
            last = text
            found.append(text)
            if len(table) > mask and width < _MOST_BITS:
                width += 1
                mask = (1 << width) - 1
        yield b"".join(found)
    raise ValueError("it is cut off")
