"""``clusterguard fleet`` at the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import yaml
from typer.testing import CliRunner

from clusterguard.cli.fleet import app
from clusterguard.policies.fleet.results import ClusterResult, save_result
from clusterguard.stores import LocalStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FLEET = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Fleet
metadata: {name: shops}
spec:
  drills: [x.drill.yaml]
  clusters:
  - {name: berlin, cluster: embedded}
  - {name: oslo, cluster: embedded}
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


@pytest.fixture
def call(tmp_path):
    """Call a command on a fleet of two clusters, with results in a folder."""
    (tmp_path / "fleet.yaml").write_text(FLEET)
    (tmp_path / "x.drill.yaml").write_text(DRILL)

    def call(verb, *words):
        results = () if verb == "check" else ("--results", str(tmp_path / "results"))
        return CliRunner().invoke(app, [verb, str(tmp_path / "fleet.yaml"), *results, *words], catch_exceptions=False)

    return call


def keep(tmp_path, cluster, verdict, run="run-1"):
    drill = {"drill": "pods", "verdict": verdict, "reason": f"it is {verdict}", "rtoSeconds": {"total": 41.0}}
    result = ClusterResult(fleet="shops", run=run, cluster=cluster, started=NOW, finished=NOW, drills=(drill,))
    save_result(LocalStore(tmp_path / "results"), result)


def test_check_tells_which_index_is_which_cluster(call):
    done = call("check")

    assert done.output.splitlines() == ["0  berlin (embedded): pods", "1  oslo (embedded): pods"]


def test_job_prints_what_kubectl_takes(call):
    done = call("job", "--image", "registry.example.com/clusterguard:1", "--parallelism", "1", "--longest", "30m")
    config, job = yaml.safe_load_all(done.output)

    assert config["kind"] == "ConfigMap"
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/clusterguard:1"
    assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 1800


@pytest.mark.parametrize(("verdict", "code"), [("PASS", 0), ("FAIL", 1), ("ERROR", 2)])
def test_report_ends_with_the_worst(call, tmp_path, verdict, code):
    keep(tmp_path, "berlin", "PASS")
    keep(tmp_path, "oslo", verdict)

    assert call("report", "--run", "run-1").exit_code == code


def test_report_takes_the_latest_run_and_misses_who_did_not_run_in_it(call, tmp_path):
    keep(tmp_path, "oslo", "PASS", run="run-1")
    keep(tmp_path, "berlin", "PASS", run="run-2")

    done = call("report", "--json")

    report = json.loads(done.output)
    assert report["run"] == "run-2"
    assert [each["outcome"] for each in report["clusters"]] == ["PROVEN", "DID NOT RUN"]
    assert done.exit_code == 2


def test_the_table_has_every_cluster(call, tmp_path):
    keep(tmp_path, "berlin", "FAIL")

    printed = call("report", "--run", "run-1").output

    for word in ("berlin", "NOT PROVEN", "oslo", "DID NOT RUN", "41.0s"):
        assert word in printed


def test_schema_is_json():
    assert json.loads(CliRunner().invoke(app, ["schema"]).output)["title"] == "Fleet of clusterguard"


def test_a_run_needs_its_index_and_its_name(call):
    assert call("run", "--run", "x").exit_code == 2
    assert call("run", "--index", "0").exit_code == 2
