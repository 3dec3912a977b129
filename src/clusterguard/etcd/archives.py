"""What people wrap etcd snapshots in, told by content: gzip, zlib, lzw, zip, zstd and age, one inside the other.

k3s and RKE2 compress with zip, gardener with gzip, zlib or lzw, talos-backup with zstd inside age, and so does a
policy of ours. Names say nothing reliable: k3s calls a zip like the snapshot in it.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

from clusterguard.errors import ObjectCorruptError, SnapshotCorruptError, WrongKeyError
from clusterguard.etcd.boltdb import PEEK_BYTES, looks_like_database
from clusterguard.etcd.lzw import LzwReader, begins_with_clear, first_bytes
from clusterguard.scratch import unnamed_file
from clusterguard.stores.base import CHUNK_BYTES
from clusterguard.stores.encryption import Encryption
from clusterguard.stores.transfer import PeekedReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack
    from pathlib import Path

    from clusterguard.stores.base import ByteReader

__all__ = ["DATABASE", "kind_of", "unwrapped"]

DATABASE: Final = "database"
_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"age-encryption.org/v1", "age"),
    *((bytes((0x78, level)), "zlib") for level in (0x01, 0x5E, 0x9C, 0xDA)),
)
# What lies where a snapshot was expected, and what to do about it.
_OTHERS: Final = (
    (b"SQLite format 3", "an SQLite database", "it is k3s's own without etcd: back up that database instead"),
    (b"-----BEGIN AGE", "an age file in ASCII armor", "take the armor off: age --decrypt writes the snapshot"),
    (b"{", "JSON", "a record of a snapshot, or changes without the snapshot before them: name the snapshot itself"),
    (b"<", "XML or HTML", "it may be the answer of a server that had no snapshot to give"),
    (b"Salted__", "a file encrypted by OpenSSL", "decrypt it first"),
)
# What changed since a snapshot, as gardener's etcd-backup-restore writes it; a hash follows at the end.
_INCREMENTAL: Final = b'[{"etcdEvent":'
_MOST_LAYERS: Final = 4
_AGAIN: Final = "copy it again from where it was saved, or use another one"


def kind_of(beginning: bytes) -> str | None:
    """Return what bytes are by how they begin: `DATABASE`, a wrapping, or None for anything else.

    Args:
        beginning: `PEEK_BYTES` of them, or all where there are fewer.
    """
    if looks_like_database(beginning):
        return DATABASE
    found = next((name for magic, name in _MAGIC if beginning.startswith(magic)), None)
    if found is None and begins_with_clear(beginning):
        inside = first_bytes(beginning)  # it has no mark, so what is in it must have one
        if looks_like_database(inside) or inside.startswith(_INCREMENTAL):
            return "lzw"
    return found


def unwrapped(
    reader: ByteReader, stack: ExitStack, *, encryption: Encryption, scratch: Path | None
) -> tuple[PeekedReader, tuple[str, ...]]:
    """Take off one wrapping after the other; return a reader of the database, and their names from the outside in.

    Args:
        reader: Gives the bytes as they lie there.
        stack: Closes what was opened on the way.
        encryption: Its identities or its passphrase open what is encrypted.
        scratch: The folder in which a zip lies while it is read: its directory is at its end.

    Raises:
        SnapshotCorruptError: A wrapping is damaged (``archive-damaged``), has several members (``archive-members``),
            or what is in it is not a snapshot (``not-a-snapshot``), but what changed since one
            (``incremental-snapshot``).
        WrongKeyError: It is encrypted, and nothing at hand opens it.
        ScratchError: The scratch folder has no room for the zip.
    """
    layers: list[str] = []
    while True:
        peeked = PeekedReader(reader, PEEK_BYTES)
        kind = kind_of(peeked.beginning)
        if kind == DATABASE:
            return peeked, tuple(layers)
        if kind is None or len(layers) == _MOST_LAYERS:
            if peeked.beginning.startswith(_INCREMENTAL):
                raise _incremental()
            raise _not_a_snapshot(peeked.beginning, layers)
        layers.append(kind)
        reader = _without(kind, peeked, stack, encryption, scratch)


def _without(
    kind: str, reader: ByteReader, stack: ExitStack, encryption: Encryption, scratch: Path | None
) -> ByteReader:
    match kind:
        case "gzip" | "zlib":
            return _Inflated(reader)
        case "lzw":
            return _Translated(LzwReader(reader), kind)
        case "zip":
            return stack.enter_context(_only_member(reader, scratch))
        case "age":
            return _Translated(stack.enter_context(encryption.decrypting(reader, suffix=".age")), kind)
        case _:
            return _Translated(stack.enter_context(Encryption().decrypting(reader, suffix=".zst")), kind)


class _Inflated:
    """Reads gzip, of several members as pigz and ``cat`` make it, or zlib. It never ends early without an error."""

    def __init__(self, source: ByteReader) -> None:
        self._source = source
        self._stream = _inflater()
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK_BYTES), b""))
        while size:
            if self._stream.eof and not self._next_member():
                break
            more = self._rest or self._source.read(CHUNK_BYTES)
            if not more and not self._stream.eof:
                raise _damaged("gzip", "it is cut off")
            try:
                piece = self._stream.decompress(more, size)
            except zlib.error as error:
                raise _damaged("gzip", str(error)) from error
            self._rest = self._stream.unconsumed_tail
            if piece:
                return piece
        return b""

    def _next_member(self) -> bool:
        """Go on where another member follows; zeros may, which tape drives and some tools pad with."""
        self._rest = (self._stream.unused_data or self._source.read(CHUNK_BYTES)).lstrip(b"\0")
        if self._rest:
            self._stream = _inflater()
        return bool(self._rest)


class _Translated:
    """A reader of one wrapping, whose damage is the snapshot's and not the store's."""

    def __init__(self, reader: ByteReader, kind: str) -> None:
        self._reader = reader
        self._kind = kind

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._reader.read(size)
        except ObjectCorruptError as error:
            raise _damaged(self._kind, error.message) from error
        except ValueError as error:
            raise _damaged(self._kind, str(error)) from error


class _Member:
    """Reads a member of a zip; what zipfile raises becomes an error of ours."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._file.read(size)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
            raise _damaged("zip", str(error)) from error


