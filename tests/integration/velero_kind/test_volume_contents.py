"""What volumes can hold, by the real Velero on a real node: large, sparse, owned by others, a block device."""

from pathlib import Path

import pytest
import yaml

from clusterguard.clusters.kind import KindCluster
from clusterguard.drills import Verdict
from clusterguard.drills.csi_driver import VARIABLE, install_driver, names_driver

pytestmark = [
    pytest.mark.kind,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not names_driver(), reason=f"{VARIABLE} names no CSI driver"),
]

DRILLS = Path(__file__).parents[3] / "drills"
WEB = {"namespace": "shop", "selector": "app=web"}
GIB, MIB = 1 << 30, 1 << 20
# Of 64 MiB: more bytes than 32 bits can count; a mover's repository holds them once, since they are the same.
PARTS = 64
CONTENTS = """
cd /data
head -c 67108864 /dev/urandom > part
for n in $(seq "$1"); do cat part; done > large
rm part
echo over >> large
dd if=/dev/zero of=sparse bs=1 count=0 seek=1048576000
echo end >> sparse
mkdir -p empty/deeper owned
ln -s large link
ln -s nowhere dangling
touch nothing
echo ours > owned/by
chown 1234:4321 owned owned/by
chmod 2750 owned
chmod 4711 owned/by
chmod 0 nothing
dd if=/dev/urandom of=/dev/disk bs=1M count=32
sync
"""


@pytest.fixture(scope="module")
def cluster():
    with KindCluster() as cluster:
        install_driver(cluster.api)
        yield cluster


@pytest.fixture
def spec():
    """The shipped drill of CSI snapshots, with a block device beside its volume."""
    spec = yaml.safe_load((DRILLS / "velero-snapshot-in-place.drill.yaml").read_text())["spec"]
    spec["setup"] = [
        {"apply": {"manifest": list(with_block_device())}},
        spec["setup"][1],
        {"exec": {"command": ["sh", "-ec", CONTENTS, "sh", str(PARTS)], "in": WEB}, "timeout": "10m"},
    ]
    restored, ready, _, _ = spec["verify"]
    compared = [{"sameFiles": {"in": WEB, "path": path}, "timeout": "10m"} for path in ("/data", "/dev/disk")]
    spec["verify"] = [restored, ready, *compared]
    for phase in ("backup", "restore"):
        spec[phase][0]["timeout"] = "20m"
    spec["objectives"]["rto"] = "30m"
    return spec


def with_block_device():
    for each in yaml.safe_load_all((DRILLS / "manifests" / "shop-data.yaml").read_text()):
        if each["kind"] == "StatefulSet":
            claim = {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block"}
            claim["resources"] = {"requests": {"storage": "32Mi"}}
            each["spec"]["volumeClaimTemplates"].append({"metadata": {"name": "disk"}, "spec": claim})
            [container] = each["spec"]["template"]["spec"]["containers"]
            container["volumeDevices"] = [{"name": "disk", "devicePath": "/dev/disk"}]
        yield each


def compared(result):
    return [step.detail for step in result.steps if (step.phase, step.title) == ("verify", "sameFiles")]


@pytest.mark.parametrize("volumes", ["snapshot", "move"])
def test_large_sparse_and_owned_files_and_a_block_device_come_back(run, spec, volumes):
    spec["backup"][0]["veleroBackup"] |= {"volumes": volumes, "tolerate": ["not-kept"]}
    result = run(spec, longest_wait=None)
    assert result.verdict is Verdict.PASS, (result.reason, result.diff)
    files, device = compared(result)
    size = 4 * GIB + len("over\n") + 1000 * MIB + len("end\n") + len("ours\n")
    assert f"the same 4 file(s), {size:,} bytes" in files
    assert f"the same 1 file(s), {32 * MIB:,} bytes" in device
    assert ("the holes of 1 file(s) are filled" in files) is (volumes == "move")
