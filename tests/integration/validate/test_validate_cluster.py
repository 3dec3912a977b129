"""The validator on a real control plane."""

from datetime import UTC, datetime

import pytest

from clusterguard.clusters import KubeClient
from clusterguard.errors import RestoreValidationError, WaitTimeoutError
from clusterguard.model.inventory import ObjectRef, Scope
from clusterguard.model.report import FindingKind
from clusterguard.validate import RestoreValidator, Selection, load_inventory, save_inventory

pytestmark = pytest.mark.programs


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name="web", replicas=3):
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "busybox:1.37"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pod},
    }


def told(report):
    return [(str(finding.kind), f"{finding.ref.kind} {finding.ref.name}") for finding in report.findings]


def test_a_fresh_cluster_holds_nothing_but_what_its_simulator_needs(validator):
    inventory = validator.capture(Scope(exclude=("*.rbac.authorization.k8s.io",)))
    own = [ref for ref in inventory.objects if not ref.namespace.startswith("t-") and not ref.name.startswith("t-")]
    assert own == []
    assert inventory.skipped == {}
    assert inventory.left_out["system namespaces"] > 0


def test_an_untouched_namespace_has_no_findings_even_after_its_file(api, validator, namespace, tmp_path):
    api.apply(deployment(), namespace=namespace)
    api.apply(config_map("settings", color="blue"), namespace=namespace)
    validator.wait_ready(Selection(kind="Deployment", namespace=namespace), timeout_seconds=60)
    save_inventory(validator.capture(Scope(namespaces=(namespace,))), tmp_path / "inventory")
    inventory = load_inventory(tmp_path / "inventory")
    assert {ref.kind for ref in inventory.objects} == {
        "ConfigMap",
        "Deployment",
        "Namespace",
        "Pod",
        "ReplicaSet",
    }
    report = validator.validate(inventory)
    assert report.ok, report.to_text()
    assert report.compared == len(inventory.objects) == 7


def test_deleted_altered_and_new_objects_are_found(api, validator, namespace):
    api.apply(config_map("gone"), namespace=namespace)
    api.apply(config_map("settings", color="blue"), namespace=namespace)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "login"},
        "stringData": {"password": "hunter2"},
    }
    api.apply(secret, namespace=namespace)
    inventory = validator.capture(Scope(namespaces=(namespace,)))
    api.delete(api.resource("ConfigMap"), "gone", namespace)
    api.apply(config_map("settings", color="red"), namespace=namespace)
    api.apply(secret | {"stringData": {"password": "swordfish"}}, namespace=namespace)
    api.apply(config_map("new"), namespace=namespace)
    report = validator.validate(inventory)
    assert told(report) == [
        ("missing", "ConfigMap gone"),
        ("changed", "ConfigMap settings"),
        ("changed", "Secret login"),
    ]
    assert [finding.ref.name for finding in report.tolerated] == ["new"]
    text = report.to_text()
    assert '@@ data.color\n- "blue"\n+ "red"' in text
    assert "sha256:" in text
    assert "aHVudGVy" not in text
    with pytest.raises(RestoreValidationError, match="1 missing, 2 changed"):
        report.raise_for_findings()


def test_an_object_made_again_is_another_one(api, validator, namespace):
    api.apply(config_map("settings", color="blue"), namespace=namespace)
    inventory = validator.capture(Scope(namespaces=(namespace,), kinds=("ConfigMap",)))
    api.delete(api.resource("ConfigMap"), "settings", namespace)
    api.apply(config_map("settings", color="blue"), namespace=namespace)
    strict = validator.validate(inventory)
    assert "metadata.uid" in {change.path for finding in strict.findings for change in finding.changes}
    assert validator.validate(inventory, profile="same-cluster").ok
    by_name = validator.validate(inventory, identity="name")
    assert by_name.ok, by_name.to_text()


def test_replaced_pods_are_missing_after_an_etcd_restore_and_fine_elsewhere(api, validator, namespace):
    api.apply(deployment(), namespace=namespace)
    pods = Selection(kind="Pod", namespace=namespace, selector="app=web")
    validator.wait_ready(pods, count=3, timeout_seconds=60)
    inventory = validator.capture(Scope(namespaces=(namespace,)))
    victim = next(ref.name for ref in inventory.objects if ref.kind == "Pod")
    api.delete(api.resource("Pod"), victim, namespace, grace_seconds=0)
    validator.wait_ready(pods, count=3, timeout_seconds=60)
    assert told(validator.validate(inventory)) == [("missing", f"Pod {victim}")]
    report = validator.validate(inventory, profile="same-cluster")
    assert report.ok, report.to_text()
    assert report.suppressed_by_rule["pod replaced by its controller"] == 1


