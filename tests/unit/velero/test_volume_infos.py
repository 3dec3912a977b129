"""What Velero recorded of volumes: `Completed` says nothing about them, so each record is judged."""

import pytest

from clusterguard.velero.findings import DEFAULT_TOLERATED, Rule
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.outcome import judge_backup
from clusterguard.velero.resources import Backup
from clusterguard.velero.volume_infos import data_of, volume_findings, volume_records

CLAIM = {"pvcName": "data", "pvcNamespace": "shop", "pvName": "pv"}
SNAPSHOT = {
    **CLAIM,
    "backupMethod": "CSISnapshot",
    "result": "succeeded",
    "csiSnapshotInfo": {"snapshotHandle": "s-1@node", "driver": "d", "ReadyToUse": True},
}
UNKNOWN = {**SNAPSHOT, "result": ""}
WATCHED = {"snapshotHandle": "s", "ReadyToUse": True, "operationID": "o"}
MOVED = {
    **CLAIM,
    "backupMethod": "CSISnapshot",
    "snapshotDataMoved": True,
    "result": "succeeded",
    "snapshotDataMovementInfo": {"snapshotHandle": "k1", "uploaderType": "kopia", "Phase": "Completed"},
}
UNASKED = "Velero native snapshot: not satisfy the criteria for VolumePolicy or the legacy snapshot way;"
FILES = {**CLAIM, "backupMethod": "PodVolumeBackup", "result": "succeeded", "pvbInfo": {"snapshotHandle": "k2"}}


def found(*records, **options):
    return [each.rule for each in volume_findings(volume_records(list(records)), BackupOptions(**options))]


@pytest.mark.parametrize(
    ("record", "rules"),
    [
        (MOVED, []),
        (FILES, []),
        (SNAPSHOT, [Rule.SNAPSHOT_NOT_MOVED]),
        ({**SNAPSHOT, "csiSnapshotInfo": {"snapshotHandle": ""}}, [Rule.SNAPSHOT_WITHOUT_CONTENT]),
        ({**SNAPSHOT, "csiSnapshotInfo": {"snapshotHandle": "s", "ReadyToUse": False}}, [Rule.SNAPSHOT_NOT_MOVED]),
        ({**UNKNOWN, "csiSnapshotInfo": {"snapshotHandle": "s", "ReadyToUse": False}}, [Rule.SNAPSHOT_WITHOUT_CONTENT]),
        ({**UNKNOWN, "csiSnapshotInfo": {"snapshotHandle": "s"}}, [Rule.SNAPSHOT_WITHOUT_CONTENT]),
        ({**UNKNOWN, "csiSnapshotInfo": {"snapshotHandle": "s", "ReadyToUse": True}}, [Rule.SNAPSHOT_NOT_MOVED]),
        ({**UNKNOWN, "csiSnapshotInfo": WATCHED}, [Rule.SNAPSHOT_WITHOUT_CONTENT]),
        ({**MOVED, "result": ""}, [Rule.SNAPSHOT_WITHOUT_CONTENT]),
        ({**MOVED, "snapshotDataMovementInfo": {"snapshotHandle": ""}}, [Rule.SNAPSHOT_WITHOUT_CONTENT]),
        ({**MOVED, "result": "failed"}, [Rule.VOLUME_FAILED]),
        ({**CLAIM, "skipped": True, "skippedReason": UNASKED}, [Rule.VOLUME_LEFT_OUT]),
        ({**CLAIM, "skipped": True}, [Rule.VOLUME_LEFT_OUT]),
    ],
)
def test_each_record_is_judged_by_what_it_says_of_the_data(record, rules):
    assert found(record) == rules


@pytest.mark.parametrize(
    ("reason", "options", "rule"),
    [
        (UNASKED, {"snapshot_volumes": False}, Rule.LEFT_OUT_BY_FILTER),
        (UNASKED, {"snapshot_volumes": False, "default_volumes_to_fs_backup": True}, Rule.VOLUME_LEFT_OUT),
        ("podvolume: opted out due to annotation in pod web;", {}, Rule.LEFT_OUT_BY_FILTER),
        ("volumeSnapshot: skipped due to resource policy;", {}, Rule.LEFT_OUT_BY_FILTER),
        (f"podvolume: opted out due to annotation in pod web;{UNASKED}", {}, Rule.VOLUME_LEFT_OUT),
    ],
)
def test_what_somebody_decided_is_no_gap(reason, options, rule):
    assert found({**CLAIM, "skipped": True, "skippedReason": reason}, **options) == [rule]


def test_one_record_with_data_is_enough_for_a_volume():
    skipped = {**CLAIM, "skipped": True, "skippedReason": UNASKED}
    assert found(skipped, FILES) == []
    assert found(skipped, FILES, {**skipped, "pvcName": "other"}) == [Rule.VOLUME_LEFT_OUT]


@pytest.mark.parametrize("document", [None, {}, {"unreadable": "x"}, ["x"], [{"csiSnapshotInfo": 3}]])
def test_an_odd_document_is_no_success_of_anything(document):
    assert not any(each.by_snapshot for each in volume_records(document))


def test_a_completed_backup_whose_volume_was_skipped_is_not_fine():
    status = {"phase": "Completed", "progress": {"itemsBackedUp": 1, "totalItems": 1}}
    backup = Backup.model_validate({"metadata": {"name": "b"}, "status": status})
    records = volume_records([{**CLAIM, "skipped": True, "skippedReason": UNASKED}])
    assert not judge_backup(backup, records=records).ok
    told = judge_backup(backup, records=volume_records([SNAPSHOT]))
    assert (told.ok, [each.rule for each in told.tolerated]) == (True, [Rule.SNAPSHOT_NOT_MOVED])
    assert not judge_backup(
        backup, records=volume_records([SNAPSHOT]), tolerate=DEFAULT_TOLERATED - {Rule.SNAPSHOT_NOT_MOVED}
    ).ok


def test_where_the_data_is_goes_by_what_has_some():
    other = {**FILES, "pvcNamespace": "bank", "pvcName": "files"}
    skipped = {**CLAIM, "pvcName": "skipped", "skipped": True}
    found = data_of(volume_records([MOVED, {**SNAPSHOT, "pvcName": "stays"}, other, skipped]))
    assert found == {
        "repositories": ("bank", "shop"),
        "files": True,
        "snapshots": ("shop/stays",),
        "moved": ("shop/data",),
    }
    assert data_of(volume_records([skipped])) == {"repositories": (), "files": False, "snapshots": (), "moved": ()}
