"""Leaves that are read many at once: they are accepted and refused as one by one, and read so where they can be."""

from __future__ import annotations

import errno
import os
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bolt_pages import (
    BRANCH,
    HEADER,
    Database,
    etcd_image,
    in_both_ways,
    inline_bucket,
    key_value,
    leaf_bytes,
    opened,
    revision_key,
)
from clusterguard.errors import SnapshotCorruptError, StoreError
from clusterguard.etcd import boltdb
from clusterguard.etcd.bolt_leaves import Leaf
from clusterguard.etcd.mvcc import key_bucket
from clusterguard.etcd.verification import check_structure

if TYPE_CHECKING:
    from clusterguard.etcd.boltdb import BoltFile

PAGE = 1024
PUT, DELETION = key_value(b"/registry/a", 2, 2, 1, b"v"), b"\x0a\x0b/registry/a"


def first_puts(count: int, size: int = 10) -> list[tuple[bytes, bytes]]:
    return [(revision_key(n), key_value(b"/registry/%d" % n, n, n, 1, b"v" * size)) for n in range(2, 2 + count)]


def image_of(rows: list[tuple[bytes, bytes]], **how: int) -> bytes:
    return etcd_image(rows, page_size=PAGE, **how)


def leaf_pages(db: BoltFile) -> tuple[list[int], int]:
    """Return the leaves of the bucket of changes in their order, and how many of them were read in runs."""
    ledger = db.ledger()
    pages, in_runs = [], 0
    for each in db.leaf_runs(key_bucket(db.buckets(ledger)), ledger):
        leaves = list(each.leaves())
        pages += [leaf.page for leaf in leaves]
        in_runs += 0 if isinstance(each, Leaf) else len(leaves)
    return pages, in_runs


def shuffled(count: int) -> bytes:
    """Return a database whose leaves lie in no order, as those of a member that reuses its pages do."""
    database = Database(page_size=PAGE, fan_out=7)
    database.allocate(count)
    places = [2 + index * 7 % count for index in range(count)]
    rows = first_puts(3 * count)
    level = []
    for index, number in enumerate(places):
        mine = rows[3 * index : 3 * index + 3]
        database.pages[number] = leaf_bytes(number, mine)
        level.append((mine[0][0], number))
    while len(level) > 1:
        level = [(level[at][0], database.branch(level[at : at + 7])) for at in range(0, len(level), 7)]
    return database.finish({b"key": struct.pack("<QQ", level[0][1], 0), b"meta": inline_bucket([])})


@pytest.mark.parametrize(
    "image",
    [
        image_of(first_puts(80), fan_out=30),
        image_of(first_puts(200), fan_out=4),
        image_of(first_puts(200, size=1500), fan_out=10),
        shuffled(100),
    ],
    ids=["one branch", "many branches", "leaves of several pages", "in no order"],
)
def test_leaves_are_read_in_runs_and_in_order(image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(image) as db:
        one_by_one, none = leaf_pages(db)
    monkeypatch.setattr(boltdb, "_SIZE_FOR_RUNS", 0)
    with opened(image) as db:
        pages, in_runs = leaf_pages(db)
    assert (none, pages) == (0, one_by_one)
    assert in_runs > 0.9 * len(pages)
    in_both_ways(image, check_structure)


def test_pages_of_many_sizes_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(key, key_value(b"k", 2, 2, 1, b"v" * (n * 7919 % 9000))) for n, (key, _) in enumerate(first_puts(300))]
    found = in_both_ways(image_of(rows, leaf_rows=1, fan_out=9), check_structure)
    assert found.records == 300
    monkeypatch.setattr("clusterguard.etcd.bolt_runs._LARGEST_RUN", 4 * PAGE)
    assert in_both_ways(image_of(rows, leaf_rows=1, fan_out=9), check_structure) == found


ODD_RECORDS = {
    "a deletion": (revision_key(50, deletion=True), DELETION),
    "a later put": (revision_key(50), key_value(b"/registry/a", 2, 50, 2, b"v")),
    "a later put that cannot be decoded": (revision_key(50), key_value(b"/registry/a", 2, 50, 2, b"v")[:-1]),
    "a key of more than 127 bytes": (revision_key(50), key_value(b"/registry/" + b"a" * 200, 50, 50, 1, b"v")),
    "an empty record": (revision_key(50), b""),
    "one byte": (revision_key(50), b"\x0a"),
    "a key that ends behind its record": (revision_key(50), b"\x0a\x30/registry"),
    "a put that ends in its version": (revision_key(50), key_value(b"/registry/a", 50, 50, 1, b"")[:-1]),
    "revisions of eight bytes": (revision_key(50), key_value(b"/registry/a", 2**62, 2**62, 1, b"v")),
    "revisions that differ": (revision_key(50), key_value(b"/registry/a", 50, 51, 1, b"v")),
    "another mark than that of a deletion": (revision_key(50) + b"x", DELETION),
    "no separator": (revision_key(50).replace(b"_", b"-"), PUT),
    "too short a key": (revision_key(50)[:-1], PUT),
    "an element without a key": (b"", PUT),
}


