"""An inventory as it must look after a restore under other namespace names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.model.inventory import Inventory, ObjectRef

__all__ = ["in_other_namespaces"]

_NAME_LABEL = "kubernetes.io/metadata.name"


def in_other_namespaces(inventory: Inventory, names: Mapping[str, str]) -> Inventory:
    """Return the inventory with namespaces renamed: in the scope, in references, and in the objects.

    Velero renames the namespace of the subjects of role bindings, too, and so does this.

    Args:
        inventory: What was captured.
        names: Old and new name.
    """
    if not names:
        return inventory
    scope = replace(inventory.scope, namespaces=tuple(names.get(name, name) for name in inventory.scope.namespaces))
    objects = dict(_renamed(ref, data, names) for ref, data in inventory.objects.items())
    return replace(inventory, scope=scope, objects=objects)


def _renamed(ref: ObjectRef, data: bytes, names: Mapping[str, str]) -> tuple[ObjectRef, bytes]:
    is_namespace = (ref.kind, ref.group) == ("Namespace", "")
    old = ref.name if is_namespace else ref.namespace
    if old not in names:
        return ref, data
    new = names[old]
    item: dict[str, Any] = orjson.loads(data)
    metadata = item["metadata"]
    if is_namespace:
        metadata["name"] = new
        if _NAME_LABEL in metadata.get("labels", {}):
            metadata["labels"][_NAME_LABEL] = new
        ref = replace(ref, name=new)
    else:
        metadata["namespace"] = new
        ref = replace(ref, namespace=new)
    for subject in item.get("subjects") or ():
        if subject.get("namespace") in names:
            subject["namespace"] = names[subject["namespace"]]
    return ref, orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
