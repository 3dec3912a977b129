"""Copies that are read again: whether every stored byte is as it was written, and what is in it is whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from clusterguard.errors import (
    BackupCorruptError,
    ClusterGuardError,
    ObjectCorruptError,
    ObjectNotFoundError,
    SnapshotError,
    StoreUnavailableError,
)
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.policies.copies.encryption import read_secret
from clusterguard.policies.copies.locations import RECORD, objects_of, read_record
from clusterguard.policies.copies.stored import opened_velero
from clusterguard.stores.encryption import EncryptedStore
from clusterguard.stores.transfer import digest_object

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.policies.copies.catalog import BackupEntry, VerifyLevel
    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.policy import VeleroSource
    from clusterguard.policies.report import Outcome
    from clusterguard.policies.runs.session import Session, Task
    from clusterguard.stores.base import ObjectStore
    from clusterguard.stores.encryption import Encryption
    from clusterguard.velero.bucket_report import BackupVerifyReport
    from clusterguard.velero.volume_data import DataCheck

__all__ = [
    "CopyCheck",
    "CopyState",
    "can_decrypt",
    "check_contents",
    "check_stored",
    "due_for_verification",
    "noted",
    "stored_objects",
    "verify_due",
]

CopyState: TypeAlias = Literal["intact", "damaged", "unknown"]
"""``intact`` and ``damaged`` are what the bytes say; ``unknown``: they could not be read, so they say nothing."""

_OUTCOMES: Final[Mapping[CopyState, Outcome]] = {"intact": "ok", "damaged": "failed", "unknown": "warning"}
_CODES: Final[Mapping[CopyState, str]] = {"intact": "", "damaged": "copy-damaged", "unknown": "copy-unread"}

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
# What only bytes that were read, or that are certainly gone, can raise. Everything else (no answer, no room, no key, no
# permission) is about the way to the copy.
_EVIDENCE: Final = (SnapshotError, BackupCorruptError, ObjectCorruptError, ObjectNotFoundError)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyCheck:
    """The result of one look at one copy."""

    state: CopyState  # what is known of the copy now
    depth: VerifyLevel  # how deep the look went, or was meant to go
    detail: str  # what was seen; for ``unknown`` why nothing was
    error: ClusterGuardError | None = None  # what kept us from looking; None where we could

    def __str__(self) -> str:
        return f"it could not be looked at: {self.detail}" if self.state == "unknown" else self.detail

    @property
    def hint(self) -> str:
        """What to do about it; empty where there is nothing to do, or nothing is known."""
        if self.state == "damaged":
            return "the other locations are verified, too: a sound copy there can be fetched"
        return (self.error.hint or "") if self.error is not None else ""

    def apply_to(self, task: Task) -> None:
        """Make it the outcome of a step."""
        task.outcome, task.code = _OUTCOMES[self.state], _CODES[self.state]
        task.detail, task.hint = str(self), self.hint

    def noted_in(self, entry: BackupEntry, *, now: datetime) -> BackupEntry:
        """Return what a catalog says of the copy now; a look that saw nothing changes nothing that is known."""
        if self.state == "unknown":
            return replace(entry, unread=self.detail)
        if self.state == "damaged":
            return replace(entry, problem=self.detail, depth=self.depth, unread="")
        if self.depth == "bytes" and entry.depth == "contents":
            # The bytes are those whose contents were looked at before: whatever was found in them still holds.
            return replace(entry, verified=entry.verified if entry.problem else now, unread="")
        return replace(entry, verified=now, depth=self.depth, problem="", unread="")


def noted(entry: BackupEntry, checks: Sequence[CopyCheck], *, now: datetime) -> BackupEntry:
    """Return what a catalog says of a copy after one or more looks, each deeper than the one before."""
    *before, deepest = checks
    if deepest.state == "unknown" and before:
        entry = noted(entry, before, now=now)
    return deepest.noted_in(entry, now=now)


def verify_due(session: Session) -> None:
    """Read those copies again that nobody has read for too long, in each location the longest unread first."""
    if not session.locations:
        return
    with ThreadPoolExecutor(max_workers=len(session.locations)) as readers:
        for done in [readers.submit(_verify_in, location, session) for location in session.locations]:
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


def stored_objects(location: StorageLocation, entry: BackupEntry) -> dict[str, tuple[str, int]]:
    """Return the stored objects of a copy by their key below its source's folder: SHA-256 and size.

    Raises:
        ObjectNotFoundError: Its record is gone.
        SnapshotCorruptError: Its record cannot be read.
        ConfigError: A later release wrote its record.
    """
    return objects_of(read_record(location.root, f"{entry.key}{RECORD}"))


def check_stored(location: StorageLocation, entry: BackupEntry, *, known: Collection[str] = ()) -> CopyCheck:
    """Read every stored byte of a copy back, and compare it with what was written.

    - ``known``: objects that were read back with an earlier backup; whether they are there is asked all the same.
    """
    return _checked("bytes", lambda: _stored(location, entry, known))


def check_contents(
    location: StorageLocation, entry: BackupEntry, session: Session, access: EtcdAccess | None = None
) -> CopyCheck:
    """Open a copy and look at what is in it.

    - ``access``: the etcd that it was read from, for a comparison with what is there now; None for none.
    """
    return _checked("contents", lambda: _contents(location, entry, session, access))


def can_decrypt(encryption: Encryption, entry: BackupEntry) -> bool:
    """Return whether there is a key at hand that may open a copy, or none is needed."""
    return not entry.encrypted or bool(encryption.identities) or encryption.passphrase is not None


def _checked(depth: VerifyLevel, look: Callable[[], tuple[bool, str]]) -> CopyCheck:
    """Look at a copy, and again where it seems damaged: a bad wire or memory changes other bytes the next time."""
    first = _look(depth, look)
    if first.state != "damaged":
        return first
    again = _look(depth, look)
    # Two reads that disagree say something about the way to the copy, and nothing about the copy.
    # What is told of opened contents may name a file that was made for one look.
    if again.state == "unknown" or (again.state == "damaged" and (again.detail == first.detail or depth == "contents")):
        return again
    error = StoreUnavailableError(
        f"two reads gave different results: {first.detail}; and then: {again.detail}",
        hint="look for what changes bytes on their way: a proxy, the network, memory",
    )
    return CopyCheck(state="unknown", depth=depth, detail=error.message, error=error)


def _look(depth: VerifyLevel, look: Callable[[], tuple[bool, str]]) -> CopyCheck:
    """Tell what is wrong with the copy from what is wrong with the way to it."""
    try:
        intact, seen = look()
    except _EVIDENCE as error:
        return CopyCheck(state="damaged", depth=depth, detail=error.message)
    except ClusterGuardError as error:
        return CopyCheck(state="unknown", depth=depth, detail=error.message, error=error)
    return CopyCheck(state="intact" if intact else "damaged", depth=depth, detail=seen)


def _stored(location: StorageLocation, entry: BackupEntry, known: Collection[str]) -> tuple[bool, str]:
    objects = stored_objects(location, entry)
    if entry.sha256 and [sha256 for sha256, _ in objects.values()] != [entry.sha256]:
        return False, "its record tells another digest than the catalog: one of the two was changed"
    store = location.of_source(entry.source)
    for key, (sha256, size) in objects.items():
        found, read = (sha256, store.stat(key).size) if key in known else digest_object(store, key)
        if (found, read) != (sha256, size):
            return False, f"{key}: {read:,} bytes with sha256 {found[:16]}…, written were {size:,} with {sha256[:16]}…"
    before = sum(key in known for key in objects)
    also = f"; {before} blobs of earlier backups are there" if before else ""
    return True, f"every stored byte read back, digest equal{also}"


def _contents(
    location: StorageLocation, entry: BackupEntry, session: Session, access: EtcdAccess | None
) -> tuple[bool, str]:
    folder = location.of_source(entry.source)
    if entry.kind == "etcd":
        store = EncryptedStore(folder, session.encryption, plain=(RECORD,))
        snapshotter = EtcdSnapshotter(store=store, access=access, progress=session.progress, scratch=session.scratch)
        report = snapshotter.verify(entry.name)
        return report.ok, "; ".join(f"{check.name}: {check.detail}" for check in report.checks)
    # Whether Velero would call it expired is no question to a copy that this policy keeps.
    wanted = next((each.velero for each in session.policy.sources if each.name == entry.source), None)
    copy = opened_velero(folder, entry, session.encryption)
    found = verify_velero(copy, entry.name, wanted, session, now=entry.created)
    return found.ok, found.to_text().splitlines()[0] if found.ok else found.to_text()


def verify_velero(
    store: ObjectStore, name: str, wanted: VeleroSource | None, session: Session, *, now: datetime
) -> BackupVerifyReport:
    """Read a Velero backup back, by what its source tolerates, and the data of its volumes where it has any there."""
    from clusterguard.velero.bucket import verify_backup
    from clusterguard.velero.bucket_report import BucketPolicy

    policy = BucketPolicy(tolerate_rules=frozenset(wanted.tolerate if wanted else ()))
    check = _data_check(wanted, session) if wanted is not None and wanted.data_in_bucket else None
    return verify_backup(store, name, now=now, policy=policy, volume_data=check, progress=session.progress)


def _data_check(wanted: VeleroSource, session: Session) -> DataCheck:
    from clusterguard.toolchain import from_environment
    from clusterguard.velero.repository import DEFAULT_PASSWORD
    from clusterguard.velero.volume_data import DataCheck, parse_share

    secret = wanted.repository_password
    toolchain = from_environment(session.environ, progress=session.progress)
    return DataCheck(
        program=lambda: toolchain.ensure("kopia")["kopia"],
        share=parse_share(wanted.read_data),
        password=read_secret(secret, session.environ, what="the repositories' password")
        if secret
        else DEFAULT_PASSWORD,
        scratch=session.scratch,
    )


def _verify_in(location: StorageLocation, session: Session) -> None:
    wanted = {source.name for source in session.policy.sources}
    entries = (each for each in session.catalogs[location.name].entries.values() if each.source in wanted)
    for entry in due_for_verification(entries, session):
        if location not in session.locations:
            return
        with session.step("verify", source=entry.source, location=location.name, backup=entry.name) as task:
            checks = [check_stored(location, entry)]
            if checks[0].state == "intact" and can_decrypt(session.encryption, entry):
                checks.append(check_contents(location, entry, session))
            session.know(location, [noted(entry, checks, now=session.now())])
            checks[-1].apply_to(task)
            task.digest, task.size, task.detail = entry.sha256, entry.size, "; ".join(map(str, checks))
        if checks[-1].state == "unknown":
            session.answers(location)
