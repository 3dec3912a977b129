"""Many leaves of the bucket ``key`` at once: read side by side and checked by operations over whole arrays.

The rule is `parse_leaf`, which goes from element to element and tells what is wrong. Here the same is asked of a few
hundred leaves in some forty steps of numpy, and the answer is yes or no: a run in which anything at all is not as bbolt
and etcd themselves write it (a gap, a key that is no revision, a page met before) is no run, and its pages are read one
by one. So nothing is accepted here that would be refused there, and every error is made there.

The only user of numpy, which is imported when a database is large enough to be worth it.
"""

from __future__ import annotations

import os
from operator import ge
from typing import TYPE_CHECKING, Any

import numpy as np

from clusterguard.etcd.bolt_leaves import ELEMENT, ELEMENTS_AT, LEAF, Leaf, parse_leaf

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from clusterguard.etcd.bolt_leaves import Reference
    from clusterguard.etcd.boltdb import PageLedger

    Numbers: TypeAlias = NDArray[np.int64]

__all__ = ["LeafRun", "RunReader"]

# Bytes. In runs of fewer than a few hundred leaves, what each step costs by itself outweighs what it does.
_LARGEST_RUN = 8 * 1024 * 1024
_SKIPPED = 2  # pages between two leaves that are read with them
_MARGIN = 512  # bytes behind a run: fields are looked for where a record says that they are, before its end is compared
_PUT_SIZE, _DELETION_SIZE = 17, 18
_SUB_AT, _MARK_AT = 9, 17
_SEPARATOR, _DELETED = ord("_"), ord("t")
_KEY_FIELD, _CREATED_FIELD, _MODIFIED_FIELD = 0x0A, 0x10, 0x18
_VERSION_ONE = 0x0120  # field 4, and 1, as one little-endian number
_SHORT = 0x7F
_LAST_BYTES = np.uint64(0x0080_8080_8080_8080)  # the bits of seven bytes of a varint that are 0 in its last one


