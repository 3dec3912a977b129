"""Real runs of a policy with the credentials of writer, keeper and reader: each does its part, and none another's."""

from __future__ import annotations

import os
import stat

import pytest
from gateway_with_users import BUCKET, gateway_with_users

from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.copies.stored import fetch
from clusterguard.policies.files.load import load_policy
from clusterguard.policies.policy import Location
from clusterguard.policies.runs.run import PolicyRunner
from clusterguard.stores import MemoryStore

pytestmark = pytest.mark.programs

POLICY = """\
apiVersion: clusterguard.dev/v1alpha1
kind: BackupPolicy
metadata: {{name: production}}
spec:
  sources:
  - name: etcd
    etcd: {{endpoints: ["{endpoint}"], caFile: "{ca}", certFile: "{cert}", keyFile: "{key}"}}
  locations:
  - {{name: bucket, url: "s3://{bucket}/etcd?endpoint={s3}&region=us-east-1&pathStyle=true"}}
  retention: {{last: 1}}
"""


@pytest.fixture(scope="module")
def gateway(toolchain, tmp_path_factory):
    program = toolchain.ensure("versitygw")["versitygw"]
    with gateway_with_users(program, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def policy(gateway, shared_cluster, tmp_path):
    access = shared_cluster.etcd
    (tmp_path / "policy.yaml").write_text(
        POLICY.format(
            endpoint=access.endpoints[0],
            ca=access.ca,
            cert=access.cert,
            key=access.key,
            bucket=BUCKET,
            s3=gateway.endpoint,
        )
    )
    root = gateway.store("root")
    for key in [each.key for each in root.list()]:
        root.delete(key)
    return load_policy(tmp_path / "policy.yaml", environ={})


@pytest.fixture
def become(gateway, tmp_path, monkeypatch):
    """Take on the credentials of a user, as a pod has them."""

    def become(user):
        keys = gateway.credentials(user)
        lines = [f"aws_access_key_id={keys.access_key}", f"aws_secret_access_key={keys.secret_key}"]
        (tmp_path / f"{user}.credentials").write_text("\n".join(["[default]", *lines, ""]))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / f"{user}.credentials"))

    return become


@pytest.fixture
def run(policy, become):
    """Run parts of the policy as a user."""

    def run(user, *parts):
        become(user)
        return PolicyRunner(policy=policy, environ=os.environ).run(parts)

    return run


def backups(gateway):
    return [each.key for each in gateway.store("root").list("etcd/") if ".db" in each.key]


def explained(report):
    return [str(step) for step in report.steps]


def test_the_writer_backs_up_and_verifies(run, gateway):
    report = run("writer", "backup", "verify")

    assert report.outcome == "ok", explained(report)
    assert len(backups(gateway)) == 1


def test_the_keeper_keeps_and_the_writer_cannot_remove(run, gateway):
    run("writer", "backup")
    run("writer", "backup")
    assert len(backups(gateway)) == 2

    refused = run("writer", "retain")
    assert refused.outcome == "failed", explained(refused)
    assert len(backups(gateway)) == 2

    kept = run("keeper", "retain")
    assert kept.outcome == "ok", explained(kept)
    assert len(backups(gateway)) == 1


def test_the_keeper_cannot_back_up(run, gateway):
    report = run("keeper", "backup")

    assert report.outcome == "failed", explained(report)
    assert not backups(gateway)


def test_the_reader_fetches_what_the_writer_wrote(run, become, policy):
    run("writer", "backup")
    become("reader")
    target = MemoryStore()

    name = fetch(policy, "etcd", target, encryption=encryption_of(policy, {}))

    assert f"{name}.db" in [each.key for each in target.list()]


def test_what_a_run_leaves_in_a_folder_is_for_its_user_alone(policy, tmp_path):
    local = policy.model_copy(update={"locations": (Location(name="here", url=str(tmp_path / "backups")),)})
    before = os.umask(0)
    try:
        report = PolicyRunner(policy=local, environ=os.environ).run()
    finally:
        os.umask(before)

    assert report.outcome == "ok", explained(report)
    modes = {
        (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
        for path in (tmp_path / "backups").rglob("*")
        if path.exists()
    }
    assert modes == {(True, 0o700), (False, 0o600)}
