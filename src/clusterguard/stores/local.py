"""Objects as files below one directory.

An object is written to a file of its own below ``.clusterguard-partial``, flushed to the disk, and only then
given its name: by a hard link where the key must be free, because ``link`` refuses a taken name while
``rename`` does not; by ``rename`` where the key may be taken. Either is atomic, so an object is whole or not
there. One that replaces a certain version is renamed while the file that it replaces is locked (``flock``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import quote

from clusterguard.errors import ObjectExistsError, ObjectNotFoundError, StoreError, StoreUnavailableError
from clusterguard.stores.base import PARTIAL, ObjectInfo, check_key, key_problem, object_changed

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

__all__ = ["LocalStore"]

_BUFFER_BYTES = 64 * 1024  # larger pieces go to the system as they are
_FLUSH_BYTES = 32 * 1024 * 1024
_LEFTOVER_SECONDS = 24 * 3600.0
_PARTIAL_NAME = re.compile(r"[0-9a-f]{32}")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_OBJECT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalStore:
    """An object store in a directory, which the first object creates; files 0600, directories 0700.

    Symbolic links below the directory are refused, not followed: a key names nothing outside of it.

    Args:
        root: The directory.
        now: Seconds since the epoch, to tell the leftovers of killed writers (more than a day old) from the
            files of writers at work.
    """

    def __init__(self, root: Path | str, *, now: Callable[[], float] = time.time) -> None:
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would follow links
        self._now = now

    @property
    def url(self) -> str:
        """Where this is, as ``file:///…``."""
        return f"file://{quote(str(self._root))}"

    def local_path(self, key: str) -> Path:
        """Return the file of an object, for callers that map or hand over files. It must not be written to.

        Raises:
            ObjectNotFoundError: There is none.
        """
        self.stat(key)
        return self._file(key)

    @contextmanager
    def put(self, key: str, *, overwrite: bool = False, if_version: str | None = None) -> Iterator[_FileWriter]:
        """Open an object for writing; see `ObjectStore.put`."""
        target = self._file(key)
        # Refused before the caller sends gigabytes; what decides is the name that is given at the end.
        if not overwrite and if_version is None and os.path.lexists(target):
            raise _taken(target)
        partial = self._new_partial()
        try:
            with _FileWriter(partial, now=self._now) as writer:
                yield writer
                writer.finish()
            if if_version is None:
                self._publish(partial, target, overwrite=overwrite)
            else:
                _replace_version(partial, target, if_version)
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def get(self, key: str) -> Iterator[_FileReader]:
        """Open an object for reading; see `ObjectStore.get`."""
        path = self._file(key)
        with self._telling(path):
            # An open file stays the same file when its name is given to another one or removed.
            file = open(path, "rb", buffering=0, opener=_open_itself)  # noqa: SIM115 - closed below
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise self._missing(path)
            yield _FileReader(file, path)

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object; see `ObjectStore.stat`."""
        path = self._file(key)
        with self._telling(path):
            status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise self._missing(path)
        return _info(key, status)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in the order of their keys.

        One directory at a time is held in memory. A directory that does not exist yet holds no objects.
        """
        yield from self._walk("", prefix)

    def delete(self, key: str) -> None:
        """Remove an object and the directories that it leaves empty."""
        path = self._file(key)
        try:
            path.unlink()
            _sync_directory(path.parent)
        except _NO_OBJECT:
            return
        except OSError as error:
            raise _store_error(path, error) from error
        self._remove_empty(path.parent)

    def _file(self, key: str) -> Path:
        check_key(key)
        path = self._root
        for part in key.split("/"):
            path /= part
            if path.is_symlink():
                raise StoreError(
                    f"{path} is a symbolic link, and following it could lead out of the store",
                    hint=f"move what it points to below {self._root}, or open the store where that is",
                )
        return path

    def _new_partial(self) -> Path:
        directory = self._root / PARTIAL
        try:
            _make_directories(directory)
            self._sweep(directory)
        except OSError as error:
            raise _store_error(directory, error) from error
        return directory / secrets.token_hex(16)

    def _sweep(self, directory: Path) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not _PARTIAL_NAME.fullmatch(entry.name):
                    continue  # none of ours
                with contextlib.suppress(OSError):  # gone meanwhile: no reason to fail
                    if self._now() - entry.stat(follow_symlinks=False).st_mtime > _LEFTOVER_SECONDS:
                        os.unlink(entry)  # noqa: PTH108 - a directory entry is no Path

    def _publish(self, partial: Path, target: Path, *, overwrite: bool) -> None:
        try:
            _give_name(partial, target, overwrite=overwrite)
            _sync_directory(target.parent)
        except FileExistsError as error:
            raise _taken(target) from error
        except OSError as error:
            if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS} and not overwrite:
                raise StoreError(
                    f"{target}: the file system makes no hard links ({error.strerror}), without which a key"
                    " cannot be taken safely",
                    hint="put the store on a file system that has them, or allow overwriting",
                ) from error
            raise _store_error(target, error) from error

    def _walk(self, base: str, prefix: str) -> Iterator[ObjectInfo]:
        directory = self._root / base
        try:
            with os.scandir(directory) as entries:
                found = sorted(filter(None, (_see(base, entry) for entry in entries)))
        except _NO_OBJECT:
            return
        except OSError as error:
            raise _store_error(directory, error) from error
        for seen in found:
            if seen.is_directory and (seen.name.startswith(prefix) or prefix.startswith(seen.name)):
                yield from self._walk(seen.name, prefix)
            elif not seen.is_directory and seen.name.startswith(prefix):
                with contextlib.suppress(*_NO_OBJECT):  # removed meanwhile
                    yield _info(seen.name, (self._root / seen.name).lstat())

    def _remove_empty(self, directory: Path) -> None:
        with contextlib.suppress(OSError):  # not empty, or gone already
            while directory != self._root:
                directory.rmdir()
                directory = directory.parent

    @contextmanager
    def _telling(self, path: Path) -> Iterator[None]:
        try:
            yield
        except _NO_OBJECT as error:
            raise self._missing(path) from error
        except OSError as error:
            raise _store_error(path, error) from error

    def _missing(self, path: Path) -> ObjectNotFoundError:
        hint = None if self._root.is_dir() else f"there is no directory {self._root}; check the store's location"
        return ObjectNotFoundError(f"{path}: there is no such object", hint=hint)


