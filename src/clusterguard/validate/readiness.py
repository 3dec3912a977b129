"""Waits until workloads are ready, by watching, and proves that what says so is alive.

A restore of etcd brings ``.status`` back as well: a pod looks Running before any node has seen it again. So,
with ``fresh_since``, a status counts only once it is shown to be newer than that moment. For pods the kubelet of
their node is asked what its runtime runs right now (`clusterguard.clusters.node_view`); where that is not allowed,
or pods are simulated, the Lease of the node must have been renewed since, and the evidence says so. For what
kube-controller-manager looks after it is its leader Lease, or, without leader election, that it looks at an object
made for that (`clusterguard.validate.sign_of_life`). What nobody gives a sign for (custom resources) must at least stay
ready for a while.
"""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from clusterguard.clusters.node_view import view_node
from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    ClusterUnreachableError,
    ConfigError,
    ConflictError,
    ResourceNotFoundError,
    WaitTimeoutError,
)
from clusterguard.model.readiness import (
    claim_readiness,
    is_superseded,
    readiness,
    service_readiness,
    volume_readiness,
)
from clusterguard.validate.sign_of_life import SignOfLife

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from clusterguard.clusters.kube import ApiResource, KubeClient
    from clusterguard.model.readiness import Readiness

__all__ = ["CountRule", "ReadyEvidence", "Selection", "wait_ready"]

_Object: TypeAlias = "Mapping[str, Any]"

