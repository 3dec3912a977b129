"""Open any etcd snapshot, wherever it lies and whoever saved it, as a database file that can be read."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from clusterguard.errors import ConfigError, ObjectNotFoundError, SnapshotCorruptError, StoreError, WrongKeyError
from clusterguard.etcd.archives import kind_of, unwrapped
from clusterguard.etcd.boltdb import PEEK_BYTES, declared_size, unreadable
from clusterguard.etcd.integrity import has_trailer
from clusterguard.scratch import UnnamedFile, unnamed_file
from clusterguard.secret_files import read_secret_file
from clusterguard.stores import open_store
from clusterguard.stores.base import CHUNK_BYTES
from clusterguard.stores.encryption import Encryption
from clusterguard.stores.transfer import PeekedReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterguard.stores.base import ByteReader, ObjectInfo, ObjectStore

__all__ = ["Location", "OpenedSnapshot", "encryption_from", "open_snapshot"]

Location: TypeAlias = "str | os.PathLike[str] | IO[bytes] | tuple[ObjectStore, str]"

# bbolt grows a file by at most this at once, beyond what its meta pages say.
_GROWTH: Final = 1 << 30
_NO_KEYS: Final = Encryption(compression_level=None)
# Where k3s and RKE2 lay what Rancher wants to know of a snapshot, under the snapshot's own name, and after it.
_NOTES: Final = ".metadata/"
_CHANGING: Final = re.compile(r"[0-9a-f]{4,}|\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSnapshot:
    """A snapshot that is open for reading.

    Attributes:
        path: The database, with etcd's trailer where it has one: the file itself, or a copy that goes at the end.
        origin: Where it was found, for messages.
        wrappings: What it was wrapped in, from the outside in: ``("age", "zstd")``.
        modified: When the file or object was written, in UTC; None of a stream.
        passed_over: Names of newer objects that lie beside it and are not snapshots.
    """

    path: Path
    origin: str
    wrappings: tuple[str, ...]
    modified: datetime | None
    passed_over: tuple[str, ...] = ()

    @property
    def has_trailer(self) -> bool:
        """Whether etcd's sha256 follows the database; without it, nobody says that these are the bytes etcd sent."""
        return has_trailer(self.path.stat().st_size)


