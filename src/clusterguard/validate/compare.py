"""What differs between two inventories: pure, field by field, every difference either found or explained."""

from __future__ import annotations

import hashlib
import hmac
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import orjson

from clusterguard.model.report import FieldChange, Finding, FindingKind, Suppression
from clusterguard.validate.difference import ABSENT, Context, Difference, Scaler, look_up
from clusterguard.validate.pairing import pairs_of, under_new_names
from clusterguard.validate.paths import Element, format_path
from clusterguard.validate.rules import FINISHED_WORK, RuleIndex, adjusted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from clusterguard.model.inventory import ObjectRef
    from clusterguard.validate.paths import Path
    from clusterguard.validate.rules import Profile

__all__ = ["Comparison", "compare"]

_Object: TypeAlias = "Mapping[str, Any]"

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
    """Compares two states of one object."""

    ref: ObjectRef
    old: _Object
    new: _Object
    rules: RuleIndex
    context: Context
    tell: Callable[[Path, Any], str]
    changes: list[FieldChange] = field(default_factory=list)
    suppressed: list[Suppression] = field(default_factory=list)

    def compare(self) -> Self:
        self._pairs((), _steps(_without_managers(self.old), _without_managers(self.new)))
        return self

    def _walk(self, path: Path, before: Any, after: Any) -> None:  # noqa: ANN401 - any JSON
        if _same(before, after) or self._explained(path, before, after):
            return
        if isinstance(before, dict) and isinstance(after, dict):
            self._pairs(path, _steps(before, after))
        elif isinstance(before, list) and isinstance(after, list):
            self._lists(path, before, after)
        elif (before is ABSENT or after is ABSENT) and self._partly_explained(path, before, after):
            # Some of what came or went is explained: tell the rest of it piece by piece.
            whole = after if before is ABSENT else before
            for step, value in _children(path, whole):
                then, now = (ABSENT, value) if before is ABSENT else (value, ABSENT)
                self._walk((*path, step), then, now)
        else:
            self._change(path, before, after)

    def _pairs(self, path: Path, pairs: Iterable[tuple[str | Element, Any, Any]]) -> None:
        for step, before, after in pairs:
            self._walk((*path, step), before, after)

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
        difference = None
        for rule in self.rules.candidates(path):
            if rule.when is None:
                return rule.name
            difference = difference or self._difference(path, before, after)
            if rule.when(difference):
                return rule.name
        return None

    def _difference(self, path: Path, before: Any, after: Any) -> Difference:  # noqa: ANN401 - any JSON
        return Difference(
            ref=self.ref, path=path, before=before, after=after, old=self.old, new=self.new, context=self.context
        )

    def _partly_explained(self, path: Path, before: Any, after: Any) -> bool:  # noqa: ANN401 - any JSON
        gone = after is ABSENT
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
        return None if value is ABSENT else self.tell(path, value)


def compare(
    before: Mapping[ObjectRef, bytes],
    after: Mapping[ObjectRef, bytes],
    *,
    profile: Profile,
    digest_key: bytes,
    system: tuple[Mapping[ObjectRef, bytes], Mapping[ObjectRef, bytes]] = ({}, {}),
    plain_status: frozenset[str] = frozenset(),
    same_version: bool = True,
) -> Comparison:
    """Return every difference between two sets of objects.

    Args:
        before: Objects as canonical JSON, as in `Inventory.objects`.
        after: The same, later.
        profile: Which differences are explained.
        digest_key: Values of Secrets are told as digests under this key, so that equal ones look equal and
            nobody can find a weak one by trying words.
        system: System-owned objects before and after, as in `Inventory.system`: they may come and go, but a
            difference in one counts.
        plain_status: Kinds whose ``status`` is a field like any other, as in `Inventory.plain_status`.
        same_version: Whether the API servers were of the same version.

    Raises:
        ValueError: An object is not JSON.
    """
    then, now = ({**system[0], **before}, {**system[1], **after}) if any(system) else (before, after)
    context = Context(
        before=then, after=now, plain_status=plain_status, same_version=same_version, scalers=_scalers(then, now)
    )
    missing = {ref: before[ref] for ref in before.keys() - now.keys()}
    extra = {ref: after[ref] for ref in after.keys() - then.keys()}
    context.replaced.update(pairs_of(missing, extra, profile))
    changed = {ref: ref for ref in then.keys() & now.keys() if then[ref] != now[ref]} | context.replaced
    rules = _Rules(profile=profile, by_itself=changed.keys() - before.keys())
    findings, suppressed = _compared(changed, context, rules, digest_key)
    lost = missing.keys() - context.replaced.keys()
    finished = {ref for ref in lost if profile.loses_finished_work and _is_finished(ref, missing[ref])}
    suppressed += [Suppression(rule=FINISHED_WORK, ref=ref, path="status") for ref in finished]
    findings += [Finding(kind=FindingKind.MISSING, ref=ref) for ref in lost - finished]
    findings += [Finding(kind=FindingKind.EXTRA, ref=ref) for ref in extra.keys() - set(context.replaced.values())]
    return Comparison(
        findings=tuple(sorted(findings, key=lambda finding: finding.ref)),
        suppressed=tuple(sorted(suppressed, key=lambda item: (item.ref, item.path))),
    )


