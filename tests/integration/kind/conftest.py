"""Real kind clusters. Where Docker does not answer, these tests are not run, and say why."""

import os
import secrets

import pytest

from clusterguard.clusters.kind import Docker, KindCluster
from clusterguard.errors import ProvisioningError

CREATION_SECONDS = 900  # a machine that is busy, or that pulls the node image first


def pytest_collection_modifyitems(items):
    """Give the tests of this folder their mark, and time for what takes minutes on a busy machine."""
    here = os.path.dirname(__file__)  # noqa: PTH120 - compared with what pytest tells as text
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.kind)
            item.add_marker(pytest.mark.timeout(CREATION_SECONDS))


@pytest.fixture(scope="session")
def docker():
    """The Docker of this machine."""
    docker = Docker()
    try:
        docker.require()
    except ProvisioningError as error:
        pytest.skip(f"NOT RUN: {error}")
    return docker


@pytest.fixture
def new_name(docker):
    """Give names that nobody has; whatever still bears one in the end is removed."""
    given = []

    def new_name():
        given.append(f"clusterguard-test-{secrets.token_hex(4)}")
        return given[-1]

    yield new_name
    for name in given:
        docker.remove(docker.nodes(name))


@pytest.fixture(scope="session")
def shared_kind(docker):
    """One kind cluster for all tests that leave it as it was."""
    with KindCluster(f"clusterguard-test-{secrets.token_hex(4)}") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def workload_image():
    """A small image with a shell, for pods."""
    return os.environ.get("CLUSTERGUARD_WORKLOAD_IMAGE", "busybox:1.37")
