"""What a snapshot holds of a scope, in the form that clusters are captured in, so that the two can be compared."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from clusterguard.model.inventory import Inventory, ObjectRef, Scope, canonical
from clusterguard.snapshots.resources import BUILT_IN
from clusterguard.validate.capture import belongs_to, rule_leaving_out, status_may_be_plain

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from clusterguard.errors import StoredObjectError
    from clusterguard.snapshots.reader import SnapshotObject, SnapshotReader

__all__ = ["snapshot_inventory"]

_KINDS: Final = {str(resource): resource for resource in BUILT_IN}


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
    for found in reader.objects(selector=scope.selector, only=only):
        ref = _ref_of(found)
        if not belongs_to(ref, scope):
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


def _ref_of(found: SnapshotObject) -> ObjectRef:
    """Return what names an object: itself, or its key where nothing else can be read of it."""
    if found.data is not None:
        return ObjectRef.of(found.data)
    plural, _, group = found.key.resource.partition(".")
    known = _KINDS.get(found.key.resource)
    return ObjectRef(known.kind if known else plural, found.key.namespace, found.key.name, group)


def _in_words(errors: list[StoredObjectError]) -> str:
    return f"{len(errors):,} of it cannot be read from the snapshot: {errors[0].message}"
