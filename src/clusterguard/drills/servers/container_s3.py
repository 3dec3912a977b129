"""A throwaway S3 server in a container, which pods reach by its name and this machine by a port on loopback.

For drills with clusters whose nodes are containers: nothing that listens on this machine's loopback can be reached
from their pods. The container bears the number of the process that it is for; whoever starts one later removes
those whose process is gone.
"""

from __future__ import annotations

import os
import secrets
import time
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Self

from clusterguard.drills.servers.throwaway_s3 import ThrowawayS3Server
from clusterguard.errors import ProgramError, ProvisioningError, ended_at_once
from clusterguard.process import ProcessRecord, run
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULT_IMAGE", "IMAGE_VARIABLE", "ContainerS3Server"]

IMAGE_VARIABLE = "CLUSTERGUARD_S3_IMAGE"
DEFAULT_IMAGE = "versity/versitygw:v1.8.0"
_LABEL = "clusterguard.dev/s3-of"
_PORT = 7070
_DOCKER_SECONDS = 60.0
_PULL_SECONDS = 600.0
_START_SECONDS = 30.0
_POLL_SECONDS = 0.1


class ContainerS3Server(ThrowawayS3Server):
    """A server that pods reach, too.

    Args:
        network: The docker network that the nodes are on: ``kind`` for those of kind.
        image: versitygw's image, by default ``CLUSTERGUARD_S3_IMAGE`` or the official one.
        docker: Docker's command.
        sleep: Waits between two looks at the server.
    """

    def __init__(
        self,
        *,
        network: str,
        image: str | None = None,
        docker: str = "docker",
        sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
    ) -> None:
        super().__init__(sleep=sleep)
        self.name = f"clusterguard-s3-{secrets.token_hex(6)}"
        # Docker's own name service knows the container's name, and the nodes ask it.
        self.endpoint_for_pods = f"http://{self.name}:{_PORT}"
        self._network = network
        self._image = image or os.environ.get(IMAGE_VARIABLE) or DEFAULT_IMAGE
        self._docker = docker
        self._created = False

    def start(self) -> Self:
        """Start serving, with the same data and on the same port as before if it was stopped.

        Raises:
            ProvisioningError: Docker could not do it.
            WaitTimeoutError: It does not answer.
        """
        if self._created:
            self._call("start", self.name)
        else:
            self._sweep()
            self._create()
        what = "the S3 server answers"
        poll_until(self._missing, what=what, seconds=_START_SECONDS, every=_POLL_SECONDS, sleep=self._sleep)
        return self

    def stop(self) -> None:
        """Stop serving; the data stay, and `start` serves them again. Safe to repeat."""
        if self._created and self._runs():
            self._call("kill", self.name)  # as a bucket is lost: without a word

    def remove(self) -> None:
        """Remove the container with its data. Safe to repeat."""
        if self._created:
            self._call("rm", "--force", "--volumes", self.name)
            self._created = False

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _create(self) -> None:
        owner = ProcessRecord.of(os.getpid())
        self._created = True  # from here on there may be something to remove
        keys = self._environment()
        self._call(
            "run",
            "--detach",
            f"--name={self.name}",
            f"--network={self._network}",
            f"--publish=127.0.0.1:{self._port}:{_PORT}",
            f"--label={_LABEL}={owner.pid}@{owner.started}@{owner.boot_id}@{owner.pid_namespace}",
            *(f"--env={key}" for key in keys),  # names alone: docker takes the values from its own environment
            "--volume=/data",
            self._image,
            "--port",
            f":{_PORT}",
            "posix",
            "/data",
            env=keys,
            seconds=_PULL_SECONDS,
        )

    def _sweep(self) -> None:
        """Remove the servers of processes that are gone."""
        shown = f'{{{{.ID}}}} {{{{.Label "{_LABEL}"}}}}'
        for line in self._call("ps", "--all", f"--filter=label={_LABEL}", f"--format={shown}").splitlines():
            container, _, owner = line.partition(" ")
            if not _lives(owner):
                self._call("rm", "--force", "--volumes", container)

    def _missing(self) -> str | None:
        reason = _why_silent(self._port)
        if reason is not None and not self._runs():
            raise ended_at_once(f"the S3 server {self.name}", self._log())
        return reason

    def _runs(self) -> bool:
        return self._call("inspect", "--format={{.State.Running}}", self.name).strip() == "true"

    def _log(self) -> str:
        done = run([self._docker, "logs", "--tail=12", self.name], timeout_seconds=_DOCKER_SECONDS)
        return (done.stdout + done.stderr).strip()

    def _call(self, *words: str, env: dict[str, str] | None = None, seconds: float = _DOCKER_SECONDS) -> str:
        try:
            return run([self._docker, *words], timeout_seconds=seconds, env=env).stdout
        except ProgramError as error:
            raise ProvisioningError(
                f"the throwaway S3 server in a container: {error.message}",
                hint=f"does `docker info` work, and is image {self._image} there? {IMAGE_VARIABLE} names another one",
            ) from error


_WHERE = ("boot_id", "pid_namespace")  # older releases did not write it down


def _why_silent(port: int) -> str | None:
    """Return None once a server answers; that docker accepts a connection for it says nothing."""
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, HTTPException) as error:
        return f"port {port}: {error!r}"
    finally:
        connection.close()
    return None


def _lives(owner: str) -> bool:
    try:
        pid, started, *where = owner.split("@")
        return not ProcessRecord(pid=int(pid), started=float(started), **dict(zip(_WHERE, where, strict=False))).ended()
    except ValueError:
        return True  # not of our writing: not ours to remove
