"""Which defects are put into which objects: each defect once for each kind that can have it. Pure.

So a scope of thousands of objects is attacked no longer than one of ten; the objects of a kind take turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.drills.defects.catalogue import OBJECT_DEFECTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.drills.defects.catalogue import Object, ObjectDefect
    from clusterguard.model.inventory import ObjectRef

__all__ = ["choose", "is_owned"]


def choose(objects: Mapping[ObjectRef, Object], *, owned_too: bool) -> Iterator[tuple[ObjectDefect, ObjectRef]]:
    """Yield every defect with an object that can have it, one for each kind.

    Args:
        objects: What there is to attack.
        owned_too: Whether an object that a controller made counts as left out, too. It makes another one, so only a
            restore that brings the very same objects back can have forgotten it.
    """
    by_kind: dict[str, list[ObjectRef]] = {}
    for ref in sorted(objects):
        by_kind.setdefault(ref.full_kind, []).append(ref)
    turns = dict.fromkeys(by_kind, 0)
    for defect in OBJECT_DEFECTS:
        for kind, refs in by_kind.items():
            fitting = [
                ref
                for ref in refs
                if defect.fits(kind, objects[ref]) and (not is_owned(objects[ref]) or (owned_too and defect.removes))
            ]
            if fitting:
                yield defect, fitting[turns[kind] % len(fitting)]
                turns[kind] += 1


def is_owned(item: Object) -> bool:
    """Return whether a controller made an object, and would make it again."""
    return any(owner.get("controller") for owner in item["metadata"].get("ownerReferences") or ())
