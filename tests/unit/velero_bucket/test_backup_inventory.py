"""A backup as an inventory: what the validator compares with the cluster."""

import json

import pytest
from backup_builder import METADATA, NAME, BackupBuilder, put, thing, usual_objects

from clusterguard.errors import BackupCorruptError, ConfigError, ObjectNotFoundError
from clusterguard.model.inventory import ObjectRef, Scope, canonical
from clusterguard.model.report import FindingKind
from clusterguard.stores.memory import MemoryStore
from clusterguard.validate.capture import rule_leaving_out
from clusterguard.validate.rules import ETCD_RESTORE
from clusterguard.validate.validator import Tolerance, judge
from clusterguard.velero.bucket import as_inventory, backups_in, namespaces_in_backup


def names(inventory):
    return sorted(f"{ref.kind} {ref.name}" for ref in inventory.objects)


EVERYTHING = Scope()


def inventory(scope=EVERYTHING, builder=None, **options):
    return as_inventory((builder or BackupBuilder()).store(), NAME, scope, **options)


def judged(before, after):
    return judge(before, after, profile=ETCD_RESTORE, tolerate=Tolerance(), digest_key=b"key")


def test_it_tells_when_and_of_which_cluster_the_backup_was_made():
    found = inventory()
    assert found.taken.isoformat() == "2030-01-01T00:00:00+00:00"
    assert found.server_version == "v1.36.3"
    assert len(found) == 7


def test_objects_are_kept_as_a_capture_keeps_them():
    items = [json.loads(json.dumps(item)) for _, item in usual_objects()]
    assert dict(inventory().objects) == {ObjectRef.of(item): canonical(item) for item in items}


def test_a_backup_is_judged_like_a_cluster():
    before = inventory()
    assert judged(before, inventory()).ok
    objects = [each for each in usual_objects() if each[0] != "secrets"]
    objects[1][1]["data"]["color"] = "red"
    report = judged(before, inventory(builder=BackupBuilder(objects)))
    assert [(finding.kind, finding.ref.name) for finding in report.findings] == [
        (FindingKind.CHANGED, "settings"),
        (FindingKind.MISSING, "login"),
    ]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (
            Scope(namespaces=("shop",)),
            ["ConfigMap settings", "Deployment web", "Mouse jerry", "Namespace shop", "Secret login"],
        ),
        (Scope(namespaces=("s*",), kinds=("Secret",)), ["Secret login"]),
        (Scope(namespaces=("other",)), []),
        (Scope(kinds=("Deployment", "Mouse.example.com")), ["Deployment web", "Mouse jerry"]),
        (Scope(kinds=("Mouse.example.org",)), []),
        (Scope(namespaces=("shop",), kinds=("ClusterRole.rbac.authorization.k8s.io",)), ["ClusterRole a:b"]),
        (
            Scope(exclude=("*.k8s.io", "Secret", "Deployment.apps")),
            ["ConfigMap settings", "Mouse jerry", "Namespace shop"],
        ),
    ],
)
def test_only_the_scope_is_in_it(scope, expected):
    assert names(inventory(scope)) == expected


def test_a_glob_means_no_system_namespace_as_in_a_capture():
    builder = BackupBuilder([*usual_objects(), ("configmaps", thing("ConfigMap", "coredns", "kube-system"))])
    assert "ConfigMap coredns" not in names(inventory(Scope(namespaces=("*",)), builder))
    assert names(inventory(Scope(namespaces=("kube-*", "kube-system")), builder)) == ["ConfigMap coredns"]


def test_the_backups_of_a_bucket_are_those_with_a_document():
    store, unfinished = BackupBuilder().store(), "backups/unfinished/unfinished-logs.gz"
    for name in ("weekly", "other"):
        document = BackupBuilder().metadata
        document["metadata"]["name"] = name
        put(store, f"backups/{name}/velero-backup.json", json.dumps(document).encode())
    put(store, unfinished, b"")
    put(store, "restores/velero-backup.json", b"")
    assert sorted(each.name for each in backups_in(store)) == [NAME, "other", "weekly"]
    assert [each.name for each in backups_in(store, "weekly")] == ["weekly"]
    assert list(backups_in(store, "unfinished")) == list(backups_in(store, "nowhere")) == []
    put(store, "backups/odd/velero-backup.json", b"{")
    with pytest.raises(BackupCorruptError, match=r"backups/odd/velero-backup\.json"):
        backups_in(store)


