"""The Kubernetes API, as JSON: the only user of the ``kubernetes`` package.

The official client does what is hard to get right and differs between clusters: kubeconfig files, credential
plugins (``exec``, as EKS needs), TLS, the connection pool. Its generated models are left aside: a restore is
proven on whatever kinds a cluster has, custom resources included, so requests and answers are plain JSON.

Sources of facts: kubernetes.io/docs/reference/using-api/api-concepts (pagination, watches, server-side apply,
aggregated discovery).
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias
from urllib.parse import quote, urlencode

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
from clusterguard.clusters.kube_errors import is_status, not_kubernetes, status_error, transport_error
from clusterguard.clusters.kubeconfig import TokenFile, read_kubeconfig
from clusterguard.errors import (
    ClusterError,
    ClusterUnreachableError,
    ConfigError,
    ConflictError,
    ForbiddenError,
    ResourceNotFoundError,
    WaitTimeoutError,
)
from clusterguard.response_body import BodyBoundError, BodyUnfinishedError, BoundedBody
from clusterguard.retrying import RetryPolicy
from clusterguard.scratch import in_memory, private_folder
from clusterguard.sockets import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    import urllib3

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
# Discovery tells of a definition a little after it is established.
_UNTIL_SERVED = RetryPolicy(attempts=8, first_wait_seconds=0.1, longest_wait_seconds=1)
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
_WHOLE_SECONDS = 600.0  # until an answer must have ended
_MOST_BYTES = 1 << 30  # of an answer: a list in one page can be large, but no sane one is larger
_MOST_OF_A_LOG = 1 << 20
_MOST_OF_A_SERVICE = 1 << 20
_LONGEST_EVENT = 1 << 26  # etcd takes objects of 1.5 MiB; JSON makes several times that of it
_PIECE_BYTES = 1 << 16
_THROTTLED_TRIES = 6  # the API server asks for one second at a time while it is busy or starting
_POOL_SIZE = 32
# The official client remembers the files that it wrote, in whichever folder, for every thread.
_LOADING = threading.Lock()
_IN_A_PATH = "/?&=%:@!$'()*+,;~-._"  # what RFC 3986 lets stand in a path or a query; the rest is encoded
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
class ApiResponse:
    """An answer that is no error.

    Attributes:
        status: HTTP's.
        headers: By their names in lower case.
        body: Its bytes.
        cut: Why there is less in the body than was sent; empty for all of it.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cut: str = ""

    def json(self) -> Json:
        """Return the decoded body.

        Raises:
            ClusterError: It is not a JSON object; a proxy may have answered in place of the API server.
        """
        try:
            decoded = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise not_kubernetes(self.body) from error
        if not isinstance(decoded, dict):
            raise not_kubernetes(self.body)
        return decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiReadiness:
    """Whether the API server calls itself ready; true or false in conditions.

    Attributes:
        ok: Its own verdict; false as well when it did not answer.
        failing: The failing checks, or why there was no answer.
    """

    ok: bool
    failing: str = ""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list; all pages of one list show the same moment.

    Attributes:
        items: The objects, with the ``apiVersion`` and ``kind`` that the server leaves out inside a list.
        resource_version: Of the list, to start a watch from.
        last: Whether no page follows.
    """

    items: Sequence[Json]
    resource_version: str
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What it takes to reach the API server by another protocol than plain requests, as the same user.

    Attributes:
        server: Its URL.
        headers: Those that say who we are; never shown.
        ca: PEM file of the authority that we trust, or None for those that the system trusts.
        cert: PEM file of our client certificate.
        key: PEM file of its key.
        verify: Whether the server must have a trusted certificate at all.
        server_name: Name that its certificate must have, where that is not its host's.
        proxy: URL of the proxy on the way.
    """

    server: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True
    server_name: str | None = None
    proxy: str | None = None


class WatchEvent(NamedTuple):
    """One change: ``ADDED``, ``MODIFIED``, ``DELETED``, or ``BOOKMARK`` (only its resourceVersion counts)."""

    type: str
    object: Json


