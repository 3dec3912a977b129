"""Velero backups rehearsed from their bucket alone, with a real server: whole ones are green, others are red."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.errors import ObjectNotFoundError
from clusterguard.policies import PolicyRunner, load_policy, open_locations
from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.copies.locations import VeleroRecord
from clusterguard.rehearsal.velero import VeleroRehearsal, holds_velero_backups
from clusterguard.stores import open_store
from clusterguard.stores.encryption import EncryptedStore, new_key_pair
from clusterguard.stores.transfer import copy_object, digest_object
from clusterguard.velero import BackupOptions, LocationSpec

# The machine has one Velero server; waiting for other users of it takes longer than any test.
pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]

BUCKET = "company"
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
RULE = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["configmaps", "pods"]}
WEBHOOK = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": "nobody-answers"},
    "webhooks": [
        {
            "name": "nobody.example.com",
            "clientConfig": {"service": {"namespace": "shop", "name": "web"}},
            "rules": [RULE],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
    ],
}


@pytest.fixture(scope="module")
def folder(velero_cluster, velero, api, toolchain, tmp_path_factory):
    """A folder with a copy of a bucket: a backup that comes back whole, then one that does not."""
    program = toolchain.ensure("versitygw")["versitygw"]
    with LocalS3Server(program=program, folder=tmp_path_factory.mktemp("s3")) as s3:
        s3.create_bucket(BUCKET)
        config = {"region": s3.region, "s3ForcePathStyle": "true", "s3Url": s3.endpoint}
        spec = LocationSpec(bucket=BUCKET, config=config, credentials=s3.credentials_file(), default=True)
        velero.locations.create("default", spec)
        for namespace in ("shop", "sandbox"):
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        api.create(DEFINITION)
        thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "shop"}}
        api.await_kind(thing)
        api.create(thing)
        for kind in ("ConfigMap", "Secret"):
            api.create({"apiVersion": "v1", "kind": kind, "metadata": {"name": "settings", "namespace": "shop"}})
        runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "sandboxed"}}
        api.create({**runtime, "handler": "sandboxed"})
        spec = {"runtimeClassName": "sandboxed", "containers": [{"name": "c", "image": "busybox"}]}
        api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "sandbox"}, "spec": spec})
        api.create(WEBHOOK)
        # A server knows custom resources as of its start, for the first five minutes.
        velero_cluster.velero_server.stop()
        velero_cluster.velero_server.start()
        options = BackupOptions(
            included_namespaces=("shop",),
            included_cluster_scoped_resources=(
                "customresourcedefinitions.apiextensions.k8s.io",
                "mutatingwebhookconfigurations.admissionregistration.k8s.io",
                "runtimeclasses.node.k8s.io",
            ),
        )
        velero.back_up("whole", options)
        # Velero restores pods before the RuntimeClasses that they need: in a new cluster such a pod is refused.
        velero.back_up("sandboxed", replace(options, included_namespaces=("sandbox",)))
        velero_cluster.velero_server.stop()  # each rehearsal has a server of its own
        target = open_store(tmp_path_factory.mktemp("copy"))
        for info in s3.store(BUCKET).list():
            copy_object(s3.store(BUCKET), info.key, target)
    return target.url


def digests(location):
    store = open_store(location)
    return {info.key: digest_object(store, info.key) for info in store.list()}


def test_a_whole_backup_is_restored_and_left_as_it_is(folder, tmp_path):
    before = digests(folder)
    phases = []
    report = VeleroRehearsal(location=folder, backup="whole", home=tmp_path / "home", on_phase=phases.append).run()
    assert report.ok, report.to_text()
    counts = {kind.kind: (kind.backed_up, kind.equal) for kind in report.kinds}
    assert counts["Thing.example.com"] == counts["ConfigMap"] == (1, 1)
    assert all(backed_up == equal for backed_up, equal in counts.values())
    # It must answer before ConfigMaps are created, and nobody does: here it is not asked.
    assert {"webhook-blocks-itself"} <= {finding.code for finding in report.findings}
    assert [phase.name for phase in report.phases] == phases
    assert digests(folder) == before
    assert list((tmp_path / "home").iterdir()) == []


def policy_of(tmp_path):
    """Load a policy of a Velero source, with a key pair and one location beside it."""
    private, public = new_key_pair()
    (tmp_path / "identity.txt").write_text(private)
    (tmp_path / "identity.txt").chmod(0o600)
    velero = {"cluster": "context:company", "bucket": "s3://company/velero"}
    spec = {
        "sources": [{"name": "shop", "velero": velero}],
        "locations": [{"name": "disk", "url": "./disk"}],
        "encryption": {"recipients": [public], "identityFile": "identity.txt"},
        "proofs": [{"name": "weekly", "rehearse": {}, "source": "shop", "every": "7d"}],
    }
    document = {"apiVersion": "clusterguard.dev/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": "nightly"}}
    (tmp_path / "policy.yaml").write_text(json.dumps(document | {"spec": spec}))
    return load_policy(tmp_path / "policy.yaml", environ={})


@pytest.mark.parametrize(("name", "outcome"), [("whole", "proven"), ("sandboxed", "not proven")])
def test_a_policy_proves_its_own_encrypted_copy(folder, tmp_path, name, outcome):
    policy = policy_of(tmp_path)
    [location] = open_locations(policy)
    copies = EncryptedStore(location.of_source("shop"), encryption_of(policy, {}), plain=())
    plain = {info.key: copy_object(open_store(folder), info.key, copies)
             for info in open_store(folder).list(f"backups/{name}/")}  # fmt: skip
    stored = [copies.stored(key) for key in plain]
    record = VeleroRecord(
        name=name,
        source="shop",
        policy="nightly",
        run="20260601T020000Z-abcdef",
        created=datetime.now(UTC),
        encrypted=True,
        objects={each.key: (each.sha256, each.size) for each in stored},
        plain=plain,
    )
    with location.of_source("shop").put(f"{name}.json") as writer:
        writer.write(record.to_json())
    PolicyRunner(policy=policy, environ=dict(os.environ)).run(["prove"])
    proof = location.catalog().proofs["weekly"]
    assert (proof.outcome, proof.backup) == (outcome, name), proof.detail
    assert (proof.rto_seconds is not None) == (outcome == "proven")
    assert ("not-restored" in proof.detail) == (outcome == "not proven")


def test_what_cannot_come_back_turns_it_red_and_says_why(folder):
    command = [sys.executable, "-m", "clusterguard", "rehearse", folder, "--json", "--backup", "sandboxed"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["source"].endswith("Velero backup sandboxed")
    levels = {finding["code"]: finding["level"] for finding in report["findings"]}
    assert levels["not-restored"] == "error"
    assert any(code.startswith("velero-") for code in levels)
    (pods,) = (kind for kind in report["kinds"] if kind["kind"] == "Pod")
    assert (pods["backed_up"], pods["equal"], pods["missing"]) == (1, 0, 1)
    assert any("sandboxed" in example for finding in report["findings"] for example in finding["examples"])


def test_damage_in_the_bucket_is_found_before_anything_starts(folder, tmp_path):
    store, target = open_store(folder), open_store(tmp_path / "copy")
    for info in store.list("backups/whole/"):
        copy_object(store, info.key, target)
    tarball = tmp_path / "copy" / "backups" / "whole" / "whole.tar.gz"
    tarball.write_bytes(tarball.read_bytes()[:-20])
    report = VeleroRehearsal(location=target.url).run()
    assert (report.ok, [finding.level for finding in report.findings]) == (False, ["error"])
    assert [phase.name for phase in report.phases] == ["find the backup", "verify the bucket"]


def test_a_location_without_backups(folder, tmp_path):
    assert holds_velero_backups(folder)
    assert not holds_velero_backups(tmp_path)
    with pytest.raises(ObjectNotFoundError):
        VeleroRehearsal(location=tmp_path).run()
    with pytest.raises(ObjectNotFoundError):
        VeleroRehearsal(location=folder, backup="none").run()
