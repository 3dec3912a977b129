"""What in a cluster is system-owned, and so need not come back: a table of named rules.

An object is system-owned when something in the cluster makes it again, or keeps rewriting it, without being
asked by anybody who uses the cluster. Losing such an object is no loss, a difference in it proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

from clusterguard.validate.add_ons import NETWORK_KINDS, PULLED_WITH, has_only_own_secrets, is_pull_secret
from clusterguard.validate.field_owners import managers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

__all__ = [
    "BEING_DELETED",
    "SYSTEM_KINDS",
    "SYSTEM_NAMESPACES",
    "SYSTEM_RULES",
    "KindRule",
    "SystemRule",
    "chosen_namespace",
    "kind_rule",
    "system_rules",
]

SYSTEM_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})

_Object: TypeAlias = "Mapping[str, Any]"


def chosen_namespace(name: str, patterns: Collection[str]) -> bool:
    """Return whether names or globs mean a namespace; a system namespace is meant only by its plain name."""
    if name in SYSTEM_NAMESPACES:
        return name in patterns
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRule:
    """Leaves whole kinds out, unless the scope names them.

    Attributes:
        name: How inventories call it.
        reason: Why such objects need not come back.
        kinds: Globs over kinds with their group.
    """

    name: str
    reason: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemRule:
    """Leaves single objects out.

    Attributes:
        name: How inventories call it.
        reason: Why such objects need not come back.
        kinds: Kinds with their group; empty for all.
        owns: Whether a given object is one, from the object as the API returns it, ``managedFields`` included.
        watched: Whether it is kept beside the inventory all the same: its loss is no loss, as it comes back by
            itself, but a difference in it is somebody's doing.
    """

    name: str
    reason: str
    owns: Callable[[_Object], bool]
    kinds: frozenset[str] = field(default_factory=frozenset)
    watched: bool = False


def kind_rule(full_kind: str, verbs: frozenset[str]) -> KindRule | None:
    """Return the rule that leaves a kind out, if any.

    Args:
        full_kind: Such as ``Event.events.k8s.io``.
        verbs: What the server can do with it.
    """
    for rule in SYSTEM_KINDS:
        if any(fnmatchcase(full_kind, kind) for kind in rule.kinds):
            return rule
    return None if "create" in verbs else _COMPUTED


def system_rules(full_kind: str, item: _Object) -> Iterator[SystemRule]:
    """Yield the rules that leave an object out."""
    for rule in SYSTEM_RULES:
        if (not rule.kinds or full_kind in rule.kinds) and rule.owns(item):
            yield rule


_COMPUTED = KindRule(
    name="computed kinds",
    reason="the server computes them when asked (PodMetrics is one); none of them is stored",
    kinds=(),
)
SYSTEM_KINDS = (
    KindRule(
        name="events",
        reason="a log of what happened, which expires within hours",
        kinds=("Event", "Event.events.k8s.io"),
    ),
    KindRule(
        name="leases",
        reason="heartbeats and leader elections: whoever lives renews its own every few seconds",
        kinds=("Lease.coordination.k8s.io", "LeaseCandidate.coordination.k8s.io"),
    ),
    KindRule(
        name="nodes and their drivers",
        reason="machines and storage drivers register themselves, and tell what they have",
        kinds=(
            "Node",
            "CSINode.storage.k8s.io",
            "CSIStorageCapacity.storage.k8s.io",
            "VolumeAttachment.storage.k8s.io",
            "ResourceSlice.resource.k8s.io",
        ),
    ),
    KindRule(
        name="certificate requests",
        reason="requests that were answered or not within minutes, and are removed then",
        kinds=("CertificateSigningRequest.certificates.k8s.io", "PodCertificateRequest.certificates.k8s.io"),
    ),
    KindRule(
        name="network bookkeeping",
        reason="networks note there which addresses pods and nodes have, and note it anew",
        kinds=NETWORK_KINDS,
    ),
    KindRule(
        name="API server internals",
        reason="bookkeeping of the API servers themselves",
        kinds=("*.internal.apiserver.k8s.io", "ComponentStatus", "IPAddress.networking.k8s.io"),
    ),
    _COMPUTED,
)


def _metadata(item: _Object) -> _Object:
    return item.get("metadata") or {}


def _labels(item: _Object) -> _Object:
    return _metadata(item).get("labels") or {}


def _annotations(item: _Object) -> _Object:
    return _metadata(item).get("annotations") or {}


def _named(*names: str) -> Callable[[_Object], bool]:
    return lambda item: _metadata(item).get("name") in names


def _is_being_deleted(item: _Object) -> bool:
    return bool(_metadata(item).get("deletionTimestamp"))


def _is_in_system_namespace(item: _Object) -> bool:
    return _metadata(item).get("namespace") in SYSTEM_NAMESPACES


def _is_untouched_default_namespace(item: _Object) -> bool:
    own = set(_labels(item)) - {"kubernetes.io/metadata.name"}
    return _metadata(item).get("name") == "default" and not own and not _annotations(item)


def _is_untouched_default_account(item: _Object) -> bool:
    # With pull secrets, labels or annotations of their own somebody relies on it.
    names = {"default", "builder", "deployer"} if PULLED_WITH in _annotations(item) else {"default"}
    return (
        _metadata(item).get("name") in names
        and not set(item) - {"apiVersion", "kind", "metadata", "secrets", "imagePullSecrets"}
        and not _labels(item)
        and not set(_annotations(item)) - {PULLED_WITH}
        and has_only_own_secrets(item)
    )


def _written_by(item: _Object, *known: str) -> bool:
    """Whether nobody else has ever written to an object; also where nothing tells who did."""
    return managers(item) <= set(known)


def _is_bootstrap_role(item: _Object) -> bool:
    # The API server adds to such a role what is missing, and takes nothing out: what somebody added is theirs to lose.
    return (
        _labels(item).get("kubernetes.io/bootstrapping") == "rbac-defaults"
        and _annotations(item).get("rbac.authorization.kubernetes.io/autoupdate") == "true"
        and _written_by(item, "kube-apiserver", "clusterrole-aggregation-controller", "kube-controller-manager")
    )


def _is_controllers_endpoints(item: _Object) -> bool:
    if _metadata(item).get("namespace") == "default" and _metadata(item).get("name") == "kubernetes":
        return True
    if _labels(item).get("endpoints.kubernetes.io/managed-by") == "endpoint-controller":
        return True
    # Before Kubernetes 1.33; whoever copies such an object copies these marks as well.
    marked = "endpoints.kubernetes.io/last-change-trigger-time" in _annotations(
        item
    ) or "service.kubernetes.io/headless" in _labels(item)
    return marked and _written_by(item, "kube-controller-manager")


_SLICE_CONTROLLERS = frozenset({"endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"})


def _is_controllers_slice(item: _Object) -> bool:
    if (_metadata(item).get("namespace"), _metadata(item).get("name")) == ("default", "kubernetes"):
        return True
    return _labels(item).get("endpointslice.kubernetes.io/managed-by") in _SLICE_CONTROLLERS


def _is_rollout_history(item: _Object) -> bool:
    return any(
        owner.get("controller")
        and owner.get("kind") in {"DaemonSet", "StatefulSet"}
        and str(owner.get("apiVersion")).startswith("apps/")
        for owner in _metadata(item).get("ownerReferences") or ()
    )


def _is_untouched_priority_class(item: _Object) -> bool:
    return _metadata(item).get("name") in {"system-node-critical", "system-cluster-critical"} and _written_by(
        item, "kube-apiserver"
    )


_ROLES = frozenset(
    f"{kind}.rbac.authorization.k8s.io" for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
)

_FLOW_CONTROL = frozenset(
    f"{kind}.flowcontrol.apiserver.k8s.io" for kind in ("FlowSchema", "PriorityLevelConfiguration")
)

BEING_DELETED = "already being deleted"
"""The rule for objects that are there, and that nobody expects back."""
SYSTEM_RULES = (
    SystemRule(
        name="markers of drills",
        reason="drills write and judge them by themselves (label clusterguard.dev/canary)",
        kinds=frozenset({"ConfigMap"}),
        owns=lambda item: "clusterguard.dev/canary" in _labels(item),
    ),
    SystemRule(
        name=BEING_DELETED,
        reason="its deletion had been asked for before the capture; nobody expects it back",
        owns=_is_being_deleted,
    ),
    SystemRule(
        name="system namespaces",
        reason="they belong to whoever runs the cluster; one that the scope names is compared",
        owns=_is_in_system_namespace,
    ),
    SystemRule(
        name="system namespaces",
        reason="the API server makes them at every start",
        kinds=frozenset({"Namespace"}),
        owns=_named(*SYSTEM_NAMESPACES),
    ),
    SystemRule(
        name="untouched default namespace",
        reason="the API server makes it; one with labels or annotations of its own is compared",
        kinds=frozenset({"Namespace"}),
        owns=_is_untouched_default_namespace,
        watched=True,
    ),
    SystemRule(
        name="untouched default service accounts",
        reason="a controller makes one in each namespace; one that somebody added anything to is compared",
        kinds=frozenset({"ServiceAccount"}),
        owns=_is_untouched_default_account,
        watched=True,
    ),
    SystemRule(
        name="pull secrets of OpenShift",
        reason="OpenShift makes one for each account, to pull from its own registry, and renews it",
        kinds=frozenset({"Secret"}),
        owns=is_pull_secret,
    ),
    SystemRule(
        name="root certificates",
        reason="a controller publishes kube-root-ca.crt in each namespace",
        kinds=frozenset({"ConfigMap"}),
        owns=_named("kube-root-ca.crt"),
    ),
    SystemRule(
        name="the API server's own Service",
        reason="the API server makes default/kubernetes at every start",
        kinds=frozenset({"Service"}),
        owns=lambda item: _metadata(item).get("namespace") == "default" and _metadata(item).get("name") == "kubernetes",
    ),
    SystemRule(
        name="endpoints of Services",
        reason="controllers derive them from pods; those made by hand or by others are compared",
        kinds=frozenset({"Endpoints"}),
        owns=_is_controllers_endpoints,
    ),
    SystemRule(
        name="endpoints of Services",
        reason="controllers derive them from pods; those made by hand or by others are compared",
        kinds=frozenset({"EndpointSlice.discovery.k8s.io"}),
        owns=_is_controllers_slice,
    ),
    SystemRule(
        name="rollout history",
        reason="DaemonSets and StatefulSets write down their own revisions",
        kinds=frozenset({"ControllerRevision.apps"}),
        owns=_is_rollout_history,
    ),
    SystemRule(
        name="mirrors of static pods",
        reason="the kubelet makes them from files on its node",
        kinds=frozenset({"Pod"}),
        owns=lambda item: "kubernetes.io/config.mirror" in _annotations(item),
    ),
    SystemRule(
        name="bootstrap roles",
        reason="the API server makes them at every start, while autoupdate is on; one that others wrote to is compared",
        kinds=_ROLES,
        owns=_is_bootstrap_role,
        watched=True,
    ),
    SystemRule(
        name="bootstrap priority classes",
        reason="the API server makes them at every start",
        kinds=frozenset({"PriorityClass.scheduling.k8s.io"}),
        owns=_is_untouched_priority_class,
        watched=True,
    ),
    SystemRule(
        name="bootstrap flow control",
        reason="the API server keeps its own flow schemas and priority levels up to date",
        kinds=_FLOW_CONTROL,
        owns=lambda item: _annotations(item).get("apf.kubernetes.io/autoupdate-spec") == "true",
        watched=True,
    ),
    SystemRule(
        name="automatic API services",
        reason="the API server registers its own groups and those of custom resources",
        kinds=frozenset({"APIService.apiregistration.k8s.io"}),
        owns=lambda item: "kube-aggregator.kubernetes.io/automanaged" in _labels(item),
    ),
    SystemRule(
        name="default service range",
        reason="the API server makes the ServiceCIDR named kubernetes from its own options",
        kinds=frozenset({"ServiceCIDR.networking.k8s.io"}),
        owns=_named("kubernetes"),
    ),
)