class KubeClient:
    """Talks to one API server; may be used from several threads. Close it, or use it as a context manager."""

    def __init__(
        self,
        *,
        server: str,
        pool: urllib3.PoolManager,
        auth_headers: Callable[[], Mapping[str, str]] = dict,
        connection: Connection | None = None,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = server.rstrip("/")
        self._connection = connection or Connection(server=self.server)
        self._pool = pool
        self._auth_headers = auth_headers
        self._sleep = sleep
        self._clock = clock
        # Compression costs the server more time than a loopback connection saves.
        self._encoding = "identity" if is_loopback(server) else "gzip"
        self._auth_lock = threading.Lock()
        self._discovery_lock = threading.Lock()
        self._discovered: Discovery | None = None

    @classmethod
    def from_kubeconfig(cls, path: Path | str, *, context: str | None = None) -> Self:
        """Connect as a kubeconfig file says; the first request is what reaches out.

        The certificate authority of the kubeconfig decides whom we trust, whatever ``SSL_CERT_FILE`` or
        ``REQUESTS_CA_BUNDLE`` say. ``HTTPS_PROXY`` holds as for kubectl, and never for loopback addresses.

        Args:
            path: The file, or several with colons between them, as ``KUBECONFIG`` has it.
            context: One of its contexts, by default the current one.

        Raises:
            ConfigError: The file or the context is missing or malformed.
            ClusterError: Its credential plugin gave no credentials.
        """
        with ExitStack() as stack:
            configuration, token_file = _load_kubeconfig(str(path), context, stack)
            from kubernetes import client

            # Built by the official client, so that TLS and proxies are as it does them.
            pool = client.ApiClient(configuration=configuration).rest_client.pool_manager
            files = stack.pop_all()

        def auth_headers() -> Mapping[str, str]:
            if token_file is not None:
                return {"Authorization": f"Bearer {token_file.token()}"}
            # This refreshes tokens that credential plugins gave for a limited time.
            settings = configuration.auth_settings().get("BearerToken")
            return {"Authorization": settings["value"]} if settings and settings["value"] else {}

        connection = Connection(
            server=configuration.host.rstrip("/"),
            ca=configuration.ssl_ca_cert,
            cert=configuration.cert_file,
            key=configuration.key_file,
            verify=configuration.verify_ssl,
            server_name=getattr(configuration, "tls_server_name", None),
            proxy=configuration.proxy,
        )
        made = cls(server=configuration.host, pool=pool, auth_headers=auth_headers, connection=connection)
        weakref.finalize(made, files.close)  # a closed client may be used again
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pooled connections; the client may be used again and opens new ones."""
        self._pool.clear()

    # ---- the server --------------------------------------------------------------------------------------

    def connection(self) -> Connection:
        """Return how the API server is reached, with credentials that are good now."""
        with self._auth_lock:
            return replace(self._connection, headers=dict(self._auth_headers()))

    def server_version(self) -> str:
        """Return the version of the API server, such as ``v1.36.3``."""
        return str(self.request("GET", "/version").json().get("gitVersion", ""))

    def server_time(self) -> datetime:
        """Return the API server's clock, UTC, in whole seconds.

        Raises:
            ClusterError: It does not tell.
        """
        date = self.request("GET", "/version").headers.get("date")
        if not date:
            raise ClusterError(f"{self.server}: its answers carry no Date header", hint="is a proxy removing it?")
        from email.utils import parsedate_to_datetime

        return parsedate_to_datetime(date)

    def ready(self) -> ApiReadiness:
        """Ask the API server whether it is ready; a server that does not answer is not.

        Everybody may ask this, so a server that forbids it is still loading the rules that say so.

        Raises:
            ClusterError: It refused us.
        """
        try:
            self.request("GET", "/readyz", query={"verbose": "true"}, timeout_seconds=5, retry_throttled=False)
        except (ClusterUnreachableError, ForbiddenError) as error:
            failing = [line for line in error.message.splitlines() if line.startswith("[-]")]
            return ApiReadiness(ok=False, failing="\n".join(failing) or error.message)
        return ApiReadiness(ok=True)

    # ---- discovery ---------------------------------------------------------------------------------------

    def resources(self, *, refresh: bool = False) -> tuple[ApiResource, ...]:
        """Return every kind the cluster serves, in its preferred version, core group first."""
        return self._discovery(refresh=refresh).preferred

    def discovery_gaps(self) -> tuple[str, ...]:
        """Return the group-versions whose kinds are unknown now (an aggregated API that is down)."""
        return self._discovery().gaps

    def resource(self, kind: str, *, api_version: str | None = None) -> ApiResource:
        """Find a kind.

        Args:
            kind: ``Deployment``, ``Deployment.apps``, ``deployments``, ``deploy`` … in any case.
            api_version: Such as ``apps/v1``, as manifests say it; by default the preferred version.

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
        """Find the kind of a manifest.

        Raises:
            ConfigError: It lacks ``apiVersion`` or ``kind``.
            ResourceNotFoundError: The cluster has no such kind.
        """
        missing = [key for key in ("apiVersion", "kind") if not manifest.get(key)]
        if missing:
            raise ConfigError(f"a manifest without {' and '.join(missing)}: {_brief(manifest)}")
        return self.resource(str(manifest["kind"]), api_version=str(manifest["apiVersion"]))

    def await_kind(self, manifest: Json) -> ApiResource:
        """Find the kind of a manifest, waiting some seconds for one whose definition was made a moment ago.

        Raises:
            ConfigError: It lacks ``apiVersion`` or ``kind``.
            ResourceNotFoundError: The cluster still has no such kind.
        """
        patience = replace(_UNTIL_SERVED, sleep=self._sleep)
        return patience.run(lambda: self.resource_of(manifest), retryable=_is_not_served_yet)

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
        timeout_seconds: float = _READ_SECONDS,
    ) -> Json:
        """Return one object.

        Args:
            resource: The kind.
            name: Its name.
            namespace: Its namespace, or None where the kind has none.
            timeout_seconds: How long the server may stay silent.

        Raises:
            ResourceNotFoundError: There is none.
        """
        return self.request("GET", resource.path(namespace, name), timeout_seconds=timeout_seconds).json()

    def list(
        self,
        resource: ApiResource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = 500,
        metadata_only: bool = False,
    ) -> Iterator[Json]:
        """Yield the objects of a kind as they were at the moment of the first request.

        Args:
            resource: The kind.
            namespace: One namespace, or None for all.
            label_selector: As kubectl's ``-l``.
            field_selector: As kubectl's ``--field-selector``.
            page_size: Objects per request.
            metadata_only: Fetch apiVersion, kind and metadata alone, a fraction of the bytes.

        Raises:
            ConflictError: The list took so long that the server forgot the moment it shows (410 Gone); what
                was yielded so far is not the whole.
        """
        for page in self.list_pages(
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            page_size=page_size,
            metadata_only=metadata_only,
        ):
            yield from page.items

    def list_pages(
        self,
        resource: ApiResource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = 500,
        metadata_only: bool = False,
    ) -> Iterator[Page]:
        """Yield what `list` yields, in pages; ``page_size=0`` asks for everything in one."""
        query = {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": page_size or ""}
        token = ""
        while True:
            answer = self.request(
                "GET",
                resource.path(namespace),
                query={**query, "continue": token},
                accept=_METADATA_LIST if metadata_only else "application/json",
            ).json()
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
        lines = self._stream_lines(path, query=query, silence_seconds=silence, whole_seconds=silence, silence_ends=cut)
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

        Args:
            resource: The kind.
            name: The object.
            namespace: Its namespace.
            until: Says whether this is it.
            what: What is waited for, for the error: "Deployment shop/web to be gone".
            timeout_seconds: How long to wait. An unreachable server is asked again until then.
            clock: Seconds that only grow.

        Raises:
            WaitTimeoutError: It did not happen in time.
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

    def events(self, namespace: str) -> Sequence[Json]:
        """Return the events of a namespace, oldest first."""
        found = self.list(self.resource("Event", api_version="v1"), namespace)
        return sorted(found, key=_event_time)

    def pod_logs(self, namespace: str, name: str, *, tail_lines: int = 50, container: str = "") -> str:
        """Return the last lines of a pod's log, and of these no more than 1 MiB.

        Raises:
            ResourceNotFoundError: There is no such pod.
            ClusterError: The pod has no log to give (simulated pods have none).
        """
        path = self.resource("Pod", api_version="v1").path(namespace, name, "log")
        query = {"tailLines": tail_lines, "container": container, "limitBytes": _MOST_OF_A_LOG}
        return self.request("GET", path, query=query, accept="*/*").body.decode(errors="replace")

    def ask_service(
        self, namespace: str, name: str, *, port: int, path: str = "/", timeout_seconds: float = 10
    ) -> ApiResponse:
        """Ask a Service over HTTP through the API server, which needs no way into the cluster's network.

        Any answer of the Service is an answer here, errors and redirects included. In HTML the API server turns
        links into links through itself; everything else arrives as it was sent. An answer that does not end in time (a
        stream of events, a watch), or is larger than 1 MiB, is cut, and says so.

        Args:
            namespace: Its namespace.
            name: The Service.
            port: Its port, as its spec has it.
            path: What to ask for, with the query if there is one.
            timeout_seconds: How long the whole answer may take.

        Raises:
            ResourceNotFoundError: There is no such Service.
            ClusterUnreachableError: No endpoint of it answers; the API server says why.
            ClusterError: The API server refused us.
        """
        service = f"/api/v1/namespaces/{quote(namespace, safe='')}/services/http:{quote(name, safe='')}:{port}"
        proxied = f"{service}/proxy{quote(path, safe=_IN_A_PATH)}"
        what = f"GET {self.server}{proxied}"
        deadline = self._clock() + timeout_seconds
        response = self._send("GET", proxied, query=None, accept="*/*", read_seconds=timeout_seconds)
        body, cut = self._read(response, what, deadline=deadline, most_bytes=_MOST_OF_A_SERVICE)
        if response.status >= HTTPStatus.BAD_REQUEST and is_status(body):
            raise status_error(response.status, body, what)
        headers = {key.lower(): value for key, value in response.headers.items()}
        return ApiResponse(status=response.status, headers=headers, body=body, cut=cut)

    # ---- writing -----------------------------------------------------------------------------------------

    def apply(self, manifest: Json, *, namespace: str | None = None) -> Json:
        """Create an object or take over the fields of one (server-side apply, conflicts forced).

        Args:
            manifest: The fields to own.
            namespace: Where it goes when it does not say so itself; by default ``default``.

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
        """Create an object.

        Raises:
            ConflictError: One of that name exists.
            ConfigError: The manifest is incomplete or names another namespace.
        """
        resource, _, where = self._target(manifest, namespace)
        query = {"fieldManager": FIELD_MANAGER}
        return self.request("POST", resource.path(where), query=query, body=manifest).json()

    def replace(self, manifest: Json, *, namespace: str | None = None, subresource: str = "") -> Json:
        """Replace an object; with its resourceVersion inside, only if nobody changed it meanwhile.

        Raises:
            ConflictError: Somebody did.
        """
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
        """Change some fields of an object.

        Raises:
            ResourceNotFoundError: There is no such object.
        """
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
            uid: Delete only this very object, not a later one of the same name.
            resource_version: Delete it only as it was then, if nobody has changed it since.

        Raises:
            ResourceNotFoundError: There is no such object.
            ConflictError: It has another uid or version.
        """
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        wanted = {"uid": uid, "resourceVersion": resource_version}
        if preconditions := {key: value for key, value in wanted.items() if value is not None}:
            options["preconditions"] = preconditions
        self.request("DELETE", resource.path(namespace, name), body=options)

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

    # ---- requests ----------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Json | Sequence[Json] | bytes | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout_seconds: float = _READ_SECONDS,
        retry_throttled: bool = True,
    ) -> ApiResponse:
        """Send any request.

        Args:
            method: Such as ``GET``.
            path: From the root, such as ``/version``.
            query: Parameters; those with the empty string are left out.
            body: JSON, or bytes to send as they are.
            content_type: Of the body.
            accept: What to ask for.
            timeout_seconds: How long the server may stay silent; connecting has 5 seconds.
            retry_throttled: Whether to come back when the server asks for that (429 with Retry-After).

        Raises:
            ClusterUnreachableError: No answer, or an answer of the kind "not now" (429, 5xx).
            ClusterError: The answer is an error; its subclasses tell 404 and 409 apart. Or it is larger than 1 GiB or
                has not ended after ten minutes (code ``answer-cut``).
        """
        what = f"{method} {self.server}{path}"
        tries = _THROTTLED_TRIES if retry_throttled else 1
        for left in reversed(range(tries)):
            response = self._send(
                method,
                path,
                query=query,
                body=body,
                content_type=content_type,
                accept=accept,
                read_seconds=timeout_seconds,
            )
            deadline = self._clock() + _WHOLE_SECONDS
            data, cut = self._read(response, what, deadline=deadline, most_bytes=_MOST_BYTES)
            if response.status == HTTPStatus.TOO_MANY_REQUESTS and left and "retry-after" in response.headers:
                self._sleep(_seconds(response.headers["retry-after"]))
                continue
            break
        headers = {key.lower(): value for key, value in response.headers.items()}
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise status_error(response.status, data, what)
        if cut:
            raise ClusterError(f"{what}: {cut}", code="answer-cut", hint="is that an API server that answers?")
        return ApiResponse(status=response.status, headers=headers, body=data)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None,
        body: Json | Sequence[Json] | bytes | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        read_seconds: float,
    ) -> urllib3.BaseHTTPResponse:
        import urllib3

        url = self.server + path
        parameters = {key: value for key, value in (query or {}).items() if value != ""}
        if parameters:
            url += "?" + urlencode(parameters)
        with self._auth_lock:
            headers = {
                "Accept": accept,
                "Accept-Encoding": self._encoding,
                "User-Agent": "clusterguard",
                **self._auth_headers(),
            }
        data: bytes | None = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = body if isinstance(body, bytes) else orjson.dumps(body)
        # A pooled connection may have died with the API server it led to (a restore restarts it). Reading
        # again is harmless, and connecting anew tells whether the server is really gone.
        tries = 2 if method == "GET" else 1
        for left in reversed(range(tries)):
            try:
                return self._pool.request(
                    method,
                    url,
                    headers=headers,
                    body=data,
                    timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                    preload_content=False,
                    retries=False,
                    redirect=False,
                )
            except urllib3.exceptions.HTTPError as error:
                if left and isinstance(error, urllib3.exceptions.ProtocolError):
                    continue
                raise transport_error(error, f"{method} {self.server}{path}") from error
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _read(
        self, response: urllib3.BaseHTTPResponse, what: str, *, deadline: float, most_bytes: int
    ) -> tuple[bytes, str]:
        """Return what came of a body, and why that is not all of it; the bounds are kept to within one piece."""
        import urllib3

        body, cut = bytearray(), ""
        try:
            for piece in self._pieces(response, deadline=deadline, most_bytes=most_bytes):
                body += piece
        except BodyBoundError as error:
            cut = str(error)
        except urllib3.exceptions.HTTPError as error:
            response.close()
            raise transport_error(error, what) from error
        if cut:
            response.close()  # what is still on its way would be taken for the next answer
        else:
            response.release_conn()
        return bytes(body), cut

    def _pieces(
        self, response: urllib3.BaseHTTPResponse, *, deadline: float, most_bytes: int | None = None
    ) -> Iterator[bytes]:
        body = BoundedBody(response, deadline=deadline, most_bytes=most_bytes, clock=self._clock)
        return iter(partial(body.read, _PIECE_BYTES), b"")

    def _stream_lines(
        self,
        path: str,
        *,
        query: Mapping[str, object],
        silence_seconds: float,
        whole_seconds: float,
        silence_ends: bool,
    ) -> Generator[bytes]:
        import urllib3

        what = f"watch {self.server}{path}"
        deadline = self._clock() + whole_seconds
        try:
            response = self._send("GET", path, query=query, read_seconds=silence_seconds)
        except ClusterUnreachableError as error:
            if silence_ends and isinstance(error.__cause__, urllib3.exceptions.ReadTimeoutError):
                return
            raise
        try:
            if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                body, _ = self._read(response, what, deadline=deadline, most_bytes=_MOST_BYTES)
                raise status_error(response.status, body, what)
            yield from _lines(self._pieces(response, deadline=deadline), what)
        except BodyUnfinishedError:
            return
        except urllib3.exceptions.ReadTimeoutError as error:
            if not silence_ends:
                raise transport_error(error, what) from error
        except urllib3.exceptions.HTTPError as error:
            raise transport_error(error, what) from error
        finally:
            response.close()  # an abandoned watch leaves a connection that nobody else can use


