"""The configuration that kind creates a cluster from, and the node image of it. Pure."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "API_PORT",
    "CONTROL_PLANE",
    "ETCD_PORT",
    "IMAGE_VARIABLE",
    "WORKER",
    "chosen_image",
    "is_version",
    "kind_config",
    "published_etcd_ports",
]

CONTROL_PLANE = "control-plane"
WORKER = "worker"
API_PORT = 6443
ETCD_PORT = 2379
IMAGE_VARIABLE = "CLUSTERGUARD_KIND_IMAGE"
_LOOPBACK = "127.0.0.1"
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


def chosen_image(*, image: str | None, version: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the node image to create from, or None for the default one of kind.

    A version of three parts has an image of kind's; for one of two parts only the release notes of kind know the
    image, so the default is taken, and whoever asked looks afterwards whether it was that version.
    """
    if version is not None and not _VERSION.fullmatch(version):
        raise ConfigError(f"{version!r} is not a valid Kubernetes version", hint="write it as 1.36 or 1.36.3")
    given = image or environ.get(IMAGE_VARIABLE)
    if given or version is None:
        return given or None
    return f"kindest/node:v{version.removeprefix('v')}" if version.count(".") > 1 else None


def is_version(running: str, wanted: str) -> bool:
    """Return whether a server's version, such as ``v1.36.3``, is the wanted one, such as ``1.36``."""
    have, want = _VERSION.match(running), _VERSION.fullmatch(wanted)
    if have is None or want is None:
        return False
    return all(part is None or part == mine for mine, part in zip(have.groups(), want.groups(), strict=True))


def kind_config(
    *, control_planes: int = 1, workers: int = 0, etcd_ports: Callable[[int], Sequence[int]], given: object = None
) -> dict[str, Any]:
    """Return kind's configuration, with the client port of every etcd member on this machine's loopback.

    Where Docker runs in a virtual machine nobody reaches a node by its address, but everybody a published port.

    Args:
        control_planes: How many control-plane nodes, unless ``given`` lists nodes.
        workers: How many nodes beside them, likewise.
        etcd_ports: Gives so many free ports of this machine, for the members that ``given`` does not publish.
        given: What the user configured.
    """
    config = _checked(given)
    roles = [*[CONTROL_PLANE] * control_planes, *[WORKER] * workers]
    nodes = config.setdefault("nodes", [{"role": role} for role in roles])
    config.setdefault("networking", {}).setdefault("apiServerAddress", _LOOPBACK)
    unpublished = [node for node in _control_planes(nodes) if _published(node) is None]
    for node, port in zip(unpublished, etcd_ports(len(unpublished)), strict=True):
        node.setdefault("extraPortMappings", []).append(
            {"containerPort": ETCD_PORT, "hostPort": port, "listenAddress": _LOOPBACK, "protocol": "TCP"}
        )
    return config


def published_etcd_ports(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ports of this machine that a configuration publishes etcd members at."""
    return tuple(port for node in config["nodes"] if (port := _published(node)) is not None)


def _published(node: Mapping[str, Any]) -> int | None:
    for mapping in node.get("extraPortMappings", ()):
        if mapping.get("containerPort") == ETCD_PORT and mapping.get("hostPort"):
            return int(mapping["hostPort"])
    return None


def _checked(given: object) -> dict[str, Any]:
    if given is None:
        return {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4"}
    if not isinstance(given, dict) or given.get("kind") != "Cluster":
        raise ConfigError(
            "the kind configuration does not say `kind: Cluster`",
            hint="see https://kind.sigs.k8s.io/docs/user/configuration/",
        )
    nodes = given.get("nodes", [])
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise ConfigError("`nodes` of the kind configuration is not a list of nodes")
    # Each by itself: what shares an anchor in YAML is one object, and a copy of all of it keeps that.
    return deepcopy(given) | ({"nodes": [deepcopy(node) for node in nodes]} if nodes else {})


def _control_planes(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [node for node in nodes if node.get("role", CONTROL_PLANE) == CONTROL_PLANE]
    if not found:
        raise ConfigError("the kind configuration has no node of the role control-plane")
    return found
