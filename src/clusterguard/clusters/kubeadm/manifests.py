"""Read what a kubeadm static pod manifest says about etcd and the API server. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from clusterguard.clusters.base import EtcdLayout
from clusterguard.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ApiServerManifest", "EtcdManifest", "joining", "relocation"]

_DEFAULT_TOKEN = "etcd-cluster"  # noqa: S105 - etcd's default; it names a cluster and protects nothing
_DEFAULT_API_PORT = 6443
_DEFAULT_PKI = "/etc/kubernetes/pki"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdManifest:
    """How a kubeadm control plane starts its etcd member.

    Attributes:
        name: ``--name``.
        peer_url: ``--initial-advertise-peer-urls``.
        initial_cluster: ``--initial-cluster``, names with peer URLs: the members that there were when it joined.
        token: ``--initial-cluster-token``.
        data_dir: ``--data-dir``, a path in the container.
        host_dir: Where that is on the node.
        image: The container's image.
        client_url: A client URL on the node's loopback.
        advertised_url: The one for others.
        ca: Authority of client certificates, a path on the node.
        joins: Whether it is told that the cluster exists, so that it never begins one without data.
    """

    name: str
    peer_url: str
    initial_cluster: tuple[tuple[str, str], ...]
    token: str
    data_dir: str
    host_dir: str
    image: str
    client_url: str
    advertised_url: str
    ca: str
    joins: bool = False

    @classmethod
    def parse(cls, text: str, *, where: str) -> EtcdManifest:
        """Return what a manifest says; a ClusterError says that it is not kubeadm's."""
        pod, container, flags = _container(text, "etcd", where=where)
        peers = flags.get("initial-advertise-peer-urls", "").split(",")
        missing = [flag for flag in ("name", "data-dir", "trusted-ca-file") if not flags.get(flag)]
        if missing or not peers[0]:
            names = ", ".join(
                f"--{flag}" for flag in [*missing, *([] if peers[0] else ["initial-advertise-peer-urls"])]
            )
            raise ClusterError(
                f"{where}: etcd is started without {names}, so it is not a member as kubeadm makes them",
                hint="restore it with the tool that set this control plane up",
            )
        if len(peers) > 1:
            raise ClusterError(f"{where}: etcd has several peer URLs ({', '.join(peers)}); one is expected")
        data_dir = flags["data-dir"]
        return cls(
            name=flags["name"],
            peer_url=peers[0],
            initial_cluster=_initial_cluster(flags),
            token=flags.get("initial-cluster-token", _DEFAULT_TOKEN),
            data_dir=data_dir,
            host_dir=_host_path(pod, container, data_dir, where=where),
            image=str(container.get("image", "")),
            client_url=_loopback(flags.get("listen-client-urls", "")),
            advertised_url=flags.get("advertise-client-urls", "").partition(",")[0],
            ca=flags["trusted-ca-file"],
            joins=flags.get("initial-cluster-state") == "existing",
        )

    @property
    def pki(self) -> str:
        """The folder of etcd's certificates on the node."""
        return self.ca.rpartition("/")[0]

    @property
    def curl_identity(self) -> str:
        """The options by which etcd lets curl in, as kubeadm's own health check."""
        return f"--cacert {self.ca} --cert {self.pki}/healthcheck-client.crt --key {self.pki}/healthcheck-client.key"

    @property
    def layout(self) -> EtcdLayout:
        """What etcdutl must be told."""
        return EtcdLayout(name=self.name, peer_url=self.peer_url, token=self.token, data_dir=self.host_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerManifest:
    """What an API server's manifest says: its image, its port, the folder of its certificates, which etcd it uses."""

    image: str
    port: int
    pki: str
    etcd_servers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, *, where: str) -> ApiServerManifest:
        """Return what a manifest says."""
        _, container, flags = _container(text, "kube-apiserver", where=where)
        servers = tuple(server for server in flags.get("etcd-servers", "").split(",") if server)
        port = int(flags.get("secure-port", _DEFAULT_API_PORT))
        pki = flags.get("tls-cert-file", "").rpartition("/")[0] or _DEFAULT_PKI
        return cls(image=str(container.get("image", "")), port=port, pki=pki, etcd_servers=servers)


def relocation(manifest: EtcdManifest, target: str) -> tuple[str, ...]:
    """Return the sed expressions that move a member to another data directory, on the node and in the container.

    kubeadm uses one path for both; where a manifest has two, the container's stays and only the node's moves.
    """
    old = _sed_pattern(manifest.host_dir)
    expressions = [f"s|path: {old}$|path: {target}|"]
    if manifest.data_dir == manifest.host_dir:
        expressions += [f"s|mountPath: {old}$|mountPath: {target}|", f"s|--data-dir={old}$|--data-dir={target}|"]
    return tuple(expressions)


def joining(members: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sed expressions by which a member without data joins others (peer URLs by name, itself among them)."""
    listed = ",".join(f"{name}={url}" for name, url in members.items())
    line = r"\1- --initial-cluster"
    return (
        "/--initial-cluster-state=/d",
        rf"s|^\( *\)- --initial-cluster=.*|{line}={listed}\n{line}-state=existing|",
    )


def _container(text: str, name: str, *, where: str) -> tuple[Mapping[str, Any], Mapping[str, Any], dict[str, str]]:
    try:
        pod = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ClusterError(f"{where} is not valid YAML: {error}", hint="repair it first") from error
    spec = pod.get("spec") if isinstance(pod, dict) else None
    containers = spec.get("containers") if isinstance(spec, dict) else None
    for container in containers or ():
        if container.get("name") == name:
            return pod, container, _flags([*(container.get("command") or ()), *(container.get("args") or ())])
    raise ClusterError(f"{where} has no container {name!r}", hint="is it the manifest that kubeadm wrote?")


def _flags(words: Sequence[object]) -> dict[str, str]:
    flags: dict[str, str] = {}
    waiting = ""
    for word in map(str, words):
        if word.startswith("-"):
            name, given, value = word.lstrip("-").partition("=")
            flags[name] = value if given else ""
            waiting = "" if given else name
        elif waiting:
            flags[waiting], waiting = word, ""
    return flags


def _initial_cluster(flags: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    pairs = (part.partition("=") for part in flags.get("initial-cluster", "").split(",") if part)
    return tuple((name, url) for name, _, url in pairs)


def _host_path(pod: Mapping[str, Any], container: Mapping[str, Any], data_dir: str, *, where: str) -> str:
    mounts = {str(mount.get("mountPath")): mount for mount in container.get("volumeMounts") or ()}
    volumes = {volume.get("name"): volume for volume in pod["spec"].get("volumes") or ()}
    mount = mounts.get(data_dir)
    volume = volumes.get(mount.get("name")) if mount else None
    path = ((volume or {}).get("hostPath") or {}).get("path")
    if not path:
        raise ClusterError(
            f"{where}: no hostPath volume is mounted at etcd's data directory {data_dir}",
            hint="only data that lies on the node itself can be restored here",
        )
    return str(path).rstrip("/")


def _loopback(urls: str) -> str:
    for url in filter(None, urls.split(",")):
        parts = urlsplit(url)
        if parts.hostname in {"127.0.0.1", "localhost", "::1"}:
            return url
    first = urlsplit(urls.split(",", maxsplit=1)[0])
    return f"{first.scheme or 'https'}://127.0.0.1:{first.port or 2379}"


def _sed_pattern(text: str) -> str:
    return "".join(f"\\{character}" if character in r"\.*[]^$|" else character for character in text)
