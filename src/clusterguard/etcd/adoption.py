"""Snapshots that another program saved: verified where they lie, or made a store's own, with a record."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from clusterguard.errors import SnapshotCorruptError
from clusterguard.etcd import remarks
from clusterguard.etcd.integrity import Integrity, TrailerChecker
from clusterguard.etcd.opening import open_snapshot
from clusterguard.etcd.verification import checks_of, verify_file
from clusterguard.model.progress import ignore_progress
from clusterguard.model.snapshot import Remark, Snapshot, VerifyReport
from clusterguard.stores.base import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clusterguard.etcd.opening import Location, OpenedSnapshot
    from clusterguard.etcd.verification import FileEvidence
    from clusterguard.model.progress import ProgressSink
    from clusterguard.stores.base import ObjectWriter
    from clusterguard.stores.encryption import Encryption

__all__ = ["copy_verified", "name_for", "record_of", "verify_snapshot"]

_SUFFIX: Final = re.compile(r"(\.(db|snap|snapshot|zip|gz|zst|zlib|Z|age))+$")
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME: Final = 128


def verify_snapshot(
    location: Location,
    *,
    at: datetime | None = None,
    encryption: Encryption | None = None,
    scratch: Path | None = None,
    progress: ProgressSink = ignore_progress,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> VerifyReport:
    """Prove that a snapshot of any program is whole and intact, wherever it lies; it needs no record.

    Args:
        location: What `open_snapshot` takes.
        at: Take the newest of a folder that is not newer than this.
        encryption: Its identities or its passphrase open what is encrypted.
        scratch: The folder for what has to be copied or unpacked.
        progress: Told of the bytes.
        now: The time, UTC.

    Raises:
        SnapshotError: It is not a whole, intact snapshot.
        ClusterGuardError: It cannot be opened, as `open_snapshot` says.
    """
    with open_snapshot(location, at=at, encryption=encryption, scratch=scratch) as opened:
        evidence = verify_file(opened.path, name=opened.origin, require_trailer=False, progress=progress)
        stored = Integrity(size=evidence.size, sha256=evidence.sha256)
        record = record_of(opened.origin, "", opened=opened, evidence=evidence, stored=stored, now=now())
    return VerifyReport(snapshot=record, checks=checks_of(evidence), remarks=record.remarks)


def name_for(opened: OpenedSnapshot) -> str:
    """Return what to call a snapshot: the name it has already, as far as a name may be like that."""
    own = _SUFFIX.sub("", PurePath(opened.origin.rpartition(": ")[2]).name)
    return _NOT_IN_NAMES.sub("-", own).strip("._-")[:_LONGEST_NAME] or "snapshot"


def copy_verified(opened: OpenedSnapshot, evidence: FileEvidence, writer: ObjectWriter) -> Integrity:
    """Copy the bytes that were verified, and add the trailer that a restore asks for if there is none.

    Raises:
        SnapshotCorruptError: They changed since they were verified.
    """
    checker = TrailerChecker()
    with opened.path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            checker.update(data)
            writer.write(data)
    found = checker.finish_without_trailer()
    if found.sha256 != evidence.sha256:
        raise SnapshotCorruptError(
            f"{opened.origin} changed while it was read",
            hint="another program writes to it: adopt it again once it is done",
            code="snapshot-changed",
        )
    if evidence.trailer:
        return found
    trailer = bytes.fromhex(found.sha256)
    checker.update(trailer)
    writer.write(trailer)
    return checker.finish()


def record_of(
    name: str,
    key: str,
    *,
    opened: OpenedSnapshot,
    evidence: FileEvidence,
    stored: Integrity,
    now: datetime,
) -> Snapshot:
    """Return the record of a snapshot that somebody else saved: what its bytes say, and nothing that only they know.

    Its ``etcd_version`` is the one that the cluster's members had agreed on; its endpoint and IDs are empty.
    """
    structure = evidence.structure
    return Snapshot(
        name=name,
        key=key,
        taken=opened.modified or now,
        revision=structure.revision,
        total_keys=structure.client_keys,
        size=stored.size,
        etcd_version=structure.facts.cluster_version or "",
        storage_version=structure.facts.storage_version,
        cluster_id="",
        member_id="",
        member_name="",
        sha256=stored.sha256,
        hash_kv=structure.hash_kv.hash,
        hash_revision=structure.hash_kv.hash_revision,
        compact_revision=structure.hash_kv.compact_revision,
        endpoint="",
        remarks=tuple(_remarks(opened, evidence)),
    )


def _remarks(opened: OpenedSnapshot, evidence: FileEvidence) -> Iterator[Remark]:
    yield from remarks.of_database(evidence.structure.facts, keys=evidence.structure.client_keys)
    yield from remarks.of_file(trailer=evidence.trailer, passed_over=opened.passed_over)
