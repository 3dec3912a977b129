"""The loss of etcd on kind nodes, with everything that it wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["lose_etcd"]

# $1 data directory. A file in the member's place keeps etcd from beginning anew with nothing, as an empty disk
# would let it: then nobody could tell a lost cluster from a new one.
_LOSE = 'rm -rf "$1/member" && : > "$1/member" && { pkill -KILL -x etcd || test $? = 1; }'


def lose_etcd(shells: Sequence[NodeShell], *, data_dir: str) -> None:
    """Kill etcd on nodes, and throw away what it wrote; it does not come up again by itself.

    Raises:
        ProgramError: A node could not do it.
    """
    for shell in shells:
        shell.run(["sh", "-c", _LOSE, "sh", data_dir])
