"""Checksums of uploads, computed here and sent with each request.

Left to botocore, each upload over TLS is chunked with a trailer, and not every server reads that: some close the
connection with a refusal unread, some store the framing as the object.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Checksum", "checksum_of", "crc32_of_parts"]

Checksum: TypeAlias = Literal["CRC32", "SHA256", "when_required"]

_POLYNOMIAL: Final = 0xEDB88320  # of zlib's CRC-32, the bit of x**0 first
_ONE: Final = 1 << 31


def checksum_of(data: bytes | bytearray | memoryview, kind: Checksum) -> str:
    """Return the checksum of some bytes as S3 writes it; empty where none is sent."""
    if kind == "CRC32":
        return _text(zlib.crc32(data).to_bytes(4, "big"))
    return _text(hashlib.sha256(data).digest()) if kind == "SHA256" else ""


def crc32_of_parts(parts: Iterable[tuple[str, int]]) -> str:
    """Return the CRC-32 of joined parts from the CRC-32 and the size of each, without their bytes."""
    whole = 0
    for text, size in parts:
        # A CRC is a remainder modulo the polynomial: what comes first is moved by the bits of what follows it.
        whole = _product(whole, _shift(size)) ^ int.from_bytes(base64.b64decode(text), "big")
    return _text(whole.to_bytes(4, "big"))


@cache
def _shift(size: int) -> int:
    """Return x to the number of bits in so many bytes, modulo the polynomial."""
    power, square = _ONE, _ONE >> 8
    while size:
        if size & 1:
            power = _product(power, square)
        square, size = _product(square, square), size >> 1
    return power


def _product(left: int, right: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return product


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
