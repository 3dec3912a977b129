"""The etcd member of one control plane of kind: stopped, lost and started by commands on its node.

Its static pod stays: a file in the place of its data keeps etcd from starting, and from beginning an empty database,
as an empty disk would let it. Then nobody could tell a lost member from a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.errors import ProgramError

if TYPE_CHECKING:
    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["ETCD_DATA", "lose", "runs", "start", "stop", "why_not_ready"]

ETCD_DATA = "/var/lib/etcd"  # where kubeadm puts it, and kind does not change that
_KILL = "{ pkill -KILL -x etcd || test $? = 1; }"
# $1 data directory.
# What was stopped before it was replaced is nobody's.
_STOP = f'test -d "$1/member" && rm -rf "$1/.stopped" && mv -T "$1/member" "$1/.stopped" && : > "$1/member" && {_KILL}'
_LOSE = f'rm -rf "$1/member" "$1/.stopped" && : > "$1/member" && {_KILL}'
# The kubelet waits longer each time for a container that does not start; a new one does not know of that.
_RESTART = "systemctl restart kubelet"
_START = f'test -d "$1/.stopped" && rm -f "$1/member" && mv -T "$1/.stopped" "$1/member" && {_RESTART}'
_PKI = "/etc/kubernetes/pki/etcd"
_IDENTITY = f"--cacert {_PKI}/ca.crt --cert {_PKI}/healthcheck-client.crt --key {_PKI}/healthcheck-client.key"
_ASK = f"curl --fail --silent --show-error --max-time 5 {_IDENTITY} https://127.0.0.1:2379/"


def runs(shell: NodeShell) -> bool:
    """Return whether it runs."""
    return bool(shell.run(["sh", "-c", "pgrep -x etcd || test $? = 1"]).strip())


def why_not_ready(shell: NodeShell) -> str | None:
    """Return None once it answers, with a leader or without; else what it says."""
    try:
        shell.run(["sh", "-c", f"{_ASK}version"])
    except ProgramError as error:
        return error.message
    return None


def stop(shell: NodeShell) -> None:
    """Kill it; its data stays, and it does not come up again by itself."""
    shell.run(["sh", "-c", _STOP, "sh", ETCD_DATA])


def lose(shell: NodeShell) -> None:
    """Kill it and throw its data away; it does not come up again by itself."""
    shell.run(["sh", "-c", _LOSE, "sh", ETCD_DATA])


def start(shell: NodeShell) -> None:
    """Let it start on the data that it had when it was stopped."""
    shell.run(["sh", "-c", _START, "sh", ETCD_DATA])
