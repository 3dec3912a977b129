"""Objects of a snapshot as manifests that can be applied: what a server sets is gone, and the order is right.

The way to bring one deleted object or namespace back without restoring the cluster.
"""

from __future__ import annotations

import re
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from clusterguard.documents.writing import yaml_text
from clusterguard.errors import ConfigError
from clusterguard.model.inventory import ObjectRef, Scope
from clusterguard.scratch import replacing
from clusterguard.validate.capture import rule_leaving_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from clusterguard.snapshots.reader import SnapshotObject

__all__ = ["Export", "apply_order", "export_objects", "manifest_of"]

_BY_THE_SERVER: Final = (
    *("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"),
    *("deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers"),
)
_ANNOTATIONS: Final = (
    "deployment.kubernetes.io/revision",
    "kubernetes.io/service-account.uid",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
)
# What others need comes first; what intercepts or forwards requests comes last.
_ORDER: Final = (
    ("CustomResourceDefinition.apiextensions.k8s.io",),
    ("Namespace",),
    (
        *("PriorityClass.scheduling.k8s.io", "StorageClass.storage.k8s.io", "RuntimeClass.node.k8s.io"),
        *("IngressClass.networking.k8s.io", "GatewayClass.gateway.networking.k8s.io"),
    ),
    ("ResourceQuota", "LimitRange", "NetworkPolicy.networking.k8s.io"),
    ("ServiceAccount", *(f"{kind}.rbac.authorization.k8s.io" for kind in ("ClusterRole", "Role"))),
    tuple(f"{kind}.rbac.authorization.k8s.io" for kind in ("ClusterRoleBinding", "RoleBinding")),
    ("ConfigMap", "Secret", "PersistentVolume", "PersistentVolumeClaim"),
    ("Service",),
    (
        *("Pod", "ReplicationController", "Job.batch", "CronJob.batch"),
        *(f"{kind}.apps" for kind in ("ReplicaSet", "Deployment", "StatefulSet", "DaemonSet")),
    ),
)
_LAST: Final = (
    "ValidatingWebhookConfiguration.admissionregistration.k8s.io",
    "MutatingWebhookConfiguration.admissionregistration.k8s.io",
    "APIService.apiregistration.k8s.io",
)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9.-]+")
_TOKEN_VOLUME: Final = "kube-api-access-"  # noqa: S105 - of a volume's name
_JOB_UIDS: Final = ("controller-uid", "batch.kubernetes.io/controller-uid")
_JOB_NAMES: Final = ("job-name", "batch.kubernetes.io/job-name")


@dataclass(slots=True)
class Export:
    """What was written, and what was left out.

    Attributes:
        files: In the order in which they apply.
        left_out: How many objects, by the reason.
        unreadable: Objects that could not be read from the snapshot.
    """

    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unreadable: list[SnapshotObject] = field(default_factory=list)


def export_objects(
    objects: Iterable[SnapshotObject], folder: Path, *, secrets: bool = False, owned: bool = False, named: bool = False
) -> Export:
    """Write objects into a folder, a file for each, named so that ``kubectl apply -f FOLDER`` takes them in order.

    Files and folder are for this user alone. What every cluster makes by itself is left out.

    Args:
        objects: From `SnapshotReader.objects`.
        folder: It must not exist, or be empty.
        secrets: Whether Secrets are written.
        owned: Whether objects are written that a controller made of another one, and makes again.
        named: Whether a person chose each of them, so that nothing is left out but Secrets.

    Raises:
        ConfigError: The folder has something in it.
        OSError: It cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", hint="name a new one")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", hint="name a new folder: what is in it would be applied, too")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    export = Export()
    manifests: list[tuple[int, str, str, str, dict[str, Any]]] = []
    for found in objects:
        if found.data is None:
            export.unreadable.append(found)
            continue
        reason = _why_not(found.data, secrets=secrets, owned=owned, named=named)
        if reason:
            export.left_out[reason] += 1
            continue
        item = manifest_of(found.data)
        metadata = item["metadata"]
        manifests.append((apply_order(item), metadata.get("namespace", ""), item["kind"], metadata["name"], item))
    digits = len(str(len(manifests)))
    for number, (_, namespace, kind, name, item) in enumerate(sorted(manifests, key=lambda each: each[:4]), start=1):
        words = "-".join(filter(None, (kind.lower(), namespace, name)))
        path = folder / f"{number:0{digits}}-{_NOT_IN_NAMES.sub('_', words)[:180]}.yaml"
        with replacing(path) as file:
            file.write(yaml_text([item]).encode())
        export.files.append(path)
    return export


def manifest_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as it would be created again: without what the server or a controller sets.

    Kept are a Service's node ports, which others may rely on; its cluster IP is not, since it may be taken by now. A
    claim loses its volume, and gets a new and empty one where its class makes it one.
    """
    made = deepcopy(dict(item))
    made.pop("status", None)
    metadata = made["metadata"]
    for name in _BY_THE_SERVER:
        metadata.pop(name, None)
    for name in _ANNOTATIONS:
        (metadata.get("annotations") or {}).pop(name, None)
    for name in ("annotations", "labels"):
        if not metadata.get(name):
            metadata.pop(name, None)
    edit = _OF_KIND.get(ObjectRef.of(made).full_kind)  # other groups have kinds of these names, too
    if edit is not None:
        edit(made)
    return made


