"""Looks at a cluster: every kind, by metadata alone where that is enough. Nothing is written, and no Secret is read."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from clusterguard.coverage.found import Binding, Found, InlineVolume, Kind, PodUse, Thing, Unread
from clusterguard.errors import (
    ClusterError,
    ClusterUnreachableError,
    ConflictError,
    ForbiddenError,
)
from clusterguard.model.inventory import ObjectRef
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.validate.system import kind_rule, system_rules
from clusterguard.velero.claims import claimed_among, claims_in
from clusterguard.velero.csi import SnapshotClasses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterguard.clusters.kube import ApiResource, Json, KubeClient

__all__ = ["look_at"]

_THREADS: Final = 4
_LIST_TRIES: Final = 3
_ENDED: Final = {"Succeeded", "Failed"}
_OPT_IN, _OPT_OUT = "backup.velero.io/backup-volumes", "backup.velero.io/backup-volumes-excludes"
_NO_DATA: Final = {"configMap", "secret", "projected", "downwardAPI", "image", "persistentVolumeClaim", "ephemeral"}

_WHOLE: Final = frozenset(
    {
        *("Pod", "Job.batch", "ServiceAccount", "PersistentVolumeClaim", "PersistentVolume"),
        *("StorageClass.storage.k8s.io", "ClusterRoleBinding.rbac.authorization.k8s.io"),
        *("APIService.apiregistration.k8s.io", "VolumeSnapshotClass.snapshot.storage.k8s.io"),
    }
)
"""Kinds of which more than the metadata decides."""

_KEPT: Final = _WHOLE - {"Job.batch", "ServiceAccount"}
_RECORDS: Final = frozenset(
    f"{kind}.velero.io"
    for kind in (
        *("Backup", "Restore", "BackupRepository", "PodVolumeBackup", "PodVolumeRestore", "DataUpload", "DataDownload"),
        *("DeleteBackupRequest", "DownloadRequest", "ServerStatusRequest"),
    )
)
"""What Velero writes down of what it did, and what it is asked; its settings are the other kinds."""


@dataclass(slots=True)
class _Harvest:
    kind: Kind
    things: list[Thing] = field(default_factory=list)
    items: list[Json] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


def look_at(api: KubeClient, name: str, *, progress: ProgressSink = ignore_progress) -> Found:
    """Return what a cluster has.

    Args:
        api: The cluster.
        name: What it is called.
        progress: Who is told how far it got.

    Raises:
        ForbiddenError: Its namespaces may not be listed, so that nothing can be told.
        ClusterUnreachableError: The API server does not answer.
    """
    at = api.server_time()
    namespaces = [each["metadata"]["name"] for each in api.list(api.resource("Namespace"), metadata_only=True)]
    resources, not_listed = _resources(api)
    progress(Progress(task="looking", total=None, unit="objects"))
    done = 0
    harvests: list[_Harvest] = []
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="clusterguard-look") as threads:
        futures = [threads.submit(_harvest, api, each, namespaces) for each in resources]
        try:
            for future in futures:
                harvests.append(future.result())
                done += len(harvests[-1].things)
                progress(Progress(task="looking", done=done, unit="objects", note=harvests[-1].kind.name))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    progress(Progress(task="looking", done=done, total=done, unit="objects", finished=True))
    gaps = (Unread(f"*.{_group_of(each)}", "its API does not answer") for each in api.discovery_gaps())
    unread = [*(each for harvest in harvests for each in harvest.unread), *gaps]
    found = Found(
        cluster=name,
        at=at,
        things={each.kind: each.things for each in harvests if each.things},
        unread=tuple(each for each in unread if not _is_computed(each.what)),
        not_listed=not_listed,
    )
    return _with_volumes(found, {each.kind.name: each.items for each in harvests})


def _resources(api: KubeClient) -> tuple[Sequence[ApiResource], Mapping[str, str]]:
    chosen: dict[str, ApiResource] = {}
    not_listed: dict[str, str] = {}
    for each in api.resources(refresh=True):
        if "list" not in each.verbs:
            continue
        rule = kind_rule(str(each), each.verbs)
        if rule is None:
            chosen.setdefault(str(each), each)
        else:
            not_listed[str(each)] = rule.name
    return list(chosen.values()), not_listed


def _group_of(version: str) -> str:
    return version.rpartition("/")[0]


def _is_computed(kind: str) -> bool:
    """Return whether objects of a kind are measured when asked for, so that there is nothing to lose."""
    group = kind.partition(".")[2]
    return group == "metrics.k8s.io" or group.endswith(".metrics.k8s.io")


# ---- listing -------------------------------------------------------------------------------------------------


def _harvest(api: KubeClient, resource: ApiResource, namespaces: Sequence[str]) -> _Harvest:
    plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    harvest = _Harvest(Kind(str(resource), plural, resource.namespaced))
    try:
        _add(harvest, api, resource, None)
    except ForbiddenError as error:
        if not resource.namespaced:
            harvest.unread.append(Unread(harvest.kind.name, error.message))
            return harvest
        for namespace in namespaces:  # it may be allowed in some of them
            try:
                _add(harvest, api, resource, namespace)
            except ClusterError as refused:
                harvest.unread.append(Unread(harvest.kind.name, refused.message, namespace))
    except ClusterUnreachableError as error:
        api.server_version()  # raises when it is the server that is gone, and not this kind alone
        harvest.unread.append(Unread(harvest.kind.name, error.message))
    except ClusterError as error:
        harvest.unread.append(Unread(harvest.kind.name, error.message))
    return harvest


def _add(harvest: _Harvest, api: KubeClient, resource: ApiResource, namespace: str | None) -> None:
    whole, kept = harvest.kind.name in _WHOLE, harvest.kind.name in _KEPT
    for left in reversed(range(_LIST_TRIES)):
        things: list[Thing] = []
        items: list[Json] = []
        try:
            # The last try asks for all in one page, which cannot expire half-way.
            size = 500 if left else 0
            for page in api.list_pages(resource, namespace, metadata_only=not whole, page_size=size):
                for item in page.items:
                    things.append(_thing(item, harvest.kind))
                    items += [_without_managers(item)] if kept else []
        except ConflictError:
            if not left:
                raise
            continue
        harvest.things += things
        harvest.items += items
        return


def _without_managers(item: Json) -> Json:
    item["metadata"].pop("managedFields", None)
    return item


def _thing(item: Json, kind: Kind) -> Thing:
    metadata = item["metadata"]
    ref = ObjectRef.of(item)
    rule = next((each.name for each in system_rules(ref.full_kind, item) if each.name != "system namespaces"), "")
    return Thing(
        name=ref.name,
        namespace=ref.namespace,
        labels=metadata.get("labels") or {},
        created=metadata.get("creationTimestamp") or "",
        rule=rule or _own_rule(kind, item),
    )


def _own_rule(kind: Kind, item: Json) -> str:
    """Return the name of the rule by which an object need not be in a backup, beside those of comparisons."""
    status = item.get("status") or {}
    match kind.name:
        case "Pod" if status.get("phase") in _ENDED:
            return "ended pods"
        case "Job.batch" if status.get("completionTime"):
            return "completed jobs"
        case "PersistentVolumeClaim" if any(
            each.get("kind") == "Pod" for each in item["metadata"].get("ownerReferences") or ()
        ):
            return "claims that go with their Pod"
        case "CustomResourceDefinition.apiextensions.k8s.io" if item["metadata"]["name"].endswith(".velero.io"):
            return "definitions that come with Velero"
    return "records of Velero" if kind.name in _RECORDS else ""


# ---- volumes -------------------------------------------------------------------------------------------------


def _with_volumes(found: Found, items: Mapping[str, Sequence[Json]]) -> Found:
    def of(name: str) -> Sequence[Json]:
        return items.get(name, ())

    pods = [each for each in of("Pod") if (each.get("status") or {}).get("phase") not in _ENDED]
    volumes, classes = of("PersistentVolume"), of("StorageClass.storage.k8s.io")
    claims = claimed_among(of("PersistentVolumeClaim"), pods=pods, classes=classes, volumes=volumes)
    bound = {each.volume for each in claims}
    uses: dict[tuple[str, str], list[PodUse]] = defaultdict(list)
    for pod in pods:
        for volume, key in claims_in(pod).items():
            uses[key].append(_use(pod, volume))
    served = {each["spec"]["group"] for each in of("APIService.apiregistration.k8s.io") if each["spec"].get("service")}
    snapshot_classes = items.get("VolumeSnapshotClass.snapshot.storage.k8s.io")
    return replace(
        found,
        aggregated=frozenset(served),
        bindings=tuple(map(_binding, of("ClusterRoleBinding.rbac.authorization.k8s.io"))),
        claims=claims,
        uses={key: tuple(each) for key, each in uses.items()},
        inline=tuple(_inline(pods)),
        unclaimed={
            name: str((each.get("status") or {}).get("phase") or "")
            for each in volumes
            if (name := each["metadata"]["name"]) not in bound
        },
        snapshot_classes=None if snapshot_classes is None else SnapshotClasses(items=snapshot_classes),
    )


def _use(pod: Json, volume: str) -> PodUse:
    annotations = pod["metadata"].get("annotations") or {}

    def named_by(annotation: str) -> bool:
        return volume in [each.strip() for each in annotations.get(annotation, "").split(",")]

    return PodUse(
        pod=pod["metadata"]["name"],
        volume=volume,
        running=(pod.get("status") or {}).get("phase") == "Running",
        opted_in=named_by(_OPT_IN),
        opted_out=named_by(_OPT_OUT),
        labels=pod["metadata"].get("labels") or {},
    )


def _binding(item: Json) -> Binding:
    role = item.get("roleRef") or {}
    accounts = [each for each in item.get("subjects") or () if each.get("kind") == "ServiceAccount"]
    return Binding(
        name=item["metadata"]["name"],
        role=role.get("name", "") if role.get("kind") == "ClusterRole" else "",
        namespaces=frozenset(each.get("namespace", "") for each in accounts),
    )


def _inline(pods: Sequence[Json]) -> Iterator[InlineVolume]:
    """Yield the volumes that Pods name themselves and that may hold data, once for each owner."""
    names: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    writable: set[tuple[str, str, str, str]] = set()
    for pod in pods:
        metadata = pod["metadata"]
        for volume in pod["spec"].get("volumes") or ():
            source = next((key for key in volume if key != "name"), "emptyDir")
            if source in _NO_DATA:
                continue
            key = (metadata["namespace"], _owner(metadata), volume["name"], source)
            names[key].append(metadata["name"])
            if _may_write(pod["spec"], volume["name"]):
                writable.add(key)
    for key, found in names.items():
        yield InlineVolume(*key, pods=tuple(found), read_only=key not in writable)


def _owner(metadata: Mapping[str, Any]) -> str:
    owner = next((each for each in metadata.get("ownerReferences") or () if each.get("controller")), None)
    return f"{owner['kind']} {owner['name']}" if owner else f"Pod {metadata['name']}"


def _may_write(spec: Json, volume: str) -> bool:
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    mounts = [each for container in containers for each in container.get("volumeMounts") or ()]
    return any(each["name"] == volume and not each.get("readOnly") for each in mounts)
