"""What Velero's own server calls Completed, or different, and what is told of it."""

from __future__ import annotations

import pytest
from velero_names import unique

from clusterguard.errors import ConfigError
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.options import BackupOptions, RestoreOptions
from clusterguard.velero.outcome import Rule
from clusterguard.velero.resources import Backup
from clusterguard.velero.selectors import LabelSelector

pytestmark = [pytest.mark.programs, pytest.mark.timeout(300)]

NOWHERE = {
    "restartPolicy": "Never",
    "nodeSelector": {"no": "node"},
    "containers": [{"name": "work", "image": "busybox"}],
    "terminationGracePeriodSeconds": 0,
}


def rules(outcome):
    return sorted(finding.rule for finding in outcome.findings)


def settle(api, kind, name, namespace, until):
    return api.wait_for(
        api.resource(kind),
        name,
        namespace,
        until=lambda seen: seen is not None and until(seen),
        what=f"{kind} {name}",
        timeout_seconds=60,
    )


def back_up(velero, **spec):
    """Make a backup as somebody else's tool does, whatever we would write."""
    made = Backup.new(namespace="velero", name=unique("raw"), spec={"storageLocation": "default", **spec})
    return velero.wait(velero.objects.create(made), timeout_seconds=120)


# ---- backups ---------------------------------------------------------------------------------------------


def test_a_backup_of_a_bare_namespace_is_a_finding(velero, shop):
    nobody = LabelSelector.parse("app=nobody")
    backup = velero.back_up(unique("bare"), BackupOptions(included_namespaces=(shop,), label_selector=nobody))
    assert velero.resource_list(backup) == {"v1/Namespace": [shop]}
    assert rules(velero.outcome(backup)) == [Rule.NOTHING_BACKED_UP]


def test_a_glob_that_matches_no_namespace_is_a_finding(velero, shop):
    backup = velero.back_up(unique("glob"), BackupOptions(included_namespaces=(shop, "nobody-*")))
    assert rules(velero.outcome(backup)) == [Rule.FILTER_MATCHES_NOTHING]


def test_an_empty_selector_backs_up_what_it_says(velero, shop):
    options = BackupOptions(included_namespaces=(shop,), label_selector=LabelSelector())
    backup = velero.back_up(unique("empty"), options)
    velero.outcome(backup).raise_for_findings()
    assert f"{shop}/settings-1" in velero.resource_list(backup)["v1/ConfigMap"]


def test_lines_that_are_all_the_same_are_told_once(velero, shop):
    backup = back_up(velero, includedNamespaces=[shop], labelSelector={})  # which Velero cannot read
    outcome = velero.outcome(backup)
    assert rules(outcome) == [Rule.ERROR, Rule.ERROR, Rule.NOTHING_BACKED_UP, Rule.PARTIALLY_FAILED]
    errors = [each.count for each in outcome.findings if each.rule is Rule.ERROR]
    assert sum(errors) == backup.errors
    assert min(errors) > 10


def test_everything_is_everything(velero, api):
    name = unique("gold")
    api.apply({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 5})
    asked = velero.back_up(unique("all"), BackupOptions(excluded_namespaces=("velero",)))
    assert name in velero.resource_list(asked)["scheduling.k8s.io/v1/PriorityClass"]
    velero.outcome(asked).raise_for_findings()
    assert not velero.outcome(asked).tolerated

    plain = back_up(velero, includedNamespaces=["*"], excludedNamespaces=["velero"])
    assert "scheduling.k8s.io/v1/PriorityClass" not in velero.resource_list(plain)
    assert [each.rule for each in velero.outcome(plain).tolerated] == [Rule.LEFT_OUT_BY_FILTER]


def test_contents_of_a_namespace_without_the_namespace_are_a_finding(velero, shop, api):
    held = {"name": "held", "namespace": shop, "finalizers": ["example.com/held"]}
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": held})
    api.delete(api.resource("Namespace"), shop)
    try:
        backup = velero.back_up(unique("dying"), BackupOptions(included_namespaces=(shop,)))
        outcome = velero.outcome(backup)
        assert rules(outcome) == [Rule.NAMESPACE_LEFT_OUT]
        assert outcome.findings[0].ref == ObjectRef(kind="Namespace", namespace="", name=shop)
    finally:
        api.patch(api.resource("ConfigMap"), "held", shop, patch={"metadata": {"finalizers": None}})


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (BackupOptions(included_resources=("nosuchkinds",)), "unknown-kind"),
        (BackupOptions(included_cluster_scoped_resources=("configmaps",)), "wrong-scope"),
    ],
)
def test_kinds_that_match_nothing_do_not_reach_the_server(velero, options, code):
    known = {each.name for each in velero.backups()}
    with pytest.raises(ConfigError) as refused:
        velero.back_up(unique("kinds"), options)
    assert refused.value.code == code
    assert {each.name for each in velero.backups()} == known


def test_a_schedule_that_never_fires_does_not_reach_the_server(velero, shop):
    name = unique("never")
    with pytest.raises(ConfigError) as refused:
        velero.create_schedule(name, "0 0 30 2 *", BackupOptions(included_namespaces=(shop,)))
    assert refused.value.code == "never-fires"
    assert name not in {each.name for each in velero.schedules()}


