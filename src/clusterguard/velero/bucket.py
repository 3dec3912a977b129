"""Is a backup whole, intact and complete? Decided from the bucket alone, without a cluster or a Velero server.

Velero says ``Completed`` when it has written its files. Whether they can be read back, agree with each other and
hold what was asked for is asked here, in one pass over each file. What Velero itself wrote down as failed, skipped
or doubtful is reported with the object's name.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from clusterguard.errors import BackupCorruptError, ConfigError, ObjectCorruptError, ObjectNotFoundError
from clusterguard.model.inventory import Inventory, ObjectRef, canonical
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.validate.capture import belongs_to, status_may_be_plain
from clusterguard.velero.bucket_checks import judge
from clusterguard.velero.bucket_evidence import READERS, Evidence, Unreadable, read_backup, repositories
from clusterguard.velero.bucket_report import STRICT, BackupVerifyReport, BucketPolicy, count_of, report_of
from clusterguard.velero.layout import BACKUPS, BackupFile, BackupLayout
from clusterguard.velero.manifest import HashingReader
from clusterguard.velero.outcome import parse_resource_list
from clusterguard.velero.stored_volumes import stored_volumes
from clusterguard.velero.tarball import DEFAULT_LIMITS, Inspection, Limits, inflated, read_document
from clusterguard.velero.volume_data import check_volume_data

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from clusterguard.model.inventory import Scope
    from clusterguard.stores.base import ByteReader, ObjectStore
    from clusterguard.velero.manifest import DigestManifest, ObjectDigest
    from clusterguard.velero.resources import Backup
    from clusterguard.velero.stored_volumes import StoredVolume
    from clusterguard.velero.volume_data import DataCheck

__all__ = [
    "as_inventory",
    "backups_in",
    "namespaces_in_backup",
    "objects_in",
    "objects_in_backup",
    "verify_backup",
    "volumes_in",
]

_T = TypeVar("_T")
_READERS = 8  # a bucket has hundreds of backups, each with a small document


def verify_backup(
    store: ObjectStore,
    name: str,
    *,
    now: datetime,
    policy: BucketPolicy = STRICT,
    inventory: Inventory | None = None,
    manifest: DigestManifest | None = None,
    volume_data: DataCheck | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: ProgressSink = ignore_progress,
) -> BackupVerifyReport:
    """Read a whole backup back from its bucket, and judge it.

    Nothing is unpacked to disk, and the memory needed does not grow with the size of the objects. The data of volumes
    is in repositories beside the backup, and is looked at where that is asked for.

    Args:
        store: Opened at the prefix of the storage location.
        name: Of the backup.
        now: In UTC; decides whether the backup has expired.
        policy: What counts against it.
        inventory: What must be in it, captured from the cluster when it was made.
        manifest: What its bytes were when it was made (see `clusterguard.velero.manifest`).
        volume_data: How the data of volumes is looked at; None for not at all.
        limits: When a file counts as a bomb.
        progress: Told the bytes read.

    Raises:
        ConfigError: The name is not valid.
        ObjectNotFoundError: There is no such backup.
        StoreError: The store cannot be read; whether the backup is intact is not known.
        ToolchainError, ProgramError: The data of volumes was asked for, and the kopia program cannot be had or run.
    """
    layout = BackupLayout(name)
    reading = _Reading(store, layout, limits=limits, hashing=manifest is not None, progress=progress)
    evidence = reading.evidence(with_uids=inventory is not None)
    volumes = stored_volumes(evidence.documents)
    found = check_volume_data(store, volumes, volume_data, progress=progress) if volume_data and volumes else None
    evidence = replace(evidence, stored_volumes=len(volumes), volume_data=found)
    answers = judge(evidence, now=now, policy=policy, inventory=inventory, manifest=manifest)
    return report_of(name, store.url, answers, objects=len(evidence.inspection))


def objects_in_backup(
    store: ObjectStore,
    name: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    with_managers: bool = False,
) -> Iterator[tuple[ObjectRef, bytes]]:
    """Yield each object of a backup once, as JSON with sorted keys and without ``managedFields``.

    This is the form that inventories keep objects in.

    Args:
        store: Opened at the prefix of the storage location.
        name: Of the backup.
        limits: When the tarball counts as a bomb.
        with_managers: Whether ``managedFields`` are kept.

    Raises:
        ConfigError: The name is not valid.
        ObjectNotFoundError: There is no such backup, or it has no tarball.
        BackupCorruptError: The tarball is not intact, which may be seen only after the last object.
        StoreError: The store cannot be read.
    """
    key = BackupLayout(name).key(BackupFile.CONTENTS)
    with _naming(store, key), store.get(key) as stream:
        yield from objects_in(stream, limits=limits, with_managers=with_managers)


def backups_in(store: ObjectStore, name: str = "", *, limits: Limits = DEFAULT_LIMITS) -> Sequence[Backup]:
    """Return the backups of a bucket as their own documents describe them, or only the one of a name.

    A folder without that document is of a backup that has not ended, and is passed over, as Velero does.

    Raises:
        ConfigError: The name is not valid.
        BackupCorruptError: A document is none, so which backup is the newest is not known.
        StoreError: The store cannot be read.
    """

    def read(key: str) -> Backup:
        with _naming(store, key), store.get(key) as stream:
            return read_backup(stream, limits)

    keys = [info.key for info in store.list(BackupLayout(name).folder if name else BACKUPS)]
    documents = [key for key in keys if key.removeprefix(BACKUPS).partition("/")[2] == BackupFile.METADATA]
    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="clusterguard-backups") as readers:
        return list(readers.map(read, documents))


def namespaces_in_backup(store: ObjectStore, name: str, *, limits: Limits = DEFAULT_LIMITS) -> Collection[str]:
    """Return the namespaces that a backup has anything of, by its resource list; raises as `objects_in_backup` does."""
    key = BackupLayout(name).key(BackupFile.RESOURCE_LIST)
    with _naming(store, key), store.get(key) as stream:
        refs = [item.ref for item in parse_resource_list(read_document(stream, limits=limits))]
    return {ref.name if ref.full_kind == "Namespace" else ref.namespace for ref in refs} - {""}


def volumes_in(store: ObjectStore, name: str, *, limits: Limits = DEFAULT_LIMITS) -> Sequence[StoredVolume]:
    """Return the volumes whose data is in repositories beside a backup; raises as `objects_in_backup` does."""
    documents = {}
    for file in (BackupFile.POD_VOLUME_BACKUPS, BackupFile.VOLUME_INFO):
        key = BackupLayout(name).key(file)
        with _naming(store, key), store.get(key) as stream:
            documents[file] = READERS[file](stream, limits)
    return stored_volumes(documents)


def objects_in(
    stream: ByteReader, *, limits: Limits = DEFAULT_LIMITS, with_managers: bool = False
) -> Iterator[tuple[ObjectRef, bytes]]:
    """Yield the objects of a backup's tarball as `objects_in_backup` does; raises `BackupCorruptError` likewise.

    Args:
        stream: The tarball.
        limits: When it counts as a bomb.
        with_managers: Whether ``managedFields`` are kept.
    """
    inspection = Inspection(limits=limits)
    for stored in inspection.objects(inflated(stream, limits=limits, most_bytes=limits.total_bytes)):
        yield ObjectRef.of(stored.item), canonical(stored.item, with_managers=with_managers)
    if inspection.defects:
        first, count = inspection.defects[0], count_of(len(inspection.defects), "defect")
        raise BackupCorruptError(
            f"{count}; the first: {first.subject}: {first.detail}",
            fields={"defect": "objects", "defects": len(inspection.defects), "first": str(first.subject)},
        )


def as_inventory(
    store: ObjectStore,
    name: str,
    scope: Scope,
    *,
    leave_out: Callable[[ObjectRef, Mapping[str, Any]], str | None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Inventory:
    """Return what a backup holds of a scope as an inventory, to be compared with one captured from a cluster.

    Args:
        store: Opened at the prefix of the storage location.
        name: Of the backup.
        scope: Which objects. Kinds are matched as written, ``Deployment`` or ``Deployment.apps``.
        leave_out: Returns the name of the rule that leaves an object out, or None; for what is system-owned, and
            for the selector of the scope. It sees the object with ``managedFields``, which tell whose it is.
        limits: When the tarball counts as a bomb.

    Raises:
        ConfigError: The scope has a selector, and there is no ``leave_out`` that could apply it.
        ObjectNotFoundError: There is no such backup, or it has no tarball.
        BackupCorruptError: The backup is not intact.
        StoreError: The store cannot be read.
    """
    if scope.selector and leave_out is None:
        raise ConfigError(
            f"the selector {scope.selector!r} cannot be applied to a backup by itself",
            hint="pass leave_out, which sees each object's labels",
        )
    key = BackupLayout(name).key(BackupFile.METADATA)
    with _naming(store, key), store.get(key) as stream:
        backup = read_backup(stream, limits)
        taken = backup.started
        if taken is None:
            raise BackupCorruptError("it does not say when the backup began", fields={"defect": "no-start"})
    objects: dict[ObjectRef, bytes] = {}
    left_out: Counter[str] = Counter()
    for ref, data in objects_in_backup(store, name, limits=limits, with_managers=True):
        if not belongs_to(ref, scope):
            continue
        item = orjson.loads(data)
        rule = leave_out(ref, item) if leave_out is not None else None
        if rule is None:
            objects[ref] = canonical(item, with_managers=status_may_be_plain(ref, item))
        else:
            left_out[rule] += 1
    return Inventory(
        taken=taken,
        server_version=backup.source_version,
        scope=scope,
        objects=objects,
        left_out=dict(sorted(left_out.items())),
    )


# ---- reading ---------------------------------------------------------------------------------------------


class _Reading:
    """Reads the files of one backup, each once."""

    def __init__(
        self, store: ObjectStore, layout: BackupLayout, *, limits: Limits, hashing: bool, progress: ProgressSink
    ) -> None:
        self._store = store
        self._layout = layout
        self._limits = limits
        self._hashing = hashing
        self._progress = progress
        self._sizes = {one.key: one.size for one in store.list(layout.folder)}
        if not self._sizes:
            raise ObjectNotFoundError(f"{store.url}: no backup {layout.name!r}", hint=_others(store))
        self._digests: dict[str, ObjectDigest] = {}
        self._done = 0

    def evidence(self, *, with_uids: bool) -> Evidence:
        """Read everything."""
        documents = {file: self._document(file, read) for file, read in READERS.items()}
        inspection, uids, problem = self._tarball(with_uids=with_uids)
        needed = repositories(documents)
        missing = [key for key in needed if not self._exists(key)]
        self._hash_unread_files()
        self._report_progress(finished=True)
        return Evidence(
            layout=self._layout,
            sizes=self._sizes,
            documents=documents,
            inspection=inspection,
            tarball_problem=problem,
            uids=uids,
            missing_repositories=missing,
            repositories=len(needed),
            digests=self._digests,
        )

    def _document(self, file: BackupFile, read: Callable[[ByteReader, Limits], _T]) -> _T | Unreadable:
        key = self._layout.key(file)
        if key not in self._sizes:
            return Unreadable("it is missing")
        try:
            with self._opened(key) as stream:
                return read(stream, self._limits)
        except (BackupCorruptError, ObjectCorruptError) as error:
            return Unreadable(error.message)
        except ObjectNotFoundError:
            return Unreadable("it was deleted while it was read")

    def _tarball(self, *, with_uids: bool) -> tuple[Inspection, dict[ObjectRef, str], str]:
        inspection = Inspection(limits=self._limits)
        uids: dict[ObjectRef, str] = {}

        def read(stream: ByteReader, limits: Limits) -> str:
            pieces = inflated(stream, limits=limits, most_bytes=limits.total_bytes)
            for stored in inspection.objects(pieces):
                if with_uids:
                    uids[ObjectRef.of(stored.item)] = str(stored.item["metadata"].get("uid", ""))
            return ""

        outcome = self._document(BackupFile.CONTENTS, read)
        return inspection, uids, outcome.reason if isinstance(outcome, Unreadable) else ""

    def _exists(self, key: str) -> bool:
        try:
            self._store.stat(key)
        except ObjectNotFoundError:
            return False
        return True

    def _hash_unread_files(self) -> None:
        for key in self._sizes.keys() - self._digests.keys() if self._hashing else ():
            try:
                with self._opened(key):
                    pass
            except ObjectNotFoundError:
                continue  # it was deleted since it was listed, which the comparison finds

    @contextmanager
    def _opened(self, key: str) -> Iterator[ByteReader]:
        with self._store.get(key) as stream:
            metered = _Metered(stream, self._count)
            if not self._hashing:
                yield metered
                return
            hashing = HashingReader(metered)
            try:
                yield hashing
            except BackupCorruptError:
                self._digests[key] = hashing.finish()  # what was not worth reading still has a digest
                raise
            self._digests[key] = hashing.finish()

    def _count(self, size: int) -> None:
        self._done += size
        self._report_progress()

    def _report_progress(self, *, finished: bool = False) -> None:
        task, total = f"verifying {self._layout.name}", sum(self._sizes.values())
        self._progress(Progress(task=task, done=self._done, total=total, unit="bytes", finished=finished))


class _Metered:
    """Passes a stream on and counts its bytes."""

    __slots__ = ("_on_read", "_stream")

    def __init__(self, stream: ByteReader, on_read: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_read = on_read

    def read(self, size: int = 1 << 20, /) -> bytes:
        data = self._stream.read(size)
        self._on_read(len(data))
        return data


@contextmanager
def _naming(store: ObjectStore, key: str) -> Iterator[None]:
    """Name the file in errors about its bytes."""
    try:
        yield
    except BackupCorruptError as error:
        hint = error.hint or "verify the backup to see everything that is wrong with it"
        fields = {"key": key} | error.fields
        raise BackupCorruptError(f"{store.url}: {key}: {error.message}", fields=fields, hint=hint) from error


def _others(store: ObjectStore) -> str:
    names = sorted({one.key.removeprefix(BACKUPS).partition("/")[0] for one in store.list(BACKUPS)})
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")  # noqa: PLR2004 - what fits into a line or two
    return f"there are {shown}" if names else "no backup at all: is the store opened at the location's prefix?"
