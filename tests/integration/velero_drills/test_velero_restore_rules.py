"""What a real Velero restore changes in a namespace of every common kind: named rules explain it, and nothing else."""

from pathlib import Path

import pytest
import yaml

from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.model.inventory import Scope
from clusterguard.model.report import FindingKind
from clusterguard.validate import RestoreValidator, Selection
from clusterguard.validate.compare import FINISHED_WORK
from clusterguard.velero import LocationSpec
from clusterguard.velero.options import BackupOptions, RestoreOptions

# The machine has one Velero server; waiting for other users of it takes longer than any test.
pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(900)]

MANIFESTS = Path(__file__).with_name("rich-namespace.yaml")
SPACE = "rich"


@pytest.fixture(scope="module")
def location(velero, toolchain, tmp_path_factory):
    program = toolchain.ensure("versitygw")["versitygw"]
    with LocalS3Server(program=program, folder=tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket("rules")
        config = {"region": server.region, "s3ForcePathStyle": "true", "s3Url": server.endpoint}
        spec = LocationSpec(bucket="rules", config=config, credentials=server.credentials_file())
        velero.locations.create("rules", spec)
        yield "rules"


@pytest.fixture(scope="module")
def restored(velero, velero_cluster, api, location):
    """Back a namespace up, lose it, restore it; return the validator, what was there, and Velero's outcome."""
    validator = RestoreValidator(api=api, digest_key=b"for tests")
    definition, *objects = yaml.safe_load_all(MANIFESTS.read_text())
    api.apply(definition)
    validator.wait_ready(Selection(kind="CustomResourceDefinition"), timeout_seconds=30)
    api.resources(refresh=True)
    # A server learns of new definitions every five minutes, and leaves out what it does not know without a word.
    velero_cluster.velero_server.stop()
    velero_cluster.velero_server.start()
    for manifest in objects:
        api.apply(manifest)
    for kind in ("Deployment", "StatefulSet", "Job"):
        validator.wait_ready(Selection(kind=kind, namespace=SPACE), timeout_seconds=60)
    _wait_for_done(api)
    before = validator.capture(Scope(namespaces=(SPACE,)))
    options = BackupOptions(included_namespaces=(SPACE,), storage_location=location)
    velero.outcome(velero.back_up("rich", options, timeout_seconds=120)).raise_for_findings()
    _lose(api)
    done = velero.restore("rich", RestoreOptions(), timeout_seconds=120)
    for kind in ("Deployment", "StatefulSet"):
        validator.wait_ready(Selection(kind=kind, namespace=SPACE), timeout_seconds=60)
    return validator, before, velero.outcome(done)


def _wait_for_done(api):
    api.wait_for(
        api.resource("Job"),
        "migrate",
        SPACE,
        until=lambda job: job is not None and job.get("status", {}).get("succeeded") == 1,
        what="the job is done",
        timeout_seconds=60,
    )


def _lose(api):
    namespace = api.resource("Namespace")
    api.delete(namespace, SPACE)
    api.wait_for(namespace, SPACE, until=lambda seen: seen is None, what=f"{SPACE} goes", timeout_seconds=120)


def test_every_kind_is_in_the_comparison(restored):
    _, before, _ = restored
    assert {ref.kind for ref in before.objects} >= {
        *("Namespace", "ConfigMap", "Secret", "Service", "ServiceAccount", "PersistentVolumeClaim"),
        *("Deployment", "ReplicaSet", "StatefulSet", "Job", "CronJob", "Pod"),
        *("Ingress", "NetworkPolicy", "Role", "RoleBinding", "HorizontalPodAutoscaler", "PodDisruptionBudget"),
        *("LimitRange", "ResourceQuota", "Gadget"),
    }


def test_velero_stumbles_over_nothing_but_the_definition_that_is_still_there(restored):
    """It belongs to the whole cluster, so it outlived the namespace; Velero calls it different, and it is not."""
    _, _, outcome = restored
    assert outcome.phase == "Completed"
    assert outcome.ok, outcome.to_text()
    assert {(str(each.rule), each.ref.kind) for each in outcome.tolerated} == {
        ("exists-same", "CustomResourceDefinition"),
        ("root-ca-exists", "ConfigMap"),
    }, outcome.to_text()


def test_rules_explain_all_that_a_restore_changes(restored):
    validator, before, _ = restored
    report = validator.validate(before, profile="velero-restore")
    assert [finding for finding in report.findings if finding.kind is not FindingKind.MISSING] == [], report.to_text()
    assert report.compared == len(before.objects)
    rules = {item.rule for item in report.suppressed}
    assert rules >= {"new identity", "velero labels", "service addresses", "issued tokens", "name pattern", "status"}


def test_nothing_but_finished_work_stays_away(restored):
    """Velero restores no Job that is done, and no pod that has ended: there is nothing left for them to do."""
    validator, before, _ = restored
    report = validator.validate(before, profile="velero-restore")
    assert report.ok, report.to_text()
    away = {item.ref for item in report.suppressed if item.rule == FINISHED_WORK}
    assert {ref.full_kind for ref in away} == {"Job.batch", "Pod"}
    assert {ref.name.partition("-")[0] for ref in away} == {"migrate"}


def test_the_rules_of_other_ways_back_do_not(restored):
    """Otherwise the profile would not be needed, and this test would prove nothing."""
    validator, before, _ = restored
    for profile in ("etcd-restore", "same-cluster"):
        assert not validator.validate(before, profile=profile).ok
