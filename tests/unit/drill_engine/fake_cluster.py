"""A cluster and its etcd in memory: enough of both for whole drills to run in milliseconds."""

import base64
import copy
import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace

from clusterguard.clusters.kube import ApiReadiness, ApiResource, Page
from clusterguard.clusters.lock import restored_under_lock
from clusterguard.errors import ClusterError, ConflictError, ResourceNotFoundError

VERBS = frozenset({"create", "delete", "get", "list", "patch", "update", "watch"})


def _kind(name, group="", *, namespaced=True):
    return ApiResource(
        group=group, version="v1", kind=name, plural=f"{name.lower()}s", namespaced=namespaced, verbs=VERBS
    )


KINDS = (
    _kind("ConfigMap"),
    _kind("Event"),
    _kind("Namespace", namespaced=False),
    _kind("Node", namespaced=False),
    _kind("PersistentVolumeClaim"),
    _kind("Pod"),
    _kind("Secret"),
    _kind("Service"),
    _kind("DaemonSet", "apps"),
    _kind("Deployment", "apps"),
    _kind("StatefulSet", "apps"),
    _kind("Job", "batch"),
    _kind("Lease", "coordination.k8s.io"),
)


class FakeApi:
    """An API server that knows objects, not what they do."""

    server = "https://fake"

    def __init__(self):
        self.objects = {}
        self.calls = []
        self.errors = {}  # what a call such as ("delete", "ConfigMap") raises, in place of doing it
        self.after = {}  # what happens after a call such as ("delete", "Pod"): a function of this API
        self.closed = False
        self._numbers = count(1)
        self._lock = threading.RLock()

    # ---- as KubeClient ----

    def close(self):
        self.closed = True

    def server_version(self):
        return "v1.36.3"

    def ready(self):
        return ApiReadiness(ok=True)

    def request(self, method, path, **_):
        raise ClusterError(f"{method} {path}: 403 Forbidden: nodes/proxy is not allowed")

    def server_time(self):
        return datetime.now(UTC)

    def resources(self, *, refresh=False):
        return KINDS

    def discovery_gaps(self):
        return ()

    def resource(self, text, *, api_version=None):
        for resource in KINDS:
            if text in {resource.kind, str(resource)} and api_version in {None, resource.api_version}:
                return resource
        raise ResourceNotFoundError(f"no kind {text}")

    def resource_of(self, manifest):
        return self.resource(manifest["kind"], api_version=manifest["apiVersion"])

    def await_kind(self, manifest):
        return self.resource_of(manifest)

    def get(self, resource, name, namespace=None):
        self._call("get", resource)
        with self._lock:
            try:
                return copy.deepcopy(self.objects[resource.kind, namespace, name])
            except KeyError:
                raise ResourceNotFoundError(f"no {resource.kind} {name}") from None

    def list_pages(self, resource, namespace=None, *, label_selector="", field_selector="", page_size=500, **_):
        self._call("list", resource)
        with self._lock:
            found = [copy.deepcopy(item) for (kind, _, _), item in self.objects.items() if kind == resource.kind]
        wanted = [part.partition("=") for part in label_selector.split(",") if part]
        yield Page(
            items=[
                item
                for item in found
                if namespace in {None, item["metadata"].get("namespace")}
                and field_selector in {"", f"metadata.name={item['metadata']['name']}"}
                and all(_has(item["metadata"].get("labels", {}), *part) for part in wanted)
            ],
            resource_version="1",
            last=True,
        )

    def list(self, resource, namespace=None, **selectors):
        for page in self.list_pages(resource, namespace, **selectors):
            yield from page.items

    def watch(self, resource, namespace=None, *, timeout_seconds, **_):
        time.sleep(min(timeout_seconds, 0.01))
        yield from ()

    def wait_for(self, resource, name, namespace=None, *, until, what, timeout_seconds):
        seen = self.objects.get((resource.kind, namespace, name))
        assert until(seen), what
        return seen

    def events(self, namespace):
        return list(self.list(self.resource("Event"), namespace))

    def create(self, manifest):
        resource = self.resource_of(manifest)
        self._call("create", resource)
        with self._lock:
            key = self._key(resource, manifest)
            if key in self.objects:
                raise ConflictError(f"{resource.kind} {key[2]} exists")
            return self._store(key, manifest)

    def apply(self, manifest):
        resource = self.resource_of(manifest)
        self._call("apply", resource)
        with self._lock:
            key = self._key(resource, manifest)
            merged = _merged(self.objects.get(key, {}), manifest)
            return self._store(key, merged)

    def replace(self, manifest):
        resource = self.resource_of(manifest)
        self._call("replace", resource)
        with self._lock:
            key, metadata = self._key(resource, manifest), manifest["metadata"]
            there = self.objects.get(key, {}).get("metadata", {})
            if (metadata["uid"], metadata["resourceVersion"]) != (there.get("uid"), there.get("resourceVersion")):
                raise ConflictError(f"{resource.kind} {key[2]} has been modified")
            return self._store(key, manifest)

    def patch(self, resource, name, namespace=None, *, patch):
        self._call("patch", resource)
        with self._lock:
            before = self.get(resource, name, namespace)
            after = _merged(before, patch)
            if after == before:
                return before
            return self._store((resource.kind, namespace, name), after)

    def scale(self, resource, name, namespace=None, *, replicas):
        self.patch(resource, name, namespace, patch={"spec": {"replicas": replicas}})

    def delete(self, resource, name, namespace=None, *, grace_seconds=None, uid=None, resource_version=None):
        self._call("delete", resource)
        with self._lock:
            found = self.get(resource, name, namespace)
            if uid not in {None, found["metadata"]["uid"]}:
                raise ConflictError(f"{resource.kind} {name} has another uid")
            if resource_version not in {None, found["metadata"]["resourceVersion"]}:
                raise ConflictError(f"{resource.kind} {name} has another version")
            if found["metadata"].get("finalizers"):
                self.objects[resource.kind, namespace, name]["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
            else:
                del self.objects[resource.kind, namespace, name]
            if resource.kind == "Namespace":
                self.objects = {key: item for key, item in self.objects.items() if key[1] != name}
            if ("delete", resource.kind) in self.after:
                self.after["delete", resource.kind](self)

    # ---- for tests ----

    def names(self, kind):
        return sorted(key[2] for key in self.objects if key[0] == kind)

    def item(self, kind, name, namespace="shop"):
        return self.objects[kind, namespace, name]

    def touched(self):
        return [call for call in self.calls if call[0] not in {"get", "list"}]

    def _call(self, verb, resource):
        self.calls.append((verb, resource.kind))
        if (verb, resource.kind) in self.errors:
            raise self.errors[verb, resource.kind]

    def _key(self, resource, manifest):
        metadata = manifest["metadata"]
        return resource.kind, metadata.get("namespace", "default") if resource.namespaced else None, metadata["name"]

    def _store(self, key, manifest):
        item = copy.deepcopy(manifest)
        for name, value in item.pop("stringData", {}).items():
            item.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()
        number = next(self._numbers)
        metadata = item["metadata"]
        metadata.setdefault("uid", f"uid-{number}")
        metadata["resourceVersion"] = str(number)
        self.objects[key] = item
        return copy.deepcopy(item)


def _has(labels, key, equals, value):
    return labels.get(key) == value if equals else key in labels


def _merged(old, new):
    if not isinstance(new, dict) or not isinstance(old, dict):
        return copy.deepcopy(new)
    merged = {key: value for key, value in old.items() if new.get(key, "") is not None}
    return merged | {key: _merged(old.get(key, {}), value) for key, value in new.items() if value is not None}


class FakeCluster:
    """A cluster whose etcd can be saved and restored, by `FakeSnapshotter`."""

    provider = "fake"
    context = None
    created_by_us = False
    simulated_pods = False

    def __init__(self, name="one"):
        self.name = name
        self.api = FakeApi()
        self.kubeconfig = Path("/nowhere/kubeconfig")
        self.etcd = self
        self.control_plane = SimpleNamespace(exclusive=nullcontext)
        self.running = self._started = False
        self.snapshots = {}
        self.broken = {}  # what save, verify or restore raise
        self.saving = self.saved = lambda: None  # what happens before and after a snapshot
        self.restored = lambda api: None  # what happens after a restore

    def __enter__(self):
        self.running = self._started = True
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.api.close()
        self.running = self.running and not self._started


class FakeSnapshotter:
    """Stands in the place of `EtcdSnapshotter`; the access of a `FakeCluster` is itself."""

    def __init__(self, *, store, access, progress, scratch=None):
        self.cluster = access

    def save(self, name):
        self._fail("save")
        self.cluster.saving()
        self.cluster.snapshots[name] = copy.deepcopy(dict(self.cluster.api.objects))
        self.cluster.saved()
        return SimpleNamespace(
            name=name,
            key=f"{name}.db",
            taken=datetime(2030, 1, 2, tzinfo=UTC),
            revision=7,
            total_keys=3,
            size=1234,
            sha256="0" * 64,
            remarks=(),
        )

    def verify(self, name):
        self._fail("verify")
        return SimpleNamespace(raise_for_findings=lambda: None, checks=())

    def restore(self, name, cluster):
        self._fail("restore")
        with restored_under_lock(lambda: cluster.api.server):
            cluster.api.objects = copy.deepcopy(self.cluster.snapshots[name])
            cluster.restored(cluster.api)
        return SimpleNamespace(
            revision_before=9,
            revision_after=1009,
            snapshot=SimpleNamespace(revision=7),
            steps=(SimpleNamespace(name="start etcd", seconds=0.1),),
            warnings=(),
        )

    def _fail(self, verb):
        if verb in self.cluster.broken:
            raise self.cluster.broken[verb]
