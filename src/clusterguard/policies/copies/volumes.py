"""The data of volumes in copies of Velero backups: blobs that many backups share, and a look at those of one.

A repository goes on after a backup: new blobs come, its index is rewritten, what no backup needs any more is removed.
So the record of a copy names every blob that was there with it, and each of them lies in a location once, under the
name that the repository gave it and the run that brought it: ``kopia/shop/p1234…~5e6f7a``. Opened through its record, a
copy is the repository as it was that night, whatever was copied into that folder before or since.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from clusterguard.errors import ObjectNotFoundError, StoreError, WrongKeyError
from clusterguard.stores.encryption import EncryptedStore
from clusterguard.stores.transfer import copy_object

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from contextlib import AbstractContextManager

    from clusterguard.policies.copies.locations import VeleroRecord
    from clusterguard.stores.base import ByteReader, ObjectInfo, ObjectStore, ObjectWriter
    from clusterguard.stores.encryption import Encryption

__all__ = [
    "SHARED",
    "OpenedCopy",
    "SharedBlob",
    "blobs_in",
    "copy_blobs",
    "is_shared",
    "opened_by_same",
    "shared_blobs",
    "unnamed",
    "view_key",
]

SHARED: Final = "kopia/"
"""What the keys of blobs start with that backups share."""

_INDEXES: Final = ("x", "n")
# Named by their content or by chance, and never written again. The others are the repository's settings.
_IMMUTABLE: Final = re.compile(r"[pqxn][0-9a-z_-]{8,}")
_LEFT_OUT: Final = ("_log", "s")  # logs, and marks of uploads at work


class SharedBlob(NamedTuple):
    """A blob that lies in a location already.

    Attributes:
        key: Under which it is stored there.
        stored: SHA-256 and size of the stored bytes.
        digest: SHA-256 of the bytes in Velero's bucket.
        size: How many those are.
    """

    key: str
    stored: tuple[str, int]
    digest: str
    size: int


def is_shared(key: str) -> bool:
    """Return whether other backups may need an object, too."""
    return key.startswith(SHARED)


def view_key(key: str) -> str:
    """Return the key in Velero's bucket of what lies under another one in a location."""
    return key.rpartition("~")[0] if is_shared(key) else key


def shared_blobs(record: VeleroRecord) -> dict[str, SharedBlob]:
    """Return the blobs that a copy names and that a later one may name as well, by their key in Velero's bucket."""
    stored = {_without_suffix(key): (key, value) for key, value in record.objects.items() if is_shared(key)}
    found = {}
    for key, size in record.volumes.items():
        view = view_key(key)
        if _IMMUTABLE.fullmatch(view.rpartition("/")[2]) and key in stored:
            stored_key, value = stored[key]
            found[view] = SharedBlob(stored_key, value, record.plain[key], size)
    return found


def opened_by_same(record: VeleroRecord, folder: ObjectStore, encryption: Encryption) -> bool:
    """Return whether who opens what an encryption writes opens the blobs of a copy, too.

    Args:
        record: Of the copy.
        folder: Of its source in a location: what a passphrase opens is known only to who tries.
        encryption: What new copies are written with.
    """
    if not record.volumes or record.readers != encryption.readers:
        return False
    if encryption.passphrase is not None:
        try:
            with EncryptedStore(folder, encryption, plain=()).get(min(record.volumes)) as reader:
                reader.read(1)
        except WrongKeyError:
            return False
    return True


def blobs_in(bucket: ObjectStore, folder: str) -> list[ObjectInfo]:
    """Return what belongs to a repository as it is now, while others may write to it.

    Its index is listed before its data: what an index names was written before it, so it is in the later listing.
    """
    start = len(folder)
    indexes = {info.key for kind in _INDEXES for info in bucket.list(folder + kind)}
    return [
        info
        for info in bucket.list(folder)
        if not info.key[start:].startswith(_LEFT_OUT)
        and (info.key in indexes or not info.key[start:].startswith(_INDEXES))
    ]


