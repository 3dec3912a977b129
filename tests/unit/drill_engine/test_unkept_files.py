"""What a mover would drop is found in the volume itself."""

import os
import socket
import subprocess

import pytest

from clusterguard.clusters.kube_exec import Executed
from clusterguard.drills.unkept import not_kept
from clusterguard.velero.claims import ClaimedVolume
from clusterguard.velero.findings import Rule

CLAIM = ClaimedVolume(namespace="shop", name="data", volume="pv", annotations={}, pods=("db",))


class Cluster:
    def __init__(self, path, *, running=True):
        self.path, self.running = path, running

    def resource(self, kind, *, api_version):
        return kind

    def get(self, kind, name, namespace):
        mounts = [{"name": "files", "mountPath": str(self.path)}]
        state = {"running": {}} if self.running else {"waiting": {}}
        return {
            "spec": {
                "containers": [{"name": "other"}, {"name": "db", "volumeMounts": mounts}],
                "volumes": [{"name": "tmp"}, {"name": "files", "persistentVolumeClaim": {"claimName": "data"}}],
            },
            "status": {"containerStatuses": [{"name": "db", "state": state}]},
        }


@pytest.fixture(autouse=True)
def shell(monkeypatch):
    def run_in(api, container, command, *, timeout_seconds, most_output):
        assert container.name == "db"
        done = subprocess.run(command, check=False, capture_output=True)
        return Executed(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    monkeypatch.setattr("clusterguard.clusters.kube_exec.run_in", run_in)


def look(path, **cluster):
    return not_kept(Cluster(path, **cluster), [CLAIM], seconds=10)


def test_plain_files_folders_and_links_are_kept(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a\nb").write_bytes(b"x")
    (tmp_path / "link").symlink_to("folder")
    assert look(tmp_path) == ([], [])


def test_each_kind_that_is_not_kept_is_counted(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(8 << 20)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        ((finding,), unseen) = look(tmp_path)
    assert (finding.rule, unseen) == (Rule.NOT_KEPT, [])
    assert finding.detail.endswith("1 FIFO(s), 2 hard link(s), 1 socket(s), 1 sparse file(s)")


def test_what_cannot_be_looked_into_is_told_and_is_no_finding(tmp_path):
    for found, unseen in (look(tmp_path / "gone"), look(tmp_path, running=False)):
        assert (found, len(unseen)) == ([], 1)


def test_block_devices_are_copied_whole(tmp_path):
    block = ClaimedVolume(namespace="shop", name="data", volume="pv", annotations={}, pods=("db",), block=True)
    assert not_kept(Cluster(tmp_path / "gone"), [block], seconds=10) == ([], [])
