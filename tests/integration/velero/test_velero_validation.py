"""What a comparison makes of restores by Velero's own server: green where all is back, red for each defect put in."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from velero_names import unique

from clusterguard.errors import ResourceNotFoundError
from clusterguard.model.inventory import Scope
from clusterguard.validate import RestoreValidator
from clusterguard.validate.renaming import in_other_namespaces
from clusterguard.velero.options import BackupOptions, RestoreOptions
from clusterguard.velero.phases import RestorePhase

pytestmark = pytest.mark.programs

RBAC = "rbac.authorization.k8s.io"
# With a grace period of its own no namespace is gone before half of it is over, whoever simulates the pods.
POD = {"containers": [{"name": "c", "image": "busybox:1.37"}], "terminationGracePeriodSeconds": 0}
WORKLOAD = {"metadata": {"labels": {"app": "web"}}, "spec": POD}


def manifest(kind, name, namespace=None, api="v1", **fields):
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **fields.pop("metadata", {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}


def account(namespace):
    return {"kind": "ServiceAccount", "name": "robot", "namespace": namespace}


def role(kind, name):
    return {"apiGroup": RBAC, "kind": kind, "name": name}


def contents(namespace, other, suffix):
    """Yield what a namespace may hold, and what names it from outside."""
    yield manifest("ServiceAccount", "robot", namespace)
    token = {"kubernetes.io/service-account.name": "robot"}
    kind = "kubernetes.io/service-account-token"
    yield manifest("Secret", "robot-key", namespace, type=kind, metadata={"annotations": token})
    yield manifest("Secret", "login", namespace, stringData={"token": "one", "ca.crt": "one"})
    yield manifest(
        "Service", "chosen", namespace, spec={"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "web"}}
    )
    yield manifest("Service", "db", namespace, spec={"ports": [{"port": 80}], "selector": {"app": "web"}})
    selector = {"matchLabels": {"app": "web"}}
    spec = {"replicas": 2, "selector": selector, "template": WORKLOAD}
    yield manifest("Deployment", "web", namespace, "apps/v1", spec=spec)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    scaler = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4}
    yield manifest("HorizontalPodAutoscaler", "web", namespace, "autoscaling/v2", spec=scaler)
    disk = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": f"/{suffix}"},
        "storageClassName": suffix,
        "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "name": "data", "namespace": namespace},
    }
    yield manifest("PersistentVolume", f"disk-{suffix}", spec=disk)
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": suffix,
        "volumeName": f"disk-{suffix}",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    yield manifest("PersistentVolumeClaim", "data", namespace, spec=claim)
    everywhere = {"subjects": [account(namespace)], "roleRef": role("ClusterRole", "view")}
    yield manifest("ClusterRoleBinding", f"robot-{suffix}", None, f"{RBAC}/v1", **everywhere)
    yield manifest("RoleBinding", "robot", other, f"{RBAC}/v1", **everywhere)
    yield manifest("ClusterRole", f"system:addon-{suffix}", None, f"{RBAC}/v1", rules=[])
    service = {"name": "chosen", "namespace": namespace}
    hook = {
        "name": "hook.example.com",
        "clientConfig": {"service": service},
        "failurePolicy": "Ignore",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [
            {"apiGroups": ["none.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["x"]}
        ],
    }
    yield manifest(
        "ValidatingWebhookConfiguration", f"hook-{suffix}", None, "admissionregistration.k8s.io/v1", webhooks=[hook]
    )


CLUSTER_SCOPED = ("PersistentVolume", "ClusterRoleBinding", "ClusterRole", "ValidatingWebhookConfiguration")


@pytest.fixture
def world(api):
    """Two namespaces and what belongs to them; gone again after the test."""
    suffix = unique("w")
    namespace, other = f"{suffix}-shop", f"{suffix}-other"
    for name in (namespace, other):
        api.apply(manifest("Namespace", name))
    items = list(contents(namespace, other, suffix))
    for item in items:
        api.create(item)
    settled(api, namespace, suffix)
    yield namespace, other, suffix
    lose(api, namespace, other, suffix)


def settled(api, namespace, suffix):
    """Wait until controllers have done what they do with new objects."""
    api.wait_for(
        api.resource("PersistentVolume"),
        f"disk-{suffix}",
        until=lambda seen: bool(seen and seen["status"].get("phase") == "Bound"),
        what="the volume to be bound",
        timeout_seconds=60,
    )
    api.wait_for(
        api.resource("Deployment"),
        "web",
        namespace,
        until=lambda seen: bool(seen and seen["status"].get("availableReplicas") == 2),
        what="the pods",
        timeout_seconds=60,
    )
    api.wait_for(
        api.resource("Secret"),
        "robot-key",
        namespace,
        until=lambda seen: bool(seen and "token" in (seen.get("data") or {})),
        what="the token",
        timeout_seconds=60,
    )


def lose(api, namespace, other, suffix):
    for name in (namespace, other):
        delete(api, "Namespace", name)
    for item in contents(namespace, other, suffix):
        if item["kind"] in CLUSTER_SCOPED:
            delete(api, item["kind"], item["metadata"]["name"])
    for kind, name in (("Namespace", namespace), ("Namespace", other), ("PersistentVolume", f"disk-{suffix}")):
        api.wait_for(
            api.resource(kind), name, until=lambda seen: seen is None, what=f"{kind} {name} to go", timeout_seconds=90
        )


def delete(api, kind, name):
    with suppress(ResourceNotFoundError):  # lost before
        api.delete(api.resource(kind), name)


def scope(*namespaces):
    kinds = (
        *("Namespace", "ServiceAccount", "Secret", "Service", "Deployment", "ReplicaSet", "Pod", "RoleBinding"),
        *("HorizontalPodAutoscaler", "PersistentVolumeClaim", *CLUSTER_SCOPED),
    )
    return Scope(namespaces=namespaces, kinds=kinds)


def told(report):
    return {f"{found.kind} {found.ref}": {change.path for change in found.changes} for found in report.findings}


def until(judge, expected, *, seconds=40):
    """Return the verdict once it is the one that is expected, or the last one: controllers take their time."""
    deadline = time.monotonic() + seconds
    while (verdict := judge()) != expected and time.monotonic() < deadline:
        time.sleep(1)
    return verdict


def backed_up_and_lost(velero, api, world):
    namespace, other, suffix = world
    validator = RestoreValidator(api=api)
    inventory = validator.capture(scope(namespace, other))
    backup = velero.back_up(
        unique("b"),
        BackupOptions(included_namespaces=(namespace, other), include_cluster_resources=True, snapshot_volumes=False),
    )
    lose(api, namespace, other, suffix)
    return validator, inventory, backup


def restored(velero, backup, **options):
    chosen = RestoreOptions(include_cluster_resources=True, **options)
    assert velero.restore(backup.name, chosen, name=unique("r")).phase is RestorePhase.COMPLETED


def test_a_mapped_restore_is_expected_where_velero_writes_the_new_name(velero, api, world):
    namespace, _, suffix = world
    validator, inventory, backup = backed_up_and_lost(velero, api, world)
    new = f"{suffix}-new"
    restored(velero, backup, namespace_mapping={namespace: new})
    try:
        mapped = in_other_namespaces(inventory, {namespace: new})
        assert until(lambda: told(validator.validate(mapped, profile="velero-restore")), {}) == {}
        unmapped = told(validator.validate(inventory, profile="velero-restore"))
        assert unmapped[f"changed PersistentVolume disk-{suffix}"] == {"spec.claimRef.namespace"}
        assert f"changed ClusterRoleBinding.{RBAC} robot-{suffix}" in unmapped
        hook = api.get(api.resource("ValidatingWebhookConfiguration"), f"hook-{suffix}")
        assert hook["webhooks"][0]["clientConfig"]["service"]["namespace"] == namespace
    finally:
        delete(api, "Namespace", new)


def test_a_restore_is_green_and_each_defect_put_in_after_it_is_red(velero, api, world):
    namespace, _, suffix = world
    validator, inventory, backup = backed_up_and_lost(velero, api, world)
    restored(velero, backup)
    judge = lambda: told(validator.validate(inventory, profile="velero-restore"))  # noqa: E731 - asked again and again
    assert until(judge, {}) == {}

    service = api.resource("Service")
    headless = api.get(service, "db", namespace)
    api.delete(service, "db", namespace)
    spec = {"ports": headless["spec"]["ports"], "selector": headless["spec"]["selector"], "clusterIP": "None"}
    labels = {"labels": headless["metadata"]["labels"]}
    api.create(manifest("Service", "db", namespace, metadata=labels, spec=spec))
    api.patch(api.resource("Secret"), "login", namespace, patch={"stringData": {"token": "two", "ca.crt": "two"}})
    api.patch(api.resource("ServiceAccount"), "default", namespace, patch={"imagePullSecrets": [{"name": "x"}]})
    api.delete(api.resource("HorizontalPodAutoscaler"), "web", namespace)
    api.scale(api.resource("Deployment"), "web", namespace, replicas=0)
    api.delete(api.resource("PersistentVolume"), f"disk-{suffix}")
    api.delete(api.resource("PersistentVolumeClaim"), "data", namespace)
    api.delete(api.resource("ClusterRole"), f"system:addon-{suffix}")
    verdict = judge()
    assert verdict[f"changed Service {namespace}/db"] == {"spec.clusterIP", "spec.clusterIPs"}
    assert verdict[f"changed Secret {namespace}/login"] == {"data.token", 'data["ca.crt"]'}
    assert verdict[f"changed ServiceAccount {namespace}/default"] == {"imagePullSecrets"}
    assert "spec.replicas" in verdict[f"changed Deployment.apps {namespace}/web"]
    assert f"missing ClusterRole.{RBAC} system:addon-{suffix}" in verdict
    assert any(key.endswith(f"PersistentVolumeClaim {namespace}/data") for key in verdict)


WITHOUT_DEBUGGERS = """\
version: v1
resourceModifierRules:
- conditions: {groupResource: pods, resourceNameRegex: ".*"}
  mergePatches: [{patchData: '{"spec": {"ephemeralContainers": null}}'}]