@pytest.mark.parametrize("compacted", [0, 20, 49, 50, 90])
@pytest.mark.parametrize("name", ODD_RECORDS)
def test_an_odd_record_among_many_makes_no_difference(name: str, compacted: int) -> None:
    rows = first_puts(100)
    rows[48] = ODD_RECORDS[name]
    meta = [(b"scheduledCompactRev", revision_key(compacted)), (b"finishedCompactRev", revision_key(compacted))]
    with suppress(SnapshotCorruptError):
        in_both_ways(etcd_image(rows, meta if compacted else (), leaf_rows=8, fan_out=4), check_structure)


def test_records_superseded_after_a_compaction_are_left_out_of_its_hash() -> None:
    rows = first_puts(100)
    rows += [(revision_key(200 + n), key_value(b"/registry/%d" % n, n, 200 + n, 2, b"w")) for n in range(5, 90, 4)]
    meta = [(b"scheduledCompactRev", revision_key(150)), (b"finishedCompactRev", revision_key(150))]
    assert in_both_ways(etcd_image(rows, meta, leaf_rows=8, fan_out=4), check_structure).total_keys == 100


def two_branches(second_parent: bytes, second_leaf: bytes) -> bytes:
    """Return a database with two branches of two leaves, and what is said of the second one."""
    database = Database(page_size=PAGE, leaf_rows=2)
    rows = first_puts(8)
    pages = [database.leaf(rows[at : at + 2]) for at in (0, 2, 4, 6)]
    left = database.branch([(rows[0][0], pages[0]), (rows[2][0], pages[1])])
    right = database.branch([(second_leaf, pages[2]), (rows[6][0], pages[3])])
    root = database.branch([(rows[0][0], left), (second_parent, right)])
    return database.finish({b"key": struct.pack("<QQ", root, 0), b"meta": inline_bucket([])})


def test_a_leaf_that_reaches_into_the_next_branch_is_found() -> None:
    sixth = first_puts(8)[4][0]
    assert in_both_ways(two_branches(sixth, sixth), check_structure).records == 8
    fourth = first_puts(8)[3][0]  # the last of the first branch, which therefore belongs to the second one
    with pytest.raises(SnapshotCorruptError) as caught:
        in_both_ways(two_branches(fourth, sixth), check_structure)
    assert caught.value.fields == {"defect": "page", "page": 3}


MANY = image_of(first_puts(120), fan_out=10)  # 40 leaves from page 2 on, then their branches


@pytest.mark.parametrize("branch", [42, 43])
def test_two_references_to_one_page_are_found_within_a_run_and_beyond(branch: int) -> None:
    image = bytearray(MANY)
    second = branch * PAGE + HEADER.size + BRANCH.size
    other = (branch - 42) * 10 + 2
    image[second + 8 : second + 16] = struct.pack("<Q", other)
    with pytest.raises(SnapshotCorruptError) as caught:
        in_both_ways(bytes(image), check_structure)
    assert caught.value.fields["page"] == other


COMPACTED = etcd_image(
    [
        *first_puts(40),
        *((revision_key(100 + n), key_value(b"/registry/%d" % n, n, 100 + n, 2, b"w")) for n in range(30)),
    ],
    [(b"scheduledCompactRev", revision_key(60)), (b"finishedCompactRev", revision_key(60))],
    page_size=PAGE,
    fan_out=5,
)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([MANY, COMPACTED]),
    st.lists(
        st.tuples(
            st.integers(2, 60),
            st.one_of(st.sampled_from([0, 8, 10, 12, *range(16, 120, 4)]), st.integers(16, 300)),
            st.one_of(st.integers(0, 255).map(lambda number: bytes([number])), st.binary(min_size=1, max_size=8)),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_damage_is_found_in_both_ways_or_in_none(image: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    damaged = bytearray(image)
    for page, offset, content in changes:
        at = min(page * PAGE + offset, len(image) - len(content))
        damaged[at : at + len(content)] = content
    with suppress(SnapshotCorruptError):
        in_both_ways(bytes(damaged), check_structure)


def test_a_disk_that_fails_under_a_run_says_nothing_about_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(boltdb, "_SIZE_FOR_RUNS", 0)
    with opened(MANY) as db:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(StoreError) as caught:
            check_structure(db)
    assert (caught.value.code, caught.value.fields) == ("file-unreadable", {"errno": errno.EIO})


def test_a_file_that_shrinks_under_a_run_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boltdb, "_SIZE_FOR_RUNS", 0)
    real = os.preadv

    def shrink(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        os.ftruncate(descriptor, 30 * PAGE)
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", shrink)
    with opened(MANY) as db, pytest.raises(SnapshotCorruptError) as caught:
        check_structure(db)
    assert caught.value.fields == {"defect": "cut-off"}


def test_without_numpy_leaves_are_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boltdb, "_SIZE_FOR_RUNS", 0)
    monkeypatch.delitem(sys.modules, "clusterguard.etcd.bolt_runs", raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with opened(MANY) as db:
        pages, in_runs = leaf_pages(db)
    assert (len(pages), in_runs) == (40, 0)
