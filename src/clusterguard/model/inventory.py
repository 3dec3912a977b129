"""What was in a cluster at one moment, in a form that two moments can be compared in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["Inventory", "ObjectRef", "Scope", "canonical", "encoded"]


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """Names one object of one cluster.

    Attributes:
        kind: Such as ``Deployment``.
        namespace: Its namespace, or ``""`` for what has none.
        name: Its name; ``*`` where all objects of the kind are meant.
        group: API group, ``""`` for the core group.
    """

    kind: str
    namespace: str
    name: str
    group: str = ""

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        """Return what names a decoded object."""
        metadata = item["metadata"]
        group = str(item["apiVersion"]).rpartition("/")[0]
        return cls(item["kind"], metadata.get("namespace") or "", metadata["name"], group)

    @property
    def full_kind(self) -> str:
        """The kind with its group, as scopes and rules write it: ``Pod``, ``Deployment.apps``."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.full_kind} {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What must come back. Empty means: everything that is not system-owned.

    What counts as system-owned is a table of named rules; see ``docs/reference/validation.md``.

    Attributes:
        namespaces: Names or globs; empty for all namespaces that are not system-owned, and for cluster-scoped
            objects. When given, the Namespace objects themselves belong to the scope; other cluster-scoped
            objects do only when their kind is named in ``kinds``. A glob never means a system namespace; its
            plain name does.
        kinds: ``Deployment`` or ``Deployment.apps``; empty for every kind that can be listed.
        selector: A label selector; empty for all objects.
        exclude: Kinds that do not belong to the scope, written as in ``kinds`` or as globs over the kind with
            its group (``*.metrics.k8s.io``).
    """

    namespaces: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    selector: str = ""
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The objects of a scope, as canonical JSON by reference.

    Objects are kept as encoded bytes: ten thousand decoded ones would take several times the memory, and most
    comparisons end at "the bytes are equal". Secrets are in it as the API returned them, in clear.

    Each kind is listed as of one moment; the moments of two kinds differ by the time the capture took.

    Attributes:
        taken: When the capture began, UTC, by the API server's clock.
        server_version: Of the API server, such as ``v1.36.3``.
        scope: What was asked for.
        objects: Each object as the API returned it, as JSON with sorted keys; see `canonical`.
        system: System-owned objects that come back by themselves: their loss is no loss, a difference in one is
            somebody's doing. Likewise.
        plain_status: Kinds (with their group) without a status subresource: their ``status`` is a field like any
            other, and each write of it counts as a generation.
        skipped: Kinds that could not be listed, with the reason: never silently empty.
        unanswered: API versions that discovery had no answer for, with the reason, where nothing of them could be
            compared.
        left_out: Objects that were seen but are system-owned: how many, by the name of the rule.
        not_listed: Kinds that were not even listed because a rule leaves them out whole, with its name.
    """

    taken: datetime
    server_version: str
    scope: Scope
    objects: Mapping[ObjectRef, bytes] = field(repr=False)
    system: Mapping[ObjectRef, bytes] = field(default_factory=dict, repr=False)
    plain_status: frozenset[str] = frozenset()
    skipped: Mapping[str, str] = field(default_factory=dict)
    unanswered: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    not_listed: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.objects)

    def __bool__(self) -> bool:
        return True  # an empty inventory is one; `len` tells


def canonical(item: dict[str, Any], *, with_managers: bool = False) -> bytes:
    """Return an object as inventories keep it: JSON with sorted keys.

    ``managedFields``, which tells who set which field, is large and changes with every write. It is kept only where
    it decides whether a difference is somebody's doing: of Services, whose addresses and ports may be chosen by the
    owner or by the cluster, and of pods without a controller, whose node may. Elsewhere it is taken out of the object
    itself, too.

    Args:
        item: The decoded object.
        with_managers: Whether to keep ``managedFields`` in any case.
    """
    if not with_managers and not _managers_matter(item):
        item["metadata"].pop("managedFields", None)
    return encoded(item)


def encoded(item: Mapping[str, Any]) -> bytes:
    """Return JSON with sorted keys that takes no more memory than its length.

    orjson (3.13) hands out what it wrote in the buffer that it wrote it into, 4 KiB and more: an inventory of small
    objects would take three times its size.
    """
    return bytes(memoryview(orjson.dumps(item, option=orjson.OPT_SORT_KEYS)))


def _managers_matter(item: Mapping[str, Any]) -> bool:
    if item["apiVersion"] != "v1":
        return False
    owners = item["metadata"].get("ownerReferences") or ()
    return item["kind"] == "Service" or (item["kind"] == "Pod" and not any(owner.get("controller") for owner in owners))
