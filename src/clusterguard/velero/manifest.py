"""Digest manifests: what the bytes of a backup were when it was made, recorded where Velero does not write.

Velero stores no checksum and no signature of a backup, so anyone who can write to the bucket can change what will
be restored, and a rotten bit goes unnoticed. A manifest records size and SHA-256 of every object of a
backup; compared later, it finds what was changed, lost or added. It must be stored outside Velero's own
prefix: Velero calls a location with folders it does not know unavailable, and anyone who can change the backup could
change the manifest, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, Field, PlainSerializer, TypeAdapter

from clusterguard.errors import ConfigError, ObjectNotFoundError, StoreError
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.stores.base import CHUNK_BYTES
from clusterguard.stores.transfer import read_object
from clusterguard.velero.layout import BackupLayout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.stores.base import ByteReader, ObjectStore

__all__ = [
    "DigestManifest",
    "HashingReader",
    "ObjectDigest",
    "load_manifest",
    "manifest_key",
    "record_manifest",
]

_FORMAT: Final = 1
_KIND: Final = "clusterguard-backup-manifest"
_LARGEST: Final = 16 << 20  # a backup has a dozen files, and each takes a line
_DAMAGED = "the manifest was changed or damaged; the backup itself may be intact"


@dataclass(frozen=True, slots=True)
class ObjectDigest:
    """What one object's bytes were.

    Attributes:
        size: Bytes.
        sha256: Of all of them, in lower-case hexadecimal.
    """

    size: Annotated[int, Field(strict=True, ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestManifest:
    """What the objects of one backup were at one moment.

    Attributes:
        backup: Its name.
        recorded: When, in UTC.
        store: Where the objects were; a copy elsewhere may be compared as well.
        objects: By their keys under the storage location's prefix.

    Raises:
        ConfigError: ``recorded`` is not in UTC.
    """

    backup: str
    recorded: Annotated[datetime, AfterValidator(lambda at: at.astimezone(UTC)), PlainSerializer(datetime.isoformat)]
    store: str
    objects: Mapping[str, ObjectDigest] = field(repr=False)

    def __post_init__(self) -> None:
        if self.recorded.utcoffset() != timedelta(0):
            raise ConfigError(f"recorded: {self.recorded.isoformat()} is not in UTC", hint="use a datetime in UTC")

    def differences(self, found: Mapping[str, ObjectDigest]) -> Iterator[tuple[str, str]]:
        """Yield key and difference of every object that is not as it was, in the order of their keys."""
        for key in sorted(self.objects.keys() | found.keys()):
            then, now = self.objects.get(key), found.get(key)
            if now is None:
                yield key, "it was there when the manifest was recorded, and is gone"
            elif then is None:
                yield key, "it was not there when the manifest was recorded"
            elif then.size != now.size:
                yield key, f"it has {now.size} bytes, and had {then.size}"
            elif then.sha256 != now.sha256:
                yield key, f"its bytes were changed: sha256 {now.sha256}, and was {then.sha256}"

    def to_json(self) -> bytes:
        """Return the manifest as a JSON object, which ends with a digest of itself."""
        document = {"kind": _KIND, "format": _FORMAT, **_manifests().dump_python(self, mode="json")}
        document["objects"] = dict(sorted(document["objects"].items()))
        document["digest"] = _digest(document)
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, text: bytes | str) -> DigestManifest:
        """Read a manifest.

        Raises:
            StoreError: It is not one, is damaged, or a later release wrote it.
        """
        try:
            return _manifests().validate_python(_document(text))
        except ValueError as error:
            raise _invalid(str(error)) from error


@cache
def _manifests() -> TypeAdapter[DigestManifest]:
    return TypeAdapter(DigestManifest)


class HashingReader:
    """Passes a stream on and keeps its size and SHA-256."""

    __slots__ = ("_hash", "_size", "_stream")

    def __init__(self, stream: ByteReader) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._size = 0

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """Return the next bytes; see `ByteReader.read`."""
        data = self._stream.read(size)
        self._hash.update(data)
        self._size += len(data)
        return data

    def finish(self) -> ObjectDigest:
        """Read the rest, and return the digest of all bytes."""
        while self.read():
            pass
        return ObjectDigest(self._size, self._hash.hexdigest())


def manifest_key(backup: str) -> str:
    """Return where the manifest of a backup is kept."""
    return f"clusterguard/manifests/{BackupLayout(backup).name}.json"


def record_manifest(
    store: ObjectStore,
    backup: str,
    *,
    into: ObjectStore,
    now: datetime,
    overwrite: bool = False,
    progress: ProgressSink = ignore_progress,
) -> DigestManifest:
    """Read every object of a backup and keep their digests in another store, whole or not at all.

    To be done when Velero calls the backup Completed: until then it may still write its files again.

    Args:
        store: Opened at the prefix of the storage location.
        backup: Name of the backup.
        into: Where the manifest is kept, under `manifest_key`; not under Velero's own prefix.
        now: In UTC.
        overwrite: Whether to replace the manifest of an earlier backup of that name.
        progress: Told the bytes read.

    Raises:
        ConfigError: ``into`` is inside the storage location, or the name is not valid.
        ObjectNotFoundError: There is no such backup.
        ObjectExistsError: It has a manifest already.
        StoreError: A store cannot do it.
    """
    layout = BackupLayout(backup)
    _refuse_inside(into, store)
    with into.put(manifest_key(backup), overwrite=overwrite) as writer:
        objects = _digests(store, layout, progress)
        manifest = DigestManifest(backup=backup, recorded=now, store=store.url, objects=objects)
        writer.write(manifest.to_json())
    return manifest


def load_manifest(store: ObjectStore, backup: str) -> DigestManifest:
    """Return the manifest that was recorded of a backup.

    Raises:
        ObjectNotFoundError: None was.
        StoreError: It is damaged, is of another backup, or cannot be read.
    """
    manifest = DigestManifest.from_json(read_object(store, manifest_key(backup), most_bytes=_LARGEST))
    if manifest.backup != backup:
        raise _invalid(f"it is that of backup {manifest.backup!r}, not {backup!r}", backup=manifest.backup)
    return manifest


def _digests(store: ObjectStore, layout: BackupLayout, progress: ProgressSink) -> dict[str, ObjectDigest]:
    found = list(store.list(layout.folder))
    if not found:
        raise ObjectNotFoundError(f"{store.url}: no backup {layout.name!r}")
    task, total, done = f"recording the digests of {layout.name}", sum(one.size for one in found), 0
    objects = {}
    for one in found:
        with store.get(one.key) as stream:
            objects[one.key] = HashingReader(stream).finish()
        done += objects[one.key].size
        progress(Progress(task=task, done=done, total=total, unit="bytes"))
    progress(Progress(task=task, done=done, total=done, unit="bytes", finished=True))
    return objects


def _refuse_inside(inner: ObjectStore, outer: ObjectStore) -> None:
    there, here = urlsplit(inner.url), urlsplit(outer.url)
    same_place = (there.scheme, there.netloc, there.query) == (here.scheme, here.netloc, here.query)
    below = f"{there.path.rstrip('/')}/".startswith(f"{here.path.rstrip('/')}/")
    # Every store in memory has the same URL, and each is another one.
    if inner is outer or (same_place and below and there.scheme != "memory"):
        raise ConfigError(
            f"{inner.url} is inside Velero's storage location {outer.url}, which takes no folders of others",
            code="inside-velero-location",
            hint="keep manifests under another prefix; best in another bucket, with other credentials",
        )


def _document(text: bytes | str) -> Mapping[str, Any]:
    document = orjson.loads(text)
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise ValueError("it is not a digest manifest")
    if document.get("format") != _FORMAT:
        raise ValueError(f"its format is {document.get('format')!r}; this release reads {_FORMAT}")
    if document.pop("digest", None) != _digest(document):
        raise ValueError("its own digest does not match")
    return document


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _invalid(problem: str, **fields: object) -> StoreError:
    message = f"the digest manifest cannot be read: {problem}"
    return StoreError(message, code="manifest-unreadable", fields=fields, hint=_DAMAGED)
