"""Read what a kubeadm static pod manifest says about etcd and the API server. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from clusterguard.clusters.kubeadm.etcd_setup import EtcdSetup, Identity, read_flags, told_by_flags
from clusterguard.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ApiServerManifest", "EtcdManifest", "joining", "never_beginning", "relocation"]

_DEFAULT_API_PORT = 6443
_DEFAULT_PKI = "/etc/kubernetes/pki"
_DEFAULT_PREFIX = "/registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdManifest(EtcdSetup):
    """A member that is a static pod of the node's kubelet.

    Attributes:
        joins: Whether it is told that the cluster exists, so that it never begins one without data.
    """

    joins: bool = False

    @classmethod
    def parse(cls, text: str, *, where: str) -> EtcdManifest:
        """Return what a manifest says; a ClusterError says that it is not kubeadm's."""
        pod, container, flags = _container(text, "etcd", where=where)
        told = told_by_flags(flags, where=where, required=("trusted-ca-file", "advertise-client-urls"))
        ca = flags["trusted-ca-file"]
        pki = ca.rpartition("/")[0]
        return cls(
            **told,
            host_dir=_host_path(pod, container, told["data_dir"], where=where),
            image=str(container.get("image", "")),
            client_url=_loopback(flags.get("listen-client-urls", "")) or told["advertised_url"],
            joins=flags.get("initial-cluster-state") == "existing",
            # As kubeadm's own health check.
            identity=Identity(ca=ca, cert=f"{pki}/healthcheck-client.crt", key=f"{pki}/healthcheck-client.key"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerManifest:
    """What an API server's manifest says.

    Attributes:
        image: The container's image.
        port: ``--secure-port``.
        address: ``--advertise-address``, under which it tells in etcd that it lives; ``""`` where it finds it itself.
        pki: The folder of its certificates on the node.
        etcd_servers: ``--etcd-servers``.
        etcd_identity: By which files it is let in there.
        etcd_prefix: ``--etcd-prefix``.
    """

    image: str
    port: int
    address: str
    pki: str
    etcd_servers: tuple[str, ...]
    etcd_identity: Identity
    etcd_prefix: str

    @classmethod
    def parse(cls, text: str, *, where: str) -> ApiServerManifest:
        """Return what a manifest says."""
        _, container, flags = _container(text, "kube-apiserver", where=where)
        ca, cert, key = (flags.get(f"etcd-{name}", "") for name in ("cafile", "certfile", "keyfile"))
        return cls(
            image=str(container.get("image", "")),
            port=int(flags.get("secure-port", _DEFAULT_API_PORT)),
            address=flags.get("advertise-address", ""),
            pki=flags.get("tls-cert-file", "").rpartition("/")[0] or _DEFAULT_PKI,
            etcd_servers=tuple(server for server in flags.get("etcd-servers", "").split(",") if server),
            etcd_identity=Identity(ca=ca, cert=cert, key=key),
            etcd_prefix=flags.get("etcd-prefix", _DEFAULT_PREFIX).rstrip("/"),
        )


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


def never_beginning() -> tuple[str, ...]:
    """Return the sed expressions by which a member without data ends instead of beginning a cluster."""
    state = r"\1- --initial-cluster-state=existing"
    return ("/--initial-cluster-state=/d", rf"s|^\( *\)- --initial-cluster=.*|&\n{state}|")


def _container(text: str, name: str, *, where: str) -> tuple[Mapping[str, Any], Mapping[str, Any], dict[str, str]]:
    try:
        pod = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ClusterError(f"{where} is not valid YAML: {error}", hint="repair it first") from error
    spec = pod.get("spec") if isinstance(pod, dict) else None
    containers = spec.get("containers") if isinstance(spec, dict) else None
    for container in containers or ():
        if container.get("name") == name:
            return pod, container, read_flags([*(container.get("command") or ()), *(container.get("args") or ())])
    raise ClusterError(f"{where} has no container {name!r}", hint="is it the manifest that kubeadm wrote?")


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
    """Return the one on loopback; ``""`` where there is none, as on hosts that kubeadm set up for etcd alone."""
    return next((url for url in urls.split(",") if urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}), "")


def _sed_pattern(text: str) -> str:
    return "".join(f"\\{character}" if character in r"\.*[]^$|" else character for character in text)
