"""kind, driven by pytest-kind's ``KindCluster``. The only user of pytest-kind."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from subprocess import CalledProcessError  # noqa: TID251 - what pytest-kind raises; nothing is run here
from typing import TYPE_CHECKING

from clusterguard.clusters.kind.faults import kind_hint, telling
from clusterguard.errors import ConfigError, ProgramError
from clusterguard.process import dying_with_us

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_kind import KindCluster

__all__ = ["KindDriver"]

# What pytest-kind runs as kind. Its own way leaves three gaps: what kind says is gone with the terminal; a killed
# parent leaves a kind that goes on creating; and a cluster that bears the name already is taken for one's own, which
# ends here because `get clusters` tells of none, so that kind itself has to refuse.
_WRAPPER = """#!/bin/sh
if [ "$1" = get ]; then exit 0; fi
KIND_EXPERIMENTAL_PROVIDER=docker
export KIND_EXPERIMENTAL_PROVIDER
exec {command} "$@" </dev/null >>{log} 2>&1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindDriver:
    """Creates one kind cluster, and loads images; its log and its kubeconfig are in ``folder``.

    Nothing is deleted by its name here: a cluster of that name may be somebody else's.
    """

    name: str
    folder: Path
    kind: Path
    image: str | None = None

    @property
    def log(self) -> Path:
        """What kind printed."""
        return self.folder / "kind.log"

    def create(self, config: Path) -> None:
        """Create the cluster as a configuration file says; its nodes may not be ready yet."""
        self._told(lambda: self._cluster().create(config), f"kind could not create cluster {self.name}")

    def load_image(self, image: str) -> None:
        """Copy an image from Docker into every node."""
        self._told(lambda: self._cluster().load_docker_image(image), f"kind could not load {image} into {self.name}")

    def _cluster(self) -> KindCluster:
        try:
            from pytest_kind import KindCluster
        except ImportError as error:
            raise ConfigError(
                "kind clusters need the Python package pytest-kind", hint="pip install 'clusterguard[kind]'"
            ) from error

        wrapper = self.folder / "kind"
        command = shlex.join(dying_with_us([self.kind]))
        wrapper.write_text(_WRAPPER.format(command=command, log=shlex.quote(str(self.log))))
        wrapper.chmod(0o700)
        # It makes a folder .pytest-kind/NAME in the working directory, unless the name is an absolute path. Its
        # `api` is never used: pykube leaves the administrator's key in the temporary directory for all to read.
        cluster = KindCluster(
            str(self.folder),
            kubeconfig=self.folder / "kubeconfig",
            image=self.image,
            kind_path=wrapper,
            kubectl_path=self.folder / "kubectl",  # never run; by default it would be downloaded
        )
        cluster.name = self.name
        return cluster

    def _told(self, act: Callable[[], object], what: str) -> None:
        self.log.touch()
        start = self.log.stat().st_size
        try:
            act()
        except CalledProcessError as error:
            said = telling(self.log.read_bytes()[start:].decode(errors="replace"))
            message = f"{what} (exit code {error.returncode}):\n{said}"
            raise ProgramError(message, exit_code=error.returncode, output=said, hint=kind_hint(said)) from error
