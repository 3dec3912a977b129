"""Fleet files: what may be written, and what is said of what may not."""

from __future__ import annotations

import json

import pytest
import yaml

from clusterguard.errors import ConfigError, InvalidDocumentError, InvalidDrillError
from clusterguard.policies.fleet.files import fleet_schema_text, load_fleet
from clusterguard.policies.fleet.job import FleetJobOptions, fleet_manifests
from whole_command_line import whole_command_line

FLEET = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Fleet
metadata: {name: shops}
spec:
  drills: [drills]
  clusters:
  - {name: berlin, cluster: "kubeconfig:/etc/clusterguard/secrets/berlin", labels: {region: eu}, variables: {SIZE: "1"}}
  - {name: oslo, cluster: "context:oslo", kubeconfig: /etc/clusterguard/secrets/oslo, variables: {SIZE: "3"}}
  - {name: fresh, cluster: embedded, variables: {SIZE: "1"}}
"""
DRILL = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: pods, labels: {tier: nightly}}
spec:
  scope: {namespaces: [shop]}
  setup: [{apply: {file: shop.yaml}}]
  backup: [{etcdSnapshot: {name: before}}]
  fault: [{delete: {kind: Pod, namespace: shop, all: true}}]
  restore: [{etcdRestore: {from: before}}]
  verify: [{ready: {kind: Pod, namespace: shop, count: "${env.SIZE}"}}]
"""


@pytest.fixture
def write(tmp_path):
    """Write a fleet with one drill, and return its path."""

    def write(text=FLEET):
        (tmp_path / "drills").mkdir(exist_ok=True)
        (tmp_path / "drills" / "pods.drill.yaml").write_text(DRILL)
        (tmp_path / "drills" / "shop.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
        (tmp_path / "fleet.yaml").write_text(text)
        return tmp_path / "fleet.yaml"

    return write


@pytest.fixture
def job_of(write):
    """Return the ConfigMap and the Job of a fleet."""

    def job_of(text=FLEET, **options):
        return fleet_manifests(load_fleet(write(text)), options=FleetJobOptions(results="s3://results", **options))

    return job_of


def test_a_fleet_is_read_with_its_clusters_in_order(write):
    fleet = load_fleet(write())

    assert [each.name for each in fleet.clusters] == ["berlin", "oslo", "fresh"]
    assert fleet.cluster(1).cluster == "context:oslo"
    assert fleet.drill_paths() == (fleet.path.parent / "drills" / "pods.drill.yaml",)


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_beyond_the_fleet_is_refused(write, index):
    with pytest.raises(ConfigError, match="no cluster with index"):
        load_fleet(write()).cluster(index)


def test_a_cluster_has_values_of_its_own_in_the_drills(write):
    fleet = load_fleet(write(FLEET.replace(', variables: {SIZE: "1"}', "")))
    (drill,) = fleet.load_drills(fleet.cluster(1), {"SIZE": "1"})
    (other,) = fleet.load_drills(fleet.cluster(0), {"SIZE": "1"})

    assert "3" in str(drill.phase("verify")[0].action.count)
    assert "1" in str(other.phase("verify")[0].action.count)
    with pytest.raises(InvalidDrillError, match="SIZE"):
        fleet.load_drills(fleet.cluster(0), {})


def test_a_selector_that_leaves_nothing_is_no_fleet_of_proven_clusters(write):
    fleet = load_fleet(write(FLEET.replace("drills: [drills]", "drills: [drills]\n  selector: tier=weekly")))

    with pytest.raises(ConfigError) as caught:
        fleet.load_drills(fleet.cluster(1), {})
    assert (caught.value.code, caught.value.fields) == ("no-drills", {"selector": "tier=weekly"})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: oslo", "name: berlin", "two clusters are called `berlin`"),
        ("kind: Fleet", "kind: Fleets", "`Fleet` is expected here"),
        ("drills: [drills]", "drills: []", "is empty; at least one is needed"),
        ("  drills: [drills]\n", "", "`drills` is missing"),
        ("labels:", "label:", "unknown key `label`; did you mean `labels`"),
        ('cluster: "context:oslo"', 'cluster: "kind:oslo"', "`kubeconfig` is where `context:` looks"),
        ('{SIZE: "3"}', "{SIZE: 3}", "in quotes"),
    ],
)
def test_a_slip_is_told_with_its_place(write, old, new, message):
    assert old in FLEET
    with pytest.raises(InvalidDocumentError) as error:
        load_fleet(write(FLEET.replace(old, new)))

    assert message in error.value.message
    assert "fleet.yaml:" in error.value.message


def test_a_folder_without_drills_is_no_fleet(write, tmp_path):
    fleet = load_fleet(write(FLEET.replace("[drills]", "[empty]")))
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConfigError, match="hold no drill"):
        fleet.drill_paths()


