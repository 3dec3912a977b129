"""Every defect that an object can have: what it is, of which kinds, and how the object looks with it. Pure.

A defect is what a restore could bring back wrong without a word: valid, and not what was backed up. So each changes as
little as it can, and gives nothing that an API server would refuse to read.
"""

from __future__ import annotations

import base64
import binascii
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterguard.model.inventory import ObjectRef
from clusterguard.validate.rules import VELERO_RESTORE, RuleIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["OBJECT_DEFECTS", "ObjectDefect", "changed_field"]

Object: TypeAlias = dict[str, Any]

_OTHER: Final = "-other"
_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": ("spec",),
    "ReplicationController": ("spec", "template", "spec"),
    "Deployment.apps": ("spec", "template", "spec"),
    "ReplicaSet.apps": ("spec", "template", "spec"),
    "StatefulSet.apps": ("spec", "template", "spec"),
    "DaemonSet.apps": ("spec", "template", "spec"),
    "Job.batch": ("spec", "template", "spec"),
    "CronJob.batch": ("spec", "jobTemplate", "spec", "template", "spec"),
}
_SCALED: Final = ("ReplicationController", "Deployment.apps", "ReplicaSet.apps", "StatefulSet.apps")
_ROLES: Final = ("Role.rbac.authorization.k8s.io", "ClusterRole.rbac.authorization.k8s.io")
_BINDINGS: Final = ("RoleBinding.rbac.authorization.k8s.io", "ClusterRoleBinding.rbac.authorization.k8s.io")
_NETWORK_POLICY: Final = "NetworkPolicy.networking.k8s.io"
_DEFINITION: Final = "CustomResourceDefinition.apiextensions.k8s.io"
# The API server gives it to every Namespace that it reads.
_ALWAYS_THERE: Final = "kubernetes.io/metadata.name"
# Of kubectl, of controllers and of Velero itself: nobody's wish, although no rule may name all of it.
_BOOKKEEPING: Final = ("deployment.kubernetes.io/", "kubectl.kubernetes.io/", "pv.kubernetes.io/", "velero.io/")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectDefect:
    """One defect of objects.

    Attributes:
        name: As reports and the documentation call it.
        words: What is wrong, for a sentence about an object.
        edit: Puts it into an object, and returns whether there was something to change; None removes the object.
        kinds: Those that can have it, with their groups; empty for all.
        not_kinds: Those that have defects of their own in its place.
        replaces_pods: Whether a controller that sees it makes other Pods.
    """

    name: str
    words: str
    edit: Callable[[Object], bool] | None
    kinds: tuple[str, ...] = ()
    not_kinds: tuple[str, ...] = ()
    replaces_pods: bool = False

    @property
    def removes(self) -> bool:
        """Whether the object is gone with it."""
        return self.edit is None

    def fits(self, full_kind: str, item: Object) -> bool:
        """Return whether an object can have it."""
        if (self.kinds and full_kind not in self.kinds) or full_kind in self.not_kinds:
            return False
        return self.removes or self.put_into(item) is not None

    def put_into(self, item: Object) -> Object | None:
        """Return a copy of an object that has it, or None where there is nothing to change or nothing left."""
        if self.edit is None:
            return None
        changed = copy.deepcopy(item)
        return changed if self.edit(changed) and changed != item else None


def changed_field(before: Any, after: Any) -> str:  # noqa: ANN401 - JSON
    """Return the path of the first field that differs, such as ``spec.ports[0].port``; ``""`` if none does."""
    return next(_changed(before, after), "").lstrip(".")


