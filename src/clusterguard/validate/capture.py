"""Reads a cluster into an inventory: every kind of the scope, in pages, several kinds at a time."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from clusterguard.errors import ClusterError, ClusterUnreachableError, ConflictError, ResourceNotFoundError
from clusterguard.model.inventory import Inventory, ObjectRef, canonical
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.validate.system import SystemRule, chosen_namespace, kind_rule, system_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from clusterguard.clusters.kube import ApiResource, Json, KubeClient
    from clusterguard.model.inventory import Scope

__all__ = ["belongs_to", "capture", "rule_leaving_out", "status_may_be_plain"]

_THREADS = 4  # more do not help: decoding takes turns, and each holds a page in memory
_PAGE = 500  # objects; what kubectl asks for, too
_FEW_NAMESPACES = 8  # up to here a list for each is cheaper than one list of everything
_LIST_TRIES = 3
_STORED = frozenset({"create"})  # what is in a backup was stored, and not computed


@dataclass(slots=True, kw_only=True)
class _Harvest:
    """What came of listing one kind."""

    resource: ApiResource
    objects: dict[ObjectRef, bytes] = field(default_factory=dict)
    system: dict[ObjectRef, bytes] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    resources: Sequence[ApiResource]
    not_listed: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    unanswered: Mapping[str, str] = field(default_factory=dict)


def capture(
    api: KubeClient,
    scope: Scope,
    *,
    progress: ProgressSink = ignore_progress,
    versions: Mapping[str, str] | None = None,
    keep: Collection[ObjectRef] = (),
    absent_kinds_ok: bool = False,
) -> Inventory:
    """Return what a scope holds now.

    Args:
        api: The cluster.
        scope: What to look at.
        progress: Who is told how far it got.
        versions: API versions to list kinds in, by kind with its group, where the cluster still has them; by
            default the preferred ones. Two inventories compare only in the same version.
        keep: Objects that no system rule leaves out.
        absent_kinds_ok: Whether kinds that the scope names may be unknown to the cluster.

    Raises:
        ResourceNotFoundError: The scope names a kind that the cluster does not have.
        ClusterUnreachableError: The API server does not answer.
        ClusterError: It refuses us altogether.
    """
    taken, server_version = api.server_time(), api.server_version()
    plan = _plan(api, scope, versions or {}, absent_kinds_ok=absent_kinds_ok)
    objects: dict[ObjectRef, bytes] = {}
    system: dict[ObjectRef, bytes] = {}
    skipped = dict(plan.skipped)
    left_out: Counter[str] = Counter()
    kept = frozenset(keep)
    progress(Progress(task="capturing", total=None, unit="objects"))
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="clusterguard-capture") as threads:
        futures = [threads.submit(_harvest, api, resource, scope, kept) for resource in plan.resources]
        try:
            for future in as_completed(futures):
                harvest = future.result()
                if harvest.failure:
                    skipped[str(harvest.resource)] = harvest.failure
                    continue
                objects.update(harvest.objects)
                system.update(harvest.system)
                left_out.update(harvest.left_out)
                progress(Progress(task="capturing", done=len(objects), unit="objects", note=str(harvest.resource)))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    progress(Progress(task="capturing", done=len(objects), total=len(objects), unit="objects", finished=True))
    return Inventory(
        taken=taken,
        server_version=server_version,
        scope=scope,
        objects=objects,
        system=system,
        plain_status=frozenset(str(each) for each in plan.resources if "status" not in each.subresources),
        skipped=dict(sorted(skipped.items())),
        unanswered=dict(sorted(plan.unanswered.items())),
        left_out=dict(sorted(left_out.items())),
        not_listed=dict(sorted(plan.not_listed.items())),
    )


def rule_leaving_out(ref: ObjectRef, item: Json, scope: Scope) -> str | None:
    """Return the name of the rule by which a capture would leave an object out, or None.

    Args:
        ref: An object that is elsewhere than in a cluster, such as in a backup.
        item: The object, with ``managedFields``.
        scope: What is captured.
    """
    by_kind = None if scope.kinds else kind_rule(ref.full_kind, _STORED)
    rule = by_kind or _leaving_out(ref, item, scope)
    return rule.name if rule else None


def status_may_be_plain(ref: ObjectRef, item: Mapping[str, Any]) -> bool:
    """Return whether a status may be a field like any other, so that who wrote it matters: only of custom resources."""
    return "status" in item and "." in ref.group and not ref.group.endswith(".k8s.io")


def belongs_to(ref: ObjectRef, scope: Scope) -> bool:
    """Return whether an object that is elsewhere than in a cluster belongs to a scope; its labels are not looked at."""
    if scope.kinds and not {ref.kind, ref.full_kind} & set(scope.kinds):
        return False
    if any(fnmatchcase(name, glob) for glob in scope.exclude for name in {ref.kind, ref.full_kind}):
        return False
    if not scope.namespaces:
        return True
    namespace = ref.name if ref.full_kind == "Namespace" else ref.namespace
    if not namespace:
        return bool(scope.kinds)
    return chosen_namespace(namespace, scope.namespaces)


# ---- planning --------------------------------------------------------------------------------------------


def _plan(api: KubeClient, scope: Scope, versions: Mapping[str, str], *, absent_kinds_ok: bool) -> _Plan:
    excluded = _exclusion(api, scope)
    if scope.kinds:
        plan = _named_kinds(api, scope.kinds, versions, absent_ok=absent_kinds_ok)
    else:
        plan = _all_kinds(api, scope, versions)
    silent = {version: _no_answer(version) for version in api.discovery_gaps()}
    found: list[ApiResource] = []
    skipped, unanswered = dict(plan.skipped), dict(plan.unanswered)
    for resource in plan.resources:
        wanted = versions.get(str(resource), resource.api_version)
        if wanted in silent and (scope.kinds or str(resource) in versions):
            skipped[str(resource)] = silent[wanted]  # in another version it would look different in every field
        elif wanted in silent:
            unanswered[wanted] = silent[wanted]
        else:
            found.append(_in_version(api, resource, wanted))
    return _Plan(
        resources=[resource for resource in found if not excluded(str(resource))],
        not_listed={kind: rule for kind, rule in plan.not_listed.items() if not excluded(kind)},
        skipped={kind: reason for kind, reason in skipped.items() if not excluded(kind)},
        unanswered={
            version: reason for version, reason in unanswered.items() if not excluded(f"*.{_group_of(version)}")
        },
    )


def _all_kinds(api: KubeClient, scope: Scope, versions: Mapping[str, str]) -> _Plan:
    """Return every kind of the scope that is served; one that was captured, and does not answer now, is skipped."""
    not_listed: dict[str, str] = {}
    chosen: dict[str, ApiResource] = {}
    for resource in api.resources(refresh=True):
        if "list" not in resource.verbs or not _reaches(resource, scope):
            continue
        rule = kind_rule(str(resource), resource.verbs)
        if rule is None:
            chosen.setdefault(str(resource), resource)
        else:
            not_listed[str(resource)] = rule.name
    skipped: dict[str, str] = {}
    unanswered: dict[str, str] = {}
    for version in api.discovery_gaps():
        lost = [kind for kind in versions if kind.partition(".")[2] == _group_of(version) and kind not in chosen]
        skipped |= dict.fromkeys(lost, _no_answer(version))
        if not lost:
            unanswered[version] = _no_answer(version)
    return _Plan(resources=list(chosen.values()), not_listed=not_listed, skipped=skipped, unanswered=unanswered)


def _group_of(version: str) -> str:
    return version.rpartition("/")[0]


def _no_answer(version: str) -> str:
    return f"the cluster cannot tell what {version} has: its API does not answer"


def _named_kinds(api: KubeClient, kinds: Iterable[str], versions: Mapping[str, str], *, absent_ok: bool) -> _Plan:
    found: dict[str, ApiResource] = {}
    skipped: dict[str, str] = {}
    for kind in kinds:
        try:
            resource = api.resource(kind)
        except ResourceNotFoundError:
            if silent := _silent_kind(api, kind, versions):
                skipped |= silent
            elif not absent_ok:
                raise
        else:
            found[str(resource)] = resource
    return _Plan(resources=list(found.values()), skipped=skipped)


def _silent_kind(api: KubeClient, text: str, versions: Mapping[str, str]) -> dict[str, str]:
    """Return the kind that a text names, with the reason, if its API does not answer."""
    for version in api.discovery_gaps():
        kind, _, group = text.partition(".")
        captured = [full for full in versions if full.lower() == f"{kind}.{_group_of(version)}".lower()]
        if captured or group == _group_of(version):
            return {captured[0] if captured else text: _no_answer(version)}
    return {}


def _exclusion(api: KubeClient, scope: Scope) -> Callable[[str], bool]:
    globs = [text for text in scope.exclude if "*" in text]
    # A name that the cluster does not know is a mistake that would exclude nothing.
    names = {str(api.resource(text)) for text in scope.exclude if "*" not in text}
    return lambda full_kind: full_kind in names or any(fnmatchcase(full_kind, glob) for glob in globs)


def _reaches(resource: ApiResource, scope: Scope) -> bool:
    return resource.namespaced or not scope.namespaces or str(resource) == "Namespace"


def _in_version(api: KubeClient, resource: ApiResource, wanted: str) -> ApiResource:
    if wanted == resource.api_version:
        return resource
    try:
        return api.resource(resource.kind, api_version=wanted)
    except ResourceNotFoundError:
        return resource  # no longer served; the apiVersion itself will be told as a difference


# ---- listing ---------------------------------------------------------------------------------------------


def _harvest(api: KubeClient, resource: ApiResource, scope: Scope, keep: frozenset[ObjectRef]) -> _Harvest:
    try:
        for left in reversed(range(_LIST_TRIES)):
            try:
                # The last try asks for all in one page, which cannot expire half-way.
                return _listed(api, resource, scope, keep, page_size=_PAGE if left else 0)
            except ConflictError:
                if not left:
                    raise
    except ClusterUnreachableError as error:
        api.server_version()  # raises when it is the server that is gone, and not this kind alone
        return _Harvest(resource=resource, failure=error.message)
    except ClusterError as error:
        return _Harvest(resource=resource, failure=error.message)
    raise AssertionError  # pragma: no cover - the loop returns or raises


def _listed(
    api: KubeClient, resource: ApiResource, scope: Scope, keep: frozenset[ObjectRef], *, page_size: int
) -> _Harvest:
    harvest = _Harvest(resource=resource)
    for namespace, field_selector in _requests(resource, scope):
        pages = api.list_pages(
            resource,
            namespace,
            label_selector=scope.selector,
            field_selector=field_selector,
            page_size=page_size,
        )
        for page in pages:
            for item in page.items:
                _sort_in(harvest, item, scope, keep)
    return harvest


def _requests(resource: ApiResource, scope: Scope) -> list[tuple[str | None, str]]:
    """Return the namespaces and field selectors to list a kind with."""
    literal = all("*" not in name and "?" not in name and "[" not in name for name in scope.namespaces)
    if not scope.namespaces or not literal or len(scope.namespaces) > _FEW_NAMESPACES:
        return [(None, "")]
    names = dict.fromkeys(scope.namespaces)
    if resource.namespaced:
        return [(name, "") for name in names]
    if str(resource) == "Namespace":
        return [(None, f"metadata.name={name}") for name in names]
    return [(None, "")]


def _sort_in(harvest: _Harvest, item: Json, scope: Scope, keep: frozenset[ObjectRef]) -> None:
    ref = ObjectRef.of(item)
    if not _in_namespaces(ref, scope):
        return
    rule = _leaving_out(ref, item, scope) if ref not in keep else None
    # A status that is a field like any other is judged by who wrote it.
    data = canonical(item, with_managers="status" in item and "status" not in harvest.resource.subresources)
    if rule is None:
        harvest.objects[ref] = data
        return
    harvest.left_out[rule.name] += 1
    if rule.watched:
        harvest.system[ref] = data


def _in_namespaces(ref: ObjectRef, scope: Scope) -> bool:
    if not scope.namespaces:
        return True
    name = ref.name if ref.full_kind == "Namespace" else ref.namespace
    if not name:
        return True  # cluster-scoped, and its kind was named
    return chosen_namespace(name, scope.namespaces)


def _leaving_out(ref: ObjectRef, item: Json, scope: Scope) -> SystemRule | None:
    where = ref.name if ref.full_kind == "Namespace" else ref.namespace
    asked_for = {"system namespaces"} if where in scope.namespaces else set()
    rules = system_rules(ref.full_kind, item)
    return next((rule for rule in rules if rule.name not in asked_for), None)
