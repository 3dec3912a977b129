"""What a drill expects, tolerates and leaves behind, beside a real Velero server."""

import time
from contextlib import suppress
from datetime import timedelta

import pytest
import yaml

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drill
from clusterguard.errors import ResourceNotFoundError

# The machine has one Velero server; waiting for other users of it takes longer than any test.
pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}


def config_map(name, **labels):
    metadata = {"name": name, "namespace": "shop", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"page": "open"}}


def job(name, **spec):
    """A Job whose pod fits no node, so that it runs until it is ended."""
    container = {"name": "work", "image": "busybox"}
    pod = {
        "restartPolicy": "Never",
        "nodeSelector": {"no": "where"},
        "containers": [container],
        "terminationGracePeriodSeconds": 0,
    }
    metadata = {"name": name, "namespace": "shop"}
    spec = {"backoffLimit": 0, **spec, "template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


@pytest.fixture
def run(velero_cluster, tmp_path):
    """Run a drill of one namespace that is lost and restored; whatever comes of it, nothing stays."""

    def run(*objects, backup=None, restore=None, verified=False, **spec):
        document = {
            "apiVersion": "clusterguard.dev/v1alpha1",
            "kind": "Drill",
            "metadata": {"name": "outcome"},
            "spec": {
                "storage": {"backups": {"s3": {"bucket": "drill-backups", "endpoint": "local"}}},
                "scope": {"namespaces": ["shop"]},
                "setup": [{"apply": {"manifest": [NAMESPACE, *objects]}}],
                "backup": [
                    {
                        "veleroBackup": {"name": "shop", "storage": "backups", "namespaces": ["shop"]} | (backup or {}),
                        "timeout": "3m",
                    },
                    *([{"verifyBackup": {"backup": "shop"}}] if verified else []),
                ],
                "fault": [{"delete": {"kind": "Namespace", "name": "shop"}, "timeout": "2m"}],
                "restore": [{"veleroRestore": {"from": "shop"} | (restore or {}), "timeout": "3m"}],
                "verify": [{"restored": {}, "timeout": "30s"}],
                **spec,
            },
        }
        file = tmp_path / "outcome.drill.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        settings = DrillSettings(open=lambda _: velero_cluster, longest_wait=timedelta(seconds=30))
        result = DrillRunner(settings=settings).run(load_drill(file))
        assert [step for step in result.steps if step.phase == "cleanup" and step.verdict is not Verdict.PASS] == []
        left = {item["metadata"]["name"] for item in velero_cluster.api.list(velero_cluster.api.resource("Namespace"))}
        assert left <= {"default", "kube-node-lease", "kube-public", "kube-system", "velero"}
        return result

    return run


@pytest.fixture
def jobs(around, api):
    """A failed Job and one that runs, as they are when the backup phase begins."""

    def until_failed(*_):
        def failed(item):
            return any(each["type"] == "Failed" for each in (item or {}).get("status", {}).get("conditions", ()))

        api.wait_for(api.resource("Job"), "failed", "shop", until=failed, what="a Job fails", timeout_seconds=60)
        deadline = time.monotonic() + 30
        while not list(api.list(api.resource("Pod"), "shop")) and time.monotonic() < deadline:
            time.sleep(0.1)

    around("apply", after=until_failed)
    return (job("failed", activeDeadlineSeconds=1), job("running"))


@pytest.mark.parametrize(
    ("tolerate", "verdict"),
    [
        (["job-runs-again", "job-runs-twice"], Verdict.PASS),
        (["job-runs-again"], Verdict.FAIL),
        pytest.param([], Verdict.FAIL, marks=pytest.mark.slow),
    ],
)
def test_a_restore_of_failed_and_running_jobs_is_green_only_for_who_tolerates_both(run, jobs, tolerate, verdict):
    result = run(*jobs, config_map("web"), restore={"tolerate": tolerate})
    assert result.verdict is verdict, result
    if verdict is Verdict.PASS:
        assert result.tolerated == {"job-runs-again": 1, "job-runs-twice": 1}
        assert "pod of a Job that runs again" in result.suppressed
    else:
        assert result.code == "restore-failed"
        assert "job-runs-twice: Job.batch shop/running" in result.reason


POLICY = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "no-denied"},
    "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
            ]
        },
        "validations": [{"expression": "object.metadata.name != 'denied'"}],
    },
}
BINDING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicyBinding",
    "metadata": {"name": "no-denied"},
    "spec": {"policyName": "no-denied", "validationActions": ["Deny"]},
}


