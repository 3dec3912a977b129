"""The manifests on a real API server: it takes them, Pod Security lets the pods in, and RBAC does what it should."""

from __future__ import annotations

from contextlib import contextmanager, suppress

import pytest
import yaml
from policies_in_pods import PROVEN, SHOP, policy_in

from clusterguard.clusters import EmbeddedCluster, KubeClient
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.errors import ForbiddenError
from clusterguard.policies.deploy.kubernetes import CronJobOptions, cronjob_manifests
from clusterguard.policies.fleet.files import load_fleet
from clusterguard.policies.fleet.job import FleetJobOptions, fleet_manifests
from clusterguard.velero import InstallOptions, LocationSpec, VeleroClient
from clusterguard.velero.install import install
from clusterguard.velero.objects import resource_of
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.resources import Backup, DownloadKind
from policies_for_pods import NODE_ETCD, SECRET_ETCD

pytestmark = pytest.mark.programs

FLEET = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Fleet
metadata: {name: shops}
spec:
  drills: [x.drill.yaml]
  clusters:
  - {name: berlin, cluster: "kubeconfig:/etc/clusterguard/secrets/berlin"}
"""
DRILL = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: pods}
spec:
  backup: [{etcdSnapshot: {name: before}}]
  fault: [{delete: {kind: Pod, namespace: shop, all: true}}]
  restore: [{etcdRestore: {from: before}}]
  verify: [{ready: {kind: Pod, namespace: shop}}]
"""
STRICT = {"dryRun": "All", "fieldManager": "test", "force": "true", "fieldValidation": "Strict"}
LEVELS = ("restricted", "baseline", "privileged")


@pytest.fixture(scope="module")
def cluster(toolchain, tmp_path_factory):
    with EmbeddedCluster(toolchain=toolchain, home=tmp_path_factory.mktemp("clusters")) as running:
        yield running


@pytest.fixture(scope="module")
def api(cluster):
    return cluster.api


@pytest.fixture
def full_policy(tmp_path):
    (tmp_path / "prove.drill.yaml").write_text("kind: Drill\n")
    return policy_in(tmp_path, NODE_ETCD, SHOP, proofs=(PROVEN,))


def of_kind(objects, kind):
    return [each for each in objects if each["kind"] == kind]


def dry_run(api, manifest):
    """Apply something strictly (an unknown field is an error), without any effect."""
    metadata = manifest["metadata"]
    resource = api.resource(manifest["kind"], api_version=manifest["apiVersion"])
    path = resource.path(metadata.get("namespace"), metadata["name"])
    api.request("PATCH", path, query=STRICT, body=manifest, content_type="application/apply-patch+yaml")


def let_in(api, pod, namespace):
    """Return whether admission lets a pod into a namespace; nothing is created."""
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": namespace}, "spec": pod}
    with suppress(_NotLetInError), _told():
        api.request("POST", f"/api/v1/namespaces/{namespace}/pods", query={"dryRun": "All"}, body=manifest)
        return True
    return False


class _NotLetInError(Exception):
    """Pod Security refused; any other refusal is an error of the test."""


@contextmanager
def _told():
    try:
        yield
    except ForbiddenError as error:
        if "violates PodSecurity" in error.message:
            raise _NotLetInError from error
        raise


@pytest.fixture(scope="module")
def levels(api):
    """A namespace for each level of Pod Security, with the accounts of the pods."""
    for level in LEVELS:
        labels = {"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/enforce-version": "latest"}
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": level, "labels": labels}})
        for group in ("backup", "retain", "verify", "prove"):
            metadata = {"name": f"production-{group}", "namespace": level}
            api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    return LEVELS


def test_the_server_takes_every_object_by_the_letter(api, full_policy):
    for namespace in ("clusterguard", "velero"):
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    objects = cronjob_manifests(full_policy, options=CronJobOptions(claims={"/backups": "backups"}))

    for each in objects:
        dry_run(api, each)

    assert len(of_kind(objects, "CronJob")) == 4


def admitted(api, levels, policy):
    """Return the levels that let each pod in, by what it does."""
    jobs = of_kind(cronjob_manifests(policy, options=CronJobOptions()), "CronJob")
    return {
        job["metadata"]["labels"]["app.kubernetes.io/component"]: {
            level for level in levels if let_in(api, job["spec"]["jobTemplate"]["spec"]["template"]["spec"], level)
        }
        for job in jobs
    }


def test_only_the_pod_that_reads_the_node_needs_a_privileged_namespace(api, levels, full_policy):
    everywhere = set(LEVELS)

    assert admitted(api, levels, full_policy) == {
        "backup": {"privileged"},
        "retain": everywhere,
        "verify": everywhere,
        "prove": everywhere,
    }


def test_with_a_certificate_from_a_secret_all_pods_are_restricted(api, levels, tmp_path):
    assert admitted(api, levels, policy_in(tmp_path, SECRET_ETCD))["backup"] == set(LEVELS)


def test_the_job_of_a_fleet_is_taken_by_the_letter_and_restricted(api, levels, tmp_path):
    (tmp_path / "fleet.yaml").write_text(FLEET)
    (tmp_path / "x.drill.yaml").write_text(DRILL)
    fleet = load_fleet(tmp_path / "fleet.yaml")
    for schedule in ("", "0 3 * * 0"):
        options = FleetJobOptions(results="s3://results", namespace="restricted", schedule=schedule)
        config, job = fleet_manifests(fleet, options=options)
        dry_run(api, config)
        named = {**job["metadata"], "name": "fleet-1"}
        named.pop("generateName", None)
        dry_run(api, {**job, "metadata": named})

    assert let_in(api, job["spec"]["jobTemplate"]["spec"]["template"]["spec"], "restricted")


