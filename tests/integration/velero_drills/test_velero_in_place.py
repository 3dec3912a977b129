"""Restores into the cluster that the backup is of: green where only what was lost is lost."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drill

pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]

FOLDER = Path(__file__).parents[3] / "drills"
NAMED = {"namespace": "shop", "name": "web"}
CHANGED = {"patch": {"kind": "ConfigMap", **NAMED, "patch": {"data": {"index.html": "closed"}}}}
LOST = {"delete": {"kind": "Secret", **NAMED}}


def in_place(fault, **restore):
    return {
        "apiVersion": "clusterguard.dev/v1alpha1",
        "kind": "Drill",
        "metadata": {"name": "in-place"},
        "spec": {
            "clusters": {"main": {}},
            "storage": {"backups": {"s3": {"bucket": "drill-backups", "endpoint": "local"}}},
            "scope": {"namespaces": ["shop"]},
            "setup": [
                {"apply": {"file": "manifests/shop.yaml"}},
                {"ready": {"kind": "Deployment", "namespace": "shop"}},
            ],
            "backup": [
                {
                    "veleroBackup": {
                        "name": "all",
                        "storage": "backups",
                        "namespaces": ["shop"],
                        "clusterScoped": True,
                    },
                    "timeout": "3m",
                }
            ],
            "fault": fault,
            "restore": [{"veleroRestore": {"from": "all", **restore}, "timeout": "3m"}],
            "verify": [{"restored": {}, "timeout": "1m"}],
            "cleanup": [{"delete": {"kind": "Namespace", "name": "shop"}, "timeout": "2m"}],
        },
    }


@pytest.mark.parametrize(
    ("document", "verdict"),
    [
        (in_place([CHANGED, LOST], existingResources="update"), Verdict.PASS),
        (in_place([LOST]), Verdict.PASS),
        (in_place([CHANGED, LOST]), Verdict.FAIL),
    ],
    ids=["changed and updated", "lost", "changed and left"],
)
def test_what_exists_is_judged_by_what_differs(velero_cluster, tmp_path, document, verdict):
    shutil.copytree(FOLDER / "manifests", tmp_path / "manifests")
    file = tmp_path / "in-place.drill.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    settings = DrillSettings(open=lambda _: velero_cluster, longest_wait=timedelta(seconds=90))
    result = DrillRunner(settings=settings).run(load_drill(file))
    assert result.verdict is verdict, result
    if verdict is Verdict.FAIL:
        [restore] = [step for step in result.steps if step.title == "veleroRestore"]
        assert restore.detail.count("exists-different: ConfigMap shop/web: ") == 1
