from __future__ import annotations

import uuid

import pytest

from s3_fault_proxy import fault_proxy
from s3_gateway import gateway


@pytest.fixture(scope="session")
def versitygw(toolchain):
    """The S3 server's program."""
    return toolchain.ensure("versitygw")["versitygw"]


@pytest.fixture(scope="session")
def s3(versitygw, tmp_path_factory):
    """A running S3 server, one for all tests: each takes a prefix of its own."""
    with gateway(versitygw, tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def prefix():
    """A place in the bucket that no other test writes to."""
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def faults(s3):
    """A proxy in front of the server, and it goes wrong on demand."""
    with fault_proxy(s3.endpoint) as proxy:
        yield proxy
