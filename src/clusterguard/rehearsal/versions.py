"""Which version of Kubernetes a backup is rehearsed on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clusterguard.errors import ConfigError
from clusterguard.model.support import parse_version
from clusterguard.rehearsal.report import Level, RehearsalFinding
from clusterguard.toolchain import API_SERVERS, PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.toolchain import Toolchain

__all__ = ["choose_api_server", "other_version", "requested_api_server"]

_ASKED = re.compile(r"v?(\d+)\.(\d+)")


def requested_api_server(version: str) -> str:
    """Return what the toolchain calls the API server of a minor version, such as ``1.34``.

    Raises:
        ConfigError: It is not a minor version, or there is none of it.
    """
    match = _ASKED.fullmatch(version)
    name = match and API_SERVERS.get((int(match[1]), int(match[2])))
    if not name:
        raise ConfigError(
            f"there is no API server of Kubernetes {version} here",
            code="kubernetes-version-not-available",
            fields={"version": version, "available": [_dotted(minor) for minor in sorted(API_SERVERS)]},
            hint=f"name one of {_known()}",
        )
    return name


def choose_api_server(toolchain: Toolchain, ran: str) -> str:
    """Return what the toolchain calls the API server that is nearest to the version that a cluster ran.

    Of those that are there, if any is: none is downloaded or compiled to come nearer. A newer one is preferred to an
    older one, as it reads what older ones wrote.

    Args:
        toolchain: Tells what is there.
        ran: The cluster's version, or ``""`` if unknown.

    Raises:
        ToolchainError: A path that was given for one of them is wrong.
    """
    there = {minor: name for minor, name in API_SERVERS.items() if toolchain.find(name)} or API_SERVERS
    theirs = parse_version(ran) or PROGRAMS["kube-apiserver"].accepts.at_least
    return there[min(there, key=lambda minor: (minor[0] != theirs[0], abs(minor[1] - theirs[1]), -minor[1]))]


def other_version(theirs: str, ours: str, *, requested: bool = False) -> Iterator[RehearsalFinding]:
    """Yield that the rehearsal was on another minor version than the cluster ran, if so.

    Args:
        theirs: The version that the cluster ran, or ``""`` if unknown.
        ours: The version that it was rehearsed on, or ``""`` if it did not come up.
        requested: Whether that one was asked for.
    """
    minors = [version[:2] for version in map(parse_version, (theirs, ours)) if version]
    if len(set(minors)) > 1:
        yield RehearsalFinding(
            code="other-kubernetes-version",
            level=Level.NOTE if requested else Level.WARNING,
            message=f"the cluster ran Kubernetes {theirs}, and it was rehearsed on {ours}",
            hint=_hint(*minors),
        )


def _hint(theirs: tuple[int, ...], ours: tuple[int, ...]) -> str:
    older = "the older one drops what it does not know, so errors may come from that; " if ours < theirs else ""
    if theirs in API_SERVERS:
        return f"{older}to rehearse on its own, add --kubernetes-version {_dotted(theirs)}: it is obtained if need be"
    return f"{older}what only Kubernetes {_dotted(theirs)} would refuse was not seen"


def _known() -> str:
    return f"{_dotted(min(API_SERVERS))} to {_dotted(max(API_SERVERS))}"


def _dotted(minor: tuple[int, ...]) -> str:
    return ".".join(map(str, minor))
