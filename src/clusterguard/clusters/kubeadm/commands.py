"""What commands on a node are made of, and where they keep things there. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ASIDE",
    "CONTROLLERS",
    "JOURNAL",
    "LOCK",
    "MANIFESTS",
    "PODS",
    "POLL",
    "STAGING_DIR",
    "Command",
    "Stages",
    "Timeouts",
    "in_shell",
    "until",
]

MANIFESTS = "/etc/kubernetes/manifests"
STAGING_DIR = "/etc/kubernetes/clusterguard"
ASIDE = f"{STAGING_DIR}/manifests"
JOURNAL = f"{STAGING_DIR}/journal.json"
LOCK = "/run/clusterguard-restore.lock"
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
PODS = ("etcd", "kube-apiserver", *CONTROLLERS)
POLL = "0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long things may take, in seconds.

    Attributes:
        lock: Until a killed run's last command on a node has ended, and with it that run's lock.
        build: etcdutl, on a large snapshot and a slow disk.
        api_grace: The API server keeps no state of its own: it gets this to answer its last requests, not the
            kubelet's 30 s, which it uses up whenever somebody watches.
        member_grace: Where all members stop at once, their leader looks for another one to lead for 7 s by default,
            which stops as well. What it has told anybody is in its log, so after so long it is killed.
        gone: Until what was stopped is gone.
        stubborn: After so long it is killed: longer than the 30 s of grace that a kubelet gives.
        etcd: Until etcd serves.
        api: Until the API server is ready.
    """

    lock: float = 30
    build: int = 1800
    api_grace: int = 3
    member_grace: int = 2
    gone: int = 90
    stubborn: int = 40
    etcd: int = 120
    api: int = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command on the node and why it is run, or a file of this machine that is copied there (``source``)."""

    why: str
    argv: tuple[str, ...] = ()
    source: Path | None = None
    target: str = ""
    mode: int = 0o600
    seconds: float = 60


Stages = tuple[tuple[Command, ...], ...]
"""Commands of one step on one node. Where there are several nodes, none begins a stage before all ended the last, and a
node that has no part in a stage has it empty: a step has equally many on every node."""


def in_shell(why: str, script: str) -> Command:
    """Return the command that runs a script there."""
    return Command(why=why, argv=("sh", "-c", script))


def until(loop: str, why: str, *, seconds: int) -> Command:
    """Return the command that runs a loop there, and ends it with timeout(1)'s exit code after so many seconds."""
    return Command(why=why, argv=("timeout", str(seconds), "sh", "-c", loop), seconds=seconds + 30)
