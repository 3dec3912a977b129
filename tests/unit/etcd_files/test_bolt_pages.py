"""Each thing that can be wrong with a page, and that nothing else than our error comes of it."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bolt_pages import (
    BRANCH,
    ELEMENT,
    HEADER,
    Database,
    branch_bytes,
    etcd_image,
    in_both_ways,
    inline_bucket,
    key_value,
    leaf_bytes,
    meta_bytes,
    revision_key,
)
from clusterguard.errors import SnapshotCorruptError
from clusterguard.etcd.verification import Structure, check_structure

PAGE = 4096


def puts(count: int, size: int = 10) -> list[tuple[bytes, bytes]]:
    return [(revision_key(n), key_value(b"k%d" % n, n, n, 1, b"v" * size)) for n in range(2, 2 + count)]


def check(image: bytes) -> Structure:
    return in_both_ways(image, check_structure)


def refused(image: bytes, message: str) -> None:
    with pytest.raises(SnapshotCorruptError, match=message) as caught:
        check(image)
    assert caught.value.hint


def patched(image: bytes, at: int, content: bytes) -> bytes:
    return image[:at] + content + image[at + len(content) :]


@pytest.mark.parametrize("page_size", [1024, 2048, 4096, 16384, 65536])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 40])
def test_an_intact_database_is_accepted(page_size: int, count: int) -> None:
    found = check(etcd_image(puts(count), page_size=page_size))
    assert (found.page_size, found.total_keys, found.records) == (page_size, count, count)
    assert found.revision == (count + 1 if count else 0)


def test_values_longer_than_a_page_and_a_read_window_are_accepted() -> None:
    assert check(etcd_image(puts(9, size=300_000))).total_keys == 9


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
def test_the_second_meta_page_holds_when_the_first_is_damaged(page_size: int) -> None:
    image = etcd_image(puts(5), page_size=page_size)
    assert check(patched(image, 20, b"\xff")).total_keys == 5


def test_a_meta_page_with_a_wrong_checksum_does_not_count() -> None:
    image = etcd_image(puts(5))
    root_of_the_first = HEADER.size + 16
    assert check(patched(image, root_of_the_first, struct.pack("<Q", 99))).total_keys == 5


def test_the_meta_page_with_the_higher_transaction_holds() -> None:
    image = etcd_image(puts(5))
    # The older one refers to a root that does not exist.
    older = meta_bytes(1, PAGE, 99, len(image) // PAGE, txid=6)
    assert check(patched(image, PAGE, older)).total_keys == 5
    newer = meta_bytes(1, PAGE, 99, len(image) // PAGE, txid=8)
    refused(patched(image, PAGE, newer), "page 99: is referred to")


def test_without_a_valid_meta_page_it_is_no_database() -> None:
    image = patched(patched(etcd_image(puts(5)), 20, b"\xff"), PAGE + 20, b"\xff")
    refused(image, "neither of its two meta pages is valid")
    refused(b"", "neither")
    refused(b"{}" * 300, "neither")


def test_a_database_shorter_than_its_pages_is_cut_off() -> None:
    refused(etcd_image(puts(5))[:-PAGE], r"cut off: \d+ pages of 4096 bytes do not fit")


def test_the_key_bucket_may_be_inline() -> None:
    database = Database()
    image = database.finish({b"key": inline_bucket(puts(1))})
    assert check(image).total_keys == 1


def test_a_database_without_the_key_bucket_is_not_etcds() -> None:
    refused(Database().finish({b"other": inline_bucket([])}), "no bucket 'key'")


# Pages of the image below: 2, 3, 4 leaves of three records, 5 their branch, 6 the root.
IMAGE = etcd_image(puts(9))
ROOT = 6


def leaf_at(page: int, element: int = 0) -> int:
    return page * PAGE + HEADER.size + element * ELEMENT.size


DAMAGE = {
    "another page's number": (3 * PAGE, struct.pack("<Q", 4), "page 3: says it is page 4"),
    "unknown kind": (3 * PAGE + 8, b"\x40", "page 3: is neither branch nor leaf"),
    "a meta page in the tree": (3 * PAGE + 8, b"\x04", "page 3: is neither branch nor leaf"),
    "two kinds at once": (3 * PAGE + 8, b"\x03", "page 3: is neither branch nor leaf"),
    "too many elements": (3 * PAGE + 10, b"\xff\xff", "page 3: has no room for its 65535 elements"),
    "overflow beyond the end": (4 * PAGE + 12, struct.pack("<I", 9), "page 4: says it is 10 pages long"),
    "overflow without bounds": (4 * PAGE + 12, b"\xff\xff\xff\xff", "page 4: says it is 4294967296 pages"),
    "overflow onto a neighbour": (3 * PAGE + 12, struct.pack("<I", 1), "page 4: more than one reference"),
    "unknown element flags": (leaf_at(3), b"\x02", "page 3: element 0 has the unknown flags 0x2"),
    "a bucket among records": (leaf_at(3), b"\x01", "page 3: has a bucket among the records"),
    "an element in the table": (leaf_at(3) + 4, struct.pack("<I", 16), "page 3: element 0 starts inside"),
    "an element behind the page": (leaf_at(3) + 4, b"\xff\xff\xff\x7f", "page 3: element 0 ends"),
    "a key without end": (leaf_at(3) + 8, b"\xff\xff\xff\xff", "page 3: element 0 ends"),
    "a value without end": (leaf_at(3, 2) + 12, b"\xff\xff\xff\xff", "page 3: element 2 ends"),
    "an empty key": (leaf_at(3) + 8, struct.pack("<I", 0), "page 3: key 0 is empty or not greater"),
    "a child met twice": (5 * PAGE + 16 + 8, struct.pack("<Q", 3), "page 3: has keys that belong"),
    "a loop": (5 * PAGE + 16 + 8, struct.pack("<Q", 5), "page 5: more than one reference leads here"),
    "a child beyond the end": (5 * PAGE + 16 + 8, struct.pack("<Q", 2**63), "is referred to, but the pages"),
    "a meta page as child": (5 * PAGE + 16 + 8, struct.pack("<Q", 1), "page 1: is referred to"),
    "a branch without children": (5 * PAGE + 10, b"\x00\x00", "page 5: is a branch with 0 children"),
    "a branch with too many": (5 * PAGE + 10, b"\xff\xff", "page 5: is a branch with 65535 children"),
    "a child's key outside": (5 * PAGE + 16 + 4, b"\xff\xff\xff\xff", "page 5: child 0's key lies outside"),
    "a root that is too short": (leaf_at(ROOT) + 12, struct.pack("<I", 8), "page 6: element 0 is too short"),
    "a plain value for a bucket": (leaf_at(ROOT), b"\x00", "page 6: has a plain value among the top-level"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_with_its_page(name: str) -> None:
    at, content, message = DAMAGE[name]
    check(IMAGE)
    refused(patched(IMAGE, at, content), message)


def test_records_out_of_order_are_found() -> None:
    first, second, *rest = puts(9)
    refused(etcd_image([second, first, *rest]), "page 2: key 1 is empty or not greater")


def test_leaves_in_the_wrong_places_are_found() -> None:
    rows = puts(9)
    refused(etcd_image([*rows[3:6], *rows[:3], *rows[6:]]), "has keys that belong|not greater than the one")


def test_a_leaf_beside_its_parents_keys_is_found() -> None:
    rows = puts(9)
    moved = leaf_bytes(3, [*rows[3:5], (revision_key(50), b"\x0a\x01k")])
    refused(patched(IMAGE, 3 * PAGE, moved.ljust(PAGE, b"\0")), "page 3: has keys that belong to another page")
    lower = leaf_bytes(3, [(revision_key(1), b"\x0a\x01k"), *rows[3:5]])
    refused(patched(IMAGE, 3 * PAGE, lower.ljust(PAGE, b"\0")), "page 3: has keys that belong to another page")


def test_a_branch_out_of_order_is_found() -> None:
    rows = puts(9)
    swapped = branch_bytes(5, [(rows[3][0], 3), (rows[0][0], 2), (rows[6][0], 4)])
    refused(patched(IMAGE, 5 * PAGE, swapped), "page 5: child 1's key is not greater")


def test_one_leaf_under_two_keys_is_found() -> None:
    empty = leaf_bytes(3, [])
    twice = branch_bytes(5, [(b"\0", 2), (revision_key(5), 3), (revision_key(6), 3)])
    image = patched(patched(IMAGE, 3 * PAGE, empty), 5 * PAGE, twice)
    refused(image, "page 3: more than one reference leads here")


def test_a_long_page_over_one_met_before_is_found() -> None:
    rows = puts(2)
    database = Database()
    low, high = database.allocate(), database.leaf(rows[:1])
    database.pages[low] = leaf_bytes(low, rows[1:], overflow=1)
    root = database.branch([(rows[0][0], high), (rows[1][0], low)])
    refused(database.finish({b"key": struct.pack("<QQ", root, 0)}), "page 2: shares pages with another one")


def test_a_chain_of_branches_as_long_as_the_file_needs_no_stack() -> None:
    database = Database()
    node = database.leaf(puts(1))
    for _ in range(5000):
        node = database.branch([(revision_key(2), node)])
    image = database.finish({b"key": struct.pack("<QQ", node, 0)})
    assert check(image).total_keys == 1


def test_a_list_of_free_pages_is_held_against_the_tree() -> None:
    def image(free: list[int], lose: int = 0) -> bytes:
        database = Database()
        bucket = database.bucket(puts(9))
        database.allocate(2 + lose)  # pages 6 and 7 hold nothing
        return database.finish({b"key": bucket}, free=free)

    assert check(image([6, 7])).free_pages == 2
    refused(image([6]), "page 7: is neither in use nor free")
    refused(image([6, 7], lose=1), "page 8: is neither in use nor free")
    refused(image([3, 6, 7]), "page 3: more than one reference leads here")
    refused(image([6, 6, 7]), "page 6: more than one reference leads here")
    refused(image([6, 7, 800]), "lists page 800 of 10 as free")
    damaged = image([6, 7])
    list_at = 9 * PAGE
    refused(patched(damaged, list_at + 10, b"\xf0\xff"), "page 9: has no room for its 65520 free pages")
    refused(patched(damaged, list_at + 8, b"\x02"), "page 9: is no free list")
    # 0xffff: the number of free pages is in the body.
    long_count = struct.pack("<HHIQQQ", 0x10, 0xFFFF, 0, 2, 6, 7)
    assert check(patched(damaged, list_at + 8, long_count)).free_pages == 2
    refused(patched(damaged, list_at + 8, struct.pack("<HHIQ", 0x10, 0xFFFF, 0, 2**60)), "has no room for its")


def test_pages_that_nothing_refers_to_are_free_where_no_list_is_kept() -> None:
    database = Database()
    bucket = database.bucket(puts(9))
    database.allocate(2)
    assert check(database.finish({b"key": bucket})).free_pages == 2


def test_nested_buckets_are_walked_to_the_innermost() -> None:
    def image(innermost: int | None = None) -> bytes:
        database = Database()
        key = database.bucket(puts(1))
        node = innermost or database.leaf([(b"a", b"1")])
        for name in (b"third", b"second"):
            node = database.leaf([(name, struct.pack("<QQ", node, 0))], flags=1)
        return database.finish({b"key": key, b"other": struct.pack("<QQ", node, 0)})

    assert check(image()).free_pages == 0
    refused(image(innermost=2), "page 2: more than one reference leads here")
    refused(image(innermost=3), "page 3: more than one reference leads here")


def test_inline_buckets_are_checked() -> None:
    key = inline_bucket(puts(1))
    branch = struct.pack("<QQ", 0, 0) + branch_bytes(0, [(b"a", 2)])
    for bad, message in (
        (struct.pack("<QQ", 0, 0), "element 1 is too short for a bucket stored inside it"),
        (branch, "element 1 is a bucket stored inside it, but no leaf"),
        (inline_bucket([(b"a", key)], flags=1), "element 1 is a bucket stored inside it and holds another"),
        (inline_bucket([(b"a", b"b")])[:-1], "ends 1 bytes behind the page"),
    ):
        refused(Database().finish({b"key": key, b"meta": bad}), message)


def test_elements_with_gaps_between_them_are_accepted() -> None:
    """bbolt writes none, but its own check allows them."""
    rows = puts(3)
    body_at, table, body = 2000, b"", b""
    for index, (key, value) in enumerate(rows):
        position = body_at + len(body) - HEADER.size - index * ELEMENT.size
        table += ELEMENT.pack(0, position, len(key), len(value))
        body += key + value + b"gap"
    page = (HEADER.pack(2, 2, 3, 0) + table).ljust(body_at, b"\0") + body
    database = Database()
    database.allocate()
    database.pages[2] = page
    with_gaps = check(database.finish({b"key": struct.pack("<QQ", 2, 0)}))
    assert with_gaps.hash_kv == check(etcd_image(rows)).hash_kv


SMALL = etcd_image(puts(30), [(b"scheduledCompactRev", revision_key(9))], page_size=1024)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SMALL) - 8),
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.integers(0, 40).map(lambda number: struct.pack("<Q", number)),
                st.integers(0, 2**16 - 1).map(lambda number: struct.pack("<H", number)),
            ),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_arbitrary_damage_gives_our_error_or_none(changes: list[tuple[int, bytes]]) -> None:
    image = SMALL
    for at, content in changes:
        image = patched(image, at, content)
    with contextlib.suppress(SnapshotCorruptError):
        check(image)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(2, len(SMALL) // 1024 - 1),
            st.sampled_from([0, 8, 10, 12, *range(16, 120, 4)]),
            st.integers(0, 40),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_plausible_wrong_numbers_in_headers_and_tables_give_our_error_or_none(
    changes: list[tuple[int, int, int]],
) -> None:
    image = SMALL
    for page, offset, number in changes:
        image = patched(image, page * 1024 + offset, bytes([number]))
    with contextlib.suppress(SnapshotCorruptError):
        check(image)


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_are_no_database(data: bytes) -> None:
    with pytest.raises(SnapshotCorruptError):
        check(data)


def test_the_branch_element_is_what_this_file_assumes() -> None:
    assert (HEADER.size, ELEMENT.size, BRANCH.size) == (16, 16, 16)
