"""Every defect that is tried in one run: in the objects of the scope, in those that its checks name, in its markers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import orjson

from clusterguard.clusters.capabilities import EditsMembers, MemberFaults, StopsControllers
from clusterguard.drills.defects.catalogue import OBJECT_DEFECTS, changed_field
from clusterguard.drills.defects.choosing import choose
from clusterguard.drills.defects.members import another_state, last_member
from clusterguard.drills.defects.placing import ApiPlace, EtcdPlace, NotAppliedError, NotUndoneError
from clusterguard.drills.defects.volumes import BYTE_CHANGED, VOLUME_EMPTIED, byte_changed, emptied, mounted_claims
from clusterguard.drills.steps.absent import Absent
from clusterguard.drills.steps.assert_ import Assert
from clusterguard.drills.steps.http import Http
from clusterguard.drills.steps.selection import ObjectsOfOneKind, select
from clusterguard.errors import ClusterError, ResourceNotFoundError
from clusterguard.model.inventory import ObjectRef
from clusterguard.validate.capture import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager, ExitStack

    from clusterguard.clusters.base import Cluster
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.drills.defects.catalogue import Object, ObjectDefect
    from clusterguard.drills.defects.placing import ObjectPlace
    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.markers import Markers
    from clusterguard.drills.run import DrillRun

__all__ = ["LATER_STATE", "MEMBER_CHANGED", "PREVIOUS_BACKUP", "Attempt", "attacked_clusters", "attempts_in"]

PREVIOUS_BACKUP: Final = "previous-backup"
LATER_STATE: Final = "later-state"
MEMBER_CHANGED: Final = "member-changed"
_BY_NAME: Final = {each.name: each for each in OBJECT_DEFECTS}
_SEVERAL: Final = 2
_LEFT_OUT: Final = _BY_NAME["object-left-out"]
# What a check that names an object says of it at least: that it is there, and that the API can serve it.
_OF_NAMED: Final = (_LEFT_OUT, _BY_NAME["definition-older"])
_DEFINITIONS: Final = "CustomResourceDefinition.apiextensions.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A defect that will be tried.

    Attributes:
        defect: Its name.
        target: What it is put into.
        cluster: Where, by the name in the drill.
        put: Puts it there while a ``with`` block runs.
        found_by: The check that would find it.
    """

    defect: str
    target: str
    cluster: str
    put: Callable[[], AbstractContextManager[None]]
    found_by: str


def attacked_clusters(run: DrillRun) -> tuple[str, ...]:
    """Return the clusters that the checks look at, by their names in the drill."""
    names = [step.cluster for step in run.drill.phase("verify")]
    return tuple(name for name in dict.fromkeys(names) if name in run.clusters)


def attempts_in(run: DrillRun, name: str, opened: ExitStack) -> Iterator[Attempt]:
    """Yield everything that is tried in one cluster.

    Args:
        run: The run, with all that it has noted.
        name: The cluster, by its name in the drill.
        opened: What is opened here is closed with it.

    Raises:
        ClusterGuardError: The cluster cannot tell what it has.
    """
    cluster = run.clusters[name]
    steps = [step for step in run.drill.phase("verify") if step.cluster == name]
    objects = _attackable(_restored_objects(run, cluster.api, steps[0]), cluster)
    place = _place(run, cluster, objects, opened)
    compared = any(step.verb == "restored" for step in steps)
    chosen = [*choose(objects, owned_too=_same_uids(run))]
    named = _attackable(_named_objects(cluster.api, steps, objects), cluster)
    chosen += [(defect, ref) for defect in _OF_NAMED for ref, item in named.items() if defect.fits(ref.full_kind, item)]
    everything = {**named, **objects}
    for defect, ref in chosen:
        item = everything[ref]
        yield Attempt(
            defect=defect.name,
            target=str(ref),
            cluster=name,
            put=partial(place.put, defect, ref, version=item["apiVersion"]),
            found_by=_advice(defect, ref, item, compared=compared and ref in objects),
        )
    yield from _of_markers(run, name, place)
    yield from _of_members(name, cluster)
    if run.owns(name) and not cluster.simulated_pods:
        yield from _of_volumes(name, cluster.api, objects)


# ---- objects ------------------------------------------------------------------------------------------------


def _restored_objects(run: DrillRun, api: KubeClient, step: LoadedStep) -> dict[ObjectRef, Object]:
    """Return what the scope has now of what was in it at the baseline."""
    if not run.baselines:
        now = capture(api, run.scope, absent_kinds_ok=True)
        return {ref: orjson.loads(data) for ref, data in now.objects.items()}
    before = run.baseline_for(step)
    versions = {ref.full_kind: str(orjson.loads(data)["apiVersion"]) for ref, data in before.objects.items()}
    now = capture(api, before.scope, versions=versions, keep=before.objects.keys(), absent_kinds_ok=True)
    return {ref: orjson.loads(data) for ref, data in now.objects.items() if ref in before.objects}


def _named_objects(
    api: KubeClient, steps: list[LoadedStep], compared: Mapping[ObjectRef, Object]
) -> dict[ObjectRef, Object]:
    """Return what checks name, and the definitions of the custom resources that are compared."""
    found = [item for step in steps for item in _named_by(api, step)]
    groups = {ref.group for ref in compared if "." in ref.group and not ref.group.endswith(".k8s.io")}
    if groups:
        found += [item for item in api.list(api.resource(_DEFINITIONS)) if item["spec"]["group"] in groups]
    named = {ObjectRef.of(item): item for item in found}
    return {ref: item for ref, item in named.items() if ref not in compared}


