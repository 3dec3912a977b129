"""What Prometheus and Grafana are given fits the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from clusterguard.policies.watching.metrics import METRICS

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "monitoring"
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
NAME = re.compile(r"clusterguard_\w+")


def rules():
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def queries():
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*panels, *(each["definition"] for each in DASHBOARD["templating"]["list"] if "definition" in each)]


def unknown(text):
    return set(NAME.findall(text)) - set(METRICS)


def test_each_alert_asks_for_metrics_that_there_are():
    for rule in rules():
        assert NAME.search(rule["expr"]), rule["alert"]
        assert not unknown(rule["expr"]), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]


def test_the_dashboard_asks_for_metrics_that_there_are():
    assert queries()
    assert not unknown(" ".join(queries()))


def test_a_metric_that_there_is_not_is_noticed():
    assert unknown("time() - clusterguard_last_sucess_timestamp_seconds > 1") == {
        "clusterguard_last_sucess_timestamp_seconds"
    }


def test_each_alert_is_tested():
    tests = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text())["tests"]
    red = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each["exp_alerts"]}
    silent = {each["alertname"] for test in tests for each in test["alert_rule_test"] if not each["exp_alerts"]}
    names = {rule["alert"] for rule in rules()}
    assert (red, silent) == (names, names)


def test_every_metric_is_documented():
    page = (ROOT / "docs/reference/metrics.md").read_text()
    assert {name for name in METRICS if f"`{name}`" not in page} == set()
    assert {rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in page} == set()


def test_dashboard_panels_do_not_lie_on_top_of_each_other():
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.fixture
def promtool():
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH; it comes with Prometheus")
    return found


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_prometheus_takes_the_rules_and_their_tests_pass(promtool):
    done = run(promtool, "test", "rules", FOLDER / "alerts.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_says_nothing_fails_its_test(promtool, tmp_path):
    silenced = (
        (FOLDER / "alerts.yaml").read_text().replace("clusterguard_location_up == 0", "clusterguard_location_up == 7")
    )
    (tmp_path / "alerts.yaml").write_text(silenced)
    document = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text())
    document["tests"] = [test for test in document["tests"] if test["name"] == "a location is down"]
    (tmp_path / "alerts.test.yaml").write_text(yaml.safe_dump(document))
    done = run(promtool, "test", "rules", tmp_path / "alerts.test.yaml")
    assert done.returncode != 0
    assert "BackupLocationDown" in done.stdout + done.stderr


def test_prometheus_can_read_each_query_of_the_dashboard(promtool, tmp_path):
    expressions = [
        target["expr"].replace("$policy", ".*") for panel in DASHBOARD["panels"] for target in panel["targets"]
    ]
    group = {"name": "dashboard", "rules": [{"record": f"r{n}", "expr": each} for n, each in enumerate(expressions)]}
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [group]}))
    done = run(promtool, "check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
