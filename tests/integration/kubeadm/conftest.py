"""Kind clusters whose control planes are restored again and again; each test leaves them working."""

import os
import secrets
from pathlib import Path

import pytest

from clusterguard.clusters.kind import Docker, KindCluster
from clusterguard.clusters.node_shell import DockerNodeShell
from clusterguard.errors import ProvisioningError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import open_store

_SECONDS = 600


def pytest_collection_modifyitems(items):
    """Give the tests of this folder their marks, and time for what takes minutes on a busy machine."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kind)
            item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest.fixture(scope="session")
def docker():
    """The Docker of this machine."""
    docker = Docker()
    try:
        docker.require()
    except ProvisioningError as error:
        pytest.skip(f"NOT RUN: {error}")
    return docker


@pytest.fixture(scope="session")
def cluster(docker):
    """One kind cluster for all tests of this folder that want one control plane."""
    with KindCluster(f"clusterguard-test-{secrets.token_hex(4)}") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shell(cluster):
    """The control-plane node."""
    return DockerNodeShell(f"{cluster.name}-control-plane")


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Where the snapshots of these tests rest: a URL."""
    return str(tmp_path_factory.mktemp("snapshots"))


@pytest.fixture
def snapshotter(cluster, store):
    return EtcdSnapshotter(store=open_store(store), access=cluster.etcd)


@pytest.fixture(scope="session")
def workload_image():
    """A small image with a shell, for pods."""
    return os.environ.get("CLUSTERGUARD_WORKLOAD_IMAGE", "busybox:1.37")