def test_the_namespaces_of_a_backup_are_those_that_it_has_anything_of():
    terminating = ("configmaps", thing("ConfigMap", "left", "without-itself"))
    store = BackupBuilder([*usual_objects(), terminating, ("namespaces", thing("Namespace", "bare", ""))]).store()
    assert sorted(namespaces_in_backup(store, NAME)) == ["bare", "shop", "without-itself"]
    with pytest.raises(ObjectNotFoundError):
        namespaces_in_backup(store, "other")


def test_what_is_left_out_is_counted_by_its_rule():
    found = inventory(leave_out=lambda ref, item: "a rule" if item.get("data") else None)
    assert found.left_out == {"a rule": 2}
    assert len(found) == 5


def test_who_wrote_to_an_object_decides_whether_it_is_left_out():
    bootstrap = {
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    }
    roles = []
    for name, writers in (("edit", ("kube-apiserver", "somebody")), ("view", ("kube-apiserver",))):
        role = thing("ClusterRole", name, "", "rbac.authorization.k8s.io/v1")
        fields = {"operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:rules": {}}}
        role["metadata"] |= {**bootstrap, "managedFields": [{"manager": each, **fields} for each in writers]}
        roles.append(("clusterroles.rbac.authorization.k8s.io", role))
    found = inventory(builder=BackupBuilder(roles), leave_out=lambda ref, item: rule_leaving_out(ref, item, EVERYTHING))
    assert names(found) == ["ClusterRole edit"]
    assert found.left_out == {"bootstrap roles": 1}
    assert b"managedFields" not in next(iter(found.objects.values()))


def test_who_wrote_a_status_is_kept_where_it_may_be_a_field_like_any_other():
    objects = [
        ("mice.example.com", thing("Mouse", "jerry", api_version="example.com/v1", status={"caught": False})),
        ("pods", thing("Pod", "web", status={}, spec={})),
        ("deployments.apps", thing("Deployment", "web", api_version="apps/v1", status={})),
    ]
    kept = {ref.kind for ref, data in inventory(builder=BackupBuilder(objects)).objects.items() if b"managedF" in data}
    assert kept == {"Mouse", "Pod"}  # of pods without a controller always


def test_kinds_that_are_named_are_not_left_out():
    builder = BackupBuilder([("events", thing("Event", "started")), ("nodes", thing("Node", "one", ""))])
    for scope, expected in ((EVERYTHING, []), (Scope(kinds=("Event", "Node")), ["Event started", "Node one"])):
        rule = lambda ref, item, scope=scope: rule_leaving_out(ref, item, scope)  # noqa: E731
        assert names(inventory(scope, builder, leave_out=rule)) == expected


def test_a_selector_is_not_passed_over_in_silence():
    with pytest.raises(ConfigError, match="selector 'app=web'"):
        inventory(Scope(selector="app=web"))
    assert names(inventory(Scope(selector="x"), leave_out=lambda ref, item: None if ref.kind == "Mouse" else "x")) == [
        "Mouse jerry"
    ]


def test_what_is_missing_or_damaged_is_an_error():
    with pytest.raises(ObjectNotFoundError):
        as_inventory(MemoryStore(), NAME, Scope())
    builder = BackupBuilder()
    builder.raw[METADATA] = b"{}"
    with pytest.raises(BackupCorruptError):
        inventory(builder=builder)
    builder = BackupBuilder([*usual_objects(), ("pods", thing("Service", "odd"))])
    with pytest.raises(BackupCorruptError):
        inventory(builder=builder)
    builder = BackupBuilder()
    builder.status["startTimestamp"] = None
    with pytest.raises(BackupCorruptError) as caught:
        inventory(builder=builder)
    assert caught.value.fields == {"key": METADATA, "defect": "no-start"}
