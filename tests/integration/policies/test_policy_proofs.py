"""A policy proves its own newest backup: restored into a new control plane, by a drill of the policy's."""

from __future__ import annotations

import os

import pytest
import yaml

from clusterguard.clusters import EmbeddedCluster
from clusterguard.policies import PolicyRunner, load_policy, open_locations

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
    access = production.etcd
    etcd = {"endpoints": list(access.endpoints), "caFile": str(access.ca), "certFile": str(access.cert)}
    spec = {
        "sources": [{"name": "etcd", "etcd": etcd | {"keyFile": str(access.key)}}],
        "locations": [{"name": "disk", "url": "./disk"}],
        "proofs": [{"name": "weekly", "drill": "prove.drill.yaml", "source": "etcd", "every": "7d"}],
    }
    document = {"apiVersion": "clusterguard.dev/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": "nightly"}}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(document | {"spec": spec}))
    return PolicyRunner(policy=load_policy(tmp_path / "policy.yaml", environ={}), environ=dict(os.environ))


def drill(folder, name):
    resource = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
    spec = {
        "backup": [{"storedBackup": {"name": "newest", "policy": "policy.yaml", "source": "etcd"}}],
        "restore": [{"etcdRestore": {"from": "newest"}}],
        "verify": [{"assert": {"resource": resource}, "timeout": "5s"}],
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