@pytest.mark.parametrize(
    ("denied", "action", "code"),
    [
        (True, {"expect": "PartiallyFailed"}, ""),
        pytest.param(True, {"tolerate": ["partially-failed", "error"]}, "", marks=pytest.mark.slow),
        pytest.param(True, {"tolerate": ["partially-failed"]}, "restore-failed", marks=pytest.mark.slow),
        (True, {}, "restore-failed"),
        (False, {"expect": "PartiallyFailed"}, "unexpected-outcome"),
    ],
)
def test_a_partial_restore_is_green_only_where_it_is_expected_or_tolerated(run, around, api, denied, action, code):
    def deny(*_):
        if denied:
            api.apply(POLICY)
            api.apply(BINDING)
            time.sleep(3)  # until the API server goes by it

    def allow():
        for item in (BINDING, POLICY) if denied else ():
            with suppress(ResourceNotFoundError):
                api.delete(api.resource_of(item), "no-denied")
        time.sleep(3 if denied else 0)

    around("veleroRestore", before=deny)
    try:
        verify = [{"restored": {"missing": "<=1"}, "timeout": "30s"}]
        result = run(config_map("web"), config_map("denied"), restore=action, verify=verify)
    finally:
        allow()
    assert result.code == code, (result.reason, result)
    assert (result.verdict is Verdict.PASS) == (not code)
    if not code:
        assert result.tolerated == {"partially-failed": 1, "error": 1}


def test_a_partial_backup_that_is_expected_is_verified_and_restored(run):
    hook = {
        "pre.hook.backup.velero.io/command": '["/bin/true"]',
        "pre.hook.backup.velero.io/container": "work",
        "pre.hook.backup.velero.io/on-error": "Fail",
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker", "namespace": "shop", "annotations": hook},
        "spec": {"containers": [{"name": "work", "image": "busybox"}], "terminationGracePeriodSeconds": 0},
    }
    ready = {"ready": {"kind": "Pod", "namespace": "shop", "name": "worker"}, "timeout": "1m"}
    setup = [{"apply": {"manifest": [NAMESPACE, pod, config_map("web")]}}, ready]
    scope = {"namespaces": ["shop"], "kinds": ["ConfigMap"]}
    expected = {"expect": "PartiallyFailed", "tolerate": ["hook-failed"]}
    for backup, verdict in ((expected, Verdict.PASS), ({"expect": "PartiallyFailed"}, Verdict.ERROR)):
        result = run(backup=backup, verified=True, setup=setup, scope=scope)
        assert result.verdict is verdict, result.reason


def test_a_namespace_that_velero_makes_without_a_label_is_removed(run, api, around):
    bare = []

    def look(*_):
        bare.append(api.get(api.resource("Namespace"), "shop")["metadata"].get("labels", {}))

    around("veleroRestore", after=look)
    scope = {"namespaces": ["shop"], "kinds": ["ConfigMap"]}
    result = run(config_map("web"), backup={"kinds": ["ConfigMap"]}, scope=scope)
    assert result.verdict is Verdict.PASS, result
    assert "clusterguard.dev/run" not in bare[0]


def test_a_marker_takes_no_namespace_along_into_a_backup_by_selector(run, around):
    listed = []

    def look(run, action):
        client = run.velero.client("main")
        listed.append(client.resource_list(client.backup(run.velero.taken(action.name).name)))

    around("veleroBackup", after=look)
    fault = [{"delete": {"kind": "ConfigMap", "namespace": "shop", "selector": "tier=data"}}]
    result = run(
        config_map("web"),
        config_map("flour", tier="data"),
        backup={"namespaces": [], "selector": "tier in (data,cache)"},
        scope={"selector": "tier=data"},
        fault=fault,
    )
    assert result.verdict is Verdict.PASS, result
    assert listed[0]["v1/Namespace"] == ["shop"]
    assert sorted(each.partition("-marker-")[0] for each in listed[0]["v1/ConfigMap"]) == [
        "shop/clusterguard",
        "shop/flour",
    ]


def test_a_backup_that_can_hold_no_marker_is_green_by_what_the_restore_lists(run):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "shop"}}
    result = run(secret, backup={"kinds": ["Namespace", "Secret"]})
    assert result.verdict is Verdict.PASS, result
    [step] = [step for step in result.steps if step.title == "markers"]
    assert "`kinds` of veleroBackup leaves ConfigMaps out" in step.detail


def test_nothing_of_a_scope_is_there_is_one_check(run):
    verify = [{"restored": {}, "timeout": "30s"}, {"empty": {"namespaces": ["shop"]}, "timeout": "1s"}]
    renamed = {"namespaceMapping": {"shop": "shop-restored"}}
    assert run(config_map("web"), restore=renamed, verify=verify).verdict is Verdict.PASS
    result = run(config_map("web"), verify=verify)
    assert result.verdict is Verdict.FAIL
    assert "Namespace shop" in next(step.detail for step in result.steps if step.title == "empty")


def test_objects_of_a_kind_that_velero_does_not_know_yet_are_missed(run, api):
    """Velero 1.18.3 calls such a backup Completed, with no warning."""
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "breads.late.example.com"},
        "spec": {
            "group": "late.example.com",
            "scope": "Namespaced",
            "names": {"plural": "breads", "singular": "bread", "kind": "Bread"},
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
    bread = {
        "apiVersion": "late.example.com/v1",
        "kind": "Bread",
        "metadata": {"name": "rye", "namespace": "shop"},
    }
    result = run(definition, bread, config_map("web"))
    assert (result.verdict, result.code) == (Verdict.ERROR, "backup-failed"), result
    assert "kind-undiscovered: objects of Bread.late.example.com" in result.reason
    assert "fault" not in {phase.name for phase in result.phases}
