"""HashKV and the count of live keys against a model of etcd's history that remembers everything."""

from __future__ import annotations

import json
import struct

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bolt_pages import (
    Change,
    Database,
    History,
    ascending,
    etcd_image,
    in_both_ways,
    inline_bucket,
    key_value,
    opened,
    revision_key,
    varint,
)
from clusterguard.crc import CRC32C, combine
from clusterguard.errors import ConfigError, SnapshotCorruptError
from clusterguard.etcd.hashkv import Crc32c, hash_kv
from clusterguard.etcd.keyspace import Keyspace
from clusterguard.etcd.verification import check_structure

KEYS = [b"/registry/%d" % n for n in range(5)] + [b"/registry/" + b"long" * 40]


@st.composite
def histories(draw: st.DrawFn) -> History:
    history = History()
    some_keys = st.lists(st.sampled_from(KEYS), max_size=3, unique=True)
    for _ in range(draw(st.integers(0, 25))):
        value = b"v" * draw(st.sampled_from([0, 1, 200]))
        history.transaction(draw(some_keys), draw(some_keys), value)
    return history


def stored_image(stored: list[Change], finished: int, scheduled: int, leaf_rows: int, fan_out: int = 3) -> bytes:
    rows = [change.row for change in stored]
    assert ascending(rows)
    meta = [
        (name, revision_key(revision))
        for name, revision in ((b"finishedCompactRev", finished), (b"scheduledCompactRev", scheduled))
        if revision
    ]
    return etcd_image(rows, meta, leaf_rows=leaf_rows, fan_out=fan_out)


def agree(
    history: History,
    stored: list[Change],
    image: bytes,
    compacted: int,
    *,
    settled: list[Change] | None = None,
) -> None:
    found = in_both_ways(image, check_structure)
    with opened(image) as db:
        assert found.total_keys == len(history.newest(history.main))
        assert found.records == len(stored)
        for revision in range(max(1, compacted), history.main + 1):
            expected = google_crc32c.value(
                history.hashed(stored if settled is None else settled, compacted=compacted, revision=revision)
            )
            answer = hash_kv(db, revision=revision)
            assert answer.hash == expected
            assert (answer.compact_revision, answer.hash_revision) == (compacted or -1, revision)
        assert found.hash_kv.hash == hash_kv(db).hash
        live = {change.key: change.main for change in history.newest(history.main)}
        keyspace = Keyspace(db)
        assert {key: keyspace.record(place).revision for key, place in keyspace.live().items()} == live
        for key in KEYS:
            kept = [(change.main, change.deletion) for change in stored if change.key == key]
            assert [(record.revision, record.is_deletion) for record in keyspace.history(key)] == kept


@settings(deadline=None)
@given(histories(), st.integers(1, 4), st.sampled_from([3, 40]))
def test_without_compaction(history: History, leaf_rows: int, fan_out: int) -> None:
    agree(history, history.changes, stored_image(history.changes, 0, 0, leaf_rows, fan_out), 0)


@settings(deadline=None, max_examples=120)
@given(histories(), st.integers(1, 30), st.booleans(), st.integers(1, 4))
def test_after_a_compaction(history: History, compacted: int, keep_deletion: bool, leaf_rows: int) -> None:
    compacted = min(compacted, history.main)
    stored = history.after_compaction(compacted, keep_deletion_at_it=keep_deletion)
    agree(history, stored, stored_image(stored, compacted, compacted, leaf_rows), compacted)


@settings(deadline=None, max_examples=120)
@given(histories(), st.integers(1, 30), st.integers(0, 30), st.data())
def test_during_a_compaction(history: History, scheduled: int, finished: int, data: st.DataObject) -> None:
    """It deletes superseded records in order, so any first part of them may be gone already."""
    scheduled = min(scheduled, history.main)
    finished = min(finished, scheduled - 1)
    before = history.after_compaction(finished, keep_deletion_at_it=True) if finished else history.changes
    kept = history.newest(scheduled)
    doomed = [change for change in before if change.main <= scheduled and change not in kept]
    gone = doomed[: data.draw(st.integers(0, len(doomed)))]
    stored = [change for change in before if change not in gone]
    # The member goes on deleting; the hash is the one it has when it is done.
    settled = history.after_compaction(scheduled, keep_deletion_at_it=True)
    agree(history, stored, stored_image(stored, finished, scheduled, 2), scheduled, settled=settled)


