"""Copies that are read again: whether every stored byte is as it was written, and what is in it is whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ClusterGuardError, ObjectNotFoundError, SnapshotCorruptError, WrongKeyError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.policies.copies.places import RECORD, VeleroRecord, read_record
from clusterguard.stores.sealing import SealedStore
from clusterguard.stores.transfer import digest_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.model.catalog import BackupEntry, Depth
    from clusterguard.policies.copies.places import Place
    from clusterguard.policies.runs.session import Session
    from clusterguard.stores.sealing import Seal

__all__ = ["contents_problem", "due_for_verification", "opens", "stored_objects", "stored_problem", "verify_due"]

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def verify_due(session: Session) -> None:
    """Read those copies again that nobody has read for too long, in each location the longest unread first."""
    if not session.places:
        return
    with ThreadPoolExecutor(max_workers=len(session.places)) as readers:
        for done in [readers.submit(_verify_in, place, session) for place in session.places]:
            done.result()


def due_for_verification(entries: Iterator[BackupEntry], session: Session) -> tuple[BackupEntry, ...]:
    """Return the copies of one location that are due, at most as many as a run reads."""
    rules, now = session.policy.verification, session.now()
    # What was verified in the future was verified by a clock that was wrong: that says nothing.
    due = [
        each
        for each in entries
        if each.verified is None or each.problem or each.verified > now or now - each.verified >= rules.every
    ]
    oldest_first = sorted(due, key=lambda each: (each.verified or _NEVER, each.created))
    return tuple(oldest_first[: rules.per_run])


def stored_objects(place: Place, entry: BackupEntry) -> dict[str, tuple[str, int]]:
    """Return the stored objects of a copy by their key below its source's folder: SHA-256 and size.

    Raises:
        ObjectNotFoundError: Its record is gone.
        SnapshotCorruptError: Its record cannot be read.
    """
    record = read_record(place.root, f"{entry.key}{RECORD}")
    if isinstance(record, VeleroRecord):
        return dict(record.objects)
    key = str(record.extra.get("stored_key", record.key))
    sha256 = str(record.extra.get("stored_sha256", record.sha256))
    return {key: (sha256, int(record.extra.get("stored_size", record.size)))}


def stored_problem(place: Place, entry: BackupEntry) -> str:
    """Read a copy back and return what is wrong with its stored bytes; nothing where they are as they were written.

    Raises:
        StoreError: The location could not be read, which says nothing about the copy.
    """
    try:
        objects = stored_objects(place, entry)
    except (ObjectNotFoundError, SnapshotCorruptError) as error:
        return error.message
    if entry.sha256 and [sha256 for sha256, _ in objects.values()] != [entry.sha256]:
        return "its record tells another digest than the catalog: one of the two was changed"
    store = place.of_source(entry.source)
    for key, (sha256, size) in objects.items():
        try:
            found, read = digest_object(store, key)
        except ObjectNotFoundError:
            return f"{key} is gone"
        if (found, read) != (sha256, size):
            return f"{key}: {read:,} bytes with sha256 {found[:16]}…, written were {size:,} with {sha256[:16]}…"
    return ""


def contents_problem(
    place: Place, entry: BackupEntry, session: Session, access: EtcdAccess | None = None
) -> tuple[str, str]:
    """Open a copy and return what is wrong with what is in it (nothing, if it is whole), and what was seen.

    Raises:
        WrongKeyError: None of the keys at hand opens it, which says nothing about the copy.
    """
    store = SealedStore(place.of_source(entry.source), session.seal, plain=(RECORD,) if entry.kind == "etcd" else ())
    try:
        if entry.kind == "etcd":
            report = EtcdSnapshotter(store=store, access=access, progress=session.progress).verify(entry.name)
            seen = "; ".join(f"{check.name}: {check.detail}" for check in report.checks)
            return ("", seen) if report.ok else (seen, seen)
        from clusterguard.velero.bucket import verify_backup

        # Whether Velero would call it expired is no question to a copy that this policy keeps.
        found = verify_backup(store, entry.name, now=entry.created)
    except WrongKeyError:
        raise
    except ClusterGuardError as error:
        return error.message, error.message
    return ("", found.to_text().splitlines()[0]) if found.ok else (found.to_text(), found.to_text())


def opens(seal: Seal, entry: BackupEntry) -> bool:
    """Return whether there is a key at hand that may open a copy, or none is needed."""
    return not entry.sealed or bool(seal.identities) or seal.passphrase is not None


def _verify_in(place: Place, session: Session) -> None:
    wanted = {source.name for source in session.policy.sources}
    entries = (each for each in session.catalogs[place.name].entries.values() if each.source in wanted)
    for entry in due_for_verification(entries, session):
        with session.step("verify", source=entry.source, location=place.name, backup=entry.name) as task:
            problem = stored_problem(place, entry)
            depth: Depth = "bytes"
            task.detail = "every stored byte read back, digest equal"
            if not problem and opens(session.seal, entry):
                try:
                    problem, task.detail = contents_problem(place, entry, session)
                    depth = "contents"
                except WrongKeyError as error:
                    task.outcome, task.hint = "warning", error.hint or ""
                    task.detail += f"; but it could not be opened: {error.message}"
            task.digest, task.size = entry.sha256, entry.size
            if problem:
                task.outcome, task.detail = "failed", problem
                task.hint = "the other locations are verified, too: a sound copy there can be fetched"
                session.know(place, [replace(entry, problem=problem)])
            else:
                session.know(place, [replace(entry, verified=session.now(), depth=depth, problem="")])
