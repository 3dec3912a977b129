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

__all__ = ["CONTROLLERS", "MEMBER_NAME", "VELERO_NAMESPACE", "Layout", "argv_of", "kubeconfig_text"]

MEMBER_NAME = "clusterguard"
VELERO_NAMESPACE = "velero"
CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "kwok")
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
        """Live data directory of etcd."""
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


def argv_of(name: str, *, programs: Mapping[str, str], layout: Layout, ports: Ports) -> list[str]:
    """Return the command line of one program of the cluster."""
    arguments = {
        "etcd": _etcd,
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


def _etcd(layout: Layout, ports: Ports) -> list[str]:
    client, peer = f"https://127.0.0.1:{ports.etcd_client}", f"https://127.0.0.1:{ports.etcd_peer}"
    pki = layout.pki
    return [
        f"--name={MEMBER_NAME}",
        f"--data-dir={layout.data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={MEMBER_NAME}={peer}",
        f"--cert-file={pki / 'etcd-server.crt'}",
        f"--key-file={pki / 'etcd-server.key'}",
        f"--trusted-ca-file={pki / 'etcd-ca.crt'}",
        "--client-cert-auth=true",
        f"--peer-cert-file={pki / 'etcd-server.crt'}",
        f"--peer-key-file={pki / 'etcd-server.key'}",
        f"--peer-trusted-ca-file={pki / 'etcd-ca.crt'}",
        "--peer-client-cert-auth=true",
        # A throwaway cluster need not survive a power cut; waiting for the disk only slows every drill down.
        "--unsafe-no-fsync=true",
        "--log-level=warn",
    ]


def _apiserver(layout: Layout, ports: Ports) -> list[str]:
    pki = layout.pki
    return [
        f"--etcd-servers=https://127.0.0.1:{ports.etcd_client}",
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