@dataclass(slots=True, kw_only=True)
class _Rules:
    """The rules for each object, looked up once for each kind.

    Attributes:
        profile: Of the restore.
        by_itself: System-owned objects: made anew whenever they are lost, so never by identity.
    """

    profile: Profile
    by_itself: Collection[ObjectRef]
    _known: dict[tuple[str, bool], RuleIndex] = field(default_factory=dict)

    def of(self, ref: ObjectRef) -> RuleIndex:
        key = (ref.full_kind, ref in self.by_itself)
        if key not in self._known:
            profile = adjusted(self.profile, identity="name") if key[1] else self.profile
            self._known[key] = RuleIndex(profile, ref.full_kind)
        return self._known[key]


def _compared(
    changed: Mapping[ObjectRef, ObjectRef], context: Context, rules: _Rules, digest_key: bytes
) -> tuple[list[Finding], list[Suppression]]:
    """Compare each object with what it is now, or with what stands in its place."""
    findings: list[Finding] = []
    suppressed: list[Suppression] = []
    for ref, now in changed.items():
        old = orjson.loads(context.before[ref])
        differ = _Differ(
            ref=ref,
            old=under_new_names(old, ref, context.replaced) if context.replaced else old,
            new=orjson.loads(context.after[now]),
            rules=rules.of(ref),
            context=context,
            tell=_teller(ref, digest_key),
        ).compare()
        suppressed += differ.suppressed
        if differ.changes:
            detail = f"in its place: {now.name}" if now != ref else ""
            findings.append(Finding(kind=FindingKind.CHANGED, ref=ref, changes=tuple(differ.changes), detail=detail))
    return findings, suppressed


def _is_finished(ref: ObjectRef, data: bytes) -> bool:
    """Velero restores neither Jobs that are done nor pods that have ended: there is nothing left for them to do."""
    status = orjson.loads(data).get("status")
    if ref.full_kind == "Job.batch":
        return bool(look_up(status, "completionTime"))
    return ref.full_kind == "Pod" and look_up(status, "phase") in {"Succeeded", "Failed"}


# ---- values ----------------------------------------------------------------------------------------------


def _same(before: Any, after: Any) -> bool:  # noqa: ANN401 - any JSON
    # To Python, 1, 1.0 and True are equal; to a cluster they are not.
    if before != after or type(before) is not type(after):
        return False
    return not isinstance(before, dict | list) or orjson.dumps(before, option=_SORTED) == orjson.dumps(
        after, option=_SORTED
    )


_SORTED = orjson.OPT_SORT_KEYS


def _steps(before: _Object, after: _Object) -> Iterator[tuple[str | Element, Any, Any]]:
    for key, value in before.items():
        yield key, value, after.get(key, ABSENT)
    for key, value in after.items():
        if key not in before:
            yield key, ABSENT, value


def _without_managers(item: _Object) -> _Object:
    """Return an object without the times and names of its writers, which only rules look at."""
    if "managedFields" not in item["metadata"]:
        return item
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {**item, "metadata": metadata}


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


def _scalers(*objects: Mapping[ObjectRef, bytes]) -> dict[tuple[str, str, str], list[Scaler]]:
    """Return the autoscalers among these objects, by what they scale."""
    found: dict[tuple[str, str, str], list[Scaler]] = defaultdict(list)
    for ref, data in chain.from_iterable(some.items() for some in objects):
        if ref.kind != "HorizontalPodAutoscaler" or ref.group != "autoscaling":
            continue
        spec = orjson.loads(data).get("spec") or {}
        target = spec.get("scaleTargetRef") or {}
        group = str(target.get("apiVersion", "")).rpartition("/")[0]
        kind = str(target.get("kind", ""))
        key = (f"{kind}.{group}" if group else kind, ref.namespace, str(target.get("name", "")))
        found[key].append(Scaler(least=_count(spec, "minReplicas", 1), most=_count(spec, "maxReplicas", sys.maxsize)))
    return dict(found)


def _count(spec: _Object, name: str, default: int) -> int:
    value = spec.get(name)
    return value if isinstance(value, int) else default
