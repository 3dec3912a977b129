from __future__ import annotations

import pytest
from image import build, docker

from clusterguard.clusters.kind import Docker
from clusterguard.errors import ProvisioningError


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """The image of this checkout."""
    try:
        Docker().require()
    except ProvisioningError as error:
        pytest.skip(f"NOT RUN: {error}")
    tag = build(tmp_path_factory.mktemp("builder"))
    yield tag
    docker("rmi", tag)
