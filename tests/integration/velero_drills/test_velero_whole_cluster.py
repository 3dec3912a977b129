"""A backup without any filter holds the whole cluster, and its restore into a new one is judged by what is there."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drill

pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(900)]

FOLDER = Path(__file__).parents[3] / "drills"


def gold(value):
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "gold"},
        "value": value,
    }


def whole(*before_restore):
    target = {"cluster": "target", "timeout": "3m"}
    return {
        "apiVersion": "clusterguard.dev/v1alpha1",
        "kind": "Drill",
        "metadata": {"name": "whole"},
        "spec": {
            "clusters": {"source": {}, "target": {"startIn": "restore"}},
            "storage": {"backups": {"s3": {"bucket": "drill-backups", "endpoint": "local"}}},
            "scope": {
                "kinds": [
                    *("Namespace", "Deployment", "ConfigMap", "Service", "ClusterRole", "ClusterRoleBinding"),
                    *("PriorityClass", "StorageClass", "CustomResourceDefinition", "Menu.shop.clusterguard.dev"),
                ]
            },
            "setup": [
                {"apply": {"files": ["manifests/custom-resources.yaml"]}},
                {"ready": {"kind": "CustomResourceDefinition", "name": "menus.shop.clusterguard.dev"}},
                {"apply": {"files": ["manifests/menus.yaml", "manifests/shop.yaml", "gold.yaml"]}},
                {"ready": {"kind": "Deployment", "namespace": "shop"}},
            ],
            "backup": [
                {"veleroBackup": {"name": "all", "storage": "backups"}, "timeout": "5m"},
                {"verifyBackup": {"backup": "all", "contains": "scope"}},
            ],
            "fault": [{"deleteCluster": {"name": "source"}}],
            "restore": [*before_restore, {"veleroRestore": {"from": "all"}, **target}],
            "verify": [{"restored": {}, **target}],
        },
    }


@pytest.fixture
def run(tmp_path, velero_lock):
    def run(document):
        shutil.copytree(FOLDER / "manifests", tmp_path / "manifests")
        for name, value in (("gold", 5), ("other", 7)):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(gold(value)))
        file = tmp_path / "whole.drill.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        with velero_lock:
            return DrillRunner(settings=DrillSettings(longest_wait=timedelta(minutes=5))).run(load_drill(file))

    return run


def test_everything_comes_back_in_a_new_cluster(run):
    result = run(whole())
    assert result.verdict is Verdict.PASS, result


def test_a_real_difference_in_the_new_cluster_is_red(run):
    result = run(whole({"apply": {"file": "other.yaml"}, "cluster": "target"}))
    assert result.verdict is Verdict.FAIL, result
    [restore] = [step for step in result.steps if step.title == "veleroRestore"]
    assert restore.verdict is Verdict.FAIL
    assert restore.detail.count("exists-different: PriorityClass.scheduling.k8s.io gold: ") == 1
