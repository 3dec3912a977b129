"""How a node starts its etcd member: what its flags say, wherever these are written. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clusterguard.clusters.base import EtcdLayout
from clusterguard.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["EtcdSetup", "Identity", "host_of", "read_flags", "told_by_flags"]

_DEFAULT_TOKEN = "etcd-cluster"  # noqa: S105 - etcd's default; it names a cluster and protects nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """By which files on the node an etcd lets clients in; all of them empty where it speaks plain HTTP."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def curl(self) -> str:
        """The options that tell curl so."""
        return f"--cacert {self.ca} --cert {self.cert} --key {self.key}" if self.ca else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSetup:
    """How a node starts its etcd member.

    Attributes:
        name: ``--name``.
        peer_url: ``--initial-advertise-peer-urls``.
        initial_cluster: ``--initial-cluster``, names with peer URLs: the members that there were when it joined.
        token: ``--initial-cluster-token``.
        data_dir: ``--data-dir``, as etcd sees it.
        host_dir: Where that is on the node.
        client_url: The client URL by which the node itself speaks to it.
        advertised_url: The one for others.
        identity: By which files the node is let in there.
        image: The container's image, or ``""``.
    """

    name: str
    peer_url: str
    initial_cluster: tuple[tuple[str, str], ...]
    token: str
    data_dir: str
    host_dir: str
    client_url: str
    advertised_url: str
    identity: Identity
    image: str = ""

    @property
    def layout(self) -> EtcdLayout:
        """What etcdutl must be told."""
        return EtcdLayout(name=self.name, peer_url=self.peer_url, token=self.token, data_dir=self.host_dir)


def read_flags(words: Sequence[object]) -> dict[str, str]:
    """Return the flags of a command line, without their dashes."""
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


def told_by_flags(flags: Mapping[str, str], *, where: str, required: Sequence[str]) -> dict[str, Any]:
    """Return the fields of an `EtcdSetup` that do not depend on what starts it.

    Raises:
        ClusterError: A flag is missing that a restore cannot do without, or says what it could not keep to.
    """
    names = ("name", "data-dir", *required, "initial-advertise-peer-urls")
    if missing := [f"--{name}" for name in names if not flags.get(name)]:
        raise ClusterError(
            f"{where}: etcd is started without {', '.join(missing)}, so what a restored member must be cannot be told",
            code="etcd-flags-missing",
            fields={"flags": ", ".join(missing)},
            hint="let it say so, or restore with the tool that set this etcd up",
        )
    peers = flags["initial-advertise-peer-urls"].split(",")
    if len(peers) > 1:
        raise ClusterError(f"{where}: etcd has several peer URLs ({', '.join(peers)}); one is expected")
    if flags.get("wal-dir"):
        raise ClusterError(
            f"{where}: etcd keeps its log outside of its data directory, in {flags['wal-dir']}",
            code="own-wal-dir",
            fields={"path": flags["wal-dir"]},
            hint="a restore replaces both as one: let etcd keep its log in the data directory (without --wal-dir)",
        )
    pairs = (part.partition("=") for part in flags.get("initial-cluster", "").split(",") if part)
    return {
        "name": flags["name"],
        "peer_url": peers[0],
        "initial_cluster": tuple((name, url) for name, _, url in pairs),
        "token": flags.get("initial-cluster-token") or _DEFAULT_TOKEN,
        "data_dir": flags["data-dir"],
        "advertised_url": flags.get("advertise-client-urls", "").partition(",")[0],
    }


def host_of(url: str) -> str:
    """Return the host in a URL."""
    return urlsplit(url).hostname or ""
