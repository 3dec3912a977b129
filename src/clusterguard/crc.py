"""The CRC-32 of two byte strings, one after the other, from the CRC-32 of each."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["CRC32", "CRC32C", "combine"]

# Polynomials, reflected: bit 31 is the coefficient of x^0.
CRC32 = 0xEDB88320  # zlib's
CRC32C = 0x82F63B78  # Castagnoli's
_ONE = 1 << 31
_X_TO_THE_8TH = _ONE >> 8


def combine(first: int, second: int, second_size: int, *, polynomial: int) -> int:
    """Return the CRC of both strings.

    A CRC is a remainder modulo the polynomial: appending n bytes multiplies it by x^(8n).

    Args:
        first: CRC of the first string.
        second: CRC of the second one.
        second_size: Its length in bytes.
        polynomial: `CRC32` or `CRC32C`.
    """
    return _product(first, _shift(second_size, polynomial), polynomial) ^ second


@lru_cache(maxsize=8)  # parts of an upload have one size
def _shift(size: int, polynomial: int) -> int:
    power, square = _ONE, _X_TO_THE_8TH
    while size:
        if size & 1:
            power = _product(power, square, polynomial)
        square, size = _product(square, square, polynomial), size >> 1
    return power


def _product(left: int, right: int, polynomial: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (polynomial if right & 1 else 0)
    return product
