"""Objects that came back under another name: whose name was generated, and who stands in their place now.

A pod that a ReplicaSet named is as good as another pod of the same ReplicaSet; the claim of its ephemeral volume goes
by the pod's name, and the volume by the uid of the claim. A pair is then compared like any object: only its name, and
what is assigned to a new object, may differ.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from clusterguard.model.inventory import ObjectRef
from clusterguard.validate.difference import controller_of, look_up, owner_refs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from clusterguard.validate.rules import Profile

__all__ = ["pairs_of", "under_new_names"]

_Object: TypeAlias = "Mapping[str, Any]"
_Key: TypeAlias = "tuple[object, ...] | None"
_Replaced: TypeAlias = "Mapping[ObjectRef, ObjectRef] | None"  # None: the object is one of the new ones itself

_STABLE_NAMES = {"StatefulSet"}  # a pod of one of these comes back under its own name
_ENDS_IN_UID = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_INDEX_OF_JOB = "batch.kubernetes.io/job-completion-index"
# Named after the uid of what they were made for, which is in such a field.
_MADE_FOR: Mapping[str, tuple[str, str]] = {
    "PersistentVolume": ("claimRef", "PersistentVolumeClaim"),
    "VolumeSnapshotContent.snapshot.storage.k8s.io": ("volumeSnapshotRef", "VolumeSnapshot"),
}


def pairs_of(
    missing: Mapping[ObjectRef, bytes], extra: Mapping[ObjectRef, bytes], profile: Profile
) -> dict[ObjectRef, ObjectRef]:
    """Pair objects that are gone with new ones in their place, as long as there are enough.

    Args:
        missing: Objects that are not there any more.
        extra: Objects that were not there before.
        profile: What may be replaced by what.
    """
    pairs: dict[ObjectRef, ObjectRef] = {}
    if not profile.replaceable or not missing or not extra:
        return pairs
    old = {ref: orjson.loads(data) for ref, data in missing.items()}
    new = {ref: orjson.loads(data) for ref, data in extra.items()}
    _pair(pairs, old, new, _by_controller)
    _pair(pairs, old, new, _by_owner)
    _pair(pairs, old, new, _by_purpose(profile))
    return pairs


def under_new_names(item: _Object, ref: ObjectRef, replaced: Mapping[ObjectRef, ObjectRef]) -> _Object:
    """Return an object with the names of its owners, and of what it was made for, as they are now."""
    metadata = dict(item["metadata"])
    if metadata.get("ownerReferences"):
        metadata["ownerReferences"] = [_renamed_owner(owner, ref, replaced) for owner in metadata["ownerReferences"]]
    item = {**item, "metadata": metadata}
    field, kind = _MADE_FOR.get(ref.full_kind, ("", ""))
    named = look_up(item, "spec", field)
    if named:
        new = replaced.get(_purpose(kind, ref, named))
        item["spec"] = {**item["spec"], field: {**named, "name": new.name if new else named.get("name")}}
    return item


def _renamed_owner(owner: _Object, ref: ObjectRef, replaced: Mapping[ObjectRef, ObjectRef]) -> _Object:
    new = next((replaced[name] for name in owner_refs(ref, owner) if name in replaced), None)
    return {**owner, "name": new.name} if new else owner


def _pair(
    pairs: dict[ObjectRef, ObjectRef],
    old: Mapping[ObjectRef, _Object],
    new: Mapping[ObjectRef, _Object],
    key_of: Callable[[ObjectRef, _Object, _Replaced], _Key],
) -> None:
    free: dict[_Key, list[ObjectRef]] = defaultdict(list)
    for ref in sorted(new.keys() - set(pairs.values()), reverse=True):
        free[key_of(ref, new[ref], None)].append(ref)
    # A pod that has ended needs nobody in its place, as long as others do.
    for ref in sorted(old.keys() - pairs.keys(), key=lambda ref: (_has_ended(old[ref]), ref)):
        key = key_of(ref, old[ref], pairs)
        if key is not None and free[key]:
            pairs[ref] = free[key].pop()


def _has_ended(item: _Object) -> bool:
    return look_up(item, "status", "phase") in {"Succeeded", "Failed"}


# ---- by whom -----------------------------------------------------------------------------------------------


def _by_controller(ref: ObjectRef, item: _Object, _: _Replaced) -> _Key:
    """Tell objects apart by the controller that gave them random names."""
    owner = controller_of(item)
    if owner is None or owner.get("kind") in _STABLE_NAMES:
        return None
    pattern = look_up(item, "metadata", "generateName")
    if ref.full_kind != "Pod" and not pattern:
        return None
    index = look_up(item, "metadata", "annotations", _INDEX_OF_JOB)
    return ref.full_kind, ref.namespace, _named(owner), pattern or "", index


def _by_owner(ref: ObjectRef, item: _Object, replaced: _Replaced) -> _Key:
    """Tell objects apart by an owner whose name is part of their own, and who was replaced."""
    owner = controller_of(item)
    if owner is None:
        return None
    name = str(owner.get("name"))
    pattern = str(look_up(item, "metadata", "generateName") or ref.name)
    if not pattern.startswith(name):
        return None
    owner_now = name
    if replaced is not None:
        new = next((replaced[each] for each in owner_refs(ref, owner) if each in replaced), None)
        if new is None:
            return None
        owner_now = new.name
    return ref.full_kind, ref.namespace, owner.get("kind"), owner_now, pattern.removeprefix(name)


def _by_purpose(profile: Profile) -> Callable[[ObjectRef, _Object, _Replaced], _Key]:
    """Tell volumes apart by the claim they were provisioned for, and contents by their snapshot."""

    def key_of(ref: ObjectRef, item: _Object, replaced: _Replaced) -> _Key:
        field, kind = _MADE_FOR.get(ref.full_kind, ("", ""))
        named = look_up(item, "spec", field)
        if not named or not _is_named_after_uid(ref, named):
            return None
        purpose = _purpose(kind, ref, named)
        if replaced is None:
            return ref.full_kind, purpose
        if purpose not in replaced and not profile.new_volumes:
            return None  # the claim is the same, and its data went with the volume
        return ref.full_kind, replaced.get(purpose, purpose)

    return key_of


def _purpose(kind: str, ref: ObjectRef, named: _Object) -> ObjectRef:
    return ObjectRef(kind, str(named.get("namespace", "")), str(named.get("name", "")), ref.group)


def _is_named_after_uid(ref: ObjectRef, named: _Object) -> bool:
    """Whether a provisioner named it: ``pvc-`` and a uid, ``snapcontent-`` and a uid."""
    uid = str(named.get("uid", ""))
    return (bool(uid) and ref.name.endswith(uid)) or re.search(
        r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", ref.name
    ) is not None


def _named(owner: _Object) -> Iterable[str]:
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    return group, str(owner.get("kind")), str(owner.get("name"))
