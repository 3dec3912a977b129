"""A real cluster in Docker containers: kubelets, containers and volumes, by kind."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
import weakref
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import yaml
from platformdirs import user_state_path

from clusterguard.clusters.kind import members
from clusterguard.clusters.kind.config import chosen_image, is_version, kind_config, published_etcd_ports
from clusterguard.clusters.kind.docker import Docker
from clusterguard.clusters.kind.driver import KindDriver
from clusterguard.clusters.kind.faults import kind_hint, port_was_taken, telling, was_taken
from clusterguard.clusters.kind.records import KindRecord, is_ours, sweep
from clusterguard.clusters.node_shell import DockerNodeShell
from clusterguard.clusters.records import Survey, checked_name, not_running, read_record, survey, write_record
from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    ConfigError,
    NotAllowedError,
    ProgramError,
    ProvisioningError,
    ResourceNotFoundError,
)
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.process import ProcessRecord
from clusterguard.retrying import poll_until
from clusterguard.scratch import private_folder
from clusterguard.sockets import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.clusters.capabilities import MemberPlace
    from clusterguard.clusters.kind.docker import NodeContainer
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kubeadm import KubeadmControlPlane
    from clusterguard.toolchain import Toolchain

__all__ = ["PROGRAMS", "KindCluster", "default_home"]

PROGRAMS = ("kind",)
_ADMINISTRATORS = "/etc/kubernetes/admin.conf"
_LONGEST_NAME = 49  # kind adds "-control-plane", and a host's name has 63 characters at most
_PORT_ATTEMPTS = 3
_READY_SECONDS = 180.0


def default_home() -> Path:
    """Return the folder that the records of kind clusters live under."""
    return user_state_path("clusterguard") / "kind"


class KindCluster:
    """A throwaway Kubernetes cluster of Docker containers, with real kubelets, pods and volumes.

        with KindCluster() as cluster:
            print(cluster.api.server_version())

    Every etcd member is published on the loopback of this machine, so snapshots work wherever Docker runs.

    Args:
        name: Lower-case letters, digits and dashes; by default a random one.
        image: Node image; by default ``CLUSTERGUARD_KIND_IMAGE``, then the one that kind was released with.
        version: Kubernetes version that it must have, such as ``1.36``.
        control_planes: How many control-plane nodes, each with an etcd member and an API server; several are reached
            through kind's load balancer.
        workers: How many nodes beside them.
        config: Configuration file of kind, whose own list of nodes counts; etcd is published in addition.
        toolchain: Where kind comes from, by default found or built as needed.
        home: Folder that its record lives under.
        outlive_us: Keep it when this process ends, until it is deleted. Otherwise whoever starts a cluster next
            removes it, should this process be killed.
        progress: Called as programs are installed and the cluster starts.
        docker: The Docker it runs in.
        sleep: Waits for so many seconds.
    """

    provider = "kind"
    simulated_pods = False

    def __init__(
        self,
        name: str | None = None,
        *,
        image: str | None = None,
        version: str | None = None,
        control_planes: int = 1,
        workers: int = 0,
        config: Path | None = None,
        toolchain: Toolchain | None = None,
        home: Path | None = None,
        outlive_us: bool = False,
        progress: ProgressSink = ignore_progress,
        docker: Docker | None = None,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
    ) -> None:
        name = f"clusterguard-{secrets.token_hex(4)}" if name is None else name
        self.name = checked_name(name, of="kind cluster", longest=_LONGEST_NAME)
        self._image = image
        self._version = version
        self._control_planes = control_planes
        self._workers = workers
        self._config = config
        self._toolchain = toolchain
        self._home = home or default_home()
        self._folder = self._home / self.name
        self._outlive_us = outlive_us
        self._progress = progress
        self._docker = docker or Docker()
        self._sleep = sleep
        self._containers: tuple[NodeContainer, ...] = ()
        self._addresses: dict[str, str] = {}  # of nodes, before they were stopped
        self._api: KubeClient | None = None
        self._etcd: EtcdAccess | None = None
        self._kept = ExitStack()
        weakref.finalize(self, self._kept.close)  # an attached one may be dropped without a close
        self._abandoned = threading.Event()
        self.created_by_us = True
        self.kept = False

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        toolchain: Toolchain | None = None,
        home: Path | None = None,
        docker: Docker | None = None,
        progress: ProgressSink = ignore_progress,
    ) -> Self:
        """Return a kind cluster that is there, whoever created it; `close` leaves it running.

        Raises:
            ClusterError: There is none of that name, or it does not run.
            ProvisioningError: Docker does not answer.
        """
        cluster = cls(toolchain=toolchain, home=home, docker=docker, progress=progress)
        cluster.name = name
        cluster.created_by_us = False
        cluster._attach()
        return cluster

    @staticmethod
    def known(*, home: Path | None = None) -> list[KindRecord]:
        """Return the kind clusters that clusterguard created for this user and whose owner lives."""
        return survey(home or default_home(), KindRecord).known

    @staticmethod
    def survey(*, home: Path | None = None) -> Survey[KindRecord]:
        """Look at the clusters of this user, at what dead runs left behind, and at records that cannot be read."""
        return survey(home or default_home(), KindRecord)

    @staticmethod
    def sweep(*, home: Path | None = None, docker: Docker | None = None) -> list[str]:
        """Remove what dead runs left behind; return the names of their clusters."""
        return sweep(home or default_home(), docker or Docker())

    @property
    def context(self) -> str:
        """The context of the kubeconfig, named as kind does."""
        return f"kind-{self.name}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, in a file of its own: the user's is never written."""
        return self._folder / "kubeconfig"

    @property
    def folder(self) -> Path:
        """The kubeconfig, kind's configuration and its log."""
        return self._folder

    @property
    def nodes(self) -> tuple[NodeContainer, ...]:
        """Its nodes as Docker tells of them now."""
        return tuple(each for each in self._docker.nodes(self.name) if each.is_node)

    @property
    def api(self) -> KubeClient:
        """The administrator's client of the API server."""
        if self._api is None:
            from clusterguard.clusters.kube import KubeClient

            self._api = KubeClient.from_kubeconfig(self.kubeconfig, context=self.context)
        return self._api

    @property
    def etcd(self) -> EtcdAccess:
        """How to reach the etcd member of every control plane that runs, with a client certificate of the first."""
        if self._etcd is None:
            from clusterguard.clusters.kubeadm import etcd_access

            leaders = self._running_leaders()
            endpoints = tuple(each.etcd_url for each in leaders)
            self._etcd = etcd_access(self._shell(leaders[0]), keep=self._kept, endpoints=endpoints)
        return self._etcd

    @property
    def control_plane(self) -> KubeadmControlPlane:
        """How to restart it around a restore; a control plane that is off takes no part, and is missed or said gone."""
        from clusterguard.clusters.kubeadm import KubeadmControlPlane

        return KubeadmControlPlane(
            [self._shell(each) for each in self._running_leaders()],
            workers=[self._shell(each) for each in self.nodes if not each.is_leader and each.running],
            api=lambda: self.api,
            etcdutl=partial(self._program, "etcdutl"),
        )

    def start(self) -> Self:
        """Create the cluster and return once its nodes are ready; whatever fails, everything is removed again.

        Raises:
            ConfigError: The name is taken, or the configuration is wrong.
            ProvisioningError: Docker or kind failed, or it has another version.
            ToolchainError: kind is missing and cannot be installed.
            WaitTimeoutError: Its nodes did not become ready.
        """
        self._docker.require()
        sweep(self._home, self._docker)
        image = chosen_image(image=self._image, version=self._version, environ=os.environ)
        given = _read_config(self._config)
        kind = self._program("kind")
        self._claim_name()
        try:
            self._create(kind, image, given)
            self._wait_until_ready()
            self._check_version()
        except BaseException:
            with contextlib.suppress(ClusterGuardError):  # then the record stays, and the next start tries again
                self.delete()
            raise
        if self._outlive_us:
            self.keep()
        return self

    def keep(self) -> None:
        """Let it outlive this process, until ``clusterguard cluster down`` deletes it."""
        record = read_record(self._folder, KindRecord)
        if record is None:
            raise not_running(self.name)
        write_record(self._folder, replace(record, owner=None))
        self.kept = True

    def abandon(self) -> None:
        """Make a `start` that runs in another thread fail soon, and remove what it has created."""
        self._abandoned.set()
        record = read_record(self._folder, KindRecord)
        if record is not None:
            containers = self._docker.nodes(self.name)
            self._docker.remove(containers if is_ours(containers, record) else ())

    def load_image(self, image: str) -> None:
        """Copy an image from Docker into every node, for pods with ``imagePullPolicy: IfNotPresent``."""
        driver = KindDriver(name=self.name, folder=self._folder, kind=self._program("kind"))
        try:
            driver.load_image(image)
        except ProgramError as error:
            raise ProvisioningError(error.message, hint=error.hint) from error

    @property
    def docker_network(self) -> str:
        """The network of its nodes: containers there and pods reach each other."""
        return self._leaders()[0].network

    def node_power(self) -> dict[str, bool]:
        """Return every node by its name, and whether it runs."""
        return {node.name: node.running for node in self.nodes}

    def stop_node(self, name: str) -> None:
        """Switch a node off at once; nothing on it gets time to end."""
        node = self._node(name)
        if node.address:
            self._addresses[name] = node.address
        self._docker.kill(node)
        self._look_again()

    def start_node(self, name: str) -> None:
        """Switch a node on; it takes a while to be ready.

        Raises:
            ProvisioningError: One of several control planes cannot have the address at which the others know its etcd
                member (``address-taken``); it stays off.
        """
        node = self._node(name)
        pinned = node.is_leader and not node.running and len(self._leaders()) > 1
        self._docker.start(node, address=self._addresses.get(name, "") if pinned else "")
        self._look_again()

    def lose_etcd(self) -> None:
        """Kill every etcd member and throw its data away; it does not come up again by itself."""
        for leader in self._leaders():
            self.lose_member(leader.name)

    def member_states(self) -> dict[str, bool]:
        """Return every member of etcd by its name, which is that of its node, and whether it runs."""
        return {each.name: each.running and members.runs(self._shell(each)) for each in self._leaders()}

    def stop_member(self, name: str) -> None:
        """Kill a member; its data stays. It does not come up again by itself."""
        members.stop(self._shell(self._node(name)))

    def lose_member(self, name: str) -> None:
        """Kill a member and throw its data away; it does not come up again by itself."""
        members.lose(self._shell(self._node(name)))

    def start_member(self, name: str) -> None:
        """Start a member on the data that it has, and wait until it answers.

        Raises:
            ProgramError: It has no data to start with.
            WaitTimeoutError: It does not come up.
        """
        shell = self._shell(self._node(name))
        members.start(shell)
        # Without a majority of the others, which may be started next, it can only answer.
        what, ask = f"the etcd member of {name} answers", partial(members.why_not_ready, shell)
        poll_until(ask, what=what, seconds=_READY_SECONDS, sleep=self._sleep)

    def member_places(self) -> AbstractContextManager[Mapping[str, MemberPlace]]:
        """Keep restores and other replacements out, and give every member whose node runs, by the node's name."""
        return self.control_plane.member_places(client_urls={each.name: each.etcd_url for each in self._leaders()})

    def close(self) -> None:
        """Close it: one that was started here is deleted, one that was attached to stays. Safe to repeat."""
        if self.created_by_us:
            self.delete()
        self._close_client()

    def delete(self) -> None:
        """Delete its containers and its folder. Safe to repeat.

        Raises:
            NotAllowedError: The cluster of that name is not the one that was created here; it is left alone.
            ProvisioningError: Docker does not answer; the record stays, so that the next start tries again.
        """
        self._close_client()
        self._containers = ()
        record = read_record(self._folder, KindRecord)
        containers = self._docker.nodes(self.name) if record is not None else ()
        if record is not None and containers:
            if not is_ours(containers, record):
                shutil.rmtree(self._folder, ignore_errors=True)
                raise NotAllowedError(
                    f"the kind cluster {self.name!r} that is there now is not the one that clusterguard created; "
                    "it was left alone",
                    code="cluster-replaced",
                    fields={"cluster": self.name},
                )
            self._docker.remove(containers)
        if self.created_by_us:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self if self._containers else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- creation ----------------------------------------------------------------------------------------

    def _shell(self, node: NodeContainer) -> DockerNodeShell:
        return DockerNodeShell(node.name, docker=self._docker.program)

    def _program(self, name: str) -> Path:
        if self._toolchain is None:
            from clusterguard.toolchain import from_environment

            self._toolchain = from_environment(os.environ, progress=self._progress)
        return self._toolchain.ensure(name)[name]

    def _claim_name(self) -> None:
        taken = ConfigError(
            f"there is a kind cluster {self.name!r} already; it was not touched",
            code="cluster-exists",
            fields={"provider": "kind", "cluster": self.name},
            hint=f"choose another name; to use that cluster as it is: kind:{self.name}",
        )
        if self.name in self._docker.clusters():
            raise taken
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._folder.mkdir(mode=0o700)
        except FileExistsError as error:
            raise taken from error

    def _create(self, kind: Path, image: str | None, given: object) -> None:
        self._tell(note=f"node image {image}" if image else "kind's own node image")
        driver = KindDriver(name=self.name, folder=self._folder, kind=kind, image=image)
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            config = self._kind_config(given)
            self._write_down(config, image)
            file = self._folder / "kind.yaml"
            file.write_text(yaml.safe_dump(config, sort_keys=False))
            try:
                driver.create(file)
            except ProgramError as error:
                # Somebody may take the port between our look and Docker's: choose another one then.
                if port_was_taken(error.output) and attempt < _PORT_ATTEMPTS and not self._abandoned.is_set():
                    continue
                raise self._explained(error, image) from error
            break
        self._require_wanted()

    def _kind_config(self, given: object) -> dict[str, Any]:
        return kind_config(
            control_planes=self._control_planes, workers=self._workers, etcd_ports=free_ports, given=given
        )

    def _explained(self, error: ProgramError, image: str | None) -> ClusterError | ConfigError:
        if was_taken(error.output):
            return ConfigError(
                f"somebody created a kind cluster {self.name!r} at the same time; it was not touched",
                code="cluster-exists",
                fields={"provider": "kind", "cluster": self.name},
                hint="choose another name",
            )
        self._require_wanted()
        shown = f" from the node image {image}" if image else ""
        message = error.message.replace(f"cluster {self.name} (", f"cluster {self.name}{shown} (", 1)
        return ProvisioningError(
            message,
            code="kind-failed",
            fields={"cluster": self.name, "image": image, "output": error.output},
            hint=error.hint or kind_hint(error.output),
        )

    def _require_wanted(self) -> None:
        if self._abandoned.is_set():
            raise ProvisioningError(f"cluster {self.name!r} is not wanted any more, so its creation was stopped")

    def _write_down(self, config: dict[str, Any], image: str | None) -> None:
        port, *more_ports = published_etcd_ports(config)
        record = KindRecord(
            name=self.name,
            created=time.time(),
            owner=ProcessRecord.of(os.getpid()),  # until it is ready nobody could want to keep it
            etcd_port=port,
            more_etcd_ports=more_ports,
            image=image,
        )
        write_record(self._folder, record)

    def _wait_until_ready(self) -> None:
        self._tell(note="waiting for its nodes")
        what = f"the nodes of cluster {self.name} are ready"
        seconds = _READY_SECONDS * len(self.nodes)  # they share the processors of this machine
        poll_until(self._why_not_ready, what=what, seconds=seconds, hint=self._log_hint, sleep=self._sleep)
        self._look_again()
        self._tell(finished=True)

    def _why_not_ready(self) -> str | None:
        """Pods need ready nodes without taints of their beginning, and the service account that is put into them."""
        self._require_wanted()
        try:
            known = {node["metadata"]["name"]: node for node in self.api.list(self.api.resource("Node"))}
            self.api.get(self.api.resource("ServiceAccount"), "default", "default")
        except ClusterError as error:
            return str(error)
        # By the containers, too: a worker that kind has started may not have said yet that it is there.
        waiting = [node.name for node in self.nodes if node.name not in known or not _is_ready(known[node.name])]
        return f"not ready: {', '.join(waiting)}" if waiting else None

    def _log_hint(self) -> str:
        log = telling((self._folder / "kind.log").read_text(errors="replace"))
        return f"{kind_hint(log)}; kind's log ends:\n{log}"

    def _check_version(self) -> None:
        if self._version is None:
            return
        running = self.api.server_version()
        if not is_version(running, self._version):
            raise ProvisioningError(
                f"Kubernetes {self._version} was asked for, and the node image is {running}",
                code="other-version",
                fields={"requested": self._version, "running": running},
                hint="name an image of that version (CLUSTERGUARD_KIND_IMAGE, --image), or write all three parts of "
                "the version",
            )

    def _tell(self, *, note: str = "", finished: bool = False) -> None:
        self._progress(Progress(task=f"creating kind cluster {self.name}", note=note, finished=finished))

    # ---- what is there already ---------------------------------------------------------------------------

    def _attach(self) -> None:
        self._docker.require()
        self._look_again()
        if not self._containers:
            known = sorted(self._docker.clusters())
            raise ClusterError(
                f"there is no kind cluster {self.name!r}; there are: {', '.join(known) or 'none'}",
                code="cluster-not-found",
                fields={"provider": "kind", "cluster": self.name, "known": known},
            )
        stopped = [each.name for each in self._containers if not each.running]
        if not self._can_serve():
            raise ClusterError(
                f"kind cluster {self.name!r}: {', '.join(stopped)} does not run",
                code="cluster-not-running",
                fields={"cluster": self.name, "stopped": stopped},
                hint=f"docker start {' '.join(stopped)}",
            )
        record = read_record(self._home / self.name, KindRecord)
        self.kept = record is not None and record.owner is None and is_ours(self._containers, record)
        self._folder = self._kept.enter_context(private_folder())
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(self._administrators())

    def _administrators(self) -> str:
        """Return the kubeconfig of a control plane that runs: kind asks one of them, and fails if that is off."""
        leader = self._running_leaders()[0]
        served = next((each for each in self._containers if not each.is_node), leader)
        told = yaml.safe_load(self._shell(leader).read(_ADMINISTRATORS))
        told["clusters"][0]["cluster"]["server"] = f"https://{served.api}"
        told["contexts"][0]["name"] = told["current-context"] = self.context
        return yaml.safe_dump(told)

    def _can_serve(self) -> bool:
        """Return whether a control-plane node runs, and the load balancer where there is one."""
        balanced = all(each.running for each in self._containers if not each.is_node)
        return balanced and any(leader.running for leader in self._leaders())

    def _node(self, name: str) -> NodeContainer:
        nodes = {node.name: node for node in self.nodes}
        if name not in nodes:
            raise ResourceNotFoundError(
                f"kind cluster {self.name} has no node {name}; it has {', '.join(nodes) or 'none'}",
                code="node-not-found",
                fields={"node": name, "known": list(nodes)},
            )
        return nodes[name]

    def _leaders(self) -> list[NodeContainer]:
        """Return the control-plane nodes."""
        if not self._containers:
            raise not_running(self.name)
        return [each for each in self._containers if each.is_leader]

    def _running_leaders(self) -> list[NodeContainer]:
        running = [leader for leader in self._leaders() if leader.running]
        if not running:
            raise not_running(self.name)
        return running

    def _look_again(self) -> None:
        """Forget what was seen of the containers: who runs, and at which address."""
        self._containers = self._docker.nodes(self.name)
        self._etcd = None

    def _close_client(self) -> None:
        if self._api is not None:
            self._api.close()
        self._api, self._etcd = None, None
        self._kept.close()


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", ())}
    keys = {taint["key"] for taint in node["spec"].get("taints", ())}
    return conditions.get("Ready") == "True" and not any(key.startswith("node.kubernetes.io/") for key in keys)


def _read_config(path: Path | None) -> object:
    if path is None:
        return None
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
