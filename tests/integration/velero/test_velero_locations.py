"""Locations as Velero's own server sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from velero_names import unique

from clusterguard.errors import ConflictError, LocationUnavailableError, ResourceNotFoundError
from clusterguard.velero.locations import cloud_credentials, secret_name
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.phases import LocationPhase

pytestmark = pytest.mark.programs


@pytest.fixture
def name(velero):
    name = unique("other")
    yield name
    if velero.locations.objects.list(type(velero.locations.get())):
        try:
            velero.locations.delete(name)
        except ResourceNotFoundError:
            return


def test_a_location_is_available_when_it_was_created(velero, location_spec, name, api):
    made = velero.locations.create(name, location_spec(prefix=name))
    assert made.phase == LocationPhase.AVAILABLE
    assert "validationFrequency" not in made.spec
    secret = api.get(api.resource("Secret"), secret_name(name), velero.namespace)
    assert set(secret["data"]) == {"cloud"}
    assert f"Secret {secret_name(name)}" in velero.locations.delete(name)
    with pytest.raises(ResourceNotFoundError):
        api.get(api.resource("Secret"), secret_name(name), velero.namespace)


def test_a_taken_name_is_refused_and_its_credentials_stay(velero, location_spec, api):
    with pytest.raises(ConflictError) as caught:
        velero.locations.create("default", location_spec(credentials=cloud_credentials("other", "keys")))
    assert caught.value.fields == {"kind": "BackupStorageLocation", "name": "default"}
    assert velero.locations.require_available(fresh=True).phase == LocationPhase.AVAILABLE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bucket": "nobody-made-it"}, "NoSuchBucket"),
        ({"credentials": cloud_credentials("wrong", "keys")}, "InvalidAccessKeyId|access key"),
        ({"config": {"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": "http://127.0.0.1:1"}}, "refused"),
    ],
)
def test_a_location_that_cannot_be_used_says_why(velero, location_spec, name, change, reason):
    with pytest.raises(LocationUnavailableError, match=reason):
        velero.locations.create(name, location_spec(prefix=name, **change), timeout_seconds=30)
    with pytest.raises(LocationUnavailableError):
        velero.back_up(unique("not-made"), BackupOptions(storage_location=name))


def test_a_location_is_used_as_soon_as_it_is_put_right(velero, location_spec, name, s3):
    with pytest.raises(LocationUnavailableError):
        velero.locations.create(name, location_spec(prefix=name, bucket="late"))
    s3.create_bucket("late")
    assert velero.locations.require_available(name).phase == LocationPhase.AVAILABLE


def test_somebody_elses_location_is_looked_at_without_touching_its_spec(velero, location_spec, name, s3):
    """Its spec may be deployed by another tool; the server notices that it never looked, as it would believe."""
    made = velero.locations.create(name, location_spec(prefix=name))
    theirs = velero.locations.objects.patch(
        type(made), name, {"metadata": {"labels": {"app.kubernetes.io/managed-by": "flux"}}}
    )
    specs = []
    patch = velero.locations.objects.api.patch
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(
            velero.locations.objects.api,
            "patch",
            lambda *args, **options: specs.append(options["patch"].get("spec")) or patch(*args, **options),
        )
        seen = velero.locations.validate(theirs, timeout_seconds=30)
    assert seen.phase == LocationPhase.AVAILABLE
    assert (specs, seen.spec) == ([None], made.spec)


def test_one_location_is_the_default_one(velero, location_spec, name):
    velero.locations.create(name, replace(location_spec(prefix=name), default=True))
    assert velero.locations.get().name == name
    velero.locations.set_default("default")
    assert [each.name for each in velero.locations.list() if each.default] == ["default"]
    assert velero.locations.get().name == "default"


def test_a_location_goes_with_its_backup_objects_and_the_bucket_stays(velero, location_spec, name, shop, s3):
    velero.locations.create(name, location_spec(prefix=name))
    backup = velero.back_up(unique("there"), BackupOptions(included_namespaces=(shop,), storage_location=name))
    assert f"Backup {backup.name}" in velero.locations.delete(name)
    assert backup.name not in {each.name for each in velero.backups()}
    assert list(s3.store("backups", name).list(f"backups/{backup.name}/"))
