"""Rotation: a copy is re-encrypted for other keys, and the old one is removed only once the new one is proven."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ClusterGuardError, ObjectCorruptError, SnapshotCorruptError, StoreError
from clusterguard.model.snapshot import Snapshot
from clusterguard.policies.copies.naming import backup_of_key
from clusterguard.stores.base import CHUNK_BYTES
from clusterguard.stores.encryption import EncryptedStore
from clusterguard.stores.prefixed import PrefixedStore
from clusterguard.stores.transfer import digest_object, read_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterguard.stores.base import ByteReader, ObjectStore, ObjectWriter
    from clusterguard.stores.encryption import Encryption, StoredObject

__all__ = ["reencrypt_copy"]

_LARGEST_RECORD: Final = 64 * 1024


def reencrypt_copy(
    root: ObjectStore,
    source: str,
    name: str,
    *,
    old: Encryption,
    new: Encryption,
    confirm: Callable[[], object] = lambda: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> StoredObject:
    """Re-encrypt one copy of an etcd snapshot, as a stream, and return what lies there now.

    The new object has a key of its own, and is read back before the record names it; only then is the old one
    removed. Killed at any moment, this leaves a record that names a whole object, and it may be run again: then what
    an earlier run left over is removed too. Nothing else may write this backup at the same time.

    - ``new``: what shall open it; where it holds no private key, the new bytes are read back but not opened.
    - ``confirm``: called before the record is replaced and before anything is removed; where it raises, neither is.

    Raises:
        ObjectNotFoundError: There is no such backup.
        SnapshotCorruptError: Its record cannot be read.
        WrongKeyError: The old key does not decrypt it.
        ObjectCorruptError: The old bytes are not those of the record, or the new ones came back otherwise.
        StoreError: An object lock holds the old object, or the location cannot do what was asked; the record tells
            which of the two objects counts.
    """
    folder = PrefixedStore(root, source)
    record = _record(folder, name)
    before, after = EncryptedStore(folder, old), EncryptedStore(folder, new)
    _refuse_locked(before, record.key, now())
    key = f"{name}~{secrets.token_hex(4)}.db"
    with before.get(record.key) as reader, after.put(key) as writer:
        _pour(reader, writer, record)
    made = after.stored(key)
    try:
        _require_readable(after, key, made, record)
        confirm()
    except BaseException:
        with suppress(ClusterGuardError):  # its name is this run's alone; a later run finds what is left
            after.delete(key)
        raise
    with folder.put(f"{name}.json", overwrite=True) as writer:
        writer.write(_renamed(record, key, made, new).to_json().encode())
    for leftover in [info.key for info in folder.list(name)]:
        if leftover != made.key and backup_of_key(source, leftover) == name:
            confirm()
            folder.delete(leftover)
    return made


def _record(folder: ObjectStore, name: str) -> Snapshot:
    try:
        return Snapshot.from_json(read_object(folder, f"{name}.json", most_bytes=_LARGEST_RECORD))
    except ObjectCorruptError as error:
        raise SnapshotCorruptError(
            f"{name}.json is larger than any record of a snapshot", hint="clusterguard did not write it; leave it"
        ) from error


def _refuse_locked(store: EncryptedStore, key: str, now: datetime) -> None:
    """Refuse before anything is written: what cannot be removed stays readable by the old key anyway."""
    ask: Callable[[str], datetime | None] | None = getattr(store, "locked_until", None)
    until = ask(key) if ask is not None else None
    if until is not None and until > now:
        raise StoreError(
            f"{store.url}: {key}: an object lock holds it until {until.isoformat()}",
            code="object-locked",
            fields={"key": key, "until": until},
            hint="re-encrypt it once the lock has ended; whoever has the old key can read it until then",
        )


def _pour(reader: ByteReader, writer: ObjectWriter, record: Snapshot) -> None:
    digest = hashlib.sha256()
    while piece := reader.read(CHUNK_BYTES):
        digest.update(piece)
        writer.write(piece)
    if digest.hexdigest() != record.sha256:
        raise ObjectCorruptError(
            f"{record.key}: the bytes that were opened are not those of the record",
            hint="this copy is damaged: make another one from a location that has it whole",
        )


def _require_readable(store: EncryptedStore, key: str, made: StoredObject, record: Snapshot) -> None:
    """Read the new object as deep as the keys at hand let us: what is in it, or else its bytes as they lie there."""
    if store.encryption.can_decrypt:
        same = digest_object(store, key)[0] == record.sha256
    else:
        same = digest_object(store.inner, made.key)[0] == made.sha256
    if not same:
        raise ObjectCorruptError(
            f"{made.key}: other bytes came back than were stored", hint="check what stores it, and run this again"
        )


def _renamed(record: Snapshot, key: str, made: StoredObject, encryption: Encryption) -> Snapshot:
    stored = {
        "sealed": encryption.encrypts,
        "stored_key": made.key,
        "stored_sha256": made.sha256,
        "stored_size": made.size,
    }
    return replace(record, key=key, extra=MappingProxyType({**record.extra, **stored}))
