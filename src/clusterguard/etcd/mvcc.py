"""What an etcd database says: its revisions, its live keys, and the facts in its small buckets.

The bucket ``key`` holds one record for each change: key = revision (8 bytes main, ``_``, 8 bytes sub,
big-endian, and ``t`` for a deletion), value = mvccpb.KeyValue (1 key, 2 create_revision, 3 mod_revision,
4 version, 5 value, 6 lease). A restore with ``--bump-revision`` adds one record with an empty value. Facts:
etcd's server/storage/schema and server/storage/mvcc.

How live keys are counted without remembering them. A compaction at C leaves, of all records up to C, the
newest of each key that was live then (and perhaps a deletion at C itself). After C nothing is missing, so a
put of version 1 begins a life, a deletion ends one, and any other put continues one: live keys = puts up to
C + first puts after C - deletions after C. Only a snapshot taken *during* a compaction still has superseded
records up to C; then, and only then, the newest record of each key is remembered.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from clusterguard.errors import SnapshotCorruptError
from clusterguard.etcd.bolt_leaves import Leaf, corrupt
from clusterguard.etcd.protobuf import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from clusterguard.etcd.bolt_runs import LeafRun
    from clusterguard.etcd.boltdb import BoltFile, Bucket, PageLedger, Split

__all__ = ["Alarm", "Keyspace", "MemberRecord", "StoreFacts", "read_facts", "scan"]

Feed: TypeAlias = "Callable[[bytes], None]"

_U64 = struct.Struct(">Q")
_PUT_SIZE, _DELETION_SIZE = 17, 18
_SEPARATOR = ord("_")
_DELETED = ord("t")
_KEY_FIELD = 0x0A  # field 1, length-delimited: the first byte of every KeyValue
# What follows the user's key in the first put of a life: create_revision = mod_revision, version 1.
_FIRST_PUT = re.compile(rb"\x10([\x80-\xff]*[\x00-\x7f])\x18\1\x20\x01").match
_ALARMS = {1: "NOSPACE", 2: "CORRUPT"}
_LARGEST_MAIN = (1 << 63) - 1
_SHORT = 0x7F  # the greatest number that is one byte
_USER_KEY, _VERSION = 1, 4  # fields of KeyValue


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRecord:
    """One member of the cluster, as the database lists it.

    Attributes:
        id: Sixteen hexadecimal digits or fewer, as etcd prints them.
        name: Empty for a member that never started.
        peer_urls: Where other members reach it.
        client_urls: Where clients reach it.
    """

    id: str
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """An alarm that was raised when the snapshot was taken; a restore brings it back."""

    member_id: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What the small buckets say.

    Attributes:
        finished_compaction: Revision of the last compaction carried out, or 0.
        scheduled_compaction: Revision of the last compaction asked for, or 0.
        storage_version: Version of the schema ("3.6.0"), or None before etcd 3.6.
        cluster_version: Version the members agreed on, or None.
        consistent_index: Index of the last applied raft entry, or 0.
        term: Its raft term, or 0.
        members: Sorted by id.
        alarms: Raised alarms.
        leases: How many there are.
        auth_enabled: Whether clients need to log in.
    """

    finished_compaction: int
    scheduled_compaction: int
    storage_version: str | None
    cluster_version: str | None
    consistent_index: int
    term: int
    members: tuple[MemberRecord, ...]
    alarms: tuple[Alarm, ...]
    leases: int
    auth_enabled: bool

    @property
    def compacted(self) -> int:
        """The compaction that counts for readers, as a started member has it, or 0."""
        return max(self.finished_compaction, self.scheduled_compaction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyspace:
    """The outcome of reading the bucket ``key`` up to one revision.

    Attributes:
        records: Changes that are kept, deletions included.
        live_keys: Live keys, as etcdutl counts them.
        nameless: How many of them are the empty key of a restore with ``--bump-revision``, which no client sees.
    """

    records: int
    live_keys: int
    nameless: int = 0


def read_facts(db: BoltFile, buckets: dict[bytes, Bucket], ledger: PageLedger) -> StoreFacts:
    """Read every bucket but ``key``, checking their pages.

    Raises:
        SnapshotCorruptError: A page or a record is broken.
    """
    rows: dict[bytes, dict[bytes, bytes]] = {}
    leases = 0
    for name, bucket in buckets.items():
        if name == b"key":
            continue
        for leaf in db.leaves(bucket, ledger):
            db.check_nested(leaf, ledger)
            if name == b"lease":
                leases += len(leaf.keys)
            elif name in {b"meta", b"cluster", b"members", b"alarm", b"auth"}:
                rows.setdefault(name, {}).update((key, leaf.value(i)) for i, key in enumerate(leaf.keys))
    meta, cluster = rows.get(b"meta", {}), rows.get(b"cluster", {})
    return StoreFacts(
        finished_compaction=_main(meta, b"finishedCompactRev"),
        scheduled_compaction=_main(meta, b"scheduledCompactRev"),
        storage_version=_text(meta, b"storageVersion"),
        cluster_version=_text(cluster, b"clusterVersion"),
        consistent_index=_number(meta, b"consistent_index"),
        term=_number(meta, b"term"),
        members=tuple(_member(key, value) for key, value in sorted(rows.get(b"members", {}).items())),
        alarms=tuple(_alarm(key) for key in sorted(rows.get(b"alarm", {}))),
        leases=leases,
        auth_enabled=rows.get(b"auth", {}).get(b"authEnabled") == b"\x01",
    )


def last_revision(db: BoltFile, buckets: dict[bytes, Bucket]) -> int:
    """Return the main revision of the newest record, or 0 where there is none.

    Raises:
        SnapshotCorruptError: A page on the way is broken, or there is no bucket ``key``.
    """
    last = db.last_key(key_bucket(buckets))
    return 0 if last is None else _parse_main(last)


def key_bucket(buckets: dict[bytes, Bucket]) -> Bucket:
    """Return the bucket that holds the changes.

    Raises:
        SnapshotCorruptError: There is none, so this is not etcd's database.
    """
    found = buckets.get(b"key")
    if found is None:
        raise SnapshotCorruptError(
            "the database has no bucket 'key'", hint="it is a bbolt database, but not one of etcd"
        )
    return found


def scan(
    db: BoltFile,
    buckets: dict[bytes, Bucket],
    ledger: PageLedger,
    *,
    facts: StoreFacts,
    revision: int,
    feed_compacted: Feed,
    feed_recent: Feed,
    on_leaf: Callable[[], None] = lambda: None,
) -> Keyspace:
    """Read all changes, count the live keys at a revision, and give the records that HashKV is made of.

    The rule of what counts is etcd's own (server/storage/mvcc/hash.go and Keep in key_index.go): after the
    compaction every record up to the revision; before it the newest of each key that is live at the revision.
    If no key at all is live there, all that the compaction leaves counts. A deletion at the compaction itself never
    does.

    Records after the compaction are read first, since they tell which earlier ones are superseded; the keys
    they supersede are remembered, so memory grows with the changes since the last compaction.

    Args:
        db: The file.
        buckets: Its buckets.
        ledger: Where pages are noted; the bucket ``key`` must not have been walked with it.
        facts: What `read_facts` found.
        revision: Records after it are checked but not counted.
        feed_compacted: Takes, in order, the bytes that count up to the compaction.
        feed_recent: Takes, in order, the bytes that count after it.
        on_leaf: Called for every leaf page.

    Raises:
        SnapshotCorruptError: A page or a record is broken.
    """
    ceiling = _U64.pack(revision + 1)
    bucket = key_bucket(buckets)
    if facts.compacted == 0:
        recent = _Recent(pivot=b"", ceiling=ceiling, feed=feed_recent, superseded=None)
        for leaf in db.leaf_runs(bucket, ledger):
            on_leaf()
            recent.read(leaf)
        return Keyspace(records=recent.records, live_keys=recent.live, nameless=recent.nameless)

    pivot = _U64.pack(facts.compacted + 1)
    superseded: set[bytes] = set()
    recent = _Recent(pivot=pivot, ceiling=ceiling, feed=feed_recent, superseded=superseded)
    parts = db.split(bucket, pivot, ledger)
    for leaf in chain((parts.boundary,), parts.after):
        on_leaf()
        recent.read(leaf)

    newest = None
    if facts.finished_compaction < facts.scheduled_compaction:
        newest = _newest_of_each_key(db, bucket, pivot)
    compacted = _Compacted(pivot=pivot, feed=feed_compacted, superseded=superseded, newest=newest)
    for leaf in chain(parts.before, (parts.boundary,)):
        on_leaf()
        compacted.read(leaf)

    live = recent.live + compacted.puts
    if live == 0 and compacted.records:
        _feed_all_that_is_left(db, bucket, pivot, feed_compacted, newest)
    return Keyspace(
        records=recent.records + compacted.records,
        live_keys=live,
        nameless=recent.nameless + compacted.nameless,
    )


class _Recent:
    """Reads the records after the compaction."""

    __slots__ = ("_ceiling", "_feed", "_pivot", "_superseded", "live", "nameless", "records")

    def __init__(self, *, pivot: bytes, ceiling: bytes, feed: Feed, superseded: set[bytes] | None) -> None:
        self._pivot = pivot
        self._ceiling = ceiling
        self._feed = feed
        self._superseded = superseded
        self.live = 0
        self.nameless = 0
        self.records = 0

    def read(self, leaf: Leaf | LeafRun) -> None:
        if isinstance(leaf, Leaf):
            self._read(leaf)
        elif leaf.first_key >= self._pivot and leaf.last_key < self._ceiling:
            self._feed(leaf.body(0, leaf.count))
            others = leaf.other_than_first_puts()
            self.live += leaf.count - len(others)
            self.records += leaf.count
            for index in others:
                self._count(leaf.single(index), 0)
        else:
            for each in leaf.leaves():
                self._read(each)

    def _read(self, leaf: Leaf) -> None:
        # This loop runs once for every record of the database: what it does not do costs nothing.
        keys, values, ends, data = leaf.keys, leaf.values, leaf.ends, leaf.data
        if not keys:
            return
        if keys[0] >= self._pivot and keys[-1] < self._ceiling:
            counted: range | list[int] = range(len(keys))
        else:
            _check_shape(leaf)
            counted = [i for i, key in enumerate(keys) if self._pivot <= key < self._ceiling]
        if leaf.nested:
            raise _has_bucket(leaf)
        _feed(leaf, counted, self._feed)
        live = 0
        for index in counted:
            revision, value, end = keys[index], values[index], ends[index]
            if (
                len(revision) == _PUT_SIZE
                and revision[8] == _SEPARATOR
                and value + 1 < end
                and data[value] == _KEY_FIELD
                and data[value + 1] <= _SHORT
                and _FIRST_PUT(data, value + 2 + data[value + 1], end)
            ):
                live += 1
                continue
            self._count(leaf, index)
        self.live += live
        self.records += len(counted)

    def _count(self, leaf: Leaf, index: int) -> None:
        """Look at one record whole."""
        _check_key(leaf, leaf.keys[index])
        if len(leaf.keys[index]) == _PUT_SIZE:
            key, first = _key_and_whether_first(leaf, index)
            self.live += first
            self.nameless += not key
        else:
            key, first = _user_key(leaf, index), False
            self.live -= 1
        if self._superseded is not None and not first:
            self._superseded.add(key)


class _Compacted:
    __slots__ = ("_feed", "_newest", "_pivot", "_superseded", "nameless", "puts", "records")

    def __init__(self, *, pivot: bytes, feed: Feed, superseded: set[bytes], newest: dict[bytes, bytes] | None) -> None:
        self._pivot = pivot
        self._feed = feed
        self._superseded = superseded
        self._newest = newest
        self.puts = 0
        self.nameless = 0
        self.records = 0

    def read(self, leaf: Leaf | LeafRun) -> None:
        if isinstance(leaf, Leaf):
            self._read(leaf)
        elif leaf.last_key < self._pivot and self._newest is None:
            self._read_run(leaf)
        else:
            for each in leaf.leaves():
                self._read(each)

    def _read_run(self, run: LeafRun) -> None:
        superseded = self._superseded
        out = [index for index, key in enumerate(run.users_keys()) if key in superseded] if superseded else []
        first = 0
        for other in [*run.other_than_short_puts(), run.count]:
            if first < other:
                self._feed(run.body(first, other, without=out))
                self.puts += other - first
                self.records += other - first
            if other < run.count:
                self._read(run.single(other))
            first = other + 1

    def _read(self, leaf: Leaf) -> None:
        keys, values, ends, data, superseded = leaf.keys, leaf.values, leaf.ends, leaf.data, self._superseded
        if not keys or keys[0] >= self._pivot:
            return
        if leaf.nested:
            raise _has_bucket(leaf)
        mine = len(keys) if keys[-1] < self._pivot else sum(key < self._pivot for key in keys)
        puts, newest = 0, self._newest
        counted: list[int] = []
        for index in range(mine):
            revision, value, end = keys[index], values[index], ends[index]
            if len(revision) != _PUT_SIZE or revision[8] != _SEPARATOR:
                _check_key(leaf, revision)
                continue  # a deletion
            if (
                value + 1 < end
                and data[value] == _KEY_FIELD
                and (size := data[value + 1]) <= _SHORT
                and value + 2 + size <= end
            ):
                key = data[value + 2 : value + 2 + size]
            else:
                key = _user_key(leaf, index)
                self.nameless += not key
            if newest is not None and newest.get(key) != revision:
                continue
            puts += 1
            if key not in superseded:
                counted.append(index)
        _feed(leaf, counted, self._feed)
        self.puts += puts
        self.records += mine


def _newest_of_each_key(db: BoltFile, bucket: Bucket, pivot: bytes) -> dict[bytes, bytes]:
    newest: dict[bytes, bytes] = {}
    parts = db.split(bucket, pivot, db.ledger())
    for leaf in _leaves(parts):
        _check_shape(leaf)
        for index, revision in enumerate(leaf.keys):
            if revision < pivot:
                newest[_user_key(leaf, index)] = revision
    return newest


def _feed_all_that_is_left(
    db: BoltFile, bucket: Bucket, pivot: bytes, feed: Feed, newest: dict[bytes, bytes] | None
) -> None:
    """Feed what a finished compaction leaves, except deletions at it."""
    parts = db.split(bucket, pivot, db.ledger())
    at_compaction = _U64.pack(_U64.unpack(pivot)[0] - 1)
    for leaf in _leaves(parts):
        counted = []
        for index, revision in enumerate(leaf.keys):
            if revision >= pivot:
                break
            if newest is not None:
                left = len(revision) == _PUT_SIZE and newest.get(_user_key(leaf, index)) == revision
            else:
                left = len(revision) == _PUT_SIZE or not revision.startswith(at_compaction)
            if left:
                counted.append(index)
        _feed(leaf, counted, feed)


def _leaves(parts: Split) -> Iterator[Leaf]:
    """Yield the leaves before the pivot, and the one in which it lies."""
    for each in chain(parts.before, (parts.boundary,)):
        yield from each.leaves()


def _feed(leaf: Leaf, indices: Sequence[int], feed: Feed) -> None:
    """Give these records in order, at once if they are the whole leaf."""
    if leaf.gapless and len(indices) == len(leaf.keys):
        feed(leaf.body())
    else:
        for index in indices:
            feed(leaf.record(index))


def _check_shape(leaf: Leaf) -> None:
    """Refuse keys that are no revisions."""
    if leaf.nested:
        raise _has_bucket(leaf)
    for key in leaf.keys:
        _check_key(leaf, key)


def _check_key(leaf: Leaf, key: bytes) -> None:
    size = len(key)
    fits = size == _PUT_SIZE or (size == _DELETION_SIZE and key[17] == _DELETED)
    if not fits or key[8] != _SEPARATOR:
        raise corrupt(leaf.page, f"has a key that is no revision: {key[:40].hex()}")


def _has_bucket(leaf: Leaf) -> SnapshotCorruptError:
    return corrupt(leaf.page, "has a bucket among the records of changes")


def _parse_main(key: bytes) -> int:
    if len(key) not in {_PUT_SIZE, _DELETION_SIZE}:
        raise _unreadable(f"a key of the bucket 'key' is no revision: {key[:40].hex()}")
    main: int = _U64.unpack_from(key)[0]
    if main > _LARGEST_MAIN:
        raise _unreadable(f"a key of the bucket 'key' is no revision: {key.hex()}")
    return main


def _user_key(leaf: Leaf, index: int) -> bytes:
    data, value, end = leaf.data, leaf.values[index], leaf.ends[index]
    if (
        value + 1 < end
        and data[value] == _KEY_FIELD
        and (size := data[value + 1]) <= _SHORT
        and value + 2 + size <= end
    ):
        return data[value + 2 : value + 2 + size]
    return _key_and_whether_first(leaf, index)[0]


def _key_and_whether_first(leaf: Leaf, index: int) -> tuple[bytes, bool]:
    """Decode a record fully enough to know its key and whether it begins a life."""
    if leaf.values[index] == leaf.ends[index]:
        return b"", True  # the record that a revision bump leaves
    key, version = b"", 0
    try:
        for number, content in fields_of(leaf.value(index)):
            if number == _USER_KEY and isinstance(content, bytes):
                key = content
            elif number == _VERSION and isinstance(content, int):
                version = content
    except ValueError as error:
        revision = leaf.keys[index].hex()
        raise corrupt(leaf.page, f"the record of revision {revision} cannot be decoded: {error}") from error
    return key, version == 1


def _unreadable(problem: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        problem, fields={"defect": "record"}, hint="the snapshot cannot be restored; use another one"
    )


def _main(rows: dict[bytes, bytes], name: bytes) -> int:
    value = rows.get(name)
    if value is None:
        return 0
    if len(value) != _PUT_SIZE:
        raise _unreadable(f"{name.decode()} in the bucket 'meta' is no revision: {value[:40].hex()}")
    return _parse_main(value)


def _number(rows: dict[bytes, bytes], name: bytes) -> int:
    value = rows.get(name)
    if value is None:
        return 0
    if len(value) != _U64.size:
        raise _unreadable(f"{name.decode()} in the bucket 'meta' is no number: {value[:40].hex()}")
    number: int = _U64.unpack(value)[0]
    return number


def _text(rows: dict[bytes, bytes], name: bytes) -> str | None:
    value = rows.get(name)
    return None if value is None else value.decode("utf-8", "replace")


def _member(key: bytes, value: bytes) -> MemberRecord:
    try:
        record = json.loads(value)
        return MemberRecord(
            id=key.decode(),
            name=str(record.get("name", "")),
            peer_urls=tuple(map(str, record.get("peerURLs") or ())),
            client_urls=tuple(map(str, record.get("clientURLs") or ())),
        )
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise _unreadable(f"the record of member {key[:40]!r} cannot be read: {error}") from error


def _alarm(key: bytes) -> Alarm:
    try:
        fields = dict(fields_of(key))
    except ValueError as error:
        raise _unreadable(f"an alarm cannot be read: {error}") from error
    member, kind = fields.get(1, 0), fields.get(2, 0)
    if not isinstance(member, int) or not isinstance(kind, int):
        raise _unreadable(f"an alarm cannot be read: {key[:40].hex()}")
    return Alarm(member_id=f"{member:x}", kind=_ALARMS.get(kind, f"unknown ({kind})"))
