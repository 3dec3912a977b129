"""Volumes with a defect: the scripts run on folders of this machine, as they would in a container."""

import os
import subprocess

import pytest

from clusterguard.clusters.kube_exec import Container, Executed
from clusterguard.drills.defects.placing import NotAppliedError, NotUndoneError
from clusterguard.drills.defects.volumes import Mounted, byte_changed, emptied, mounted_claims

WEB = Container(namespace="shop", pod="web-0", name="web")


@pytest.fixture
def volume(tmp_path, monkeypatch):
    """A folder with files; what would be run in a container is run here."""
    folder = tmp_path / "data"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "orders.bin").write_bytes(os.urandom(70_000))
    (folder / ".hidden").write_bytes(b"X")
    (folder / "last line").write_bytes(b"the shop is open\n")
    (folder / "none").touch()

    def run_in(_api, _container, command, **_):
        done = subprocess.run(command, check=False, capture_output=True)
        return Executed(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    monkeypatch.setattr("clusterguard.clusters.kube_exec.run_in", run_in)
    return folder


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mounted(volume):
    return Mounted(claim="data", container=WEB, path=str(volume))


def test_an_empty_volume_is_full_again(volume):
    before = content(volume)
    with emptied(None, mounted(volume)):
        assert list(volume.iterdir()) == []
    assert content(volume) == before


@pytest.mark.parametrize("only", [b"X", b"Y", b"\n", b"\0", b"a\n\n", b"%s\\"])
def test_one_byte_is_another_one_and_then_itself_again(volume, only):
    (volume / ".hidden").write_bytes(only)
    before = content(volume)
    times = {path: path.stat().st_mtime_ns for path in volume.rglob("*")}
    with byte_changed(None, mounted(volume)):
        changed = content(volume)
        (different,) = (path for path in before if before[path] != changed[path])
        assert [a == b for a, b in zip(before[different], changed[different], strict=True)].count(False) == 1
        assert {path: path.stat().st_mtime_ns // 1000 for path in times} == {
            path: time // 1000 for path, time in times.items()
        }
    assert content(volume) == before


def test_a_volume_without_a_file_can_lose_nothing(volume):
    for path in sorted(volume.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for put in (emptied, byte_changed):
        with pytest.raises(NotAppliedError), put(None, mounted(volume)):
            pytest.fail("it was put there")


def test_what_the_container_cannot_do_is_not_applied(volume, monkeypatch):
    before = content(volume)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr("clusterguard.drills.defects.volumes.EMPTY", "echo no cp here >&2; exit 127")
    with pytest.raises(NotAppliedError), emptied(None, mounted(volume)):
        pytest.fail("it was put there")
    assert content(volume) == before


def test_a_file_that_somebody_wrote_meanwhile_is_told(volume):
    with pytest.raises(NotUndoneError), byte_changed(None, mounted(volume)):
        (volume / "last line").write_bytes(b"the shop is closed\n")


def pod(phase="Running", **mount):
    return {
        "metadata": {"name": "web-0", "namespace": "shop"},
        "spec": {
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}},
                {"name": "config", "configMap": {"name": "web"}},
            ],
            "containers": [
                {"name": "sidecar"},
                {"name": "web", "volumeMounts": [{"name": "data", "mountPath": "/data/", **mount}]},
            ],
        },
        "status": {"phase": phase},
    }


def test_the_claims_that_a_running_container_may_write_to():
    assert list(mounted_claims([pod()])) == [Mounted(claim="data-web-0", container=WEB, path="/data")]
    assert list(mounted_claims([pod("Pending"), pod(readOnly=True), pod(subPath="a")])) == []
