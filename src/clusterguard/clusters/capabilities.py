"""What some clusters can do and others cannot: asked for with ``isinstance``, never by the provider's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from clusterguard.clusters.kube import KubeClient

__all__ = [
    "EditsMembers",
    "EtcdFaults",
    "ExternalVelero",
    "HasExternalVelero",
    "LoadsImages",
    "MemberFaults",
    "MemberPlace",
    "NodePowerControl",
    "OnDockerNetwork",
    "Persistable",
    "ReplacesMembers",
    "StopsControllers",
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

    def start_member(self, name: str) -> None:
        """Start a member on the data that it has, and wait until it answers.

        Raises:
            ClusterError: It does not come up.
        """


class MemberPlace(Protocol):
    """Where a member of etcd runs, and the steps there of its replacement by an empty one, each safe to repeat.

    What it had lies aside until `finish`, and is not looked at again.
    """

    @property
    def name(self) -> str:
        """What etcd calls it."""

    @property
    def peer_url(self) -> str:
        """Where the other members reach it."""

    @property
    def client_url(self) -> str:
        """Where this machine reaches it."""

    @property
    def begun(self) -> bool:
        """Whether a replacement was begun there and did not end."""

    def serves(self) -> bool:
        """Return whether it serves, asked from right beside it."""

    def check(self, *, needed_bytes: int) -> None:
        """Return if it can be replaced there by one with so many bytes of data, or raise a ClusterError."""

    def set_aside(self) -> None:
        """Stop it and what depends on it, and move its data aside; that of a replacement that did not end goes."""

    def start_empty(self, members: Mapping[str, str]) -> None:
        """Start it without data, as one that joins members (peer URLs by name), and wait until it serves.

        Raises:
            ClusterGuardError: It does not come up; one that the others have not added is refused by them.
        """

    def finish(self) -> str:
        """Start what depends on it, and give the old data the name that means done; return where it is."""


@runtime_checkable
class ReplacesMembers(Protocol):
    """A cluster whose members of etcd can be replaced one by one, each where it runs."""

    def member_places(self) -> AbstractContextManager[Mapping[str, MemberPlace]]:
        """Keep restores and other replacements out, and give every member that is within reach, by its name."""


@runtime_checkable
class StopsControllers(Protocol):
    """A cluster whose controllers can be kept from making good what somebody changes."""

    def controllers_stopped(self) -> AbstractContextManager[object]:
        """Stop controllers and scheduler while the ``with`` block runs; after it they know nothing of what was then."""


@runtime_checkable
class EditsMembers(Protocol):
    """A cluster that lets the database of one etcd member be changed behind the others' backs."""

    def replace_in_member(self, name: str, old: bytes, new: bytes) -> int:
        """Replace bytes by as many others wherever they lie in the database of a stopped member; return how often."""


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
