"""The whole way: a CronJob of deploy/kustomize fires by itself, writes an encrypted snapshot, and a drill proves it.

The bucket, the policy and the public key are the cluster's; the private key is on this machine alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyrage
import pytest
import yaml
from image import docker

from clusterguard.clusters.kind import KindCluster
from clusterguard.drills.servers.container_s3 import ContainerS3Server
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.copies.locations import open_locations
from clusterguard.policies.files.load import load_policy
from clusterguard.policies.fleet.files import load_fleet
from clusterguard.policies.fleet.job import FleetJobOptions, fleet_manifests
from clusterguard.policies.fleet.results import read_report
from clusterguard.policies.runs.run import PolicyRunner
from clusterguard.stores.encryption import EncryptedStore

pytestmark = [pytest.mark.kind, pytest.mark.slow, pytest.mark.timeout(1800)]

KUSTOMIZE = Path(__file__).parents[3] / "deploy" / "kustomize"
NAMESPACE = "clusterguard"
FIRES_WITHIN = 240  # seconds: a minute to the next one, and a node that is busy


@dataclass(frozen=True)
class Ground:
    """A cluster whose CronJob has run, the bucket that it wrote to, and this machine's side of it."""

    cluster: KindCluster
    s3: ContainerS3Server
    folder: Path
    marker: str
    jobs: list

    def policy(self, extra=""):
        """Return the policy as this machine reads it: the same bucket, by another name, and the private key."""
        file = self.folder / f"policy-{secrets.token_hex(2)}.yaml"
        file.write_text(policy_text(self.s3.endpoint, self.folder / "recipients.txt", self.folder / "identity") + extra)
        return load_policy(file, environ=os.environ)


def policy_text(endpoint, recipients, identity=None):
    """Return the policy: the base's one, with a bucket of this test."""
    document = yaml.safe_load((KUSTOMIZE / "base" / "policy.yaml").read_text())
    spec = document["spec"]
    spec["schedule"] = {"cron": "* * * * *"}
    spec["locations"] = [
        {"name": "bucket", "url": f"s3://backups/etcd?endpoint={endpoint}&region=us-east-1&pathStyle=true"}
    ]
    spec["encryption"] = {"recipientsFile": str(recipients)} | ({"identityFile": str(identity)} if identity else {})
    return yaml.safe_dump(document, sort_keys=False)


def overlay(folder, image, endpoint):
    """Write a kustomization over the base, as a user does: policy, schedule and image."""
    name, _, tag = image.partition(":")
    (folder / "policy.yaml").write_text(policy_text(endpoint, "/etc/clusterguard/secrets/recipients"))
    patch = [{"op": "replace", "path": "/spec/schedule", "value": "* * * * *"}]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUSTOMIZE / "base", folder)],
        "images": [{"name": "clusterguard", "newName": name, "newTag": tag}],
        "configMapGenerator": [
            {
                "name": "control-plane-policy",
                "namespace": NAMESPACE,
                "behavior": "replace",
                "files": ["policy.yaml"],
                "options": {"disableNameSuffixHash": True},
            }
        ],
        "patches": [
            {"target": {"kind": "CronJob", "name": "control-plane-backup"}, "patch": yaml.safe_dump(patch)},
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))


def secret(name, **data):
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


@pytest.fixture(scope="module")
def ground(image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kustomize")
    identity = pyrage.x25519.Identity.generate()
    (folder / "identity").write_text(f"{identity}\n")
    (folder / "identity").chmod(0o600)
    (folder / "recipients.txt").write_text(f"{identity.to_public()}\n")
    marker = secrets.token_hex(8)
    with (
        KindCluster(f"clusterguard-test-{secrets.token_hex(4)}") as cluster,
        ContainerS3Server(network=cluster.docker_network) as s3,
        pytest.MonkeyPatch.context() as patched,
    ):
        s3.create_bucket("backups")
        cluster.load_image(image)
        api = cluster.api
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        metadata = {"name": "marker", "namespace": "default"}
        api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"marker": marker}})
        api.apply(secret("clusterguard-writer", credentials=s3.credentials_file()))
        api.apply(secret("clusterguard-keeper", credentials=s3.credentials_file()))
        api.apply(secret("clusterguard-secrets", recipients=f"{identity.to_public()}\n"))
        overlay(folder, image, s3.endpoint_for_pods)
        _kubectl(cluster, "apply", "-k", str(folder))
        jobs = _await_a_job(cluster)
        _kubectl(cluster, "-n", NAMESPACE, "delete", "cronjob", "control-plane-backup")
        # This machine speaks to the bucket with the same credentials, by AWS's own variable.
        (folder / "credentials").write_text(s3.credentials_file())
        patched.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
        yield Ground(cluster=cluster, s3=s3, folder=folder, marker=marker, jobs=jobs)


