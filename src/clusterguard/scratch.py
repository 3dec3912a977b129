"""Bytes on their way, so that nothing of them is left behind, however this process ends.

A killed process cleans nothing up. An opened snapshot holds every Secret of its cluster, so it goes into a file without
a name: the kernel frees it with the last descriptor. Keys that programs and libraries want as a file lie in memory.
Both are opened by a path below ``/proc/self/fd``, and `clusterguard.process.run` hands such descriptors down to the
programs that it starts.

What must have a name lies in a private folder. The lock on it ends with its owner, and the next process that wants a
private folder removes the ones that nobody holds. A lock says so across reboots and containers; a process number
does not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from clusterguard.errors import ConfigError, ScratchError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MEMORY_SHARE", "UnnamedFile", "in_memory", "private_folder", "replacing", "scratch_folder", "unnamed_file"]

MEMORY_SHARE: Final = 0.5
"""How much of the available memory a file may take where the scratch folder is memory."""

# What takes files of any size and survives a reboot is on a disk (FHS 5.15); /tmp is memory on many systems.
_LARGE_FILES: Final = Path("/var/tmp")  # noqa: S108 - the files there have no name
_HINT: Final = "make room there, or name another folder: --scratch, `scratch` in the policy, or TMPDIR"
# What open(2) says of O_TMPFILE where the file system or the kernel does not have it.
_NO_UNNAMED_FILES: Final = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT}
_IN_MEMORY: Final = {"tmpfs", "ramfs"}


def scratch_folder(named: Path | None = None) -> Path:
    """Return the folder for large files on their way.

    Args:
        named: The one that somebody chose; by default that of ``TMPDIR``, then ``/var/tmp``, then the system's
            folder for temporary files.

    Raises:
        ConfigError: The chosen one is not a folder that this user can write to.
    """
    chosen = named or (Path(os.environ["TMPDIR"]) if os.environ.get("TMPDIR") else None)
    if chosen is None:
        return _LARGE_FILES if _usable(_LARGE_FILES) else Path(tempfile.gettempdir())
    if not _usable(chosen):
        raise ConfigError(
            f"scratch folder {chosen} does not exist, or is not writable by this user",
            code="scratch-not-writable",
            fields={"folder": str(chosen)},
            hint="name one that exists: --scratch, `scratch` in the policy, or TMPDIR",
        )
    return chosen


class UnnamedFile:
    """A file that is in no folder: it is gone once it is closed, or with this process.

    Args:
        file: The open file, unbuffered.
        place: What messages call the place where its bytes are.
    """

    def __init__(self, file: IO[bytes], place: str) -> None:
        self._file = file
        self._place = place

    @property
    def path(self) -> Path:
        """A path to it until it is closed, for this process and for what `clusterguard.process.run` starts."""
        return Path(f"/proc/self/fd/{self.fileno()}")

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._file.fileno()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append bytes.

        Raises:
            ScratchError: There is no room for them, or the disk fails.
        """
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise _scratch_error(self._place, error) from error

    def close(self) -> None:
        """Give its room back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unnamed_file(folder: Path | None = None, *, needed: int = 0) -> UnnamedFile:
    """Return an empty file without a name on the disk of a folder.

    Args:
        folder: The scratch folder that somebody chose; see `scratch_folder`.
        needed: How many bytes it will hold, as far as that is known.

    Raises:
        ConfigError: The folder that was chosen is none.
        ScratchError: There is no room for so many bytes, or the folder is memory and they would take too much of it.
    """
    place = scratch_folder(folder)
    _require_room(place, needed)
    try:
        return UnnamedFile(tempfile.TemporaryFile(dir=place, buffering=0), str(place))
    except OSError as error:
        raise _scratch_error(str(place), error) from error


def in_memory(content: bytes) -> UnnamedFile:
    """Return a file in memory that holds a small secret, for whoever takes it only by a path."""
    file = UnnamedFile(open(os.memfd_create("clusterguard"), "w+b", buffering=0), "memory")  # noqa: SIM115, PTH123
    try:
        os.fchmod(file.fileno(), 0o600)  # programs refuse a key that others could read
        file.write(content)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def private_folder() -> Iterator[Path]:
    """Give a folder for this user alone, removed at the end of the ``with`` block or by whoever comes after a kill.

    It lies in the user's folder for state, or where that cannot be written, in the one for temporary files.

    Raises:
        ScratchError: It cannot be made.
    """
    root = _root()
    for left in root.glob("*.lock"):
        _remove_unless_held(left)
    try:
        lock, descriptor = _claimed(root)
    except OSError as error:
        raise _scratch_error(str(root), error) from error
    try:
        yield _folder_of(lock)
    finally:
        _remove(lock)  # while the lock is held: whoever sweeps must not find it free half-way
        os.close(descriptor)


@contextmanager
def replacing(path: Path, *, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """Give a file to write that takes the place of another one, once it is whole and on the disk.

    Until then it has no name, so a killed writer leaves nothing. The old file stays after a failure.

    Args:
        path: The file to replace.
        mode: Its permissions.

    Raises:
        OSError: It cannot be written.
    """
    # Not the name of the old one with a suffix: whoever reads *.prom must not read this.
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _opened_for(temporary) as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            with suppress(FileExistsError):  # it has its name already where the file system has no unnamed files
                # Given a folder's descriptor, Python follows the link to the file, as open(2) wants it.
                os.link(f"/proc/self/fd/{file.fileno()}", temporary, src_dir_fd=folder)
        temporary.replace(path)
        with suppress(OSError):  # some file systems cannot sync a folder; the file itself is synced already
            os.fsync(folder)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(folder)


def sync(path: Path) -> None:
    """Let a file, or the renames in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened_for(temporary: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary.parent, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NO_UNNAMED_FILES:
            raise
        descriptor = os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(descriptor, "wb")


# ---- room --------------------------------------------------------------------------------------------------


def _usable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ScratchError(
            f"scratch folder {folder} has no room: {needed:,} bytes are needed, {free:,} are free",
            hint=_HINT,
            code="scratch-full",
            fields={"folder": str(folder), "needed": needed, "free": free},
        )
    import psutil

    available = psutil.virtual_memory().available
    if needed > available * MEMORY_SHARE and _is_memory(folder):
        raise ScratchError(
            f"scratch folder {folder} is memory: {needed:,} bytes are needed, {available:,} are available,"
            f" and only {MEMORY_SHARE:.0%} of that may be taken",
            hint="name a folder on a disk: --scratch, `scratch` in the policy, or TMPDIR",
            code="scratch-in-memory",
            fields={"folder": str(folder), "needed": needed, "available": available},
        )


def _is_memory(folder: Path) -> bool:
    """Return whether what is written to a folder takes up memory and no disk, by proc_pid_mountinfo(5)."""
    device = folder.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines())
    return any(each[2] == name and each[each.index("-") + 1] in _IN_MEMORY for each in mounts)


