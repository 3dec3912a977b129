"""A fleet of real clusters: one proven, one red, one that nobody ran; each by a process of its own, as pods are."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.programs, pytest.mark.slow]

FLEET = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Fleet
metadata: {name: shops}
spec:
  drills: [drills]
  clusters:
  - {name: berlin, cluster: embedded, variables: {EXPECTED: "1"}}
  - {name: oslo, cluster: embedded, variables: {EXPECTED: "2"}}
  - {name: rome, cluster: embedded, variables: {EXPECTED: "1"}}
"""
DRILL = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: settings}
spec:
  scope: {namespaces: [shop]}
  setup:
  - apply: {file: shop.yaml}
  backup:
  - etcdSnapshot: {name: before}
  fault:
  - delete: {kind: ConfigMap, namespace: shop, name: settings}
  restore:
  - etcdRestore: {from: before}
  verify:
  - restored: {identity: uid}
    timeout: 60s
  - assert:
      resource:
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: settings, namespace: shop}
        data: {expected: "${env.EXPECTED}"}
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


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "drills").mkdir()
    (folder / "fleet.yaml").write_text(FLEET)
    (folder / "drills" / "settings.drill.yaml").write_text(DRILL)
    (folder / "drills" / "shop.yaml").write_text(SHOP)
    return folder


@pytest.fixture(scope="module")
def results(fleet, tmp_path_factory):
    """Return the exit codes of two of three clusters, run at the same time, and where their results are."""
    store = tmp_path_factory.mktemp("results")
    started = {index: _clusterguard(fleet, store, "run", index=index) for index in (0, 1)}
    ended = {index: (process.communicate(timeout=240)[0], process.returncode) for index, process in started.items()}
    return ended, store


def _clusterguard(fleet, store, verb, *words, index=None):
    environ = {**os.environ, "XDG_STATE_HOME": str(fleet / f"state-{index}"), "CLUSTERGUARD_FLEET_RUN": "run-1"}
    environ |= {"JOB_COMPLETION_INDEX": str(index)} if index is not None else {}
    command = [sys.executable, "-m", "clusterguard", "fleet", verb, str(fleet / "fleet.yaml"), "--results", str(store)]
    return subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ, cwd=fleet
    )


def _report(fleet, store, *words):
    process = _clusterguard(fleet, store, "report", *words)
    return process.communicate(timeout=60)[0], process.returncode


def test_each_cluster_ends_with_its_own_verdict(results):
    ended, _ = results

    assert {index: code for index, (_, code) in ended.items()} == {0: 0, 1: 1}, ended


def test_the_report_has_one_proven_one_red_and_one_that_did_not_run(fleet, results):
    printed, code = _report(fleet, results[1], "--json")
    report = json.loads(printed)

    assert {each["cluster"]: each["outcome"] for each in report["clusters"]} == {
        "berlin": "PROVEN",
        "oslo": "NOT PROVEN",
        "rome": "DID NOT RUN",
    }
    assert report["clusters"][0]["rtoSeconds"] > 0
    assert code == 2
    assert not report["proven"]


def test_people_read_a_table(fleet, results):
    printed, code = _report(fleet, results[1], "--run", "run-1")

    assert code == 2
    assert "DID NOT RUN" in printed


def test_results_lie_there_for_programs_too(results):
    kept = sorted(path.name for path in (results[1] / "shops" / "run-1").iterdir())

    assert kept == ["berlin.json", "berlin.xml", "oslo.json", "oslo.xml"]