def _lines(pieces: Iterable[bytes], what: str) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > _LONGEST_EVENT:
            raise ClusterError(f"{what}: an event is larger than {_LONGEST_EVENT:,} bytes", code="answer-cut")
    if rest.strip():
        raise ClusterUnreachableError(f"{what}: the stream ended in the middle of an event")


def _is_not_served_yet(error: BaseException) -> bool:
    return isinstance(error, ResourceNotFoundError)


# ---- kubeconfig ------------------------------------------------------------------------------------------


def _load_kubeconfig(
    path: str, context: str | None, files: ExitStack
) -> tuple[Any, TokenFile | None]:  # the package ships no types
    from kubernetes import client
    from kubernetes.config import ConfigException, kube_config

    merged = read_kubeconfig(path)
    kubernetes_config: Any = kube_config  # it has no annotations
    configuration = type.__call__(client.Configuration)  # not a copy of a default that others may have set
    try:
        context = context or merged["current-context"] or None
        user, cluster = _user_and_cluster(merged, context)
        token_file = TokenFile(Path(user.pop("tokenFile"))) if user.get("tokenFile") else None
        if token_file is not None:
            user["token"] = token_file.token()
        _load_into_memory(kubernetes_config, configuration, files, config_dict=merged, context=context)
    except (ConfigException, OSError, TypeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"kubeconfig {path}: {reason}", hint=f"KUBECONFIG={path} kubectl config get-contexts"
        ) from error
    has_credentials = bool(configuration.api_key) or bool(configuration.cert_file)
    if "exec" in user and not has_credentials:
        # The official client logs this and goes on without any identity.
        command = user["exec"].get("command", "its credential plugin")
        raise ClusterError(
            f"kubeconfig {path}: {command} gave no credentials", hint=f"run {command} by hand to see why"
        )
    if is_loopback(configuration.host) and not cluster.get("proxy-url"):
        configuration.proxy = None
    configuration.connection_pool_maxsize = _POOL_SIZE
    configuration.retries = False
    return configuration, token_file


