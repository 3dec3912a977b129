"""What differs between two inventories: pure, field by field, every difference either found or explained."""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from clusterguard.model.report import FieldChange, Finding, FindingKind, Suppression
from clusterguard.validate.paths import Element, format_path
from clusterguard.validate.rules import ABSENT, Absent, Difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from clusterguard.model.inventory import ObjectRef
    from clusterguard.validate.paths import Path
    from clusterguard.validate.rules import Profile

__all__ = ["Comparison", "compare"]

_Object: TypeAlias = "Mapping[str, Any]"

_ADDED_BY_CONTROLLER = "pod replaced by its controller"
_STABLE_NAMES = {"StatefulSet"}  # a pod of one of these comes back under its own name

# Lists whose elements Kubernetes itself tells apart by a key (x-kubernetes-list-map-keys and patchMergeKey in
# its OpenAPI documents). The first entry whose keys all elements have, each combination once, is taken.
_MERGE_KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "conditions": (("type",),),
    "containerStatuses": (("name",),),
    "containers": (("name",),),
    "devices": (("name",),),
    "env": (("name",),),
    "ephemeralContainers": (("name",),),
    "hostAliases": (("ip",),),
    "imagePullSecrets": (("name",),),
    "initContainers": (("name",),),
    # By the owner's name and not its uid: an owner that was made again is the same owner with a changed uid.
    "ownerReferences": (("kind", "name"),),
    "ports": (("containerPort", "protocol"), ("port", "protocol"), ("port",), ("name",)),
    "resourceClaims": (("name",),),
    "secrets": (("name",),),
    "subjects": (("kind", "namespace", "name"), ("kind", "name")),
    "taints": (("key", "effect"),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "versions": (("name",),),
    "volumeClaimTemplates": (("metadata.name",),),
    "volumeDevices": (("devicePath",),),
    "volumeMounts": (("mountPath",),),
    "volumes": (("name",),),
    "webhooks": (("name",),),
}
_DEFAULTS = {"protocol": "TCP"}

