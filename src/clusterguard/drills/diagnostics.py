"""What explains a red drill: events, objects that are not ready, collected while the cluster is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterguard.errors import ClusterError, ClusterGuardError
from clusterguard.model.readiness import readiness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.clusters.base import Cluster
    from clusterguard.clusters.kube import Json, KubeClient
    from clusterguard.drills.run import DrillRun

__all__ = ["collect", "log_of"]

_MOST_EVENTS = 20
_MOST_OBJECTS = 20
_LOG_LINES = 20
_MOST_OF_A_LOG = 1 << 20
_KINDS = (
    "Deployment.apps",
    "StatefulSet.apps",
    "DaemonSet.apps",
    "Job.batch",
    "Pod",
    "PersistentVolumeClaim",
)


def collect(run: DrillRun) -> tuple[tuple[str, str], ...]:
    """Return title and text of what the drill file asks to collect; a cluster that does not answer says so."""
    found: list[tuple[str, str]] = []
    for name, cluster in run.clusters.items():
        if silent := why_silent(cluster.api):
            found.append((f"cluster `{name}`", f"nothing could be collected: {silent}"))
            continue
        for what, gather in (("events", _events), ("describe", _unready), ("logs", _logs)):
            if what not in run.drill.spec.on_failure:
                continue
            try:
                text = "\n".join(gather(cluster, _namespaces(run)))
            except ClusterGuardError as error:
                text = f"could not be collected: {error.message}"
            if text:
                found.append((f"{_TITLES[what]} in cluster `{name}`", text))
    return tuple(found)


def why_silent(api: KubeClient) -> str | None:
    """Return why a cluster does not answer, or None where it does.

    Without its etcd an API server takes a minute for each answer that it does not have; its readiness it tells at once.
    """
    try:
        ready = api.ready()
    except ClusterError:
        return None  # it may still answer everything else
    return None if ready else f"the API server is not ready: {' '.join(ready.failing.split())}"


_TITLES = {"events": "recent events", "describe": "what is not ready", "logs": "the end of the logs"}


def _namespaces(run: DrillRun) -> list[str]:
    return [name for name in run.scope.namespaces if not set(name) & set("*?[")] or ["default"]


def _events(cluster: Cluster, namespaces: list[str]) -> Iterator[str]:
    for namespace in namespaces:
        found = cluster.api.list(cluster.api.resource("Event", api_version="v1"), namespace)
        for event in sorted(found, key=_event_time)[-_MOST_EVENTS:]:
            about = event.get("involvedObject") or event.get("regarding") or {}
            yield (
                f"{event.get('type', '')} {event.get('reason', '')} "
                f"{about.get('kind', '')} {namespace}/{about.get('name', '')}: "
                f"{event.get('message') or event.get('note') or ''}"
            )


def _unready(cluster: Cluster, namespaces: list[str]) -> Iterator[str]:
    shown = 0
    for namespace in namespaces:
        for kind in _KINDS:
            for item in cluster.api.list(cluster.api.resource(kind), namespace):
                state = readiness(item)
                if not state and shown < _MOST_OBJECTS:
                    shown += 1
                    yield f"{kind.partition('.')[0]} {namespace}/{item['metadata']['name']}: {state.reason}"


def _logs(cluster: Cluster, namespaces: list[str]) -> Iterator[str]:
    if cluster.simulated_pods:
        return
    for namespace in namespaces:
        pods: list[Any] = list(cluster.api.list(cluster.api.resource("Pod"), namespace))
        for pod in pods[:_MOST_OBJECTS]:
            if not readiness(pod):
                name = pod["metadata"]["name"]
                yield f"== {namespace}/{name}"
                yield log_of(cluster.api, namespace, name)


def log_of(api: KubeClient, namespace: str, pod: str) -> str:
    """Return the last lines of a pod's log, at most 1 MiB."""
    path = api.resource("Pod", api_version="v1").path(namespace, pod, "log")
    query = {"tailLines": _LOG_LINES, "limitBytes": _MOST_OF_A_LOG}
    return api.request("GET", path, query=query, accept="*/*").body.decode(errors="replace")


def _event_time(event: Json) -> str:
    created = (event.get("metadata") or {}).get("creationTimestamp")
    return str(event.get("lastTimestamp") or event.get("eventTime") or created or "")
