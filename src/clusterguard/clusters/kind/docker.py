"""Docker, asked about the containers that kind makes of nodes."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterguard.clusters.kind.config import API_PORT, CONTROL_PLANE, ETCD_PORT, WORKER
from clusterguard.clusters.kind.faults import docker_hint
from clusterguard.errors import ProgramError, ProvisioningError
from clusterguard.process import run
from clusterguard.retrying import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Docker", "NodeContainer", "node_of", "thaw"]

_CLUSTER = "io.x-k8s.kind.cluster"
_ROLE = "io.x-k8s.kind.role"
_SECONDS = 30
_REMOVE_SECONDS = 120
_MOST_HELD = 32
_FREEZER = Path("/sys/fs/cgroup/freezer")
_DOES_NOT_END = "did not receive an exit event"
# A container that is just being created or removed is listed, and cannot be looked at.
_SETTLING = RetryPolicy(attempts=20, first_wait_seconds=0.05, longest_wait_seconds=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContainer:
    """One container of a kind cluster: a node, or the load balancer before several API servers.

    Attributes:
        id: Docker's full id of the container.
        name: Of the container, and of the node.
        role: ``control-plane``, ``worker`` or ``external-load-balancer``.
        created: Seconds since the epoch.
        running: Whether it runs now.
        etcd_port: The port of this machine that its etcd is published at, or None.
        api: Host and port of this machine that its API server, or a load balancer, is published at, or ``""``.
        address: Its address in Docker's network, or ``""`` while it does not run.
        network: The name of that network.
        image: The image that it was made from.
    """

    id: str
    name: str
    role: str
    created: float
    running: bool
    etcd_port: int | None
    api: str
    address: str
    network: str
    image: str

    @property
    def is_leader(self) -> bool:
        """Whether it is a control-plane node, with an etcd member and an API server."""
        return self.role == CONTROL_PLANE

    @property
    def is_node(self) -> bool:
        """Whether Kubernetes knows it as a node."""
        return self.role in {CONTROL_PLANE, WORKER}

    @property
    def etcd_url(self) -> str:
        """Client URL of its etcd as this machine reaches it while it runs."""
        return f"https://127.0.0.1:{self.etcd_port}" if self.etcd_port else f"https://{self.address}:{ETCD_PORT}"


class Docker:
    """The Docker of this machine, by its command; ``freezer`` is where cgroup v1 mounts its freezer."""

    def __init__(self, program: str = "docker", *, freezer: Path = _FREEZER) -> None:
        self.program = program
        self._freezer = freezer

    def require(self) -> None:
        """Raise a ProvisioningError with a hint unless Docker is there and answers this user."""
        if shutil.which(self.program) is None:
            raise ProvisioningError(
                f"kind needs Docker, and there is no program {self.program} on PATH",
                code="program-missing",
                fields={"program": self.program},
                hint="https://docs.docker.com/engine/install/; embedded clusters need no Docker",
            )
        self._run(["version", "--format", "{{.Server.Version}}"])

    def nodes(self, cluster: str) -> tuple[NodeContainer, ...]:
        """Return the containers of a kind cluster, stopped ones too, in the order of their names; none without one."""
        found = _SETTLING.run(lambda: self._inspected(cluster), retryable=_is_not_settled)
        return tuple(sorted((node_of(each) for each in found), key=lambda node: node.name))

    def _inspected(self, cluster: str) -> list[Mapping[str, Any]]:
        ids = self._run(["ps", "--all", "--no-trunc", "--quiet", "--filter", f"label={_CLUSTER}={cluster}"]).split()
        return json.loads(self._run(["inspect", "--type", "container", *ids])) if ids else []

    def clusters(self) -> frozenset[str]:
        """Return the names of all kind clusters of this Docker, whoever created them."""
        shown = f'{{{{.Label "{_CLUSTER}"}}}}'
        return frozenset(self._run(["ps", "--all", "--filter", f"label={_CLUSTER}", "--format", shown]).split())

    def remove(self, nodes: Sequence[NodeContainer]) -> None:
        """Remove these very containers, with their volumes; one that is gone already is not an error."""
        if nodes:
            self._end(["rm", "--force", "--volumes"], nodes)

    def kill(self, node: NodeContainer) -> None:
        """End a container at once, as a power cut does; it stays there, stopped."""
        self._end(["kill"], [node])

    def _end(self, words: Sequence[str], nodes: Sequence[NodeContainer]) -> None:
        command = [*words, *(node.id for node in nodes)]
        try:
            self._run(command, seconds=_REMOVE_SECONDS)
        except ProvisioningError as error:
            if _DOES_NOT_END not in error.message or not thaw(self._freezer, [node.id for node in nodes]):
                raise
            self._run(command, seconds=_REMOVE_SECONDS)

    def start(self, node: NodeContainer, *, address: str = "") -> None:
        """Start a container that is stopped; one that runs is not an error.

        Args:
            node: Which.
            address: Where it was before; it gets that one again, or is not started. Docker gives whoever starts the
                lowest that is free, so that those below are held meanwhile.

        Raises:
            ProvisioningError: Something else has that address now (``address-taken``), or Docker failed.
        """
        with ExitStack() as held:
            if address:
                for _ in range(self._free_below(address, node)):
                    held.callback(self._run, ["rm", "--force", self._hold_one(node)])
            self._run(["start", node.id])

    def _free_below(self, address: str, node: NodeContainer) -> int:
        """Return how many addresses Docker would rather give, because they are lower, and free."""
        (network,) = json.loads(self._run(["network", "inspect", node.network]))
        taken = taken_addresses(network)
        wanted = int(IPv4Address(address))
        lowest = min(wanted, *taken)  # the gateway, as a rule
        free = sum(each not in taken for each in range(lowest, wanted))
        if wanted not in taken and free <= _MOST_HELD:
            return free
        raise ProvisioningError(
            f"{node.name} cannot be started at {address}, where the other etcd members know it: "
            + ("something else has that address now" if wanted in taken else f"{free} lower ones are free"),
            code="address-taken",
            fields={"node": node.name, "address": address},
            hint=f"docker network inspect {node.network} shows what has it; stop that, and try again",
        )

    def _hold_one(self, node: NodeContainer) -> str:
        """Take the lowest free address; should we be killed, what holds it ends by itself, and Docker removes it."""
        words = ["run", "--detach", "--rm", "--network", node.network, "--entrypoint", "sleep", node.image, "60"]
        return self._run(words).strip()

    def _run(self, words: Sequence[str], *, seconds: float = _SECONDS) -> str:
        try:
            return run([self.program, *words], timeout_seconds=seconds).stdout
        except ProgramError as error:
            raise self._explained(error) from error

    def _explained(self, error: ProgramError) -> ProvisioningError:
        host = os.environ.get("DOCKER_HOST", "")
        where = f" (DOCKER_HOST={host})" if host else ""
        return ProvisioningError(
            f"docker failed{where}: {error}",
            code="docker-failed",
            fields={"docker_host": host},
            hint=docker_hint(error.message),
        )


def _is_not_settled(error: BaseException) -> bool:
    return isinstance(error, ProvisioningError) and "No such container" in error.message


def thaw(freezer: Path, containers: Sequence[str]) -> int:
    """Thaw what is frozen inside of containers, and return how much that was.

    On hosts with cgroup v1 a runtime freezes a container for a moment while it changes its limits. A node that is
    killed in that moment takes the runtime with it, and what stays frozen cannot be killed.
    """
    states = [state for each in containers for state in freezer.glob(f"**/{each}/**/freezer.state")]
    frozen = [state for state in states if state.read_text().strip() != "THAWED"]
    for state in frozen:
        state.write_text("THAWED")
    return len(frozen)


def node_of(inspected: Mapping[str, Any]) -> NodeContainer:
    """Read what ``docker inspect`` tells of a node."""
    labels = inspected["Config"]["Labels"] or {}
    etcd = _published(inspected, ETCD_PORT)
    api = _published(inspected, API_PORT)
    networks = inspected["NetworkSettings"].get("Networks") or {}
    network = next(iter(networks), "")
    return NodeContainer(
        id=inspected["Id"],
        name=inspected["Name"].removeprefix("/"),
        role=labels.get(_ROLE, ""),
        created=datetime.fromisoformat(inspected["Created"]).timestamp(),
        running=bool(inspected["State"]["Running"]),
        etcd_port=int(etcd.rpartition(":")[2]) if etcd else None,
        # Docker Desktop publishes it elsewhere, and tells that by a label.
        api=labels.get(f"desktop.docker.io/ports/{API_PORT}/tcp") or api,
        address=networks[network].get("IPAddress") or "" if network else "",
        network=network,
        image=inspected["Config"]["Image"],
    )


def _published(inspected: Mapping[str, Any], port: int) -> str:
    """Return host and port that a port of a container is published at, or ``""``."""
    bindings = inspected["HostConfig"].get("PortBindings") or {}
    places = bindings.get(f"{port}/tcp") or [{}]
    host, number = places[0].get("HostIp") or "127.0.0.1", places[0].get("HostPort")
    if not number:
        return ""
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def taken_addresses(network: Mapping[str, Any]) -> frozenset[int]:
    """Return the IPv4 addresses that are not free, of what ``docker network inspect`` tells."""
    gateways = [each.get("Gateway", "") for each in network["IPAM"]["Config"]]
    containers = [each["IPv4Address"].partition("/")[0] for each in network["Containers"].values()]
    return frozenset(int(IPv4Address(each)) for each in (*gateways, *containers) if each and ":" not in each)