def _scratch_error(place: str, error: OSError) -> ScratchError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return ScratchError(
        f"scratch folder {place}: {error.strerror or error}",
        hint=_HINT,
        code="scratch-full" if full else None,
        fields={"folder": place},
    )


# ---- private folders ---------------------------------------------------------------------------------------


def _root() -> Path:
    """Return the folder that private folders lie in."""
    from platformdirs import user_state_path

    fallback = Path(tempfile.gettempdir()) / f"clusterguard-{os.getuid()}"
    for root in (user_state_path("clusterguard") / "scratch", fallback):
        with suppress(OSError):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = root.lstat()
            # In a folder for everybody, somebody else may have made one of that name.
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
                return root
    raise ScratchError(
        f"no folder of this user's own can be made, neither in the folder for state nor as {fallback}",
        hint="let this user write to its home, or point XDG_STATE_HOME or TMPDIR to a folder where it can",
    )


def _claimed(root: Path) -> tuple[Path, int]:
    """Make a private folder; return the file of its lock, which this process holds, and the descriptor of that."""
    while True:
        lock = root / f"{secrets.token_hex(8)}.lock"
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        # Whoever sweeps may have come between: then the lock, or its file, is gone.
        if _held(descriptor) and lock.exists():
            _folder_of(lock).mkdir(mode=0o700)
            return lock, descriptor
        os.close(descriptor)


def _held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_unless_held(lock: Path) -> None:
    with suppress(FileNotFoundError):  # another process swept it
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            if _held(descriptor):
                _remove(lock)
        finally:
            os.close(descriptor)


def _remove(lock: Path) -> None:
    """Remove a private folder; the file of its lock stays while something of the folder does, for the next sweep."""
    folder = _folder_of(lock)
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        lock.unlink(missing_ok=True)


def _folder_of(lock: Path) -> Path:
    return lock.with_suffix("")
