"""The cluster of the drill that comes next, created while this one sets up and backs up."""

from __future__ import annotations

import contextlib
from concurrent.futures import wait
from typing import TYPE_CHECKING

from clusterguard.clusters.opening import open_cluster
from clusterguard.drills.clusters import Pending, is_plain
from clusterguard.errors import ClusterGuardError

if TYPE_CHECKING:
    from clusterguard.clusters.base import Cluster
    from clusterguard.drills.load import Drill

__all__ = ["ClusterAhead"]


class ClusterAhead:
    """An embedded cluster that a drill finds ready, since it was started while the drill before it ran.

    It is like any other: nobody has used it, and whoever takes it closes it. Much of what a drill does before it breaks
    something is waiting. Its recovery is measured, so it is not begun before `settle` has returned.

    Args:
        default_cluster: The reference of the cluster of drills that name no provider.
    """

    def __init__(self, *, default_cluster: str) -> None:
        self._default_cluster = default_cluster
        self._pending: Pending[Cluster] | None = None

    def start_for(self, drill: Drill) -> None:
        """Begin to create what a drill wants at its beginning, where that is an embedded cluster of one member."""
        wanted = [spec for spec in drill.spec.effective_clusters.values() if spec.start_in == "setup"][:1]
        plain = any(is_plain(spec, spec.provider(self._default_cluster) or self._default_cluster) for spec in wanted)
        if plain and self._pending is None:
            self._pending = Pending.begin(open_cluster("embedded"), name="ahead")

    def settle(self) -> None:
        """Wait until a cluster that is being created is ready, or has failed."""
        if self._pending is not None:
            wait([self._pending.future])

    def take(self) -> Cluster | None:
        """Return the cluster once it is ready, or None where there is none, it could not be created, or has ended."""
        self.settle()  # whoever is interrupted here leaves it to `close`
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        try:
            cluster = pending.future.result()
        except ClusterGuardError:
            return None  # whoever wants one creates it, and says what is wrong
        try:
            cluster.api.server_version()
        except ClusterGuardError:
            cluster.__exit__(None, None, None)
            return None
        return cluster

    def close(self) -> None:
        """Remove a cluster that nobody took."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with contextlib.suppress(ClusterGuardError):  # a failed creation cleans up
                pending.future.result().__exit__(None, None, None)
