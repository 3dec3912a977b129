"""The command lines of an embedded control plane: pure functions of its folder and ports."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from clusterguard.clusters.velero_settings import FAST_SERVER_ARGS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clusterguard.clusters.embedded.records import Ports

__all__ = [
    "CONTROLLERS",
    "MEMBER_NAME",
    "NEW_CLUSTER",
    "VELERO_NAMESPACE",
    "Layout",
    "Member",
    "argv_of",
    "certificate_of",
    "etcd_programs",
    "kubeconfig_text",
    "members_of",
]

MEMBER_NAME = "clusterguard"
VELERO_NAMESPACE = "velero"
CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "kwok")
NEW_CLUSTER = ("--initial-cluster-state=new",)
"""What etcd is started with once, when the cluster is created: a member that has lost its data must not begin one."""
_SERVICE_CIDR = "10.96.0.0/16"
_ISSUER = "https://kubernetes.default.svc.cluster.local"
# Documentation addresses (RFC 5737): the API server wants an address to advertise that is not loopback, and with
# the endpoint reconciler off it never does advertise it.
_ADVERTISED = "192.0.2.1"
# Shorter than the defaults of 15, 10 and 2 seconds: a crashed leader is followed sooner, and a busy two-core
# machine still renews in time.
_LEADER_ELECTION = (
    "--leader-elect=true",
    "--leader-elect-lease-duration=6s",
    "--leader-elect-renew-deadline=5s",
    "--leader-elect-retry-period=500ms",
)
_COMPONENT = (
    *("--secure-port=0", "--profiling=false", "--kube-api-qps=200", "--kube-api-burst=400"),
    *_LEADER_ELECTION,
)
# Where the cluster exists already, a member without data is refused instead of beginning another one of the same id.
_AMONG_OTHERS = ("--initial-cluster-state=existing",)
# Before it elects itself, a member waits one to ten heartbeats: half a second of each start, with those of a network.
_ALONE = ("--heartbeat-interval=20", "--election-timeout=200")
# kwok renews a node's Lease at a quarter of this, so fresh evidence after a restore is at most 2 s away.
_NODE_LEASE_SECONDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the files of one cluster are."""

    folder: Path

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.folder / "pki"

    @property
    def data(self) -> Path:
        """Live data directory of etcd, or of its first member."""
        return self.folder / "etcd"

    @property
    def logs(self) -> Path:
        """One log for each program."""
        return self.folder / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def velero_plugins(self) -> Path:
        """Velero's plugins, and nothing else: Velero runs every program in it."""
        return self.folder / "velero-plugins"

    @property
    def velero_scratch(self) -> Path:
        """Temporary files of the Velero server, credentials among them."""
        return self.folder / "velero-scratch"

    def kubeconfig_of(self, user: str) -> Path:
        """Return the kubeconfig of a component."""
        return self.pki / f"{user}.kubeconfig"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of etcd.

    Attributes:
        program: What it is called among the cluster's programs.
        name: What etcd calls it.
        client_port: For clients.
        peer_port: For the other members.
        data: Its live data directory.
    """

    program: str
    name: str
    client_port: int
    peer_port: int
    data: Path

    @property
    def client_url(self) -> str:
        """For clients."""
        return f"https://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """For the other members."""
        return f"https://127.0.0.1:{self.peer_port}"


def etcd_programs(count: int) -> tuple[str, ...]:
    """Return what so many members are called among a cluster's programs: a single one ``etcd``."""
    return tuple(f"etcd{_suffix(number)}" for number in range(1, count + 1))


def members_of(layout: Layout, ports: Ports) -> tuple[Member, ...]:
    """Return the members of a cluster."""
    return tuple(
        Member(
            program=program,
            name=program.replace("etcd", MEMBER_NAME),
            client_port=client,
            peer_port=peer,
            data=layout.data.with_name(program),
        )
        for program, (client, peer) in zip(etcd_programs(len(ports.members)), ports.members, strict=True)
    )


def certificate_of(program: str) -> str:
    """Return the file name of a member's certificate, without its extension."""
    return program.replace("etcd", "etcd-server")


def _suffix(number: int) -> str:
    return f"-{number}" if number > 1 else ""