class _FileWriter:
    """Writes one unfinished object; after a failed write it can only be given up.

    The system is asked now and then to begin with the disk, so that little is left to wait for at the end.
    """

    def __init__(self, path: Path, *, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._failure: StoreError | None = None
        self._written = self._on_its_way = 0
        try:
            self._file = open(path, "xb", buffering=_BUFFER_BYTES, opener=_open_private)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise _store_error(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
            self._file.close()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes."""
        if self._failure is not None:
            raise self._failure
        try:
            self._file.write(data)
        except OSError as error:
            self._failure = _store_error(self._path, error)
            raise self._failure from error
        self._written += len(data)
        if self._written - self._on_its_way >= _FLUSH_BYTES:
            self._begin_with_the_disk()

    def _begin_with_the_disk(self) -> None:
        # That these pages are not needed makes Linux write them, and wait for nothing. If that fails, fsync will tell.
        with contextlib.suppress(OSError):
            os.posix_fadvise(
                self._file.fileno(), self._on_its_way, self._written - self._on_its_way, os.POSIX_FADV_DONTNEED
            )
        self._on_its_way = self._written

    def finish(self) -> None:
        """Bring everything to the disk."""
        if self._failure is not None:
            raise self._failure
        try:
            self._file.flush()
            os.utime(self._file.fileno(), (self._now(), self._now()))
            # Before it has its name: after a power cut no name may lead to half an object.
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _store_error(self._path, error) from error


class _FileReader:
    def __init__(self, file: io.FileIO, path: Path) -> None:
        self._file = file
        self._path = path

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, and ``b""`` only at the end."""
        try:
            return self._file.read(size)
        except OSError as error:
            raise StoreUnavailableError(f"{self._path}: reading it failed: {error.strerror}") from error


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _Seen(NamedTuple):
    """One entry of a directory; a directory's name ends with ``/``, which puts it where its keys belong."""

    name: str
    is_directory: bool


def _see(base: str, entry: os.DirEntry[str]) -> _Seen | None:
    name = base + entry.name
    if key_problem(name) is not None:
        return None  # nothing that put() made: unfinished objects, names that are no text
    if entry.is_dir(follow_symlinks=False):
        return _Seen(f"{name}/", is_directory=True)
    return _Seen(name, is_directory=False) if entry.is_file(follow_symlinks=False) else None


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectInfo(key=key, size=status.st_size, modified=modified, version=_version(status))


def _version(status: os.stat_result) -> str:
    # Every put makes a file of its own. Its number may be given out again, but not at the same nanosecond. The time of
    # the last change of its status is left out: a put changes that once more when it removes the partial's name.
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _replace_version(partial: Path, target: Path, version: str) -> None:
    """Give a file its name if the file that has it is a certain version; who else tries the same is kept out."""
    try:
        with open(target, "r+b", buffering=0, opener=_open_itself) as replaced:
            # Not waited for: whoever has it is replacing the object, and may be stopped in the middle of that.
            fcntl.flock(replaced, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _version(os.fstat(replaced.fileno())) == version == _version(target.lstat()):
                raise object_changed(str(target))
            partial.replace(target)
            _sync_directory(target.parent)
    except (*_NO_OBJECT, BlockingIOError) as error:
        raise object_changed(str(target)) from error
    except OSError as error:
        raise _store_error(target, error) from error


def _give_name(partial: Path, target: Path, *, overwrite: bool) -> None:
    # A link is refused where the name is taken, in one step; a rename would replace what somebody put there meanwhile.
    name = os.replace if overwrite else os.link
    for _ in range(5):
        _make_directories(target.parent)
        with contextlib.suppress(FileNotFoundError):  # a delete() took the emptied directory away: make it again
            return name(partial, target)
    return name(partial, target)


def _make_directories(directory: Path) -> None:
    """Create a directory and its parents, each of them durably."""
    if directory.is_dir():
        return
    _make_directories(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _taken(target: Path) -> ObjectExistsError:
    return ObjectExistsError(f"{target}: the object exists already", hint="choose another key, or allow overwriting")


def _store_error(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: {error.strerror or error}", hint=_hint(path, error))


def _hint(path: Path, error: OSError) -> str | None:
    if error.errno in _NO_ROOM:
        return f"make room on the file system of {path.parent} (or raise the quota), or choose another store"
    if error.errno in _NOT_ALLOWED:
        return f"let this user write below {path.parent}, or choose another store"
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY}:
        return "a key cannot be both an object and the beginning of another object's key; choose another key"
    if error.errno in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
        return "replacing a certain version needs locks (flock); choose a file system or a mount that has them"
    if error.errno == errno.ENAMETOOLONG:
        return "shorten the parts of the key: file systems take 255 bytes for each"
    return None
