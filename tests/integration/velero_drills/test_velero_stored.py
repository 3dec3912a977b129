"""Backups that Velero made before any drill: proven in place and in a new cluster, and left as they are."""

from __future__ import annotations

import configparser
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drill
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.drills.steps.registry import verbs
from clusterguard.errors import BackupFailedError
from clusterguard.stores.transfer import copy_object
from clusterguard.velero import BackupOptions, LocationSpec
from clusterguard.velero.objects import resource_of
from clusterguard.velero.resources import Backup, BackupStorageLocation, Restore

# The machine has one Velero server; waiting for other users of it takes longer than any test.
pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]

MANIFEST = Path(__file__).parents[3] / "drills/manifests/shop.yaml"
BUCKET, PREFIX = "company", "velero"
OPTIONS = BackupOptions(included_namespaces=("shop",))


@pytest.fixture(scope="module")
def s3(toolchain, tmp_path_factory):
    program = toolchain.ensure("versitygw")["versitygw"]
    server = LocalS3Server(program=program, folder=tmp_path_factory.mktemp("s3"))
    server.create_bucket(BUCKET)
    with server:
        yield server


@pytest.fixture(autouse=True)
def credentials(s3, monkeypatch):
    """Give the credentials of the bucket to whoever looks for them in the environment, as an operator would."""
    parsed = configparser.ConfigParser()
    parsed.read_string(s3.credentials_file())
    for key in ("aws_access_key_id", "aws_secret_access_key"):
        monkeypatch.setenv(key.upper(), parsed["default"][key])


@pytest.fixture(scope="module")
def nightly(velero, api, s3):
    """A shop that a schedule backed up last night into the cluster's default location, and that was changed since."""
    config = {"region": s3.region, "s3ForcePathStyle": "true", "s3Url": s3.endpoint}
    spec = LocationSpec(bucket=BUCKET, prefix=PREFIX, config=config, credentials=s3.credentials_file(), default=True)
    velero.locations.create("default", spec)
    for document in yaml.safe_load_all(MANIFEST.read_text()):
        api.apply(document)
    ready(api)
    velero.create_schedule("nightly", "0 3 * * *", OPTIONS, paused=True)
    velero.create_schedule("weekly", "0 3 * * 0", OPTIONS, paused=True)
    velero.back_up("nightly-1", from_schedule="nightly")
    velero.back_up("velero-1", BackupOptions(included_namespaces=("velero",)))
    page = {"data": {"index.html": "changed after the backup"}}
    api.patch(api.resource("ConfigMap"), "web", "shop", patch=page)
    return "nightly-1"


def ready(api):
    def is_ready(seen):
        return seen is not None and (seen.get("status") or {}).get("readyReplicas") == 3

    api.wait_for(
        api.resource("Deployment"), "web", "shop", until=is_ready, what="the shop is ready", timeout_seconds=60
    )


@pytest.fixture
def drill(tmp_path, s3):
    def drill(stored, *, fault=True, restore=None, **spec):
        lose = [{"delete": {"kind": "Namespace", "name": "shop"}, "timeout": "2m"}]
        document = {
            "apiVersion": "clusterguard.dev/v1alpha1",
            "kind": "Drill",
            "metadata": {"name": "stored"},
            "spec": {
                "storage": {"company": bucket_of(s3, PREFIX)},
                "scope": {"namespaces": ["shop"]},
                "backup": [
                    {"storedBackup": {"name": "night", "velero": stored}},
                    {"verifyBackup": {"backup": "night"}},
                ],
                "fault": lose if fault else [],
                "restore": [{"veleroRestore": {"from": "night", **(restore or {})}, "timeout": "2m"}],
                "verify": [{"restored": {}}, {"ready": {"kind": "Deployment", "namespace": "shop"}}],
                **spec,
            },
        }
        file = tmp_path / "stored.drill.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        return load_drill(file)

    return drill


@pytest.fixture
def after_restore(monkeypatch):
    """Do something in the cluster once a restore has ended; checks then wait for a second only."""

    def after_restore(act):
        around_restore(monkeypatch, act, longest_wait=timedelta(seconds=1))

    return after_restore


def around_restore(monkeypatch, act, **settings):
    real = verbs()["veleroRestore"].perform

    def patched(action, here):
        said = real(action, here)
        act(here.api)
        here.run.settings = replace(here.run.settings, **settings)
        return said

    monkeypatch.setattr(verbs()["veleroRestore"], "perform", patched)


