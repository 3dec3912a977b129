"""An existing cluster whose control-plane node is known: etcd is reached by what lies there."""

from pathlib import Path

import pytest

from clusterguard.clusters.existing import ExistingCluster
from clusterguard.errors import ClusterError, ProgramError


class Node:
    """A node that has certificates, or nothing."""

    name = "cp-1"

    def __init__(self, files):
        self.files = files

    def read(self, path):
        if path not in self.files:
            raise ProgramError(f"cp-1: {path}", exit_code=1, output="No such file or directory")
        return self.files[path]

    def run(self, argv, *, stdin=None, timeout_seconds=60):
        raise ProgramError("cp-1: sh", exit_code=1, output="No such file or directory")


def test_without_a_node_there_is_no_control_plane_and_no_etcd():
    cluster = ExistingCluster(kubeconfig=Path("nowhere"))
    assert cluster.control_plane is None
    assert cluster.etcd is None


def test_a_node_that_is_no_control_plane_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ExistingCluster(kubeconfig=Path("nowhere"), node=Node({})) as cluster:
        with pytest.raises(ClusterError, match=r"etcd\.yaml"):
            _ = cluster.etcd
        assert list(tmp_path.iterdir()) == []
