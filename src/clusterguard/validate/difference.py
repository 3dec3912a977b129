"""One difference between two states of an object, with all that a rule may want to know to judge it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from clusterguard.model.inventory import ObjectRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.validate.paths import Path

__all__ = ["ABSENT", "GENERATED", "Absent", "Context", "Difference", "Scaler", "controller_of", "look_up"]

_Object: TypeAlias = "Mapping[str, Any]"


class Absent:
    """The type of `ABSENT`."""

    def __repr__(self) -> str:
        return "ABSENT"


GENERATED: Final = "[bcdfghjklmnpqrstvwxz2456789]{5}"
"""What the end of a generated name looks like (rand.SafeEncodeString of k8s.io/apimachinery)."""

ABSENT: Final = Absent()
"""Stands where a field is not there, which is something else than null."""


@dataclass(frozen=True, slots=True)
class Scaler:
    """What a HorizontalPodAutoscaler may scale its target to."""

    least: int
    most: int


@dataclass(slots=True, kw_only=True)
class Context:
    """Everything beside the object itself.

    Attributes:
        before: All objects before, system-owned ones included, as JSON.
        after: Likewise, now.
        plain_status: Kinds whose ``status`` is a field like any other.
        same_version: Whether the API server was of the same version both times.
        replaced: Objects that came back under another name, with the new one.
        scalers: Autoscalers, by what they scale: kind with group, namespace, name.
    """

    before: Mapping[ObjectRef, bytes]
    after: Mapping[ObjectRef, bytes]
    plain_status: frozenset[str] = frozenset()
    same_version: bool = True
    replaced: dict[ObjectRef, ObjectRef] = field(default_factory=dict)
    scalers: dict[tuple[str, str, str], list[Scaler]] = field(default_factory=dict)
    _decoded: dict[tuple[bool, ObjectRef], _Object] = field(default_factory=dict)

    def old(self, ref: ObjectRef) -> _Object | None:
        """Return an object as it was, or None if it was not in the inventory."""
        return self._get(ref, now=False)

    def new(self, ref: ObjectRef) -> _Object | None:
        """Return an object as it is, or None if it was not seen."""
        return self._get(ref, now=True)

    def _get(self, ref: ObjectRef, *, now: bool) -> _Object | None:
        if (now, ref) not in self._decoded:
            data = (self.after if now else self.before).get(ref)
            if data is None:
                return None
            self._decoded[now, ref] = orjson.loads(data)
        return self._decoded[now, ref]

    def new_owner(self, ref: ObjectRef, owner: _Object) -> _Object | None:
        """Return the object that an owner reference names, as it is now, or None if it was not seen."""
        return next((found for name in owner_refs(ref, owner) if (found := self.new(name)) is not None), None)

    def old_owner(self, ref: ObjectRef, owner: _Object) -> _Object | None:
        """Return the object that an owner reference names, as it was, or None if it was not in the inventory."""
        return next((found for name in owner_refs(ref, owner) if (found := self.old(name)) is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field of one object that is not as it was.

    Attributes:
        ref: The object, by its name before.
        path: The field.
        before: Its value then, or `ABSENT`.
        after: Its value now, or `ABSENT`.
        old: The whole object then.
        new: The whole object now.
        context: Everything else that was and is there.
    """

    ref: ObjectRef
    path: Path
    before: Any
    after: Any
    old: _Object
    new: _Object
    context: Context

    @property
    def made_again(self) -> bool:
        """Whether this is another object than before, under its name or in its place."""
        uids = (look_up(item, "metadata", "uid") for item in (self.old, self.new))
        return self.replaced or len(set(uids)) > 1

    @property
    def replaced(self) -> bool:
        """Whether the object came back under another name."""
        return self.ref in self.context.replaced


def look_up(item: Any, *steps: str) -> Any:  # noqa: ANN401 - any JSON
    """Return what lies at the end of a way through maps, or None where it ends early."""
    for step in steps:
        if not isinstance(item, dict):
            return None
        item = item.get(step)
    return item


def controller_of(item: _Object) -> _Object | None:
    """Return the reference to the controller that owns an object, if any."""
    owners = look_up(item, "metadata", "ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def owner_refs(ref: ObjectRef, owner: _Object) -> Iterator[ObjectRef]:
    """Yield what an owner reference may name: an object of the same namespace, or one without any."""
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    kind, name = str(owner.get("kind", "")), str(owner.get("name", ""))
    yield ObjectRef(kind, ref.namespace, name, group)
    if ref.namespace:
        yield ObjectRef(kind, "", name, group)
