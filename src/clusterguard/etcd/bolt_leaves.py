"""One leaf page of a bbolt database, taken apart and checked."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from clusterguard.errors import SnapshotCorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

__all__ = [
    "ELEMENT",
    "ELEMENTS_AT",
    "HEADER",
    "LEAF",
    "UNUSABLE",
    "Leaf",
    "Reference",
    "corrupt",
    "parse_leaf",
    "require_order",
]

HEADER = struct.Struct("<QHHI")
"""What every page begins with: its number, flags, count of elements, and how many pages more belong to it."""
ELEMENT = struct.Struct("<IIII")
"""An element of a leaf: flags, position, key size, value size; the position counts from where the element begins."""
ELEMENTS_AT = HEADER.size
"""Where in a page its elements begin."""
LEAF = 0x02
"""The flags of a leaf page."""
UNUSABLE = "the snapshot cannot be restored; use another one"
"""The hint of every error about a page."""

Reference: TypeAlias = "tuple[int, bytes | None, bytes | None]"
"""A page, as its parent knows it: its number, its least key, and the key that is too great for it."""


def corrupt(page: int, problem: str) -> SnapshotCorruptError:
    """Return the error for one page."""
    return SnapshotCorruptError(f"page {page}: {problem}", fields={"defect": "page", "page": page}, hint=UNUSABLE)


class Leaf(NamedTuple):
    """The elements of one checked leaf page, in the order of their keys.

    A value lies at ``data[values[i]:ends[i]]``, its key directly before it.

    Attributes:
        page: Its number; that of the parent page for a bucket that is stored inside its parent.
        data: Bytes that hold the page, and others around it.
        base: Where in the file ``data`` begins.
        keys: Ascending.
        values: Where each value starts in ``data``.
        ends: Where each value ends.
        nested: Indices of elements whose value is a bucket.
        gapless: Whether all keys and values follow one another without a byte between them.
    """

    page: int
    data: bytes
    base: int
    keys: list[bytes]
    values: list[int]
    ends: list[int]
    nested: Sequence[int]
    gapless: bool

    def value(self, index: int) -> bytes:
        """Return one value."""
        return self.data[self.values[index] : self.ends[index]]

    def record(self, index: int) -> bytes:
        """Return one key with the value after it."""
        return self.data[self.values[index] - len(self.keys[index]) : self.ends[index]]

    def body(self) -> bytes:
        """Return all keys and values, alternating; only of a gapless leaf that has elements."""
        return self.data[self.values[0] - len(self.keys[0]) : self.ends[-1]]

    def leaves(self) -> Iterator[Leaf]:
        """Yield this one: what `LeafRun` has several of."""
        yield self


def parse_leaf(number: int, data: bytes, at: int, end: int, count: int, *, base: int) -> Leaf:
    """Parse and check one leaf's own elements, which lie in ``data[at:end]`` behind the page header.

    Args:
        number: What errors call the page.
        data: Holds it, and others around it.
        at: Where in ``data`` it begins.
        end: Where it ends.
        count: How many elements its header says that it has.
        base: Where in the file ``data`` begins.

    Raises:
        SnapshotCorruptError: An element is not within its bounds, or not greater than the one before.
    """
    element = at + ELEMENTS_AT
    table_end = element + count * ELEMENT.size
    if table_end > end:
        raise corrupt(number, f"has no room for its {count} elements")
    keys: list[bytes] = []
    values: list[int] = []
    ends: list[int] = []
    nested: list[int] = []
    gapless = True
    stop = table_end
    previous = b""
    for flags, position, key_size, value_size in ELEMENT.iter_unpack(data[element:table_end]):
        start = element + position
        value = start + key_size
        if start != stop:
            if start < table_end:
                raise corrupt(number, f"element {len(keys)} starts inside the table of elements")
            gapless = False
        stop = value + value_size
        if stop > end:
            raise corrupt(number, f"element {len(keys)} ends {stop - end} bytes behind the page")
        key = data[start:value]
        if key <= previous:
            raise corrupt(number, f"key {len(keys)} is empty or not greater than the one before")
        if flags:
            if flags != 1:
                raise corrupt(number, f"element {len(keys)} has the unknown flags {flags:#x}")
            nested.append(len(keys))
        keys.append(key)
        values.append(value)
        ends.append(stop)
        previous = key
        element += ELEMENT.size
    return Leaf(number, data, base, keys, values, ends, nested, gapless)


def require_order(reference: Reference, first: bytes, last: bytes) -> None:
    """Refuse a page whose keys are not between the ones its parent says.

    Raises:
        SnapshotCorruptError: They are not.
    """
    number, least, beyond = reference
    if (least is not None and first < least) or (beyond is not None and last >= beyond):
        raise corrupt(number, "has keys that belong to another page")
