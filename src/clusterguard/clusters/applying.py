"""Applying manifests that belong together: what others need first, and until what runs of them is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.model.readiness import readiness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterguard.clusters.kube import ApiResource, Json, KubeClient

__all__ = ["WORKLOADS", "apply_all", "named"]

WORKLOADS: Final = ("Deployment", "DaemonSet")
"""The kinds that are waited for."""

_DEFINITION: Final = "CustomResourceDefinition"
_DEFINITION_SECONDS: Final = 60.0


def named(manifest: Json) -> str:
    """Return kind and name of a manifest."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def apply_all(
    manifests: Sequence[Json],
    *,
    api: KubeClient,
    task: str,
    wait_seconds: float | None,
    progress: ProgressSink = ignore_progress,
) -> None:
    """Apply manifests: definitions first, then the others in their order.

    Args:
        manifests: The objects, each with its name.
        api: The cluster.
        task: What progress calls it.
        wait_seconds: How long each workload may take to be ready; None not to wait for them.
        progress: Told of each object.

    Raises:
        WaitTimeoutError: A definition was not accepted, or a workload did not become ready, in time.
    """
    definitions = [each for each in manifests if each["kind"] == _DEFINITION]
    others = [each for each in manifests if each["kind"] != _DEFINITION]
    for done, each in enumerate(definitions):
        progress(Progress(task=task, done=done, total=len(manifests), unit="objects", note=named(each)))
        api.apply(each)
    for each in definitions:
        _wait_ready(api, api.resource_of(each), each, seconds=_DEFINITION_SECONDS)
    for done, each in enumerate(others, start=len(definitions)):
        progress(Progress(task=task, done=done, total=len(manifests), unit="objects", note=named(each)))
        api.await_kind(each)
        api.apply(each)
    for each in others if wait_seconds is not None else ():
        if each["kind"] in WORKLOADS:
            progress(Progress(task=task, done=len(manifests), unit="objects", note=f"{named(each)} to be ready"))
            _wait_ready(api, api.resource_of(each), each, seconds=wait_seconds or 0.0)
    progress(Progress(task=task, finished=True))


def _wait_ready(api: KubeClient, resource: ApiResource, manifest: Json, *, seconds: float) -> None:
    typed = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"]}
    api.wait_for(
        resource,
        manifest["metadata"]["name"],
        manifest["metadata"].get("namespace"),
        until=lambda seen: seen is not None and bool(readiness({**typed, **seen})),
        what=f"{named(manifest)} to be ready",
        timeout_seconds=seconds,
    )
