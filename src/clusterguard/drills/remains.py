"""What an earlier run left in a cluster that was kept for a look: it goes before the next run on that cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from clusterguard.clusters.capabilities import Persistable
from clusterguard.drills.canary import RUN_LABEL
from clusterguard.drills.run import DEFAULT_WAIT
from clusterguard.errors import ResourceNotFoundError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.clusters.kube import ApiResource, KubeClient
    from clusterguard.drills.run import Run

__all__ = ["clear_remains"]

_POLL_SECONDS = 0.2


def clear_remains(
    run: Run,
    name: str,
    *,
    sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
) -> int:
    """Remove what the setup of an earlier run of this drill made in a kept cluster; return how many objects.

    Only in a cluster that clusterguard created and kept, and only what bears the label of a run.

    Raises:
        WaitTimeoutError: Something stays, held by a finalizer.
    """
    cluster = run.clusters[name]
    if run.owns(name) or not isinstance(cluster, Persistable) or not cluster.kept:
        return 0
    remains = list(_remains(run, name, cluster.api))
    for resource, item in reversed(remains):
        metadata = item["metadata"]
        try:
            cluster.api.delete(resource, metadata["name"], metadata.get("namespace"), uid=metadata["uid"])
        except ResourceNotFoundError:
            continue  # it went with its namespace
    deadline = time.monotonic() + DEFAULT_WAIT.total_seconds()
    for resource, item in remains:
        while _is_there(cluster.api, resource, item):
            if time.monotonic() > deadline:
                raise WaitTimeoutError(
                    f"{resource.kind} {item['metadata']['name']} of an earlier run goes",
                    seconds=DEFAULT_WAIT.total_seconds(),
                    last_seen="it is still there",
                    hint="see who owns its finalizer, or take the cluster down and start with a new one",
                )
            sleep(_POLL_SECONDS)
    return len(remains)


def _remains(run: Run, name: str, api: KubeClient) -> Iterator[tuple[ApiResource, Any]]:
    for step in run.drill.phase("setup"):
        for manifest in step.objects if step.cluster == name else ():
            metadata = manifest["metadata"]
            try:
                resource = api.resource_of(dict(manifest))
                namespace = (metadata.get("namespace") or "default") if resource.namespaced else None
                found = api.get(resource, metadata["name"], namespace)
            except ResourceNotFoundError:
                continue
            if RUN_LABEL in (found["metadata"].get("labels") or {}):
                yield resource, found


def _is_there(api: KubeClient, resource: ApiResource, item: Any) -> bool:  # noqa: ANN401 - an object of any kind
    metadata = item["metadata"]
    try:
        now = api.get(resource, metadata["name"], metadata.get("namespace"))
    except ResourceNotFoundError:
        return False
    return bool(now["metadata"]["uid"] == metadata["uid"])
