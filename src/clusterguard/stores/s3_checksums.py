"""Checksums of uploads, computed here and sent with each request.

Left to botocore, each upload over TLS is chunked with a trailer, and not every server reads that: some close the
connection with a refusal unread, some store the framing as the object.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import TYPE_CHECKING, Literal, TypeAlias

from clusterguard.crc import CRC32, combine

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Checksum", "checksum_of", "crc32_of_parts"]

Checksum: TypeAlias = Literal["CRC32", "SHA256", "when_required"]


def checksum_of(data: bytes | bytearray | memoryview, kind: Checksum) -> str:
    """Return the checksum of some bytes as S3 writes it; empty where none is sent."""
    if kind == "CRC32":
        return _text(zlib.crc32(data).to_bytes(4, "big"))
    return _text(hashlib.sha256(data).digest()) if kind == "SHA256" else ""


def crc32_of_parts(parts: Iterable[tuple[str, int]]) -> str:
    """Return the CRC-32 of joined parts from the CRC-32 and the size of each, without their bytes."""
    whole = 0
    for text, size in parts:
        whole = combine(whole, int.from_bytes(base64.b64decode(text), "big"), size, polynomial=CRC32)
    return _text(whole.to_bytes(4, "big"))


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
