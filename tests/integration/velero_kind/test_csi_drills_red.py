"""CSI snapshots of the real Velero on a real node: every way of losing data quietly turns the drill red."""

from pathlib import Path

import pytest
import yaml

from clusterguard.clusters.kind import KindCluster
from clusterguard.drills import Verdict
from clusterguard.drills.csi_driver import VARIABLE, install_driver, names_driver

pytestmark = [
    pytest.mark.kind,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not names_driver(), reason=f"{VARIABLE} names no CSI driver"),
]

DRILLS = Path(__file__).parents[3] / "drills"
WEB = {"namespace": "shop", "selector": "app=web"}


@pytest.fixture(scope="module")
def cluster():
    """A cluster with a CSI driver, which the drills of this module share."""
    with KindCluster() as cluster:
        install_driver(cluster.api)
        yield cluster


def shipped(name):
    return yaml.safe_load((DRILLS / f"{name}.drill.yaml").read_text())["spec"]


@pytest.fixture
def in_place():
    return shipped("velero-snapshot-in-place")


@pytest.fixture
def ledger():
    return shipped("velero-snapshot-with-hooks")


def told(result, phase, title):
    return next(step.detail for step in result.steps if (step.phase, step.title) == (phase, title))


def test_one_byte_changed_after_the_restore_is_red(run, in_place):
    change = "printf X | dd of=/data/orders.bin bs=1 seek=500000 conv=notrunc"
    in_place["restore"].append({"exec": {"command": ["sh", "-c", change], "in": WEB}, "timeout": "2m"})
    result = run(in_place)
    assert result.verdict is Verdict.FAIL
    assert "1 changed: /data/orders.bin (1,048,576 bytes" in told(result, "verify", "sameFiles")


def test_without_its_hook_a_ledger_that_never_pauses_is_not_whole(run, ledger):
    assert run(ledger).verdict is Verdict.PASS
    del ledger["backup"][0]["veleroBackup"]["hooks"]
    result = run(ledger)
    assert result.verdict is Verdict.FAIL, result
    assert "the books differ" in str(result.diagnostics)


def test_moved_data_in_place_is_the_same_but_for_what_the_mover_does_not_keep(run, in_place):
    backup = in_place["backup"][0]["veleroBackup"]
    backup["volumes"] = "move"
    make = "cd /data; mkfifo pipe; ln orders.bin also.bin; mkdir empty; ln -s orders.bin link; chmod 4711 index.html"
    in_place["setup"].append({"exec": {"command": ["sh", "-c", make], "in": WEB}})
    result = run(in_place)
    assert result.verdict is Verdict.ERROR
    assert "not-kept: shop/data-web-0" in result.reason
    backup["tolerate"] = ["not-kept"]
    in_place["backup"] = in_place["backup"][:1]
    result = run(in_place)
    assert result.verdict is Verdict.FAIL
    seen = told(result, "verify", "sameFiles")
    assert "1 missing: /data/pipe (fifo)" in seen
    assert "2 no longer one file" in seen
    assert "mode" not in seen
    in_place["verify"][2]["sameFiles"]["ignore"] = ["specialFiles", "hardLinks"]
    assert run(in_place).verdict is Verdict.PASS


def test_a_volume_of_no_csi_driver_is_told_before_anything_is_backed_up(run, in_place):
    in_place["setup"][0] = {"apply": {"manifest": [*_of_class("standard")]}}
    result = run(in_place)
    assert (result.verdict, result.code) == (Verdict.ERROR, "snapshots-impossible")
    assert "of no CSI driver" in result.reason
    assert not [step for step in result.steps if step.title == "veleroBackup"]


def _of_class(name):
    for each in yaml.safe_load_all((DRILLS / "manifests" / "shop-data.yaml").read_text()):
        if each["kind"] == "StatefulSet":
            each["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] = name
        yield each


def test_a_claim_without_volume_is_named(run, in_place):
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "nobody", "namespace": "shop"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    in_place["setup"].append({"apply": {"manifest": [claim]}})
    result = run(in_place)
    assert result.verdict is Verdict.ERROR
    assert "claim-unbound: PersistentVolumeClaim shop/nobody" in result.reason


@pytest.mark.slow
def test_a_snapshot_that_was_not_moved_is_red_in_another_cluster_although_velero_says_completed(run):
    lost = shipped("velero-moved-new-cluster")
    lost["backup"][0]["veleroBackup"]["volumes"] = "snapshot"
    result = run(lost, open=None)
    assert (result.verdict, result.code) == (Verdict.FAIL, "restore-failed")
    assert "Completed, 1 snapshot-not-ready" in result.reason
