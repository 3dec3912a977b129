"""Where markers can be: in what the drill backs up and restores anyway, so that they change nothing of it.

A Velero backup may leave ConfigMaps out, or take only objects with certain labels; and an object that a selector
chooses takes its Namespace along. So a marker gets the labels that backup and restore ask for, in a namespace of which
both have something else. Where there is no such place the drill does without markers, and says so. Source of the facts:
Velero 1.18.3, run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import orjson

from clusterguard.documents.values import equalities, selects
from clusterguard.drills.markers import MARKER_LABEL, RUN_LABEL
from clusterguard.drills.steps.velero_selection import VeleroSelection
from clusterguard.validate.system import chosen_namespace
from clusterguard.velero.selectors import LabelSelector

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.drills.schema import DrillSpec, Step
    from clusterguard.model.inventory import Inventory, ObjectRef

__all__ = ["MarkerPlan", "marker_namespace", "plan_markers"]

_ANY_VALUE: Final = "clusterguard"
_OWN_LABELS: Final = {RUN_LABEL: "0a1b2c3d", MARKER_LABEL: "before-backup"}
_KINDS_IN_EXTRA: Final = "includedNamespaceScopedResources"
_NO_KINDS_IN_EXTRA: Final = "excludedNamespaceScopedResources"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerPlan:
    """Where the markers of a drill are written, and where the first one must come back.

    Attributes:
        cluster: The cluster that is backed up.
        target: The cluster that it is restored into.
        selections: What a Velero backup and its restore take; empty where etcd is restored, which takes everything.
        labels: Those that a marker needs to be taken.
        impossible: Why no marker can be taken; empty where one can.
    """

    cluster: str
    target: str
    selections: tuple[VeleroSelection, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    impossible: str = ""


def plan_markers(spec: DrillSpec) -> MarkerPlan:
    """Return where the markers of a drill can be, as far as its file tells; of several restores the last that can."""
    default = next(iter(spec.effective_clusters))
    made = {getattr(step.action, "name", ""): step for step in spec.backup if step.action.works_with()}
    plan = MarkerPlan(
        cluster=default, target=spec.restore[-1].cluster or default, labels=equalities(spec.scope.selector or "")
    )
    restores = [step for step in spec.restore if step.action.engine]
    found = [
        _plan_of(spec, made.get(getattr(step.action, step.action.backup_field)), step) for step in reversed(restores)
    ]
    return next((each for each in found if not each.impossible), found[0] if found else plan)


def _plan_of(spec: DrillSpec, backup: Step | None, restore: Step) -> MarkerPlan:
    default = next(iter(spec.effective_clusters))
    cluster = (backup.cluster if backup else None) or default
    target = restore.cluster or default
    actions = [step.action for step in (backup, restore) if step]
    selections = tuple(action for action in actions if isinstance(action, VeleroSelection))
    if not selections:
        return MarkerPlan(cluster=cluster, target=target, labels=equalities(spec.scope.selector or ""))
    reasons = [reason for each in selections if (reason := _without_config_maps(each))]
    labels = _labels_for([each.selector for each in selections if each.selector])
    if not reasons and labels is None:
        reasons.append("no ConfigMap can have the labels that `selector` asks for")
    return MarkerPlan(
        cluster=cluster,
        target=target,
        selections=selections,
        labels=labels or {},
        impossible=reasons[0] if reasons else "",
    )


def _without_config_maps(selection: VeleroSelection) -> str:
    """Return why a backup or a restore has no ConfigMaps, or nothing."""
    verb, extra = selection.verb(), selection.extra
    if selection.kinds and "ConfigMap" not in selection.kinds:
        return f"`kinds` of {verb} leaves ConfigMaps out"
    if "ConfigMap" in selection.excluded_kinds:
        return f"`excludedKinds` of {verb} leaves ConfigMaps out"
    if (named := extra.get(_KINDS_IN_EXTRA)) and not _names_config_maps(named):
        return f"`extra.{_KINDS_IN_EXTRA}` of {verb} leaves ConfigMaps out"
    if _names_config_maps(extra.get(_NO_KINDS_IN_EXTRA) or ()):
        return f"`extra.{_NO_KINDS_IN_EXTRA}` of {verb} leaves ConfigMaps out"
    if extra.get("orLabelSelectors"):
        return f"`extra.orLabelSelectors` of {verb} chooses objects by several selectors"
    return ""


def _names_config_maps(names: Collection[object]) -> bool:
    return any(str(name).lower() in {"*", "configmap", "configmaps", "cm"} for name in names)


def _labels_for(selectors: Sequence[str]) -> Mapping[str, str] | None:
    """Return labels that all selectors choose, or None where there are none."""
    parsed = [LabelSelector.parse(text) for text in selectors]
    values: dict[str, set[str]] = {}
    refused: dict[str, set[str]] = {}
    needed: set[str] = set()
    for selector in parsed:
        asked: list[tuple[str, str, tuple[str, ...]]] = [
            ("In", key, (value,)) for key, value in selector.labels.items()
        ]
        asked += [(each.operator, each.key, each.values) for each in selector.requirements]
        for operator, key, some in asked:
            if operator == "In":
                values[key] = values.get(key, {*some}) & {*some}
            elif operator == "NotIn":
                refused.setdefault(key, set()).update(some)
            elif operator == "Exists":
                needed.add(key)
    labels = {key: min(some - refused.get(key, set()), default="") for key, some in values.items()}
    labels |= {key: _value_not_in(refused.get(key, set())) for key in needed - labels.keys() - _OWN_LABELS.keys()}
    every = labels | _OWN_LABELS
    return labels if all(selects(text, every) for text in selectors) else None


def _value_not_in(refused: Collection[str]) -> str:
    value = _ANY_VALUE
    while value in refused:
        value = f"{value}-0"
    return value


# ---- in a cluster ------------------------------------------------------------------------------------------


def marker_namespace(plan: MarkerPlan, api: KubeClient, *, scope: Sequence[str], baseline: Inventory | None) -> str:
    """Return a namespace in which markers change nothing of what is backed up and restored, or ``""`` for none.

    Args:
        plan: What the drill's file tells.
        api: The cluster that is backed up.
        scope: The namespaces of the scope, names or globs: one of them is preferred.
        baseline: What is there of the scope.
    """
    resource = api.resource("Namespace")
    present = [item["metadata"] for item in api.list(resource, metadata_only=True)]
    names = [each["name"] for each in present if not each.get("deletionTimestamp")]
    taken = [name for name in names if all(_takes_namespace(each, name) for each in plan.selections)]
    if any(_filters(each) for each in plan.selections):
        # There a marker must not be the only one that is taken.
        inhabited = {ref.namespace for ref in _taken(plan, baseline)}
        taken = [name for name in taken if name in inhabited]
    if not plan.selections and "default" not in taken:
        taken.append("default")  # every API server makes it
    in_scope = (name for pattern in scope for name in taken if chosen_namespace(name, [pattern]))
    return next(in_scope, "default" if "default" in taken else next(iter(taken), ""))


def _taken(plan: MarkerPlan, baseline: Inventory | None) -> Iterator[ObjectRef]:
    """Yield the objects of the scope that backup and restore take."""
    for ref, data in baseline.objects.items() if baseline else ():
        labels = orjson.loads(data)["metadata"].get("labels") or {}
        if all(_takes_object(each, ref, labels) for each in plan.selections):
            yield ref


def _takes_object(selection: VeleroSelection, ref: ObjectRef, labels: Mapping[str, str]) -> bool:
    names = {ref.kind, ref.full_kind}
    return (
        (not selection.kinds or not names.isdisjoint(selection.kinds))
        and names.isdisjoint(selection.excluded_kinds)
        and selects(selection.selector or "", labels)
        and (not ref.namespace or _takes_namespace(selection, ref.namespace))
    )


def _takes_namespace(selection: VeleroSelection, name: str) -> bool:
    included = not selection.namespaces or chosen_namespace(name, selection.namespaces)
    return included and not any(fnmatchcase(name, each) for each in selection.excluded_namespaces)


def _filters(selection: VeleroSelection) -> bool:
    """Return whether it takes only some objects of a namespace, so that a marker might be the only one."""
    return bool(selection.kinds or selection.excluded_kinds or selection.selector)