def _why_not(item: Mapping[str, Any], *, secrets: bool, owned: bool, named: bool) -> str:
    """Return why an object is left out, or an empty text."""
    if item["kind"] == "Secret" and item["apiVersion"] == "v1" and not secrets:
        return "Secrets, without --show-secrets"
    if named:
        return ""
    owners = item["metadata"].get("ownerReferences") or ()
    if not owned and any(owner.get("controller") for owner in owners):
        return "made by a controller, which makes them again"
    ref = ObjectRef.of(item)
    # Deployments' old states, Endpoints and the like come back with what they belong to.
    return rule_leaving_out(ref, dict(item), Scope()) or ""


def apply_order(item: Mapping[str, Any]) -> int:
    """Return when an object is applied: what others need has a lower number."""
    full_kind = ObjectRef.of(item).full_kind
    if full_kind in _LAST:
        return len(_ORDER) + 1
    return next((rank for rank, kinds in enumerate(_ORDER) if full_kind in kinds), len(_ORDER))


def _namespace(item: dict[str, Any]) -> None:
    item.pop("spec", None)


def _service(item: dict[str, Any]) -> None:
    spec = item["spec"]
    if spec.get("clusterIP") != "None":
        spec.pop("clusterIP", None)
        spec.pop("clusterIPs", None)
    spec.pop("healthCheckNodePort", None)


def _claim(item: dict[str, Any]) -> None:
    item["spec"].pop("volumeName", None)


def _volume(item: dict[str, Any]) -> None:
    for name in ("uid", "resourceVersion"):
        (item["spec"].get("claimRef") or {}).pop(name, None)


def _job(item: dict[str, Any]) -> None:
    if item["spec"].get("manualSelector"):
        return
    item["spec"].pop("selector", None)
    for label in _JOB_UIDS:
        (item["metadata"].get("labels") or {}).pop(label, None)
    for label in (*_JOB_UIDS, *_JOB_NAMES):
        ((item["spec"]["template"].get("metadata") or {}).get("labels") or {}).pop(label, None)


def _pod(item: dict[str, Any]) -> None:
    spec = item["spec"]
    spec.pop("nodeName", None)
    spec["volumes"] = [each for each in spec.get("volumes") or () if not each["name"].startswith(_TOKEN_VOLUME)]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        mounts = container.get("volumeMounts") or ()
        container["volumeMounts"] = [each for each in mounts if not each["name"].startswith(_TOKEN_VOLUME)]


def _service_account(item: dict[str, Any]) -> None:
    item.pop("secrets", None)


def _secret(item: dict[str, Any]) -> None:
    if item.get("type") == "kubernetes.io/service-account-token":
        item.pop("data", None)


_OF_KIND: Final[Mapping[str, Callable[[dict[str, Any]], None]]] = {
    "Namespace": _namespace,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "Job.batch": _job,
    "Pod": _pod,
    "ServiceAccount": _service_account,
    "Secret": _secret,
}
