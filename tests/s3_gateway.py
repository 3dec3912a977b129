"""A real S3 server on this machine: versitygw above a directory."""

from __future__ import annotations

import contextlib
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clusterguard.process import spawn, tail
from clusterguard.stores.s3 import S3Credentials, S3Store

if TYPE_CHECKING:
    from pathlib import Path

BUCKET = "backups"
CREDENTIALS = S3Credentials(access_key="test-access", secret_key="test-secret")


@dataclass(frozen=True)
class Gateway:
    endpoint: str
    directory: Path

    def store(self, **settings):
        """Return a store in its bucket; settings as of S3Store, with patience for tests."""
        defaults = {
            "bucket": BUCKET,
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "path_style": True,
            "credentials": CREDENTIALS,
            "part_size": 5 << 20,
            "read_timeout_seconds": 30,
        }
        return S3Store(**{**defaults, **settings})

    def behind(self, endpoint):
        """Return the same server as seen through a proxy."""
        return replace(self, endpoint=endpoint)


@contextmanager
def gateway(program, directory, *, tls=None):
    """Run a server with one bucket; ``tls`` is (certificate file, key file)."""
    data = directory / "data"
    (data / BUCKET).mkdir(parents=True)
    port = free_port()
    flags = ["--cert", tls[0], "--key", tls[1]] if tls else []
    log = directory / "versitygw.log"
    server = spawn(
        [program, "--port", f"127.0.0.1:{port}", "--quiet", *flags, "posix", data],
        log=log,
        env={"ROOT_ACCESS_KEY": CREDENTIALS.access_key, "ROOT_SECRET_KEY": CREDENTIALS.secret_key},
    )
    try:
        _wait_for(port, server, log)
        yield Gateway(endpoint=f"{'https' if tls else 'http'}://127.0.0.1:{port}", directory=data)
    finally:
        server.stop(grace_seconds=10)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_for(port, server, log):
    for _ in range(600):
        assert server.alive(), tail(log)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(tail(log))
