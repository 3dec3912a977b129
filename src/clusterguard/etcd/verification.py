"""Is this file a whole, intact etcd snapshot, and what does it hold? Everything is asked of one reading.

What makes a file corrupt, as ``fields["defect"]`` of the error has it: it is ``empty``, ``cut-off`` or lacks its
trailer (``trailer-missing``), or the ``trailer`` does not match (`integrity`); a ``page`` (`boltdb`) or a ``record``
(`mvcc`) makes no sense; or it is an intact snapshot, but not the one that was saved (``other-snapshot``).

The sha256 runs in a second thread, which holds the GIL almost never, while this one walks the tree. Both
read the same open file, so it cannot be replaced between them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING

from clusterguard.errors import SnapshotCorruptError, SnapshotError, StoreError
from clusterguard.etcd import mvcc
from clusterguard.etcd.boltdb import BoltFile, unreadable
from clusterguard.etcd.hashkv import HashKV, KeyspaceHasher, current_revision
from clusterguard.etcd.integrity import Integrity, TrailerChecker, is_bare_database, require_snapshot_size
from clusterguard.model.progress import Progress, ignore_progress
from clusterguard.model.snapshot import CheckOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusterguard.etcd.mvcc import Keyspace, StoreFacts
    from clusterguard.model.progress import ProgressSink

__all__ = ["FileEvidence", "Structure", "check_structure", "checks_of", "file_facts", "open_database", "verify_file"]

# Between two pieces the hashing thread waits for the GIL, up to 5 ms each time: few large pieces, not many small.
_PIECE = 8 * 1024 * 1024
_LEAVES_PER_MOMENT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What a walk over the whole tree found in order.

    Attributes:
        revision: Main revision of the newest record, as ``etcdutl snapshot status`` tells it; 0 if none.
        total_keys: Live keys at that revision, as etcdutl counts them.
        client_keys: Those of them that a client sees: without the empty key that ``--bump-revision`` adds.
        records: Changes kept, deletions included.
        hash_kv: HashKV at the revision a member started from this file would be at.
        facts: What the small buckets say.
        page_size: Bytes.
        pages: In all, free ones included.
        free_pages: How many hold nothing.
    """

    revision: int
    total_keys: int
    client_keys: int
    records: int
    hash_kv: HashKV
    facts: StoreFacts
    page_size: int
    pages: int
    free_pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvidence:
    """What was proved of one snapshot file: it is whole, intact, and holds this.

    Attributes:
        size: Bytes, trailer included.
        sha256: Of the whole object, trailer included, in lower-case hexadecimal.
        structure: What the walk over the tree found.
        trailer: Whether etcd's own sha256 follows the database, and is right.
    """

    size: int
    sha256: str
    structure: Structure
    trailer: bool = True


def verify_file(
    path: Path,
    *,
    name: str = "",
    expected_sha256: str | None = None,
    require_trailer: bool = True,
    progress: ProgressSink = ignore_progress,
) -> FileEvidence:
    """Prove that a snapshot file is whole and intact, and read what it holds.

    Checked are the size, the sha256 trailer, the whole object's sha256 if one is expected, every page of the
    database (bbolt's own consistency check), and every record.

    Args:
        path: The file; it is only read.
        name: What messages call it, by default its path.
        expected_sha256: Digest of the whole object, trailer included, in hexadecimal.
        require_trailer: Whether a database without a trailer, as a copy of a member's own file is, is refused.
        progress: Told the bytes walked.

    Raises:
        SnapshotIncompleteError: Its size is not that of a snapshot.
        SnapshotCorruptError: It is not intact; the message says where.
        StoreError: It cannot be read, which says nothing about it.
    """
    task, name = f"verifying {name or path.name}", name or str(path)
    with _opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        trailer = require_trailer or not is_bare_database(size)
        try:
            if trailer:
                require_snapshot_size(size)
        except SnapshotError as error:
            raise _at(name, error) from error
        stop = Event()
        # Beside each other: hashing leaves Python to the walk. Both finish, since either may be what explains the
        # other.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="clusterguard-sha256") as pool:
            hashing = pool.submit(_hash, descriptor, stop, trailer=trailer)
            try:
                structure: Structure | SnapshotError = check_structure(
                    BoltFile(descriptor), task=task, progress=progress
                )
            except SnapshotError as error:
                structure = error
            except BaseException:
                stop.set()
                raise
            try:
                integrity = hashing.result()
            except SnapshotError as error:
                # The changed bytes are the finding; where they hurt, if anywhere, is the detail.
                where = structure.fields if isinstance(structure, SnapshotError) else {}
                detail = f"; {structure}" if isinstance(structure, SnapshotError) else ""
                error.fields = where | error.fields
                raise _at(name, error, detail=detail) from error
            except BaseException:
                stop.set()
                raise
    if isinstance(structure, SnapshotError):
        sent_so = trailer and isinstance(structure, SnapshotCorruptError)
        detail = " (the sha256 trailer matches, so etcd sent it like this)" if sent_so else ""
        raise _at(name, structure, detail=detail) from structure
    if expected_sha256 is not None and integrity.sha256 != expected_sha256.lower():
        raise SnapshotCorruptError(
            f"{name}: the object's sha256 is {integrity.sha256}, but {expected_sha256.lower()} was recorded",
            fields={"defect": "other-snapshot", "computed": integrity.sha256, "recorded": expected_sha256.lower()},
            hint="it is an intact snapshot, but not the one that was saved under this name",
        )
    progress(Progress(task=task, done=size, total=size, unit="bytes", finished=True))
    return FileEvidence(size=integrity.size, sha256=integrity.sha256, structure=structure, trailer=trailer)


