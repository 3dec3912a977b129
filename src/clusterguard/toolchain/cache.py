"""The user's cache of programs: nothing in it looks finished before it is, and one installer works at a time.

programs/<name>-<key>/<name>    a finished program; the key names exactly what it was made from
downloads/<sha256>.part         a download, kept when it is cut so that the next run goes on from there
scratch/<what>/<random>/        work in progress; swept by whoever holds the lock next
locks/<what>.lock
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from clusterguard.scratch import sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Cache"]

_ASK_AGAIN_SECONDS = 1.0


class Cache:
    """One cache directory; it is created when something is first put there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def program(self, name: str, key: str) -> Path:
        """Return where a program made from that key rests, whether or not it is there."""
        return self.root / "programs" / f"{name}-{key}" / name

    def part(self, sha256: str) -> Path:
        """Return where the download of the file with that checksum grows."""
        directory = self.root / "downloads"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"{sha256}.part"

    @contextlib.contextmanager
    def lock(self, what: str, *, when_waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of that name, released when we die.

        While another process holds it, ``when_waiting`` is called every second; an error there ends the wait.
        """
        directory = self.root / "locks"
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / f"{what}.lock")
        seconds = 0.0
        while not lock.is_locked:
            try:
                lock.acquire(timeout=seconds)
            except Timeout:
                when_waiting()
                seconds = _ASK_AGAIN_SECONDS
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def scratch(self, what: str) -> Iterator[Path]:
        """Give an empty directory for work in progress; only the holder of the lock may ask for it."""
        shelf = self.root / "scratch" / what
        shutil.rmtree(shelf, ignore_errors=True)
        shelf.mkdir(parents=True)
        try:
            # A name of its own: a compiler whose clusterguard was killed may still be writing to the old one.
            yield Path(tempfile.mkdtemp(dir=shelf))
        finally:
            shutil.rmtree(shelf, ignore_errors=True)

    def place(self, made: Path, destination: Path) -> None:
        """Make a file from the scratch directory visible as a program, whole and durable, at once."""
        made.chmod(0o755)
        sync(made)
        destination.parent.mkdir(parents=True, exist_ok=True)
        made.replace(destination)
        sync(destination.parent)
