"""A CSI driver for clusters that drills create comes from the user's own manifests, or the drill is skipped."""

import pytest

from clusterguard.drills.csi_driver import VARIABLE, driver_manifests
from clusterguard.drills.load import load_drill
from clusterguard.drills.requirements import needs_snapshots, skip_reason
from clusterguard.errors import ConfigError

DRIVER = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: driver, namespace: csi}
---
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: csi}}
- {apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: volumesnapshots}}
"""
DRILL = """
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: volumes}
spec:
  CLUSTERS
  storage: {backups: {s3: {bucket: drill-backups, endpoint: local}}}
  scope: {namespaces: [shop]}
  backup:
  - veleroBackup: {name: shop, namespaces: [shop], storage: backups, volumes: WAY}
  fault:
  - delete: {kind: Namespace, name: shop}
  restore:
  - veleroRestore: {from: shop}
  verify:
  - restored: {}
"""


@pytest.fixture
def drill(tmp_path):
    def load(way="move", clusters=""):
        path = tmp_path / "volumes.drill.yaml"
        path.write_text(DRILL.replace("WAY", way).replace("CLUSTERS", clusters))
        return load_drill(path)

    return load


def test_what_others_need_comes_first(tmp_path):
    (tmp_path / "driver.yaml").write_text(DRIVER)
    (tmp_path / "notes.txt").write_text("no manifest")
    kinds = [each["kind"] for each in driver_manifests({VARIABLE: str(tmp_path)})]
    assert kinds == ["CustomResourceDefinition", "Namespace", "DaemonSet"]


def test_several_files_and_folders_may_be_named(tmp_path):
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "a.yml").write_text(
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: a}}"
    )
    (tmp_path / "driver.yaml").write_text(DRIVER)
    found = driver_manifests({VARIABLE: f"{tmp_path / 'classes'}:{tmp_path / 'driver.yaml'}"})
    assert [each["kind"] for each in found][-2:] == ["StorageClass", "DaemonSet"]


@pytest.mark.parametrize(
    "text", [None, "kind: Kustomization\nresources: [driver.yaml]\n", "{a: [", "just a text", "kind: Namespace"]
)
def test_what_is_no_manifest_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "kustomization.yaml").write_text(text)
    with pytest.raises(ConfigError):
        driver_manifests({VARIABLE: str(tmp_path)})


@pytest.mark.parametrize("way", ["snapshot", "move"])
def test_a_drill_by_snapshots_is_skipped_where_no_driver_is(drill, way):
    wanted = drill(way)
    assert needs_snapshots(wanted)
    assert VARIABLE in skip_reason(wanted, default_cluster="kind", environ={})
    assert skip_reason(wanted, default_cluster="embedded", environ={VARIABLE: "/driver"})
    assert skip_reason(wanted, default_cluster="kind", environ={VARIABLE: "/driver"}) is None


@pytest.mark.parametrize("cluster", ["kind:mine", "context:staging"])
def test_a_cluster_that_is_there_is_asked_and_not_skipped(drill, cluster):
    assert skip_reason(drill(), default_cluster=cluster, environ={}) is None


def test_the_cluster_of_the_file_decides_before_that_of_the_run(drill):
    named = drill(clusters="clusters: {main: {kind: {}}}")
    assert VARIABLE in skip_reason(named, default_cluster="kind:mine", environ={})


def test_files_of_volumes_need_no_driver(drill):
    wanted = drill("fileSystem")
    assert not needs_snapshots(wanted)
    assert skip_reason(wanted, default_cluster="kind", environ={}) is None