# ---- rights ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def velero_installed(cluster, toolchain, tmp_path_factory):
    """A Velero server with a location in a real bucket."""
    programs = toolchain.ensure("velero", "velero-plugin-for-aws", "versitygw")
    s3 = LocalS3Server(program=programs["versitygw"], folder=tmp_path_factory.mktemp("s3"))
    s3.create_bucket("velero")
    with s3:
        install(InstallOptions(replicas=0), api=cluster.api, velero=programs["velero"], wait_seconds=None)
        cluster.velero_server.start()
        spec = LocationSpec(
            bucket="velero",
            config={"region": s3.region, "s3ForcePathStyle": "true", "s3Url": s3.endpoint},
            credentials=s3.credentials_file(),
            default=True,
        )
        VeleroClient(api=cluster.api).locations.create("default", spec)
        yield
        cluster.velero_server.stop()


@pytest.fixture(scope="module")
def as_backup(cluster, velero_installed, tmp_path_factory):
    """A client with the rights of the backup's ServiceAccount, by a token of it, as its pod has."""
    folder = tmp_path_factory.mktemp("policy")
    api = cluster.api
    for each in cronjob_manifests(policy_in(folder, SHOP), options=CronJobOptions(namespace="rights")):
        if each["kind"] != "CronJob":
            api.apply(each)
    path = "/api/v1/namespaces/rights/serviceaccounts/production-backup/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = api.request("POST", path, body=asked).json()["status"]["token"]
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
    (folder / "token").write_text(token)
    kubeconfig["users"][0]["user"] = {"tokenFile": str(folder / "token")}
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    with KubeClient.from_kubeconfig(folder / "kubeconfig") as client:
        yield client


def test_its_rights_are_enough_for_a_backup_and_for_judging_it(api, as_backup):
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "orders", "namespace": "shop"}})
    velero = VeleroClient(api=as_backup)

    backup = velero.back_up("shop-1", BackupOptions(included_namespaces=("shop",)), timeout_seconds=60)
    velero.outcome(backup).raise_for_findings()

    # What is only asked when something is slow, or told warnings.
    assert velero.status().version
    assert velero._downloads.document(DownloadKind.BACKUP_RESULTS, "shop-1") == {"errors": {}, "warnings": {}}


REFUSED = [
    ("GET", "/api/v1/namespaces/velero/secrets"),
    ("GET", "/api/v1/secrets"),
    ("GET", "/api/v1/namespaces/rights/configmaps"),
    ("GET", "/api/v1/namespaces/rights/pods"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/apis/apps/v1/namespaces/velero/deployments"),
    ("DELETE", "/apis/velero.io/v1/namespaces/velero/backups/shop-1"),
    ("DELETE", "/apis/velero.io/v1/namespaces/velero/backups"),
    ("DELETE", "/apis/velero.io/v1/namespaces/velero/backupstoragelocations/default"),
    ("GET", "/apis/velero.io/v1/namespaces/velero/restores"),
    ("GET", "/apis/velero.io/v1/namespaces/other/backups"),
]
REFUSED_TO_CREATE = ["deletebackuprequests", "restores", "schedules", "backupstoragelocations"]


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_nothing_else_is_allowed(as_backup, method, path):
    with pytest.raises(ForbiddenError):
        as_backup.request(method, path)


@pytest.mark.parametrize("plural", REFUSED_TO_CREATE)
def test_nothing_that_deletes_or_restores_can_be_asked_for(as_backup, plural):
    body = {"apiVersion": "velero.io/v1", "metadata": {"generateName": "probe-"}, "spec": {}}
    body["kind"] = {"deletebackuprequests": "DeleteBackupRequest", "restores": "Restore", "schedules": "Schedule"}.get(
        plural, "BackupStorageLocation"
    )
    with pytest.raises(ForbiddenError):
        as_backup.request("POST", f"/apis/velero.io/v1/namespaces/velero/{plural}", query={"dryRun": "All"}, body=body)


def test_a_backup_cannot_be_changed(as_backup):
    with pytest.raises(ForbiddenError):
        as_backup.patch(resource_of(Backup), "shop-1", "velero", patch={"spec": {"ttl": "1m"}})


def test_a_location_cannot_be_turned_to_another_bucket(as_backup):
    path = "/apis/velero.io/v1/namespaces/velero/backupstoragelocations/default"
    with pytest.raises(ForbiddenError):
        as_backup.request("PATCH", path, body={"spec": {"readOnly": True}}, content_type="application/merge-patch+json")


def test_the_other_accounts_have_no_rights_at_all(cluster, as_backup, tmp_path):
    policy = policy_in(tmp_path, SHOP).model_copy(update={"proofs": ()})
    accounts = of_kind(cronjob_manifests(policy, options=CronJobOptions(namespace="rights")), "ServiceAccount")
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}

    for account in accounts[1:]:
        user = f"system:serviceaccount:rights:{account['metadata']['name']}"
        asked = {"namespace": "velero", "verb": "list", "group": "velero.io", "resource": "backups"}
        spec = {"user": user, "resourceAttributes": asked}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = cluster.api.request("POST", path, body={**review, "spec": spec}).json()
        assert not answer["status"]["allowed"]
