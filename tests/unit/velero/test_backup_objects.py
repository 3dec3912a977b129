"""Velero's objects as typed views: nothing of a manifest is lost, and nothing unknown counts as good."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.velero import resources as model
from clusterguard.velero.objects import KINDS, definition_of, resource_of
from clusterguard.velero.phases import BackupPhase, LocationPhase, RestorePhase, TransferPhase
from clusterguard.velero.resources import (
    Backup,
    BackupStorageLocation,
    DownloadKind,
    PodVolumeBackup,
    Restore,
    Schedule,
    ServerPlugin,
    ServerStatusRequest,
    VeleroObject,
    valid_label,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MANIFESTS = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({"name": st.text(max_size=5)}, optional={"labels": st.none() | JSON}),
        "spec": st.none() | st.dictionaries(st.text(max_size=5), JSON, max_size=3),
        "status": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "phase": st.none() | st.text(max_size=5) | st.sampled_from(list(BackupPhase)),
                "progress": JSON,
                "errors": st.none() | st.integers(),
                "startTimestamp": st.none() | st.text(max_size=5) | st.just("2026-01-02T03:04:05Z"),
            },
        ),
        "fromTheFuture": JSON,
    },
)


@pytest.mark.parametrize("phases", [BackupPhase, RestorePhase, TransferPhase, LocationPhase])
@given(name=st.text(max_size=20))
def test_an_unknown_phase_is_kept_and_means_nothing(phases, name):
    phase = phases(name)
    assert phase == name
    assert str(phase) == name
    if name not in list(phases):
        assert not phase.listed
        assert not getattr(phase, "final", False)
        assert not getattr(phase, "succeeded", False)


@pytest.mark.parametrize("phases", [BackupPhase, RestorePhase])
def test_only_completed_is_success_and_four_phases_are_final(phases):
    assert [phase.value for phase in phases if phase.succeeded] == ["Completed"]
    assert {phase.value for phase in phases if phase.final} == {
        "Completed",
        "PartiallyFailed",
        "Failed",
        "FailedValidation",
    }


def test_a_phase_of_1_18_is_not_final():
    assert not BackupPhase.QUEUED.final
    assert not BackupPhase.READY_TO_START.final
    assert BackupPhase.PARTIALLY_FAILED.has_contents
    assert not BackupPhase.FAILED.has_contents


@pytest.mark.parametrize("kind", KINDS)
@given(manifest=MANIFESTS)
def test_every_view_of_every_manifest_can_be_looked_at_and_loses_nothing(kind, manifest):
    view = kind.model_validate(manifest)
    properties = [name for name in dir(kind) if isinstance(getattr(kind, name), property)]
    for name in properties:
        if name != "options" and not name.startswith(("_", "model_")):
            getattr(view, name)
    assert view.manifest is manifest
    assert str(view).startswith(kind.kind)


def test_every_class_has_its_definition():
    assert len(KINDS) == 13
    assert {definition_of(kind) for kind in KINDS} >= {"backups.velero.io", "backuprepositories.velero.io"}
    concrete = {each for each in vars(model).values() if isinstance(each, type) and issubclass(each, VeleroObject)}
    assert concrete - {VeleroObject, model.VolumeTransfer, model._Run} == set(KINDS)


def test_paths_are_those_of_the_api():
    assert resource_of(Backup).path("velero", "x") == "/apis/velero.io/v1/namespaces/velero/backups/x"
    assert resource_of(model.DataUpload).path("velero") == "/apis/velero.io/v2alpha1/namespaces/velero/datauploads"


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_beside_the_status_does_not_stand_for_it(kind):
    forged = kind.model_validate({"phase": "Completed", "name": "x", "errors": 3, "manifest": {"status": {}}})
    assert forged == kind.model_validate(forged.manifest)
    assert (forged.name, forged.status) == ("", {})
    assert getattr(forged, "phase", "New") == "New"


def test_a_new_object_has_a_name_or_the_beginning_of_one():
    named = Backup.new(namespace="velero", name="x", spec={"a": 1}, labels={"b": "c"})
    assert named.manifest == {
        "apiVersion": "velero.io/v1",
        "kind": "Backup",
        "metadata": {"namespace": "velero", "name": "x", "labels": {"b": "c"}},
        "spec": {"a": 1},
    }
    assert Backup.new(namespace="velero", generate_name="x-").metadata["generateName"] == "x-"
    assert named.phase == BackupPhase.NEW
    assert repr(named) == "<Backup x>"


def test_a_backup_tells_what_its_status_says():
    backup = Backup.model_validate(
        {
            "metadata": {"name": "x", "labels": {"velero.io/schedule-name": "daily"}},
            "spec": {"storageLocation": "main", "includedNamespaces": ["shop"]},
            "status": {
                "phase": "PartiallyFailed",
                "progress": {"itemsBackedUp": 3, "totalItems": 5},
                "expiration": "2026-01-02T03:04:05+01:00",
                "hookStatus": {"hooksAttempted": 2, "hooksFailed": 1},
                "errors": 2,
            },
        }
    )
    assert (backup.storage_location, backup.schedule, backup.errors, backup.warnings) == ("main", "daily", 2, 0)
    assert (backup.progress.done, backup.progress.total) == (3, 5)
    assert backup.expires == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert (backup.hooks_attempted, backup.hooks_failed) == (2, 1)
    assert backup.options.included_namespaces == ("shop",)
    assert str(backup) == "Backup x (PartiallyFailed)"


def test_a_schedule_gives_the_options_of_its_backups():
    template = {"includedNamespaces": ["shop"], "metadata": {"labels": {"team": "shop"}}}
    schedule = Schedule.model_validate({"metadata": {"labels": {"other": "x"}}, "spec": {"template": template}})
    assert schedule.options.labels == {"team": "shop"}
    assert schedule.options.included_namespaces == ("shop",)


def test_locations_and_volumes_tell_what_they_are():
    location = BackupStorageLocation.model_validate(
        {"spec": {"objectStorage": {"bucket": "b", "prefix": "/a/"}, "credential": {"name": "s", "key": "k"}}}
    )
    assert (location.bucket, location.prefix, location.credential) == ("b", "a", ("s", "k"))
    assert location.phase == LocationPhase.NEW
    pod = {"namespace": "shop", "name": "db"}
    volume = PodVolumeBackup.model_validate(
        {"spec": {"pod": pod, "volume": "data"}, "status": {"phase": "Failed", "message": "no"}}
    )
    assert (volume.volume, volume.message) == ("shop/db:data", "no")


def test_a_plugin_told_twice_is_one():
    entry = {"name": "velero.io/aws", "kind": "ObjectStore"}
    answer = ServerStatusRequest.model_validate({"status": {"plugins": [entry, entry]}})
    assert answer.plugins == (ServerPlugin("velero.io/aws", "ObjectStore"),)


def test_download_kinds_have_words():
    assert (DownloadKind.RESTORE_RESOURCE_LIST.what, DownloadKind.RESTORE_LOG.of_restore) == ("resource list", True)
    assert (DownloadKind.BACKUP_LOG.what, DownloadKind.BACKUP_LOG.of_restore) == ("log", False)


def test_long_names_become_labels_as_velero_makes_them():
    assert valid_label("x" * 63) == "x" * 63
    # sha256 of 64 times "x" begins with 7ce100.
    assert valid_label("x" * 64) == "x" * 57 + "7ce100"


def test_a_restore_from_a_schedule_has_no_backup_at_first():
    assert Restore.model_validate({"spec": {"scheduleName": "daily"}}).backup_name == ""


def test_importing_the_client_loads_no_sdk():
    heavy = {"kubernetes", "urllib3", "requests", "boto3", "typer"}
    code = f"import sys, clusterguard.velero.client, clusterguard.velero; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