def bucket_of(s3, prefix):
    return {"s3": {"bucket": BUCKET, "prefix": prefix, "region": s3.region, "endpoint": s3.endpoint}}


def keys(s3):
    return sorted(info.key for info in s3.store(BUCKET, PREFIX).list())


def names(velero, *kinds):
    return {(kind.kind, each.name) for kind in kinds for each in velero.objects.list(kind)}


@pytest.mark.parametrize(
    "stored", [{"schedule": "nightly"}, {"backup": "nightly-1"}], ids=["newest of a schedule", "by name"]
)
def test_last_nights_backup_is_proven_in_place_and_stays(run, drill, velero, nightly, s3, stored):
    before = keys(s3), names(velero, Backup, Restore, BackupStorageLocation)
    result = run(drill(stored))
    assert result.verdict is Verdict.PASS, result
    assert result.red_after_fault == (2, 2)
    assert any(step.title == "storedBackup" and "nightly-1" in step.detail for step in result.steps)
    assert result.rpo > result.rto.total
    assert (keys(s3), names(velero, Backup, Restore, BackupStorageLocation)) == before


def test_what_the_restored_namespace_lacks_is_red(run, drill, nightly, after_restore):
    def tamper(api):
        api.delete(api.resource("Service"), "web", "shop")
        api.patch(api.resource("ConfigMap"), "web", "shop", patch={"data": {"index.html": "closed"}})

    after_restore(tamper)
    result = run(drill({"schedule": "nightly"}))
    assert (result.verdict, result.code) == (Verdict.FAIL, "not-recovered"), result
    assert "missing: Service shop/web" in result.diff
    assert "changed: ConfigMap shop/web" in result.diff


def test_without_its_restore_it_is_red(run, drill, nightly):
    result = run(drill({"schedule": "nightly"}), omit_restore=True, longest_wait=timedelta(seconds=1))
    assert (result.verdict, result.code) == (Verdict.FAIL, "not-recovered"), result
    assert "missing: Namespace shop" in result.diff


@pytest.mark.parametrize("start", ["setup", "restore"])
def test_it_is_proven_in_a_new_cluster_which_leaves_the_bucket_as_it_is(drill, nightly, s3, start):
    before = keys(s3)
    stored, clusters = {"storage": "company", "schedule": "nightly"}, {"main": {"embedded": {}, "startIn": start}}
    result = DrillRunner(settings=DrillSettings()).run(drill(stored, fault=False, clusters=clusters))
    assert result.verdict is Verdict.PASS, result
    assert ("provision for the restore" in {phase.name for phase in result.phases}) == (start == "restore")
    assert result.red_after_fault == (2, 2)
    assert keys(s3) == before


def test_a_server_of_ours_collects_nothing_that_has_expired(drill, nightly, s3):
    """A server deletes expired backups as soon as it knows them, unless their location is read-only."""
    ours, theirs = s3.store(BUCKET, PREFIX), s3.store(BUCKET, "theirs")
    for info in ours.list("backups/nightly-1/"):
        copy_object(ours, info.key, theirs)
        old = info.key.replace("nightly-1", "old-1")
        with ours.get(info.key) as stream, theirs.put(old) as writer:
            data = stream.read()
            writer.write(expired(data, name="old-1") if old.endswith("velero-backup.json") else data)
    before = sorted(info.key for info in theirs.list())
    document = drill(
        {"storage": "theirs", "schedule": "nightly"},
        fault=False,
        clusters={"main": {"embedded": {}}},
        storage={"theirs": bucket_of(s3, "theirs")},
    )
    known = []

    def wait_for_the_sync(api):
        kind = resource_of(Backup)
        api.wait_for(kind, "old-1", "velero", until=lambda seen: seen is not None, what="a sync", timeout_seconds=90)
        known.append(api.get(kind, "old-1", "velero"))
        time.sleep(5)  # a server that collects it begins at once

    with pytest.MonkeyPatch.context() as patch:
        around_restore(patch, wait_for_the_sync)
        result = DrillRunner(settings=DrillSettings()).run(document)
    assert result.verdict is Verdict.PASS, result
    assert known
    assert sorted(info.key for info in theirs.list()) == before


def expired(document, *, name):
    backup = json.loads(document)
    backup["metadata"]["name"] = name
    backup["status"]["expiration"] = "2020-01-01T00:00:00Z"
    backup["status"]["startTimestamp"] = "2019-12-31T00:00:00Z"
    return json.dumps(backup).encode()