@settings(deadline=None)
@given(histories(), st.integers(1, 30), st.integers(1, 30))
def test_a_file_hashes_like_a_member_that_has_compacted_since(history: History, first: int, second: int) -> None:
    file_at, member_at = sorted((min(first, history.main), min(second, history.main)))
    in_file = history.after_compaction(file_at, keep_deletion_at_it=True)
    in_member = history.after_compaction(member_at, keep_deletion_at_it=True)
    with opened(stored_image(in_file, file_at, file_at, 3)) as db:
        for revision in range(member_at, history.main + 1):
            expected = google_crc32c.value(history.hashed(in_member, compacted=member_at, revision=revision))
            answer = hash_kv(db, revision=revision, compacted=member_at)
            assert (answer.hash, answer.compact_revision) == (expected, member_at)


@pytest.mark.parametrize("compacted", [-1, 0, 1, 5])
def test_a_compaction_the_file_cannot_presuppose_is_refused(compacted: int) -> None:
    history = History()
    for _ in range(3):
        history.transaction([b"a"])
    with (
        opened(stored_image(history.changes, 2, 2, 3)) as db,
        pytest.raises(ConfigError) as caught,
    ):
        hash_kv(db, compacted=compacted)
    assert (caught.value.code, caught.value.fields) == (
        "compaction-not-in-file",
        {"compaction": compacted, "first": 2, "last": 4},
    )


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_two_checksums_combine_to_that_of_both_strings(first: bytes, second: bytes) -> None:
    whole = google_crc32c.value(first + second)
    ours = combine(google_crc32c.value(first), google_crc32c.value(second), len(second), polynomial=CRC32C)
    assert ours == whole


def test_a_running_checksum_knows_its_size() -> None:
    running = Crc32c(b"key")
    running.update(b"and more")
    assert (running.value, running.size) == (google_crc32c.value(b"keyand more"), 11)


def test_the_check_value_of_crc_32c() -> None:
    """From RFC 3720, appendix B.4: 32 bytes of zeros."""
    assert Crc32c(bytes(32)).value == 0x8A9136AA


def test_the_record_of_a_revision_bump_counts_as_a_key() -> None:
    history = History()
    history.transaction([b"a"])
    rows = [change.row for change in history.changes] + [(revision_key(1000), b"")]
    for meta in ([(b"scheduledCompactRev", revision_key(1000))], []):
        with opened(etcd_image(rows, meta)) as db:
            found = check_structure(db)
        assert (found.revision, found.total_keys) == (1000, 2)


def test_a_compaction_that_left_no_record_sets_the_revision() -> None:
    meta = [(b"finishedCompactRev", revision_key(77)), (b"scheduledCompactRev", revision_key(77))]
    with opened(etcd_image([], meta)) as db:
        found = check_structure(db)
    assert (found.revision, found.hash_kv.hash_revision, found.hash_kv.compact_revision) == (0, 77, 77)


@pytest.mark.parametrize(("revision", "compacted"), [(0, 2), (1, 2), (5, 2), (0, 0), (-1, 0)])
def test_a_revision_that_is_not_there_is_refused(revision: int, compacted: int) -> None:
    history = History()
    for _ in range(3):
        history.transaction([b"a"])
    with (
        opened(stored_image(history.changes, compacted, compacted, 3)) as db,
        pytest.raises(ConfigError) as caught,
    ):
        hash_kv(db, revision=revision)
    assert caught.value.code == "revision-not-in-file"
    assert caught.value.fields == {"revision": revision, "first": max(1, compacted), "last": 4}


