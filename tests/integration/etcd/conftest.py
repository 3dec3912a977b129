from __future__ import annotations

import pytest
from etcd_proxy import proxy

from clusterguard.clusters.base import EtcdAccess
from etcd_member import member


@pytest.fixture(scope="session")
def etcd_program(toolchain):
    return toolchain.ensure("etcd")["etcd"]


@pytest.fixture(scope="module")
def plain(etcd_program, tmp_path_factory):
    """A member without TLS, one for all tests of a module, that holds a few keys."""
    with member(etcd_program, tmp_path_factory.mktemp("etcd") / "plain") as running:
        for index in range(30):
            running.put(f"/registry/pods/default/p{index:02}", value=b"x" * (index * 97 % 700))
        running.put("/registry/secrets/marker", value=b"THE-MARKER-BYTES")
        running.delete("/registry/pods/default/p07")
        yield running


@pytest.fixture(scope="module")
def secured(etcd_program, tmp_path_factory):
    """A member that wants a client certificate."""
    with member(etcd_program, tmp_path_factory.mktemp("etcd") / "secured", tls=True) as running:
        running.put("/registry/pods/default/web")
        yield running


@pytest.fixture
def faulty(plain):
    """The plain member behind a proxy that goes wrong on demand, and how to reach it there."""
    with proxy(plain.port) as running:
        running.access = EtcdAccess(endpoints=(running.endpoint,))
        yield running
