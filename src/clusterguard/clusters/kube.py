"""The Kubernetes API, as plain JSON.

The official client's generated models are left aside: a restore is proven on whatever kinds a cluster has, custom
resources included.

Sources of facts: kubernetes.io/docs/reference/using-api/api-concepts (pagination, watches, server-side apply,
aggregated discovery).
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict

import orjson

from clusterguard.clusters.kube_discovery import (
    ApiResource,
    Discovery,
    Json,
    aggregated,
    classic,
    did_you_mean,
    group_versions,
)
from clusterguard.clusters.kube_errors import status_error
from clusterguard.clusters.kube_transport import READ_SECONDS, ApiResponse, KubeTransport
from clusterguard.clusters.kubeconfig import Connection
from clusterguard.errors import (
    ClusterError,
    ClusterUnreachableError,
    ConfigError,
    ConflictError,
    ForbiddenError,
    ResourceNotFoundError,
    WaitTimeoutError,
)
from clusterguard.retrying import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Unpack

__all__ = [
    "ApiReadiness",
    "ApiResource",
    "ApiResponse",
    "Connection",
    "Json",
    "KubeClient",
    "Page",
    "WatchEvent",
]

Patch: TypeAlias = Literal["merge", "json", "strategic"]

FIELD_MANAGER = "clusterguard"
# Discovery learns of a definition a little after it is established.
_UNTIL_SERVED = RetryPolicy(attempts=8, first_wait_seconds=0.1, longest_wait_seconds=1)
_DISCOVERY = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,"
    "application/json"
)
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
_PATCH_TYPES: Mapping[Patch, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiReadiness:
    """Whether the API server calls itself ready, and if not, the failing checks or why it did not answer."""

    ok: bool
    failing: str = ""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list: its objects, with the ``apiVersion`` and ``kind`` that the server leaves out inside a list.

    All pages of one list show the same moment, ``resource_version``, which a watch can start from.
    """

    items: Sequence[Json]
    resource_version: str
    last: bool


class ListOptions(TypedDict, total=False):
    """What to list: selectors as of kubectl, objects per request (500 by default, 0 for all), or metadata alone.

    ``resource_version`` lists the objects as they were at exactly that one.
    """

    label_selector: str
    field_selector: str
    page_size: int
    metadata_only: bool
    resource_version: str


class WatchEvent(NamedTuple):
    """One change: ``ADDED``, ``MODIFIED``, ``DELETED``, or ``BOOKMARK`` (only its resourceVersion counts)."""

    type: str
    object: Json


