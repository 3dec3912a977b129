"""A real control plane as child processes on loopback, its nodes and pods simulated by kwok."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Self

from platformdirs import user_state_path

from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.certificates import Authority, write_key_pair
from clusterguard.clusters.embedded import simulator
from clusterguard.clusters.embedded.commands import (
    CONTROLLERS,
    NEW_CLUSTER,
    Layout,
    certificate_of,
    etcd_programs,
    kubeconfig_text,
    members_of,
)
from clusterguard.clusters.embedded.control_plane import EmbeddedControlPlane
from clusterguard.clusters.embedded.programs import Programs
from clusterguard.clusters.embedded.records import ClusterRecord, Ports, discard, sweep
from clusterguard.clusters.embedded.velero_server import VeleroServer
from clusterguard.clusters.records import Survey, checked_name, not_running, read_record, survey, write_record
from clusterguard.errors import ClusterError, ConfigError, ProvisioningError
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.process import ProcessRecord
from clusterguard.sockets import free_ports, require_free
from clusterguard.toolchain.programs import named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from clusterguard.clusters.capabilities import MemberPlace
    from clusterguard.clusters.embedded.commands import Member
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.toolchain import Toolchain

__all__ = ["PROGRAMS", "EmbeddedCluster", "default_home"]

PROGRAMS = ("etcd", "etcdutl", "kube-apiserver", *CONTROLLERS)
_NODE = "simulated-1"
_START_SECONDS = 90.0
_PORT_ATTEMPTS = 3
_LONGEST_NAME = 40
_MEMBER_COUNTS = (1, 3, 5)
_USERS = {
    "kube-controller-manager": "system:kube-controller-manager",
    "kube-scheduler": "system:kube-scheduler",
    "kwok": simulator.KWOK_USER,
}


def default_home() -> Path:
    """Return the folder that embedded clusters live under."""
    return user_state_path("clusterguard") / "clusters"


class EmbeddedCluster:
    """A throwaway Kubernetes cluster that needs nothing installed.

    etcd, the API server, the controller manager and the scheduler are the real programs, with TLS, client
    certificates and RBAC. **Pods are simulated**: they are scheduled and get a status, but no process runs, so
    a drill here proves that the control plane's state comes back, not that a container starts.

        with EmbeddedCluster() as cluster:
            print(cluster.api.server_version())

    Args:
        name: Lower-case letters, digits and dashes; by default a random one.
        toolchain: Where the programs come from, by default found or built as needed.
        home: Folder that it lives under.
        outlive_us: Keep it running when this process ends, until it is deleted. Otherwise the kernel ends its
            programs with us, however we end.
        members: How many members etcd has: 1, 3 or 5. One API server speaks to them all.
        api_port: Port of the API server; by default a free one.
        progress: Called as programs are installed.
    """

    provider = "embedded"
    simulated_pods = True
    context: str | None = None
    _program_names: tuple[str, ...] = PROGRAMS
    _components: tuple[str, ...] = CONTROLLERS  # beside the API server, each with a user of its own

    def __init__(
        self,
        name: str | None = None,
        *,
        toolchain: Toolchain | None = None,
        home: Path | None = None,
        outlive_us: bool = False,
        members: int = 1,
        api_port: int | None = None,
        progress: ProgressSink = ignore_progress,
    ) -> None:
        name = f"run-{secrets.token_hex(4)}" if name is None else name
        self.name = checked_name(name, of="cluster", longest=_LONGEST_NAME)
        self._member_count = _odd(members)
        self._toolchain = toolchain
        self._home = home or default_home()
        self._layout = Layout(folder=self._home / self.name)
        self._outlive_us = outlive_us
        self._api_port = api_port
        self._progress = progress
        self._programs: Programs | None = None
        self._api: KubeClient | None = None
        self._velero: VeleroServer | None = None
        self.created_by_us = True

    @classmethod
    def attach(cls, name: str, *, home: Path | None = None) -> Self:
        """Return a cluster that ``outlive_us`` kept; `close` leaves it running.

        An interrupted restore in it is rolled back first, and programs that ended are started again.

        Raises:
            ClusterError: There is no such cluster, or the process that it belonged to is gone.
            ProgramError: One of its programs is not there any more.
            ProvisioningError: One of its programs cannot be started again.
        """
        cluster = cls(name, home=home, outlive_us=True)
        record = read_record(cluster._layout.folder, ClusterRecord)
        if record is None:
            raise ClusterError(
                f"no embedded cluster {name!r} under {cluster._home}",
                code="cluster-not-found",
                fields={"provider": "embedded", "cluster": name},
                hint=f"clusterguard cluster up {name}",
            )
        cluster._programs = Programs(cluster._layout, record, outlive_us=True)
        cluster.created_by_us = False
        if record.orphaned():
            raise ClusterError(
                f"cluster {name!r} ended with the process that owned it",
                code="cluster-not-running",
                fields={"cluster": name},
                hint=f"clusterguard cluster up {name}",
            )
        if record.owner is None:  # otherwise its owner is at work on it
            cluster._recover()
        return cluster

    @staticmethod
    def known(*, home: Path | None = None) -> list[ClusterRecord]:
        """Return the embedded clusters of this user whose owner lives."""
        return survey(home or default_home(), ClusterRecord).known

    @staticmethod
    def survey(*, home: Path | None = None) -> Survey[ClusterRecord]:
        """Look at the clusters of this user, at what dead runs left behind, and at records that cannot be read."""
        return survey(home or default_home(), ClusterRecord)

    @staticmethod
    def sweep(*, home: Path | None = None) -> list[str]:
        """Remove what dead runs left behind; return the names of their clusters."""
        return sweep(home or default_home())

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self._layout.kubeconfig

    @property
    def folder(self) -> Path:
        """Everything of the cluster: certificates, logs, etcd's data."""
        return self._layout.folder

    @property
    def record(self) -> ClusterRecord:
        """What is written down about it."""
        return self._running().record

    @property
    def etcd(self) -> EtcdAccess:
        """How to reach etcd, with a client certificate."""
        pki = self._layout.pki
        return EtcdAccess(
            endpoints=tuple(member.client_url for member in self._members().values()),
            ca=pki / "etcd-ca.crt",
            cert=pki / "clusterguard-etcd-client.crt",
            key=pki / "clusterguard-etcd-client.key",
        )

    @property
    def control_plane(self) -> EmbeddedControlPlane:
        """How to restart it around a restore."""
        return EmbeddedControlPlane(programs=self._running(), api=lambda: self.api)

    @property
    def velero_server(self) -> VeleroServer:
        """A Velero server beside it, which is started on demand."""
        if self._velero is None:
            self._velero = VeleroServer(self._running(), self._tools().ensure)
        return self._velero

    @property
    def api(self) -> KubeClient:
        """The administrator's client of the API server."""
        if self._api is None:
            from clusterguard.clusters.kube import KubeClient

            self._api = KubeClient.from_kubeconfig(self.kubeconfig)
        return self._api

    def start(self) -> Self:
        """Create the cluster and return once it schedules and runs pods; whatever fails, everything is removed again.

        Raises:
            ConfigError: The name is taken.
            ToolchainError: A program is missing and cannot be installed.
            ProvisioningError: ``api_port`` is taken, or a program ended at once.
            WaitTimeoutError: It did not become ready.
        """
        sweep(self._home)
        if self._api_port is not None:
            require_free(self._api_port)
        found = self._tools().ensure(*self._program_names)
        programs = {named(name).file: str(path) for name, path in found.items()}
        self._claim_folder()
        try:
            self._create(programs)
        except BaseException:
            self.delete()
            raise
        return self

    def lose_etcd(self) -> None:
        """Kill etcd and throw its data away; a file in the member's place keeps it from starting empty."""
        for name in self._members():
            self.lose_member(name)

    def member_states(self) -> dict[str, bool]:
        """Return every member of etcd by its name, and whether it runs."""
        return {name: self._running().running(member.program) for name, member in self._members().items()}

    def stop_member(self, name: str) -> None:
        """Kill a member; its data stays."""
        self._running().stop(self._members()[name].program, grace_seconds=0)

    def start_member(self, name: str) -> None:
        """Start a member on the data that it has, and wait until it serves."""
        self.control_plane.start_member(self._members()[name].program)

    def lose_member(self, name: str) -> None:
        """Kill a member and throw its data away; it does not come up again by itself."""
        self.stop_member(name)
        data = self._members()[name].data / "member"
        if not data.is_file():
            shutil.rmtree(data, ignore_errors=True)
            data.touch()

    def replace_in_member(self, name: str, old: bytes, new: bytes) -> int:
        """Replace bytes by as many others wherever they lie in the database of a stopped member; return how often.

        Raises:
            ClusterError: They are not as many, or the member runs.
        """
        member = self._members()[name]
        if len(old) != len(new) or self._running().running(member.program):
            raise ClusterError(f"the database of member {name} cannot be edited: it runs, or would have another size")
        database = member.data / "member" / "snap" / "db"
        content = database.read_bytes()
        database.write_bytes(content.replace(old, new))
        return content.count(old)

    def member_places(self) -> AbstractContextManager[Mapping[str, MemberPlace]]:
        """Keep restores and other replacements out, and give every member, by its name."""
        return self.control_plane.member_places()

    @contextlib.contextmanager
    def controllers_stopped(self) -> Iterator[None]:
        """Stop controllers, scheduler and the simulation of nodes while the ``with`` block runs."""
        # Ended, not paused: a garbage collector that had seen an object go would take what belonged to it later on,
        # even if the object is back by then.
        self._running().stop(*CONTROLLERS, grace_seconds=0)
        try:
            yield
        finally:
            self.control_plane.start_controllers()

    def close(self) -> None:
        """Close it: one that was started here is deleted, one that was attached to stays. Safe to repeat."""
        if self.created_by_us:
            self.delete()
        self._stop_velero()
        self._close_client()

    def delete(self) -> None:
        """End its processes and remove its folder. Safe to repeat."""
        self._close_client()
        self._stop_velero()
        discard(self._layout.folder, read_record(self._layout.folder, ClusterRecord))
        self._programs = None

    def __enter__(self) -> Self:
        return self if self._programs else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stop_velero(self) -> None:
        """Stop the server that was started here: it holds a port that other clusters wait for."""
        if self._velero is not None:
            self._velero.stop()
            self._velero = None

    def _close_client(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    def _recover(self) -> None:
        control_plane = self.control_plane
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(control_plane.exclusive())
            except ClusterError:
                return  # another process is restoring right now, so nothing is left over
            control_plane.recover()

    def _tools(self) -> Toolchain:
        if self._toolchain is None:
            from clusterguard.toolchain import from_environment

            self._toolchain = from_environment(os.environ, progress=self._progress)
        return self._toolchain

    def _claim_folder(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._layout.folder.mkdir(mode=0o700)
        except FileExistsError as error:
            raise ConfigError(
                f"there is an embedded cluster {self.name!r} already, in {self._layout.folder}",
                code="cluster-exists",
                fields={"provider": "embedded", "cluster": self.name},
                hint=f"clusterguard cluster down {self.name}, or choose another name",
            ) from error
        self._layout.pki.mkdir(mode=0o700)
        self._layout.logs.mkdir()

    def _create(self, programs: Mapping[str, str]) -> None:
        self._progress(Progress(task=f"starting cluster {self.name}"))
        self._write_certificates()
        for attempt in range(_PORT_ATTEMPTS):
            self._programs = self._begin(programs)
            try:
                self._bring_up(self._programs)
                break
            except ProvisioningError:
                # Somebody may take a port between our look and the program's bind: choose others then.
                members = etcd_programs(self._member_count)
                taken = any(self._programs.port_was_taken(name) for name in (*members, "kube-apiserver"))
                if not taken or self._api_port is not None or attempt == _PORT_ATTEMPTS - 1:
                    raise
                self._programs.stop(*members, *self._program_names, grace_seconds=0)
                for name in members:
                    shutil.rmtree(self._layout.folder / name, ignore_errors=True)  # it knows the others by their ports
                self._close_client()  # it speaks to the old port
                for log in self._layout.logs.iterdir():
                    log.unlink()
        if self._outlive_us:
            self._running().give_away()
        self._progress(Progress(task=f"starting cluster {self.name}", finished=True))

    def _begin(self, programs: Mapping[str, str]) -> Programs:
        client, peer, api, *more = free_ports(1 + 2 * self._member_count)
        further = tuple(zip(more[::2], more[1::2], strict=True))
        ports = Ports(etcd_client=client, etcd_peer=peer, api=self._api_port or api, further=further)
        record = ClusterRecord(
            name=self.name,
            created=time.time(),
            owner=ProcessRecord.of(os.getpid()),  # until it is ready nobody could want to keep it
            ports=ports,
            programs=programs,
        )
        write_record(self._layout.folder, record)
        self._write_kubeconfigs(ports)
        return Programs(self._layout, record, outlive_us=self._outlive_us, flags=self._flags())

    def _flags(self) -> Mapping[str, tuple[str, ...]]:
        """Return what the programs of this kind of cluster are started with beside the usual."""
        return {}

    def _bring_up(self, programs: Programs) -> None:
        if self._member_count > 1:
            programs.start(*etcd_programs(self._member_count), flags=NEW_CLUSTER)
        programs.start("etcd", "kube-apiserver")
        control_plane = self.control_plane
        control_plane.start_etcd()
        control_plane.wait_until_api_answers()
        for manifest in (*simulator.rbac(), simulator.node(_NODE)):
            self.api.create(manifest)
        # Controllers that ask before its own roles are there are forbidden, and come back up to a second later.
        control_plane.wait_until_api_is_ready()
        programs.start(*CONTROLLERS)
        programs.wait("kwok", "the simulated node is ready", self._why_no_pods_yet, seconds=_START_SECONDS)

    def _why_no_pods_yet(self) -> str | None:
        """Pods need a ready node without taints, and the service account that admission puts into them."""
        try:
            node = self.api.get(self.api.resource("Node"), _NODE)
            self.api.get(self.api.resource("ServiceAccount"), "default", "default")
        except ClusterError as error:
            return str(error)
        conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", ())}
        if conditions.get("Ready") != "True" or node["spec"].get("taints"):
            return f"node {_NODE}: Ready={conditions.get('Ready')}, taints={node['spec'].get('taints')}"
        return None

    def _write_certificates(self) -> None:
        pki = self._layout.pki
        etcd_authority = Authority("etcd-ca", folder=pki)
        for program in etcd_programs(self._member_count):
            etcd_authority.issue(certificate_of(program), common_name="etcd")
        etcd_authority.issue("apiserver-etcd-client", common_name="kube-apiserver-etcd-client")
        etcd_authority.issue("clusterguard-etcd-client", common_name="clusterguard")
        authority = Authority("ca", folder=pki)
        authority.issue("apiserver", common_name="kube-apiserver")
        authority.issue("admin", common_name="clusterguard-admin", organisation="system:masters")
        for name in self._components:
            authority.issue(name, common_name=_USERS[name])
        write_key_pair(pki, "service-account")

    def _write_kubeconfigs(self, ports: Ports) -> None:
        targets = {"admin": self._layout.kubeconfig}
        targets |= {name: self._layout.kubeconfig_of(name) for name in self._components}
        for user, target in targets.items():
            text = kubeconfig_text(
                server=f"https://127.0.0.1:{ports.api}",
                ca=self._layout.pki / "ca.crt",
                cert=self._layout.pki / f"{user}.crt",
                key=self._layout.pki / f"{user}.key",
                context=f"clusterguard-{self.name}",
            )
            target.write_text(text)
            target.chmod(0o600)

    def _running(self) -> Programs:
        if self._programs is None:
            raise not_running(self.name)
        return self._programs

    def _members(self) -> dict[str, Member]:
        programs = self._running()
        return {member.name: member for member in members_of(programs.layout, programs.record.ports)}


def _odd(members: int) -> int:
    if members not in _MEMBER_COUNTS:
        raise ConfigError(
            f"an embedded cluster cannot have {members} members of etcd",
            code="invalid-member-count",
            fields={"members": members},
            hint="1, 3 or 5: an even number tolerates no more losses than the odd one below it",
        )
    return members