def _kubectl(cluster, *words):
    command = ["kubectl", f"--kubeconfig={cluster.kubeconfig}", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _await_a_job(cluster):
    """Return the Jobs that the CronJob made, once one of them has succeeded; nobody here creates one."""
    api, deadline = cluster.api, time.monotonic() + FIRES_WITHIN
    selector = "app.kubernetes.io/component=backup"
    while time.monotonic() < deadline:
        jobs = list(api.list(api.resource("Job"), NAMESPACE, label_selector=selector))
        if any(job.get("status", {}).get("succeeded") for job in jobs):
            return jobs
        time.sleep(2)
    told = _kubectl(cluster, "-n", NAMESPACE, "describe", "pods,cronjobs,jobs")
    logs = _kubectl(cluster, "-n", NAMESPACE, "logs", "--prefix", "--tail=50", "-l", selector)
    raise AssertionError(f"no Job of the CronJob succeeded within {FIRES_WITHIN} s\n{told}\n{logs}")


def test_the_cronjob_fired_by_itself(ground):
    owners = {(owner["kind"], owner["name"]) for job in ground.jobs for owner in job["metadata"]["ownerReferences"]}

    assert owners == {("CronJob", "control-plane-backup")}


def test_what_lies_in_the_bucket_is_encrypted(ground):
    store = ground.s3.store("backups", "etcd/control-plane")
    keys = [each.key for each in store.list("etcd/")]
    encrypted = [key for key in keys if key.endswith(".db.zst.age")]

    assert encrypted
    assert not [key for key in keys if key.endswith(".db")]
    for key in encrypted:
        with store.get(key) as reader:
            assert reader.read(22) == b"age-encryption.org/v1\n"


def test_it_opens_with_the_private_key_and_is_a_whole_snapshot(ground):
    policy = ground.policy()
    (location,) = open_locations(policy)
    store = EncryptedStore(location.of_source("etcd"), encryption_of(policy, os.environ))
    newest = max(location.catalog().of_source("etcd"), key=lambda entry: entry.created)

    report = EtcdSnapshotter(store=store).verify(newest.name)

    assert report.ok, report
    assert newest.encrypted
    assert newest.verified is not None  # by the pod itself, which read the stored bytes back
    assert newest.depth == "bytes"  # and could do no more: it has no key


def test_the_trail_says_who_did_it(ground):
    store = ground.s3.store("backups", "etcd/control-plane")
    (first, *_) = [each.key for each in store.list(".clusterguard/audit/")]
    with store.get(first) as reader:
        text = reader.read().decode()

    assert "cronjob clusterguard/control-plane-backup" in text


def drill(folder, marker):
    """Write a drill that restores the newest backup into a new cluster, and looks for the marker."""
    document = {
        "apiVersion": "clusterguard.dev/v1alpha1",
        "kind": "Drill",
        "metadata": {"name": f"stored-{marker[:8]}"},
        "spec": {
            "clusters": {"fresh": {"embedded": {}}},
            "backup": [{"storedBackup": {"name": "nightly", "policy": "policy.yaml", "source": "etcd"}}],
            "restore": [{"etcdRestore": {"from": "nightly"}}],
            "verify": [
                {
                    "assert": {
                        "resource": {
                            "apiVersion": "v1",
                            "kind": "ConfigMap",
                            "metadata": {"name": "marker", "namespace": "default"},
                            "data": {"marker": marker},
                        }
                    },
                    "timeout": "20s",
                }
            ],
        },
    }
    file = folder / f"{marker[:8]}.drill.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def proved(ground, marker):
    """Return the outcome of a run that proves the backup, by a drill of the policy."""
    file = drill(ground.folder, marker)
    proofs = [{"name": f"p-{marker[:8]}", "drill": file.name, "source": "etcd", "every": "1d"}]
    policy = ground.policy(extra=f"  proofs: {yaml.safe_dump(proofs, default_flow_style=True)}")
    (proof,) = policy.proofs
    assert proof.every == timedelta(days=1)
    report = PolicyRunner(policy=policy, environ=os.environ).run(["prove"])
    return report, [step for step in report.steps if step.verb == "prove"]


def test_a_drill_restores_it_into_a_fresh_cluster_and_finds_what_was_there(ground):
    report, (step,) = proved(ground, ground.marker)

    assert report.outcome == "ok", [str(each) for each in report.steps]
    assert "proven, everything back in" in step.detail


def test_the_same_drill_is_red_for_what_was_not_there(ground):
    report, (step,) = proved(ground, "0123456789abcdef")

    assert report.outcome == "failed"
    assert step.outcome == "failed"


# ---- the fleet, on Kubernetes itself -----------------------------------------------------------------------

CONTROL_PLANE = ("etcd", "etcdutl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
FLEET_SECONDS = 600
FLEET = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Fleet
metadata: {name: shops}
spec:
  drills: [settings.drill.yaml]
  clusters:
  - {name: berlin, cluster: embedded, variables: {EXPECTED: "1"}}
  - {name: oslo, cluster: embedded, variables: {EXPECTED: "2"}}
"""
SETTINGS = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: settings}
spec:
  scope: {namespaces: [shop]}
  setup: [{apply: {file: shop.yaml}}]
  backup: [{etcdSnapshot: {name: before}}]
  fault: [{delete: {kind: ConfigMap, namespace: shop, name: settings}}]
  restore: [{etcdRestore: {from: before}}]
  verify:
  - restored: {identity: uid}
  - assert: {resource: {apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: shop},
                        data: {expected: "${env.EXPECTED}"}}}
    timeout: 5s
"""
SHOP = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {expected: "1"}
"""


@pytest.fixture
def image_with_programs(image, toolchain, tmp_path):
    """An image with the programs of a control plane: two lines over the image, as docs/how-to say."""
    for name, path in toolchain.ensure(*CONTROL_PLANE).items():
        shutil.copy(path, tmp_path / name)
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nCOPY {' '.join(CONTROL_PLANE)} /usr/local/bin/\n")
    tag = f"clusterguard-test-programs:{secrets.token_hex(4)}"
    docker("build", "--tag", tag, str(tmp_path), seconds=600)
    yield tag
    docker("rmi", tag)


def test_one_job_drills_a_fleet_and_leaves_the_results_in_the_bucket(ground, image_with_programs, tmp_path):
    for name, text in (("fleet.yaml", FLEET), ("settings.drill.yaml", SETTINGS), ("shop.yaml", SHOP)):
        (tmp_path / name).write_text(text)
    fleet = load_fleet(tmp_path / "fleet.yaml")
    ground.s3.create_bucket("results")
    location = "s3://results?endpoint={}&region=us-east-1&pathStyle=true"
    options = FleetJobOptions(results=location.format(ground.s3.endpoint_for_pods), image=image_with_programs)
    config, job = fleet_manifests(fleet, options=options)
    ground.cluster.load_image(image_with_programs)
    api = ground.cluster.api
    api.apply(config)
    name = api.create(job)["metadata"]["name"]

    ended = api.wait_for(
        api.resource("Job"),
        name,
        NAMESPACE,
        until=lambda seen: any(
            each["type"] in ("Complete", "Failed") and each["status"] == "True"
            for each in (seen or {}).get("status", {}).get("conditions", ())
        ),
        what="the fleet's Job to end",
        timeout_seconds=FLEET_SECONDS,
    )

    report = read_report(ground.s3.store("results"), fleet, run=name)
    assert {each.cluster: str(each.outcome) for each in report.clusters} == {"berlin": "PROVEN", "oslo": "NOT PROVEN"}
    assert ended["status"]["completedIndexes"] == "0"
    assert ended["status"]["failedIndexes"] == "1"
    # A verdict is final: the red one was run once.
    pods = [each for each in api.list(api.resource("Pod"), NAMESPACE) if each["metadata"]["name"].startswith(name)]
    assert len(pods) == 2
