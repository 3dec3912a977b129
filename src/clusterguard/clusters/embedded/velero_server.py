"""A real Velero server beside an embedded cluster, as a child process.

Velero's server also listens on port 8080 of every address, and no flag changes that: of two servers on one machine
the second one ends. So only one runs at a time: whoever starts it holds a lock for as long as it runs, another
process waits for the lock, and another cluster of this process takes the port over. It ends with the process that
holds the lock, also where its cluster stays. A server is only needed while a backup or a restore is made; what it did
is in the cluster and in the bucket.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from filelock import FileLock, Timeout

from clusterguard.errors import ProvisioningError, WaitTimeoutError
from clusterguard.process import tail
from clusterguard.sockets import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterguard.clusters.embedded.programs import Programs

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
    ) -> None:
        self._programs = programs
        self._find = find
        self._paths: dict[str, Path] = {}

    def program(self, name: str) -> Path:
        """Return the path of one of its programs, which is got when it is missing."""
        if not self._paths:
            self._paths = dict(self._find(*VELERO_PROGRAMS))
        return self._paths[name]

    def running(self) -> bool:
        """Return whether this cluster's server runs."""
        return self._programs.running("velero")

    def start(self, *, on_wait: Callable[[str], object] = lambda _: None) -> None:
        """Start the server unless this process runs it already, and return once it works on requests.

        Args:
            on_wait: Told once, in words, when another process has the port and must end first.

        Raises:
            ProvisioningError: It ended at once.
            WaitTimeoutError: Another server kept the port, or this one did not come up.
        """
        if VeleroServer._holder is self and self.running():
            return
        self._take_the_port(on_wait)
        layout = self._programs.layout
        layout.velero_scratch.mkdir(mode=0o700, exist_ok=True)
        self._lay_out_plugins()
        log = self._programs.log("velero")
        log.unlink(missing_ok=True)
        self._programs.add_program("velero", str(self.program("velero")))
        self._programs.start(
            "velero",
            # Relative to its folder: plugins make sockets there, whose paths the kernel limits to 107 bytes.
            env={"TMPDIR": layout.velero_scratch.name, "VELERO_NAMESPACE": "velero", **_NO_METADATA_SERVICE},
            outlive_us=False,  # the lock goes with this process
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
        """Stop the server and free the port; what it was working on is marked failed at its next start.

        A server that another process started is left to that process.
        """
        if VeleroServer._holder is self and VeleroServer._lock is not None:
            self.end_program()
            VeleroServer._lock.release()
            VeleroServer._holder = None

    def end_program(self) -> None:
        """End the server, and keep the lock."""
        self._programs.stop("velero", grace_seconds=_GRACE_SECONDS)

    def _take_the_port(self, on_wait: Callable[[str], object]) -> None:
        lock = VeleroServer._lock = VeleroServer._lock or FileLock(_LOCK, thread_local=False)
        if VeleroServer._holder is not None:
            VeleroServer._holder.end_program()  # the lock stays with this process, or another one would come between
        else:
            _acquire(lock, on_wait)
        VeleroServer._holder = self
        self.end_program()  # one that still runs is nobody's: whoever held the lock is gone
        if listening(_PORT) is None:
            self.stop()
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


def _acquire(lock: FileLock, on_wait: Callable[[str], object]) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait(f"waiting for port {_PORT}, which every Velero server needs: {_holder_of(_LOCK)} has it")
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
        except Timeout as error:
            raise WaitTimeoutError(
                f"port {_PORT}, which every Velero server needs, is free",
                seconds=_WAIT_SECONDS,
                last_seen=f"{_holder_of(_LOCK)} has it",
                hint="wait for its end, or end it",
            ) from error


def _holder_of(path: Path) -> str:
    """Return in words which process holds a lock, as far as the kernel tells."""
    try:
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE 1234 fe:00:9986553 0 EOF
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
                name = Path("/proc", words[4], "comm").read_text().strip()
                return f"process {words[4]} ({name})"
    except (OSError, IndexError):
        pass
    return "another run of clusterguard"
