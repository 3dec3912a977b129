"""A throwaway S3 server on loopback: versitygw over a folder. For drills and tests, never for backups to keep."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from clusterguard.drills.servers.throwaway_s3 import ThrowawayS3Server
from clusterguard.errors import ProvisioningError, ended_at_once
from clusterguard.process import ProcessRecord, spawn, tail
from clusterguard.retrying import poll_until
from clusterguard.sockets import listening

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["LocalS3Server"]

_START_SECONDS = 30.0
_POLL_SECONDS = 0.03


class LocalS3Server(ThrowawayS3Server):
    """A server that dies with this process.

    Args:
        program: Path of versitygw.
        folder: Where its data and its log lie.
        sleep: Waits between two looks at the port.
    """

    def __init__(
        self,
        *,
        program: Path,
        folder: Path,
        sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
    ) -> None:
        super().__init__(sleep=sleep)
        self._program = program
        self._buckets = folder / "buckets"
        self._log = folder / "versitygw.log"
        self._process: ProcessRecord | None = None

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket: for versitygw that is a folder."""
        (self._buckets / bucket).mkdir(parents=True, exist_ok=True)

    def start(self) -> Self:
        """Start serving, on the same port as before if it was stopped.

        Raises:
            ProvisioningError: The server ended at once, or another program took the port while it was stopped.
            WaitTimeoutError: It does not answer.
        """
        if self._process is not None and self._process.alive():
            return self
        self._buckets.mkdir(parents=True, exist_ok=True)
        if listening(self._port) is None:  # its answers would pass for this server's
            raise ProvisioningError(f"port {self._port} of the S3 server was taken by another program meanwhile")
        argv: list[str | Path] = [self._program, "--port", f"127.0.0.1:{self._port}", "posix", self._buckets]
        self._process = spawn(argv, log=self._log, env=self._environment())
        what = "versitygw answers"
        poll_until(self._missing, what=what, seconds=_START_SECONDS, every=_POLL_SECONDS, sleep=self._sleep)
        return self

    def _missing(self) -> str | None:
        if listening(self._port) is None:
            return None
        if self._process is None or not self._process.alive():
            raise ended_at_once("versitygw", tail(self._log))
        return tail(self._log) or "it does not listen"

    def stop(self) -> None:
        """Stop serving; the data stay, and `start` serves them again."""
        if self._process is not None:
            self._process.stop(grace_seconds=1.0)