def encryption_from(identities: Iterable[Path], *, passphrase_file: Path | None = None) -> Encryption | None:
    """Return what opens snapshots that are encrypted with age, or None where no file is given.

    Args:
        identities: Files with private keys, of age or SSH.
        passphrase_file: A file with a passphrase.

    Raises:
        ConfigError: A file cannot be read, others may read it, or it holds no key.
    """
    keys = tuple(read_secret_file(file, what="an identity") for file in identities)
    passphrase = read_secret_file(passphrase_file, what="the passphrase") if passphrase_file else ""
    if not keys and passphrase_file is None:
        return None
    return Encryption(
        identities=keys,
        passphrase=passphrase.rstrip("\n") if passphrase_file else None,
        compression_level=None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    origin: str
    store: ObjectStore | None  # or it is a file, or a stream
    key: str = ""
    file: Path | None = None
    stream: IO[bytes] | None = None
    modified: datetime | None = None
    passed_over: tuple[str, ...] = ()

    def open(self, stack: ExitStack) -> ByteReader:
        if self.store is not None:
            return stack.enter_context(self.store.get(self.key))
        if self.stream is not None:
            return _StreamReader(self.stream)
        assert self.file is not None  # noqa: S101 - one of the three
        try:
            return _StreamReader(stack.enter_context(self.file.open("rb")))
        except OSError as error:
            raise _located(self.origin, unreadable(error)) from error


@contextmanager
def open_snapshot(
    location: Location,
    *,
    at: datetime | None = None,
    encryption: Encryption | None = None,
    scratch: Path | None = None,
) -> Iterator[OpenedSnapshot]:
    """Give a snapshot of any program as a file, told by content and not by name.

    Read are snapshots of etcdctl, etcdutl and whatever calls etcd's API (k3s, RKE2, Talos, OpenShift, gardener), plain
    or in zip, gzip, zlib, lzw, zstd and age, and copies of a member's ``member/snap/db``.

    Args:
        location: A file; a folder or a location that `open_store` takes, of which the newest snapshot is taken; the
            location of one object; an open binary stream; or a store and the key of an object in it.
        at: Take the newest of a folder that is not newer than this.
        encryption: Its identities or its passphrase open what is encrypted with age.
        scratch: The folder for what has to be copied or unpacked, by default that of ``TMPDIR``, or ``/var/tmp``.

    Raises:
        ObjectNotFoundError: There is no such file or object, or no snapshot in the folder.
        SnapshotCorruptError: It is not a snapshot (``not-a-snapshot``), but what changed since one
            (``incremental-snapshot``), or what it is wrapped in is damaged
            (``archive-damaged``), has several members (``archive-members``) or is larger than the database in it says
            (``archive-too-large``).
        WrongKeyError: It is encrypted, and nothing at hand opens it.
        ConfigError: The location is not valid, or a time is given for one file.
        ScratchError: The scratch folder has no room for it.
        StoreError: It could not be read.
    """
    found = _find(location, at)
    with ExitStack() as stack:
        try:
            reader, wrappings = unwrapped(found.open(stack), stack, encryption=encryption or _NO_KEYS, scratch=scratch)
            if found.file is not None and not wrappings:
                path = found.file
            else:
                path = stack.enter_context(_unpacked(reader, scratch)).path
        except SnapshotCorruptError as error:
            raise _located(found.origin, error) from error
        yield OpenedSnapshot(
            path=path,
            origin=found.origin,
            wrappings=wrappings,
            modified=found.modified,
            passed_over=found.passed_over,
        )


@contextmanager
def _unpacked(reader: PeekedReader, scratch: Path | None) -> Iterator[UnnamedFile]:
    """Give a copy of a database. A few bytes may stand for any number, so the size that it states is the limit."""
    declared = declared_size(reader.beginning)
    if declared is None:
        raise SnapshotCorruptError(
            "neither of the database's two meta pages is valid", hint="use another snapshot", code="not-a-snapshot"
        )
    with unnamed_file(scratch, needed=declared) as file:
        size = 0
        while data := reader.read(CHUNK_BYTES):
            size += len(data)
            if size > declared + _GROWTH:
                raise _too_large(declared)
            file.write(data)
        yield file


def _too_large(declared: int) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        f"more than {declared + _GROWTH:,} bytes come out of a database of {declared:,} bytes",
        hint="it may have been made to fill disks: do not use it",
        code="archive-too-large",
        fields={"declared": declared},
    )


class _StreamReader:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise unreadable(error) from error


# ---- where it lies -----------------------------------------------------------------------------------------


def _find(location: Location, at: datetime | None) -> _Found:
    if isinstance(location, tuple):
        store, key = location
        return _alone(_in_store(store, key), at)
    if not isinstance(location, (str, os.PathLike)):
        return _alone(_Found(origin="standard input", store=None, stream=location), at)
    text = os.fspath(location)
    path = None if isinstance(location, str) and "://" in text else Path(text).expanduser()
    if path is None:
        return _find_in_store(text, at)
    if path.is_dir():
        found = _newest(open_store(path), at)
        return replace(found, passed_over=(*found.passed_over, *_links_out_of(path)))
    try:
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError as error:
        raise ObjectNotFoundError(f"there is no file {text}", hint="check the path", fields={"path": text}) from error
    except OSError as error:
        raise _located(text, unreadable(error)) from error
    return _alone(_Found(origin=text, store=None, file=path, modified=modified), at)


def _links_out_of(folder: Path) -> list[str]:
    """Return the links of a folder to files elsewhere, which a store does not follow."""
    links = (entry for entry in folder.iterdir() if entry.is_symlink())
    return sorted(link.name for link in links if folder.resolve() not in link.resolve().parents)