class RunReader:
    """Reads leaves into one buffer, which the next run overwrites.

    Args:
        descriptor: The file.
        page_size: Bytes.
        high_water: Pages in use end before this number.
    """

    def __init__(self, descriptor: int, *, page_size: int, high_water: int) -> None:
        self._descriptor = descriptor
        self._page_size = page_size
        self._high_water = high_water
        self._most = max(1, _LARGEST_RUN // page_size)
        self._buffer = bytearray(self._most * page_size + _MARGIN)
        self._extent = 1  # how many pages the leaf met last has
        self._windows = _Windows(self._buffer)

    @property
    def room(self) -> int:
        """How many leaves like the one met last fit into one run."""
        return max(1, self._most // self._extent)

    def read(self, references: Sequence[Reference]) -> tuple[int, LeafRun | None]:
        """Read the first of some pages, as many as one run may have, and take them apart.

        Args:
            references: What their parents say of them, in the order of their keys.

        Returns:
            How many were tried, at least 1; and no run if these are anything but leaves of well-formed changes.

        Raises:
            OSError: They cannot be read.
        """
        size = self._page_size
        pages, places, stretches = self._plan(np.array([reference[0] for reference in references], np.uint64))
        if not len(pages) or not self._fill(stretches):
            return 1, None
        headers = self._windows.elements.take(places // ELEMENT.size, axis=0)
        numbers = headers[:, 0] | headers[:, 1].astype(np.int64) << 32
        flags, counts, extents = headers[:, 2] & 0xFFFF, headers[:, 2] >> 16, headers[:, 3].astype(np.int64) + 1
        tried = len(pages)
        if (flags != LEAF).any() or (numbers != pages).any():
            return tried, None
        self._extent = int(extents[-1])
        ends = np.cumsum(stretches[:, 1] - stretches[:, 0]) * size
        longer = np.flatnonzero(places + extents * size > ends[np.searchsorted(ends, places, "right")])
        if len(longer):
            tried = int(longer[0])
            self._extent = int(extents[tried])
            if not tried:
                return 1, None
        run = LeafRun(
            self._windows,
            pages=pages[:tried],
            places=places[:tried],
            extents=extents[:tried],
            counts=counts[:tried].astype(np.int64),
            page_size=size,
        )
        return tried, run if run.is_sound() and run.belongs(references[:tried]) else None

    def _plan(self, pages: NDArray[np.uint64]) -> tuple[Numbers, Numbers, Numbers]:
        """Plan how the first of some pages are read.

        Returns:
            Their numbers; where in the buffer each shall begin; and what is read: pages from, up to.
        """
        beyond = np.flatnonzero((pages == 0) | (pages >= self._high_water))
        numbers = pages[: beyond[0] if len(beyond) else None].astype(np.int64)
        # How long a page is, only the page itself says: here, like the one before.
        extent = self._extent if self._extent <= self._most else 1
        fitting = self._most // extent
        while True:  # twice where many pages between those wanted are read with them
            numbers = numbers[:fitting]
            places, stretches, total = self._laid_out(numbers, extent)
            if total <= self._most:
                return numbers, places * self._page_size, stretches
            fitting = len(numbers) * self._most // total

    def _laid_out(self, numbers: Numbers, extent: int) -> tuple[Numbers, Numbers, int]:
        """Lay pages out as they lie in the file, the ones near each other together with what is between them."""
        order = np.argsort(numbers, kind="stable")  # etcd reuses free pages in no order
        ascending = numbers[order]
        behind = np.minimum(ascending + extent, self._high_water)
        begins = np.ones(len(numbers), np.bool_)
        begins[1:] = ascending[1:] > behind[:-1] + _SKIPPED
        first = np.flatnonzero(begins)
        stretches = np.stack((ascending[first], behind[np.append(first[1:], len(numbers)) - 1]), axis=1)
        lengths = stretches[:, 1] - stretches[:, 0]
        of = np.cumsum(begins) - 1
        places = np.empty_like(numbers)
        places[order] = (np.cumsum(lengths) - lengths - stretches[:, 0])[of] + ascending
        return places, stretches, int(lengths.sum())

    def _fill(self, stretches: Numbers) -> bool:
        """Read into the buffer; False where the file ends before."""
        size, at = self._page_size, 0
        with memoryview(self._buffer) as whole:
            for first, end in stretches.tolist():
                wanted = (end - first) * size
                if os.preadv(self._descriptor, [whole[at : at + wanted]], first * size) != wanted:
                    return False
                at += wanted
        return True


class LeafRun:
    """The elements of several leaves that follow one another; none is a bucket, and each leaf is gapless.

    It is valid until the next one is read.

    Attributes:
        count: How many elements there are.
    """

    count: int

    def __init__(
        self,
        windows: _Windows,
        *,
        pages: Numbers,
        places: Numbers,
        extents: Numbers,
        counts: Numbers,
        page_size: int,
    ) -> None:
        self._windows = windows
        self._pages = pages
        self._places = places
        self._extents = extents
        self._counts = counts
        self._page_size = page_size

    def is_sound(self) -> bool:
        """Take the elements apart, and tell whether they are changes as etcd writes them, in ascending order."""
        see, places, counts = self._windows, self._places, self._counts
        bodies = places + ELEMENTS_AT + counts * ELEMENT.size
        limits = places + self._extents * self._page_size
        if not counts.all() or (bodies > limits).any():
            return False
        behind = np.cumsum(counts)
        firsts = behind - counts
        elements = np.arange(behind[-1], dtype=np.int64) * ELEMENT.size
        elements += np.repeat(places + ELEMENTS_AT - firsts * ELEMENT.size, counts)
        table = see.elements.take(elements // ELEMENT.size, axis=0)
        if table[:, 0].any():
            return False
        key_sizes = table[:, 2].astype(np.int64)
        starts = elements + table[:, 1]
        values = starts + key_sizes
        ends = values + table[:, 3]
        # Each begins where the one before it ends, and the first of a leaf where the table does.
        expected = np.empty_like(starts)
        expected[1:] = ends[:-1]
        expected[firsts] = bodies
        if (starts != expected).any() or (ends[behind - 1] > limits).any():
            return False
        self._firsts, self._lasts = firsts, behind - 1
        self._starts, self._values, self._ends = starts, values, ends
        self.count = len(starts)
        return self._are_revisions(key_sizes)

    def _are_revisions(self, key_sizes: Numbers) -> bool:
        see, starts = self._windows, self._starts
        deletions = key_sizes == _DELETION_SIZE
        self._puts = ~deletions
        if (key_sizes[self._puts] != _PUT_SIZE).any() or (see.bytes[starts[deletions] + _MARK_AT] != _DELETED).any():
            return False
        if (see.bytes[starts + _SUB_AT - 1] != _SEPARATOR).any():
            return False
        main = see.big[starts].astype(np.uint64)
        sub = see.big[starts + _SUB_AT].astype(np.uint64)
        higher = main[1:] > main[:-1]
        higher |= (main[1:] == main[:-1]) & (sub[1:] > sub[:-1])
        return bool(higher.all())

    def belongs(self, references: Sequence[Reference]) -> bool:
        """Tell whether the keys are on the pages on which their parent says they are."""
        least = [reference[1] or b"" for reference in references]
        beyond = [reference[2] for reference in references]
        if beyond[-1] is not None and self.last_key >= beyond[-1]:
            return False
        beginnings = self._windows.revisions[self._starts[self._firsts]].tobytes()
        if beginnings == b"".join(least) and beyond[:-1] == least[1:]:
            return True  # bbolt has it so unless the first ones were deleted; and the keys are known to ascend
        pairs = zip(self._keys(self._lasts), beyond, strict=True)
        return all(map(ge, self._keys(self._firsts), least)) and all(end is None or key < end for key, end in pairs)

    def take(self, ledger: PageLedger, *, also: Sequence[int]) -> bool:
        """Note the pages as met, and others with them, or none of all these if one was met before."""
        pages, extents = self._pages, self._extents
        if len(pages) != extents.sum():
            begins = np.cumsum(extents) - extents
            pages = np.arange(extents.sum()) + np.repeat(pages - begins, extents)
        pages = np.concatenate((pages, np.array(also, np.int64)))
        met = np.frombuffer(ledger.pages, np.uint8)
        if met[pages].any() or len(np.unique(pages)) != len(pages):
            return False
        met[pages] = 1
        return True

    @property
    def first_key(self) -> bytes:
        """The least of the keys."""
        return self._keys(self._firsts[:1])[0]

    @property
    def last_key(self) -> bytes:
        """The greatest of the keys."""
        return self._keys(self._lasts[-1:])[0]

    def _keys(self, indices: Numbers) -> list[bytes]:
        return self._pieces(self._starts[indices], self._values[indices])

    def _pieces(self, starts: Numbers, stops: Numbers) -> list[bytes]:
        with memoryview(self._windows.buffer) as whole:
            return [bytes(whole[start:stop]) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]

    def body(self, first: int, after: int, *, without: Sequence[int] = ()) -> bytes:
        """Return keys and values of these elements, alternating, one directly behind the other.

        Args:
            first: The first element.
            after: The one behind the last.
            without: Elements to leave out.
        """
        wanted = np.zeros(self.count + 1, np.bool_)
        wanted[first:after] = True
        wanted[np.array(without, np.intp)] = False
        joined = np.zeros(self.count + 1, np.bool_)  # with the one before it, in one piece
        joined[1:] = wanted[1:] & wanted[:-1]
        joined[self._firsts] = False
        starts = self._starts[np.flatnonzero(wanted & ~joined)].tolist()
        ends = self._ends[np.flatnonzero(wanted[:-1] & ~joined[1:])].tolist()
        with memoryview(self._windows.buffer) as whole:
            return b"".join([whole[start:end] for start, end in zip(starts, ends, strict=True)])

    def single(self, index: int) -> Leaf:
        """Return one element as if it were alone on its page."""
        page = int(self._pages[np.searchsorted(self._firsts, index, "right") - 1])
        start, value, end = int(self._starts[index]), int(self._values[index]), int(self._ends[index])
        data = bytes(self._windows.buffer[start:end])
        return Leaf(page, data, 0, [data[: value - start]], [value - start], [end - start], [], gapless=True)

    def leaves(self) -> Iterator[Leaf]:
        """Yield the leaves one by one."""
        size, each = self._page_size, (self._pages, self._places, self._extents, self._counts)
        for page, at, extent, count in zip(*(numbers.tolist() for numbers in each), strict=True):
            data = bytes(self._windows.buffer[at : at + extent * size])
            yield parse_leaf(page, data, 0, len(data), count, base=page * size)

    def other_than_short_puts(self) -> list[int]:
        """Return which elements are no puts, or not of a key whose size is one byte and for which there is room."""
        values, sizes = self._values, self._sizes_of_users_keys()
        return _indices(~((sizes >= 0) & (values + 2 + sizes <= self._ends)))

    def users_keys(self) -> list[bytes]:
        """Return the user's key of each element that `other_than_short_puts` does not name; others have anything."""
        starts = self._values + 2
        return self._pieces(starts, starts + self._sizes_of_users_keys())

    def other_than_first_puts(self) -> list[int]:
        """Return which elements are anything but the first put of a life, or too long for a quick look.

        That is a key whose size is one byte, create_revision = mod_revision, each of seven bytes or fewer, version 1.
        """
        see, sizes = self._windows, self._sizes_of_users_keys()
        created = self._values + 2 + sizes.clip(min=0)
        first, varint, length = see.varint(created)
        modified = created + 1 + length
        second, same, _ = see.varint(modified)
        version = modified + 1 + length
        good = (sizes >= 0) & (first == _CREATED_FIELD) & (second == _MODIFIED_FIELD) & (length > 0) & (varint == same)
        good &= (see.pairs[version] == _VERSION_ONE) & (version + 2 <= self._ends)
        return _indices(~good)

    def _sizes_of_users_keys(self) -> Numbers:
        """Return how long each user's key says it is, and -1 where that is not one byte, or the element is no put."""
        heads = self._windows.pairs[self._values]
        sizes: Numbers = heads.astype(np.int64) >> 8
        sizes[((heads & 0xFF) != _KEY_FIELD) | (sizes > _SHORT) | ~self._puts] = -1
        return sizes


class _Windows:
    """One buffer, seen as numbers that begin at any byte of it."""

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self.bytes = np.frombuffer(buffer, np.uint8)
        self.elements = np.frombuffer(buffer, "<u4", len(buffer) // 16 * 4).reshape(-1, 4)
        self.pairs: NDArray[Any] = np.ndarray((len(buffer) - 1,), "<u2", buffer, strides=(1,))
        self.big: NDArray[Any] = np.ndarray((len(buffer) - 7,), ">u8", buffer, strides=(1,))
        self.revisions: NDArray[Any] = np.ndarray((len(buffer) - 16,), "V17", buffer, strides=(1,))
        self.little: NDArray[Any] = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))

    def varint(self, at: Numbers) -> tuple[NDArray[Any], NDArray[Any], Numbers]:
        """Return the byte at each place, and the bytes of the varint behind it with their number, 0 if above seven."""
        words = self.little[at]
        behind = words >> np.uint64(8)
        last = ~behind & _LAST_BYTES
        last &= ~last + np.uint64(1)  # of several, the lowest
        length = np.frexp(last.astype(np.float64))[1].astype(np.int64) // 8
        return words & np.uint64(0xFF), behind & ((last << np.uint64(1)) - np.uint64(1)), length


def _indices(wanted: NDArray[np.bool_]) -> list[int]:
    found: list[int] = np.flatnonzero(wanted).tolist()
    return found