def _load_into_memory(
    kubernetes_config: Any,  # noqa: ANN401 - the package ships no types
    configuration: Any,  # noqa: ANN401 - likewise
    files: ExitStack,
    **which: object,
) -> None:
    """Load a kubeconfig; what the official client writes to files of it, keys among them, is moved into memory."""
    with _LOADING, private_folder() as folder:
        kubernetes_config.load_kube_config_from_dict(
            client_configuration=configuration, persist_config=False, temp_file_path=str(folder), **which
        )
        for name in ("ssl_ca_cert", "cert_file", "key_file"):
            file = getattr(configuration, name)
            if file and Path(file).is_relative_to(folder):
                setattr(configuration, name, str(files.enter_context(in_memory(Path(file).read_bytes())).path))


def _user_and_cluster(merged: Mapping[str, Any], context: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the chosen context's user and cluster are; the official client tells what is missing."""
    contexts, users, clusters = (
        {each["name"]: each[kind] for each in merged[f"{kind}s"]} for kind in ("context", "user", "cluster")
    )
    chosen = contexts.get(context, {})
    return users.get(chosen.get("user"), {}), clusters.get(chosen.get("cluster"), {})


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


def _event_time(event: Json) -> str:
    times = (
        event.get("lastTimestamp"),
        event.get("eventTime"),
        (event.get("metadata") or {}).get("creationTimestamp"),
    )
    return next((str(time_) for time_ in times if time_), "")


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), 10.0) if retry_after.isdigit() else 1.0