def _changed(before: Any, after: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            for path in _changed(before.get(key), after.get(key)):
                yield f".{key}{path}"
    elif _are_objects(before) and _are_objects(after) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            for path in _changed(old, new):
                yield f"[{index}]{path}"
    elif before != after:
        yield ""


def _are_objects(value: Any) -> bool:  # noqa: ANN401 - JSON
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


# ---- of every kind ------------------------------------------------------------------------------------------


def _drop_label(item: Object) -> bool:
    return _drop_last(item, "labels")


def _drop_annotation(item: Object) -> bool:
    return _drop_last(item, "annotations")


def _drop_last(item: Object, field: str) -> bool:
    """Drop what somebody wrote, not what the cluster itself writes and may write anew after a restore."""
    found: dict[str, str] = item["metadata"].get(field) or {}
    excused = RuleIndex(VELERO_RESTORE, ObjectRef.of(item).full_kind)
    # Rules for whatever key are about replaced Pods, which nobody attacks: only one that names the key counts.
    of_any = {rule.name for rule in excused.candidates(("metadata", field, ""))}
    wanted = [
        key
        for key in sorted(found)
        if not key.startswith((_ALWAYS_THERE, *_BOOKKEEPING))
        and all(rule.name in of_any for rule in excused.candidates(("metadata", field, key)))
    ]
    if wanted:
        del found[wanted[-1]]
        if not found:
            del item["metadata"][field]  # as an API server serves it
    return bool(wanted)


# ---- configuration ------------------------------------------------------------------------------------------


def _change_secret(item: Object) -> bool:
    data: dict[str, str] = item.get("data") or {}
    for key in sorted(data):
        try:
            value = bytearray(base64.b64decode(data[key], validate=True))
        except binascii.Error:
            continue
        if value:
            value[-1] ^= 1
            data[key] = base64.b64encode(value).decode()
            return True
    return False


def _cut_config(item: Object) -> bool:
    data: dict[str, str] = item.get("data") or {}
    longest = max(sorted(data), key=lambda key: len(data[key]), default="")
    if not data.get(longest):
        return False
    data[longest] = data[longest][: len(data[longest]) // 2]
    return True


# ---- workloads ----------------------------------------------------------------------------------------------


def _containers(item: Object) -> list[Object]:
    group = item["apiVersion"].rpartition("/")[0]
    inner: Any = item
    for key in _TEMPLATES[f"{item['kind']}.{group}" if group else item["kind"]]:
        inner = inner.get(key) or {}
    containers: list[Object] = inner.get("containers") or []
    return containers


def _change_image(item: Object) -> bool:
    for container in _containers(item):
        image = container.get("image", "")
        name, _, _ = image.partition("@")
        head, slash, tail = name.rpartition("/")
        if tail:
            container["image"] = f"{head}{slash}{tail.partition(':')[0]}:clusterguard{_OTHER}"
            return True
    return False


def _change_replicas(item: Object) -> bool:
    replicas = (item.get("spec") or {}).get("replicas")
    if not isinstance(replicas, int):
        return False
    item["spec"]["replicas"] = replicas - 1 if replicas > 1 else replicas + 1
    return True


def _change_limit(item: Object) -> bool:
    for container in _containers(item):
        resources = container.get("resources") or {}
        for limits in (resources.get("limits") or {}, resources.get("requests") or {}):
            for name in sorted(limits):
                limits[name] = "2" if limits[name] == "1" else "1"
                return True
    return False


# ---- network ------------------------------------------------------------------------------------------------


def _change_selector(item: Object) -> bool:
    selector: dict[str, str] = (item.get("spec") or {}).get("selector") or {}
    for key in sorted(selector):
        selector[key] += _OTHER
        return True
    return False


def _change_port(item: Object) -> bool:
    for port in (item.get("spec") or {}).get("ports") or ():
        number = port["port"]
        port["port"] = number + 1 if number < (1 << 16) - 1 else number - 1
        return True
    return False


def _open_network(item: Object) -> bool:
    spec = item.get("spec") or {}
    types = spec.get("policyTypes") or ["Ingress"]
    for direction in ("Ingress", "Egress"):
        rules = spec.get(direction.lower()) or []
        if direction in types and {} not in rules:
            spec[direction.lower()] = [*rules, {}]  # an empty rule lets everybody through
            return True
    return False


# ---- rights -------------------------------------------------------------------------------------------------


def _widen_rule(item: Object) -> bool:
    for rule in item.get("rules") or ():
        for field in ("verbs", "resources"):
            if rule.get(field) and "*" not in rule[field]:
                rule[field] = ["*"]
                return True
    return False


def _change_subject(item: Object) -> bool:
    for subject in item.get("subjects") or ():
        subject["name"] += _OTHER
        return True
    return False


# ---- custom resources, and every other kind -----------------------------------------------------------------


def _cut_schema(item: Object) -> bool:
    for version in (item.get("spec") or {}).get("versions") or ():
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        for name, inner in sorted((schema.get("properties") or {}).items()):
            fields = inner.get("properties") or {}
            if fields and name not in ("metadata", "status"):
                del fields[max(fields)]
                if not fields:
                    del inner["properties"]
                inner["required"] = [each for each in inner.get("required") or () if each in fields]
                if not inner["required"]:
                    del inner["required"]
                return True
    return False


def _change_any_field(item: Object) -> bool:
    # Text of a built-in kind may be a quantity, a name or a time: another text could make the object unreadable.
    text_too = "." in (group := item["apiVersion"].rpartition("/")[0]) and not group.endswith(".k8s.io")
    return _change_inside(item.get("spec"), text_too=text_too)


def _change_inside(value: Any, *, text_too: bool) -> bool:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        for key in sorted(value):
            if (other := _other_than(value[key], text_too=text_too)) is not None:
                value[key] = other
                return True
        return any(_change_inside(value[key], text_too=text_too) for key in sorted(value))
    if isinstance(value, list):
        return any(_change_inside(each, text_too=text_too) for each in value)
    return False


def _other_than(value: Any, *, text_too: bool) -> Any:  # noqa: ANN401 - JSON
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case [*_, str()] if len(value) > 1 or text_too:
            return value[:-1]
        case str() if text_too:
            return value + _OTHER
    return None


# ---- the table ----------------------------------------------------------------------------------------------

_OWN: Final = (
    ObjectDefect(name="secret-changed", words="one bit of a value changed", kinds=("Secret",), edit=_change_secret),
    ObjectDefect(
        name="config-cut",
        words="its longest value cut in half",
        kinds=("ConfigMap",),
        edit=_cut_config,
    ),
    ObjectDefect(
        name="image-changed",
        words="another tag of a container's image",
        kinds=tuple(_TEMPLATES),
        replaces_pods=True,
        edit=_change_image,
    ),
    ObjectDefect(
        name="limit-changed",
        words="another resource limit or request",
        kinds=tuple(_TEMPLATES),
        replaces_pods=True,
        edit=_change_limit,
    ),
    ObjectDefect(
        name="replicas-changed", words="one replica less", kinds=_SCALED, replaces_pods=True, edit=_change_replicas
    ),
    ObjectDefect(name="selector-changed", words="another selector", kinds=("Service",), edit=_change_selector),
    ObjectDefect(name="port-changed", words="another port", kinds=("Service",), edit=_change_port),
    ObjectDefect(
        name="network-opened",
        words="a rule that lets everybody through",
        kinds=(_NETWORK_POLICY,),
        edit=_open_network,
    ),
    ObjectDefect(name="rule-widened", words="every verb, or every resource, allowed", kinds=_ROLES, edit=_widen_rule),
    ObjectDefect(name="subject-changed", words="another subject", kinds=_BINDINGS, edit=_change_subject),
    ObjectDefect(
        name="definition-older",
        words="a field is missing in the schema, as in an older version of the definition",
        kinds=(_DEFINITION,),
        edit=_cut_schema,
    ),
)
OBJECT_DEFECTS: Final[tuple[ObjectDefect, ...]] = (
    ObjectDefect(name="object-left-out", words="left out", edit=None),
    ObjectDefect(name="label-dropped", words="a label dropped", edit=_drop_label),
    ObjectDefect(name="annotation-dropped", words="an annotation dropped", edit=_drop_annotation),
    *_OWN,
    ObjectDefect(
        name="field-changed",
        words="a field of its spec changed",
        not_kinds=tuple(dict.fromkeys(kind for each in _OWN for kind in each.kinds)),
        edit=_change_any_field,
    ),
)
"""All of them, in the order in which they are tried."""