def copy_blobs(
    bucket: ObjectStore,
    folder: str,
    target: EncryptedStore,
    *,
    known: Mapping[str, SharedBlob],
    run: str,
) -> CopiedBlobs:
    """Copy what a location lacks of a repository, and return what a record says of all of it.

    Args:
        bucket: Velero's.
        folder: The repository's.
        target: Every location.
        known: What lies in every location already.
        run: What new keys end in: nothing that lies there is ever written over, since other records name its digest.
    """
    objects: dict[str, tuple[str, int]] = {}
    plain: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for info in blobs_in(bucket, folder):
        blob = known.get(info.key)
        if blob is not None and blob.size == info.size:
            stored_key, stored, digest, size = blob
            key = _without_suffix(stored_key)
        else:
            key = f"{info.key}~{run}"
            digest, size = copy_object(bucket, info.key, target, target_key=key), info.size
            written = target.stored(key)
            stored_key, stored = written.key, (written.sha256, written.size)
        objects[stored_key], plain[key], sizes[key] = stored, digest, size
    return CopiedBlobs(objects, plain, sizes)


def _without_suffix(stored: str) -> str:
    """Return the key of a shared blob without what tells how it is compressed and encrypted."""
    return stored.removesuffix(".age").removesuffix(".zst")


class CopiedBlobs(NamedTuple):
    """What a record says of the blobs of a repository: its fields ``objects``, ``plain`` and ``volumes`` of them."""

    objects: dict[str, tuple[str, int]]
    plain: dict[str, str]
    sizes: dict[str, int]


class OpenedCopy:
    """A copy of a Velero backup as the bucket that it was, decrypted and only to be read.

    Args:
        inner: What decrypts the folder of its source in a location.
        record: Of the copy.
    """

    def __init__(self, inner: EncryptedStore, record: VeleroRecord) -> None:
        self._inner = inner
        self._sizes = record.volumes
        self._keys = {view_key(key): key for key in record.plain}

    @property
    def url(self) -> str:
        """Where the copy is."""
        return self._inner.url

    def get(self, key: str) -> AbstractContextManager[ByteReader]:
        """Open an object for reading; see `ObjectStore.get`."""
        return self._inner.get(self._key(key))

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object; see `ObjectStore.stat`."""
        inner = self._key(key)
        return self._seen(key, self._inner.stat(inner), inner)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in ascending order of their keys."""
        wanted = {inner: key for key, inner in self._keys.items() if key.startswith(prefix)}
        # The names that others gave begin like those of this copy.
        found = [
            self._seen(wanted[info.key], info, info.key) for info in self._inner.list(prefix) if info.key in wanted
        ]
        yield from sorted(found, key=lambda info: info.key)

    def put(
        self, key: str, *, overwrite: bool = False, if_version: str | None = None
    ) -> AbstractContextManager[ObjectWriter]:
        """Refuse."""
        del overwrite, if_version
        self._refuse(key)

    def delete(self, key: str) -> None:
        """Refuse."""
        self._refuse(key)

    def _key(self, key: str) -> str:
        try:
            return self._keys[key]
        except KeyError:
            raise ObjectNotFoundError(f"{self.url}: {key}: it is not in this copy", fields={"key": key}) from None

    def _seen(self, key: str, info: ObjectInfo, inner: str) -> ObjectInfo:
        size = self._sizes.get(inner)
        return replace(info, key=key) if size is None else replace(info, key=key, size=size, encoded=False)

    def _refuse(self, key: str) -> NoReturn:
        raise StoreError(f"{self.url}: {key}: a copy is only read", hint="`policy fetch` puts it into a bucket")


def unnamed(stored: Collection[str], records: Collection[VeleroRecord]) -> list[str]:
    """Return those of the shared blobs in a location that no record there names."""
    named = {key for record in records for key in record.objects}
    return sorted(key for key in stored if is_shared(key) and key not in named)
