"""A cluster in memory, with the part of KubeClient that the validator uses."""

import copy
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

from clusterguard.clusters.kube import ApiResource, Page, WatchEvent
from clusterguard.errors import ClusterError, ClusterUnreachableError, ResourceNotFoundError

VERBS = frozenset({"create", "delete", "get", "list", "patch", "update", "watch"})
NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def kind(name, group="", *, plural=None, namespaced=True, verbs=VERBS, version="v1", subresources=()):
    return ApiResource(
        group=group,
        version=version,
        kind=name,
        plural=plural or f"{name.lower()}s",
        namespaced=namespaced,
        verbs=frozenset(verbs),
        subresources=frozenset(subresources),
    )


KINDS = (
    kind("ConfigMap"),
    kind("Event"),
    kind("Namespace", namespaced=False),
    kind("Node", namespaced=False),
    kind("Pod"),
    kind("Secret"),
    kind("Service"),
    kind("ServiceAccount"),
    kind("TokenReview", "authentication.k8s.io", verbs={"create"}, namespaced=False),
    kind("Deployment", "apps"),
    kind("EndpointSlice", "discovery.k8s.io"),
    kind("Lease", "coordination.k8s.io"),
    kind("PodMetrics", "metrics.k8s.io", plural="pods", verbs={"get", "list"}),
    kind("ClusterRole", "rbac.authorization.k8s.io", namespaced=False),
)


def thing(kind_name, name, namespace="shop", api="v1", **fields):
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "5", **fields.pop("metadata", {})}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api, "kind": kind_name, "metadata": metadata, **fields}


class FakeClient:
    server = "https://fake"

    def __init__(self, *items, kinds=KINDS, gaps=()):
        self.items = list(items)
        self.kinds = kinds
        self.gaps = gaps
        self.version = "v1.36.3"
        self.failures = {}  # full kind → errors to raise, one for each list
        self.gone = False
        self.requests = Counter()
        self.made, self.removed = [], []
        self.page_sizes = []
        self.script = []  # what the next watches yield: a list of events, or an error
        self.watched = []
        self.now = NOW
        self.kubelets = {}  # node → what its kubelet answers: pods that run, or an error

    def request(self, method, path, *, query=None, timeout_seconds=None):
        """The two questions to a kubelet, which nobody here may ask unless the test says what it answers."""
        node, _, question = path.removeprefix("/api/v1/nodes/").partition("/proxy/")
        answer = self.kubelets.get(node, ClusterError(f'403 Forbidden: cannot get resource "nodes/proxy" of {node}'))
        if isinstance(answer, Exception):
            raise answer
        if question == "runningpods/":
            items = [{"metadata": {"namespace": each["namespace"], "name": each["name"], "uid": each["uid"]},
                      "spec": {"containers": [{"name": name} for name in each["containers"]]}}
                     for each in answer]  # fmt: skip
            return SimpleNamespace(json=lambda: {"items": items})
        pods = [{"podRef": {"uid": each["uid"]},
                 "containers": [{"name": name, "startTime": created} for name, created in each["containers"].items()]}
                for each in answer]  # fmt: skip
        return SimpleNamespace(json=lambda: {"pods": pods})

    def server_time(self):
        return self.now

    def server_version(self):
        if self.gone:
            raise ClusterUnreachableError("refused")
        return self.version

    def resources(self, *, refresh=False):
        return self.kinds

    def discovery_gaps(self):
        return self.gaps

    def resource(self, text, *, api_version=None):
        for resource in self.kinds:
            if text.lower() in {
                resource.kind.lower(),
                resource.plural,
                str(resource).lower(),
            } and api_version in {
                None,
                resource.api_version,
            }:
                return resource
        raise ResourceNotFoundError(f"no kind {text}")

    def list_pages(self, resource, namespace=None, *, label_selector="", field_selector="", page_size=500):
        self.requests[str(resource), namespace, label_selector, field_selector] += 1
        self.page_sizes.append(page_size)
        found = [
            copy.deepcopy(item)
            for item in self.items
            if item["kind"] == resource.kind
            and namespace in {None, item["metadata"].get("namespace")}
            and field_selector in {"", f"metadata.name={item['metadata']['name']}"}
        ]
        half = len(found) // 2
        yield Page(items=found[:half], resource_version="100", last=False)
        errors = self.failures.get(str(resource))
        if errors:
            raise errors.pop(0)
        yield Page(items=found[half:], resource_version="100", last=True)

    def list(self, resource, namespace=None, **selectors):
        for page in self.list_pages(resource, namespace, **selectors):
            yield from page.items

    def get(self, resource, name, namespace=None):
        for item in self.items:
            if (item["kind"], item["metadata"]["name"], item["metadata"].get("namespace")) == (
                resource.kind,
                name,
                namespace,
            ):
                return copy.deepcopy(item)
        raise ResourceNotFoundError(name)

    def create(self, manifest, *, namespace=None):
        item = copy.deepcopy(manifest)
        item["metadata"] |= {"namespace": namespace, "uid": "made", "resourceVersion": "9", "generation": 1}
        self.items.append(item)
        self.made.append(item)
        return item

    def delete(self, resource, name, namespace=None):
        there = [item for item in self.items if (item["kind"], item["metadata"]["name"]) == (resource.kind, name)]
        self.items = [item for item in self.items if item not in there]
        self.removed += there

    def watch(self, resource, namespace=None, *, resource_version="", timeout_seconds, **selectors):
        self.watched.append((str(resource), timeout_seconds))
        step = self.script.pop(0) if self.script else []
        events = step(self, timeout_seconds) if callable(step) else step
        if isinstance(events, Exception):
            raise events
        for change, item in events or ():
            yield WatchEvent(change, item)
