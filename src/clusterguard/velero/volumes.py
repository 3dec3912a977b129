"""Which volumes a file-system backup or restore left out: asked of the cluster, because Velero does not say.

Velero skips a Pod's volume without any word in the backup's status when its PersistentVolume is of the type
hostPath, when the Pod does not run, and when an annotation or a policy says so.

Source of facts: velero.io/docs/main/file-system-backup.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from clusterguard.errors import ResourceNotFoundError
from clusterguard.velero.outcome import BackupOutcome, OutcomeFinding, RestoreOutcome, Rule
from clusterguard.velero.resources import PodVolumeBackup, PodVolumeRestore, valid_label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterguard.clusters.kube import Json, KubeClient
    from clusterguard.velero.objects import VeleroObjects

__all__ = ["claims_of", "repositories_of", "require_all_restored", "require_every_volume"]

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
    return _with(outcome, findings)


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
    return _with(outcome, findings)


def repositories_of(objects: VeleroObjects, backup: str) -> tuple[str, ...]:
    """Return the namespaces whose volumes' files are in a backup: each has a repository ``kopia/NAMESPACE/``."""
    saved = objects.list(PodVolumeBackup, labels={"velero.io/backup-name": valid_label(backup)})
    return tuple(sorted({each.volume.partition("/")[0] for each in saved}))


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


def _with(outcome: _Outcome, findings: Sequence[OutcomeFinding]) -> _Outcome:
    return replace(outcome, findings=(*outcome.findings, *findings))