def _named_by(api: KubeClient, step: LoadedStep) -> list[Object]:
    match step.action:
        case Absent():
            return []
        case ObjectsOfOneKind() as action:
            return action.find(api)
        case Assert() as action:
            return action.find(api)
        case Http() as action:
            return list(select(api, api.resource("Service"), namespace=action.namespace, names=[action.service]))
    return []


def _attackable(objects: dict[ObjectRef, Object], cluster: Cluster) -> dict[ObjectRef, Object]:
    """Return those that a defect can be taken out of again: a kubelet ends what runs in a Pod that it does not see."""
    return {
        ref: item
        for ref, item in objects.items()
        if (cluster.simulated_pods or ref.full_kind != "Pod") and not item["metadata"].get("deletionTimestamp")
    }


def _place(run: DrillRun, cluster: Cluster, objects: Mapping[ObjectRef, Object], opened: ExitStack) -> ObjectPlace:
    if isinstance(cluster, StopsControllers) and (access := cluster.etcd) is not None:
        from clusterguard.etcd.member import EtcdMember

        return EtcdPlace(cluster.api, opened.enter_context(EtcdMember(access, access.endpoints[0])))
    owners = {owner["uid"] for item in objects.values() for owner in item["metadata"].get("ownerReferences") or ()}
    return ApiPlace(cluster.api, same_uids=_same_uids(run), owners=frozenset(owners))


def _same_uids(run: DrillRun) -> bool:
    """Return whether the checks want the very same objects."""
    return run.restores("etcd") or any(
        getattr(step.action, "identity", "") == "uid" for step in run.drill.phase("verify")
    )


def _advice(defect: ObjectDefect, ref: ObjectRef, item: Object, *, compared: bool) -> str:
    """Return the check that would find a defect."""
    field = "" if defect.removes else f"{changed_field(item, defect.put_into(item))} of "
    by_name = f"`assert` of {field}{ref}"
    return by_name if compared else f"`restored: {{}}` with {ref.full_kind} in the scope, or {by_name}"


# ---- markers ------------------------------------------------------------------------------------------------


def _of_markers(run: DrillRun, name: str, place: ObjectPlace) -> Iterator[Attempt]:
    """Yield what tells this backup from the one before it, and from what came after it: its markers."""
    plan = run.marker_plan
    markers = run.markers.get(plan.cluster)
    if markers is None or name != plan.target:
        return
    namespace = run.namespace_mapping.get(markers.namespace, markers.namespace)
    advice = "the markers: do not switch `canary` off"
    if first := markers.first:
        ref = ObjectRef("ConfigMap", namespace, first)
        yield Attempt(
            defect=PREVIOUS_BACKUP,
            target=str(ref),
            cluster=name,
            put=partial(place.put, _LEFT_OUT, ref, version="v1"),
            found_by=advice,
        )
    if run.restores("etcd") and markers.second:
        yield Attempt(
            defect=LATER_STATE,
            target=f"ConfigMap {namespace}/{markers.second}",
            cluster=name,
            put=partial(_second_again, markers, run.clusters[name].api),
            found_by=advice,
        )


@contextmanager
def _second_again(markers: Markers, api: KubeClient) -> Iterator[None]:
    """Let the marker from after the backup be there, as it would be if nothing had been restored."""
    resource = api.resource("ConfigMap")
    try:
        markers.write_after_backup(api)
    except ClusterError as error:
        raise NotAppliedError(error.message) from error
    try:
        yield
    finally:
        try:
            api.delete(resource, markers.second, markers.namespace)
        except ResourceNotFoundError:
            pass
        except ClusterError as error:
            raise NotUndoneError(error.message) from error


# ---- members of etcd ----------------------------------------------------------------------------------------


def _of_members(name: str, cluster: Cluster) -> Iterator[Attempt]:
    """Yield what only a look at every member finds: an API server asks any of them."""
    if not isinstance(cluster, EditsMembers) or not isinstance(cluster, MemberFaults):
        return
    if (access := cluster.etcd) is None or len(access.endpoints) < _SEVERAL:
        return
    yield Attempt(
        defect=MEMBER_CHANGED,
        target=f"etcd member {last_member(cluster)}",
        cluster=name,
        put=partial(another_state, cluster, access),
        found_by="`sameMembers: {}`",
    )


# ---- volumes ------------------------------------------------------------------------------------------------


def _of_volumes(name: str, api: KubeClient, objects: Mapping[ObjectRef, Object]) -> Iterator[Attempt]:
    """Yield what happens to the first volume of the scope that a running container has."""
    claims = {(ref.namespace, ref.name) for ref in objects if ref.full_kind == "PersistentVolumeClaim"}
    pods = (
        pod for namespace in sorted({each for each, _ in claims}) for pod in api.list(api.resource("Pod"), namespace)
    )
    found = (each for each in mounted_claims(pods) if (each.container.namespace, each.claim) in claims)
    for mounted in islice(found, 1):
        where = f"{{namespace: {mounted.container.namespace}, pod: {mounted.container.pod}}}"
        for defect, put in ((BYTE_CHANGED, byte_changed), (VOLUME_EMPTIED, emptied)):
            yield Attempt(
                defect=defect,
                target=str(mounted),
                cluster=name,
                put=partial(put, api, mounted),
                found_by=f"`sameFiles: {{in: {where}, path: {mounted.path}}}`",
            )