# Of a Secret only these are told in clear, less its annotations: kubectl keeps the whole manifest in one.
_CLEAR_IN_SECRETS = frozenset({"apiVersion", "kind", "type", "immutable", "metadata"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs, before anybody decides what may."""

    findings: tuple[Finding, ...] = ()
    suppressed: tuple[Suppression, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Differ:
    """Compares two versions of one object."""

    ref: ObjectRef
    explain: Callable[[Difference], str | None]
    tell: Callable[[Path, Any], str]
    autoscaled: bool = False
    changes: list[FieldChange] = field(default_factory=list)
    suppressed: list[Suppression] = field(default_factory=list)

    def walk(self, path: Path, before: Any, after: Any) -> None:  # noqa: ANN401 - any JSON
        if _same(before, after) or self._explained(path, before, after):
            return
        if isinstance(before, dict) and isinstance(after, dict):
            self._pairs(path, [(key, before.get(key, ABSENT), after.get(key, ABSENT)) for key in {**before, **after}])
        elif isinstance(before, list) and isinstance(after, list):
            self._lists(path, before, after)
        elif (isinstance(before, Absent) or isinstance(after, Absent)) and self._partly_explained(path, before, after):
            # Some of what came or went is explained: tell the rest of it piece by piece.
            whole = after if isinstance(before, Absent) else before
            for step, value in _children(path, whole):
                then, now = (ABSENT, value) if isinstance(before, Absent) else (value, ABSENT)
                self.walk((*path, step), then, now)
        else:
            self._change(path, before, after)

    def _pairs(self, path: Path, pairs: Iterable[tuple[str | Element, Any, Any]]) -> None:
        for step, before, after in pairs:
            self.walk((*path, step), before, after)

    def _lists(self, path: Path, before: list[Any], after: list[Any]) -> None:
        keys = _merge_keys(path, before, after)
        if keys is None and not all(isinstance(item, dict) for item in (*before, *after)):
            self._change(path, before, after)  # a list of words is read as one value
            return
        old, new = _labelled(before, keys), _labelled(after, keys)
        labels = [*old, *(label for label in new if label not in old)]
        self._pairs(path, [(Element(label), old.get(label, ABSENT), new.get(label, ABSENT)) for label in labels])
        kept_before, kept_after = [x for x in old if x in new], [x for x in new if x in old]
        order = (*path, Element("order"))
        if kept_before != kept_after and not self._explained(order, kept_before, kept_after):
            # The order of containers and variables means something.
            self._change(order, kept_before, kept_after)

    def _explained(self, path: Path, before: Any, after: Any) -> bool:  # noqa: ANN401 - any JSON
        rule = self._rule(path, before, after)
        if rule is not None:
            self.suppressed.append(Suppression(rule=rule, ref=self.ref, path=format_path(path)))
        return rule is not None

    def _rule(self, path: Path, before: Any, after: Any) -> str | None:  # noqa: ANN401 - any JSON
        if not path:
            return None
        return self.explain(Difference(ref=self.ref, path=path, before=before, after=after, autoscaled=self.autoscaled))

    def _partly_explained(self, path: Path, before: Any, after: Any) -> bool:  # noqa: ANN401 - any JSON
        gone = isinstance(after, Absent)
        for step, value in _children(path, before if gone else after):
            below = (*path, step)
            then, now = (value, ABSENT) if gone else (ABSENT, value)
            if self._rule(below, then, now) is not None or self._partly_explained(below, then, now):
                return True
        return False

    def _change(self, path: Path, before: Any, after: Any) -> None:  # noqa: ANN401 - any JSON
        self.changes.append(
            FieldChange(path=format_path(path), before=self._told(path, before), after=self._told(path, after))
        )

    def _told(self, path: Path, value: Any) -> str | None:  # noqa: ANN401 - any JSON
        return None if isinstance(value, Absent) else self.tell(path, value)


def compare(
    before: Mapping[ObjectRef, bytes],
    after: Mapping[ObjectRef, bytes],
    *,
    profile: Profile,
    digest_key: bytes,
) -> Comparison:
    """Return every difference between two sets of objects.

    Args:
        before: Objects as canonical JSON, as in `Inventory.objects`.
        after: The same, later.
        profile: Which differences are explained.
        digest_key: Values of Secrets are told as digests under this key, so that equal ones look equal and
            nobody can find a weak one by trying words.

    Raises:
        ValueError: An object is not JSON.
    """
    autoscaled = _autoscaled(before) | _autoscaled(after)
    findings: list[Finding] = []
    suppressed: list[Suppression] = []
    for ref in before.keys() & after.keys():
        if before[ref] == after[ref]:
            continue
        differ = _Differ(
            ref=ref,
            explain=profile.explain,
            tell=_teller(ref, digest_key),
            autoscaled=_is_autoscaled(ref, before[ref], autoscaled),
        )
        differ.walk((), orjson.loads(before[ref]), orjson.loads(after[ref]))
        suppressed += differ.suppressed
        if differ.changes:
            findings.append(Finding(kind=FindingKind.CHANGED, ref=ref, changes=tuple(differ.changes)))
    missing, extra = before.keys() - after.keys(), after.keys() - before.keys()
    if profile.replaceable_pods:
        pairs = _replaced_pods({ref: before[ref] for ref in missing}, {ref: after[ref] for ref in extra})
        missing, extra = missing - pairs.keys(), extra - set(pairs.values())
        suppressed += [Suppression(rule=_ADDED_BY_CONTROLLER, ref=ref, path="metadata.name") for ref in pairs]
    if profile.loses_finished_work:
        finished = {ref for ref in missing if _is_finished(ref, before[ref])}
        missing = missing - finished
        suppressed += [Suppression(rule=FINISHED_WORK, ref=ref, path="status") for ref in finished]
    findings += [Finding(kind=FindingKind.MISSING, ref=ref) for ref in missing]
    findings += [Finding(kind=FindingKind.EXTRA, ref=ref) for ref in extra]
    return Comparison(
        findings=tuple(sorted(findings, key=lambda finding: finding.ref)),
        suppressed=tuple(sorted(suppressed, key=lambda item: (item.ref, item.path))),
    )


FINISHED_WORK = "finished work"
"""Velero restores neither Jobs that are done nor pods that have ended: there is nothing left for them to do."""


def _is_finished(ref: ObjectRef, data: bytes) -> bool:
    status = orjson.loads(data).get("status") or {}
    if ref.full_kind == "Job.batch":
        return bool(status.get("completionTime"))
    return ref.full_kind == "Pod" and status.get("phase") in {"Succeeded", "Failed"}


# ---- values ----------------------------------------------------------------------------------------------


def _same(before: Any, after: Any) -> bool:  # noqa: ANN401 - any JSON
    # To Python, 1, 1.0 and True are equal; to a cluster they are not.
    if type(before) is not type(after):
        return False
    if isinstance(before, dict | list):
        return orjson.dumps(before, option=_SORTED) == orjson.dumps(after, option=_SORTED)
    return bool(before == after)


_SORTED = orjson.OPT_SORT_KEYS


def _children(path: Path, value: Any) -> Iterator[tuple[str | Element, Any]]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        yield from ((Element(label), item) for label, item in _labelled(value, _merge_keys(path, value, [])).items())


def _merge_keys(path: Path, before: list[Any], after: list[Any]) -> tuple[str, ...] | None:
    name = next((step for step in reversed(path) if isinstance(step, str)), "")
    for keys in _MERGE_KEYS.get(name, ()):
        if _tells_apart(keys, before) and _tells_apart(keys, after):
            return keys
    return None


def _tells_apart(keys: tuple[str, ...], items: list[Any]) -> bool:
    if not all(isinstance(item, dict) for item in items):
        return False
    labels = [_label(item, keys) for item in items]
    return None not in labels and len(set(labels)) == len(labels)


def _label(item: _Object, keys: tuple[str, ...]) -> str | None:
    values = []
    for key in keys:
        value: Any = item
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            value = _DEFAULTS.get(key)
        if value is None or isinstance(value, dict | list):
            return None
        values.append(f"{key}={value}")
    return ",".join(values)


def _labelled(items: list[Any], keys: tuple[str, ...] | None) -> dict[str, Any]:
    if keys is None:
        return {str(index): item for index, item in enumerate(items)}
    return {_label(item, keys) or "": item for item in items}


def _teller(ref: ObjectRef, digest_key: bytes) -> Callable[[Path, Any], str]:
    def in_clear(_: Path, value: Any) -> str:  # noqa: ANN401 - any JSON
        return orjson.dumps(value, option=_SORTED).decode()

    def digest(value: Any) -> str:  # noqa: ANN401 - any JSON
        return hmac.new(digest_key, orjson.dumps(value, option=_SORTED), hashlib.sha256).hexdigest()[:12]

    def in_digests(path: Path, value: Any) -> str:  # noqa: ANN401 - any JSON
        secret = path[0] not in _CLEAR_IN_SECRETS or path[:2] == ("metadata", "annotations")
        return f'"sha256:{digest(value)}"' if secret else in_clear(path, value)

    return in_digests if ref.full_kind == "Secret" else in_clear


# ---- objects that belong together ------------------------------------------------------------------------

_Target: TypeAlias = tuple[str, str, str]  # kind with group, namespace, name


def _autoscaled(objects: Mapping[ObjectRef, bytes]) -> set[_Target]:
    """Return what the autoscalers among these objects scale."""
    targets = set()
    for ref, data in objects.items():
        if ref.full_kind != "HorizontalPodAutoscaler.autoscaling":
            continue
        target = orjson.loads(data).get("spec", {}).get("scaleTargetRef", {})
        group = str(target.get("apiVersion", "")).rpartition("/")[0]
        kind = str(target.get("kind", ""))
        targets.add((f"{kind}.{group}" if group else kind, ref.namespace, str(target.get("name", ""))))
    return targets


def _is_autoscaled(ref: ObjectRef, data: bytes, targets: set[_Target]) -> bool:
    if not targets:
        return False
    if (ref.full_kind, ref.namespace, ref.name) in targets:
        return True
    owner = _controller(data)  # the ReplicaSets of an autoscaled Deployment
    return owner is not None and (owner[0], ref.namespace, owner[1]) in targets


def _controller(data: bytes) -> tuple[str, str] | None:
    """Return kind (with its group) and name of the controller that owns an object, if any."""
    for owner in orjson.loads(data).get("metadata", {}).get("ownerReferences") or ():
        if owner.get("controller"):
            group = str(owner.get("apiVersion", "")).rpartition("/")[0]
            return f"{owner['kind']}.{group}" if group else str(owner["kind"]), str(owner["name"])
    return None


def _replaced_pods(missing: Mapping[ObjectRef, bytes], extra: Mapping[ObjectRef, bytes]) -> dict[ObjectRef, ObjectRef]:
    """Pair pods that are gone with new ones of the same controller, as long as there are enough."""
    replacements: dict[tuple[str, str, str], list[ObjectRef]] = defaultdict(list)
    for ref in sorted(extra, reverse=True):
        if owner := _naming_controller(ref, extra[ref]):
            replacements[owner].append(ref)
    pairs = {}
    for ref in sorted(missing):
        owner = _naming_controller(ref, missing[ref])
        if owner and replacements[owner]:
            pairs[ref] = replacements[owner].pop()
    return pairs


def _naming_controller(ref: ObjectRef, data: bytes) -> tuple[str, str, str] | None:
    """Return the controller that gave a pod its random name."""
    if ref.full_kind != "Pod":
        return None
    owner = _controller(data)
    if owner is None or owner[0].partition(".")[0] in _STABLE_NAMES:
        return None
    return ref.namespace, *owner