# ---- restores --------------------------------------------------------------------------------------------


@pytest.fixture
def web(api, shop):
    """A Deployment with a running pod, a Service, and endpoints made by hand beside another Service."""
    labels = {"app": "web"}
    pod = {"containers": [{"name": "web", "image": "busybox"}], "terminationGracePeriodSeconds": 0}
    pods = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": pods}
    of_shop = {"namespace": shop}
    for item in (
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", **of_shop}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "out", **of_shop},
            "spec": {"ports": [{"port": 80}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "out", **of_shop},
            "subsets": [{"addresses": [{"ip": "10.9.9.9"}], "ports": [{"port": 80}]}],
        },
    ):
        api.apply(item)
    settle(api, "Deployment", "web", shop, lambda seen: seen.get("status", {}).get("readyReplicas") == 1)
    return shop


@pytest.mark.parametrize("policy", ["", "none", "update"])
def test_what_exists_as_it_was_is_no_finding(velero, api, web, policy):
    backup = velero.back_up(
        unique("in-place"), BackupOptions(included_namespaces=(web,), include_cluster_resources=True)
    )
    api.delete(api.resource("ConfigMap"), "settings-2", web)
    outcome = velero.outcome(velero.restore(backup.name, RestoreOptions(existing_resource_policy=policy)))
    outcome.raise_for_findings()
    assert {each.rule for each in outcome.tolerated} >= {Rule.EXISTS_SAME}, "Velero called some of it different"


def test_what_exists_and_differs_is_told_with_its_fields(velero, api, web):
    backup = velero.back_up(unique("differs"), BackupOptions(included_namespaces=(web,)))
    api.patch(api.resource("Deployment"), "web", web, patch={"spec": {"replicas": 2}})
    api.delete(api.resource("ConfigMap"), "settings-2", web)
    outcome = velero.outcome(velero.restore(backup.name))
    [finding] = [each for each in outcome.findings if each.ref.kind == "Deployment"]
    assert finding.rule is Rule.EXISTS_DIFFERENT
    assert "spec.replicas: 1 in the backup, 2 in the cluster" in finding.detail


def test_a_namespace_that_is_not_in_the_backup_is_told_although_another_one_is(velero, api, shop):
    backup = velero.back_up(unique("one"), BackupOptions(included_namespaces=(shop,)))
    api.delete(api.resource("ConfigMap"), "settings-2", shop)
    restore = velero.restore(backup.name, RestoreOptions(included_namespaces=(shop, "nobody")))
    assert rules(velero.outcome(restore)) == [Rule.FILTER_MATCHES_NOTHING]


def test_a_namespace_with_mirrored_slices_comes_back_clean_under_another_name(velero, api, web):
    backup = velero.back_up(unique("mirrored"), BackupOptions(included_namespaces=(web,)))
    restore = velero.restore(backup.name, RestoreOptions(namespace_mapping={web: unique("copy")}))
    velero.outcome(restore).raise_for_findings()


def test_jobs_that_run_again_are_told(velero, api, shop):
    template = {"spec": {"template": {"spec": NOWHERE}, "backoffLimit": 0}}
    of_shop = {"namespace": shop}
    cron = {"schedule": "0 0 1 1 *", "concurrencyPolicy": "Forbid", "jobTemplate": template}
    api.apply({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly", **of_shop}, "spec": cron})
    uid = api.get(api.resource("CronJob"), "nightly", shop)["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": uid, "controller": True}
    for name, owners, limit in (
        ("running", [], {}),
        ("failed", [], {"activeDeadlineSeconds": 1}),
        ("owned", [owner], {}),
    ):
        metadata = {"name": name, "ownerReferences": owners, **of_shop}
        api.apply(
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {**template["spec"], **limit}}
        )
    settle(api, "Job", "running", shop, lambda seen: seen.get("status", {}).get("active"))
    settle(api, "Job", "owned", shop, lambda seen: seen.get("status", {}).get("active"))
    settle(api, "Job", "failed", shop, lambda seen: seen.get("status", {}).get("conditions"))
    settle(api, "Job", "failed", shop, lambda seen: any(
        each["type"] == "Failed" for each in seen["status"]["conditions"]))  # fmt: skip
    backup = velero.back_up(unique("jobs"), BackupOptions(included_namespaces=(shop,)))
    restore = velero.restore(backup.name, RestoreOptions(namespace_mapping={shop: unique("again")}))
    outcome = velero.outcome(restore)
    assert sorted((each.rule, each.ref.name) for each in outcome.findings) == [
        (Rule.JOB_RUNS_AGAIN, "failed"),
        (Rule.JOB_RUNS_TWICE, "owned"),
        (Rule.JOB_RUNS_TWICE, "running"),
        (Rule.JOB_WITHOUT_OWNER, "owned"),
    ]
    tolerated = {Rule.JOB_RUNS_AGAIN, Rule.JOB_RUNS_TWICE, Rule.JOB_WITHOUT_OWNER, Rule.ROOT_CA_EXISTS}
    assert velero.outcome(restore, tolerate=tolerated).ok
