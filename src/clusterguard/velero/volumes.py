"""Which volumes a backup or a restore left out: asked of the cluster, because Velero does not say.

Velero skips a Pod's volume without any word in the backup's status when its PersistentVolume is of the type
hostPath, when the Pod does not run, and when an annotation or a policy says so.

A restore by CSI snapshots is Completed before any data is there, and where the storage does not know the snapshot none
ever is.

Source of facts: velero.io/docs/main/file-system-backup; Velero 1.18.3, run.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from clusterguard.errors import ResourceNotFoundError, WaitTimeoutError
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.csi import SNAPSHOT_API
from clusterguard.velero.outcome import BackupOutcome, OutcomeFinding, RestoreOutcome, Rule
from clusterguard.velero.resources import DataDownload, PodVolumeBackup, PodVolumeRestore, valid_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from clusterguard.clusters.kube import Json, KubeClient
    from clusterguard.velero.claims import ClaimedVolume
    from clusterguard.velero.objects import VeleroObjects
    from clusterguard.velero.volume_infos import VolumeRecord

__all__ = [
    "claims_of",
    "require_all_restored",
    "require_claims_restored",
    "require_every_claim",
    "require_every_volume",
    "with_findings",
]

_Outcome = TypeVar("_Outcome", BackupOutcome, RestoreOutcome)


def require_every_volume(
    outcome: BackupOutcome, objects: VeleroObjects, *, namespaces: Sequence[str] = (), selector: str = ""
) -> BackupOutcome:
    """Return the outcome of a backup with a finding for each claimed volume of a Pod that is not in it.

    Args:
        outcome: What else is known.
        objects: Velero's objects, and the cluster they are in.
        namespaces: Those that were backed up; all when empty.
        selector: Labels of what was backed up.
    """
    found = objects.list(PodVolumeBackup, labels={"velero.io/backup-name": valid_label(outcome.name)})
    saved = {each.volume for each in found}
    pods = objects.api.resource("Pod", api_version="v1")
    findings: list[OutcomeFinding] = []
    claimed = 0
    for namespace in namespaces or (None,):
        for pod in objects.api.list(pods, namespace, label_selector=selector):
            for volume, claim in claims_of(pod).items():
                claimed += 1
                name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}:{volume}"
                if name not in saved:
                    findings.append(_left_out(f"{name}: {_why(objects.api, pod, claim)}"))
    if not claimed:
        findings.append(_left_out("no Pod of the backup uses a PersistentVolumeClaim, so no data is in it"))
    return with_findings(outcome, findings)


def require_all_restored(outcome: RestoreOutcome, objects: VeleroObjects, *, backup: str) -> RestoreOutcome:
    """Return the outcome of a restore with a finding for each volume of the backup that was not filled.

    Volumes are filled when their Pods are created: those of Pods that were there already are left as they are.
    """
    saved = objects.list(PodVolumeBackup, labels={"velero.io/backup-name": valid_label(backup)})
    made = objects.list(PodVolumeRestore, labels={"velero.io/restore-name": valid_label(outcome.name)})
    # Namespaces may have new names, Pods and volumes keep theirs.
    filled = {each.volume.rpartition("/")[2] for each in made}
    left = [each.volume for each in saved if each.volume.rpartition("/")[2] not in filled]
    findings = [_left_out(f"{volume}: it is in the backup, and the restore did not fill it") for volume in left]
    if not saved:
        findings.append(_left_out("the backup has no volume data"))
    return with_findings(outcome, findings)


def require_every_claim(
    outcome: BackupOutcome, claims: Sequence[ClaimedVolume], *, moved: bool, tolerate: AbstractSet[Rule] = frozenset()
) -> BackupOutcome:
    """Return the outcome of a backup by CSI snapshots with a finding for each claim whose data it cannot give back.

    Args:
        outcome: What else is known.
        claims: What was backed up.
        moved: Whether the data of the snapshots was to be moved into the location.
        tolerate: The rules that do not count.
    """
    told = {each.ref for each in (*outcome.findings, *outcome.tolerated) if each.rule is Rule.CLAIM_UNBOUND}
    records: dict[str, list[VolumeRecord]] = {}
    for record in outcome.volumes:
        records.setdefault(record.volume, []).append(record)
    findings: list[OutcomeFinding] = []
    for claim in claims:
        ref = ObjectRef(kind="PersistentVolumeClaim", namespace=claim.namespace, name=claim.name)
        found = records.get(str(claim), [])
        if not claim.volume:
            if ref not in told:
                findings.append(OutcomeFinding(rule=Rule.CLAIM_UNBOUND, detail=claim.why_unbound, ref=ref))
        elif not found:
            findings.append(_left_out(f"{claim}: Velero recorded nothing of its volume {claim.volume}"))
        elif moved and any(each.in_storage_alone for each in found) and not any(each.moved for each in found):
            findings.append(_left_out(f"{claim}: its snapshot was not moved into the location"))
        elif moved and claim.waits and not claim.pods:
            detail = (
                f"no Pod uses it, and its class {claim.storage_class} waits for one: a restore moves its data then, "
                "and the node agent moves no other data meanwhile"
            )
            findings.append(OutcomeFinding(rule=Rule.CLAIM_UNUSED, detail=detail, ref=ref))
    if not claims:
        findings.append(_left_out("there is no PersistentVolumeClaim in what is backed up, so no data is in it"))
    return with_findings(outcome, findings, tolerate=tolerate)


def require_claims_restored(
    outcome: RestoreOutcome,
    objects: VeleroObjects,
    *,
    snapshots: Sequence[str],
    moved: Sequence[str],
    wait_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> RestoreOutcome:
    """Return the outcome of a restore with a finding for each claim of the backup that does not get its data.

    Args:
        outcome: What else is known.
        objects: Velero's objects, and the cluster they are in.
        snapshots: The claims whose data is a CSI snapshot in their storage, as ``namespace/claim`` of the backup.
        moved: Those whose data was moved into the location.
        wait_seconds: How long the storage may take to make the snapshots ready.
        clock: Seconds that only grow.
    """
    names = outcome.restore.options.namespace_mapping or {}

    def here(claims: Sequence[str]) -> list[tuple[str, str]]:
        parts = [each.partition("/") for each in claims]
        return [(names.get(namespace, namespace), claim) for namespace, _, claim in parts]

    made = objects.list(DataDownload, labels={"velero.io/restore-name": valid_label(outcome.name)}) if moved else ()
    filled = {each.volume for each in made}
    left = [f"{namespace}/{claim}" for namespace, claim in here(moved) if f"{namespace}/{claim}" not in filled]
    findings = [_left_out(f"{each}: its data is in the backup, and the restore did not fill it") for each in left]
    deadline = clock() + wait_seconds
    for namespace, claim in here(snapshots):
        found = _not_ready(objects.api, namespace, claim, seconds=max(0.0, deadline - clock()))
        findings += [found] if found else []
    return with_findings(outcome, findings)


def _not_ready(api: KubeClient, namespace: str, claim: str, *, seconds: float) -> OutcomeFinding | None:
    """Return why a restored claim does not get what its snapshot holds; None where the snapshot is ready."""
    try:
        there = api.get(api.resource("PersistentVolumeClaim", api_version="v1"), claim, namespace)
    except ResourceNotFoundError:
        return _left_out(f"{namespace}/{claim}: its data is in the backup, and the claim was not restored")
    source = (there.get("spec") or {}).get("dataSource") or {}
    if source.get("kind") != "VolumeSnapshot":
        return _left_out(f"{namespace}/{claim}: it was not made from the snapshot in the backup")
    name, last = str(source.get("name") or ""), dict[str, Any]()

    def ready(seen: Json | None) -> bool:
        nonlocal last
        last = (seen or {}).get("status") or {}
        return bool(last.get("readyToUse"))

    try:
        api.wait_for(
            api.resource("VolumeSnapshot", api_version=SNAPSHOT_API),
            name,
            namespace,
            until=ready,
            what=f"VolumeSnapshot {name} to be ready",
            timeout_seconds=seconds,
        )
    except WaitTimeoutError:
        said = (last.get("error") or {}).get("message") or "its storage says nothing of it"
        detail = f"{namespace}/{claim}: VolumeSnapshot {name} is not ready to use, so it gets no data: {said}"
        return OutcomeFinding(rule=Rule.SNAPSHOT_NOT_READY, detail=detail)
    return None


def claims_of(pod: Json) -> Mapping[str, str]:
    """Return the volumes of a Pod that some container mounts and a claim stands for: volume and claim."""
    spec = pod["spec"]
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts") or ()}
    return {
        each["name"]: each["persistentVolumeClaim"]["claimName"]
        for each in spec.get("volumes") or ()
        if "persistentVolumeClaim" in each and each["name"] in mounted
    }


def _why(api: KubeClient, pod: Json, claim: str) -> str:
    return "; ".join(_reasons(api, pod, claim)) or "Velero left it out, and does not say why"


def _reasons(api: KubeClient, pod: Json, claim: str) -> Iterator[str]:
    phase = (pod.get("status") or {}).get("phase")
    if phase != "Running":
        yield f"its Pod is {phase}, and only volumes of running ones are backed up"
    try:
        bound = api.get(api.resource("PersistentVolumeClaim", api_version="v1"), claim, pod["metadata"]["namespace"])
        name = (bound.get("spec") or {}).get("volumeName") or ""
        volume = api.get(api.resource("PersistentVolume", api_version="v1"), name) if name else None
    except ResourceNotFoundError as error:
        yield error.message
        return
    if volume is None:
        yield f"claim {claim} is bound to no volume"
    elif "hostPath" in volume["spec"]:
        yield (
            f"PersistentVolume {name} is of the type hostPath, which file-system backup always leaves out; "
            "one of the type local is backed up"
        )


def _left_out(detail: str) -> OutcomeFinding:
    return OutcomeFinding(rule=Rule.VOLUME_LEFT_OUT, detail=detail)


def with_findings(
    outcome: _Outcome, findings: Sequence[OutcomeFinding], *, tolerate: AbstractSet[Rule] = frozenset()
) -> _Outcome:
    """Return an outcome with further findings, those of the tolerated rules among the tolerated."""
    return replace(
        outcome,
        findings=(*outcome.findings, *(each for each in findings if each.rule not in tolerate)),
        tolerated=(*outcome.tolerated, *(each for each in findings if each.rule in tolerate)),
    )
