"""NaCl's secretbox, which is XSalsa20 with Poly1305: only the opening of it.

cryptography has Poly1305 but not Salsa20, and libsodium would be a dependency for the rare cluster that chose this
provider. The tag is checked before anything is decrypted. Source: cr.yp.to/snuffle/xsalsa-20110204.pdf.
"""

from __future__ import annotations

import struct

__all__ = ["open_secretbox"]

_NONCE, _TAG, _BLOCK = 24, 16, 64
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_WORDS, _BLOCK_WORDS = struct.Struct("<4I"), struct.Struct("<16I")
_MASK = 0xFFFFFFFF
_COLUMNS = ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11))
_ROWS = ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14))


def open_secretbox(key: bytes, sealed: bytes) -> bytes | None:
    """Return the text, or None if the key does not open it.

    Args:
        key: 32 bytes.
        sealed: Nonce, tag and ciphertext.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    if len(sealed) < _NONCE + _TAG:
        return None
    nonce, tag, text = sealed[:_NONCE], sealed[_NONCE : _NONCE + _TAG], sealed[_NONCE + _TAG :]
    stream_key, stream_nonce = _hsalsa20(key, nonce[:16]), nonce[16:]
    blocks = (len(text) + 32 + _BLOCK - 1) // _BLOCK
    stream = b"".join(_salsa20(stream_key, stream_nonce, counter) for counter in range(blocks))
    try:
        Poly1305.verify_tag(stream[:32], text, tag)
    except InvalidSignature:
        return None
    pad = int.from_bytes(stream[32 : 32 + len(text)], "little")
    return (int.from_bytes(text, "little") ^ pad).to_bytes(len(text), "little")


def _hsalsa20(key: bytes, nonce: bytes) -> bytes:
    mixed = _mixed(_state(key, nonce))
    return struct.pack("<8I", *(mixed[each] for each in (0, 5, 10, 15, 6, 7, 8, 9)))


def _salsa20(key: bytes, nonce: bytes, counter: int) -> bytes:
    state = _state(key, nonce + counter.to_bytes(8, "little"))
    return _BLOCK_WORDS.pack(*((a + b) & _MASK for a, b in zip(state, _mixed(state), strict=True)))


def _state(key: bytes, nonce: bytes) -> tuple[int, ...]:
    first, second, middle = _WORDS.unpack(key[:16]), _WORDS.unpack(key[16:]), _WORDS.unpack(nonce)
    return (_SIGMA[0], *first, _SIGMA[1], *middle, _SIGMA[2], *second, _SIGMA[3])


def _mixed(state: tuple[int, ...]) -> list[int]:
    x = list(state)
    for _ in range(10):
        for a, b, c, d in (*_COLUMNS, *_ROWS):
            x[b] ^= _turned(x[a] + x[d], 7)
            x[c] ^= _turned(x[b] + x[a], 9)
            x[d] ^= _turned(x[c] + x[b], 13)
            x[a] ^= _turned(x[d] + x[c], 18)
    return x


def _turned(word: int, by: int) -> int:
    word &= _MASK
    return (word << by | word >> 32 - by) & _MASK