PUT = key_value(b"k", 2, 2, 1, b"v")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(b"short", PUT)], "is no revision: 73686f7274"),
        ([(revision_key(2)[:8] + b"-" + revision_key(2)[9:], PUT)], "is no revision"),
        ([(revision_key(2) + b"x", PUT)], "is no revision"),
        ([(revision_key(2) + b"tt", PUT)], "is no revision"),
        ([(revision_key(2**63), PUT)], "is no revision"),
        ([(revision_key(2), b"\x0a\x05k")], "cannot be decoded: field 1 ends behind the message"),
        ([(revision_key(2), b"\x0b")], "cannot be decoded: field 1 has the unknown wire type 3"),
        ([(revision_key(2), b"\x0a\x01k\x20\xff")], "cannot be decoded: a number does not end"),
        ([(revision_key(2), b"\xff" * 11)], "cannot be decoded: a number does not end"),
    ],
)
def test_records_that_are_none_are_refused(rows: list[tuple[bytes, bytes]], message: str) -> None:
    with pytest.raises(SnapshotCorruptError, match=message) as caught:
        in_both_ways(etcd_image(rows), check_structure)
    assert caught.value.hint


def small_buckets(**rows: list[tuple[bytes, bytes]]) -> bytes:
    database = Database()
    buckets = {name.encode(): inline_bucket(sorted(content)) for name, content in rows.items()}
    return database.finish({b"key": inline_bucket([]), **buckets})


def test_the_small_buckets() -> None:
    member = {"id": 1, "peerURLs": ["http://127.0.0.1:2380"], "name": "one", "clientURLs": ["http://c"]}
    image = small_buckets(
        meta=[
            (b"consistent_index", struct.pack(">Q", 42)),
            (b"term", struct.pack(">Q", 3)),
            (b"storageVersion", b"3.6.0"),
        ],
        cluster=[(b"clusterVersion", b"3.6.0")],
        members=[(b"8e9e05c52164694d", json.dumps(member).encode()), (b"1", b"{}")],
        alarm=[(b"\x08" + varint(0x8E9E05C52164694D) + b"\x10\x01", b""), (b"\x08\x01\x10\x09", b"")],
        lease=[(struct.pack(">Q", n), b"") for n in range(1, 4)],
        auth=[(b"authEnabled", b"\x01")],
    )
    with opened(image) as db:
        facts = check_structure(db).facts
    assert (facts.consistent_index, facts.term, facts.leases, facts.auth_enabled) == (42, 3, 3, True)
    assert (facts.storage_version, facts.cluster_version) == ("3.6.0", "3.6.0")
    assert [(one.id, one.name) for one in facts.members] == [("1", ""), ("8e9e05c52164694d", "one")]
    assert facts.members[1].peer_urls == ("http://127.0.0.1:2380",)
    assert {(one.member_id, one.kind) for one in facts.alarms} == {
        ("8e9e05c52164694d", "NOSPACE"),
        ("1", "unknown (9)"),
    }


def test_absent_small_buckets_mean_an_older_or_empty_database() -> None:
    with opened(small_buckets(auth=[(b"authEnabled", b"\x00")])) as db:
        facts = check_structure(db).facts
    assert (facts.storage_version, facts.compacted, facts.auth_enabled, facts.members) == (None, 0, False, ())


@pytest.mark.parametrize(
    "rows",
    [
        {"members": [(b"1", b"no JSON")]},
        {"members": [(b"1", b"[]")]},
        {"members": [(b"1", b'{"peerURLs": 5}')]},
        {"members": [(b"1", b"[" * 3000)]},
        {"members": [(b"\xff", b"{}")]},
        {"alarm": [(b"\xff", b"")]},
        {"alarm": [(b"\x0a\x01x", b"")]},
        {"meta": [(b"term", b"short")]},
        {"meta": [(b"finishedCompactRev", b"short")]},
        {"meta": [(b"scheduledCompactRev", revision_key(2**63))]},
    ],
)
def test_damage_in_the_small_buckets_is_refused(rows: dict[str, list[tuple[bytes, bytes]]]) -> None:
    with opened(small_buckets(**rows)) as db, pytest.raises(SnapshotCorruptError) as caught:
        check_structure(db)
    assert caught.value.hint


