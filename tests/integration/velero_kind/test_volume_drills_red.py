"""Volumes restored by the real Velero on a real node: every way of losing data quietly turns the drill red."""

import pytest

from clusterguard.drills import Verdict

pytestmark = [pytest.mark.kind, pytest.mark.timeout(900)]

WEB = {"namespace": "shop", "selector": "app=web"}


def told(result, phase, title):
    return next(step.detail for step in result.steps if (step.phase, step.title) == (phase, title))


def test_every_byte_comes_back(run, spec):
    result = run(spec)
    assert result.verdict is Verdict.PASS, result
    assert "the same 2 file(s), 1,048,593 bytes" in told(result, "verify", "sameFiles")
    assert "status 200: the shop is open" in told(result, "verify", "http")


def test_one_byte_changed_after_the_restore_is_red(run, spec):
    change = "printf X | dd of=/data/orders.bin bs=1 seek=500000 conv=notrunc"
    spec["restore"].append({"exec": {"command": ["sh", "-c", change], "in": WEB}, "timeout": "2m"})
    result = run(spec)
    assert result.verdict is Verdict.FAIL
    assert "1 changed: /data/orders.bin (1,048,576 bytes" in told(result, "verify", "sameFiles")
    assert "5 objects compared, no findings" in told(result, "verify", "restored"), "the objects themselves are fine"


def test_a_backup_without_the_volumes_is_red(run, spec):
    del spec["backup"][0]["veleroBackup"]["volumes"]
    del spec["backup"][1:]  # looking into the backup would tell already
    result = run(spec)
    assert result.verdict is Verdict.FAIL, result
    assert "tolerated: 1 volume-left-out" in told(result, "backup", "veleroBackup"), "Completed is not the last word"
    assert "missing: /data/index.html, /data/orders.bin" in told(result, "verify", "sameFiles")
    assert "404" in told(result, "verify", "http")


def test_without_the_restore_it_is_red(run, spec):
    result = run(spec, omit_restore=True)
    assert result.verdict is Verdict.FAIL
    assert "no Pod with labels app=web runs in namespace shop: there is none" in told(result, "verify", "sameFiles")


def test_a_volume_of_the_type_host_path_is_no_silent_gap(run, spec):
    labels = {"drill": "host-path"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "shop-host-path", "labels": labels},
        "spec": {
            "capacity": {"storage": "64Mi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "",
            "hostPath": {"path": "/var/shop-host-path", "type": "DirectoryOrCreate"},
        },
    }
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-web-0", "namespace": "shop"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "64Mi"}},
            "selector": {"matchLabels": labels},
        },
    }
    spec["setup"].insert(0, {"apply": {"manifest": [namespace, volume, claim]}})
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert "volume-left-out: shop/web-0:data: PersistentVolume shop-host-path is of the type hostPath" in result.reason
    assert "fault" not in {phase.name for phase in result.phases}, "nothing is broken that could not be restored"
