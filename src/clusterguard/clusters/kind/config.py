"""The configuration that kind creates a cluster from, and the node image of it. Pure."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ETCD_PORT", "IMAGE_VARIABLE", "chosen_image", "is_version", "kind_config", "published_etcd_port"]

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


def kind_config(*, workers: int, etcd_port: int, given: object = None) -> dict[str, Any]:
    """Return kind's configuration, with etcd's client port on this machine's loopback unless ``given`` publishes it.

    Where Docker runs in a virtual machine nobody reaches a node by its address, but everybody a published port.
    """
    config = _checked(given)
    nodes = config.setdefault("nodes", [{"role": "control-plane"}, *({"role": "worker"} for _ in range(workers))])
    config.setdefault("networking", {}).setdefault("apiServerAddress", _LOOPBACK)
    if published_etcd_port(config) is None:
        mappings = _first_control_plane(nodes).setdefault("extraPortMappings", [])
        mappings.append(
            {"containerPort": ETCD_PORT, "hostPort": etcd_port, "listenAddress": _LOOPBACK, "protocol": "TCP"}
        )
    return config


def published_etcd_port(config: Mapping[str, Any]) -> int | None:
    """Return the port of this machine that a configuration publishes etcd at, or None."""
    for node in config["nodes"]:
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
    nodes = given.get("nodes", [{"role": "control-plane"}])
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise ConfigError("`nodes` of the kind configuration is not a list of nodes")
    return deepcopy(given)


def _first_control_plane(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    for node in nodes:
        if node.get("role", "control-plane") == "control-plane":
            return node
    raise ConfigError("the kind configuration has no node of the role control-plane")
