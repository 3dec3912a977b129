"""A policy's Velero source on a real server: backed up, copied encrypted, read back, and fetched again."""

from __future__ import annotations

import pyrage
import pytest

from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.copies.locations import open_locations
from clusterguard.policies.copies.stored import fetch
from clusterguard.policies.policy import Encryption, Location, Policy, RetentionPolicy, Source, VeleroSource
from clusterguard.policies.runs.run import PolicyRunner
from clusterguard.stores import LocalStore
from clusterguard.velero.bucket import verify_backup
from clusterguard.velero.findings import Rule

pytestmark = [pytest.mark.programs, pytest.mark.timeout(300)]


@pytest.fixture
def credentials(s3, monkeypatch):
    """What boto3 finds by itself."""
    lines = dict(line.split("=", 1) for line in s3.credentials_file().splitlines() if "=" in line)
    for name, value in lines.items():
        monkeypatch.setenv(name.strip().upper(), value.strip())


@pytest.fixture
def policy(cluster, velero, shop, s3, credentials, tmp_path):
    identity = pyrage.x25519.Identity.generate()
    return Policy(
        name="nightly",
        sources=(
            Source(
                name="shop",
                velero=VeleroSource(
                    cluster=f"kubeconfig:{cluster.kubeconfig}",
                    bucket=f"s3://backups/main?endpoint={s3.endpoint}&pathStyle=true&region={s3.region}",
                    included_namespaces=(shop,),
                ),
            ),
        ),
        locations=(Location(name="disk", url=str(tmp_path / "disk")), Location(name="nas", url=str(tmp_path / "nas"))),
        copies=2,
        retention=RetentionPolicy(last=1),
        encryption=Encryption(recipients=(str(identity.to_public()),), identity_env="IDENTITY"),
    ), {"IDENTITY": str(identity)}


@pytest.fixture
def claim(api, shop):
    """A claim with a volume, which nobody is asked to back up."""
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    bound = {"namespace": shop, "name": "data"}
    volume = {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/nowhere"}, "claimRef": bound}
    api.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": shop}, "spec": {**common, **volume}}
    )
    resources = {"requests": {"storage": "1Gi"}}
    api.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": bound,
            "spec": {**common, "volumeName": shop, "resources": resources},
        }
    )
    api.wait_for(
        api.resource("PersistentVolumeClaim"),
        "data",
        shop,
        until=lambda seen: seen is not None and seen["status"].get("phase") == "Bound",
        what="the claim to be bound",
        timeout_seconds=30,
    )
    yield bound
    api.delete(api.resource("PersistentVolume"), shop)


def test_a_backup_of_velero_is_copied_encrypted_and_comes_back_as_its_bucket_had_it(policy, tmp_path):
    wanted, environ = policy
    report = PolicyRunner(policy=wanted, environ=environ).run(["backup"])
    assert report.outcome == "ok", [str(step) for step in report.steps]
    for location in open_locations(wanted):
        [entry] = location.catalog().entries.values()
        assert (entry.kind, entry.encrypted, entry.sound) == ("velero", True, True)
        stored = [info.key for info in location.root.list("shop/backups/")]
        assert stored
        assert all(key.endswith(".age") for key in stored)

    name = fetch(
        wanted, "shop", LocalStore(tmp_path / "plain"), encryption=encryption_of(wanted, environ), location="nas"
    )
    assert verify_backup(LocalStore(tmp_path / "plain"), name, now=report.started).ok


def test_a_bound_claim_does_not_keep_a_policy_without_volumes_from_its_copies(policy, api, shop, claim):
    wanted, environ = policy
    assert wanted.sources[0].velero.volumes == "none"
    report = PolicyRunner(policy=wanted, environ=environ).run(["backup"])
    assert report.outcome == "ok", [str(step) for step in report.steps]
    for location in open_locations(wanted):
        [entry] = location.catalog().entries.values()
        assert entry.sound