def test_in_a_new_cluster_too_what_is_lost_is_red(drill, nightly, s3, after_restore):
    after_restore(lambda api: api.delete(api.resource("Secret"), "web", "shop"))
    stored = {"storage": "company", "backup": "nightly-1"}
    document = drill(stored, fault=False, clusters={"main": {"embedded": {}}}, restore={"namespaces": ["sh*"]})
    result = DrillRunner(settings=DrillSettings()).run(document)
    assert (result.verdict, result.code) == (Verdict.FAIL, "not-recovered"), result
    assert "missing: Secret shop/web" in result.diff
    assert not [key for key in keys(s3) if result.run_id in key]


@pytest.mark.parametrize("lost", [(), ("PriorityClass", "shop-first")], ids=["all", "one lost"])
def test_everything_is_proven_in_a_new_cluster(drill, velero_cluster, velero, api, nightly, after_restore, lost):
    velero_cluster.velero_server.start()
    api.apply(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "shop-first"}, "value": 9}
    )
    role = {"kind": "ClusterRole", "metadata": {"name": "shop:reader"}, "rules": []}
    api.apply({"apiVersion": "rbac.authorization.k8s.io/v1", **role})
    name = f"everything-{len(lost)}"
    velero.back_up(name)
    if lost:
        after_restore(lambda cluster: cluster.delete(cluster.resource(lost[0]), lost[1]))
    document = drill(
        {"storage": "company", "backup": name},
        fault=False,
        scope={},
        verify=[{"restored": {}}],
        clusters={"main": {"embedded": {}}},
        restore={"excludedNamespaces": ["velero", "kube-*"]},
    )
    result = DrillRunner(settings=DrillSettings(longest_wait=timedelta(seconds=60))).run(document)
    assert result.verdict is (Verdict.FAIL if lost else Verdict.PASS), result
    assert f"missing: {lost[0]}.scheduling.k8s.io {lost[1]}" in result.diff if lost else not result.diff


def test_a_backup_of_other_things_proves_nothing(run, drill, nightly):
    result = run(drill({"backup": "velero-1"}))
    assert (result.verdict, result.code) == (Verdict.ERROR, "scope-empty"), result


def test_bad_backups_are_told_before_anything_is_broken(run, drill, velero, velero_cluster, nightly):
    assert run(drill({"schedule": "weekly"})).code == "schedule-without-backups"
    with pytest.raises(BackupFailedError):
        velero.back_up("part-1", BackupOptions(included_namespaces=("velero", "nowhere")))
    with pytest.raises(BackupFailedError):
        velero.back_up("bad-1", BackupOptions(included_namespaces=("shop",), volume_snapshot_locations=("nowhere",)))
    old = velero.back_up("old-1", BackupOptions(included_namespaces=("velero",), ttl=timedelta(seconds=1)))
    while datetime.now(UTC) <= old.expires:
        time.sleep(0.1)
    codes = {
        "part-1": "backup-partial",
        "bad-1": "backup-invalid",
        "old-1": "backup-expired",
        "gone-1": "no-such-backup",
        "dead-1": "backup-failed",
    }
    for name, code in codes.items():
        if name == "dead-1":  # the next server removes what has expired as soon as it knows it
            killed_while_it_backed_up(velero, velero_cluster.velero_server, name)
        result = run(drill({"backup": name}))
        assert (result.verdict, result.code) == (Verdict.FAIL, code), result
        assert "fault" not in {phase.name for phase in result.phases}
    result = run(drill({"storage": "company", "backup": "nightly-1"}))
    assert (result.verdict, result.code) == (Verdict.ERROR, "backup-known-elsewhere"), result
    for name in ("part-1", "bad-1", "dead-1"):
        velero.delete_backup(name)


def killed_while_it_backed_up(velero, server, name):
    """Leave a backup as a killed server does: under way, until the next one marks it."""
    server.stop()
    made = velero.objects.create(Backup.new(namespace="velero", name=name, spec={"storageLocation": "default"}))
    velero.objects.patch(Backup, made.name, {"status": {"phase": "InProgress"}})
    server.start()
    until = lambda seen: seen is not None and seen.phase.final  # noqa: E731
    velero.objects.wait(Backup, name, until=until, what="the next server to mark it", timeout_seconds=60)


def test_a_location_that_cannot_be_used_is_told_before_anything_is_broken(run, drill, nightly, s3):
    s3.stop()
    try:
        result = run(drill({"schedule": "nightly"}))
    finally:
        s3.start()
    assert (result.verdict, result.code) == (Verdict.ERROR, "location-unavailable"), result
    assert "fault" not in {phase.name for phase in result.phases}