def argv_of(name: str, *, programs: Mapping[str, str], layout: Layout, ports: Ports) -> list[str]:
    """Return the command line of one program of the cluster."""
    for member in members_of(layout, ports):
        if member.program == name:
            return [programs["etcd"], *_etcd(member, layout, ports)]
    arguments = {
        "kube-apiserver": _apiserver,
        "kube-controller-manager": _controller_manager,
        "kube-scheduler": _scheduler,
        "kwok": _kwok,
        "velero": _velero,
    }[name](layout, ports)
    return [programs[name], *arguments]


def kubeconfig_text(*, server: str, ca: Path, cert: Path, key: Path, context: str) -> str:
    """Return a kubeconfig that names its files, so that no key is copied into it."""
    return f"""\
apiVersion: v1
kind: Config
current-context: {context}
contexts:
- name: {context}
  context: {{cluster: {context}, user: {context}}}
clusters:
- name: {context}
  cluster: {{server: "{server}", certificate-authority: "{ca}"}}
users:
- name: {context}
  user: {{client-certificate: "{cert}", client-key: "{key}"}}
"""


def _etcd(member: Member, layout: Layout, ports: Ports) -> list[str]:
    cert, key = (layout.pki / f"{certificate_of(member.program)}.{end}" for end in ("crt", "key"))
    members = members_of(layout, ports)
    return [
        f"--name={member.name}",
        f"--data-dir={member.data}",
        f"--listen-client-urls={member.client_url}",
        f"--advertise-client-urls={member.client_url}",
        f"--listen-peer-urls={member.peer_url}",
        f"--initial-advertise-peer-urls={member.peer_url}",
        f"--initial-cluster={','.join(f'{each.name}={each.peer_url}' for each in members)}",
        f"--cert-file={cert}",
        f"--key-file={key}",
        f"--trusted-ca-file={layout.pki / 'etcd-ca.crt'}",
        "--client-cert-auth=true",
        f"--peer-cert-file={cert}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={layout.pki / 'etcd-ca.crt'}",
        "--peer-client-cert-auth=true",
        # A throwaway cluster need not survive a power cut; waiting for the disk only slows every drill down.
        "--unsafe-no-fsync=true",
        "--log-level=warn",
        *(_AMONG_OTHERS if len(members) > 1 else _ALONE),
    ]


def _apiserver(layout: Layout, ports: Ports) -> list[str]:
    pki = layout.pki
    return [
        f"--etcd-servers={','.join(member.client_url for member in members_of(layout, ports))}",
        f"--etcd-cafile={pki / 'etcd-ca.crt'}",
        f"--etcd-certfile={pki / 'apiserver-etcd-client.crt'}",
        f"--etcd-keyfile={pki / 'apiserver-etcd-client.key'}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.api}",
        f"--advertise-address={_ADVERTISED}",
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--service-account-issuer={_ISSUER}",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--service-cluster-ip-range={_SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def _controller_manager(layout: Layout, _: Ports) -> list[str]:
    return [
        f"--kubeconfig={layout.kubeconfig_of('kube-controller-manager')}",
        f"--service-account-private-key-file={layout.pki / 'service-account.key'}",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        "--use-service-account-credentials=true",
        *_COMPONENT,
    ]


def _scheduler(layout: Layout, _: Ports) -> list[str]:
    return [f"--kubeconfig={layout.kubeconfig_of('kube-scheduler')}", *_COMPONENT]


def _velero(layout: Layout, _: Ports) -> list[str]:
    return [
        # "server" comes first: the plugins are started with what follows it.
        "server",
        f"--kubeconfig={layout.kubeconfig}",
        f"--namespace={VELERO_NAMESPACE}",
        f"--plugin-dir={layout.velero_plugins}",
        "--metrics-address=127.0.0.1:0",
        "--profiler-address=",
        "--log-level=info",
        *FAST_SERVER_ARGS,
    ]


def _kwok(layout: Layout, _: Ports) -> list[str]:
    return [
        f"--kubeconfig={layout.kubeconfig_of('kwok')}",
        f"--config={files('clusterguard.clusters.embedded') / 'stages.yaml'}",
        "--manage-all-nodes=true",
        f"--node-lease-duration-seconds={_NODE_LEASE_SECONDS}",
    ]