@pytest.fixture
def hooked(api, shop):
    """A pod whose hook fails: no container runs in it."""
    annotations = {
        "pre.hook.backup.velero.io/command": '["/bin/true"]',
        "pre.hook.backup.velero.io/container": "work",
        "pre.hook.backup.velero.io/on-error": "Fail",
    }
    spec = {"containers": [{"name": "work", "image": "busybox"}], "terminationGracePeriodSeconds": 0}
    metadata = {"name": "hooked", "namespace": shop, "annotations": annotations}
    api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    api.wait_for(
        api.resource("Pod"),
        "hooked",
        shop,
        until=lambda seen: seen is not None and seen.get("status", {}).get("phase") == "Running",
        what="the pod to run",
        timeout_seconds=30,
    )
    yield
    api.delete(api.resource("Pod"), "hooked", shop, grace_seconds=0)


@pytest.mark.parametrize(
    ("tolerate", "outcome"),
    [(("partially-failed", "error", "hook-failed"), "ok"), (("partially-failed", "error"), "failed"), ((), "failed")],
)
def test_a_partial_backup_is_copied_only_where_all_that_made_it_partial_is_tolerated(policy, hooked, tolerate, outcome):
    wanted, environ = policy
    [source] = wanted.sources
    velero = source.velero.model_copy(update={"tolerate": tuple(Rule(each) for each in tolerate)})
    tolerant = wanted.model_copy(update={"sources": (Source(name=source.name, velero=velero),)})
    report = PolicyRunner(policy=tolerant, environ=environ).run(["backup"])
    assert report.outcome == outcome, [str(step) for step in report.steps]
    for location in open_locations(tolerant):
        assert len(location.catalog().entries) == (outcome == "ok")


def test_damage_in_one_copy_is_found_and_mended_from_the_other(policy, tmp_path):
    wanted, environ = policy
    report = PolicyRunner(policy=wanted, environ=environ).run(["backup"])
    assert report.outcome == "ok", [str(step) for step in report.steps]
    victim = next((tmp_path / "disk").rglob("*.tar.gz*"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    for location in open_locations(wanted):  # so that it is due
        (entry,) = location.catalog().entries.values()
        assert entry.verified is not None
        location.root.delete(".clusterguard/catalog.json")
    report = PolicyRunner(policy=wanted, environ=environ).run(["verify"])
    found = {(step.verb, step.location): step.outcome for step in report.steps}
    assert found["verify", "disk"] == "failed"
    assert found["verify", "nas"] == "ok"
    assert found["copy", "disk"] == "ok"
    assert victim.read_bytes()[-1:] != b"?"


def test_old_backups_go_with_all_their_files(policy, tmp_path):
    wanted, environ = policy
    runner = PolicyRunner(policy=wanted, environ=environ)
    assert runner.run(["backup", "retain"]).outcome == "ok"
    report = runner.run(["backup", "retain"])
    assert report.outcome == "ok", [str(step) for step in report.steps]
    assert [step.outcome for step in report.steps if step.verb == "delete"] == ["ok", "ok"]
    for location in open_locations(wanted):
        [entry] = location.catalog().entries.values()
        assert {key.split("/")[2] for key in (info.key for info in location.root.list("shop/backups/"))} == {entry.name}


def test_a_bucket_that_is_not_the_servers_is_told(policy):
    wanted, environ = policy
    [source] = wanted.sources
    elsewhere = source.velero.model_copy(update={"bucket": source.velero.bucket.replace("/main?", "/elsewhere?")})
    wrong = wanted.model_copy(update={"sources": (Source(name=source.name, velero=elsewhere),)})
    report = PolicyRunner(policy=wrong, environ=environ).run(["backup"])
    assert report.outcome == "failed"
    [failed] = [step for step in report.steps if step.verb == "backup"]
    assert failed.code == "object-not-found"