def test_the_schema_knows_every_key_with_a_description():
    schema = json.loads(fleet_schema_text())

    assert set(schema["$defs"]["FleetCluster"]["properties"]) == {
        "name",
        "cluster",
        "kubeconfig",
        "nodeShell",
        "labels",
        "variables",
    }
    for definition in schema["$defs"].values():
        assert all(field["description"] for field in definition["properties"].values())


# ---- the Job -----------------------------------------------------------------------------------------------


def test_each_cluster_is_an_index_and_a_verdict_is_final(job_of):
    _, job = job_of(parallelism=2, attempts=3)

    assert job["kind"] == "Job"
    assert job["metadata"]["generateName"] == "shops-"
    assert job["spec"]["completionMode"] == "Indexed"
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (3, 2)
    assert job["spec"]["backoffLimitPerIndex"] == 3
    assert job["spec"]["maxFailedIndexes"] == 3
    assert {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}} in job["spec"]["podFailurePolicy"][
        "rules"
    ]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_fleet_smaller_than_the_parallelism_asks_for_no_more(job_of):
    assert job_of(parallelism=50)[1]["spec"]["parallelism"] == 3


def test_time_is_enough_for_all_rounds(job_of):
    # Three clusters, two at a time, each tried twice: four rounds of two hours.
    assert job_of(parallelism=2, attempts=1)[1]["spec"]["activeDeadlineSeconds"] == 4 * 7200


def test_all_pods_write_to_the_same_run_whatever_its_name_is(job_of):
    (container,) = job_of()[1]["spec"]["template"]["spec"]["containers"]

    assert container["args"] == [
        "fleet",
        "run",
        "/etc/clusterguard/fleet/fleet.yaml",
        "--results",
        "s3://results",
        "--run",
        "$(RUN)",
    ]
    assert (
        container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
    )


def test_the_person_who_makes_the_job_allows_destruction_and_nobody_else(job_of):
    (container,) = job_of(allowed_contexts=("test-*",))[1]["spec"]["template"]["spec"]["containers"]

    assert container["args"][-2:] == ["--allow-context", "test-*"]


def test_the_pods_have_the_kubeconfigs_and_everything_that_drills_apply(job_of):
    config, job = job_of()
    volumes = {each["name"]: each for each in job["spec"]["template"]["spec"]["volumes"]}

    assert set(config["data"]) == {"fleet.yaml", "drills..pods.drill.yaml", "drills..shop.yaml"}
    assert [item["key"] for item in volumes["secrets"]["secret"]["items"]] == ["berlin", "oslo"]


def test_the_pods_are_nobody_and_have_no_token(job_of):
    pod = job_of()[1]["spec"]["template"]["spec"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]


def test_a_schedule_makes_a_cronjob_of_the_same(job_of):
    _, cronjob = job_of(schedule="0 3 * * 0", time_zone="Europe/Berlin")

    assert cronjob["kind"] == "CronJob"
    assert cronjob["metadata"]["name"] == "shops-fleet"
    assert (cronjob["spec"]["schedule"], cronjob["spec"]["timeZone"]) == ("0 3 * * 0", "Europe/Berlin")
    assert cronjob["spec"]["jobTemplate"]["spec"] == job_of()[1]["spec"]


def test_a_variable_that_only_this_machine_has_is_missed_before_the_pods_miss_it(job_of, monkeypatch):
    monkeypatch.setenv("SIZE", "1")

    with pytest.raises(InvalidDrillError, match="SIZE"):
        job_of(FLEET.replace(', variables: {SIZE: "3"}', ""))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ('cluster: "kubeconfig:kubeconfigs/berlin"', "which no pod has"),
        ('cluster: "context:berlin"', "which no pod knows"),
        ("cluster: kind", "which no pod knows"),
    ],
)
def test_a_cluster_that_no_pod_reaches_is_refused(job_of, new, message):
    with pytest.raises(ConfigError, match=message) as error:
        job_of(FLEET.replace('cluster: "kubeconfig:/etc/clusterguard/secrets/berlin"', new))
    assert "/etc/clusterguard/secrets/berlin" in error.value.hint


def test_the_manifests_are_yaml_that_reads_back(job_of):
    manifests = job_of()

    assert tuple(yaml.safe_load_all(yaml.safe_dump_all(manifests))) == manifests


def test_pods_are_told_nothing_that_the_command_does_not_know(job_of, monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    (container,) = job_of(allowed_contexts=("a", "b"))[1]["spec"]["template"]["spec"]["containers"]
    group, verb, *arguments = container["args"]

    found = whole_command_line().commands[group].commands[verb].make_context(verb, arguments)

    assert found.params["index"] == 2
    assert found.params["allow_context"] == ["a", "b"]
