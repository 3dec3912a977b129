"""A throwaway S3 server on loopback: versitygw over a folder. For drills and tests, never for backups to keep."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

from clusterguard.errors import ProvisioningError, WaitTimeoutError
from clusterguard.process import ProcessRecord, spawn, tail
from clusterguard.sockets import free_ports, listening
from clusterguard.stores.s3 import S3Credentials, S3Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["LocalS3Server"]

_START_SECONDS = 30.0
_POLL_SECONDS = 0.03
_REGION = "us-east-1"
_BUCKET_FOLDERS = "buckets"


class LocalS3Server:
    """Runs as long as the ``with`` block, and dies with this process.

    Args:
        program: Path of versitygw.
        folder: Where its data and its log lie.
        sleep: Waits between two looks at the port.
    """

    region = _REGION

    def __init__(
        self,
        *,
        program: Path,
        folder: Path,
        sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
    ) -> None:
        self._program = program
        self._folder = folder
        self._sleep = sleep
        self._process: ProcessRecord | None = None
        (self._port,) = free_ports(1)
        self.access_key = f"drill{secrets.token_hex(6)}"
        self._secret_key = secrets.token_hex(20)

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def endpoint_for_pods(self) -> str | None:
        """Nothing: what listens on loopback is reached from this machine alone."""
        return None

    @property
    def credentials(self) -> S3Credentials:
        """What it lets in; made anew for each server."""
        return S3Credentials(access_key=self.access_key, secret_key=self._secret_key)

    def credentials_file(self) -> str:
        """Return the credentials in the form of an AWS credentials file."""
        return f"[default]\naws_access_key_id={self.access_key}\naws_secret_access_key={self._secret_key}\n"

    def location(self, bucket: str, prefix: str = "") -> str:
        """Return the location of a bucket, as `open_store` takes it."""
        query = urlencode({"endpoint": self.endpoint, "region": _REGION, "pathStyle": "true"})
        return f"s3://{bucket}{f'/{prefix}' if prefix else ''}?{query}"

    def store(self, bucket: str, prefix: str = "") -> S3Store:
        """Return a store in a bucket."""
        return S3Store(
            bucket=bucket,
            prefix=prefix,
            endpoint=self.endpoint,
            region=_REGION,
            path_style=True,
            credentials=self.credentials,
        )

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket: for versitygw that is a folder."""
        (self._folder / _BUCKET_FOLDERS / bucket).mkdir(parents=True, exist_ok=True)

    def start(self) -> Self:
        """Start serving, on the same port as before if it was stopped.

        Raises:
            ProvisioningError: The server ended at once, or somebody took the port while it was stopped.
            WaitTimeoutError: It does not answer.
        """
        if self._process is not None and self._process.alive():
            return self
        buckets = self._folder / _BUCKET_FOLDERS
        buckets.mkdir(parents=True, exist_ok=True)
        if listening(self._port) is None:  # whoever that is would pass for this server
            raise ProvisioningError(f"port {self._port} of the S3 server was taken by another program meanwhile")
        log = self._folder / "versitygw.log"
        argv: list[str | Path] = [self._program, "--port", f"127.0.0.1:{self._port}", "posix", buckets]
        # Keys on a command line can be read by everybody on the machine; the environment cannot.
        keys = {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self._secret_key, "VGW_REGION": _REGION}
        self._process = spawn(argv, log=log, env=keys)
        deadline = time.monotonic() + _START_SECONDS
        while listening(self._port) is not None:
            if not self._process.alive():
                raise ProvisioningError(f"versitygw ended right after its start:\n{tail(log)}")
            if time.monotonic() > deadline:
                raise WaitTimeoutError("versitygw answers", seconds=_START_SECONDS, last_seen=tail(log))
            self._sleep(_POLL_SECONDS)
        return self

    def stop(self) -> None:
        """Stop serving; the data stay, and `start` serves them again."""
        if self._process is not None:
            self._process.stop(grace_seconds=1.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
