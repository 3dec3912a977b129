"""New backups: one read of the source, copies in every location that answers, each of them read back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterguard.errors import BackupCorruptError, StoreUnavailableError, WrongKeyError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.policies.copies.locations import RECORD, VeleroRecord, etcd_entry, read_record, velero_entry
from clusterguard.policies.copies.naming import etcd_name, velero_name
from clusterguard.policies.copies.volumes import copy_blobs, opened_by_same, shared_blobs
from clusterguard.policies.policy import EtcdSource
from clusterguard.policies.runs.connect import connect_etcd, connect_velero
from clusterguard.policies.runs.verify import CopyCheck, can_decrypt, check_contents, check_stored, noted, verify_velero
from clusterguard.stores import open_store
from clusterguard.stores.encryption import EncryptedStore
from clusterguard.stores.replicated import ReplicatedStore
from clusterguard.stores.transfer import copy_object
from clusterguard.velero.findings import DEFAULT_TOLERATED
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.selectors import LabelSelector

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.model.snapshot import Snapshot
    from clusterguard.policies.copies.catalog import BackupEntry
    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.copies.volumes import SharedBlob
    from clusterguard.policies.policy import Source, VeleroSource
    from clusterguard.policies.runs.session import Session, Task
    from clusterguard.stores.base import ObjectStore
    from clusterguard.stores.encryption import StoredObject

__all__ = ["back_up"]


def back_up(source: Source, session: Session) -> None:
    """Back a source up into every location that answers, and read every copy back.

    What goes wrong is reported as a step of the session. The backup counts once as many copies as the policy wants
    were read back and are whole; fewer are kept, and the step has failed.
    """
    if isinstance(source.engine, EtcdSource):
        _back_up_etcd(source, source.engine, session)
    else:
        _back_up_velero(source, source.engine, session)


def _back_up_etcd(source: Source, etcd: EtcdSource, session: Session) -> None:
    name = _new_name(source.name, session)
    with session.step("backup", source=source.name, backup=name) as task:
        with connect_etcd(etcd, environ=session.environ, progress=session.progress) as access:
            with _locations(source.name, name, session) as replicas:
                # Encrypted once, above the replicas: every location holds the same bytes, so one can be made good from
                # another by whoever has no key.
                store = EncryptedStore(replicas, session.encryption)
                snapshotter = EtcdSnapshotter(
                    store=store, access=access, progress=session.progress, now=session.now, scratch=session.scratch
                )
                record = snapshotter.save(name, annotate=lambda key: _notes(source.name, store.stored(key), session))
            entry = etcd_entry(record, source.name)
            task.digest, task.size = entry.sha256, entry.size
            _read_back(task, entry, session, access)
        task.detail = f"revision {record.revision}, {record.total_keys:,} keys, {record.size:,} bytes" + (
            f", {entry.size:,} stored; {task.detail}" if entry.size != record.size else f"; {task.detail}"
        )
        _tell_remarks(task, record)


def _back_up_velero(source: Source, wanted: VeleroSource, session: Session) -> None:
    name = velero_name(source.name, now=session.now(), suffix=session.suffix)
    with session.step("backup", source=source.name, backup=name) as task:
        with connect_velero(wanted, progress=session.progress) as velero:
            asked = velero.back_up(name, _options(wanted), wait=False)
            backup = velero.wait(asked, timeout_seconds=wanted.timeout.total_seconds())
            bucket = open_store(wanted.bucket)
            outcome = velero.outcome(backup, tolerate=DEFAULT_TOLERATED | {*wanted.tolerate}, bucket=bucket)
            if not backup.phase.has_contents:
                outcome.raise_for_findings()
            # First: is it in this bucket at all?
            verified = verify_velero(bucket, name, wanted, session, now=session.now())
            outcome.raise_for_findings()
        verified.raise_for_findings()
        with _locations(source.name, name, session) as replicas:
            # Asked before anything is written: what no location lacks is not copied again.
            known = _known_blobs(source.name, session) if wanted.data_in_bucket else {}
            copied = _Copied(name=name, source=source.name, created=backup.started or session.now())
            record = _copy_velero(copied, wanted, session, replicas, bucket, known)
        entry = velero_entry(record)
        task.size = entry.size
        _read_back(task, entry, session, None, known={blob.key for blob in known.values()})
        blobs = f" and {len(record.volumes)} blobs of volumes" if record.volumes else ""
        task.detail = f"{len(record.objects) - len(record.volumes)} files{blobs}, {entry.size:,} bytes; {task.detail}"
        if wanted.volumes == "snapshots" and task.outcome == "ok":
            task.detail += "; snapshots of volumes stay where they were taken, and have no further copy"


@contextmanager
def _locations(source: str, backup: str, session: Session) -> Iterator[ReplicatedStore]:
    """Give the folder of a source in every location that answers, as one store to write a backup to.

    What goes wrong in one of them is told at the end, however that comes. One that is away is left out of the run; one
    that answers, and takes no copy because its disk is full, is still verified, and what is too old in it removed.
    """
    locations = {each.name: each for each in session.locations if each.name not in session.takes_no_more}
    if not locations:
        raise StoreUnavailableError("no location is left that takes a copy", hint="see each location's own error above")
    replicas = ReplicatedStore({name: location.of_source(source) for name, location in locations.items()}, minimum=1)
    try:
        yield replicas
    finally:
        for failed, error in replicas.failures.items():
            if not session.answers(locations[failed]):
                continue
            session.takes_no_more.add(failed)
            with session.step("copy", source=source, location=failed, backup=backup) as task:
                task.outcome, task.detail, task.code = "warning", f"it takes no copy: {error.message}", error.code
                task.hint = error.hint or "the next run makes the missing copy"


def _notes(source: str, stored: StoredObject, session: Session) -> Mapping[str, Any]:
    """Return what the record of a snapshot says of the stored bytes, for who has no key."""
    return {
        "policy": session.policy.name,
        "source": source,
        "run": session.run,
        "sealed": session.encryption.suffix.endswith(".age"),
        "stored_key": stored.key,
        "stored_sha256": stored.sha256,
        "stored_size": stored.size,
    }


def _tell_remarks(task: Task, record: Snapshot) -> None:
    """Say what was noticed beside the backup itself; what is wrong with the backup counts more."""
    for remark in sorted(record.remarks, key=lambda remark: not remark.warning):
        task.detail += f"; {remark.detail}"
        if remark.warning and task.outcome == "ok":
            task.outcome, task.code = "warning", remark.code


def _judge_copies(task: Task, session: Session, sound: int, *, made: int, unread: int) -> None:
    """Say whether enough copies are whole; that may hang on some that could not be read."""
    wanted = session.policy.copies
    task.detail = f"{sound} of {made} copies read back and whole"
    if sound < wanted:
        task.outcome, task.code = "failed", "too-few-copies" if sound + unread < wanted else "copy-unread"
        task.detail += f", and the policy wants {wanted}"
        task.hint = "what there is is kept; the next run makes the missing copies once their locations answer"
    elif sound < len(session.policy.locations):
        task.outcome = "warning"
        task.detail += f"; {len(session.policy.locations)} locations should have one"
        task.hint = "the next run makes the missing copies once their locations answer"


def _new_name(source: str, session: Session) -> str:
    """Return a name by the time that no location has yet: a clock that was set back must not name a backup twice."""
    catalogs = session.catalogs.values()
    taken = {entry.name for catalog in catalogs for entry in catalog.of_source(source)}
    taken |= {each.name for catalog in catalogs for each in catalog.leftovers if each.source == source}
    name = etcd_name(source, now=session.now())
    return name if name not in taken else etcd_name(source, now=session.now(), suffix=session.suffix)


def _read_back(
    task: Task, entry: BackupEntry, session: Session, access: EtcdAccess | None, *, known: Collection[str] = ()
) -> None:
    """Read every new copy back, all locations at once, and judge whether enough of them are known to be whole.

    A copy that could not be read is kept and counts as not verified yet: a later run reads it.

    - ``known``: objects that lay there already, and were read back with the backup that brought them.
    """
    locations = [location for location in session.locations if location.name not in session.takes_no_more]
    with ThreadPoolExecutor(max_workers=max(1, len(locations))) as readers:
        found = list(readers.map(lambda location: _check(location, entry, session, known), locations))
    looks = {location.name: [check] for location, check in zip(locations, found, strict=True)}
    intact = [location for location in locations if looks[location.name][-1].state == "intact"]
    if intact and can_decrypt(session.encryption, entry):
        # The stored bytes are the same everywhere, so what is in them is looked at in one location. Damage may be that
        # of its record alone, so each of the others is asked then.
        contents = _check_contents(intact[0], entry, session, access)
        for location in intact:
            again = contents.state == "damaged" and location is not intact[0]
            looks[location.name].append(_check_contents(location, entry, session, access) if again else contents)
    for location in locations:
        session.know(location, [noted(entry, looks[location.name], now=session.now())])
        if looks[location.name][0].state == "unknown":
            session.answers(location)
    copies = [session.catalogs[location.name].entries[entry.key] for location in locations]
    unread = sum(not copy.sound and not copy.problem for copy in copies)
    _judge_copies(task, session, sum(copy.sound for copy in copies), made=len(locations), unread=unread)


def _check(location: StorageLocation, entry: BackupEntry, session: Session, known: Collection[str]) -> CopyCheck:
    with session.step("verify", source=entry.source, location=location.name, backup=entry.name) as task:
        check = check_stored(location, entry, known=known)
        task.digest, task.size = entry.sha256, entry.size
        check.apply_to(task)
        # Whether the backup counts without this copy is judged with all of them.
        task.outcome = "ok" if check.state == "intact" else "warning"
    return check


def _check_contents(
    location: StorageLocation, entry: BackupEntry, session: Session, access: EtcdAccess | None
) -> CopyCheck:
    with session.step("verify", source=entry.source, location=location.name, backup=entry.name) as task:
        check = check_contents(location, entry, session, access)
        check.apply_to(task)
        if isinstance(check.error, WrongKeyError):
            task.outcome, task.code = "failed", check.error.code
            task.detail = f"the policy's own key does not decrypt what was just encrypted: {check.detail}"
            task.hint = (
                "the identity must belong to one of the recipients; whoever has theirs can still read the backup"
            )
    return check


# ---- Velero ------------------------------------------------------------------------------------------------


def _options(source: VeleroSource) -> BackupOptions:
    return BackupOptions(
        included_namespaces=source.included_namespaces,
        excluded_namespaces=source.excluded_namespaces,
        label_selector=LabelSelector.parse(source.selector) if source.selector else None,
        include_cluster_resources=source.cluster_scoped,
        storage_location=source.location,
        snapshot_volumes=source.volumes in {"snapshots", "move"},
        snapshot_move_data=True if source.volumes == "move" else None,
        default_volumes_to_fs_backup=source.volumes == "fileSystem",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copied:
    """What is copied: a backup of Velero's, of a source."""

    name: str
    source: str
    created: datetime