def _find_in_store(text: str, at: datetime | None) -> _Found:
    """Return the object of a location, or the newest below it."""
    url = urlsplit(text)
    folder, _, name = url.path.rpartition("/")
    store = open_store(text)
    if name:
        parent = open_store(urlunsplit(url._replace(path=folder or ("/" if url.scheme == "file" else ""))))
        try:
            found = _in_store(parent, name)
        except ObjectNotFoundError:
            return _newest(store, at)
        except StoreError:
            # Who may read what lies below a prefix may not be allowed to look at its name as an object.
            with suppress(ObjectNotFoundError, StoreError):
                return _newest(store, at)
            raise
        return _alone(found, at)
    return _newest(store, at)


def _in_store(store: ObjectStore, key: str) -> _Found:
    info = store.stat(key)
    return _Found(origin=f"{store.url}: {key}", store=store, key=key, modified=info.modified)


def _alone(found: _Found, at: datetime | None) -> _Found:
    if at is not None:
        raise ConfigError(
            f"{found.origin} is one snapshot, and a time chooses among several",
            hint="leave the time out, or name a folder",
        )
    return found


def _newest(store: ObjectStore, at: datetime | None) -> _Found:
    """Return the newest object that is a snapshot, or at least wrapped as one.

    That the newest backup is broken must not be hidden by an older one: an object that is named like the chosen one and
    is not a snapshot is refused, and other newer ones are named.
    """
    # Copies and some stores give many objects one time: then the last name is the newest, as dates in names sort.
    found = (info for info in store.list() if f"/{_NOTES}" not in f"/{info.key}")
    listed = sorted(found, key=lambda info: (info.modified, info.key), reverse=True)
    passed: list[ObjectInfo] = []
    for info in listed:
        if at is not None and info.modified > at:
            continue
        if not _may_be_snapshot(store, info):
            passed.append(info)
            continue
        _require_unlike(store, info, passed)
        return _Found(
            origin=f"{store.url}: {info.key}",
            store=store,
            key=info.key,
            modified=info.modified,
            passed_over=tuple(each.key for each in passed),
        )
    when = f" of {at:%Y-%m-%d %H:%M:%S} UTC or before" if at else ""
    raise ObjectNotFoundError(
        f"{store.url} has no etcd snapshot{when} among {len(listed)} objects",
        hint="name the folder or the prefix that has them, or the snapshot itself",
        fields={"objects": len(listed)},
    )


def _may_be_snapshot(store: ObjectStore, info: ObjectInfo) -> bool:
    """Much is compressed that is not a snapshot, such as static pod manifests; the first bytes inside tell."""
    try:
        with ExitStack() as stack:
            peeked = PeekedReader(stack.enter_context(store.get(info.key)), PEEK_BYTES)
            if kind_of(peeked.beginning) not in {"age", "zip"}:
                unwrapped(peeked, stack, encryption=_NO_KEYS, scratch=None)
    except ObjectNotFoundError:  # it was removed since
        return False
    except WrongKeyError:
        return True
    except SnapshotCorruptError as error:
        return error.code not in {"not-a-snapshot", "incremental-snapshot"}
    return True


def _require_unlike(store: ObjectStore, chosen: ObjectInfo, passed: list[ObjectInfo]) -> None:
    pattern = _pattern(chosen.key)
    broken = [info.key for info in passed if not info.size or _pattern(info.key) == pattern]
    if broken:
        raise SnapshotCorruptError(
            f"{store.url}: {broken[0]} is not an etcd snapshot, and it is newer than {chosen.key}",
            hint=f"the newest backup is broken; to look at the one before it, name it: {chosen.key}",
            code="not-a-snapshot",
            fields={"broken": broken, "newest": chosen.key},
        )


def _pattern(key: str) -> str:
    """Return the last part of a key without what changes from one backup to the next: numbers and digests."""
    return _CHANGING.sub("#", key.rpartition("/")[2])


def _located(origin: str, error: SnapshotCorruptError | StoreError) -> SnapshotCorruptError | StoreError:
    return type(error)(f"{origin}: {error.message}", hint=error.hint, code=error.code, fields=error.fields)
