"""Looks at a live namespace, to write a drill about one like it: reads alone, and nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

from clusterguard.errors import ClusterError, ConfigError, ForbiddenError, ResourceNotFoundError
from clusterguard.model.inventory import ObjectRef, Scope
from clusterguard.model.progress import ProgressSink, ignore_progress
from clusterguard.validate.capture import capture
from clusterguard.validate.system import SYSTEM_NAMESPACES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clusterguard.clusters.kube import Json, KubeClient

__all__ = ["Seen", "is_built_in", "look_at_namespace", "shows_etcd"]

_NAMESPACE: Final = "Namespace"
_DEFINITION: Final = "CustomResourceDefinition.apiextensions.k8s.io"
# Kubernetes' own groups with a dot; whatever else has one was added to the cluster.
_OWN_GROUPS: Final = frozenset(
    f"{name}.k8s.io"
    for name in (
        *("admissionregistration", "apiextensions", "apiregistration", "authentication", "authorization"),
        *("certificates", "coordination", "discovery", "events", "flowcontrol.apiserver", "networking", "node"),
        *("rbac.authorization", "resource", "scheduling", "storage", "storagemigration"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a namespace had in it.

    Attributes:
        namespace: Its name.
        objects: Everything that is not system-owned, Secrets in clear, the Namespace among them where it may be read.
        definitions: The definition of each kind of custom resources, by the kind with its group.
        undefined: Kinds without one, and why there is none.
        unread: Kinds that could not be listed, and why.
        velero: Whether the cluster has Velero.
    """

    namespace: str
    objects: Sequence[Json] = field(repr=False)
    definitions: Mapping[str, Json] = field(default_factory=dict, repr=False)
    undefined: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    velero: bool = False


def look_at_namespace(api: KubeClient, namespace: str, *, progress: ProgressSink = ignore_progress) -> Seen:
    """Return what a namespace has in it. Nothing is written.

    Args:
        api: The cluster.
        namespace: Its name.
        progress: Who is told how far it got.

    Raises:
        ConfigError: It belongs to the cluster itself, is being deleted, or has nothing in it.
        ResourceNotFoundError: There is none of that name.
        ForbiddenError: Nothing in it may be read.
        ClusterUnreachableError: The API server does not answer.
    """
    if namespace in SYSTEM_NAMESPACES:
        raise ConfigError(
            f"namespace {namespace} belongs to the cluster itself, and every cluster has its own",
            code="system-namespace",
            fields={"namespace": namespace},
            hint="name one of yours; an etcd snapshot is proven with everything in it by `clusterguard rehearse`",
        )
    itself = _alive(api, namespace)
    inventory = capture(api, Scope(namespaces=(namespace,)), progress=progress)
    objects = [orjson.loads(data) for data in inventory.objects.values()]
    within = [item for item in objects if item["metadata"].get("namespace")]
    unread = {**inventory.skipped, **inventory.unanswered}
    if itself is not None and _NAMESPACE in unread:  # the role `view`, bound in it, lets it be got alone
        del unread[_NAMESPACE]
        objects.append(itself)
    if not within and inventory.skipped:
        kind, reason = next(iter(inventory.skipped.items()))
        raise ForbiddenError(
            f"nothing in namespace {namespace} can be read: {kind}: {reason}",
            hint="this needs get and list on what is in it; the ClusterRole `view` and list on secrets are enough",
            fields={"namespace": namespace, "kinds": sorted(inventory.skipped)},
        )
    if not within:
        raise ConfigError(
            f"namespace {namespace} has nothing in it that could be lost",
            code="namespace-empty",
            fields={"namespace": namespace, "left_out": dict(inventory.left_out)},
            hint="name one that somebody uses",
        )
    definitions, undefined = _definitions(api, within)
    return Seen(
        namespace=namespace,
        objects=tuple(sorted(objects, key=ObjectRef.of)),
        definitions=definitions,
        undefined=undefined,
        unread=unread,
        velero=any((each.kind, each.group) == ("Backup", "velero.io") for each in api.resources()),
    )


def is_built_in(group: str) -> bool:
    """Return whether an API group is Kubernetes' own: every cluster has it, and the controllers of its kinds."""
    return "." not in group or group in _OWN_GROUPS


def shows_etcd(api: KubeClient) -> bool:
    """Return whether etcd runs in the cluster where whoever asks can see it; managed control planes hide theirs."""
    try:
        return any(api.list(api.resource("Pod"), "kube-system", label_selector="component=etcd", metadata_only=True))
    except ClusterError:
        return False


def _alive(api: KubeClient, name: str) -> Json | None:
    """Return the namespace itself; None where it may not be read."""
    try:
        found = api.get(api.resource(_NAMESPACE), name)
    except ForbiddenError:
        return None  # what is in it may be readable all the same
    except ResourceNotFoundError as error:
        raise ResourceNotFoundError(
            f"{api.server} has no namespace {name}", hint="kubectl get namespaces lists those that are there"
        ) from error
    if found["metadata"].get("deletionTimestamp"):
        raise ConfigError(
            f"namespace {name} is being deleted",
            code="namespace-terminating",
            fields={"namespace": name},
            hint="wait until it is gone, or name another one",
        )
    return found


def _definitions(api: KubeClient, items: Sequence[Json]) -> tuple[dict[str, Json], dict[str, str]]:
    """Return the definitions of custom resources, and the kinds of which there is none."""
    found: dict[str, Json] = {}
    undefined: dict[str, str] = {}
    for full_kind in sorted({ObjectRef.of(item).full_kind for item in items}):
        kind, _, group = full_kind.partition(".")
        if is_built_in(group):
            continue
        plural = api.resource(full_kind).plural
        try:
            found[full_kind] = api.get(api.resource(_DEFINITION), f"{plural}.{group}")
        except ResourceNotFoundError:
            undefined[full_kind] = f"{kind} has no definition: an API server of its own serves it"
        except ClusterError as error:
            undefined[full_kind] = f"its definition cannot be read: {error.message}"
    return found, undefined