def checks_of(evidence: FileEvidence, *, recorded: bool = False) -> list[CheckOutcome]:
    """Return what was proved of a file's bytes and pages, as checks.

    Args:
        evidence: From `verify_file`.
        recorded: Whether the sha256 was compared with a record.
    """
    trailer = " and etcd's own trailer" if evidence.trailer else ", without etcd's trailer"
    digest = f"{evidence.size:,} bytes with the {'recorded ' * recorded}sha256 {evidence.sha256[:16]}…{trailer}"
    pages = f"{evidence.structure.pages:,} pages, {evidence.structure.records:,} records, all in order"
    return [
        CheckOutcome(name="bytes", ok=True, detail=digest),
        CheckOutcome(name="structure", ok=True, detail=pages),
    ]


def file_facts(path: Path) -> mvcc.StoreFacts:
    """Return what the small buckets of a snapshot say, from these alone.

    Raises:
        SnapshotCorruptError: It is no database of etcd, or a page is broken.
        StoreError: It cannot be read.
    """
    with open_database(path) as db:
        ledger = db.ledger()
        return mvcc.read_facts(db, db.buckets(ledger), ledger)


def check_structure(db: BoltFile, *, task: str = "", progress: ProgressSink = ignore_progress) -> Structure:
    """Walk the whole tree of a database, with or without a trailer behind it.

    Args:
        db: The file.
        task: What the progress calls it.
        progress: Told the bytes walked.

    Raises:
        SnapshotCorruptError: A page or a record is broken.
    """
    meta = db.meta
    ledger = db.ledger()
    buckets = db.buckets(ledger)
    facts = mvcc.read_facts(db, buckets, ledger)
    revision = mvcc.last_revision(db, buckets)
    current = current_revision(revision, facts.compacted)
    hasher = KeyspaceHasher()
    leaves = 0

    def count() -> None:
        nonlocal leaves
        leaves += 1
        if leaves % _LEAVES_PER_MOMENT == 0:
            walked = ledger.met() * meta.page_size
            progress(Progress(task=task, done=walked, total=db.size, unit="bytes"))

    keyspace: Keyspace = mvcc.scan(
        db,
        buckets,
        ledger,
        facts=facts,
        revision=current,
        feed_compacted=hasher.compacted.update,
        feed_recent=hasher.recent.update,
        on_leaf=count,
    )
    db.require_complete(ledger)
    return Structure(
        revision=revision,
        total_keys=keyspace.live_keys,
        client_keys=keyspace.live_keys - keyspace.nameless,
        records=keyspace.records,
        hash_kv=hasher.finish(compacted=facts.compacted, revision=current),
        facts=facts,
        page_size=meta.page_size,
        pages=meta.high_water,
        free_pages=ledger.free(),
    )


@contextmanager
def open_database(path: Path) -> Iterator[BoltFile]:
    """Open a snapshot, or a copied ``member/snap/db``, for reading.

    Raises:
        SnapshotCorruptError: It is no database.
        StoreError: It cannot be read.
    """
    with _opened(path) as descriptor:
        yield BoltFile(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise _at(str(path), unreadable(error)) from error
    with file:
        try:
            yield file.fileno()
        except StoreError as error:
            raise _at(str(path), error) from error


def _hash(descriptor: int, stop: Event, *, trailer: bool) -> Integrity:
    checker = TrailerChecker()
    buffer = bytearray(min(_PIECE, os.fstat(descriptor).st_size))
    view = memoryview(buffer)
    try:
        while not stop.is_set() and (count := os.preadv(descriptor, [buffer], checker.size)):
            checker.update(view[:count])
    except OSError as error:
        raise unreadable(error) from error
    return checker.finish() if trailer else checker.finish_without_trailer()


def _at(name: str, error: SnapshotError | StoreError, *, detail: str = "") -> SnapshotError | StoreError:
    """Name the file in an error about its bytes."""
    return type(error)(f"{name}: {error.message}{detail}", hint=error.hint, code=error.code, fields=error.fields)