def test_values_are_read_by_their_records() -> None:
    history = History()
    for key in (b"/registry/b", b"/registry/a", b"compact_rev_key", b"/registry/c"):
        history.transaction([key], value=b"value of " + key)
    history.transaction([], [b"/registry/c"])
    with opened(etcd_image([change.row for change in history.changes])) as db:
        keyspace = Keyspace(db)
        live = keyspace.live()
        assert live.keys() == {b"/registry/a", b"/registry/b", b"compact_rev_key"}
        values = {key: keyspace.value(keyspace.record(place)) for key, place in live.items()}
        assert values == {key: b"value of " + key for key in live}


def leaves_side_by_side(*, size: int = 1) -> bytearray:
    """Return a database of twelve leaves in a row below one branch; the sixth has a value of a size."""
    history = History()
    for number in range(12):
        history.transaction([b"/registry/%d" % number], value=b"v" * (size if number == 5 else 1))
    return bytearray(etcd_image([change.row for change in history.changes], leaf_rows=1, fan_out=40))


def test_a_page_longer_than_the_others_lies_among_them() -> None:
    with opened(bytes(leaves_side_by_side(size=9_000))) as db:
        keyspace = Keyspace(db)
        sizes = {key: len(keyspace.value(keyspace.record(place))) for key, place in keyspace.live().items()}
    assert sizes == {b"/registry/%d" % number: 9_000 if number == 5 else 1 for number in range(12)}


@pytest.mark.parametrize(
    ("at", "header"),
    [(0, struct.pack("<Q", 99)), (8, b"\x01"), (10, b"\xff\xff"), (12, b"\x02")],
    ids=["another number", "no leaf", "more elements than fit", "over the next pages"],
)
def test_damage_in_the_middle_of_a_row_of_leaves_names_the_page(at: int, header: bytes) -> None:
    image = leaves_side_by_side()
    start = 7 * 4096 + at  # pages 2 to 13 are the leaves
    image[start : start + len(header)] = header
    with opened(bytes(image)) as db, pytest.raises(SnapshotCorruptError) as caught:
        Keyspace(db).live()
    assert caught.value.fields["page"] in {7, 8}


def test_two_references_to_one_leaf_are_refused() -> None:
    image = leaves_side_by_side()
    image[14 * 4096 + 16 + 5 * 16 + 8 : 14 * 4096 + 16 + 5 * 16 + 16] = struct.pack("<Q", 9)
    with opened(bytes(image)) as db, pytest.raises(SnapshotCorruptError) as caught:
        Keyspace(db).live()
    assert caught.value.fields["page"] in {8, 9}  # both lie in one row


def test_keys_of_an_inline_bucket() -> None:
    rows = [(revision_key(2), key_value(b"/registry/a", 2, 2, 1, b"inside"))]
    with opened(Database().finish({b"key": inline_bucket(rows)})) as db:
        keyspace = Keyspace(db)
        (record,) = keyspace.history(b"/registry/a")
        assert {key: keyspace.record(place) for key, place in keyspace.live().items()} == {b"/registry/a": record}
        assert (record.revision, keyspace.value(record)) == (2, b"inside")


def test_what_only_looks_like_a_record_is_none() -> None:
    key = b"/registry/a"
    record = key_value(key, 2, 2, 1, b"old")
    inside = revision_key(9) + record  # as it would lie in a page, but in the value of another key
    rows = [(revision_key(3), key_value(key, 3, 3, 1, b"new")), (revision_key(4), key_value(b"/b", 4, 4, 1, inside))]
    database = Database()
    free = database.leaf([(revision_key(2), record)])  # a page that nothing refers to
    image = database.finish({b"key": database.bucket(rows)})
    assert free > 0
    assert image.count(record) == 2
    with opened(image) as db:
        keyspace = Keyspace(db)
        assert [keyspace.value(each) for each in keyspace.history(key)] == [b"new"]
