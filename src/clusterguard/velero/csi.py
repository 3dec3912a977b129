"""Whether the volumes of a cluster can be backed up by CSI snapshots: asked and tried before anything is backed up.

Velero leaves out what it cannot take a snapshot of, and calls the backup Completed; where nothing answers for a
snapshot it waits ten minutes. Source of the facts: Velero 1.18.3 and external-snapshotter 8.7, run.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ResourceNotFoundError, VeleroError, WaitTimeoutError
from clusterguard.model.readiness import readiness

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterguard.clusters.kube import ApiResource, Json, KubeClient
    from clusterguard.velero.claims import ClaimedVolume
    from clusterguard.velero.objects import VeleroObjects

__all__ = [
    "CLASS_LABEL",
    "FEATURE",
    "SNAPSHOT_API",
    "SnapshotClasses",
    "missing_classes",
    "require_server",
    "require_snapshots",
    "snapshot_kinds",
]

FEATURE: Final = "EnableCSI"
CLASS_LABEL: Final = "velero.io/csi-volumesnapshot-class"
"""A label of the class to take of several, and the annotation of a claim that names its own."""

SNAPSHOT_API: Final = "snapshot.storage.k8s.io/v1"
_KINDS: Final = ("VolumeSnapshot", "VolumeSnapshotContent", "VolumeSnapshotClass")
_DEFAULT: Final = "snapshot.storage.kubernetes.io/is-default-class"
_TRIAL_SECONDS: Final = 60.0
_GONE_SECONDS: Final = 30.0
_NODE_AGENT: Final = "node-agent"
_HINT: Final = "nothing was backed up; see docs/how-to/prove-volumes.md for what a snapshot takes"


def snapshot_kinds(api: KubeClient) -> Mapping[str, ApiResource]:
    """Return the kinds of the snapshot API.

    Raises:
        VeleroError: The cluster has not got them all.
    """
    found = {}
    for kind in _KINDS:
        try:
            found[kind] = api.resource(kind, api_version=SNAPSHOT_API)
        except ResourceNotFoundError as error:
            raise _impossible(
                f"the cluster has no kind {kind} of {SNAPSHOT_API}: it has no snapshot controller"
            ) from error
    return found


def missing_classes(api: KubeClient, claims: Sequence[ClaimedVolume], *, prefix: str) -> list[Json]:
    """Return a VolumeSnapshotClass to create for each driver of the claims that has none.

    Raises:
        VeleroError: The cluster has no snapshot API.
    """
    there = SnapshotClasses.of(api, snapshot_kinds(api)).drivers()
    drivers = sorted({each.driver for each in claims if each.driver} - there)
    return [
        {
            "apiVersion": SNAPSHOT_API,
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": f"{prefix}-{number}", "labels": {CLASS_LABEL: "true"}},
            "driver": driver,
            "deletionPolicy": "Delete",
        }
        for number, driver in enumerate(drivers)
    ]


def require_snapshots(
    objects: VeleroObjects, claims: Sequence[ClaimedVolume], *, name: str, seconds: float = _TRIAL_SECONDS
) -> None:
    """Return when every claim can be backed up by a CSI snapshot: one of each driver is tried, and deleted again.

    Args:
        objects: Velero's objects, and the cluster they are in.
        claims: What is backed up.
        name: Of the snapshot that is tried.
        seconds: How long a driver may take to cut one.

    Raises:
        VeleroError: It cannot; the message has every reason.
    """
    api = objects.api
    kinds = snapshot_kinds(api)
    classes = SnapshotClasses.of(api, kinds)
    registered = {
        driver["name"]
        for node in api.list(api.resource("CSINode", api_version="storage.k8s.io/v1"))
        for driver in (node.get("spec") or {}).get("drivers") or ()
    }
    problems: list[str] = []
    tried: set[tuple[str, str]] = set()
    for claim in claims:
        if not claim.volume:
            continue  # what that means is told of the backup
        if not claim.driver:
            problems.append(f"{claim}: its volume {claim.volume} is of the type {claim.source}, of no CSI driver")
            continue
        if claim.driver not in registered:
            problems.append(f"{claim}: no node has its CSI driver {claim.driver}: it does not run, or is not ready")
            continue
        chosen = classes.chosen_for(claim)
        if chosen.problem:
            problems.append(f"{claim}: {chosen.problem}")
        elif (claim.driver, chosen.name) not in tried:
            tried.add((claim.driver, chosen.name))
            why = "" if problems else _why_not_cut(api, kinds, claim, chosen.name, name=name, seconds=seconds)
            problems += [f"{claim}: {why}"] if why else []
    if problems:
        raise _impossible("; ".join(dict.fromkeys(problems)))


def require_server(objects: VeleroObjects, *, moves_data: bool) -> None:
    """Return when Velero's server takes and restores CSI snapshots, and where asked for, a node agent moves data.

    Raises:
        VeleroError: It cannot; Velero itself would leave volumes out, or wait for a node agent for hours.
    """
    problems = [*_features(objects), *(_mover(objects) if moves_data else ())]
    if problems:
        wanted = f"clusterguard velero install --feature {FEATURE}" + (" --use-node-agent" if moves_data else "")
        raise _impossible("; ".join(problems), hint=wanted)


def _mover(objects: VeleroObjects) -> Iterator[str]:
    api = objects.api
    try:
        agent = api.get(api.resource("DaemonSet", api_version="apps/v1"), _NODE_AGENT, objects.namespace)
    except ResourceNotFoundError:
        yield f"namespace {objects.namespace} has no DaemonSet {_NODE_AGENT}, which moves the data of snapshots"
        return
    state = readiness({"apiVersion": "apps/v1", "kind": "DaemonSet", **agent})
    if not (agent.get("status") or {}).get("numberReady"):
        yield f"the node agent, which moves the data of snapshots, is not ready: {state.reason}"


def _features(objects: VeleroObjects) -> Iterator[str]:
    """Yield that Velero was not told to take CSI snapshots, where its Deployment says so."""
    api = objects.api
    try:
        server = api.get(api.resource("Deployment", api_version="apps/v1"), "velero", objects.namespace)
    except ResourceNotFoundError:
        return  # it is called otherwise, or runs elsewhere; what the backup holds will tell
    containers = server["spec"]["template"]["spec"]["containers"]
    words = [word for each in containers for word in (*(each.get("command") or ()), *(each.get("args") or ()))]
    if not any(FEATURE in word for word in words):
        yield f"Velero's server runs without --features={FEATURE}, and takes no CSI snapshots"


def _impossible(message: str, *, hint: str = _HINT) -> VeleroError:
    return VeleroError(message, code="snapshots-impossible", hint=hint)


# ---- which class ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenClass:
    """The VolumeSnapshotClass that Velero takes for a claim, or why it finds none."""

    name: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotClasses:
    """The VolumeSnapshotClasses of a cluster."""

    items: Sequence[Json]

    @classmethod
    def of(cls, api: KubeClient, kinds: Mapping[str, ApiResource]) -> SnapshotClasses:
        """Return those that are there."""
        return cls(items=tuple(api.list(kinds["VolumeSnapshotClass"])))

    def drivers(self) -> set[str]:
        """Return the drivers that have a class."""
        return {str(each.get("driver") or "") for each in self.items}

    def chosen_for(self, claim: ClaimedVolume) -> ChosenClass:
        """Return what Velero takes for a claim: what its annotation names, the labelled, the default, the only one."""
        if wanted := claim.annotations.get(CLASS_LABEL):
            return self._named(wanted, claim.driver)
        of_driver = [each for each in self.items if each.get("driver") == claim.driver]
        marked = [*filter(_labelled, of_driver), *filter(_default, of_driver)] or of_driver
        names = ", ".join(each["metadata"]["name"] for each in of_driver)
        if marked and (len(of_driver) == 1 or marked is not of_driver):
            return ChosenClass(name=marked[0]["metadata"]["name"])
        if of_driver:
            several = f"driver {claim.driver} has several VolumeSnapshotClasses ({names})"
            return ChosenClass(problem=f"{several}, and none has the label {CLASS_LABEL}")
        others = ", ".join(sorted(self.drivers()))
        only = f", only of {others}" if others else ""
        return ChosenClass(problem=f"no VolumeSnapshotClass is of its driver {claim.driver}{only}")

    def _named(self, name: str, driver: str) -> ChosenClass:
        there = next((each for each in self.items if each["metadata"]["name"] == name), None)
        if there is None:
            return ChosenClass(problem=f"its annotation names VolumeSnapshotClass {name}, which is not there")
        if there.get("driver") != driver:
            return ChosenClass(
                problem=f"VolumeSnapshotClass {name} is of driver {there.get('driver')}, not of {driver}"
            )
        return ChosenClass(name=name)


def _labelled(item: Json) -> bool:
    return CLASS_LABEL in (item["metadata"].get("labels") or {})


def _default(item: Json) -> bool:
    return _DEFAULT in (item["metadata"].get("annotations") or {})


# ---- whether it works ----------------------------------------------------------------------------------------


def _why_not_cut(
    api: KubeClient,
    kinds: Mapping[str, ApiResource],
    claim: ClaimedVolume,
    class_name: str,
    *,
    name: str,
    seconds: float,
) -> str:
    """Return why no snapshot of a claim can be cut; empty where one was. It is deleted again, in the storage too."""
    snapshots = kinds["VolumeSnapshot"]
    manifest = {
        "apiVersion": SNAPSHOT_API,
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": claim.namespace},
        "spec": {"volumeSnapshotClassName": class_name, "source": {"persistentVolumeClaimName": claim.name}},
    }
    last: Json = {}

    def cut(seen: Json | None) -> bool:
        nonlocal last
        last = (seen or {}).get("status") or {}
        return bool(last.get("readyToUse") or last.get("creationTime"))

    api.create(manifest)
    try:
        api.wait_for(snapshots, name, claim.namespace, until=cut, what="a snapshot to be cut", timeout_seconds=seconds)
    except WaitTimeoutError:
        said = (last.get("error") or {}).get("message")
        if said:
            return f"its driver {claim.driver} takes no snapshot: {said}"
        content = last.get("boundVolumeSnapshotContentName")
        if content:
            return f"its driver {claim.driver} has not taken a snapshot within {seconds:g} s, and says nothing of it"
        return f"no snapshot controller has looked at a VolumeSnapshot within {seconds:g} s"
    finally:
        _remove(api, kinds, last, name=name, namespace=claim.namespace)
    return ""


def _remove(api: KubeClient, kinds: Mapping[str, ApiResource], status: Json, *, name: str, namespace: str) -> None:
    with suppress(ResourceNotFoundError):
        content = status.get("boundVolumeSnapshotContentName")
        if content:  # its class may say Retain, and nobody would ever delete it
            api.patch(kinds["VolumeSnapshotContent"], content, patch={"spec": {"deletionPolicy": "Delete"}})
    with suppress(ResourceNotFoundError):
        api.delete(kinds["VolumeSnapshot"], name, namespace)
    with suppress(WaitTimeoutError):  # where nobody deletes it, that was told already
        api.wait_for(
            kinds["VolumeSnapshot"],
            name,
            namespace,
            until=lambda seen: seen is None,
            what="a snapshot to go",
            timeout_seconds=_GONE_SECONDS,
        )
