"""What Kubernetes itself changes and owns, and what only looks like it, on a real control plane."""

from datetime import UTC, datetime
from functools import partial

import pytest

from clusterguard.clusters.embedded.commands import argv_of
from clusterguard.errors import WaitTimeoutError
from clusterguard.model.inventory import ObjectRef, Scope
from clusterguard.process import spawn
from clusterguard.validate import Selection

pytestmark = pytest.mark.programs

RBAC = "rbac.authorization.k8s.io"
BINDING = f"ClusterRoleBinding.{RBAC}"


def told(report):
    return {f"{finding.kind} {finding.ref}": {change.path for change in finding.changes} for finding in report.findings}


def definition(kind, *, status):
    """A custom resource that takes anything, with a status subresource or without."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.moving.example.com"},
        "spec": {
            "group": "moving.example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [version | ({"subresources": {"status": {}}} if status else {})],
        },
    }


def custom(kind, namespace):
    metadata = {"name": "one", "namespace": namespace}
    return {"apiVersion": "moving.example.com/v1", "kind": kind, "metadata": metadata, "spec": {"size": 1}}


@pytest.mark.parametrize("status", [True, False], ids=["with", "without"])
def test_a_status_may_be_written_with_or_without_a_subresource_and_a_text_is_one_too(api, validator, namespace, status):
    kind = "Subbed" if status else "Plain"
    api.apply(definition(kind, status=status))
    resource = api.await_kind(custom(kind, namespace))
    api.create(custom(kind, namespace))

    def write(value, manager="widgetd"):
        # A PUT by another manager than the one that made the object.
        path = resource.path(namespace, "one", "status" if status else "")
        item = api.get(resource, "one", namespace)
        api.request("PUT", path, query={"fieldManager": manager}, body=item | {"status": value})

    write("starting")
    inventory = validator.capture(Scope(namespaces=(namespace,)))
    assert (f"{kind}.moving.example.com" in inventory.plain_status) is not status
    before = api.get(resource, "one", namespace)["metadata"]["generation"]
    write(["a", "list"])
    after = api.get(resource, "one", namespace)["metadata"]["generation"]
    assert (after > before) is not status, "without a subresource a write of the status is a change of the object"
    report = validator.validate(inventory)
    assert report.ok, report.to_text()
    write("broken", manager="somebody")
    changes = {} if status else {f"changed {kind}.moving.example.com {namespace}/one": {"status"}}
    assert told(validator.validate(inventory)) == changes


def test_a_default_class_a_used_token_and_a_scheduled_pod_are_what_the_cluster_does(api, validator, namespace):
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "waiting"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    api.apply(claim, namespace=namespace)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late"}}
    api.apply(pod | {"spec": {"containers": [{"name": "c", "image": "c"}]}}, namespace=namespace)
    inventory = validator.capture(Scope(namespaces=(namespace,)))
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    metadata = {"name": "now-the-default", "annotations": default}
    made = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata, "provisioner": "none"}
    api.apply(made)
    try:
        api.wait_for(
            api.resource("PersistentVolumeClaim"),
            "waiting",
            namespace,
            until=lambda seen: bool(seen and seen["spec"].get("storageClassName")),
            what="the class",
            timeout_seconds=60,
        )
        validator.wait_ready(Selection(kind="Pod", namespace=namespace), timeout_seconds=60)
        report = validator.validate(inventory)
        assert report.ok, report.to_text()
        assert "class given since" in report.suppressed_by_rule
    finally:
        api.delete(api.resource("StorageClass"), "now-the-default")


def test_roles_called_system_are_the_users_unless_the_api_server_made_them(api, validator):
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    api_version = f"{RBAC}/v1"
    addon = {"apiVersion": api_version, "kind": "ClusterRole", "metadata": {"name": "system:addon"}, "rules": [rule]}
    api.apply(addon)
    scope = Scope(kinds=("ClusterRole", "ClusterRoleBinding"))
    inventory = validator.capture(scope)
    own = {ref.name for ref in inventory.objects}
    assert "system:addon" in own
    assert "cluster-admin" not in own
    assert {"cluster-admin", "system:basic-user"} <= {ref.name for ref in inventory.system}
    assert validator.validate(inventory).ok
    api.delete(api.resource("ClusterRole"), "system:addon")
    subject = {"kind": "User", "name": "mallory", "apiGroup": RBAC}
    binding = api.get(api.resource(BINDING), "cluster-admin")
    api.replace(binding | {"subjects": [*binding["subjects"], subject]})
    try:
        assert told(validator.validate(inventory)) == {
            f"missing ClusterRole.{RBAC} system:addon": set(),
            f"changed {BINDING} cluster-admin": {"subjects[kind=User,name=mallory]"},
        }
        # From now on it is a person's, and its loss is one.
        assert ObjectRef("ClusterRoleBinding", "", "cluster-admin", RBAC) in validator.capture(scope).objects
    finally:
        now = api.get(api.resource(BINDING), "cluster-admin")
        api.replace(now | {"subjects": binding["subjects"]})


def test_a_default_account_that_was_touched_later_is_changed(api, validator, namespace):
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, namespace=namespace)
    inventory = validator.capture(Scope(namespaces=(namespace,)))
    account = api.resource("ServiceAccount")
    api.patch(account, "default", namespace, patch={"imagePullSecrets": [{"name": "registry"}]})
    assert told(validator.validate(inventory)) == {f"changed ServiceAccount {namespace}/default": {"imagePullSecrets"}}


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "chosen"])
def test_a_node_port_belongs_to_its_owner_or_to_the_cluster(api, validator, namespace, pinned):
    free_ports = (30998, 30997) if pinned else (30996, 30995)
    port = {"port": 80, "protocol": "TCP"} | ({"nodePort": 30999} if pinned else {})
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    service["spec"] = {"type": "NodePort", "ports": [port]}
    made = api.create(service, namespace=namespace)
    inventory = validator.capture(Scope(namespaces=(namespace,), kinds=("Service",)))
    other = next(each for each in free_ports if each != made["spec"]["ports"][0]["nodePort"])
    api.delete(api.resource("Service"), "web", namespace)
    service["spec"]["ports"] = [port | {"nodePort": other}]
    api.create(service, namespace=namespace)
    path = "spec.ports[port=80,protocol=TCP].nodePort"
    expected = {f"changed Service {namespace}/web": {path}} if pinned else {}
    assert told(validator.validate(inventory, profile="velero-restore")) == expected


def test_an_aggregated_api_that_is_down_hides_nothing_else(api, validator, namespace):
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, namespace=namespace)
    api.apply(
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {"name": "metrics-server", "namespace": "kube-system"},
            },
        }
    )
    try:
        inventory = validator.capture()
        assert list(inventory.unanswered) == ["metrics.k8s.io/v1beta1"]
        report = validator.validate(inventory)
        assert report.ok, report.to_text()
        assert report.suppressed_by_rule["API that does not answer"] == 1
    finally:
        api.delete(api.resource("APIService"), "v1beta1.metrics.k8s.io")
        api.resources(refresh=True)


def without_leader_election(cluster):
    """Start kube-controller-manager again, without a Lease."""
    programs = cluster._programs
    programs.stop("kube-controller-manager", grace_seconds=5)
    record = programs.record
    argv = argv_of("kube-controller-manager", programs=record.programs, layout=programs.layout, ports=record.ports)
    return partial(spawn, [*argv, "--leader-elect=false"], log=programs.log("kube-controller-manager"))


def test_a_controller_manager_without_leader_election_is_seen_alive_and_seen_dead(cluster, api, validator, namespace):
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "busybox:1.37"}]}}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    api.apply(deployment | {"spec": spec}, namespace=namespace)
    selection = Selection(kind="Deployment", namespace=namespace)
    validator.wait_ready(selection, timeout_seconds=60)
    start = without_leader_election(cluster)
    lease = api.resource("Lease")
    try:
        api.delete(lease, "kube-controller-manager", "kube-system")
        with pytest.raises(WaitTimeoutError, match="has not looked at"):
            validator.wait_ready(selection, timeout_seconds=13, fresh_since=datetime.now(UTC))
        process = start()
        try:
            evidence = validator.wait_ready(selection, timeout_seconds=60, fresh_since=datetime.now(UTC))
        finally:
            process.stop(grace_seconds=5)
        assert evidence.leases == {}
        assert "has no Lease" in evidence.freshness
        left = api.list(api.resource("ReplicaSet.apps"), "kube-system")
        assert [item["metadata"]["name"] for item in left if "sign-of-life" in item["metadata"]["name"]] == []
    finally:
        cluster._programs.start("kube-controller-manager")