class KubeClient(KubeTransport):
    """Talks to one API server; may be used from several threads. Close it, or use it as a context manager."""

    def __init__(self, connection: Connection, **options: Any) -> None:  # noqa: ANN401 - as the transport types them
        super().__init__(connection, **options)
        self._discovery_lock = threading.Lock()
        self._discovered: Discovery | None = None

    # ---- the server --------------------------------------------------------------------------------------

    def server_version(self) -> str:
        """Return the version of the API server, such as ``v1.36.3``."""
        return str(self.request("GET", "/version").json().get("gitVersion", ""))

    def server_time(self) -> datetime:
        """Return the API server's clock, UTC, in whole seconds."""
        date = self.request("GET", "/version").headers.get("date")
        if not date:
            raise ClusterError(f"{self.server}: its answers carry no Date header", hint="is a proxy removing it?")
        from email.utils import parsedate_to_datetime

        return parsedate_to_datetime(date)

    def ready(self) -> ApiReadiness:
        """Ask the API server whether it is ready; a server that does not answer is not.

        Everybody may ask this, so a server that forbids it is still loading the rules that say so.
        """
        # Without its etcd it answers after four seconds: two of its checks give up after two each, one after the other.
        try:
            self.request("GET", "/readyz", query={"verbose": "true"}, timeout_seconds=8, retry_throttled=False)
        except (ClusterUnreachableError, ForbiddenError) as error:
            failing = [line for line in error.message.splitlines() if line.startswith("[-]")]
            return ApiReadiness(ok=False, failing="\n".join(failing) or error.message)
        return ApiReadiness(ok=True)

    # ---- discovery ---------------------------------------------------------------------------------------

    def resources(self, *, refresh: bool = False) -> tuple[ApiResource, ...]:
        """Return every kind the cluster serves, in its preferred version, core group first."""
        return self._discovery(refresh=refresh).preferred

    def all_versions(self) -> tuple[ApiResource, ...]:
        """Return every kind in every version that the cluster serves it in."""
        return tuple(resource for found in self._discovery().by_version.values() for resource in found)

    def discovery_gaps(self) -> tuple[str, ...]:
        """Return the group-versions whose kinds are unknown now (an aggregated API that is down)."""
        return self._discovery().gaps

    def resource(self, kind: str, *, api_version: str | None = None) -> ApiResource:
        """Find a kind: ``Deployment``, ``Deployment.apps``, ``deployments``, ``deploy`` … in any case.

        Raises:
            ResourceNotFoundError: The cluster has no such kind, even after asking it again.
            ConfigError: Several groups have one and none of them is Kubernetes' own.
        """
        found = self._discovery().find(kind, api_version)
        if found is None:
            # It may be the kind of a CustomResourceDefinition created a moment ago.
            discovery = self._discovery(refresh=True)
            found = discovery.find(kind, api_version)
            if found is None:
                wanted = f"{kind} in {api_version}" if api_version else kind
                raise ResourceNotFoundError(
                    f"{self.server} has no kind {wanted}", hint=did_you_mean(kind, discovery.preferred)
                )
        return found

    def resource_of(self, manifest: Json) -> ApiResource:
        """Find the kind of a manifest; a ConfigError says that it lacks ``apiVersion`` or ``kind``."""
        missing = [key for key in ("apiVersion", "kind") if not manifest.get(key)]
        if missing:
            raise ConfigError(f"a manifest without {' and '.join(missing)}: {_brief(manifest)}")
        return self.resource(str(manifest["kind"]), api_version=str(manifest["apiVersion"]))

    def await_kind(self, manifest: Json) -> ApiResource:
        """Find the kind of a manifest, waiting some seconds for one whose definition was created a moment ago."""
        patience = replace(_UNTIL_SERVED, sleep=self._sleep)
        return patience.run(
            lambda: self.resource_of(manifest), retryable=lambda error: isinstance(error, ResourceNotFoundError)
        )

    def _discovery(self, *, refresh: bool = False) -> Discovery:
        with self._discovery_lock:
            if self._discovered is None or refresh:
                self._discovered = Discovery.of([*self._discover("/api"), *self._discover("/apis")])
            return self._discovered

    def _discover(self, root: str) -> Iterator[ApiResource | str]:
        answer = self.request("GET", root, accept=_DISCOVERY).json()
        if answer.get("kind") == "APIGroupDiscoveryList":
            yield from aggregated(answer)
            return
        for group_version in group_versions(answer):
            path = f"{root}/{group_version}"
            try:
                listing = self.request("GET", path).json()
            except (ClusterUnreachableError, ResourceNotFoundError):
                self.server_version()  # when the server itself is gone this says so
                yield group_version
            else:
                yield from classic(listing, group_version)

    # ---- reading -----------------------------------------------------------------------------------------

    def get(
        self,
        resource: ApiResource,
        name: str,
        namespace: str | None = None,
        *,
        timeout_seconds: float = READ_SECONDS,
    ) -> Json:
        """Return one object, or raise ResourceNotFoundError; the server may stay silent for ``timeout_seconds``."""
        return self.request("GET", resource.path(namespace, name), timeout_seconds=timeout_seconds).json()

    def list(
        self, resource: ApiResource, namespace: str | None = None, **options: Unpack[ListOptions]
    ) -> Iterator[Json]:
        """Yield the objects of a kind, in one namespace or all, as they were at the moment of the first request.

        Raises:
            ConflictError: The list took so long that the server forgot the moment it shows (410 Gone); what
                was yielded so far is not the whole.
        """
        for page in self.list_pages(resource, namespace, **options):
            yield from page.items

    def list_pages(
        self, resource: ApiResource, namespace: str | None = None, **options: Unpack[ListOptions]
    ) -> Iterator[Page]:
        """Yield what `list` yields, in pages."""
        query = {
            "labelSelector": options.get("label_selector", ""),
            "fieldSelector": options.get("field_selector", ""),
            "limit": options.get("page_size", 500) or "",
        }
        accept = _METADATA_LIST if options.get("metadata_only") else "application/json"
        path, token = resource.path(namespace), ""
        moment = options.get("resource_version", "")
        first = {"resourceVersion": moment, "resourceVersionMatch": "Exact"} if moment else {}
        while True:
            page = {"continue": token} if token else first  # a token names its moment itself
            answer = self.request("GET", path, query={**query, **page}, accept=accept).json()
            items = answer.get("items") or []
            for item in items:
                item["apiVersion"], item["kind"] = resource.api_version, resource.kind
            metadata = answer.get("metadata", {})
            token = metadata.get("continue", "")
            yield Page(items=items, resource_version=metadata.get("resourceVersion", ""), last=not token)
            if not token:
                return

    def watch(
        self,
        resource: ApiResource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        timeout_seconds: float = 300,
    ) -> Generator[WatchEvent]:
        """Yield changes as they happen; ends quietly when the server ends the watch after the time-out.

        Args:
            resource: The kind.
            namespace: One namespace, or None for all.
            label_selector: As kubectl's ``-l``.
            field_selector: As kubectl's ``--field-selector``.
            resource_version: Of the list that came before; without one, what exists comes as ADDED first.
            timeout_seconds: How long to watch. The server counts whole seconds; parts of one are cut here.

        Raises:
            ConflictError: The server no longer knows that resource version: list again.
            ClusterUnreachableError: The connection broke: list again, later.
        """
        seconds = max(1, math.ceil(timeout_seconds))
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        path = resource.path(namespace)
        # The server ends the watch, and reading times out only when it is gone without a word; but it cannot
        # end one after less than a second, so then silence is the end.
        cut = timeout_seconds < 1
        silence = timeout_seconds if cut else seconds + 5
        # Where it does not end the watch either, it is ended here.
        lines = self.stream_lines(path, query=query, silence_seconds=silence, whole_seconds=silence, silence_ends=cut)
        with closing(lines):
            for line in lines:
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise status_error(int(status.get("code") or 500), line, f"watch {path}", status)
                yield WatchEvent(event["type"], event["object"])

    def wait_for(
        self,
        resource: ApiResource,
        name: str,
        namespace: str | None = None,
        *,
        until: Callable[[Json | None], bool],
        what: str,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> Json | None:
        """Watch one object until it is as wanted; None stands for "there is no such object".

        An unreachable server is asked again until the time is up; then a WaitTimeoutError tells what did not happen.
        """
        deadline = clock() + timeout_seconds
        selector = f"metadata.name={name}"
        last_seen = "nothing yet"
        while True:
            try:
                page = next(iter(self.list_pages(resource, namespace, field_selector=selector)))
                current = page.items[0] if page.items else None
                last_seen = _brief(current)
                if until(current):
                    return current
                left = deadline - clock()
                if left > 0:
                    for event in self.watch(
                        resource,
                        namespace,
                        field_selector=selector,
                        resource_version=page.resource_version,
                        timeout_seconds=min(left, 60),
                    ):
                        if event.type == "BOOKMARK":
                            continue
                        current = None if event.type == "DELETED" else event.object
                        last_seen = _brief(current)
                        if until(current):
                            return current
            except (ClusterUnreachableError, ConflictError) as error:
                last_seen = error.message
                self._sleep(0.2)
            if clock() >= deadline:
                raise WaitTimeoutError(what, seconds=timeout_seconds, last_seen=last_seen)

    # ---- writing -----------------------------------------------------------------------------------------

    def apply(self, manifest: Json, *, namespace: str | None = None) -> Json:
        """Create an object or take over the fields of one (server-side apply, conflicts forced).

        It goes to ``namespace`` where it does not name its own, by default ``default``.

        Raises:
            ConfigError: The manifest is incomplete or names another namespace.
            ResourceNotFoundError: The cluster has no such kind, or no such namespace.
        """
        resource, name, where = self._target(manifest, namespace)
        if not name:
            raise ConfigError(f"a manifest without metadata.name: {_brief(manifest)}")
        body = {
            **manifest,
            "metadata": {k: v for k, v in manifest["metadata"].items() if k != "managedFields"},
        }
        return self.request(
            "PATCH",
            resource.path(where, name),
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=body,
            content_type="application/apply-patch+yaml",
        ).json()

    def create(self, manifest: Json, *, namespace: str | None = None) -> Json:
        """Create an object; a ConflictError says that one of that name exists."""
        resource, _, where = self._target(manifest, namespace)
        query = {"fieldManager": FIELD_MANAGER}
        return self.request("POST", resource.path(where), query=query, body=manifest).json()

    def replace(self, manifest: Json, *, namespace: str | None = None, subresource: str = "") -> Json:
        """Replace an object; with its resourceVersion inside, only if nobody changed it meanwhile (ConflictError)."""
        resource, name, where = self._target(manifest, namespace)
        query = {"fieldManager": FIELD_MANAGER}
        return self.request("PUT", resource.path(where, name, subresource), query=query, body=manifest).json()

    def patch(
        self,
        resource: ApiResource,
        name: str,
        namespace: str | None = None,
        *,
        patch: Json | Sequence[Json],
        kind: Patch = "merge",
        subresource: str = "",
    ) -> Json:
        """Change some fields of an object."""
        return self.request(
            "PATCH",
            resource.path(namespace, name, subresource),
            query={"fieldManager": FIELD_MANAGER},
            body=patch,
            content_type=_PATCH_TYPES[kind],
        ).json()

    def scale(self, resource: ApiResource, name: str, namespace: str | None = None, *, replicas: int) -> None:
        """Set the number of replicas of whatever can be scaled."""
        self.patch(resource, name, namespace, patch={"spec": {"replicas": replicas}}, subresource="scale")

    def delete(
        self,
        resource: ApiResource,
        name: str,
        namespace: str | None = None,
        *,
        grace_seconds: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete an object; it may linger until its finalizers and grace period are over.

        Args:
            resource: The kind.
            name: The object.
            namespace: Its namespace.
            grace_seconds: 0 removes a pod at once; None leaves it to the object.
            propagation: What happens to the objects it owns.
            uid: Delete only this very object, not a later one of the same name (else ConflictError).
            resource_version: Likewise, only as it was then.
        """
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        wanted = {"uid": uid, "resourceVersion": resource_version}
        if preconditions := {key: value for key, value in wanted.items() if value is not None}:
            options["preconditions"] = preconditions
        self.request("DELETE", resource.path(namespace, name), body=options)

    def delete_all(self, resource: ApiResource, namespace: str) -> None:
        """Delete every object of a kind in a namespace, by one request."""
        self.request("DELETE", resource.path(namespace))

    def _target(self, manifest: Json, namespace: str | None) -> tuple[ApiResource, str, str | None]:
        resource = self.resource_of(manifest)
        metadata = manifest.get("metadata") or {}
        name = str(metadata.get("name") or "")
        if not name and not metadata.get("generateName"):
            raise ConfigError(f"a manifest without metadata.name: {_brief(manifest)}")
        if not resource.namespaced:
            return resource, name, None
        own = metadata.get("namespace")
        if own and namespace and own != namespace:
            raise ConfigError(f"{resource.kind} {name} is for namespace {own}, not {namespace}")
        return resource, name, own or namespace or "default"


def _brief(manifest: Json | None) -> str:
    if manifest is None:
        return "no such object"
    metadata = manifest.get("metadata") or {}
    where = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    phase = (manifest.get("status") or {}).get("phase", "")
    deleted = "being deleted" if metadata.get("deletionTimestamp") else ""
    state = ", ".join(part for part in (phase, deleted) if part)
    named = f"{manifest.get('kind', 'object')} {where}{metadata.get('name', '(unnamed)')}"
    return f"{named} ({state})" if state else named