"""


def test_a_debugged_pod_comes_back_only_without_its_debug_container(velero, api, shop):
    pod = api.resource("Pod")
    api.create(manifest("Pod", "bare", shop, spec=WORKLOAD["spec"]))
    debugger = {"spec": {"ephemeralContainers": [{"name": "debugger", "image": "busybox:1.37"}]}}
    api.patch(pod, "bare", shop, patch=debugger, kind="strategic", subresource="ephemeralcontainers")
    validator = RestoreValidator(api=api)
    inventory = validator.capture(Scope(namespaces=(shop,), kinds=("Pod",)))
    backup = velero.back_up(unique("b"), BackupOptions(included_namespaces=(shop,)))
    api.delete(pod, "bare", shop, grace_seconds=0)
    failed = velero.wait(velero.restore(backup.name, name=unique("r"), wait=False))
    assert failed.phase is RestorePhase.PARTIALLY_FAILED
    assert told(validator.validate(inventory, profile="velero-restore")) == {f"missing Pod {shop}/bare": set()}

    name = unique("without-debuggers")
    api.create(manifest("ConfigMap", name, velero.namespace, data={"rules.yaml": WITHOUT_DEBUGGERS}))
    restored(velero, backup, resource_modifier=name)
    report = validator.validate(inventory, profile="velero-restore")
    assert told(report) == {}
    assert "debug containers" in report.suppressed_by_rule
