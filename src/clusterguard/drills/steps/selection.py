"""Objects that a step selects: by kind, name or labels, and whether they are gone."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pydantic import model_validator

from clusterguard.documents.model import Label, Name, Omitted
from clusterguard.drills.steps.base import Action
from clusterguard.drills.steps.fields import Kind, check_namespace
from clusterguard.errors import ClusterError, ResourceNotFoundError, WaitTimeoutError
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from clusterguard.clusters.kube import ApiResource, KubeClient

__all__ = [
    "ObjectsOfOneKind",
    "Selected",
    "current",
    "in_namespace",
    "labels_of",
    "named",
    "names_of",
    "select",
    "wait_until_gone",
    "what_holds_it",
]

Selected: TypeAlias = "tuple[ApiResource, Any]"
"""An object as it was found, and its kind."""

_POLL_SECONDS = 0.1
_MOST_NAMED = 3
_MOST_HOLDERS = 5


class ObjectsOfOneKind(Action):
    """Objects of one kind, chosen by name or by labels."""

    kind: Kind
    """Such as Pod, Deployment or Node."""
    namespace: Label | Omitted = None
    """Their namespace. An action needs it for kinds that live in one; a check by labels looks in all without it."""
    name: Name | Omitted = None
    """One object by its name."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        looks = "verify" in self.phases
        if "selector" in type(self).model_fields:
            self.need_one("name", "selector", optional=looks)
        check_namespace(self, (self.kind,), needed=not looks or self.name is not None)
        return self

    def find(self, api: KubeClient) -> list[Any]:
        """Return what it selects."""
        names = (self.name,) if self.name else ()
        selector = getattr(self, "selector", None) or ""
        return list(select(api, api.resource(self.kind), namespace=self.namespace, names=names, selector=selector))

    def selected(self) -> str:
        """Return what it selects as the plan words it: ``Pod with labels app=web in namespace shop``."""
        selector = getattr(self, "selector", None)
        name = f" {self.name}" if self.name else ""
        labels = f" with labels {selector}" if selector else ""
        return f"{self.kind}{name}{labels}{in_namespace(self.namespace)}"


def in_namespace(namespace: str | None) -> str:
    """Return `` in namespace shop`` for the end of a phrase."""
    return f" in namespace {namespace}" if namespace else ""


def select(
    api: KubeClient, resource: ApiResource, *, namespace: str | None, names: Sequence[str] = (), selector: str = ""
) -> Iterator[Any]:
    """Yield the objects of a kind that have one of the names, or where there are none the labels."""
    if not names:
        yield from api.list(resource, namespace, label_selector=selector)
    for name in names:
        with suppress(ResourceNotFoundError):
            yield api.get(resource, name, namespace)


def named(api: KubeClient, manifest: Any) -> Selected:  # noqa: ANN401 - an object of any kind
    """Return the object that a manifest names, as it is in the cluster.

    Raises:
        ResourceNotFoundError: There is none, or its kind is unknown.
    """
    metadata, resource = manifest["metadata"], api.resource_of(dict(manifest))
    namespace = (metadata.get("namespace") or "default") if resource.namespaced else None
    return resource, api.get(resource, metadata["name"], namespace)


def labels_of(item: Any) -> dict[str, str]:  # noqa: ANN401 - an object of any kind
    """Return an object's labels."""
    labels: dict[str, str] = item["metadata"].get("labels") or {}
    return labels


def names_of(items: Iterable[Any]) -> str:
    """Return the names of objects, the first three of many."""
    names = sorted(item["metadata"]["name"] for item in items)
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def current(api: KubeClient, resource: ApiResource, item: Any) -> Any:  # noqa: ANN401 - an object of any kind
    """Return an object as it is now, or None once it is gone or another one has its name."""
    metadata = item["metadata"]
    try:
        now = api.get(resource, metadata["name"], metadata.get("namespace"))
    except ResourceNotFoundError:
        return None
    return now if now["metadata"]["uid"] == metadata["uid"] else None


def wait_until_gone(api: KubeClient, doomed: Iterable[Selected], *, seconds: float) -> None:
    """Wait until each object is gone, or another one has its name.

    Raises:
        WaitTimeoutError: One stays; the error says what holds it.
    """
    left, last = list(doomed), None

    def ask() -> str | None:
        nonlocal last
        while left:
            if last := current(api, *left[0]):
                return str(last["metadata"]["name"])
            left.pop(0)
        return None

    try:
        poll_until(ask, what="objects go", seconds=seconds, every=_POLL_SECONDS)
    except WaitTimeoutError as error:
        raise WaitTimeoutError(
            f"{left[0][0].kind} {error.last_seen} goes",
            seconds=seconds,
            last_seen=what_holds_it(api, last),
            hint="see who owns the finalizer; kubectl get -o yaml shows all of it",
        ) from error


def what_holds_it(api: KubeClient, item: Any) -> str:  # noqa: ANN401 - an object of any kind
    """Return what keeps an object from going: its finalizers, and what its status says of them."""
    conditions = [
        condition.get("message", "")
        for condition in item.get("status", {}).get("conditions", ())
        if condition.get("status") == "True" and condition.get("message")
    ]
    finalizers = item["metadata"].get("finalizers", []) + item.get("spec", {}).get("finalizers", [])
    held = f"finalizers {', '.join(finalizers)}" if finalizers else "no finalizers"
    inside = _held_inside(api, item["metadata"]["name"]) if item.get("kind") == "Namespace" else ()
    return "; ".join([f"{item.get('kind')} is being deleted, with {held}", *conditions, *islice(inside, _MOST_HOLDERS)])


def _held_inside(api: KubeClient, namespace: str) -> Iterator[str]:
    """Yield what in a namespace has finalizers; the namespace's own status says so only after five seconds or more."""
    for resource in api.resources():
        if not resource.namespaced or "list" not in resource.verbs:
            continue
        with suppress(ClusterError):  # an aggregated API that is down must not hide what the others know
            for item in api.list(resource, namespace, metadata_only=True):
                metadata = item["metadata"]
                if metadata.get("finalizers"):
                    yield f"{resource.kind} {metadata['name']} in it has finalizers {', '.join(metadata['finalizers'])}"
