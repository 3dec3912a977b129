"""The locations of a policy: what lies in each, found by one listing and one read.

A policy's root in a location is a folder of the policy's name. In it, each source has a folder of its backups, and
``.clusterguard`` holds the catalog, the lock and the audit trail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping  # noqa: TC003 - pydantic evaluates annotations
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Final

import orjson
from pydantic import AwareDatetime, Field, TypeAdapter

from clusterguard.documents.stored import StoredFormat
from clusterguard.errors import (
    ClusterGuardError,
    ConfigError,
    ObjectCorruptError,
    ObjectNotFoundError,
    SnapshotCorruptError,
    StoreError,
)
from clusterguard.model.snapshot import Snapshot
from clusterguard.policies.copies.catalog import BackupEntry, Catalog, Leftover, entry_key
from clusterguard.policies.copies.naming import backup_of_key
from clusterguard.stores.prefixed import PrefixedStore
from clusterguard.stores.transfer import read_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from clusterguard.policies.policy import Location, Policy
    from clusterguard.stores.base import ObjectInfo, ObjectStore

__all__ = [
    "OWN_FOLDER",
    "RECORD",
    "StorageLocation",
    "VeleroRecord",
    "is_record",
    "objects_of",
    "open_locations",
    "read_catalogs",
    "read_record",
]

OWN_FOLDER: Final = ".clusterguard"
RECORD: Final = ".json"
_CATALOG: Final = f"{OWN_FOLDER}/catalog.json"
_LARGEST_CATALOG: Final = 1 << 30
_LARGEST_RECORD: Final = 256 << 20  # 300 bytes for each blob of its volumes, and a blob is about 20 MB
_READERS: Final = 8
_ASKED: Final = 10  # of what a listing lacks: one that lacks more by mistake lacks some of the newest
_NOTED: Final = 3  # more of the same is counted, not listed


@dataclass(frozen=True, slots=True, kw_only=True)
class VeleroRecord:
    """The record beside the copy of a Velero backup."""

    name: str  # of the backup, as Velero knows it
    source: str
    policy: str
    run: str
    created: AwareDatetime
    encrypted: Annotated[bool, Field(alias="sealed")]  # as records call it since the first release
    objects: Mapping[str, tuple[str, int]]  # path below the backup's folder: SHA-256 of the stored bytes, size
    plain: Mapping[str, str]  # the same paths: SHA-256 of the bytes in Velero's own bucket
    # Those of them that hold the data of volumes: bytes in Velero's own bucket. Other records may name them, too.
    volumes: Mapping[str, int] = field(default_factory=dict)
    readers: str = ""  # who opens it, see `Encryption.readers`: later copies share blobs only among the same

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        without = frozenset() if self.volumes else _OF_VOLUMES
        return _format_of(with_volumes=bool(self.volumes)).dump(self, without=without, kind="VeleroBackup")

    @classmethod
    def from_json(cls, text: bytes) -> VeleroRecord:
        """Read one.

        Raises:
            SnapshotCorruptError: It is damaged, or not one.
            ConfigError: A later release wrote it.
        """
        try:
            return cls.of(orjson.loads(text))
        except orjson.JSONDecodeError as error:
            raise SnapshotCorruptError(
                f"the record of a Velero backup's copy cannot be read: {error}", hint="it was changed or damaged"
            ) from error

    @classmethod
    def of(cls, document: Mapping[str, object]) -> VeleroRecord:
        """Read one that was parsed; see `from_json`."""
        plain = isinstance(document, dict) and document.get("format") == 1
        return _format_of(with_volumes=not plain).load(document)


_OF_VOLUMES: Final = frozenset({"volumes", "readers"})


@cache
def _format_of(*, with_volumes: bool) -> StoredFormat[VeleroRecord]:
    # Releases that know no shared blobs would remove them with the first backup that names them, so they must refuse.
    return StoredFormat(
        adapter=TypeAdapter(VeleroRecord),
        number=2 if with_volumes else 1,
        noun="the record of a Velero backup's copy",
        damaged=SnapshotCorruptError,
        hint="it was changed or damaged",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLocation:
    """One location of a policy."""

    policy: str  # the policy's name
    location: Location
    root: ObjectStore  # the policy's folder in it

    @property
    def name(self) -> str:
        """What the policy calls it."""
        return self.location.name

    def of_source(self, source: str) -> ObjectStore:
        """Return the folder of one source."""
        return PrefixedStore(self.root, source)

    def catalog(self) -> Catalog:
        """Return what is known of the location, mended by what lies there now.

        Backups whose record the catalog lacks are read; entries whose objects are gone are left out, with a note.

        Raises:
            StoreError: The location cannot be read.
            ConfigError: A later release wrote the catalog.
        """
        stored = self._stored()
        listed = {info.key: info for info in self.root.list()}
        records = {
            entry_key(source, name): info
            for key, info in listed.items()
            if (source := _source_of(key)) and (name := _name_of(key))
        }
        known = {key: entry for key, entry in stored.entries.items() if key in records}
        vanished = [key for key in stored.entries if key not in records]
        self._require_gone(vanished)
        unknown = [key for key in records if key not in known]
        with ThreadPoolExecutor(max_workers=_READERS) as readers:
            found = list(readers.map(self._entry, unknown))
        entries = known | {each.key: each for each in found if isinstance(each, BackupEntry)}
        notes = (
            *stored.notes,
            *_noted("gone, and not removed by any run", vanished),
            *(each for each in found if isinstance(each, str)),
        )
        return replace(stored, entries=entries, notes=notes, leftovers=tuple(self._leftovers(listed, records)))

    def _require_gone(self, vanished: Sequence[str]) -> None:
        """Refuse a listing that lacks what is there: what else it lacks would be taken for gone."""
        for key in sorted(vanished, reverse=True)[:_ASKED]:
            with suppress(ObjectNotFoundError):
                self.root.stat(f"{key}{RECORD}")
                raise StoreError(
                    f"{self.root.url}: {key}{RECORD} is there, and the listing lacks it",
                    hint="this server's listings cannot be relied on; do not keep backups in it",
                    code="listing-incomplete",
                    fields={"key": f"{key}{RECORD}"},
                )

    def save_catalog(self, catalog: Catalog, *, now: datetime) -> None:
        """Write the catalog, in the place of the one before."""
        with self.root.put(_CATALOG, overwrite=True) as writer:
            writer.write(replace(catalog, updated=now).to_json())

    def _stored(self) -> Catalog:
        empty = Catalog(policy=self.policy, location=self.name)
        try:
            text = read_object(self.root, _CATALOG, most_bytes=_LARGEST_CATALOG)
        except ObjectNotFoundError:
            return empty
        try:
            catalog = Catalog.from_json(text)
        except ObjectCorruptError as error:
            # Every entry is read again from its record. Which copies were verified is lost with the catalog, and
            # that errs on the right side.
            return replace(empty, notes=(f"the catalog was damaged and is rebuilt: {error.message}",))
        return replace(catalog, location=self.name)

    def _leftovers(self, listed: Mapping[str, ObjectInfo], records: Mapping[str, ObjectInfo]) -> Iterator[Leftover]:
        """Yield what lies there under names that runs give, and no record names."""
        found: dict[tuple[str, str], dict[str, ObjectInfo]] = defaultdict(dict)
        for key, info in listed.items():
            source, _, path = key.partition("/")
            if (name := backup_of_key(source, path)) is not None:
                found[source, name][path] = info
        for (source, name), objects in found.items():
            if entry_key(source, name) in records:
                objects = self._unnamed(source, name, objects)  # noqa: PLW2901 - those that count are none
            if objects:
                yield Leftover(
                    source=source,
                    name=name,
                    keys=tuple(objects),
                    size=sum(info.size for info in objects.values()),
                    modified=max(info.modified for info in objects.values()),
                )

    def _unnamed(self, source: str, name: str, objects: Mapping[str, ObjectInfo]) -> dict[str, ObjectInfo]:
        """Return those objects of a backup that its record does not name: what re-encrypting it left, say."""
        # One object of a snapshot is the one of its record; where it is not, a verification tells.
        if len(objects) == 1 or any("/" in path for path in objects):
            return {}
        try:
            named = objects_of(read_record(self.root, f"{entry_key(source, name)}{RECORD}"))
        except ClusterGuardError:
            return {}  # nobody can say which of them counts
        whole = named.keys() <= objects.keys()
        return {path: info for path, info in objects.items() if path not in named} if whole else {}

    def _entry(self, key: str) -> BackupEntry | str:
        """Return the entry of a backup that the catalog does not know, or what is wrong with its record."""
        try:
            text = _record_text(self.root, f"{key}{RECORD}")
        except (SnapshotCorruptError, ObjectNotFoundError) as error:
            return f"{key}: {error.message}"
        try:
            record = _record(text)
        except (SnapshotCorruptError, ConfigError) as error:  # one of a later release hides no other backup
            return f"{key}: {error.message}"
        if isinstance(record, VeleroRecord):
            return velero_entry(record)
        return etcd_entry(record, key.partition("/")[0])


def etcd_entry(record: Snapshot, source: str) -> BackupEntry:
    """Return what a catalog says of an etcd snapshot that is not verified yet."""
    extra = record.extra
    return BackupEntry(
        source=source,
        name=record.name,
        created=record.taken,
        size=int(extra.get("stored_size", record.size)),
        sha256=str(extra.get("stored_sha256", record.sha256)),
        kind="etcd",
        encrypted=bool(extra.get("sealed", False)),
        revision=record.revision,
        run=str(extra.get("run", "")),
    )


def velero_entry(record: VeleroRecord) -> BackupEntry:
    """Return what a catalog says of a Velero backup's copy that is not verified yet."""
    return BackupEntry(
        source=record.source,
        name=record.name,
        created=record.created,
        size=sum(size for _, size in record.objects.values()),
        sha256="",
        kind="velero",
        encrypted=record.encrypted,
        run=record.run,
    )


