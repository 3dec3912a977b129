"""What a backup lacks of what it seems to hold: decided from what it was asked for, and from its resource list.

Velero calls a backup ``Completed`` whose filters match nothing, that lacks the Namespace of its objects, or the
definitions of its custom resources. Source of the facts: Velero 1.18.3, run.
"""

from __future__ import annotations

from collections import defaultdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.findings import OutcomeFinding, Rule
from clusterguard.velero.layout import plural_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from clusterguard.velero.options import BackupOptions

__all__ = ["shortcomings"]

_DEFINITION: Final = "CustomResourceDefinition.apiextensions.k8s.io"
_IN_EVERY_NAMESPACE: Final = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
_LOG: Final = {"Namespace", "Event", "Event.events.k8s.io"}
_MOST_NAMED: Final = 5

# Groups without a CustomResourceDefinition: Kubernetes' own, which end in k8s.io but for these, and OpenShift's API
# server's. A group of k8s.io that is not built in has the annotation api-approved.kubernetes.io on its definitions.
_BUILT_IN: Final = frozenset(
    {
        *("", "apps", "autoscaling", "batch", "extensions", "policy"),
        *(
            f"{name}.k8s.io"
            for name in (
                *("admissionregistration", "apiextensions", "apiregistration", "authentication", "authorization"),
                *("certificates", "coordination", "discovery", "events", "flowcontrol.apiserver"),
                *("internal.apiserver", "networking", "node", "rbac.authorization", "resource", "scheduling"),
                *("storage", "storagemigration", "metrics", "custom.metrics", "external.metrics"),
            )
        ),
        *(
            f"{name}.openshift.io"
            for name in (
                *("apps", "authorization", "build", "image", "oauth", "project", "quota", "route", "security"),
                *("template", "user"),
            )
        ),
    }
)


# What Velero's plugins add for volumes: in whichever namespace, without their definitions, and not restored as such.
_ADDED_BY_PLUGINS: Final = frozenset({"velero.io", "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"})


def shortcomings(options: BackupOptions, contents: Iterable[ObjectRef], *, said: str = "") -> Iterator[OutcomeFinding]:
    """Yield what a backup lacks.

    Args:
        options: What it was asked for.
        contents: The objects in it.
        said: What Velero itself said about it; a namespace that is named there is not told again.
    """
    refs = frozenset(ref for ref in contents if ref.group not in _ADDED_BY_PLUGINS)
    namespaces = {ref.name for ref in refs if ref.full_kind == "Namespace"}
    inhabited = {ref.namespace for ref in refs if ref.namespace}
    yield from _bare(options, refs)
    yield from _unmatched(options, namespaces | inhabited, said)
    yield from _without_namespace(options, inhabited - namespaces)
    yield from _without_definition(options, refs)
    if options.with_cluster_scoped() != options and not options.asks_for_cluster_scoped:
        detail = "cluster-scoped objects are in it only where an object of a namespace refers to them"
        yield OutcomeFinding(rule=Rule.LEFT_OUT_BY_FILTER, detail=detail)


def _bare(options: BackupOptions, refs: Collection[ObjectRef]) -> Iterator[OutcomeFinding]:
    if any(ref.full_kind not in _LOG and (ref.full_kind, ref.name) not in _IN_EVERY_NAMESPACE for ref in refs):
        return
    if not options.names_kind("namespaces"):
        detail = f"all of its {len(refs):,} objects are what every namespace has; do its filters match anything?"
        yield OutcomeFinding(rule=Rule.NOTHING_BACKED_UP, detail=detail)


def _unmatched(options: BackupOptions, known: Collection[str], said: str) -> Iterator[OutcomeFinding]:
    for pattern in options.included_namespaces:
        if not any(fnmatchcase(name, pattern) for name in known) and f"namespace {pattern} " not in said:
            detail = f"no namespace {pattern} is in it, which it was asked for"
            yield OutcomeFinding(rule=Rule.FILTER_MATCHES_NOTHING, detail=detail)


def _without_namespace(options: BackupOptions, names: Collection[str]) -> Iterator[OutcomeFinding]:
    kinds = options.included_resources  # the old filter of kinds leaves the Namespace out, the new one does not
    chosen = bool(kinds) and "*" not in kinds and not options.names_kind("namespaces")
    if chosen or options.leaves_kind_out("namespaces"):
        return
    for name in sorted(names):
        if not options.chooses_no_namespace and not any(
            fnmatchcase(name, each) for each in options.included_namespaces
        ):
            continue  # an object of another namespace came with one that was asked for
        detail = "objects of it are in the backup without itself: was it being deleted?"
        yield OutcomeFinding(
            rule=Rule.NAMESPACE_LEFT_OUT, detail=detail, ref=ObjectRef(kind="Namespace", namespace="", name=name)
        )


def _without_definition(options: BackupOptions, refs: Collection[ObjectRef]) -> Iterator[OutcomeFinding]:
    missing = sorted(_undefined(refs))
    if not missing:
        return
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    detail = f"objects of {', '.join(missing[:_MOST_NAMED])}{more} are in it without their CustomResourceDefinition"
    decided = options.leaves_kind_out("customresourcedefinitions.apiextensions.k8s.io")
    yield OutcomeFinding(rule=Rule.LEFT_OUT_BY_FILTER if decided else Rule.DEFINITION_LEFT_OUT, detail=detail)


def _undefined(refs: Collection[ObjectRef]) -> Iterator[str]:
    """Yield the kinds of custom resources whose definition is not there, with their groups."""
    kinds: Mapping[str, set[str]] = defaultdict(set)
    for ref in refs:
        if ref.group not in _BUILT_IN:
            kinds[ref.group].add(ref.kind)
    definitions: Mapping[str, set[str]] = defaultdict(set)
    for ref in refs:
        if ref.full_kind == _DEFINITION:
            plural, _, group = ref.name.partition(".")
            definitions[group].add(plural)
    for group, found in kinds.items():
        if len(found) > len(definitions[group]):  # a plural may be irregular, so that the number decides
            yield from (f"{kind}.{group}" for kind in found if plural_of(kind) not in definitions[group])
