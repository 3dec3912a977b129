"""Objects on their way: from store to store, or to a file that programs can open."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clusterguard.errors import ObjectCorruptError, StoreUnavailableError
from clusterguard.scratch import unnamed_file
from clusterguard.stores.base import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clusterguard.stores.base import ByteReader, ObjectInfo, ObjectStore, ObjectWriter

__all__ = ["PeekedReader", "copy_object", "digest_object", "files_of", "local_copy", "read_object"]


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


def files_of(store: ObjectStore) -> Callable[[str], Path] | None:
    """Return what gives the own file of an object by its key, in a store that has files: a folder, or a part of one."""
    own_file: Callable[[str], Path] | None = getattr(store, "local_path", None)
    return own_file


@contextmanager
def local_copy(store: ObjectStore, key: str, *, scratch: Path | None = None, size: int | None = None) -> Iterator[Path]:
    """Give an object's bytes as a file, for programs that need a path. The file must not be written to.

    In a store that has files (`LocalStore`, or a part of one) it is the object's own. For any other store it is a
    copy without a name, which is gone at the end of the ``with`` block, or with this process. This process opens it,
    and so do the programs that `clusterguard.process.run` starts.

    Args:
        store: The store.
        key: The object.
        scratch: The folder for copies, which must exist; by default that of ``TMPDIR``, or ``/var/tmp``.
        size: How many bytes the copy will have, where the store does not tell because it holds them compressed.

    Raises:
        ConfigError: There is no such scratch folder.
        ObjectNotFoundError: There is no such object.
        ScratchError: The scratch folder has no room for it.
        StoreError: It could not be read.
    """
    own_file = files_of(store)
    if own_file is not None:
        yield own_file(key)
        return
    info = store.stat(key)
    with unnamed_file(scratch, needed=size if size and info.encoded else info.size) as file:
        with store.get(key) as reader:
            read = 0
            while data := reader.read(CHUNK_BYTES):
                file.write(data)
                read += len(data)
        _refuse_other_size(store, key, read=read, info=info)
        yield file.path


def _refuse_other_size(store: ObjectStore, key: str, *, read: int, info: ObjectInfo) -> None:
    # What is compressed or encrypted has another size than what is in it, and tells by itself when it is cut.
    if read != info.size and not info.encoded:
        raise StoreUnavailableError(
            f"{store.url}: {key}: {read} bytes were read of an object of {info.size}",
            code="object-cut-off",
            fields={"key": key, "read": read, "size": info.size},
            hint="read it again",
        )


def _pour(reader: ByteReader, writer: ObjectWriter) -> tuple[str, int]:
    digest = hashlib.sha256()
    copied = 0
    while data := reader.read(CHUNK_BYTES):
        digest.update(data)
        writer.write(data)
        copied += len(data)
    return digest.hexdigest(), copied


class PeekedReader:
    """A reader whose first bytes are known before they are read.

    Args:
        reader: Gives the bytes.
        size: How many of them to know.

    Attributes:
        beginning: That many, or all where there are fewer.
    """

    def __init__(self, reader: ByteReader, size: int) -> None:
        self._reader = reader
        self.beginning = b""
        while len(self.beginning) < size and (piece := reader.read(size - len(self.beginning))):
            self.beginning += piece
        self._unread = self.beginning

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, and ``b""`` only at the end."""
        if not self._unread:
            return self._reader.read(size)
        length = len(self._unread) if size < 0 else size
        piece, self._unread = self._unread[:length], self._unread[length:]
        return piece
