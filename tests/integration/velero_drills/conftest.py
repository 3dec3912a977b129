"""One cluster with a real Velero server for a module: both are slow to start, and a machine has one server only."""

import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from clusterguard.clusters import EmbeddedCluster
from clusterguard.velero import InstallOptions, VeleroClient
from clusterguard.velero.install import install

# Taken by every test with a server, before the server's own lock, which runs outside of tests hold, too.
LOCK = FileLock(Path(tempfile.gettempdir()) / "clusterguard-test-velero.lock")


@pytest.fixture(scope="session")
def velero_lock():
    """What a test takes whose drill starts a server of its own."""
    return LOCK


@pytest.fixture(scope="module")
def velero_cluster(toolchain, tmp_path_factory):
    home = tmp_path_factory.mktemp("clusters")
    with LOCK, EmbeddedCluster(toolchain=toolchain, home=home) as cluster:
        program = cluster.velero_server.program("velero")
        install(InstallOptions(replicas=0), api=cluster.api, velero=program)
        cluster.velero_server.start()
        yield cluster


@pytest.fixture(scope="module")
def api(velero_cluster):
    return velero_cluster.api


@pytest.fixture(scope="module")
def velero(api):
    return VeleroClient(api=api)
