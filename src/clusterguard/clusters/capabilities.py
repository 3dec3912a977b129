"""What some clusters can do and others cannot: asked for with ``isinstance``, never by the provider's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from clusterguard.clusters.kube import KubeClient

__all__ = [
    "EtcdFaults",
    "ExternalVelero",
    "HasExternalVelero",
    "LoadsImages",
    "MemberFaults",
    "NodePowerControl",
    "OnDockerNetwork",
    "Persistable",
]


class ExternalVelero(Protocol):
    """A Velero server that runs beside a cluster, as a process of this machine."""

    def program(self, name: str) -> Path:
        """Return the path of one of its programs, which is got when it is missing."""

    def running(self) -> bool:
        """Return whether it runs."""

    def start(self, *, on_wait: Callable[[str], object] = ...) -> None:
        """Start it unless it runs, and return once it works on requests; ``on_wait`` is told what is waited for."""


@runtime_checkable
class HasExternalVelero(Protocol):
    """A cluster whose pods run no programs, so that a Velero server runs beside it."""

    @property
    def velero_server(self) -> ExternalVelero:
        """The server."""


@runtime_checkable
class OnDockerNetwork(Protocol):
    """A cluster whose nodes are containers: its pods reach other containers of their network by name."""

    @property
    def docker_network(self) -> str:
        """The network's name."""


@runtime_checkable
class LoadsImages(Protocol):
    """A cluster that takes images from this machine, so that its nodes need not pull them."""

    def load_image(self, image: str) -> None:
        """Copy an image into every node."""


@runtime_checkable
class EtcdFaults(Protocol):
    """A cluster whose etcd can be lost with its data, as by a broken disk."""

    def lose_etcd(self) -> None:
        """Kill every member and throw its data away; it does not come up again by itself."""


@runtime_checkable
class MemberFaults(Protocol):
    """A cluster whose members of etcd can be stopped, started and lost one by one."""

    def member_states(self) -> Mapping[str, bool]:
        """Return every member by its name, in an order that stays, and whether it runs."""

    def stop_member(self, name: str) -> None:
        """Kill a member; its data stays. It does not come up again by itself."""

    def lose_member(self, name: str) -> None:
        """Kill a member and throw its data away, as by a broken disk; it does not come up again by itself."""

    def start_member(self, name: str, *, empty: bool = False) -> None:
        """Start a member and wait until it serves; ``empty``: without data, as one that joins anew.

        Raises:
            ClusterError: It does not come up; an empty one that the others have not added is refused by them.
        """

    def member_url(self, name: str) -> str:
        """Return the URL at which the other members reach a member."""


@runtime_checkable
class Persistable(Protocol):
    """A cluster that would go with this process, unless it is kept."""

    kept: bool
    """Whether clusterguard created it, and it was kept."""

    def keep(self) -> None:
        """Let it outlive this process."""


@runtime_checkable
class NodePowerControl(Protocol):
    """A cluster whose nodes can be switched off as by a power cut, and on again."""

    @property
    def api(self) -> KubeClient:
        """The client of its API server."""

    def node_power(self) -> Mapping[str, bool]:
        """Return every node by its name, and whether it runs."""

    def stop_node(self, name: str) -> None:
        """Switch a node off at once; nothing on it gets time to end."""

    def start_node(self, name: str) -> None:
        """Switch a node on; it takes a while to be ready."""