_WINDOW_SECONDS = 1.0  # how long one watch lasts before the leases and the clock are looked at again
_PATIENCE_SECONDS = 10.0  # how long a Lease may be missing before its holder is asked in another way
_SHORTEST_WINDOW = 0.05
_RETRY_SECONDS = 0.2
_ASK_AGAIN_SECONDS = 0.3  # how soon a kubelet is asked again what it runs
_SIMULATED = frozenset({"clusterguard.dev/simulated", "kwok.x-k8s.io/node"})  # annotations of nodes without a kubelet
_MOST_TOLD = 5  # objects in an error message
_TELLABLE_SKEW = timedelta(seconds=1)  # the Date header tells whole seconds
_CONTROLLER_MANAGER = "kube-system/kube-controller-manager"
_KEPT_BY_CONTROLLER_MANAGER = frozenset(
    {
        "DaemonSet.apps",
        "Deployment.apps",
        "Job.batch",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "ReplicaSet.apps",
        "ReplicationController",
        "Service",
        "StatefulSet.apps",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Objects of one kind.

    Attributes:
        kind: ``Pod``, ``Deployment.apps`` …
        namespace: One namespace, or ``""`` for all.
        selector: A label selector, or ``""`` for all objects.
        names: The only names to look at; each of them must be there. Empty for all.
    """

    kind: str
    namespace: str = ""
    selector: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        which = f" ({self.selector})" if self.selector else ""
        named = f" {', '.join(self.names)}" if self.names else ""
        return f"{self.kind}{named}{where}{which}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyEvidence:
    """What was seen when objects were found ready.

    Attributes:
        selection: What was looked at.
        objects: Each object (``namespace/name``) and why it counts as ready.
        ready_after_seconds: From the start of the wait to the first moment of the unbroken readiness.
        stable_seconds: How long it had held when the wait ended.
        leases: The signs of life: Lease (``namespace/name``) and its last renewal.
        freshness: In words, what the freshness of the status rests on; ``""`` when it was not asked for.
    """

    selection: Selection
    objects: Mapping[str, str]
    ready_after_seconds: float
    stable_seconds: float
    leases: Mapping[str, datetime] = field(default_factory=dict)
    freshness: str = ""


class CountRule(Protocol):
    """How many objects there must be, where "exactly so many" does not say it."""

    def holds(self, count: int, /) -> bool:
        """Return whether a number of objects is right."""

    def in_words(self) -> str:
        """Return the rule as ``at least 3``."""


@dataclass(frozen=True, slots=True)
class _Exactly:
    number: int

    def holds(self, count: int, /) -> bool:
        return count == self.number

    def in_words(self) -> str:
        return f"exactly {self.number}"


def wait_ready(
    api: KubeClient,
    selection: Selection,
    *,
    timeout_seconds: float,
    count: int | CountRule | None = None,
    stable_seconds: float = 0,
    fresh_since: datetime | None = None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
) -> ReadyEvidence:
    """Wait until all selected objects are ready, and have been so for a while without a break.

    Args:
        api: The cluster; while it does not answer nothing is ready.
        selection: Which objects. None at all are never ready.
        timeout_seconds: How long to wait in all, the stable time included.
        count: How many there must be, neither fewer nor more, or a rule for it; by default at least one.
        stable_seconds: How long they must stay ready.
        fresh_since: A moment, by this machine's clock, after which those who write the status must have given
            a sign of life. The difference to the cluster's clock is allowed for.
        clock: Seconds that only grow.
        now: This machine's time of day.
        sleep: Waits before an API server that does not answer is asked again.

    Raises:
        WaitTimeoutError: They were not; it names those that are not ready, and why.
        ConfigError: Freshness was asked of a kind that gives no sign of life, without a stable time.
        ResourceNotFoundError: The cluster has no such kind.
    """
    began = clock()
    resource = _resource(api, selection, deadline=began + timeout_seconds, clock=clock, sleep=sleep)
    freshness = _freshness(api, resource, fresh_since, now=now, clock=clock)
    if freshness is not None and not freshness.leased and not stable_seconds:
        raise ConfigError(
            f"{resource} gives no sign of life that could prove its status fresh",
            hint="ask for a stable time, so that a stale status has the time to be corrected",
        )
    wait = _Wait(
        api=api,
        selection=selection,
        resource=resource,
        count=_Exactly(count) if isinstance(count, int) else count,
        freshness=freshness,
        sleep=sleep,
    )
    try:
        return _until_ready(
            wait, began=began, timeout_seconds=timeout_seconds, stable_seconds=stable_seconds, clock=clock
        )
    finally:
        if freshness is not None:
            freshness.close(api)


def _until_ready(
    wait: _Wait, *, began: float, timeout_seconds: float, stable_seconds: float, clock: Callable[[], float]
) -> ReadyEvidence:
    ready_since: float | None = None
    while True:
        complaint = wait.look()
        moment = clock()
        if complaint:
            ready_since = None
        elif ready_since is None:
            ready_since = moment
        if ready_since is not None and moment - ready_since >= stable_seconds:
            return wait.evidence(ready_after=ready_since - began, stable=moment - ready_since)
        left = began + timeout_seconds - moment
        if left <= 0:
            if ready_since is not None:
                complaint = f"all ready, but only for {moment - ready_since:.1f} s of {stable_seconds:g} s"
            raise WaitTimeoutError(f"{wait.selection} to be ready", seconds=timeout_seconds, last_seen=complaint)
        until_stable = left if ready_since is None else ready_since + stable_seconds - moment
        if wait.watch(min(_WINDOW_SECONDS, left, until_stable)):
            ready_since = None  # even a moment of not being ready, between two looks, breaks the stable time


def _resource(
    api: KubeClient,
    selection: Selection,
    *,
    deadline: float,
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> ApiResource:
    while True:
        try:
            return api.resource(selection.kind)
        except ClusterUnreachableError:
            if clock() >= deadline:
                raise
            sleep(_RETRY_SECONDS)


@dataclass(slots=True, kw_only=True)
class _Wait:
    """The selected objects as a list and the watches after it show them."""

    api: KubeClient
    selection: Selection
    resource: ApiResource
    count: CountRule | None
    freshness: _Freshness | None
    sleep: Callable[[float], object]
    objects: dict[str, _Object] = field(default_factory=dict)
    _version: str = ""
    _stale: str = ""
    _seen: dict[str, Readiness] = field(default_factory=dict)

    def look(self) -> str:
        """Return what is lacking now, or ``""``."""
        self._stale = ""
        try:
            if not self._version:
                self._list()
            self._seen = self._verdicts()
            lacking = self._lacking(self._seen)
            if not lacking and self.freshness is not None:
                self._stale = self.freshness.complaint(self.api, self.objects.values())
        except (ClusterUnreachableError, ConflictError) as error:
            return self._lost(error)
        return lacking or self._stale

    def watch(self, seconds: float) -> str:
        """Follow changes for a while, or until all are ready; return what was lacking, or ``""``."""
        try:
            if self._stale and self.freshness is not None:
                # Only a sign of life is lacking. No change of the objects is lost: their watch resumes later.
                if self.freshness.asks_kubelets:
                    self._watch_objects(min(seconds, _ASK_AGAIN_SECONDS))  # what lags is the status itself
                else:
                    self.freshness.watch(self.api, seconds)
                return self._stale
            return self._watch_objects(seconds)
        except (ClusterUnreachableError, ConflictError) as error:
            return self._lost(error)

    def _watch_objects(self, seconds: float) -> str:
        lacking = was_lacking = self._lacking(self._verdicts())
        events = self.api.watch(
            self.resource,
            self.selection.namespace or None,
            label_selector=self.selection.selector,
            resource_version=self._version,
            timeout_seconds=max(seconds, _SHORTEST_WINDOW),
        )
        with closing(events):
            for event in events:
                self._version = event.object["metadata"]["resourceVersion"]
                if event.type == "BOOKMARK":
                    continue
                self._take(event.type, event.object)
                lacking = self._lacking(self._verdicts())
                was_lacking = was_lacking or lacking
                if was_lacking and not lacking:
                    break
        return was_lacking

    def evidence(self, *, ready_after: float, stable: float) -> ReadyEvidence:
        return ReadyEvidence(
            selection=self.selection,
            objects={name: verdict.reason for name, verdict in sorted(self._seen.items())},
            ready_after_seconds=ready_after,
            stable_seconds=stable,
            leases=self.freshness.seen() if self.freshness else {},
            freshness=self.freshness.words if self.freshness else "",
        )

    def _lost(self, error: ClusterGuardError) -> str:
        # Whatever happened meanwhile was not seen: list again, soon.
        self._version = ""
        if self.freshness is not None:
            self.freshness.forget()
        self.sleep(_RETRY_SECONDS)
        return error.message

    def _list(self) -> None:
        self.objects.clear()
        pages = self.api.list_pages(
            self.resource, self.selection.namespace or None, label_selector=self.selection.selector
        )
        for page in pages:
            for item in page.items:
                self._take("ADDED", item)
            self._version = page.resource_version

    def _take(self, change: str, item: _Object) -> None:
        metadata = item["metadata"]
        if self.selection.names and metadata["name"] not in self.selection.names:
            return
        key = _key(metadata)
        if change == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = item

    def _verdicts(self) -> dict[str, Readiness]:
        judge = _JUDGES.get(str(self.resource))
        if judge is not None:
            return judge(self.api, self.selection.namespace, self.objects)
        plain = "status" not in self.resource.subresources
        return {
            key: readiness(item, plain_status=plain)
            for key, item in self.objects.items()
            if self.selection.names or not self._is_leftover(item)
        }

    def _is_leftover(self, item: _Object) -> bool:
        return str(self.resource) == "Pod" and is_superseded(item)

    def _lacking(self, verdicts: Mapping[str, Readiness]) -> str:
        there = {item["metadata"]["name"] for item in self.objects.values()}
        absent = [name for name in self.selection.names if name not in there]
        if absent:
            return f"not there: {_few(absent)}"
        late = [f"{key}: {verdict.reason}" for key, verdict in sorted(verdicts.items()) if not verdict]
        if self.count is not None and not self.count.holds(len(verdicts)):
            return "; ".join([f"{len(verdicts)} objects, not {self.count.in_words()}", *late[:_MOST_TOLD]])
        if not verdicts and self.count is None:
            return "no such object"
        return _few(late)


# ---- kinds that do not tell on their own ---------------------------------------------------------------------


def _services(api: KubeClient, namespace: str, services: Mapping[str, _Object]) -> dict[str, Readiness]:
    # EndpointSlices change while Services do not; they are few and are listed each time.
    slices = list(api.list(api.resource("EndpointSlice", api_version="discovery.k8s.io/v1"), namespace or None))
    return {
        key: service_readiness(
            item, [part for part in slices if part["metadata"]["namespace"] == item["metadata"]["namespace"]]
        )
        for key, item in services.items()
    }


def _claims(api: KubeClient, _: str, claims: Mapping[str, _Object]) -> dict[str, Readiness]:
    return {key: readiness(claim) or _claim(api, claim) for key, claim in claims.items()}


def _claim(api: KubeClient, claim: _Object) -> Readiness:
    storage_class = _seen(api, "StorageClass.storage.k8s.io", (claim.get("spec") or {}).get("storageClassName"))
    waits = (storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer"
    pods = api.list(api.resource("Pod"), claim["metadata"]["namespace"]) if waits else ()
    return claim_readiness(claim, storage_class, pods)


def _volumes(api: KubeClient, _: str, volumes: Mapping[str, _Object]) -> dict[str, Readiness]:
    return {key: readiness(volume) or _volume(api, volume) for key, volume in volumes.items()}


def _volume(api: KubeClient, volume: _Object) -> Readiness:
    named = (volume.get("spec") or {}).get("claimRef") or {}
    return volume_readiness(volume, _seen(api, "PersistentVolumeClaim", named.get("name"), named.get("namespace")))


def _seen(api: KubeClient, kind: str, name: str | None, namespace: str | None = None) -> _Object | None:
    if not name:
        return None
    try:
        return api.get(api.resource(kind), name, namespace)
    except ResourceNotFoundError:
        return None


_JUDGES: Mapping[str, Callable[[KubeClient, str, Mapping[str, _Object]], dict[str, Readiness]]] = {
    "PersistentVolume": _volumes,
    "PersistentVolumeClaim": _claims,
    "Service": _services,
}


# ---- freshness -------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Freshness:
    """Whether those who write a status have given a sign of life since a moment."""

    since: datetime
    nodes: bool
    controllers: bool
    clock: Callable[[], float]
    _unasked: dict[str, str] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)
    _simulated: dict[str, bool] = field(default_factory=dict)
    _first: dict[str, datetime] = field(default_factory=dict)
    _fresh: dict[str, datetime] = field(default_factory=dict)
    _lease_version: str = ""
    _no_lease_since: float | None = None
    _sign: SignOfLife = field(default_factory=SignOfLife)

    @property
    def leased(self) -> bool:
        return self.nodes or self.controllers

    @property
    def asks_kubelets(self) -> bool:
        """Whether a kubelet was asked in the last look."""
        return bool(self._asked)

    @property
    def words(self) -> str:
        if self.nodes:
            return "; ".join(self._words_for_pods()) or "no pod is on a node"
        if self._sign.given:
            return "kube-controller-manager, which has no Lease, has looked at a ReplicaSet that was made for it to see"
        if self.controllers:
            return "kube-controller-manager has renewed its Lease since"
        return "nobody's sign of life: it rests on the stable time alone"

    def _words_for_pods(self) -> Iterator[str]:
        if self._asked:
            yield "the kubelet of each pod's node runs its containers now"
        reasons = sorted({reason for reason in self._unasked.values() if reason})
        if self._unasked:
            told = f" (its kubelet was not asked: {'; '.join(reasons)})" if reasons else ""
            yield f"each pod's node has renewed its Lease since{told}"

    def seen(self) -> dict[str, datetime]:
        return dict(sorted(self._fresh.items()))

    def complaint(self, api: KubeClient, objects: Collection[_Object]) -> str:
        """Return whose sign of life is lacking, or ``""``."""
        self._asked.clear()
        if self.nodes and (trouble := self._ask_kubelets(api, objects)):
            return trouble
        wanted = self._wanted(objects)
        lacking = [why for lease in sorted(wanted) if (why := self._look(api, lease))]
        self._fresh = {lease: moment for lease, moment in self._fresh.items() if lease in wanted}
        return _few(lacking)

    def _ask_kubelets(self, api: KubeClient, pods: Collection[_Object]) -> str:
        """Return what pods are not what their nodes run, or ``""``; nodes that cannot be asked are put down."""
        found: list[str] = []
        self._unasked.clear()
        for node, there in sorted(_by_node(pods).items()):
            if self._is_simulated(api, node):
                self._unasked[node] = ""
                continue
            self._asked.add(node)
            try:
                view = view_node(api, node)
            except (ClusterUnreachableError, ResourceNotFoundError) as error:
                found.append(f"node {node} does not tell what it runs: {error.message}")
            except ClusterError as error:  # we may not ask: its Lease must do
                self._asked.discard(node)
                self._unasked[node] = error.message
            else:
                found += [f"{_key(pod['metadata'])}: {why}" for pod in there if (why := view.trouble(pod))]
        return _few(found)

    def _is_simulated(self, api: KubeClient, node: str) -> bool:
        if node not in self._simulated:
            try:
                metadata = api.get(api.resource("Node"), node)["metadata"]
            except ResourceNotFoundError:
                return False  # asking its kubelet will tell
            self._simulated[node] = bool(_SIMULATED & set(metadata.get("annotations") or {}))
        return self._simulated[node]

    def watch(self, api: KubeClient, seconds: float) -> None:
        """Wait for a while, or until a Lease that is waited for changes."""
        namespace, _, name = (_CONTROLLER_MANAGER if self.controllers else "kube-node-lease/").partition("/")
        events = api.watch(
            api.resource("Lease", api_version="coordination.k8s.io/v1"),
            namespace,
            field_selector=f"metadata.name={name}" if name else "",
            resource_version=self._lease_version,
            timeout_seconds=max(seconds, _SHORTEST_WINDOW),
        )
        with closing(events):
            for event in events:
                self._lease_version = event.object["metadata"]["resourceVersion"]
                lease = f"{namespace}/{event.object['metadata'].get('name')}"
                if event.type == "BOOKMARK" or lease in self._fresh or lease not in self._first:
                    continue
                if _renewal(event.object) != self._first[lease]:
                    return

    def forget(self) -> None:
        """Begin the watch of Leases anew."""
        self._lease_version = ""

    def _wanted(self, objects: Collection[_Object]) -> set[str]:
        if self.nodes:
            return {f"kube-node-lease/{node}" for node in _by_node(objects) if node not in self._asked}
        return {_CONTROLLER_MANAGER} if self.controllers else set()

    def _look(self, api: KubeClient, lease: str) -> str:
        if lease in self._fresh:
            return ""
        namespace, _, name = lease.partition("/")
        try:
            found = api.get(api.resource("Lease", api_version="coordination.k8s.io/v1"), name, namespace)
        except ResourceNotFoundError:
            lacking = f"there is no Lease {lease}, so the status cannot be proven fresh"
            return self._without_lease(api, lacking) if self.controllers else lacking
        renewed = _renewal(found)
        if renewed is None:
            return f"Lease {lease} was never renewed"
        # A renewal that happens before our eyes is proof whatever any clock says.
        if renewed > self.since or renewed != self._first.setdefault(lease, renewed):
            self._fresh[lease] = renewed
            return ""
        return f"stale: Lease {lease} was last renewed {renewed:%H:%M:%S}, before {self.since:%H:%M:%S}"

    def _without_lease(self, api: KubeClient, lacking: str) -> str:
        """Return what is lacking: right after a restore the Lease is gone as well, until its holder is back."""
        if self._no_lease_since is None:
            self._no_lease_since = self.clock()
        if self.clock() - self._no_lease_since < _PATIENCE_SECONDS:
            return lacking
        why = self._sign.lacking(api)
        return f"{lacking}: {why}" if why else ""

    def close(self, api: KubeClient) -> None:
        """Leave nothing behind; what cannot be deleted now is an empty ReplicaSet, and its label says whose it is."""
        with suppress(ClusterError):
            self._sign.remove(api)


def _by_node(pods: Collection[_Object]) -> dict[str, list[_Object]]:
    """Return the pods that should be running, by node."""
    found: dict[str, list[_Object]] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
            found.setdefault(str(node), []).append(pod)
    return found


def _freshness(
    api: KubeClient,
    resource: ApiResource,
    since: datetime | None,
    *,
    now: Callable[[], datetime],
    clock: Callable[[], float],
) -> _Freshness | None:
    if since is None:
        return None
    if since.tzinfo is None:
        raise ConfigError(f"fresh_since={since} has no time zone")
    return _Freshness(
        since=since + _clock_difference(api, now),
        nodes=str(resource) == "Pod",
        controllers=str(resource) in _KEPT_BY_CONTROLLER_MANAGER,
        clock=clock,
    )


def _clock_difference(api: KubeClient, now: Callable[[], datetime]) -> timedelta:
    """Return how far the API server's clock is ahead of ours, at most; zero if that is too little to tell."""
    try:
        before, theirs, after = now(), api.server_time(), now()
    except ClusterUnreachableError:
        return timedelta(0)  # a renewal before our eyes will have to do
    difference = theirs - (before + (after - before) / 2) + _TELLABLE_SKEW / 2
    return timedelta(0) if abs(difference) <= _TELLABLE_SKEW else difference + _TELLABLE_SKEW / 2


def _renewal(lease: _Object) -> datetime | None:
    text = str((lease.get("spec") or {}).get("renewTime") or "")
    return datetime.fromisoformat(text) if text else None


def _key(metadata: _Object) -> str:
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


def _few(complaints: Sequence[str]) -> str:
    told = "; ".join(complaints[:_MOST_TOLD])
    more = len(complaints) - _MOST_TOLD
    return f"{told}; and {more} more" if more > 0 else told