def objects_of(record: Snapshot | VeleroRecord) -> dict[str, tuple[str, int]]:
    """Return the stored objects that a record names by their key below its source's folder: SHA-256 and size."""
    if isinstance(record, VeleroRecord):
        return dict(record.objects)
    key = str(record.extra.get("stored_key", record.key))
    sha256 = str(record.extra.get("stored_sha256", record.sha256))
    return {key: (sha256, int(record.extra.get("stored_size", record.size)))}


def read_record(root: ObjectStore, key: str) -> Snapshot | VeleroRecord:
    """Read the record of a backup.

    Raises:
        ObjectNotFoundError: There is none.
        SnapshotCorruptError: It is damaged, or not a record.
        ConfigError: A later release wrote it.
    """
    return _record(_record_text(root, key))


def _record_text(root: ObjectStore, key: str) -> bytes:
    try:
        return read_object(root, key, most_bytes=_LARGEST_RECORD)
    except ObjectCorruptError as error:
        raise SnapshotCorruptError(error.message, fields=error.fields, hint=error.hint) from error


def _record(text: bytes) -> Snapshot | VeleroRecord:
    with suppress(orjson.JSONDecodeError):
        document = orjson.loads(text)
        if isinstance(document, dict) and document.get("kind") == "VeleroBackup":
            return VeleroRecord.of(document)
    return Snapshot.from_json(text)


