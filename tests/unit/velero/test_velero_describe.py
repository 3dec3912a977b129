"""A backup or restore in words."""

from clusterguard.velero.describe import describe_backup, describe_restore
from clusterguard.velero.outcome import judge_backup, judge_restore, parse_resource_list
from clusterguard.velero.resources import Backup, Restore


def test_a_backup_is_told_with_its_contents():
    backup = Backup.model_validate(
        {
            "metadata": {"name": "b", "namespace": "velero"},
            "spec": {"includedNamespaces": ["shop"], "storageLocation": "main"},
            "status": {
                "phase": "Completed",
                "startTimestamp": "2026-01-02T03:04:05Z",
                "completionTimestamp": "2026-01-02T03:06:10Z",
                "progress": {"itemsBackedUp": 1200, "totalItems": 1200},
            },
        }
    )
    names = [f"shop/web-{number}" for number in range(25)]
    described = describe_backup(judge_backup(backup), resource_list={"v1/Pod": names})
    text = described.to_text()
    assert text.startswith("Backup b\n")
    assert "2m05s" in text
    assert "1,200 of 1,200" in text
    assert "shop/web-19" in text
    assert "… 5 more" in text
    assert described.to_dict()["contents"]["v1/Pod"] == names
    assert described.to_dict()["verdict"] == "ok"
    assert "findings" not in described.to_dict()


def test_a_restore_is_told_with_what_it_did():
    restore = Restore.model_validate(
        {
            "metadata": {"name": "r"},
            "spec": {"backupName": "b"},
            "status": {"phase": "Completed", "progress": {"itemsRestored": 2, "totalItems": 2}},
        }
    )
    items = parse_resource_list({"v1/ConfigMap": ["shop/a(skipped)", "shop/b(failed)"]})
    described = describe_restore(judge_restore(restore, items=items), volume_infos={"unreadable": "404"})
    assert described.to_dict()["actions"] == {"skipped": 1, "failed": 1}
    assert described.to_dict()["volumes"] == {"unreadable": "404"}
    assert "item-failed: ConfigMap shop/b" in described.to_text()


def test_what_is_unknown_is_left_out():
    assert set(describe_backup(judge_backup(Backup.model_validate({"metadata": {"name": "b"}}))).to_dict()) == {
        "name", "phase", "errors", "warnings", "verdict", "findings",
    }  # fmt: skip
