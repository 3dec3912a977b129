"""A backup from a bucket becomes an object of this cluster as Velero's own sync would make it."""

import gzip
import json

import pytest

from clusterguard.errors import ObjectNotFoundError, VeleroError
from clusterguard.stores.memory import MemoryStore
from clusterguard.velero.adoption import adopted, read_documents, to_volume_backup
from clusterguard.velero.resources import Backup


def document(phase="Completed", **metadata):
    return {
        "apiVersion": "velero.io/v1",
        "kind": "Backup",
        "metadata": {
            "name": "b",
            "namespace": "elsewhere",
            "uid": "old",
            "resourceVersion": "7",
            "managedFields": [{}],
            "labels": {"team": "shop", "velero.io/storage-location": "old"},
            "annotations": {"velero.io/resource-timeout": "10m0s"},
            **metadata,
        },
        "spec": {"storageLocation": "old", "ttl": "1h0m0s", "hooks": {"resources": [{"name": "freeze"}]}},
        "status": {"phase": phase, "progress": {"itemsBackedUp": 3, "totalItems": 3}, "fromTheFuture": 1},
    }


def adopt(source):
    return adopted(source, name="b", namespace="velero", location="main")


def test_it_gets_the_names_of_this_cluster_and_keeps_its_status():
    backup = adopt(document())
    assert backup.metadata == {
        "name": "b",
        "namespace": "velero",
        "labels": {"team": "shop", "velero.io/storage-location": "main"},
        "annotations": {"velero.io/resource-timeout": "10m0s"},
    }
    assert backup.spec == {"storageLocation": "main", "ttl": "1h0m0s"}  # hooks are for making one, not for having one
    assert backup.status == document()["status"]


@pytest.mark.parametrize("phase", ["Completed", "PartiallyFailed", "Failed"])
def test_final_phases_are_adopted(phase):
    assert adopt(document(phase)).phase == phase


@pytest.mark.parametrize("phase", ["", "New", "Queued", "InProgress", "Finalizing", "Deleting", "Shining"])
def test_other_phases_are_refused(phase):
    # A Backup object that looks new is run by the server as if somebody had asked for it.
    with pytest.raises(VeleroError) as refused:
        adopt(document(phase))
    assert refused.value.code == "backup-unfinished"


@pytest.mark.parametrize(("version", "understood"), [("1.1.0", True), ("1.9.0", True), ("", True), ("2.0.0", False)])
def test_a_future_format_is_refused(version, understood):
    source = document()
    source["status"]["formatVersion"] = version
    if understood:
        assert adopt(source).phase == "Completed"
    else:
        with pytest.raises(VeleroError, match=r"2\.0\.0") as refused:
            adopt(source)
        assert refused.value.code == "backup-format"


@pytest.mark.parametrize("source", [[], None, {"kind": "Restore"}])
def test_what_is_no_backup_is_refused(source):
    with pytest.raises(VeleroError) as refused:
        adopt(source)
    assert refused.value.code == "not-a-backup"


def test_a_renamed_folder_is_noticed():
    with pytest.raises(VeleroError, match="'other'") as refused:
        adopt(document(name="other"))
    assert refused.value.code == "not-a-backup"


def test_volume_backups_belong_to_the_new_object():
    source = {
        "metadata": {
            "name": "v",
            "namespace": "elsewhere",
            "resourceVersion": "9",
            "labels": {"velero.io/backup-uid": "old", "velero.io/backup-name": "b"},
            "ownerReferences": [
                {"kind": "Backup", "name": "b", "uid": "old"},
                {"kind": "Backup", "name": "c", "uid": "x"},
            ],
        },
        "spec": {"backupStorageLocation": "old", "volume": "data"},
    }
    backup = Backup.model_validate({"metadata": {"name": "b", "namespace": "velero", "uid": "new"}})
    made = to_volume_backup(source, backup=backup, location="main")
    assert made.metadata["labels"]["velero.io/backup-uid"] == "new"
    assert [owner["uid"] for owner in made.metadata["ownerReferences"]] == ["new", "x"]
    assert made.spec == {"backupStorageLocation": "main", "volume": "data"}
    assert "resourceVersion" not in made.metadata
    # In the bucket they are items of a list, which do not say what they are.
    assert (made.manifest["apiVersion"], made.manifest["kind"]) == ("velero.io/v1", "PodVolumeBackup")


# ---- reading the bucket ----------------------------------------------------------------------------------

BACKUP, VOLUMES = "backups/b/velero-backup.json", "backups/b/b-podvolumebackups.json.gz"


def store(**files):
    filled = MemoryStore()
    for key, data in files.items():
        with filled.put({"backup": BACKUP, "volumes": VOLUMES}[key]) as writer:
            writer.write(data)
    return filled


def test_documents_are_read_and_unpacked():
    filled = store(backup=json.dumps(document()).encode(), volumes=gzip.compress(b'[{"a": 1}]'))
    assert read_documents(filled, "b") == (document(), [{"a": 1}])


def test_a_backup_may_have_no_volumes():
    assert read_documents(store(backup=b"{}"), "b") == ({}, ())
    assert read_documents(store(backup=b"{}", volumes=gzip.compress(b"null")), "b") == ({}, ())


def test_a_backup_that_is_not_there_is_told():
    with pytest.raises(ObjectNotFoundError):
        read_documents(MemoryStore(), "b")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"backup": b"{"}, "JSON"),
        ({"backup": b"{}", "volumes": b"no gzip"}, "damaged"),
        ({"backup": b"{}", "volumes": gzip.compress(b"[1, 2, 3]")[:-9]}, "cut off"),
        ({"backup": b"{}", "volumes": gzip.compress(b"[")}, "JSON"),
        ({"backup": b"{}", "volumes": gzip.compress(bytes(65 << 20))}, "more than"),
        ({"backup": b" " * (65 << 20)}, "more than"),
    ],
)
def test_damaged_and_absurd_documents_are_refused(files, problem):
    with pytest.raises(VeleroError, match=problem):
        read_documents(store(**files), "b")
