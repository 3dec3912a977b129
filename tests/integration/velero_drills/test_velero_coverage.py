"""Coverage of a cluster with a real Velero: which backups count, and what is right of Velero's own objects."""

import pytest

from clusterguard.coverage.cover import cover
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.velero import BackupOptions, LocationSpec, RestoreOptions

pytestmark = [pytest.mark.programs, pytest.mark.timeout(600)]

RECORDS = ("Backup.velero.io", "Restore.velero.io")
SETTINGS = ("Schedule.velero.io", "BackupStorageLocation.velero.io")


@pytest.fixture(scope="module", autouse=True)
def location(velero, api, toolchain, tmp_path_factory):
    """A namespace to back up, and a bucket for it."""
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    page = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page", "namespace": "shop"}}
    api.apply(page | {"data": {"page": "open"}})
    server = LocalS3Server(program=toolchain.ensure("versitygw")["versitygw"], folder=tmp_path_factory.mktemp("s3"))
    server.create_bucket("backups")
    with server:
        config = {"region": server.region, "s3ForcePathStyle": "true", "s3Url": server.endpoint}
        spec = LocationSpec(bucket="backups", config=config, credentials=server.credentials_file(), default=True)
        velero.locations.create("default", spec)
        yield


@pytest.fixture
def scheduled(velero):
    """Make a schedule and one backup of it; they are gone afterwards."""
    made = []

    def scheduled(name, options=None):
        velero.create_schedule(name, "0 2 * * *", options, skip_immediately=True)
        made.append(velero.back_up(f"{name}-1", from_schedule=name).name)
        return made[-1]

    yield scheduled
    for each in velero.schedules():
        velero.delete_schedule(each.name)
    for name in made:
        velero.delete_backup(name)


def states(table):
    return {each.name: each.state for each in (*table.namespaces, *table.kinds)}


def test_a_backup_of_one_namespace_leaves_veleros_settings_out_and_its_records_need_none(velero, api, scheduled):
    scheduled("shop", BackupOptions(included_namespaces=("shop",)))
    table = cover(api, "context:prod")
    assert [each.name for each in table.sources] == ["schedule shop"]
    found = states(table)
    assert (found["shop"], found["velero"]) == ("protected", "unprotected")
    assert [found[kind] for kind in SETTINGS] == ["unprotected", "unprotected"]
    assert [found[kind] for kind in RECORDS if kind in found] == ["excused"]
    assert {each.name: each.state for each in table.definitions}["schedules.velero.io"] == "excused"


def test_a_backup_of_everything_has_them_and_they_come_back(velero, api, scheduled):
    backup = scheduled("everything")
    found = states(cover(api, "context:prod"))
    assert [found[name] for name in ("shop", "velero", *SETTINGS)] == ["protected"] * 4
    velero.delete_schedule("everything")
    velero.restore(backup, RestoreOptions(included_resources=("schedules.velero.io",)))
    assert velero.schedule("everything").cron == "0 2 * * *"
    found = states(cover(api, "context:prod"))
    assert [found[kind] for kind in RECORDS] == ["excused", "excused"]


def test_a_location_that_is_gone_protects_nothing(velero, api, scheduled):
    scheduled("shop", BackupOptions(included_namespaces=("shop",)))
    locations = api.resource("BackupStorageLocation.velero.io")
    api.patch(locations, "default", "velero", patch={"spec": {"objectStorage": {"bucket": "no-such-bucket"}}})
    try:
        velero.locations.validate(velero.locations.get("default"))
        table = cover(api, "context:prod")
    finally:
        api.patch(locations, "default", "velero", patch={"spec": {"objectStorage": {"bucket": "backups"}}})
        velero.locations.require_available("default", fresh=True)
    assert (table.sources, states(table)["shop"]) == ((), "unprotected")
    assert [each.code for each in table.not_counted] == ["location-unavailable"]
