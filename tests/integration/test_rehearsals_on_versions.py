"""Snapshots of one minor version of Kubernetes rehearsed on this one and others, with the real API servers of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from clusterguard.clusters.embedded.snapshot_server import SnapshotServer
from clusterguard.errors import UnsupportedVersionError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.rehearsal.rehearsal import Rehearsal
from clusterguard.stores import open_store
from clusterguard.toolchain import PROGRAMS, Toolchain
from etcd_member import member
from other_versions import etcd_programs, kubernetes_programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clusterguard.rehearsal.report import RehearsalFinding, RehearsalReport

# The first run compiles two API servers, for most of an hour; they rest in the toolchain's cache.
pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(5 * 3600)]

OLD, OWN, NEW = "1.30.14", PROGRAMS["kube-apiserver"].modules.version, "1.37.2"
NAMES = {OLD: "kube-apiserver@1.30", OWN: "kube-apiserver", NEW: "kube-apiserver@1.37"}

POD = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
OBJECTS = (
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "shop"}, "data": {"a": "b"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}, "stringData": {"a": "b"}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
     "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}},
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
     "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": POD}},
    {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "shop"},
     "spec": {"serviceName": "db", "selector": {"matchLabels": {"app": "web"}}, "template": POD}},
    {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly", "namespace": "shop"},
     "spec": {"schedule": "0 2 * * *", "jobTemplate": {"spec": {"template": {
         "spec": {**POD["spec"], "restartPolicy": "Never"}}}}}},
)  # fmt: skip


@pytest.fixture(scope="module")
def toolchain() -> Toolchain:
    """The three API servers are there; nothing is obtained."""
    explicit = {NAMES[version]: kubernetes_programs(version)["kube-apiserver"] for version in (OLD, NEW)}
    return Toolchain(explicit=explicit, path=os.environ["PATH"])


@contextmanager
def serving(version: str, toolchain: Toolchain, home: Path) -> Iterator[SnapshotServer]:
    with SnapshotServer(None, api_server=NAMES[version], toolchain=toolchain, home=home) as server:
        assert server.api.server_version() == f"v{version}"
        yield server


@pytest.fixture(scope="module")
def saved(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a snapshot of a cluster that ran a version, and says so by its node."""
    known: dict[str, Path] = {}

    def saved(version: str) -> Path:
        if version not in known:
            folder = tmp_path_factory.mktemp("saved")
            with serving(version, toolchain, folder / "home") as server:
                for item in OBJECTS:
                    server.api.create(item)
                server.api.create(node(version))
                EtcdSnapshotter(store=open_store(folder), access=server.etcd).save("s")
            known[version] = folder / "s.db"
        return known[version]

    return saved


def node(version: str) -> dict[str, object]:
    labels = {"node-role.kubernetes.io/control-plane": ""}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "one", "labels": labels},
        "status": {"nodeInfo": {"kubeletVersion": f"v{version}"}},
    }


def found(report: RehearsalReport, code: str) -> RehearsalFinding | None:
    return next((each for each in report.findings if each.code == code), None)


def uneven(report: RehearsalReport) -> dict[str, str]:
    return {each.kind: each.outcome() for each in report.kinds if not each.ok}


@pytest.mark.parametrize("version", [OLD, OWN, NEW])
def test_by_default_it_is_the_clusters_own_version(
    saved: Callable[[str], Path], toolchain: Toolchain, tmp_path: Path, version: str
) -> None:
    report = Rehearsal(location=saved(version), toolchain=toolchain, home=tmp_path).run()
    assert (report.ok, uneven(report)) == (True, {}), report.to_text()
    assert report.facts["rehearsed on"] == f"Kubernetes v{version}"
    assert report.facts["Kubernetes of the snapshot"] == f"v{version}"
    assert found(report, "other-kubernetes-version") is None


@pytest.mark.parametrize("version", [OWN, NEW])
def test_an_old_snapshot_comes_up_on_a_newer_version(
    saved: Callable[[str], Path], toolchain: Toolchain, tmp_path: Path, version: str
) -> None:
    minor = version.rpartition(".")[0]
    report = Rehearsal(location=saved(OLD), toolchain=toolchain, home=tmp_path, kubernetes_version=minor).run()
    assert (report.ok, uneven(report)) == (True, {}), report.to_text()
    assert report.facts["rehearsed on"] == f"Kubernetes v{version}"
    other = found(report, "other-kubernetes-version")
    assert (other and str(other.level)) == "note"  # it was asked for


def test_what_an_older_version_does_not_serve_is_red(
    saved: Callable[[str], Path], toolchain: Toolchain, tmp_path: Path
) -> None:
    report = Rehearsal(location=saved(OWN), toolchain=toolchain, home=tmp_path, kubernetes_version="1.30").run()
    gone = found(report, "no-longer-served")
    assert (report.ok, gone and str(gone.level)) == (False, "error"), report.to_text()
    assert any("servicecidrs" in each for each in gone.examples), gone
    assert report.facts["rehearsed on"] == f"Kubernetes v{OLD}"
    assert uneven(report).keys() >= {"servicecidrs.networking.k8s.io", "ipaddresses.networking.k8s.io"}
    assert "deployments.apps" not in uneven(report)


def test_where_its_own_is_not_there_it_is_the_nearest_and_said(saved: Callable[[str], Path], tmp_path: Path) -> None:
    only_own = Toolchain(path=os.environ["PATH"])
    report = Rehearsal(location=saved(NEW), toolchain=only_own, home=tmp_path).run()
    other = found(report, "other-kubernetes-version")
    assert (other and str(other.level)) == "warning"
    assert report.facts["rehearsed on"] == f"Kubernetes v{OWN}"


def test_the_command_takes_the_version(saved: Callable[[str], Path], toolchain: Toolchain) -> None:
    command = [sys.executable, "-m", "clusterguard", "rehearse", "--json", str(saved(OLD))]
    known = toolchain.ensure(NAMES[OLD], NAMES[NEW])
    env = os.environ | {f"CLUSTERGUARD_KUBE_APISERVER_1_{name[-2:]}": str(path) for name, path in known.items()}
    for arguments, version in ((), OLD), (("--kubernetes-version", "1.37"), NEW):
        done = subprocess.run([*command, *arguments], check=True, capture_output=True, env=env)
        assert json.loads(done.stdout)["facts"]["rehearsed on"] == f"Kubernetes v{version}"


def test_a_newer_etcds_snapshot_is_no_verdict(tmp_path: Path) -> None:
    newest = Toolchain(path=os.environ["PATH"])
    with member(newest.ensure("etcd")["etcd"], tmp_path / "etcd") as running:
        running.put("/registry/namespaces/shop", value=json.dumps({**OBJECTS[0], "spec": {}, "status": {}}).encode())
        EtcdSnapshotter(store=open_store(tmp_path), access=running.access).save("s")
    older = Toolchain(explicit=etcd_programs("3.6.16"), path=os.environ["PATH"])
    with pytest.raises(UnsupportedVersionError) as caught:
        Rehearsal(location=tmp_path / "s.db", toolchain=older, home=tmp_path / "home").run()
    assert caught.value.fields == {"program": "etcd", "version": "3.6.16", "storage": "3.7"}
    assert not (tmp_path / "home").exists()  # nothing was started
