"""Objects on their way: from store to store, or to a file that programs can open."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard.errors import ObjectCorruptError, StoreError, StoreUnavailableError
from clusterguard.stores.base import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.stores.base import ByteReader, ObjectInfo, ObjectStore, ObjectWriter

__all__ = ["copy_object", "digest_object", "local_copy", "read_object"]


def copy_object(
    source: ObjectStore,
    key: str,
    target: ObjectStore,
    *,
    target_key: str | None = None,
    overwrite: bool = False,
) -> str:
    """Copy one object as a stream and return the SHA-256 of its bytes, in hexadecimal.

    Args:
        source: The store to read from.
        key: The object.
        target: The store to write to.
        target_key: Its key there; by default the same.
        overwrite: Whether the key may be taken there.

    Raises:
        ObjectNotFoundError: There is no such object in the source.
        ObjectExistsError: The key is taken in the target.
        StoreError: Reading or writing failed; the target is as it was.
    """
    with source.get(key) as reader, target.put(target_key or key, overwrite=overwrite) as writer:
        digest, copied = _pour(reader, writer)
        _refuse_other_size(source, key, read=copied, info=source.stat(key))
    return digest


def digest_object(store: ObjectStore, key: str) -> tuple[str, int]:
    """Read a whole object and return the SHA-256 of its bytes, in hexadecimal, and their number.

    Raises:
        ObjectNotFoundError: There is no such object.
        StoreError: It could not be read.
    """
    digest, size = hashlib.sha256(), 0
    with store.get(key) as reader:
        while data := reader.read(CHUNK_BYTES):
            digest.update(data)
            size += len(data)
    return digest.hexdigest(), size


def read_object(store: ObjectStore, key: str, *, most_bytes: int) -> bytes:
    """Read a small object whole.

    Args:
        store: The store.
        key: The object.
        most_bytes: What none of its kind is larger than: whatever lies there must not fill the memory.

    Raises:
        ObjectNotFoundError: There is no such object.
        ObjectCorruptError: It is larger.
        StoreError: It could not be read.
    """
    pieces, size = [], 0
    with store.get(key) as reader:
        while data := reader.read(CHUNK_BYTES):
            pieces.append(data)
            size += len(data)
            if size > most_bytes:
                raise ObjectCorruptError(
                    f"{store.url}: {key} is larger than {most_bytes:,} bytes, which nothing of its kind is",
                    hint="look at what lies there; clusterguard did not write it",
                )
    return b"".join(pieces)


@contextmanager
def local_copy(store: ObjectStore, key: str, *, scratch: Path | None = None) -> Iterator[Path]:
    """Give an object's bytes as a file, for programs that need a path. The file must not be written to.

    In a store that has files (`LocalStore`, or a part of one) it is the object's own. For any other store it is a
    copy, readable by this user alone and removed at the end of the ``with`` block.

    Args:
        store: The store.
        key: The object.
        scratch: The directory for copies, which must exist; by default the system's for temporary files,
            which is often too small for a database.

    Raises:
        ObjectNotFoundError: There is no such object.
        StoreError: It could not be read, or the scratch directory has no room for it.
    """
    own_file: Callable[[str], Path] | None = getattr(store, "local_path", None)
    if own_file is not None:
        yield own_file(key)
        return
    info = store.stat(key)
    directory = scratch or Path(tempfile.gettempdir())
    free = _free_bytes(directory)
    if free < info.size:
        raise _no_room(directory, f"{key} has {info.size} bytes, {free} are free")
    try:
        # A directory of its own (0700), so that programs which put files beside their input leave them in it.
        owned = tempfile.TemporaryDirectory(prefix="clusterguard-", dir=directory)
    except OSError as error:
        raise StoreError(f"{directory}: {error.strerror}", hint="name another scratch directory") from error
    with owned as own:
        path = Path(own) / key.rsplit("/", 1)[-1]
        _download(store, key, path, info=info)
        yield path


def _download(store: ObjectStore, key: str, path: Path, *, info: ObjectInfo) -> None:
    with store.get(key) as reader:
        try:
            with path.open("xb") as file:
                while data := reader.read(CHUNK_BYTES):
                    file.write(data)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise _no_room(path.parent.parent, str(error.strerror)) from error
            raise StoreError(f"{path}: {error.strerror}", hint="name another scratch directory") from error
    _refuse_other_size(store, key, read=path.stat().st_size, info=info)


def _refuse_other_size(store: ObjectStore, key: str, *, read: int, info: ObjectInfo) -> None:
    # What is sealed has another size than what is in it, and tells by itself when it is cut.
    if read != info.size and not info.sealed:
        raise StoreUnavailableError(
            f"{store.url}: {key}: {read} bytes were read of an object of {info.size}", hint="read it again"
        )


def _pour(reader: ByteReader, writer: ObjectWriter) -> tuple[str, int]:
    digest = hashlib.sha256()
    copied = 0
    while data := reader.read(CHUNK_BYTES):
        digest.update(data)
        writer.write(data)
        copied += len(data)
    return digest.hexdigest(), copied


def _free_bytes(directory: Path) -> int:
    try:
        return shutil.disk_usage(directory).free
    except OSError as error:
        raise StoreError(f"{directory}: {error.strerror}", hint="name a scratch directory that exists") from error


def _no_room(directory: Path, seen: str) -> StoreError:
    return StoreError(
        f"{directory} has no room for a copy: {seen}",
        hint="make room there, or name another scratch directory",
    )
