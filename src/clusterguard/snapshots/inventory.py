"""What a snapshot holds of a scope, in the form that clusters are captured in, so that the two can be compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from clusterguard.model.inventory import Inventory, ObjectRef, Scope, canonical
from clusterguard.snapshots.resources import BUILT_IN
from clusterguard.validate.capture import belongs_to, rule_leaving_out, status_may_be_plain

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from clusterguard.errors import StoredObjectError
    from clusterguard.snapshots.reader import SnapshotKey, SnapshotReader

__all__ = ["kinds_in", "ref_of_key", "snapshot_inventory"]

_KINDS: Final = {str(resource): resource.kind for resource in BUILT_IN}


def snapshot_inventory(
    reader: SnapshotReader,
    scope: Scope = Scope(),  # noqa: B008 - immutable
    *,
    taken: datetime,
    only: Collection[bytes] | None = None,
) -> Inventory:
    """Return what a snapshot holds of a scope as an inventory; system-owned objects are left out as by a capture.

    Objects that cannot be read make their kind one that could not be listed: a comparison tells that it is unknown.

    Args:
        reader: Of the snapshot.
        scope: Which objects. Kinds are matched as written, ``Deployment`` or ``Deployment.apps``.
        taken: When the snapshot was taken, UTC.
        only: Keys of etcd; no other one is decoded.

    Raises:
        ConfigError: The selector is not valid.
        SnapshotCorruptError: A page is broken.
    """
    objects: dict[ObjectRef, bytes] = {}
    left_out: Counter[str] = Counter()
    unreadable: dict[str, list[StoredObjectError]] = {}
    kinds = kinds_in(reader)
    for found in reader.objects(selector=scope.selector, only=only):
        ref = ObjectRef.of(found.data) if found.data is not None else ref_of_key(found.key, kinds)
        # What a custom resource is that has no definition and cannot be read, nobody knows: it may belong to any scope.
        nameless = found.data is None and found.key.resource not in kinds
        if not belongs_to(ref, replace(scope, kinds=()) if nameless else scope):
            continue
        if found.data is None:
            assert found.error is not None  # noqa: S101 - one of the two
            unreadable.setdefault(ref.full_kind, []).append(found.error)
            continue
        item = dict(found.data)
        rule = rule_leaving_out(ref, item, scope)
        if rule is None:
            objects[ref] = canonical(item, with_managers=status_may_be_plain(ref, item))
        else:
            left_out[rule] += 1
    return Inventory(
        taken=taken,
        server_version="",  # no object tells the patch release
        scope=scope,
        objects=objects,
        left_out=dict(sorted(left_out.items())),
        skipped={kind: _in_words(errors) for kind, errors in sorted(unreadable.items())},
    )


def kinds_in(reader: SnapshotReader) -> dict[str, str]:
    """Return the kind of each resource, such as ``Deployment`` of ``deployments.apps``, as far as anything tells it.

    Raises:
        SnapshotCorruptError: A page is broken.
    """
    kinds = dict(_KINDS)
    for found in reader.objects("customresourcedefinitions"):
        spec = (found.data or {}).get("spec") or {}
        names = spec.get("names") or {}
        if names.get("kind"):
            kinds[f"{names.get('plural')}.{spec.get('group')}"] = names["kind"]
    for each in reader.contents().kinds:
        if each.resource not in kinds:  # without a definition; its objects say what they are
            readable = (found.data for found in reader.objects(each.resource) if found.data is not None)
            if (item := next(readable, None)) is not None:
                kinds[each.resource] = item["kind"]
    return kinds


def ref_of_key(key: SnapshotKey, kinds: Mapping[str, str]) -> ObjectRef:
    """Return what names an object, by its key alone.

    Args:
        key: The key.
        kinds: From `kinds_in`; the plural stands for a kind that is not among them.
    """
    plural, _, group = key.resource.partition(".")
    return ObjectRef(kinds.get(key.resource, plural), key.namespace, key.name, group)


def _in_words(errors: list[StoredObjectError]) -> str:
    return f"{len(errors):,} of it cannot be read from the snapshot: {errors[0].message}"
