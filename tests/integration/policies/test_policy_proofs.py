"""A policy proves its own newest backup: restored into a new control plane, by a drill or by a rehearsal."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from clusterguard.clusters import EmbeddedCluster
from clusterguard.policies import PolicyRunner, load_policy, open_locations, policy_status
from clusterguard.policies.copies.locations import read_catalogs
from clusterguard.stores.encryption import new_key_pair
from etcd_member import Member

pytestmark = [pytest.mark.programs, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def production(toolchain, tmp_path_factory):
    """A cluster with something in it that must never be lost."""
    with EmbeddedCluster(toolchain=toolchain, home=tmp_path_factory.mktemp("clusters")) as cluster:
        metadata = {"name": "precious", "namespace": "default"}
        cluster.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}})
        yield cluster


@pytest.fixture
def runner(production, tmp_path):
    return runner_of(production, tmp_path, {"drill": "prove.drill.yaml"})


def runner_of(production, folder, proof, **more):
    """Make a runner of a policy with one proof, whose copies are encrypted if a key pair is there."""
    access = production.etcd
    etcd = {"endpoints": list(access.endpoints), "caFile": str(access.ca), "certFile": str(access.cert)}
    spec = {
        "sources": [{"name": "etcd", "etcd": etcd | {"keyFile": str(access.key)}}],
        "locations": [{"name": "disk", "url": "./disk"}],
        "proofs": [{"name": "weekly", "source": "etcd", "every": "7d", **proof}],
        **more,
    }
    document = {"apiVersion": "clusterguard.dev/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": "nightly"}}
    (folder / "policy.yaml").write_text(yaml.safe_dump(document | {"spec": spec}))
    return PolicyRunner(policy=load_policy(folder / "policy.yaml", environ={}), environ=dict(os.environ))


def drill(folder, name, *, restore=(), verify=()):
    resource = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
    spec = {
        "backup": [{"storedBackup": {"name": "newest", "policy": "policy.yaml", "source": "etcd"}}],
        "restore": [{"etcdRestore": {"from": "newest"}}, *restore],
        "verify": [{"assert": {"resource": resource}, "timeout": "5s"}, *verify],
    }
    document = {"apiVersion": "clusterguard.dev/v1alpha1", "kind": "Drill", "metadata": {"name": "prove"}, "spec": spec}
    (folder / "prove.drill.yaml").write_text(yaml.safe_dump(document))


def test_the_newest_backup_is_proven_and_not_again_before_it_is_due(runner, tmp_path):
    drill(tmp_path, "precious")
    report = runner.run(["backup", "prove"])
    assert report.outcome == "ok", [str(step) for step in report.steps]
    [location] = open_locations(runner.policy)
    proof = location.catalog().proofs["weekly"]
    assert (proof.outcome, proof.backup) == ("proven", next(iter(location.catalog().entries.values())).name)
    assert proof.rto_seconds > 0
    assert proof.rpo_seconds > 0
    assert [step for step in runner.run(["prove"]).steps if step.verb == "prove"] == []


def test_a_drill_compares_with_what_the_snapshot_itself_holds(production, tmp_path):
    runner = runner_of(production, tmp_path, {"drill": "prove.drill.yaml", "every": "1m"})
    drill(tmp_path, "precious", verify=[{"restored": {"identity": "uid", "extra": 0}}])
    report = runner.run(["backup", "prove"])
    assert report.outcome == "ok", [str(step) for step in report.steps]
    assert proof_of(runner).outcome == "proven"

    changed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "precious", "namespace": "default"}}
    step = {"apply": {"manifest": changed | {"data": {"a": "changed since"}}}}
    drill(tmp_path, "precious", restore=[step], verify=[{"restored": {}, "timeout": "5s"}])
    replace(runner, now=lambda: datetime.now(UTC) + timedelta(minutes=2)).run(["prove"])
    assert proof_of(runner).outcome == "not proven"
    assert "1 changed" in proof_of(runner).detail


@pytest.mark.slow
def test_what_was_never_there_is_not_proven_and_is_tried_again(runner, tmp_path):
    drill(tmp_path, "never-there")
    report = runner.run(["backup", "prove"])
    assert report.outcome == "failed"
    [location] = open_locations(runner.policy)
    proof = location.catalog().proofs["weekly"]
    assert (proof.outcome, proof.last_proven) == ("not proven", None)
    drill(tmp_path, "precious")
    report = runner.run(["prove"])
    assert [step.outcome for step in report.steps if step.verb == "prove"] == ["ok"]


# ---- by a rehearsal


def proof_of(runner):
    [location] = open_locations(runner.policy)
    return location.catalog().proofs["weekly"]


def test_an_encrypted_backup_is_rehearsed_and_shown_as_proven(production, tmp_path):
    private, public = new_key_pair()
    (tmp_path / "identity.txt").write_text(private)
    (tmp_path / "identity.txt").chmod(0o600)
    runner = runner_of(
        production, tmp_path, {"rehearse": {}}, encryption={"recipients": [public], "identityFile": "identity.txt"}
    )
    report = runner.run(["backup", "prove"])
    assert report.outcome == "ok", [str(step) for step in report.steps]
    proof = proof_of(runner)
    assert (proof.outcome, proof.detail) == ("proven", "")
    assert proof.backup.startswith("etcd-")
    assert proof.rto_seconds > 0
    assert proof.rpo_seconds > 0
    assert [step for step in runner.run(["prove"]).steps if step.verb == "prove"] == []
    locations = open_locations(runner.policy)
    [shown] = policy_status(runner.policy, read_catalogs(locations), now=datetime.now(UTC)).proofs
    assert (shown.last_outcome, shown.overdue) == ("proven", False)


def test_what_does_not_come_back_is_not_proven_and_what_cannot_be_opened_is_undecided(production, tmp_path):
    private, public = new_key_pair()
    (tmp_path / "identity.txt").write_text(private)
    (tmp_path / "identity.txt").chmod(0o600)
    encryption = {"recipients": [public]}
    kept = put(production, "/registry/secrets/default/damaged", b"k8s\0 and then no object")
    try:
        runner = runner_of(production, tmp_path, {"rehearse": {}}, encryption=encryption)
        report = runner.run(["backup", "prove"])
        assert [(step.outcome, step.code) for step in report.steps if step.verb == "prove"] == [
            ("warning", "proof-undecided")
        ]
        assert proof_of(runner).outcome == "error"  # without the key nobody can tell
        runner = runner_of(
            production, tmp_path, {"rehearse": {}}, encryption=encryption | {"identityFile": "identity.txt"}
        )
        report = runner.run(["prove"])
    finally:
        kept()
    assert [(step.outcome, step.code) for step in report.steps if step.verb == "prove"] == [("failed", "not-proven")]
    assert (proof_of(runner).outcome, proof_of(runner).last_proven) == ("not proven", None)
    assert "stored-object-damaged" in proof_of(runner).detail


def put(cluster, key, value):
    """Put a key into a cluster's etcd behind the API server's back; return what removes it."""
    access = cluster.etcd
    etcd = Member(access=access, process=None, log=None)
    encoded = base64.b64encode(key.encode()).decode()
    etcd.ask("kv/put", {"key": encoded, "value": base64.b64encode(value).decode()})
    return lambda: etcd.ask("kv/deleterange", {"key": encoded})
