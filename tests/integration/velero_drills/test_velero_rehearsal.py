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
from clusterguard.model.inventory import Scope
from clusterguard.policies import PolicyRunner, load_policy, open_locations
from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.copies.locations import VeleroRecord
from clusterguard.rehearsal.velero import VeleroRehearsal, holds_velero_backups
from clusterguard.stores import open_store
from clusterguard.stores.encryption import EncryptedStore, new_key_pair
from clusterguard.stores.transfer import copy_object, digest_object
from clusterguard.toolchain import Toolchain
from clusterguard.validate import RestoreValidator
from clusterguard.velero import BackupOptions, LocationSpec
from other_versions import kubernetes_programs

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
        template = {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "db", "image": "db"}]}}
        scaled = {"replicas": 0, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template}
        api.create({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "shop"},
                    "spec": scaled})  # fmt: skip
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
        selectors = [{"cel": {"expression": "device.driver == 'example.com'"}}]
        api.create({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "fast"},
                    "spec": {"selectors": selectors}})  # fmt: skip
        newer = replace(options, included_cluster_scoped_resources=("deviceclasses.resource.k8s.io",))
        velero.back_up("newer", newer)
        definitions = ("customresourcedefinitions.apiextensions.k8s.io",)
        velero.back_up(
            "undefined",
            BackupOptions(included_namespaces=("shop",), excluded_cluster_scoped_resources=definitions),
        )
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


def found(changes):
    return {str(finding.ref): str(finding.kind) for finding in changes.report.findings}


def test_what_has_changed_since_is_told_of_what_the_backup_was_to_have(folder, api, tmp_path):
    scope = Scope(namespaces=("shop",))
    held = RestoreValidator(api=api).capture(scope)
    compare = {"live": api, "inventory": held}
    same = VeleroRehearsal(location=folder, backup="whole", home=tmp_path, compare=compare).run()
    assert (same.ok, same.unchanged) == (True, True), same.to_text()
    api.delete(api.resource(WEBHOOK["kind"]), "nobody-answers")  # it answers no request that follows
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new", "namespace": "shop"}}
    api.create(config)
    api.create({**config, "metadata": {"name": "new", "namespace": "sandbox"}})  # the backup was not to have that
    api.patch(api.resource("ConfigMap"), "settings", "shop", patch={"data": {"key": "value"}})
    api.delete(api.resource("Secret"), "settings", "shop")
    compare["inventory"] = RestoreValidator(api=api).capture(scope)
    report = VeleroRehearsal(location=folder, backup="whole", home=tmp_path, compare=compare).run()
    assert (report.ok, report.unchanged) == (True, False)
    live, inventory = report.changes
    assert (live.before, live.after, inventory.after) == ("the backup", "live", "the backup")
    assert found(live) == {
        "ConfigMap shop/new": "extra", "ConfigMap shop/settings": "changed", "Secret shop/settings": "missing",
        "MutatingWebhookConfiguration.admissionregistration.k8s.io nobody-answers": "missing",
    }  # fmt: skip
    assert found(inventory) == {
        "ConfigMap shop/new": "missing", "ConfigMap shop/settings": "changed", "Secret shop/settings": "extra",
    }  # fmt: skip


def test_custom_resources_without_their_definition_are_red(folder, tmp_path):
    report = VeleroRehearsal(location=folder, backup="undefined", home=tmp_path).run()
    (lost,) = (each for each in report.findings if each.code == "definition-missing")
    assert (report.ok, lost.level, lost.examples) == (False, "error", ("Thing.example.com shop/a",))
    assert not any(each.code == "not-restored" for each in report.findings)  # one loss has one name


OLD, NEW = "1.30.14", "1.37.2"


@pytest.mark.slow
@pytest.mark.timeout(5 * 3600)  # the first run compiles the API servers
@pytest.mark.parametrize("version", [OLD, NEW])
def test_another_version_of_kubernetes_takes_the_backup(folder, tmp_path, version):
    minor = version.rpartition(".")[0]
    given = {f"kube-apiserver@{minor}": kubernetes_programs(version)["kube-apiserver"]}
    toolchain = Toolchain(explicit=given, path=os.environ["PATH"])
    report = VeleroRehearsal(
        location=folder, backup="whole", home=tmp_path, toolchain=toolchain, kubernetes_version=minor
    ).run()
    assert report.ok, report.to_text()
    assert report.facts["rehearsed on"] == f"Kubernetes v{version}"
    (other,) = (each for each in report.findings if each.code == "other-kubernetes-version")
    assert other.level == "note"  # it was asked for


@pytest.mark.slow
@pytest.mark.timeout(5 * 3600)
def test_a_kind_that_the_version_does_not_serve_is_red(folder, tmp_path):
    given = {"kube-apiserver@1.30": kubernetes_programs(OLD)["kube-apiserver"]}
    toolchain = Toolchain(explicit=given, path=os.environ["PATH"])
    report = VeleroRehearsal(
        location=folder, backup="newer", home=tmp_path, toolchain=toolchain, kubernetes_version="1.30"
    ).run()
    (gone,) = (each for each in report.findings if each.code == "no-longer-served")
    assert (report.ok, gone.count, gone.level) == (False, 1, "error")
    assert "DeviceClass.resource.k8s.io" in gone.examples[0]


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


def test_what_cannot_come_back_turns_it_red_and_says_why(folder, velero_cluster):
    command = [sys.executable, "-m", "clusterguard", "rehearse", folder, "--json", "--backup", "sandboxed"]
    command += ["--kubernetes-version", "1.36", f"--cluster=kubeconfig:{velero_cluster.kubeconfig}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["source"].endswith("Velero backup sandboxed")
    assert [each["after"] for each in report["changes"]] == [f"kubeconfig:{velero_cluster.kubeconfig}"]
    levels = {finding["code"]: finding["level"] for finding in report["findings"]}
    assert levels["not-restored"] == "error"
    assert any(code.startswith("velero-") for code in levels)
    (pods,) = (kind for kind in report["kinds"] if kind["kind"] == "Pod")
    assert (pods["backed_up"], pods["equal"], pods["missing"]) == (1, 0, 1)
    assert any("sandboxed" in example for finding in report["findings"] for example in finding["examples"])


def test_damage_in_the_bucket_is_found_before_anything_starts(folder, api, tmp_path):
    store, target = open_store(folder), open_store(tmp_path / "copy")
    for info in store.list("backups/whole/"):
        copy_object(store, info.key, target)
    tarball = tmp_path / "copy" / "backups" / "whole" / "whole.tar.gz"
    tarball.write_bytes(tarball.read_bytes()[:-20])
    report = VeleroRehearsal(location=target.url, compare={"live": api}).run()
    assert (report.unchanged, report.changes[0].report) == (False, None)
    assert (report.ok, [finding.level for finding in report.findings]) == (False, ["error"])
    assert [phase.name for phase in report.phases] == ["find the backup", "verify the bucket"]


def test_a_location_without_backups(folder, tmp_path):
    assert holds_velero_backups(folder)
    assert not holds_velero_backups(tmp_path)
    with pytest.raises(ObjectNotFoundError):
        VeleroRehearsal(location=tmp_path).run()
    with pytest.raises(ObjectNotFoundError):
        VeleroRehearsal(location=folder, backup="none").run()
