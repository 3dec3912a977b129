"""Objects of a snapshot as somebody would have written them: what a server sets is gone, what people set stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from clusterguard.errors import ConfigError, StoredObjectError
from clusterguard.etcd.keyspace import Record
from clusterguard.snapshots.export import export_objects, manifest_of
from clusterguard.snapshots.reader import SnapshotKey, SnapshotObject

if TYPE_CHECKING:
    from pathlib import Path

SERVER = {
    "uid": "u", "resourceVersion": "7", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z",
    "managedFields": [{"manager": "x"}], "finalizers": ["kubernetes.io/pvc-protection"],
}  # fmt: skip


def stored(
    kind: str, name: str = "a", *, api_version: str = "v1", namespace: str = "shop", **fields: Any
) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **SERVER, **fields.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def found(item: dict[str, Any] | None) -> SnapshotObject:
    key = SnapshotKey(
        resource="things", namespace="shop", name="a", revision=1, size=1, etcd_key=b"/a", record=Record(1, 1, 1)
    )
    error = None if item else StoredObjectError("damaged", code="stored-object-damaged")
    return SnapshotObject(key=key, data=item, error=error)


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        (stored("ConfigMap", data={"a": "b"}, metadata={"labels": {"app": "web"}}), {"data": {"a": "b"}}),
        (stored("Namespace", namespace="", spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"}), {}),
        (
            stored("Service", spec={"clusterIP": "10.96.1.2", "clusterIPs": ["10.96.1.2"], "type": "NodePort",
                                    "ports": [{"port": 80, "nodePort": 30080}]}, status={"loadBalancer": {}}),
            {"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}},
        ),
        (stored("Service", spec={"clusterIP": "None", "clusterIPs": ["None"]}),
         {"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
        (stored("PersistentVolumeClaim", spec={"volumeName": "pv1", "storageClassName": "fast"}),
         {"spec": {"storageClassName": "fast"}}),
        (
            stored("PersistentVolume", namespace="",
                   spec={"claimRef": {"name": "c", "namespace": "shop", "uid": "u", "resourceVersion": "3"}}),
            {"spec": {"claimRef": {"name": "c", "namespace": "shop"}}},
        ),
        (
            stored("Job", api_version="batch/v1", spec={
                "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
                "template": {"metadata": {"labels": {"controller-uid": "u", "app": "j"}}}}),
            {"spec": {"template": {"metadata": {"labels": {"app": "j"}}}}},
        ),
        (
            stored("Job", api_version="batch/v1", spec={"manualSelector": True, "selector": {"matchLabels": {"a": "b"}},
                                                        "template": {}}),
            {"spec": {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}, "template": {}}},
        ),
        (
            stored("Pod", spec={"nodeName": "n", "volumes": [{"name": "kube-api-access-x"}, {"name": "data"}],
                                "containers": [{"name": "c", "volumeMounts": [{"name": "kube-api-access-x"}]}]}),
            {"spec": {"volumes": [{"name": "data"}], "containers": [{"name": "c", "volumeMounts": []}]}},
        ),
        (stored("ServiceAccount", secrets=[{"name": "a-token-x"}]), {}),
        (stored("Secret", type="Opaque", data={"a": "Yg=="}), {"type": "Opaque", "data": {"a": "Yg=="}}),
        (stored("Secret", type="kubernetes.io/service-account-token", data={"token": "eA=="}),
         {"type": "kubernetes.io/service-account-token"}),
    ],
)  # fmt: skip
def test_what_a_server_sets_is_gone(item: dict[str, Any], kept: dict[str, Any]) -> None:
    before = yaml.safe_dump(item)
    made = manifest_of(item)
    metadata = made.pop("metadata")
    assert {made.pop("apiVersion"), made.pop("kind")} == {item["apiVersion"], item["kind"]}
    assert made == kept
    assert set(metadata) <= {"name", "namespace", "labels"}
    assert yaml.safe_dump(item) == before  # the object itself is left alone


@pytest.mark.parametrize("kind", ["Namespace", "Job", "Pod", "Service", "PersistentVolumeClaim", "Secret"])
def test_kinds_of_other_groups_are_left_as_they_are(kind: str) -> None:
    item = stored(
        kind, api_version="batch.example.com/v1", spec={"volumeName": "v", "clusterIP": "1"}, secrets=[1], type="a"
    )
    made = manifest_of(item)
    assert (made["spec"], made["secrets"]) == (item["spec"], item["secrets"])


def test_they_apply_in_the_order_of_their_files(tmp_path: Path) -> None:
    items = [
        stored("ValidatingWebhookConfiguration", api_version="admissionregistration.k8s.io/v1", namespace=""),
        stored("Thing", api_version="example.com/v1"),
        stored("Deployment", api_version="apps/v1", spec={}),
        stored("ConfigMap"),
        stored("Namespace", "shop", namespace=""),
        stored("CustomResourceDefinition", "things.example.com", api_version="apiextensions.k8s.io/v1", namespace=""),
    ]
    done = export_objects(map(found, items), tmp_path / "out")
    kinds = [yaml.safe_load(path.read_text())["kind"] for path in sorted((tmp_path / "out").iterdir())]
    assert kinds == [item["kind"] for item in reversed(items)]
    assert done.files == sorted((tmp_path / "out").iterdir())
    assert {path.stat().st_mode & 0o777 for path in done.files} == {0o600}


def test_what_is_not_written_is_told(tmp_path: Path) -> None:
    owner = {"ownerReferences": [{"kind": "Deployment", "name": "web", "uid": "u", "controller": True}]}
    items = [
        stored("Secret", data={"a": "Yg=="}),
        stored("ReplicaSet", api_version="apps/v1", metadata=owner),
        stored("ConfigMap", "kube-root-ca.crt"),
        stored("Event", "e"),
        None,
    ]
    done = export_objects(map(found, items), tmp_path / "out")
    assert (done.files, sum(done.left_out.values()), len(done.unreadable)) == ([], 4, 1)
    done = export_objects(map(found, items[:2]), tmp_path / "all", secrets=True, owned=True)
    assert [yaml.safe_load(path.read_text())["kind"] for path in done.files] == ["Secret", "ReplicaSet"]
    assert "ownerReferences" not in yaml.safe_load(done.files[1].read_text())["metadata"]  # it has another UID by now
    assert len(export_objects([found(items[1])], tmp_path / "one", named=True).files) == 1


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(ConfigError):
        export_objects([], tmp_path)
    with pytest.raises(ConfigError):
        export_objects([], tmp_path / "mine.yaml")
