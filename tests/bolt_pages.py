"""Tiny bbolt databases made by hand, and a model of etcd's history to fill them with."""

from __future__ import annotations

import hashlib
import os
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar
from unittest import mock

from clusterguard.errors import ClusterGuardError
from clusterguard.etcd import boltdb
from clusterguard.etcd.boltdb import BoltFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Row = tuple[bytes, bytes]
Answer = TypeVar("Answer")
NO_FREELIST = 2**64 - 1
HEADER, ELEMENT, BRANCH = struct.Struct("<QHHI"), struct.Struct("<IIII"), struct.Struct("<IIQ")


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def leaf_bytes(number: int, rows: Sequence[Row], flags: int = 0, overflow: int = 0) -> bytes:
    table, body = b"", b""
    for index, (key, value) in enumerate(rows):
        position = ELEMENT.size * (len(rows) - index) + len(body)
        table += ELEMENT.pack(flags, position, len(key), len(value))
        body += key + value
    return HEADER.pack(number, 2, len(rows), overflow) + table + body


def branch_bytes(number: int, children: Sequence[tuple[bytes, int]]) -> bytes:
    table, body = b"", b""
    for index, (key, child) in enumerate(children):
        table += BRANCH.pack(BRANCH.size * (len(children) - index) + len(body), len(key), child)
        body += key
    return HEADER.pack(number, 1, len(children), 0) + table + body


def meta_bytes(
    number: int, page_size: int, root: int, high_water: int, *, txid: int, freelist: int = NO_FREELIST
) -> bytes:
    body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, page_size, 0, root, 0, freelist, high_water, txid)
    return HEADER.pack(number, 4, 0, 0) + body + struct.pack("<Q", fnv1a(body))


