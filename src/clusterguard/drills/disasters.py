"""Disasters below the API server: nodes without power, etcd without its data."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clusterguard.clusters.capabilities import EtcdFaults, NodePowerControl
from clusterguard.errors import DrillError, NotAllowedError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterguard.clusters.base import Cluster
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.run import Run
    from clusterguard.drills.schema import StartNode, StopNode

__all__ = ["lose_etcd", "start_nodes", "stop_nodes"]

_POLL_SECONDS = 0.5
_QUIET_SECONDS = 60.0


def stop_nodes(action: StopNode, run: Run, step: LoadedStep) -> str:
    """Cut the power of the selected nodes.

    Raises:
        DrillError: Nothing is selected, or what is selected does not run: a fault that breaks nothing proves nothing.
    """
    cluster = _switchable(run, step)
    names = [action.name] if action.name else _names_by_label(cluster.api, action.selector or "")
    power = cluster.node_power()
    if not names:
        raise DrillError(f"`stopNode` selects no node ({action.selector}): a fault that breaks nothing proves nothing")
    for name in names:
        if not power.get(name, True):
            raise DrillError(f"node {name} is off already: a fault that breaks nothing proves nothing")
        run.stopped_nodes.setdefault(step.cluster, set()).add(name)
        cluster.stop_node(name)
    return f"{', '.join(names)} without power"


def start_nodes(
    action: StartNode,
    run: Run,
    step: LoadedStep,
    *,
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
) -> str:
    """Start nodes and wait until the API server answers; what it says of their Pods is older than the power cut.

    Raises:
        DrillError: No node was stopped.
        WaitTimeoutError: The API server does not answer.
    """
    cluster = _switchable(run, step)
    stopped = run.stopped_nodes.setdefault(step.cluster, set())
    names = [action.name] if action.name else sorted(stopped)
    if not names:
        raise DrillError("`startNode` names no node, and this run stopped none")
    # From here on a status counts only if it is newer: the restored API server still has the one of before.
    run.restored_at[step.cluster] = datetime.now(UTC)
    for name in names:
        cluster.start_node(name)
        stopped.discard(name)
    deadline = time.monotonic() + run.wait_of(step)
    while not (seen := cluster.api.ready()):
        if time.monotonic() >= deadline:
            raise WaitTimeoutError("the API server is ready", seconds=run.wait_of(step), last_seen=seen.failing)
        sleep(_POLL_SECONDS)
    return f"{', '.join(names)} started; the API server answers"


def lose_etcd(
    run: Run,
    step: LoadedStep,
    *,
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
) -> str:
    """Kill etcd with all that it wrote, and wait until the API server notices.

    Raises:
        DrillError: This cluster does not let us.
        WaitTimeoutError: The API server stays ready without it.
    """
    cluster = run.cluster_of(step)
    _require_ours(run, step, cluster)
    if not isinstance(cluster, EtcdFaults):
        raise DrillError(
            f"{cluster.provider} cluster {cluster.name} does not let us throw away its etcd data",
            hint="run this drill on an embedded or a kind cluster",
        )
    cluster.lose_etcd()
    seconds = run.at_least(run.wait_of(step), _QUIET_SECONDS)
    deadline = time.monotonic() + seconds
    while cluster.api.ready():
        if time.monotonic() >= deadline:
            raise WaitTimeoutError("the API server misses its etcd", seconds=seconds, last_seen="it calls itself ready")
        sleep(_POLL_SECONDS)
    return "etcd is gone with its data"


def _switchable(run: Run, step: LoadedStep) -> NodePowerControl:
    cluster = run.cluster_of(step)
    _require_ours(run, step, cluster)
    if not isinstance(cluster, NodePowerControl):
        raise DrillError(
            f"{cluster.provider} cluster {cluster.name} does not let us switch its nodes",
            hint="run this drill on a kind cluster",
        )
    return cluster


def _require_ours(run: Run, step: LoadedStep, cluster: Cluster) -> None:
    """Refuse to break the ground of somebody else's cluster: allowing a drill in it means its objects."""
    if not (run.owns(step.cluster) or cluster.created_by_us):
        raise NotAllowedError(
            f"`{step.verb}` breaks the machines of {cluster.provider} cluster {cluster.name}, which this run did not "
            "create",
            hint="let the drill create its own cluster: --drill-cluster kind",
        )


def _names_by_label(api: KubeClient, selector: str) -> list[str]:
    nodes = api.list(api.resource("Node", api_version="v1"), label_selector=selector)
    return sorted(str(node["metadata"]["name"]) for node in nodes)