def _known_blobs(source: str, session: Session) -> dict[str, SharedBlob]:
    """Return the blobs of volumes that lie in every location that takes copies, by the newest sound one in each."""
    found: list[dict[str, SharedBlob]] = []
    for location in session.locations:
        if location.name in session.takes_no_more:
            continue
        sound = (each for each in session.catalogs[location.name].of_source(source) if each.sound)
        newest = next(sound, None)
        record = read_record(location.root, f"{newest.key}{RECORD}") if newest is not None else None
        # After a change of keys, whoever has only the new ones must be able to open all of a new copy.
        same = isinstance(record, VeleroRecord) and opened_by_same(
            record, location.of_source(source), session.encryption
        )
        found.append(shared_blobs(record) if isinstance(record, VeleroRecord) and same else {})
    first, *others = found or [{}]
    return {key: blob for key, blob in first.items() if all(each.get(key) == blob for each in others)}


def _copy_velero(
    copied: _Copied,
    wanted: VeleroSource,
    session: Session,
    replicas: ReplicatedStore,
    bucket: ObjectStore,
    known: Mapping[str, SharedBlob],
) -> VeleroRecord:
    """Copy a backup's folder as it stands in the bucket, so that a copy, once opened, is a bucket to Velero."""
    from clusterguard.velero.bucket import volumes_in
    from clusterguard.velero.layout import BackupLayout

    name = copied.name
    encrypted = EncryptedStore(replicas, session.encryption, plain=())
    objects: dict[str, tuple[str, int]] = {}
    plain: dict[str, str] = {}
    keys: Sequence[str] = [info.key for info in bucket.list(BackupLayout(name).folder)]
    for key in keys:
        plain[key] = copy_object(bucket, key, encrypted)
        stored = encrypted.stored(key)
        objects[stored.key] = (stored.sha256, stored.size)
    if not objects:
        raise BackupCorruptError(
            f"backup {name} is not in {bucket.url}", hint="`bucket` must be the prefix of Velero's storage location"
        )
    volumes: dict[str, int] = {}
    folders = {each.repository for each in volumes_in(bucket, name)} if wanted.data_in_bucket else set()
    for folder in sorted(folders):
        blobs = copy_blobs(bucket, folder, encrypted, known=known, run=session.suffix)
        objects |= blobs.objects
        plain |= blobs.plain
        volumes |= blobs.sizes
    record = VeleroRecord(
        name=name,
        source=copied.source,
        policy=session.policy.name,
        run=session.run,
        created=copied.created,
        encrypted=session.encryption.suffix.endswith(".age"),
        objects=objects,
        plain=plain,
        volumes=volumes,
        readers=session.encryption.readers if volumes else "",
    )
    # The record last: without it what was copied so far is no backup, but a leftover.
    with replicas.put(f"{name}{RECORD}") as writer:
        writer.write(record.to_json())
    return record
