"""A snapshot on its way into a store that gives no local file.

etcd keeps a read transaction open while it sends, and its database grows meanwhile, so a slow upload must not
slow the stream. The stream goes into a scratch file at its own speed; the upload follows behind it.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import TYPE_CHECKING, Self

from clusterguard.errors import StoreError

if TYPE_CHECKING:
    from clusterguard.stores.base import ObjectWriter

__all__ = ["Spool"]

_PIECE = 1024 * 1024


class Spool:
    """A scratch file that one side writes and one follower reads at the same time.

    Args:
        follower: Gets every byte, in order, from a thread of its own.
        scratch: Folder for the file, which has no name and is gone when the process is.
    """

    def __init__(self, follower: ObjectWriter, *, scratch: Path | None = None) -> None:
        self._follower = follower
        self._scratch = scratch
        self._written = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        try:
            self._file = TemporaryFile(dir=self._scratch, buffering=0)
        except OSError as error:
            raise self._scratch_error(error) from error
        self._thread = threading.Thread(target=self._follow, name="clusterguard-upload", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            self._end(BrokenPipeError("the stream into the spool failed"))
        self._thread.join()
        self._file.close()

    @property
    def path(self) -> Path:
        """A path to the file, valid inside the ``with`` block."""
        return Path(f"/proc/self/fd/{self._file.fileno()}")

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append bytes; returns as soon as the scratch file has them.

        Raises:
            StoreError: The scratch disk is full, or the follower failed.
        """
        if self._failure is not None:
            raise self._failure
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._scratch_error(error) from error
        with self._changed:
            self._written += len(data)
            self._changed.notify()

    def finish(self) -> None:
        """Wait until the follower has everything.

        Raises:
            StoreError: It failed.
        """
        self._end(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _scratch_error(self, error: OSError) -> StoreError:
        return StoreError(
            f"the scratch file in {self._scratch or gettempdir()}: {error.strerror or error}",
            hint="make room there, or name another folder with TMPDIR",
        )

    def _end(self, failure: BaseException | None) -> None:
        with self._changed:
            self._ended = True
            self._failure = self._failure or failure
            self._changed.notify()

    def _await_more(self, done: int) -> int:
        """Return how many bytes the follower may take next: none once there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._written > done or self._ended)
            return 0 if self._failure is not None else min(_PIECE, self._written - done)

    def _follow(self) -> None:
        done = 0
        try:
            while size := self._await_more(done):
                piece = os.pread(self._file.fileno(), size, done)
                self._follower.write(piece)
                done += len(piece)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever writes or finishes
            self._failure = error