def test_pods_are_ready_with_fresh_status_and_stay_so(api, validator, namespace):
    api.apply(deployment(), namespace=namespace)
    evidence = validator.wait_ready(
        Selection(kind="Pod", namespace=namespace, selector="app=web"),
        count=3,
        timeout_seconds=90,
        stable_seconds=1,
        fresh_since=datetime.now(UTC),
    )
    assert len(evidence.objects) == 3
    assert evidence.stable_seconds >= 1
    assert [lease.partition("/")[0] for lease in evidence.leases] == ["kube-node-lease"]


def test_a_deployment_that_cannot_get_its_pods_is_named_with_the_reason(api, validator, namespace):
    stuck = deployment("stuck", replicas=1)
    stuck["spec"]["template"]["spec"]["nodeSelector"] = {"example.com/no": "such-node"}
    api.apply(stuck, namespace=namespace)
    with pytest.raises(WaitTimeoutError) as caught:
        validator.wait_ready(Selection(kind="Deployment", namespace=namespace), timeout_seconds=3)
    assert "stuck: 0 of 1 replicas" in caught.value.last_seen
    with pytest.raises(WaitTimeoutError, match=r"Pending: .*nodes are available"):
        validator.wait_ready(Selection(kind="Pod", namespace=namespace), timeout_seconds=3)


def test_custom_resources_are_captured_like_any_other(api, validator, namespace):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    api.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
            },
        }
    )
    definition = Selection(kind="CustomResourceDefinition", names=("widgets.example.com",))
    validator.wait_ready(definition, timeout_seconds=30)
    api.apply(
        {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1}},
        namespace=namespace,
    )
    inventory = validator.capture()
    widget = ObjectRef("Widget", namespace, "w", "example.com")
    assert widget in inventory.objects
    assert ObjectRef("CustomResourceDefinition", "", "widgets.example.com", "apiextensions.k8s.io") in inventory.objects
    api.delete(api.resource("CustomResourceDefinition"), "widgets.example.com")
    api.wait_for(
        api.resource("CustomResourceDefinition"),
        "widgets.example.com",
        until=lambda found: found is None,
        what="the definition to go",
        timeout_seconds=30,
    )
    missing = [finding.ref for finding in validator.validate(inventory).findings if finding.kind is FindingKind.MISSING]
    assert widget in missing


def test_a_kind_we_may_not_list_is_unknown(cluster, api, namespace, tmp_path):
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}
    api.apply(account, namespace=namespace)
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader"}}
    api.apply(role | {"kind": "Role", "rules": rules}, namespace=namespace)
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    api.apply(role | {"kind": "RoleBinding", "subjects": [subject], "roleRef": ref}, namespace=namespace)
    api.apply(config_map("settings"), namespace=namespace)
    with _as_account(cluster, api, namespace, "reader", tmp_path) as reader:
        validator = RestoreValidator(api=reader)
        scope = Scope(namespaces=(namespace,), kinds=("ConfigMap", "Secret"))
        inventory = validator.capture(scope)
        assert list(inventory.skipped) == ["Secret"]
        assert "403 Forbidden" in inventory.skipped["Secret"]
        report = validator.validate(inventory)
        assert {kind for kind, _ in told(report)} == {"unknown"}
        assert not report.ok
        allowed = Scope(namespaces=(namespace,), kinds=("ConfigMap", "Secret"), exclude=("Secret",))
        assert validator.validate(validator.capture(allowed)).ok


def _as_account(cluster, api, namespace, name, folder):
    answer = api.request(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
        body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
    )
    import json

    import yaml

    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": answer.json()["status"]["token"]}
    for entry in config["clusters"]:
        authority = entry["cluster"].get("certificate-authority")
        if authority:
            entry["cluster"]["certificate-authority"] = str(cluster.kubeconfig.parent / authority)
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return KubeClient.from_kubeconfig(path)


def test_lists_in_small_pages_are_whole(api, namespace):
    for number in range(7):
        api.apply(config_map(f"c{number}"), namespace=namespace)
    pages = list(api.list_pages(api.resource("ConfigMap"), namespace, page_size=3))
    assert [len(page.items) for page in pages] == [3, 3, 2]
    assert len({page.resource_version for page in pages}) == 1
