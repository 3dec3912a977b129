"""An existing cluster whose control-plane node is known: etcd is reached by what lies there."""

from pathlib import Path

import pytest

from clusterguard.clusters.existing import ExistingCluster
from clusterguard.errors import ClusterError, ProgramError

CERTIFICATES = ("ca.crt", "healthcheck-client.crt", "healthcheck-client.key")


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
        return ""  # asked what it starts, it has nothing to say


def test_without_a_node_there_is_no_control_plane_and_no_etcd():
    cluster = ExistingCluster(kubeconfig=Path("nowhere"))
    assert cluster.control_plane is None
    assert cluster.etcd is None


def test_a_node_that_is_no_control_plane_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ExistingCluster(kubeconfig=Path("nowhere"), nodes=[Node({})]) as cluster:
        with pytest.raises(ClusterError) as caught:
            _ = cluster.etcd
        assert caught.value.code == "no-static-pod"
        assert list(tmp_path.iterdir()) == []


def test_an_endpoint_that_was_named_is_reached_with_the_certificates_of_the_node(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = {f"/etc/kubernetes/pki/etcd/{name}": name.encode() for name in CERTIFICATES}
    endpoint = "https://10.0.0.7:2379"
    with ExistingCluster(kubeconfig=Path("nowhere"), nodes=[Node(files)], endpoints=(endpoint,)) as cluster:
        etcd = cluster.etcd
        assert etcd.endpoints == (endpoint,)
        assert [file.read_bytes().decode() for file in (etcd.ca, etcd.cert, etcd.key)] == list(CERTIFICATES)
    assert list(tmp_path.iterdir()) == []
