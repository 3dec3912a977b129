"""What the records of a backup say of the data of its volumes, and what the report makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from backup_builder import NAME, NOW, POD_VOLUMES, VOLUMES, BackupBuilder

from clusterguard.errors import ToolchainError
from clusterguard.stores.memory import MemoryStore
from clusterguard.velero.bucket import verify_backup, volumes_in
from clusterguard.velero.repository import classify
from clusterguard.velero.stored_volumes import StoredVolume
from clusterguard.velero.volume_data import DataCheck, check_volume_data, parse_share

BY_FILES = {
    "spec": {
        "uploaderType": "kopia",
        "volume": "data",
        "pod": {"namespace": "shop", "name": "db-0"},
        "tags": {"backup": NAME, "backup-uid": "uid-1", "volume": "data", "pod-uid": "uid-2"},
    },
    "status": {"phase": "Completed", "snapshotID": "1234", "progress": {"totalBytes": 7, "bytesDone": 7}},
}
MOVED = {
    "pvcName": "orders",
    "pvcNamespace": "mail",
    "snapshotDataMoved": True,
    "result": "succeeded",
    "snapshotDataMovementInfo": {"uploaderType": "kopia", "snapshotHandle": "5678", "operationID": "op-1", "size": 9},
}


def with_volumes(*, by_files=(), moved=()):
    builder = BackupBuilder()
    builder.documents[POD_VOLUMES] = list(by_files)
    builder.documents[VOLUMES] = list(moved)
    return builder


def test_both_ways_of_moving_data_into_the_bucket_are_told():
    found = volumes_in(with_volumes(by_files=[BY_FILES], moved=[MOVED]).store(), NAME)
    assert found == [
        StoredVolume(
            name="mail/orders",
            repository="kopia/mail/",
            uploader="kopia",
            snapshot="5678",
            size=9,
            tags={"velero.io/async-operation-id": "op-1"},
        ),
        StoredVolume(
            name="shop/db-0:data",
            repository="kopia/shop/",
            uploader="kopia",
            snapshot="1234",
            size=7,
            tags={"backup-uid": "uid-1", "volume": "data", "pod-uid": "uid-2"},
        ),
    ]


@pytest.mark.parametrize(
    "more",
    [{"skipped": True}, {"result": "failed"}, {"snapshotDataMoved": False}],
)
def test_what_is_not_in_the_bucket_is_no_stored_volume(more):
    failed = {"spec": BY_FILES["spec"], "status": {"phase": "Failed"}}
    assert volumes_in(with_volumes(by_files=[failed], moved=[MOVED | more]).store(), NAME) == []


def test_a_size_that_is_none_is_not_taken_for_one():
    odd = BY_FILES | {"status": BY_FILES["status"] | {"progress": {"totalBytes": "many"}}}
    assert volumes_in(with_volumes(by_files=[odd]).store(), NAME)[0].size is None


def check_of(report):
    return next(check for check in report.checks if check.name == "volume data")


def test_data_that_nobody_asked_for_is_not_called_read():
    repository = {f"kopia/{namespace}/kopia.repository": b"{}" for namespace in ("shop", "mail")}
    store = with_volumes(by_files=[BY_FILES], moved=[MOVED]).store(**repository)
    assert check_of(verify_backup(store, NAME, now=NOW)).ok is None
    assert check_of(verify_backup(with_volumes().store(), NAME, now=NOW)).ok is True


def test_without_its_records_nobody_knows_what_should_be_there():
    builder = with_volumes()
    builder.raw[POD_VOLUMES] = b"no gzip"
    report = verify_backup(builder.store(), NAME, now=NOW, volume_data=DataCheck(program=no_program))
    assert check_of(report).ok is None
    assert not report.ok


def no_program():
    raise ToolchainError("there is no kopia")


def test_the_program_is_asked_for_only_where_there_is_something_to_read():
    check = DataCheck(program=no_program)
    assert verify_backup(with_volumes().store(), NAME, now=NOW, volume_data=check).ok
    store = with_volumes(by_files=[BY_FILES]).store(**{"kopia/shop/kopia.repository": b"{}"})
    with pytest.raises(ToolchainError):
        verify_backup(store, NAME, now=NOW, volume_data=check)


def test_findings_about_data_reach_the_report_with_their_code():
    store = with_volumes(by_files=[BY_FILES]).store()
    report = verify_backup(store, NAME, now=NOW, volume_data=DataCheck(program=no_program))
    found = [each for each in report.findings if each.check == "volume data"]
    assert [(each.subject, each.code) for each in found] == [("kopia/shop/", "volume-repository-missing")]
    assert report.to_dict()["findings"][-1]["code"] == "volume-repository-missing"


def test_data_in_a_format_that_is_not_read_is_never_green():
    old = StoredVolume(name="shop/db-0:data", repository="restic/shop/", uploader="restic", snapshot="1", size=1)
    found = check_volume_data(MemoryStore(), [old], DataCheck(program=no_program))
    assert [code for *_, code in found.flaws] == ["volume-unread"]


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("100%", 1.0), ("all", 1.0), ("0.5%", 0.005)])
def test_a_share_is_a_percentage_or_all(text, share):
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "0%", "101%", "-1%", "5", "nan%", "inf%", "some", "%", "all%"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ValueError, match="share"):
        parse_share(text)


def test_what_nobody_has_seen_yet_is_damage_all_the_same():
    assert classify("the disk is made of cheese") == "volume-unreadable"


def test_the_password_is_in_no_text_of_the_check():
    assert "hunter2" not in repr(DataCheck(program=Path, password="hunter2"))
