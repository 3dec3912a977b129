"""What drills and people want of a policy's backups: find one, open it, put it somewhere else in plain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.drills.stored import StoredSnapshot
from clusterguard.errors import (
    ClusterGuardError,
    ConfigError,
    ObjectNotFoundError,
    SnapshotCorruptError,
    WrongKeyError,
)
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.copies.locations import (
    RECORD,
    StorageLocation,
    VeleroRecord,
    open_locations,
    read_catalogs,
    read_record,
)
from clusterguard.policies.copies.volumes import OpenedCopy, view_key
from clusterguard.stores.encryption import EncryptedStore
from clusterguard.stores.transfer import copy_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from clusterguard.policies.copies.catalog import BackupEntry
    from clusterguard.policies.policy import Policy
    from clusterguard.stores.base import ObjectStore
    from clusterguard.stores.encryption import Encryption

__all__ = ["PolicyBackups", "fetch", "find_copy", "opened_copy", "opened_velero"]


class PolicyBackups:
    """Finds the backups of policies for drills; see `clusterguard.drills.stored.StoredBackups`.

    - ``policy``: one that was read already, which is taken for every file.
    """

    def __init__(self, *, environ: Mapping[str, str], policy: Policy | None = None) -> None:
        self._environ = environ
        self._policy = policy

    def __call__(self, policy: Path, source: str, *, backup: str = "", location: str = "") -> StoredSnapshot:
        """Return a backup of a policy's source; see `clusterguard.drills.stored.StoredBackups`."""
        from clusterguard.policies.files.load import load_policy

        read = self._policy or load_policy(policy, environ=self._environ)
        if source in {each.name for each in read.sources} and read.source(source).etcd is None:
            raise ConfigError(
                f"source {source!r} of policy {read.name} is Velero's, and a storedBackup takes a policy's snapshots",
                hint="prove it where it is, by storedBackup: {velero: …}; or policy fetch puts a copy into a bucket",
            )
        found, entry = find_copy(read, source, backup=backup, location=location)
        encryption = encryption_of(read, self._environ)
        _require_key(entry, encryption)
        store = EncryptedStore(found.of_source(source), encryption)
        return StoredSnapshot(record=EtcdSnapshotter(store=store).find(entry.name), store=store, location=found.name)


def opened_copy(policy: Policy, source: str, *, environ: Mapping[str, str]) -> tuple[BackupEntry, ObjectStore]:
    """Find the newest copy of a backup, as `find_copy` does, and a store that decrypts it.

    Raises:
        WrongKeyError: The key to open it is missing.
    """
    found, entry = find_copy(policy, source)
    encryption = encryption_of(policy, environ)
    _require_key(entry, encryption)
    folder = found.of_source(source)
    if entry.kind == "etcd":
        return entry, EncryptedStore(folder, encryption, plain=(RECORD,))
    return entry, opened_velero(folder, entry, encryption)


def opened_velero(folder: ObjectStore, entry: BackupEntry, encryption: Encryption) -> ObjectStore:
    """Return a copy of a Velero backup as the bucket that it was.

    - ``folder``: of its source in a location.

    Raises:
        ObjectNotFoundError: Its record is gone.
        SnapshotCorruptError: Its record cannot be read.
        ConfigError: A later release wrote its record.
    """
    record = read_record(folder, f"{entry.name}{RECORD}")
    if not isinstance(record, VeleroRecord):
        raise SnapshotCorruptError(f"{entry.name}: its record is that of a snapshot", hint="it was changed or damaged")
    return OpenedCopy(EncryptedStore(folder, encryption, plain=()), record)


def find_copy(
    policy: Policy, source: str, *, backup: str = "", location: str = ""
) -> tuple[StorageLocation, BackupEntry]:
    """Find a copy of a backup: the newest one that is not known to be damaged, unless one is named.

    - ``backup``: the backup's name; empty for the newest.
    - ``location``: the location's name; empty for the first that has it.

    Raises:
        ConfigError: There is no such source or location.
        ObjectNotFoundError: There is no such backup.
        StoreError: No location that can be read has it, and one cannot be read.
    """
    if source not in {each.name for each in policy.sources}:
        names = ", ".join(each.name for each in policy.sources)
        raise ConfigError(f"policy {policy.name} has no source {source!r}", hint=f"it has {names}")
    locations = [each for each in open_locations(policy) if location in ("", each.name)]
    if not locations:
        names = ", ".join(each.name for each in policy.locations)
        raise ConfigError(f"policy {policy.name} has no location {location!r}", hint=f"it has {names}")
    copies = list(_copies(locations, source, backup))
    if not copies:
        what = f"backup {backup!r}" if backup else "usable backup"
        raise ObjectNotFoundError(
            f"no {what} of source {source} in any location of policy {policy.name} that answers",
            hint=f"clusterguard status {policy.path or 'POLICY'} shows what there is",
        )
    # Of backups the newest; of its copies one that was read back, if there is any, and of those the first location's.
    return max(copies, key=lambda copy: (copy[1].created, copy[1].sound, -locations.index(copy[0])))


def fetch(
    policy: Policy, source: str, target: ObjectStore, *, encryption: Encryption, backup: str = "", location: str = ""
) -> str:
    """Put a backup into another store, opened: an etcd snapshot as a file, a Velero backup as its bucket had it.

    Returns:
        The backup's name.

    Raises:
        ObjectNotFoundError: There is no such backup.
        WrongKeyError: The key to open it is not to hand, or is another one.
        StoreError: It cannot be read or written.
    """
    found, entry = find_copy(policy, source, backup=backup, location=location)
    _require_key(entry, encryption)
    folder = found.of_source(source)
    record = read_record(folder, f"{entry.name}{RECORD}")
    if isinstance(record, VeleroRecord):
        opened = EncryptedStore(folder, encryption, plain=())
        for key, sha256 in record.plain.items():
            _copy(opened, key, target, sha256, target_key=view_key(key))
        return entry.name
    _copy(EncryptedStore(folder, encryption), record.key, target, record.sha256)
    copy_object(folder, f"{entry.name}{RECORD}", target)
    return entry.name


def _copies(
    locations: list[StorageLocation], source: str, backup: str
) -> Iterator[tuple[StorageLocation, BackupEntry]]:
    failure: ClusterGuardError | None = None
    nothing = True
    found = read_catalogs(locations)
    for location in locations:
        catalog = found[location.name]
        if isinstance(catalog, ClusterGuardError):
            failure = failure or catalog
            continue
        for entry in catalog.of_source(source):
            if entry.name == backup or (not backup and not entry.problem):
                nothing = False
                yield location, entry
    # Where one could not be asked, nobody knows that there is none.
    if nothing and failure is not None:
        raise failure


def _require_key(entry: BackupEntry, encryption: Encryption) -> None:
    if entry.encrypted and not encryption.can_decrypt:
        raise WrongKeyError(
            f"{entry.name} is encrypted: no key given",
            hint="give encryption.identityFile (or identityEnv) in the policy on the machine that restores",
        )


def _copy(source: ObjectStore, key: str, target: ObjectStore, sha256: str, *, target_key: str = "") -> None:
    found = copy_object(source, key, target, target_key=target_key or key)
    if found != sha256:
        target.delete(target_key or key)
        raise SnapshotCorruptError(
            f"{key} opens to other bytes than were backed up (sha256 {found[:16]}…, recorded {sha256[:16]}…)",
            hint="fetch it from another location: --location",
        )
