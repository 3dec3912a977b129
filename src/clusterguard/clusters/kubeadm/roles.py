"""What a node has of a control plane: a member of etcd, an API server, both, or neither, as workers."""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterguard.clusters.kubeadm.commands import ASIDE, JOURNAL, MANIFESTS
from clusterguard.clusters.kubeadm.etcd_units import DROP_IN, PROPERTIES, UNIT, EtcdUnit, is_in_use
from clusterguard.clusters.kubeadm.manifests import ApiServerManifest, EtcdManifest
from clusterguard.errors import ProgramError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clusterguard.clusters.kubeadm.etcd_setup import EtcdSetup
    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["Roles", "is_control_plane", "roles_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What a node runs of a control plane, wherever a restore may have left it.

    Attributes:
        etcd: How its member is started: as a static pod, or as a unit of systemd.
        api: Its API server's manifest.
        kubelet: Whether a kubelet runs there.
        hostname: What the node calls itself.
    """

    etcd: EtcdSetup | None = None
    api: ApiServerManifest | None = None
    kubelet: bool = False
    hostname: str = ""

    def __bool__(self) -> bool:
        return bool(self.etcd or self.api)

    @property
    def identity(self) -> str:
        """What its journal calls it, whatever name it is reached by: as its member, or as its API server."""
        if self.etcd:
            return self.etcd.name
        # One that finds its address by itself is not told apart by that.
        return f"kube-apiserver {self.api.address or self.hostname}" if self.api else ""


def roles_of(shell: NodeShell) -> Roles:
    """Look at a node, in one round trip where etcd is no unit; touches nothing.

    Raises:
        ClusterError: What starts etcd or the API server cannot be read.
        ProgramError: The node cannot be asked.
    """
    told = _told(shell.run(["sh", "-c", _script()]))
    texts = {pod: base64.b64decode(told[pod][0]).decode() for pod in ("etcd", "kube-apiserver") if pod in told}
    where = f"{shell.name}:{MANIFESTS}"
    etcd: EtcdSetup | None = None
    if "etcd" in texts:
        etcd = EtcdManifest.parse(texts["etcd"], where=f"{where}/etcd.yaml")
    elif "stopped" in told or is_in_use(told):
        etcd = EtcdUnit.parse(told, read=lambda path: _text_of(shell, path), where=f"{shell.name}:{UNIT}")
    api = None
    if "kube-apiserver" in texts:
        api = ApiServerManifest.parse(texts["kube-apiserver"], where=f"{where}/kube-apiserver.yaml")
    hostname = next(iter(told.get("hostname", ())), "")
    return Roles(etcd=etcd, api=api, kubelet=bool(texts) or "kubelet" in told, hostname=hostname)


def is_control_plane(shell: NodeShell) -> bool:
    """Tell whether a node has a member of etcd or an API server, or what is left of a restore of them."""
    told = _told(shell.run(["sh", "-c", _script()]))
    return bool({"etcd", "kube-apiserver", "stopped", "journal"} & set(told)) or is_in_use(told)


def _script() -> str:
    return "\n".join(
        (
            # Whoever may not look there must not be told that there is nothing.
            f"{{ ! test -e {MANIFESTS} || ls {MANIFESTS} >/dev/null; }} || exit",
            f"for pod in etcd kube-apiserver; do for place in {ASIDE} {MANIFESTS}; do",
            "if test -e $place/$pod.yaml; then",
            'text=$(base64 -w 0 $place/$pod.yaml) || exit; echo "$pod=$text"; break; fi; done; done',
            f"test -e {DROP_IN} && echo stopped=yes; test -e {JOURNAL} && echo journal=yes",
            "systemctl is-active --quiet kubelet 2>/dev/null && echo kubelet=yes",
            "echo hostname=$(hostname)",
            f"systemctl show {UNIT} --property={','.join(PROPERTIES)} 2>/dev/null",
            "true",
        )
    )


def _told(text: str) -> Mapping[str, Sequence[str]]:
    told: defaultdict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if value:
            told[name].append(value)
    return dict(told)


def _text_of(shell: NodeShell, path: str) -> str | None:
    try:
        return shell.read(path).decode(errors="replace")
    except ProgramError as error:
        if "No such file" in error.output:
            return None
        raise
