"""Backups made by Velero's own server, and what is told of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from velero_names import unique

from clusterguard.errors import (
    BackupFailedError,
    ConfigError,
    ConflictError,
    ObjectNotFoundError,
    ResourceNotFoundError,
    VeleroError,
)
from clusterguard.velero.objects import resource_of
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.outcome import Rule
from clusterguard.velero.phases import BackupPhase, SchedulePhase
from clusterguard.velero.resources import Backup
from clusterguard.velero.selectors import LabelSelector

pytestmark = pytest.mark.programs


def test_the_server_tells_its_version_and_plugins(velero):
    velero.require_installed()
    status = velero.status()
    assert status.version.startswith("v1.18.")
    assert status.has("ObjectStore")
    assert len({(plugin.name, plugin.kind) for plugin in status.plugins}) == len(status.plugins)


def test_a_backup_completes_with_every_object(velero, shop):
    seen = []
    velero._progress = seen.append
    backup = velero.back_up(unique("whole"), BackupOptions(included_namespaces=(shop,), ttl=timedelta(hours=2)))
    outcome = velero.outcome(backup)
    outcome.raise_for_findings()
    assert backup.phase == BackupPhase.COMPLETED
    assert backup.expires - datetime.now(UTC) < timedelta(hours=2, minutes=1)
    listed = velero.resource_list(backup)["v1/ConfigMap"]
    assert {f"{shop}/settings-{number}" for number in range(5)} <= set(listed)
    assert seen[-1].finished
    assert (seen[-1].done, seen[-1].total) == (backup.progress.done, backup.progress.total)
    assert sum(moment.finished for moment in seen) == 1


def test_its_files_can_be_read(velero, shop):
    backup = velero.back_up(unique("files"), BackupOptions(included_namespaces=(shop,)))
    assert any("Backed up" in line for line in velero.logs(backup))
    assert velero.results(backup) == {"errors": {}, "warnings": {}}
    assert velero.volume_infos(backup) in ([], None)
    with velero.contents(backup.name) as tarball:
        assert tarball.read(2) == b"\x1f\x8b"
    described = velero.describe(backup)
    assert f"{shop}/settings-0" in described.to_text()
    assert described.to_dict()["verdict"] == "ok"


def test_filters_reach_the_server(velero, shop, api):
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "unlabelled", "namespace": shop}}
    api.apply(extra)
    backup = velero.back_up(
        unique("filtered"),
        BackupOptions(
            included_namespaces=(shop,),
            included_namespace_scoped_resources=("configmaps",),
            excluded_cluster_scoped_resources=("*",),
            or_label_selectors=(LabelSelector.parse("app=web"), LabelSelector.parse("app in (db,cache)")),
        ),
    )
    assert velero.resource_list(backup) == {"v1/ConfigMap": [f"{shop}/settings-{number}" for number in range(5)]}


def test_what_was_asked_for_can_be_read_back(velero, shop):
    asked = BackupOptions(
        included_namespaces=(shop,),
        label_selector=LabelSelector.parse("app=web,tier notin (a,b)"),
        ordered_resources={"configmaps": (f"{shop}/settings-3", f"{shop}/settings-1")},
        labels={"team": "shop"},
        annotations={"why": "test"},
    )
    backup = velero.back_up(unique("asked"), asked)
    assert backup.options.label_selector == asked.label_selector
    assert backup.options.ordered_resources == asked.ordered_resources
    assert backup.labels["team"] == "shop"
    assert backup.annotations["why"] == "test"


def test_a_backup_of_nothing_is_a_finding(velero, shop):
    backup = velero.back_up(
        unique("nothing"),
        BackupOptions(
            included_namespaces=(shop,),
            label_selector=LabelSelector.parse("app=nobody"),
            include_cluster_resources=False,
        ),
    )
    assert backup.phase == BackupPhase.COMPLETED  # as Velero sees it
    outcome = velero.outcome(backup)
    assert [finding.rule for finding in outcome.findings] == [Rule.NOTHING_BACKED_UP]
    with pytest.raises(BackupFailedError, match="nothing-backed-up"):
        outcome.raise_for_findings()


def test_a_taken_name_is_refused(velero, shop):
    name = unique("taken")
    velero.back_up(name, BackupOptions(included_namespaces=(shop,)))
    with pytest.raises(ConflictError) as caught:
        velero.back_up(name, BackupOptions(included_namespaces=(shop,)))
    assert caught.value.fields == {"kind": "Backup", "name": name}
    assert "Completed" in caught.value.message


def test_a_name_taken_in_the_bucket_is_told(velero, shop, api):
    name = unique("in-bucket")
    velero.back_up(name, BackupOptions(included_namespaces=(shop,)))
    api.delete(resource_of(Backup), name, velero.namespace)
    with pytest.raises(BackupFailedError, match="already exists in object storage") as caught:
        velero.back_up(name, BackupOptions(included_namespaces=(shop,)))
    assert caught.value.phase == "Failed"


def test_what_the_server_refuses_is_told(velero, shop):
    with pytest.raises(BackupFailedError, match="does-not-exist") as caught:
        velero.back_up(
            unique("refused"), BackupOptions(included_namespaces=(shop,), volume_snapshot_locations=("does-not-exist",))
        )
    assert caught.value.phase == "FailedValidation"


def test_contradictions_do_not_reach_the_server(velero):
    name = unique("contradiction")
    mixed = BackupOptions(included_resources=("pods",), included_namespace_scoped_resources=("pods",))
    with pytest.raises(ConfigError, match="exclude each other"):
        velero.back_up(name, mixed)
    with pytest.raises(ResourceNotFoundError, match=name):
        velero.backup(name)


@pytest.mark.parametrize("extra", [{"ttll": "3h"}, {"uploaderConfig": {"parallel": 2}}], ids=["field", "inner field"])
def test_a_field_that_velero_does_not_know_is_refused(velero, extra):
    name = unique("unknown-field")
    with pytest.raises(ConfigError) as caught:
        velero.back_up(name, BackupOptions(extra=extra))
    assert caught.value.code == "unknown-field"
    with pytest.raises(ResourceNotFoundError, match=name):
        velero.backup(name)


def test_a_deleted_backup_leaves_the_bucket(velero, shop, s3):
    backup = velero.back_up(unique("deleted"), BackupOptions(included_namespaces=(shop,)))
    restore = velero.restore(backup.name, name=unique("of-deleted"))
    store = s3.store("backups", "main")
    assert list(store.list(f"backups/{backup.name}/"))
    velero.delete_backup(backup.name)
    assert not list(store.list(f"backups/{backup.name}/"))
    with pytest.raises(ResourceNotFoundError):
        velero.backup(backup.name)
    with pytest.raises(ResourceNotFoundError):
        velero.get_restore(restore.name)


def test_a_deletion_that_velero_refuses_is_told(velero, shop):
    backup = velero.back_up(unique("kept"), BackupOptions(included_namespaces=(shop,)))
    velero.locations.set_read_only("default", read_only=True)
    try:
        with pytest.raises(VeleroError, match="read-only mode"):
            velero.delete_backup(backup.name)
        with pytest.raises(ConfigError, match="read-only"):
            velero.back_up(unique("not-made"))
    finally:
        velero.locations.set_read_only("default", read_only=False)
    assert velero.backup(backup.name).phase == BackupPhase.COMPLETED


def test_a_file_that_the_bucket_lost_is_told(velero, shop, s3):
    backup = velero.back_up(unique("lost-log"), BackupOptions(included_namespaces=(shop,)))
    s3.store("backups", "main").delete(f"backups/{backup.name}/{backup.name}-logs.gz")
    with pytest.raises(ObjectNotFoundError) as caught:
        list(velero.logs(backup))
    assert caught.value.fields["status"] == 404
    assert f"log of backup {backup.name}" in caught.value.fields["server"]
    assert "Signature" not in caught.value.message  # the signed URL is a secret


def test_a_backup_in_the_bucket_is_known_at_once(velero, shop, api, s3):
    backup = velero.back_up(unique("adopted"), BackupOptions(included_namespaces=(shop,)))
    api.delete(resource_of(Backup), backup.name, velero.namespace)  # as in a new cluster
    store = s3.store("backups", "main")
    found = velero.adopt(backup.name, store=store)
    assert (found.phase, found.started, found.progress) == (backup.phase, backup.started, backup.progress)
    assert found.labels["velero.io/storage-location"] == "default"
    assert velero.adopt(backup.name, store=store).uid == found.uid
    api.delete(api.resource("ConfigMap"), "settings-2", shop)
    velero.outcome(velero.restore(backup.name)).raise_for_findings()
    with pytest.raises(ObjectNotFoundError):
        velero.adopt("nobody-made-this", store=store)


def test_schedules_are_made_used_and_paused(velero, shop):
    name = unique("daily")
    made = velero.create_schedule(
        name,
        "0 3 * * *",
        BackupOptions(included_namespaces=(shop,), ttl=timedelta(hours=1), labels={"team": "shop"}),
        skip_immediately=True,
    )
    assert made.phase == SchedulePhase.ENABLED
    assert made.options.included_namespaces == (shop,)
    backup = velero.back_up(unique("by-hand"), from_schedule=name)
    assert (backup.schedule, backup.labels["team"]) == (name, "shop")
    restore = velero.restore(schedule=name)
    assert restore.backup_name == backup.name
    assert velero.pause_schedule(name).paused
    assert not velero.unpause_schedule(name).paused
    velero.delete_schedule(name)
    assert name not in {each.name for each in velero.schedules()}


def test_a_schedule_that_velero_refuses_is_told_and_gone(velero):
    name = unique("never")
    with pytest.raises(ConfigError, match="does not accept schedule"):
        velero.create_schedule(name, "every full moon")
    assert name not in {each.name for each in velero.schedules()}
