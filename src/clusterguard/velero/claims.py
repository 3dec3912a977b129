"""The claims that a backup is about, and the volumes behind them: asked of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clusterguard.clusters.kube import ApiResource, Json, KubeClient

__all__ = ["ClaimedVolume", "claimed_among", "claimed_volumes", "claims_in"]

_NO_SOURCE = {"capacity", "claimRef", "nodeAffinity"}
_ENDED = {"Succeeded", "Failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedVolume:
    """A claim, and what is behind it.

    Attributes:
        namespace: Of the claim, like ``name``.
        volume: The PersistentVolume; empty for a claim that is not bound.
        source: What kind of volume that is, as its spec names it: ``csi``, ``local``, ``hostPath``.
        driver: The CSI driver; empty where it has none.
        storage_class: The class; empty for none.
        waits: Whether that class waits for a first consumer.
        block: Whether it is a block device, and no file system.
        annotations: Of the claim.
        pods: The Pods that have it as a volume, and have not ended.
        uid: Of the claim.
    """

    namespace: str
    name: str
    volume: str = ""
    source: str = ""
    driver: str = ""
    storage_class: str = ""
    waits: bool = False
    block: bool = False
    annotations: Mapping[str, str]
    pods: tuple[str, ...] = ()
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def why_unbound(self) -> str:
        """Why it has no volume, as far as that can be seen."""
        if self.waits and not self.pods:
            return f"its class {self.storage_class} waits for a Pod that uses it, and there is none"
        return f"its class {self.storage_class or '(none)'} has given it no volume"


def claimed_volumes(
    api: KubeClient, *, namespaces: Sequence[str] = (), selector: str = ""
) -> tuple[ClaimedVolume, ...]:
    """Return the claims that are backed up, with what is behind them: those with the labels, and those of such Pods.

    Args:
        api: The cluster.
        namespaces: Those that are backed up; all when empty.
        selector: Labels of what is backed up.
    """
    claims, pods = (api.resource(kind, api_version="v1") for kind in ("PersistentVolumeClaim", "Pod"))

    def listed(kind: ApiResource, labels: str = "") -> list[Json]:
        return [each for where in namespaces or (None,) for each in api.list(kind, where, label_selector=labels)]

    every = listed(claims)
    if not every:
        return ()
    running = [each for each in listed(pods) if (each.get("status") or {}).get("phase") not in _ENDED]
    chosen = {_key(each) for each in every}
    if selector:  # a Pod brings its claims, whatever their labels
        chosen = {_key(each) for each in listed(claims, selector)}
        chosen |= {key for pod in listed(pods, selector) for key in claims_in(pod).values()}
    return claimed_among(
        [each for each in every if _key(each) in chosen],
        pods=running,
        classes=list(api.list(api.resource("StorageClass", api_version="storage.k8s.io/v1"))),
        volumes=list(api.list(api.resource("PersistentVolume", api_version="v1"))),
    )


def claimed_among(
    claims: Sequence[Json], *, pods: Sequence[Json], classes: Sequence[Json], volumes: Sequence[Json]
) -> tuple[ClaimedVolume, ...]:
    """Return claims with what is behind them, of the objects of a cluster; the Pods are those that have not ended."""
    users: dict[tuple[str, str], list[str]] = {}
    for pod in pods:
        for key in claims_in(pod).values():
            users.setdefault(key, []).append(pod["metadata"]["name"])
    by_name = [{each["metadata"]["name"]: each for each in items} for items in (volumes, classes)]
    return tuple(
        _claimed(each, volumes=by_name[0], classes=by_name[1], pods=users.get(_key(each), ())) for each in claims
    )


def _key(item: Json) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _claimed(
    claim: Json, *, volumes: Mapping[str, Json], classes: Mapping[str, Json], pods: Sequence[str]
) -> ClaimedVolume:
    spec = claim.get("spec") or {}
    behind = (volumes.get(spec.get("volumeName") or "") or {}).get("spec") or {}
    source = next((key for key, value in behind.items() if isinstance(value, dict) and key not in _NO_SOURCE), "")
    name = spec.get("storageClassName") or ""
    return ClaimedVolume(
        namespace=claim["metadata"]["namespace"],
        name=claim["metadata"]["name"],
        volume=spec.get("volumeName") or "",
        source=source,
        driver=str((behind.get("csi") or {}).get("driver") or ""),
        storage_class=name,
        waits=(classes.get(name) or {}).get("volumeBindingMode") == "WaitForFirstConsumer",
        block=spec.get("volumeMode") == "Block",
        annotations=claim["metadata"].get("annotations") or {},
        pods=tuple(sorted(pods)),
        uid=claim["metadata"].get("uid") or "",
    )


def claims_in(pod: Json) -> Mapping[str, tuple[str, str]]:
    """Return every claim that a Pod has as a volume, one of its own (``ephemeral``) included, by the volume's name."""
    namespace, name = _key(pod)
    return {
        volume["name"]: (
            namespace,
            volume["persistentVolumeClaim"]["claimName"]
            if "persistentVolumeClaim" in volume
            else f"{name}-{volume['name']}",
        )
        for volume in pod["spec"].get("volumes") or ()
        if "persistentVolumeClaim" in volume or "ephemeral" in volume
    }
