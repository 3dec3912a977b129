"""Backups that Velero's own server made, verified in a real S3 bucket."""

from datetime import UTC, datetime, timedelta

import pytest
from real_backup import NAMESPACE

from clusterguard.errors import ConfigError, ObjectNotFoundError
from clusterguard.model.inventory import Scope
from clusterguard.stores.base import ObjectStore
from clusterguard.stores.local import LocalStore
from clusterguard.stores.memory import MemoryStore
from clusterguard.stores.transfer import copy_object
from clusterguard.validate.capture import rule_leaving_out
from clusterguard.validate.rules import ETCD_RESTORE
from clusterguard.validate.validator import Tolerance, judge
from clusterguard.velero.bucket import as_inventory, verify_backup
from clusterguard.velero.bucket_report import BucketPolicy
from clusterguard.velero.layout import MANDATORY, BackupFile, BackupLayout
from clusterguard.velero.manifest import load_manifest, record_manifest

# Another server of Velero's on this machine is waited for.
pytestmark = [pytest.mark.programs, pytest.mark.timeout(1500)]

NO_DATA = BucketPolicy(volumes_without_data=(f"{NAMESPACE}/orders",))


def verify(store, name, **options):
    return verify_backup(store, name, now=datetime.now(UTC), **options)


def failed(report):
    return [check.name for check in report.checks if check.ok is False]


def rules(report):
    return [(one.rule, one.subject) for one in report.explained]


def left_out_of(scope):
    return lambda ref, item: rule_leaving_out(ref, item, scope)


def judged(before, after):
    # The very same objects: nothing but a status may have moved on between the capture and the backup.
    return judge(before, after, profile=ETCD_RESTORE, tolerate=Tolerance(extra=0), digest_key=b"key")


def test_a_backup_of_a_namespace_is_intact_and_holds_all_that_was_captured(real):
    report = verify(real.store, "shop", policy=NO_DATA, inventory=real.shop)
    assert report.ok, report.to_text()
    assert report.objects == real.statuses["shop"]["progress"]["itemsBackedUp"] > 50
    assert sorted(rules(report)) == [
        ("excluded by label", "ConfigMap shop/left-out"),
        ("unbound claim", "shop/waiting"),
        ("volume without data", "shop/orders"),
    ]


def test_a_completed_backup_whose_volume_would_come_back_empty_is_found(real):
    # Without a snapshotter Velero skips the data and says Completed, without any warning.
    for name in ("shop", "files"):
        assert real.statuses[name]["phase"] == "Completed"
        assert "warnings" not in real.statuses[name]
        report = verify(real.store, name)
        assert failed(report) == ["volumes"]
        assert "shop/orders: its data was skipped, so it will be restored empty" in report.to_text()


def test_the_backup_as_an_inventory_is_the_capture_byte_for_byte(real):
    scope = Scope(namespaces=(NAMESPACE,))
    backed_up = as_inventory(real.store, "shop", scope, leave_out=left_out_of(scope))
    report = judged(real.shop, backed_up)
    told = [(str(finding.kind), str(finding.ref)) for finding in report.findings]
    assert told == [("missing", "ConfigMap shop/left-out")], report.to_text()
    assert backed_up.server_version == real.shop.server_version
    same = [ref for ref in backed_up.objects if backed_up.objects[ref] == real.shop.objects[ref]]
    assert len(same) >= len(backed_up) - 5  # a status may have moved on


def test_without_filters_velero_leaves_out_cluster_scoped_objects_that_nothing_refers_to(real):
    report = verify(real.store, "everything", policy=NO_DATA, inventory=real.everything)
    assert failed(report) == ["inventory"]
    missing = {one.subject for one in report.findings}
    assert "PriorityClass.scheduling.k8s.io shop-first" in missing
    assert all(subject.split()[0].count(".") for subject in missing)  # none of the core group, and none namespaced


def test_all_kinds_asked_for_by_name_are_all_there(real):
    report = verify(real.store, "all-kinds", policy=NO_DATA, inventory=real.everything)
    assert report.ok, report.to_text()
    backed_up = as_inventory(real.store, "all-kinds", Scope(), leave_out=left_out_of(Scope()))
    found = [str(one.ref) for one in judged(real.everything, backed_up).findings if str(one.kind) != "extra"]
    assert found == ["ConfigMap shop/left-out"]


def test_a_backup_of_a_namespace_that_is_not_there_is_found(real):
    report = verify(real.store, "nothing")
    assert failed(report) == ["phase", "object count", "errors and warnings"]
    assert "fail to get the namespace no-such-namespace" in report.to_text()


def test_an_expired_backup_is_found(real):
    report = verify_backup(real.store, "shop", now=datetime.now(UTC) + timedelta(days=11), policy=NO_DATA)
    assert failed(report) == ["expiration"]


def test_no_byte_of_a_real_backup_can_be_changed_unseen_once_its_manifest_is_recorded(real, tmp_path):
    vault, copy = LocalStore(tmp_path / "vault"), copied(real.store, "shop")
    record_manifest(real.store, "shop", into=vault, now=datetime.now(UTC))
    manifest = load_manifest(vault, "shop")
    assert verify(copy, "shop", policy=NO_DATA, manifest=manifest).ok
    for one in list(copy.list()):
        whole = read(copy, one.key)
        for place in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            write(copy, one.key, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            report = verify(copy, "shop", policy=NO_DATA, manifest=manifest)
            assert one.key in [found.subject for found in report.findings if found.check == "digest manifest"]
        write(copy, one.key, whole)
    assert verify(copy, "shop", policy=NO_DATA, manifest=manifest).ok


@pytest.mark.parametrize("file", [*MANDATORY, BackupFile.LOG], ids=lambda file: file.name)
def test_a_real_backup_without_one_of_its_files_is_found(real, file):
    copy = copied(real.store, "shop")
    copy.delete(BackupLayout("shop").key(file))
    report = verify(copy, "shop", policy=NO_DATA)
    assert report.ok == (file is BackupFile.LOG)


def test_a_real_tarball_cut_off_anywhere_is_found(real):
    copy, key = copied(real.store, "shop"), BackupLayout("shop").key(BackupFile.CONTENTS)
    whole = read(copy, key)
    for end in range(0, len(whole), 97):
        write(copy, key, whole[:end])
        assert "tarball" in failed(verify(copy, "shop", policy=NO_DATA))


def test_a_backup_that_is_not_there_and_a_wrong_prefix_are_clear_errors(real):
    with pytest.raises(ObjectNotFoundError, match="no backup 'other'") as error:
        verify(real.store, "other")
    assert "shop" in error.value.hint


def test_manifests_do_not_go_under_veleros_prefix(real):
    with pytest.raises(ConfigError) as caught:
        record_manifest(real.store, "shop", into=real.store, now=datetime.now(UTC))
    assert caught.value.code == "inside-velero-location"


def copied(store: ObjectStore, name) -> MemoryStore:
    copy = MemoryStore()
    for one in store.list(BackupLayout(name).folder):
        copy_object(store, one.key, copy)
    return copy


def read(store, key):
    with store.get(key) as stream:
        return stream.read()


def write(store, key, data):
    with store.put(key, overwrite=True) as writer:
        writer.write(data)
