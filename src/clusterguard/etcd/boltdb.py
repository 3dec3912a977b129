"""bbolt database files, read-only: the pages, the tree they form, and what can be wrong with them.

Every page that a walk yields has been checked: its number, kind and extent, the bounds of its elements, the
order of its keys within it and against its parent, and, through a `PageLedger`, that nothing else refers to
it. So walking every bucket is the structural check, and there is no second pass. Corrupt input raises
`SnapshotCorruptError` with the page and the problem; loops, depth and sizes are bounded by the file.

Pages are read with ``pread``, many at a time where the file is read in order and one by one where it is not (etcd
reuses free pages in no order): memory stays constant, and a file that shrinks or a disk that fails is an error
instead of the SIGBUS that a memory map would give.

The format (little-endian) follows bbolt's ``internal/common``: page header of 16 bytes (number, flags, count,
overflow), leaf elements (flags, position, key size, value size), branch elements (position, key size, page),
positions relative to the element itself; two meta pages, of which the valid one with the higher transaction
number holds.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from operator import add, lt
from typing import TYPE_CHECKING, NamedTuple

from clusterguard.errors import SnapshotCorruptError, StoreError
from clusterguard.etcd.bolt_leaves import (
    ELEMENT,
    ELEMENTS_AT,
    HEADER,
    LEAF,
    UNUSABLE,
    Leaf,
    corrupt,
    parse_leaf,
    require_order,
)
from clusterguard.etcd.integrity import DIGEST_SIZE, has_trailer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clusterguard.etcd.bolt_leaves import Reference
    from clusterguard.etcd.bolt_runs import LeafRun, RunReader

__all__ = [
    "PEEK_BYTES",
    "BoltFile",
    "Bucket",
    "Meta",
    "PageLedger",
    "Split",
    "declared_size",
    "looks_like_database",
]

_BRANCH_ELEMENT = struct.Struct("<IIQ")
_BUCKET = struct.Struct("<QQ")
_META = struct.Struct("<IIIIQQQQQ")
_U64 = struct.Struct("<Q")
_NOT_COUNT = 0xFFFF_FFFF_0000_FFFF  # flags and overflow, where the header's second half is one number
_BRANCH, _META_PAGE, _FREELIST = 0x01, 0x04, 0x10
_MAGIC, _VERSION = 0xED0CDAED, 2
_NO_FREELIST = (1 << 64) - 1  # bbolt's NoFreelistSync, which etcd uses: free is what nothing refers to
_COUNT_IN_BODY = 0xFFFF
_PAGE_SIZES = tuple(1 << power for power in range(10, 17))
_META_PAGES = 2
_META_BYTES = HEADER.size + _META.size + _U64.size
PEEK_BYTES = _PAGE_SIZES[-1] + _META_BYTES
"""How many bytes from the beginning hold both meta pages, whatever the page size."""
_LARGEST_READ = 128 * 1024
_LARGEST_RUN = 96 * 1024  # larger buffers come fresh from the system each time, whose pages cost more than the reads
_SHORTEST_RUN = 4  # pages; in shorter ones reading ahead gains more
_SEARCHED_AT_ONCE = 1024 * 1024
_GAP_PAGES = 8  # pages skipped by a reader that still counts as going in order
_SIZE_FOR_RUNS = 64 * 1024 * 1024  # bytes; below, what reads many leaves at once takes longer to import than it saves
# Far beyond the largest request etcd advises (10 MiB, a few to a page): a wrong length must not take memory.
_LARGEST_PAGE = 128 * 1024 * 1024


def unreadable(error: OSError) -> StoreError:
    """Return the error for bytes that the system does not give: it says nothing about what they are."""
    return StoreError(
        f"cannot be read: {error.strerror}",
        code="file-unreadable",
        fields={"errno": error.errno},
        hint="check the path, its permissions and the disk",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """The root of one state of the database.

    Attributes:
        page_size: Bytes.
        root: Page of the root bucket.
        freelist: Page of the list of free pages, or None where none is kept.
        high_water: Pages in use end before this number.
        transaction: Number of the transaction that wrote it.
    """

    page_size: int
    root: int
    freelist: int | None
    high_water: int
    transaction: int


class Bucket(NamedTuple):
    """A named tree: the page of its root, or the one leaf that is stored inside its parent."""

    root: int
    inline: Leaf | None


class Split(NamedTuple):
    """A bucket in three parts, to be read in this order.

    Attributes:
        boundary: The leaf in which the pivot lies or would lie.
        after: The leaves after it, in order, several at once where that is possible.
        before: The leaves before it, likewise.
    """

    boundary: Leaf
    after: Iterator[Leaf | LeafRun]
    before: Iterator[Leaf | LeafRun]


class PageLedger:
    """Which pages were met: everything is met once, and nothing that is free."""

    __slots__ = ("listed_free", "pages")

    def __init__(self, pages: int) -> None:
        self.pages = bytearray(pages)  # 1 for each that was met
        self.listed_free: int | None = None  # None where the database keeps no list of free pages

    def free(self) -> int:
        """Return how many pages hold nothing; after a full walk."""
        return self.pages.count(0) if self.listed_free is None else self.listed_free

    def take(self, page: int, count: int) -> None:
        """Note pages as met.

        Raises:
            SnapshotCorruptError: One of them was met before.
        """
        met = self.pages
        if count == 1:
            if met[page]:
                raise corrupt(page, "more than one reference leads here")
            met[page] = 1
        else:
            if met.find(1, page, page + count) >= 0:
                raise corrupt(page, "shares pages with another one")
            met[page : page + count] = b"\x01" * count

    def met(self) -> int:
        """Return how many pages were met so far."""
        return len(self.pages) - self.pages.count(0)

    def first_untaken(self) -> int | None:
        """Return the first page that was not met, or None."""
        found = self.pages.find(0)
        return None if found < 0 else found


class BoltFile:
    """One open database file, with or without etcd's sha256 trailer behind it.

    Args:
        descriptor: Open for reading; the caller closes it. Several threads may read it.

    Raises:
        SnapshotCorruptError: It has no valid meta page, or is shorter than that says.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        size = os.fstat(descriptor).st_size
        self.size = size - DIGEST_SIZE if has_trailer(size) else size
        self.meta = self._read_meta()
        self._page_size = self.meta.page_size
        self._data = b""  # the pages read last: from _first up to, not including, _end
        self._first = self._end = 0
        self._ahead = 1  # how many pages going in order has earned

    def ledger(self) -> PageLedger:
        """Return a new ledger, with the two meta pages and the free list's pages noted.

        Raises:
            SnapshotCorruptError: The list of free pages is broken.
        """
        ledger = PageLedger(self.meta.high_water)
        ledger.take(0, _META_PAGES)
        if self.meta.freelist is not None:
            at, flags, count, length = self._page(self.meta.freelist, ledger)
            if flags != _FREELIST:
                raise corrupt(self.meta.freelist, f"is no free list: flags {flags:#x}")
            free = _free_pages(self.meta.freelist, self._data[at : at + length], count)
            ledger.listed_free = len(free)
            for page in free:
                if not _META_PAGES <= page < self.meta.high_water:
                    raise corrupt(self.meta.freelist, f"lists page {page} of {self.meta.high_water} as free")
                ledger.take(page, 1)
        return ledger

    def require_complete(self, ledger: PageLedger) -> None:
        """Check after a full walk that no page was lost.

        Raises:
            SnapshotCorruptError: A page is neither in use nor in the list of free pages.
        """
        lost = ledger.first_untaken() if self.meta.freelist is not None else None
        if lost is not None:
            raise corrupt(lost, "is neither in use nor free")

    def buckets(self, ledger: PageLedger) -> dict[bytes, Bucket]:
        """Return the top-level buckets by name.

        Raises:
            SnapshotCorruptError: The tree that lists them is broken.
        """
        found: dict[bytes, Bucket] = {}
        for leaf in self._walk(self.meta.root, ledger):
            if len(leaf.nested) != len(leaf.keys):
                raise corrupt(leaf.page, "has a plain value among the top-level buckets")
            found.update((leaf.keys[index], _bucket(leaf, index)) for index in leaf.nested)
        return found

    def leaves(self, bucket: Bucket, ledger: PageLedger) -> Iterator[Leaf]:
        """Yield a bucket's leaves in the order of their keys.

        Raises:
            SnapshotCorruptError: A page is broken; the ones yielded before were not.
        """
        if bucket.inline is not None:
            return iter((bucket.inline,))
        return self._walk(bucket.root, ledger)

    def leaf_runs(self, bucket: Bucket, ledger: PageLedger) -> Iterator[Leaf | LeafRun]:
        """Yield what `leaves` does, several leaves at once where that is possible.

        Raises:
            SnapshotCorruptError: A page is broken, as `leaves` says; the ones yielded before were not.
        """
        if bucket.inline is not None:
            return iter((bucket.inline,))
        return self._runs([[(bucket.root, None, None)]], ledger)

    def runs(self, bucket: Bucket, ledger: PageLedger) -> Iterator[tuple[bytes, int, Sequence[int]]]:
        """Yield a bucket's leaves in the order of their keys as bytes, many at a time where they lie side by side.

        For whoever looks for little in very many leaves: of a page only the extent is checked, and that its table of
        elements has room. `ELEMENT` takes that apart, which begins at `ELEMENTS_AT` of each page.

        Yields:
            Whole pages, where in the file they begin, and how many elements each has. One alone may be a longer page.

        Raises:
            SnapshotCorruptError: A page is broken.
        """
        if bucket.inline is not None:
            leaf = bucket.inline
            yield leaf.data[_BUCKET.size :], leaf.base + _BUCKET.size, [len(leaf.keys)]
            return
        pending = [[bucket.root]]
        while pending:
            siblings = pending.pop()
            if self._flags(siblings[0]) != _BRANCH:  # then all of them are leaves: a tree is as deep everywhere
                for first, pages in _side_by_side(siblings, most=max(1, _LARGEST_RUN // self._page_size)):
                    yield from self._run(first, pages, ledger)
                continue
            at, _, count, length = self._page(siblings[0], ledger)
            table_end = HEADER.size + count * _BRANCH_ELEMENT.size
            if not count or table_end > length:
                raise corrupt(siblings[0], f"is a branch with {count} children, which cannot be")
            pending += [siblings[1:]] if siblings[1:] else []
            table = self._data[at + HEADER.size : at + table_end]
            pending.append([child for _, _, child in _BRANCH_ELEMENT.iter_unpack(table)])

    def _flags(self, number: int) -> int:
        """Return what a page says that it is; one that cannot be is refused by whoever reads it."""
        header = self._pread(HEADER.size, number * self._page_size) if number < self.meta.high_water else b""
        return int(HEADER.unpack(header)[1]) if len(header) == HEADER.size else 0

    def _run(self, first: int, pages: int, ledger: PageLedger) -> Iterator[tuple[bytes, int, Sequence[int]]]:
        """Yield leaves side by side at once, or one by one where that is not what they are."""
        page_size = self._page_size
        if pages >= _SHORTEST_RUN and _META_PAGES <= first <= self.meta.high_water - pages:
            data = self.read_at(first * page_size, pages * page_size)
            words = memoryview(data).cast("Q")  # what follows is wrong where bytes are the other way round, and seen
            headers = words[1 :: page_size // _U64.size].tolist()
            counts = [each >> 16 for each in headers if each & _NOT_COUNT == LEAF]
            if (
                words[:: page_size // _U64.size].tolist() == list(range(first, first + pages))
                and len(counts) == pages
                and max(counts) * ELEMENT.size <= page_size - ELEMENTS_AT
            ):
                ledger.take(first, pages)
                yield data, first * page_size, counts
                return
        for number in range(first, first + pages):
            at, kind, count, length = self._page(number, ledger)
            if kind != LEAF or count * ELEMENT.size > length - ELEMENTS_AT:
                raise corrupt(number, f"is no leaf with room for its elements: flags {kind:#x}, {count} elements")
            yield self._data[at : at + length], number * page_size, [count]

    def split(self, bucket: Bucket, pivot: bytes, ledger: PageLedger) -> Split:
        """Return a bucket's leaves so that those after the pivot can be read before the others.

        Raises:
            SnapshotCorruptError: A page is broken; so do the iterators.
        """
        if bucket.inline is not None:
            return Split(bucket.inline, iter(()), iter(()))
        before: list[list[Reference]] = []
        after: list[list[Reference]] = []
        node = self._node((bucket.root, None, None), ledger)
        while not isinstance(node, Leaf):
            least = [reference[1] or b"" for reference in node]
            index = max(0, bisect_right(least, pivot) - 1)
            before.append(node[:index])
            after.append(node[index + 1 :])
            node = self._node(node[index], ledger)
        return Split(node, self._runs(after, ledger), self._runs(before[::-1], ledger))

    def last_key(self, bucket: Bucket) -> bytes | None:
        """Return a bucket's greatest key, or None if it is empty.

        Raises:
            SnapshotCorruptError: A page on the way is broken.
        """
        leaf = bucket.inline
        if leaf is None:
            ledger = PageLedger(self.meta.high_water)
            node = self._node((bucket.root, None, None), ledger)
            while not isinstance(node, Leaf):
                node = self._node(node[-1], ledger)
            leaf = node
        return leaf.keys[-1] if leaf.keys else None

    def lookup(self, bucket: Bucket, key: bytes) -> tuple[int, int] | None:
        """Return where in the file the value of a key lies and its size, or None if there is no such key.

        Raises:
            SnapshotCorruptError: A page on the way is broken.
        """
        node: Leaf | list[Reference] = bucket.inline or [(bucket.root, None, None)]
        ledger = PageLedger(self.meta.high_water)
        while not isinstance(node, Leaf):
            index = bisect_right(node, key, key=lambda reference: reference[1] or b"") - 1
            node = self._node(node[max(0, index)], ledger)
        index = bisect_left(node.keys, key)
        if index == len(node.keys) or node.keys[index] != key:
            return None
        return node.base + node.values[index], node.ends[index] - node.values[index]

    def find(self, wanted: bytes) -> Iterator[int]:
        """Yield where in the file these bytes lie, whatever page that is; at the speed of memory.

        Raises:
            StoreError: The file cannot be read.
        """
        buffer = bytearray(_SEARCHED_AT_ONCE)
        offset = kept = 0
        while count := self._pread_into(memoryview(buffer)[kept:], offset + kept):
            end = kept + count
            at = buffer.find(wanted, 0, end)
            while at >= 0:
                yield offset + at
                at = buffer.find(wanted, at + 1, end)
            # What may be the beginning of another one is looked at again.
            tail = min(end, len(wanted) - 1)
            buffer[:tail] = buffer[end - tail : end]
            offset, kept = offset + end - tail, tail

    def pages_alike(self, other: BoltFile) -> bytes:
        """Return for each page whether the same one of another file has the same bytes: 1, or 0.

        Pages that only one of them has are 0.

        Raises:
            SnapshotCorruptError: A file ends too early.
            StoreError: One cannot be read.
        """
        size, pages = self._page_size, min(self.meta.high_water, other.meta.high_water)
        alike = bytearray(self.meta.high_water)
        if size != other._page_size:
            return bytes(alike)
        step = max(1, _LARGEST_RUN // size)
        for first in range(0, pages, step):
            count = min(step, pages - first)
            ours, theirs = (db.read_at(first * size, count * size) for db in (self, other))
            if ours == theirs:
                alike[first : first + count] = b"\x01" * count
                continue
            for index in range(count):
                alike[first + index] = ours.startswith(theirs[index * size : (index + 1) * size], index * size)
        return bytes(alike)

    def check_nested(self, leaf: Leaf, ledger: PageLedger) -> None:
        """Walk the buckets inside a leaf, and those inside them.

        Raises:
            SnapshotCorruptError: A page is broken.
        """
        pending = [_bucket(leaf, index) for index in leaf.nested]
        while pending:
            for below in self.leaves(pending.pop(), ledger):
                pending += [_bucket(below, index) for index in below.nested]

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly these bytes of the file.

        Raises:
            SnapshotCorruptError: It ends before them.
            StoreError: They cannot be read.
        """
        data = self._pread(size, offset)
        while len(data) < size:
            more = self._pread(size - len(data), offset + len(data))
            if not more:
                raise SnapshotCorruptError(
                    f"the file ends before byte {offset + size}", fields={"defect": "cut-off"}, hint=UNUSABLE
                )
            data += more
        return data

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise unreadable(error) from error

    def _pread_into(self, buffer: memoryview, offset: int) -> int:
        try:
            return os.preadv(self._descriptor, [buffer], offset)
        except OSError as error:
            raise unreadable(error) from error

    def _walk(self, root: int, ledger: PageLedger) -> Iterator[Leaf]:
        pending: list[Reference] = [(root, None, None)]
        while pending:
            node = self._node(pending.pop(), ledger)
            if isinstance(node, Leaf):
                yield node
            else:
                node.reverse()
                pending += node

    def _runs(self, pending: list[list[Reference]], ledger: PageLedger) -> Iterator[Leaf | LeafRun]:
        """Yield the leaves below references, which are lists of pages of one depth, the last list first."""
        while pending:
            siblings = pending.pop()
            if not siblings:
                continue
            branches, leaves = self._branches_above_leaves(siblings)
            tried, run = self._read_run(leaves) if leaves else (len(siblings), None)
            if run is not None and run.take(ledger, also=branches):
                pending += [siblings[len(branches) :], leaves[tried:]] if branches else [leaves[tried:]]
                yield run
                continue
            # One by one: what is wrong, if anything is, gets its name.
            tried = 1 if branches else tried
            for index in range(tried):
                node = self._node(siblings[index], ledger)
                if not isinstance(node, Leaf):
                    pending += [siblings[index + 1 :], node]
                    break
                yield node
            else:
                pending.append(siblings[tried:])

    def _branches_above_leaves(self, siblings: list[Reference]) -> tuple[list[int], list[Reference]]:
        """Return which of these pages, from the first on, lead to the leaves of one run, and those leaves.

        No page is noted as met. Pages that are leaves already are given back, and what is anything else leads to none.
        """
        if self._run_reader is None:
            return [], []
        flags = self._flags(siblings[0][0])
        if flags == LEAF:
            return [], siblings
        branches: list[int] = []
        leaves: list[Reference] = []
        for reference in siblings if flags == _BRANCH else ():
            below = self._peek(reference)
            if not below or (branches and len(leaves) + len(below) > self._run_reader.room):
                break
            if not branches and self._flags(below[0][0]) != LEAF:
                break
            branches.append(reference[0])
            leaves += below
        return branches, leaves

    def _peek(self, reference: Reference) -> list[Reference]:
        """Return what a branch of one page refers to, and nothing for any other page or a broken one."""
        number = reference[0]
        if not _META_PAGES <= number < self.meta.high_water:
            return []
        if not self._first <= number < self._end:
            self._read(number, 1)
        at = (number - self._first) * self._page_size
        own, flags, count, overflow = HEADER.unpack_from(self._data, at)
        if (own, flags, overflow) != (number, _BRANCH, 0):
            return []
        try:
            return _children(self._data[at : at + self._page_size], count, reference)
        except SnapshotCorruptError:  # told by whoever comes to it in its turn
            return []

    def _read_run(self, leaves: list[Reference]) -> tuple[int, LeafRun | None]:
        if self._run_reader is None:
            return len(leaves), None
        try:
            return self._run_reader.read(leaves)
        except OSError as error:
            raise unreadable(error) from error

    @cached_property
    def _run_reader(self) -> RunReader | None:
        """None where reading leaf by leaf is as fast, or the only way."""
        if self.size < _SIZE_FOR_RUNS:
            return None
        try:
            from clusterguard.etcd.bolt_runs import RunReader
        except ImportError as error:
            if error.name != "numpy":
                raise
            return None
        return RunReader(self._descriptor, page_size=self._page_size, high_water=self.meta.high_water)

    def _node(self, reference: Reference, ledger: PageLedger) -> Leaf | list[Reference]:
        number = reference[0]
        at, flags, count, length = self._page(number, ledger)
        if flags == LEAF:
            leaf = parse_leaf(number, self._data, at, at + length, count, base=self._first * self._page_size)
            if leaf.keys:
                require_order(reference, leaf.keys[0], leaf.keys[-1])
            return leaf
        if flags == _BRANCH:
            return _children(self._data[at : at + length], count, reference)
        raise corrupt(number, f"is neither branch nor leaf: flags {flags:#x}")

    def _page(self, number: int, ledger: PageLedger) -> tuple[int, int, int, int]:
        """Return where the page starts in the bytes read last, its flags, count, and length in bytes."""
        high_water = self.meta.high_water
        if not _META_PAGES <= number < high_water:
            raise corrupt(number, f"is referred to, but the pages are 2 to {high_water - 1}")
        if not self._first <= number < self._end:
            self._read(number, 1)
        page_size = self._page_size
        at = (number - self._first) * page_size
        own, flags, count, overflow = HEADER.unpack_from(self._data, at)
        if own != number:
            raise corrupt(number, f"says it is page {own}")
        if not overflow:
            ledger.take(number, 1)
            return at, flags, count, page_size
        pages = overflow + 1
        if number + pages > high_water or pages * page_size > _LARGEST_PAGE:
            raise corrupt(number, f"says it is {pages} pages long")
        ledger.take(number, pages)
        if number + pages > self._end:
            self._read(number, pages)
            at = 0
        return at, flags, count, pages * page_size

    def _read(self, number: int, pages: int) -> None:
        """Read these pages, and as many more as going in order has earned."""
        in_order = self._first <= number <= self._end + _GAP_PAGES
        self._ahead = min(2 * self._ahead, _LARGEST_READ // self._page_size) if in_order else 1
        count = min(max(pages, self._ahead), self.meta.high_water - number)
        self._data = self.read_at(number * self._page_size, count * self._page_size)
        self._first, self._end = number, number + count

    def _read_meta(self) -> Meta:
        meta = _newest_meta(lambda offset: self._pread(_META_BYTES, offset))
        if meta is None:
            raise SnapshotCorruptError(
                "this is no etcd database: neither of its two meta pages is valid",
                hint="check that this is the snapshot itself, not an archive or an encrypted copy of it",
            )
        if meta.high_water * meta.page_size > self.size:
            raise SnapshotCorruptError(
                f"the database is cut off: {meta.high_water} pages of {meta.page_size} bytes do not fit "
                f"into {self.size} bytes",
                hint=UNUSABLE,
            )
        return meta


def _side_by_side(pages: list[int], *, most: int) -> Iterator[tuple[int, int]]:
    """Yield the first page and the number of pages of each stretch in which every page follows the one before it."""
    breaks = [index for index, (one, next_one) in enumerate(pairwise(pages), 1) if next_one - one != 1]
    for start, end in pairwise([0, *breaks, len(pages)]):
        for begin in range(start, end, most):
            yield pages[begin], min(most, end - begin)


def looks_like_database(beginning: bytes) -> bool:
    """Return whether bytes have the mark of a database in either meta page, even if that page is damaged."""
    marks = (_META.unpack_from(part)[:2] for at in (0, *_PAGE_SIZES) if len(part := _meta_part(beginning, at)))
    return (_MAGIC, _VERSION) in marks


def declared_size(beginning: bytes) -> int | None:
    """Return how many bytes a database says it has, without a trailer, or None where no meta page is valid.

    Args:
        beginning: `PEEK_BYTES` of it, or all where it has fewer.
    """
    meta = _newest_meta(lambda offset: beginning[offset : offset + _META_BYTES])
    return None if meta is None else meta.high_water * meta.page_size


def _meta_part(beginning: bytes, at: int) -> bytes:
    part = beginning[at + HEADER.size : at + HEADER.size + _META.size]
    return part if len(part) == _META.size else b""


def _newest_meta(read: Callable[[int], bytes]) -> Meta | None:
    """Return the valid meta page with the higher transaction number."""
    first = _meta_of(read(0), 0)
    sizes = (first.page_size,) if first else _PAGE_SIZES
    second = [meta for size in sizes if (meta := _meta_of(read(size), 1)) and meta.page_size == size]
    return max((meta for meta in (first, *second) if meta), key=lambda found: found.transaction, default=None)


def _meta_of(data: bytes, number: int) -> Meta | None:
    """Return the meta page of this number that some bytes begin with, if it is valid."""
    if len(data) < _META_BYTES:
        return None
    own, flags, _, _ = HEADER.unpack_from(data, 0)
    magic, version, page_size, _, root, _, freelist, high_water, transaction = _META.unpack_from(data, HEADER.size)
    (checksum,) = _U64.unpack_from(data, HEADER.size + _META.size)
    valid = (
        (own, flags) == (number, _META_PAGE)
        and (magic, version) == (_MAGIC, _VERSION)
        and page_size in _PAGE_SIZES
        and checksum == _fnv1a(data[HEADER.size : HEADER.size + _META.size])
    )
    if not valid:
        return None
    return Meta(
        page_size=page_size,
        root=root,
        freelist=None if freelist == _NO_FREELIST else freelist,
        high_water=high_water,
        transaction=transaction,
    )


def _children(page: bytes, count: int, reference: Reference) -> list[Reference]:
    """Parse and check one branch page."""
    number, _, beyond = reference
    table_end = HEADER.size + count * _BRANCH_ELEMENT.size
    if count == 0 or table_end > len(page):
        raise corrupt(number, f"is a branch with {count} children, which cannot be")
    positions, sizes, pages = zip(*_BRANCH_ELEMENT.iter_unpack(page[HEADER.size : table_end]), strict=True)
    starts = list(map(add, range(HEADER.size, table_end, _BRANCH_ELEMENT.size), positions))
    stops = list(map(add, starts, sizes))
    keys = [page[start:stop] for start, stop in zip(starts, stops, strict=True)]
    inside = min(starts) >= table_end and max(stops) <= len(page)
    if not inside or not all(map(lt, keys, islice(keys, 1, None))):
        for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            if start < table_end or stop > len(page):
                raise corrupt(number, f"child {index}'s key lies outside the page")
            if index and keys[index] <= keys[index - 1]:
                raise corrupt(number, f"child {index}'s key is not greater than the one before")
    require_order(reference, keys[0], keys[-1])
    return list(zip(pages, keys, [*keys[1:], beyond], strict=True))


def _bucket(leaf: Leaf, index: int) -> Bucket:
    """Read the bucket that is an element's value."""
    value = leaf.value(index)
    if len(value) < _BUCKET.size:
        raise corrupt(leaf.page, f"element {index} is too short for a bucket")
    root, _ = _BUCKET.unpack_from(value, 0)
    if root:
        return Bucket(root, None)
    if len(value) < _BUCKET.size + HEADER.size:
        raise corrupt(leaf.page, f"element {index} is too short for a bucket stored inside it")
    own, flags, count, overflow = HEADER.unpack_from(value, _BUCKET.size)
    if (own, flags, overflow) != (0, LEAF, 0):
        raise corrupt(leaf.page, f"element {index} is a bucket stored inside it, but no leaf")
    inline = parse_leaf(leaf.page, value, _BUCKET.size, len(value), count, base=leaf.base + leaf.values[index])
    if inline.nested:
        raise corrupt(leaf.page, f"element {index} is a bucket stored inside it and holds another one")
    return Bucket(0, inline)


def _free_pages(number: int, page: bytes, count: int) -> list[int]:
    numbers = struct.unpack_from(f"<{(len(page) - HEADER.size) // 8}Q", page, HEADER.size)
    start = 0
    if count == _COUNT_IN_BODY and numbers:
        count, start = numbers[0], 1
    if start + count > len(numbers):
        raise corrupt(number, f"has no room for its {count} free pages")
    return list(numbers[start : start + count])


def _fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
