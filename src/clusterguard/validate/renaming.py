"""An inventory as it must look after a restore under other namespace names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from clusterguard.model.inventory import encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterguard.model.inventory import Inventory, ObjectRef

__all__ = ["in_other_namespaces"]

_Object: TypeAlias = dict[str, Any]
_NAME_LABEL = "kubernetes.io/metadata.name"


def in_other_namespaces(inventory: Inventory, names: Mapping[str, str]) -> Inventory:
    """Return the inventory as it must look after a restore that maps namespaces.

    Velero renames the namespace of each object, and in other objects what names one of them: the subjects of
    RoleBindings and ClusterRoleBindings anywhere, the claim of a volume, the snapshot of a snapshot's contents. All
    other references it leaves as they are, those of webhooks, APIServices and conversions too (1.18.3).

    Args:
        inventory: What was captured.
        names: Old and new name.
    """
    if not names:
        return inventory
    scope = replace(inventory.scope, namespaces=tuple(names.get(name, name) for name in inventory.scope.namespaces))
    objects = dict(_renamed(ref, data, names) for ref, data in inventory.objects.items())
    system = dict(_renamed(ref, data, names) for ref, data in inventory.system.items())
    return replace(inventory, scope=scope, objects=objects, system=system)


def _renamed(ref: ObjectRef, data: bytes, names: Mapping[str, str]) -> tuple[ObjectRef, bytes]:
    is_namespace = (ref.kind, ref.group) == ("Namespace", "")
    old = ref.name if is_namespace else ref.namespace
    if old not in names and ref.full_kind not in _REFERENCES:
        return ref, data
    new = names.get(old, old)
    item: dict[str, Any] = orjson.loads(data)
    metadata = item["metadata"]
    if is_namespace:
        metadata["name"] = new
        if _NAME_LABEL in metadata.get("labels", {}):
            metadata["labels"][_NAME_LABEL] = new
        ref = replace(ref, name=new)
    elif ref.namespace:
        metadata["namespace"] = new
        ref = replace(ref, namespace=new)
    for named in _REFERENCES.get(ref.full_kind, _none)(item):
        if named.get("namespace") in names:
            named["namespace"] = names[named["namespace"]]
    return ref, encoded(item)


def _none(_: _Object) -> list[_Object]:
    return []


def _subjects(binding: _Object) -> list[_Object]:
    return binding.get("subjects") or []


def _claim(volume: _Object) -> list[_Object]:
    return [named] if (named := (volume.get("spec") or {}).get("claimRef")) else []


def _snapshot(content: _Object) -> list[_Object]:
    return [named] if (named := (content.get("spec") or {}).get("volumeSnapshotRef")) else []


_REFERENCES: Mapping[str, Callable[[_Object], list[_Object]]] = {
    "ClusterRoleBinding.rbac.authorization.k8s.io": _subjects,
    "PersistentVolume": _claim,
    "RoleBinding.rbac.authorization.k8s.io": _subjects,
    "VolumeSnapshotContent.snapshot.storage.k8s.io": _snapshot,
}
