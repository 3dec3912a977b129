"""Velero's own server with the defaults that a user has, out of the cluster, against a real S3 server."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from clusterguard.clusters.embedded import velero_server
from clusterguard.process import ProcessRecord, spawn, tail
from clusterguard.sockets import listening

PORT = 8080  # it binds *:8080 whatever it is told, so one at a time on this machine
LOCK = FileLock(Path(tempfile.gettempdir()) / "clusterguard-test-velero.lock")  # against other tests
OTHER_LOCK = FileLock(velero_server._LOCK)  # against drills
PROGRAMS = ("velero", "velero-plugin-for-aws", "versitygw")


@dataclass
class Server:
    programs: dict[str, Path]
    kubeconfig: Path
    folder: Path
    flags: tuple[str, ...] = ()
    process: ProcessRecord | None = field(default=None)

    def start(self):
        scratch, plugins = self.folder / "scratch", self.folder / "plugins"
        scratch.mkdir(parents=True, exist_ok=True)
        plugins.mkdir(exist_ok=True)
        plugin = plugins / "velero-plugin-for-aws"
        if not plugin.exists():
            plugin.symlink_to(self.programs["velero-plugin-for-aws"])
        self.log.unlink(missing_ok=True)
        self.process = spawn(
            [
                self.programs["velero"],
                "server",
                f"--kubeconfig={self.kubeconfig}",
                "--namespace=velero",
                f"--plugin-dir={plugins}",
                "--metrics-address=127.0.0.1:0",
                "--profiler-address=",
                *self.flags,
            ],
            log=self.log,
            # A bucket that is down is told at its first refusal, and not after seconds of trying again.
            env={"TMPDIR": str(scratch), "VELERO_NAMESPACE": "velero", "AWS_MAX_ATTEMPTS": "1"},
        )
        return self

    @property
    def log(self):
        return self.folder / "velero.log"

    def wait_until_it_works(self, *, seconds=30):
        deadline = time.monotonic() + seconds
        while listening(PORT) is not None:
            assert self.process.alive(), tail(self.log, lines=30)
            assert time.monotonic() < deadline, tail(self.log, lines=30)
            time.sleep(0.02)
        return self

    def kill(self):
        """End it with SIGKILL, and the plugins that it started with it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.stop(grace_seconds=0)

    def stop(self):
        if self.process is not None:
            self.process.stop(grace_seconds=3)
