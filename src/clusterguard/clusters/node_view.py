"""What the kubelets themselves say runs now, asked through the API server (``nodes/NODE/proxy``).

The status of a pod is what somebody wrote at some time; after an etcd restore it may be older than the last
crash. The kubelet asks its container runtime when it is asked. Static pods have another uid there than their
mirror in the API: the hash of their configuration, which the mirror carries as an annotation.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from clusterguard.errors import ClusterGuardError, ClusterUnreachableError, WaitTimeoutError
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from clusterguard.clusters.kube import KubeClient

__all__ = ["NodeView", "RunningPod", "orphaned_pods", "settled_orphaned_pods", "view_node"]

_Object: TypeAlias = "Mapping[str, Any]"

_MIRROR = "kubernetes.io/config.mirror"
_ASK_SECONDS = 10.0
_SETTLE_SECONDS = 10.0
_UNKNOWN = "the restored state does not know it: crictl stopp it there"
_NOT_LOOKED_FOR = "containers that the restored state does not know were not looked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPod:
    """A pod (``namespace/name``) with running containers, as the runtime of its node has it."""

    key: str
    uid: str
    containers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What runs on one node, at the moment it was asked: pods by uid, when each container was created (RFC 3339)."""

    node: str
    pods: Mapping[str, RunningPod]
    created: Mapping[tuple[str, str], str]

    def trouble(self, pod: _Object) -> str:
        """Return why a pod that the API calls Running is not what runs here, or ``""``."""
        uid = kubelet_uid(pod)
        running = self.pods.get(uid)
        wanted = _running_by_status(pod)
        if running is None:
            return f"stale: the API calls it {_phase(pod)}, and no container of it runs on node {self.node}"
        absent = sorted(set(wanted) - running.containers)
        if absent:
            return f"stale: container {', '.join(absent)} does not run on node {self.node}"
        for container, started in wanted.items():
            created = self.created.get((uid, container), "")
            if created and started and created > started:
                return f"stale: container {container} is younger ({created}) than the status says ({started})"
        return ""


def view_node(api: KubeClient, node: str) -> NodeView:
    """Ask the kubelet of a node what runs there now; that needs the right to ``nodes/proxy``."""
    proxy = f"/api/v1/nodes/{node}/proxy"
    running = api.request("GET", f"{proxy}/runningpods/", timeout_seconds=_ASK_SECONDS).json()
    summary = api.request(
        "GET", f"{proxy}/stats/summary", query={"only_cpu_and_memory": "true"}, timeout_seconds=_ASK_SECONDS
    ).json()
    pods = [
        RunningPod(
            key=f"{item['metadata']['namespace']}/{item['metadata']['name']}",
            uid=str(item["metadata"]["uid"]),
            containers=frozenset(each["name"] for each in (item.get("spec") or {}).get("containers") or ()),
        )
        for item in running.get("items") or ()
    ]
    return NodeView(node=node, pods={pod.uid: pod for pod in pods if pod.containers}, created=_created(summary))


def kubelet_uid(pod: _Object) -> str:
    """Return the uid that the kubelet knows a pod of the API by."""
    metadata = pod["metadata"]
    return str((metadata.get("annotations") or {}).get(_MIRROR) or metadata.get("uid", ""))


def orphaned_pods(views: Iterable[NodeView], pods: Iterable[_Object]) -> tuple[str, ...]:
    """Return the pods that run on a node and that the API does not know, as ``namespace/name on NODE``."""
    known = {kubelet_uid(pod) for pod in pods}
    return tuple(
        sorted(
            f"{running.key} on {view.node}"
            for view in views
            for running in view.pods.values()
            if running.uid not in known
        )
    )


def settled_orphaned_pods(
    api: KubeClient,
    *,
    settle_seconds: float = _SETTLE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
) -> list[str]:
    """Return warnings of pods that run though the API does not know them, once the kubelets had time to end them.

    Where there are none this takes no time. What could not be looked at is a warning, too.
    """
    warnings: list[str] = []

    def look() -> str:
        try:
            warnings[:] = [f"{each} runs, but {_UNKNOWN}" for each in _orphaned_pods_now(api)]
        except ClusterUnreachableError as error:
            warnings[:] = [f"{_NOT_LOOKED_FOR}: {error.message}"]
        return "; ".join(warnings)

    try:
        poll_until(look, what="no pod is orphaned", seconds=settle_seconds, sleep=sleep, clock=clock)
    except WaitTimeoutError:
        return warnings
    except ClusterGuardError as error:  # the restore is done; this must not make it look undone
        return [f"{_NOT_LOOKED_FOR}: {error.message}"]
    return []


def _orphaned_pods_now(api: KubeClient) -> tuple[str, ...]:
    nodes = [node["metadata"]["name"] for node in api.list(api.resource("Node"))]
    # The kubelets first: a pod that is created meanwhile must not look like one that nobody knows.
    views = [view_node(api, node) for node in nodes]
    return orphaned_pods(views, api.list(api.resource("Pod")))


def _created(summary: _Object) -> dict[tuple[str, str], str]:
    return {
        (str((pod.get("podRef") or {}).get("uid", "")), str(container["name"])): str(container.get("startTime") or "")
        for pod in summary.get("pods") or ()
        for container in pod.get("containers") or ()
    }


def _running_by_status(pod: _Object) -> dict[str, str]:
    """Return the containers that the status calls running, and since when."""
    found: dict[str, str] = {}
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        running = (status.get("state") or {}).get("running")
        if running is not None:
            found[str(status["name"])] = str(running.get("startedAt") or "")
    return found


def _phase(pod: _Object) -> str:
    return str((pod.get("status") or {}).get("phase", "without a phase"))