def open_locations(policy: Policy) -> tuple[StorageLocation, ...]:
    """Return the locations of a policy; nothing is connected to yet.

    Raises:
        ConfigError: A location is not a store.
    """
    from clusterguard.stores import open_store

    return tuple(
        StorageLocation(policy=policy.name, location=each, root=PrefixedStore(open_store(each.url), policy.name))
        for each in policy.locations
    )


def read_catalogs(locations: Sequence[StorageLocation]) -> dict[str, Catalog | ClusterGuardError]:
    """Return the catalog of each location, or why it cannot be had; all of them are asked at once."""

    def read(location: StorageLocation) -> Catalog | ClusterGuardError:
        try:
            return location.catalog()
        except ClusterGuardError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(locations))) as readers:
        return dict(zip((location.name for location in locations), readers.map(read, locations), strict=True))


def is_record(key: str) -> bool:
    """Return whether a key below a source's folder is that of a record: records lie directly in it."""
    return key.endswith(RECORD) and "/" not in key


def _source_of(key: str) -> str:
    source, slash, _ = key.partition("/")
    return source if slash and source != OWN_FOLDER else ""


def _name_of(key: str) -> str:
    """Return the backup whose record a key is, or nothing."""
    rest = key.partition("/")[2]
    return rest.removesuffix(RECORD) if is_record(rest) else ""


def _noted(what: str, keys: Iterable[str]) -> tuple[str, ...]:
    keys = sorted(keys)
    shown = tuple(f"{key}: {what}" for key in keys[:_NOTED])
    return (*shown, f"{len(keys) - _NOTED} more: {what}") if len(keys) > _NOTED else shown
