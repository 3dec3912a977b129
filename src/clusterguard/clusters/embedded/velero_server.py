"""A real Velero server beside an embedded cluster, as a child process.

Velero's server also listens on port 8080 of every address, and no flag changes that: of two servers on one machine
the second one ends. So only one runs at a time: it holds a lock for as long as it runs, another process waits for
the lock, and another cluster of this process takes the port over. A server is only needed while a backup or a
restore is made; what it did is in the cluster and in the bucket.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from filelock import FileLock, Timeout

from clusterguard.errors import ProvisioningError, WaitTimeoutError
from clusterguard.model.progress import Progress, ignore_progress
from clusterguard.process import tail
from clusterguard.sockets import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterguard.clusters.embedded.programs import Programs
    from clusterguard.model.progress import ProgressSink

__all__ = ["VELERO_PROGRAMS", "VeleroServer"]

VELERO_PROGRAMS = ("velero", "velero-plugin-for-aws")
_PORT = 8080
# Without credentials the plugin would ask the metadata service of a cloud machine, and wait for it.
_NO_METADATA_SERVICE = {"AWS_EC2_METADATA_DISABLED": "true"}
_LOCK = Path(tempfile.gettempdir()) / f"clusterguard-velero-{os.getuid()}.lock"
_WAIT_SECONDS = 900.0
_START_SECONDS = 60.0
_GRACE_SECONDS = 3.0


class VeleroServer:
    """Starts and stops the Velero server of one cluster, which becomes one of its programs."""

    _lock: ClassVar[FileLock | None] = None
    _holder: ClassVar[VeleroServer | None] = None

    def __init__(
        self,
        programs: Programs,
        find: Callable[..., Mapping[str, Path]],
        *,
        progress: ProgressSink = ignore_progress,
    ) -> None:
        self._programs = programs
        self._find = find
        self._paths: dict[str, Path] = {}
        self._progress = progress

    def program(self, name: str) -> Path:
        """Return the path of one of its programs, which is got when it is missing."""
        if not self._paths:
            self._paths = dict(self._find(*VELERO_PROGRAMS))
        return self._paths[name]

    def running(self) -> bool:
        """Return whether this cluster's server runs."""
        return self._programs.running("velero")

    def start(self) -> None:
        """Start the server unless it runs, and return once it works on requests.

        Raises:
            ProvisioningError: It ended at once.
            WaitTimeoutError: Another server kept the port, or this one did not come up.
        """
        if self.running():
            return
        self._take_the_port()
        layout = self._programs.layout
        layout.velero_scratch.mkdir(mode=0o700, exist_ok=True)
        self._lay_out_plugins()
        log = self._programs.log("velero")
        log.unlink(missing_ok=True)
        self._programs.add_program("velero", str(self.program("velero")))
        self._programs.start(
            "velero", env={"TMPDIR": str(layout.velero_scratch), "VELERO_NAMESPACE": "velero", **_NO_METADATA_SERVICE}
        )
        try:
            self._programs.wait(
                "velero",
                "the Velero server starts",
                lambda: tail(log, lines=2) if listening(_PORT) is not None else None,
                seconds=_START_SECONDS,
            )
        except (ProvisioningError, WaitTimeoutError):
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and free the port; what it was working on is marked failed at its next start."""
        self._programs.stop("velero", grace_seconds=_GRACE_SECONDS)
        if VeleroServer._holder is self and VeleroServer._lock is not None:
            VeleroServer._lock.release()
            VeleroServer._holder = None

    def _take_the_port(self) -> None:
        if VeleroServer._holder is not None:
            VeleroServer._holder.stop()
        lock = VeleroServer._lock = VeleroServer._lock or FileLock(_LOCK, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._progress(Progress(task="waiting for another Velero server on this machine to end"))
            try:
                lock.acquire(timeout=_WAIT_SECONDS)
            except Timeout as error:
                raise WaitTimeoutError(
                    f"port {_PORT}, which every Velero server needs, is free",
                    seconds=_WAIT_SECONDS,
                    last_seen="another run of clusterguard holds it",
                ) from error
        VeleroServer._holder = self
        if listening(_PORT) is None:
            lock.release()
            VeleroServer._holder = None
            raise ProvisioningError(
                f"port {_PORT} is taken by another program, and a Velero server cannot use another one",
                code="port-taken",
                fields={"port": _PORT},
                hint="end that program while drills with Velero run",
            )

    def _lay_out_plugins(self) -> None:
        folder = self._programs.layout.velero_plugins
        folder.mkdir(exist_ok=True)
        target = folder / "velero-plugin-for-aws"
        if not target.exists():
            source = self.program("velero-plugin-for-aws")
            try:
                os.link(source, target)
            except OSError:  # another file system
                shutil.copy2(source, target)