@dataclass
class Database:
    """Pages under construction; page 2 is the first free number."""

    page_size: int = 4096
    leaf_rows: int = 3
    fan_out: int = 3
    pages: dict[int, bytes] = field(default_factory=dict)
    high_water: int = 2

    def allocate(self, pages: int = 1) -> int:
        number = self.high_water
        self.high_water += pages
        return number

    def leaf(self, rows: Sequence[Row], flags: int = 0) -> int:
        pages = -(-len(leaf_bytes(0, rows)) // self.page_size)
        number = self.allocate(pages)
        self.pages[number] = leaf_bytes(number, rows, flags, pages - 1)
        return number

    def branch(self, children: Sequence[tuple[bytes, int]]) -> int:
        number = self.allocate()
        self.pages[number] = branch_bytes(number, children)
        return number

    def tree(self, rows: Sequence[Row]) -> int:
        step = self.leaf_rows
        level = [
            (rows[at][0] if rows else b"", self.leaf(rows[at : at + step])) for at in range(0, max(1, len(rows)), step)
        ]
        while len(level) > 1:
            step = self.fan_out
            level = [(level[at][0], self.branch(level[at : at + step])) for at in range(0, len(level), step)]
        return level[0][1]

    def bucket(self, rows: Sequence[Row]) -> bytes:
        return struct.pack("<QQ", self.tree(rows), 0)

    def finish(self, buckets: dict[bytes, bytes], *, free: Sequence[int] | None = None) -> bytes:
        """Return the file without a trailer; ``free`` writes a list of free pages."""
        root = self.leaf(sorted(buckets.items()), flags=1)
        freelist = NO_FREELIST
        if free is not None:
            freelist = self.allocate()
            self.pages[freelist] = HEADER.pack(freelist, 0x10, len(free), 0) + struct.pack(f"<{len(free)}Q", *free)
        image = bytearray(self.high_water * self.page_size)
        for number, content in self.pages.items():
            at = number * self.page_size
            image[at : at + len(content)] = content
        for number, txid in ((0, 7), (1, 6)):
            content = meta_bytes(number, self.page_size, root, self.high_water, txid=txid, freelist=freelist)
            at = number * self.page_size
            image[at : at + len(content)] = content
        return bytes(image)


def inline_bucket(rows: Sequence[Row], flags: int = 0) -> bytes:
    return struct.pack("<QQ", 0, 0) + leaf_bytes(0, rows, flags)


def with_trailer(image: bytes) -> bytes:
    return image + hashlib.sha256(image).digest()


def etcd_image(
    rows: Sequence[Row], meta: Sequence[Row] = (), *, page_size: int = 4096, leaf_rows: int = 3, fan_out: int = 3
) -> bytes:
    database = Database(page_size=page_size, leaf_rows=leaf_rows, fan_out=fan_out)
    return database.finish({b"key": database.bucket(rows), b"meta": inline_bucket(sorted(meta))})


@contextmanager
def opened(image: bytes) -> Iterator[BoltFile]:
    descriptor = os.memfd_create("database")
    try:
        os.write(descriptor, image)
        yield BoltFile(descriptor)
    finally:
        os.close(descriptor)


def in_both_ways(image: bytes, ask: Callable[[BoltFile], Answer]) -> Answer:
    """Ask a database whose leaves are read one by one, and the same read in runs: it must not make a difference.

    Raises:
        ClusterGuardError: What both refuse it with.
    """
    outcomes: list[tuple[Answer | None, ClusterGuardError | None]] = []
    for size_for_runs in (len(image) + 1, 0):
        with mock.patch.object(boltdb, "_SIZE_FOR_RUNS", size_for_runs):
            try:
                with opened(image) as db:
                    outcomes.append((ask(db), None))
            except ClusterGuardError as error:
                outcomes.append((None, error))
    (one_by_one, refusal), (in_runs, refusal_of_runs) = outcomes
    assert seen(refusal) == seen(refusal_of_runs)
    if refusal is not None:
        raise refusal
    assert one_by_one == in_runs
    return one_by_one  # type: ignore[return-value] # there is an answer where nothing was refused


def seen(error: ClusterGuardError | None) -> object:
    return error and (type(error), error.code, error.fields, error.message)


# --- etcd's history ---


def revision_key(main: int, sub: int = 0, *, deletion: bool = False) -> bytes:
    return struct.pack(">Q", main) + b"_" + struct.pack(">Q", sub) + (b"t" if deletion else b"")


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def key_value(key: bytes, created: int, modified: int, version: int, value: bytes) -> bytes:
    out = b"\x0a" + varint(len(key)) + key + b"\x10" + varint(created) + b"\x18" + varint(modified)
    return out + b"\x20" + varint(version) + (b"\x2a" + varint(len(value)) + value if value else b"")


@dataclass(frozen=True)
class Change:
    main: int
    sub: int
    key: bytes
    deletion: bool
    row: Row


@dataclass
class History:
    """All changes ever made, whatever a compaction did to them later: the reference to compare with."""

    changes: list[Change] = field(default_factory=list)
    main: int = 1

    def transaction(self, puts: Sequence[bytes], deletions: Sequence[bytes] = (), value: bytes = b"v") -> None:
        live = self._live()
        steps = [(key, False) for key in puts] + [(key, True) for key in deletions if key in live and key not in puts]
        if not steps:
            return
        self.main += 1
        for sub, (key, deletion) in enumerate(steps):
            if deletion:
                content = b"\x0a" + varint(len(key)) + key
            else:
                created, version = live.get(key, (self.main, 0))
                content = key_value(key, created, self.main, version + 1, value)
            row = (revision_key(self.main, sub, deletion=deletion), content)
            self.changes.append(Change(self.main, sub, key, deletion, row))

    def _live(self) -> dict[bytes, tuple[int, int]]:
        live: dict[bytes, tuple[int, int]] = {}
        for change in self.changes:
            if change.deletion:
                live.pop(change.key)
            else:
                created, version = live.get(change.key, (change.main, 0))
                live[change.key] = (created, version + 1)
        return live

    def newest(self, revision: int) -> set[Change]:
        """The newest change of each key that is live at a revision."""
        newest = {change.key: change for change in self.changes if change.main <= revision}
        return {change for change in newest.values() if not change.deletion}

    def after_compaction(self, compacted: int, *, keep_deletion_at_it: bool) -> list[Change]:
        """What a finished compaction leaves."""
        kept = self.newest(compacted)
        return [
            change
            for change in self.changes
            if change.main > compacted
            or change in kept
            or (keep_deletion_at_it and change.deletion and change.main == compacted)
        ]

    def hashed(self, stored: Sequence[Change], *, compacted: int, revision: int) -> bytes:
        """The bytes of HashKV, by etcd's rule and with no cleverness at all."""
        keep = self.newest(revision)
        out = b"key"
        for change in stored:
            if change.main > revision:
                continue
            if change.main <= compacted and keep and change not in keep:
                continue
            if change.main == compacted and change.deletion:
                continue
            out += change.row[0] + change.row[1]
        return out


def ascending(rows: Sequence[Row]) -> bool:
    return all(first[0] < second[0] for first, second in pairwise(rows))
