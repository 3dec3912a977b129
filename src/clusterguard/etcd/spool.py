"""A snapshot on its way into a store that gives no local file.

etcd keeps a read transaction open while it sends, and its database grows meanwhile, so a slow upload must not
slow the stream. The stream goes into a scratch file at its own speed; the upload follows behind it. The file holds the
whole database at the end, and its contents are read from there: what the store has of them may be encrypted for others.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

from clusterguard.scratch import unnamed_file
from clusterguard.threads import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from clusterguard.stores.base import ObjectWriter

__all__ = ["Spool"]

_PIECE = 1024 * 1024


class Spool:
    """A scratch file that one side writes and one follower reads at the same time.

    Args:
        follower: Gets every byte, in order, from a thread of its own.
        scratch: Folder for the file, by default that of `scratch_folder`. It has no name and is gone with the process.
        needed: How many bytes are expected: without room for them nothing is begun.
    """

    def __init__(self, follower: ObjectWriter, *, scratch: Path | None = None, needed: int = 0) -> None:
        self._follower = follower
        self._scratch = scratch
        self._needed = needed
        self._written = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self._file = unnamed_file(self._scratch, needed=self._needed)
        self._thread = Worker(self._follow, name="clusterguard-upload")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            self._end(BrokenPipeError("the stream into the spool failed"))
        self._thread.join()  # it reads the file
        self._file.close()

    @property
    def path(self) -> Path:
        """A path to the file, valid inside the ``with`` block."""
        return self._file.path

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Append bytes; returns as soon as the scratch file has them.

        Raises:
            ScratchError: The scratch folder is full.
            StoreError: The follower failed.
        """
        if self._failure is not None:
            raise self._failure
        self._file.write(data)
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

    def _end(self, failure: BaseException | None) -> None:
        with self._changed:
            self._ended = True
            # The first one explains what follows from it.
            self._failure = self._failure or failure
            self._changed.notify()

    def _await_more(self, done: int) -> int:
        """Return how many bytes the follower may take next: none once there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._written > done or self._ended)
            return 0 if self._failure is not None else min(_PIECE, self._written - done)

    def _follow(self) -> None:
        done, buffer = 0, memoryview(bytearray(_PIECE))
        try:
            while size := self._await_more(done):
                # At a place of its own: the position of the file is the writer's.
                read = os.preadv(self._file.fileno(), [buffer[:size]], done)
                self._follower.write(buffer[:read])
                done += read
        except BaseException as error:  # noqa: BLE001 - raised again by whoever writes or finishes
            self._failure = error
