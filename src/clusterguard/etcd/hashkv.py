"""HashKV of a snapshot file: what etcd answers to ``POST /v3/maintenance/hashkv`` at the same revision.

It is the CRC-32C of ``key`` (the bucket's name) and of the records that `clusterguard.etcd.mvcc.scan` gives.
So a snapshot and a live member can be compared without a restore. The only user of google_crc32c.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import google_crc32c

from clusterguard.crc import CRC32C, combine
from clusterguard.errors import ConfigError
from clusterguard.etcd import mvcc

if TYPE_CHECKING:
    from clusterguard.etcd.boltdb import BoltFile

__all__ = ["Crc32c", "HashKV", "KeyspaceHasher", "hash_kv"]

_BUCKET_NAME = b"key"


@dataclass(frozen=True, slots=True, kw_only=True)
class HashKV:
    """A hash of all keys at one revision; equal on every member that is at the same compaction.

    Attributes:
        hash: CRC-32C, unsigned.
        compact_revision: The compaction it presupposes, or -1 if there was none, as etcd tells it.
        hash_revision: The revision it is of.
    """

    hash: int
    compact_revision: int
    hash_revision: int


class Crc32c:
    """A running CRC-32C that knows how many bytes it has seen."""

    __slots__ = ("size", "value")

    def __init__(self, start: bytes = b"") -> None:
        self.value: int = google_crc32c.extend(0, start)
        self.size = len(start)

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self.value = google_crc32c.extend(self.value, data)
        self.size += len(data)


class KeyspaceHasher:
    """Makes a HashKV of two parts that are read in the other order."""

    __slots__ = ("compacted", "recent")

    def __init__(self) -> None:
        self.compacted = Crc32c(_BUCKET_NAME)
        self.recent = Crc32c()

    def finish(self, *, compacted: int, revision: int) -> HashKV:
        """Return the hash of all bytes given."""
        return HashKV(
            hash=combine(self.compacted.value, self.recent.value, self.recent.size, polynomial=CRC32C),
            compact_revision=compacted or -1,
            hash_revision=revision,
        )


def hash_kv(db: BoltFile, *, revision: int | None = None, compacted: int | None = None) -> HashKV:
    """Compute HashKV of a database file.

    Args:
        db: The file.
        revision: Of which revision; by default the file's own.
        compacted: The compaction of the member to compare with, if it has compacted since the file was saved; by
            default the file's own.

    Raises:
        ConfigError: The file does not hold that revision any more, or not yet, or is compacted further.
        SnapshotCorruptError: A page or a record is broken.
    """
    ledger = db.ledger()
    buckets = db.buckets(ledger)
    facts = mvcc.read_facts(db, buckets, ledger)
    current = current_revision(mvcc.last_revision(db, buckets), facts.compacted)
    if compacted is not None and compacted != facts.compacted:
        if not facts.compacted < compacted <= current:
            raise ConfigError(
                f"cannot hash as if compacted at {compacted}: the file is compacted at {facts.compacted} "
                f"and ends at {current}",
                code="compaction-not-in-file",
                fields={"compaction": compacted, "first": facts.compacted, "last": current},
                hint="compare with a member whose compaction is in that range",
            )
        # What a compaction would delete does not count, whether it has been deleted or not.
        facts = replace(facts, scheduled_compaction=compacted)
    wanted = current if revision is None else revision
    if not facts.compacted <= wanted <= current or wanted < 1:
        raise ConfigError(
            f"revision {wanted} cannot be hashed: the file holds {max(1, facts.compacted)} to {current}",
            code="revision-not-in-file",
            fields={"revision": wanted, "first": max(1, facts.compacted), "last": current},
            hint="choose a revision in that range, or leave it out for the newest",
        )
    hasher = KeyspaceHasher()
    mvcc.scan(
        db,
        buckets,
        ledger,
        facts=facts,
        revision=wanted,
        feed_compacted=hasher.compacted.update,
        feed_recent=hasher.recent.update,
    )
    return hasher.finish(compacted=facts.compacted, revision=wanted)


def current_revision(last: int, compacted: int) -> int:
    """Return the revision a member started from the file is at; a compacted one may have left no record."""
    return max(1, last, compacted)