@contextmanager
def _only_member(reader: ByteReader, scratch: Path | None) -> Iterator[_Member]:
    with unnamed_file(scratch) as spooled:
        while data := reader.read(CHUNK_BYTES):
            spooled.write(data)
        with spooled.path.open("rb") as file, _opened(file) as archive:
            members = [each for each in archive.infolist() if not each.is_dir()]
            if len(members) != 1:
                raise SnapshotCorruptError(
                    f"the zip has {len(members)} files, and a snapshot is one: "
                    + ", ".join(each.filename for each in members[:5]),
                    hint="unpack it, and name the snapshot",
                    code="archive-members",
                    fields={"members": [each.filename for each in members]},
                )
            if members[0].flag_bits & 1:
                raise WrongKeyError("the zip is encrypted with a password", hint="unpack it: unzip asks for it")
            try:
                member = archive.open(members[0])
            except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
                raise _damaged("zip", str(error)) from error
            with member:
                yield _Member(member)


def _opened(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise _damaged("zip", str(error)) from error


def _inflater() -> zlib._Decompress:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # by its header: gzip or zlib


def _damaged(kind: str, problem: str) -> SnapshotCorruptError:
    return SnapshotCorruptError(f"the {kind} archive is damaged: {problem}", hint=_AGAIN, code="archive-damaged")


def _incremental() -> SnapshotCorruptError:
    return SnapshotCorruptError(
        "it holds what changed since a snapshot (an incremental one of gardener's), and not the snapshot",
        hint="name the full snapshot before it, Full-…, which is looked into without what changed later; etcdbrctl "
        "makes one of them (compact), and restores both",
        code="incremental-snapshot",
    )


def _not_a_snapshot(beginning: bytes, layers: list[str]) -> SnapshotCorruptError:
    inside = f"what is in the {' of '.join(reversed(layers))} is" if layers else "it is"
    found = ("empty", _AGAIN) if not beginning else None
    if beginning[257:262] == b"ustar":
        found = ("a tar archive", "unpack it, and name the snapshot in it; a Velero backup is named by its bucket")
    found = found or next((other[1:] for other in _OTHERS if beginning.lstrip().startswith(other[0])), None)
    what, hint = found or ("bytes that no etcd database begins with", _AGAIN)
    return SnapshotCorruptError(f"{inside} not an etcd snapshot: {what}", hint=hint, code="not-a-snapshot")
