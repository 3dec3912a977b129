"""The container that a step acts in: of one Pod, as soon as it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from clusterguard.documents.model import Label, Model, Name, Omitted, Selector
from clusterguard.errors import ClusterUnreachableError, ResourceNotFoundError, WaitTimeoutError
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kube_exec import Container

__all__ = ["NOT_RUNNING", "ExecTarget", "one_line"]

NOT_RUNNING = (ClusterUnreachableError, ResourceNotFoundError, WaitTimeoutError)
"""What a check meets in a container that does not run: it is red then, not broken."""

_POLL_SECONDS = 0.5
_LONGEST_LINE = 200


class ExecTarget(Model):
    """The container that a command runs in: of one ready Pod, chosen by name or by labels."""

    namespace: Label
    """The Pod's namespace."""
    pod: Name | Omitted = None
    """The Pod's name."""
    selector: Selector | Omitted = None
    """Labels of the Pod; the first ready one is taken."""
    container: Label | Omitted = None
    """The container's name; the Pod's first one when left out."""

    @model_validator(mode="after")
    def _one_pod(self) -> ExecTarget:
        self.need_one("pod", "selector")
        return self

    def __str__(self) -> str:
        container = f", container {self.container}" if self.container else ""
        return f"{self.namespace}/{self.pod or f'a ready Pod {self.selector}'}{container}"

    def find(self, api: KubeClient) -> Container:
        """Return the container, which must run.

        Raises:
            ClusterUnreachableError: It does not run now.
            ConfigError: The Pod has no such container.
        """
        from clusterguard.clusters.kube_exec import find_container

        return find_container(api, self.namespace, pod=self.pod, selector=self.selector, container=self.container)

    def wait(self, api: KubeClient, *, seconds: float) -> Container:
        """Return the container as soon as it runs.

        Raises:
            WaitTimeoutError: It does not.
        """
        found: list[Container] = []

        def ask() -> str | None:
            try:
                found.append(self.find(api))
            except ClusterUnreachableError as error:
                return error.message
            return None

        what = f"a container of {self.namespace}/{self.pod or self.selector} runs"
        poll_until(ask, what=what, seconds=seconds, every=_POLL_SECONDS)
        return found[0]


def one_line(text: str) -> str:
    """Return what a program or a server said, in one line that fits a report."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
