from __future__ import annotations

import pytest
from velero_server import LOCK, OTHER_LOCK, PROGRAMS, Server

from clusterguard.clusters import EmbeddedCluster
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.velero import InstallOptions, LocationSpec, VeleroClient
from clusterguard.velero.install import install

BUCKET = "backups"


@pytest.fixture(scope="session")
def velero_programs(toolchain):
    return toolchain.ensure(*PROGRAMS)


@pytest.fixture(scope="session")
def cluster(toolchain, tmp_path_factory):
    with EmbeddedCluster(toolchain=toolchain, home=tmp_path_factory.mktemp("clusters")) as running:
        yield running


@pytest.fixture(scope="session")
def api(cluster):
    return cluster.api


@pytest.fixture(scope="session")
def s3(velero_programs, tmp_path_factory):
    server = LocalS3Server(program=velero_programs["versitygw"], folder=tmp_path_factory.mktemp("s3"))
    server.create_bucket(BUCKET)
    with server:
        yield server


@pytest.fixture(scope="session")
def installed(cluster, velero_programs):
    """Velero's objects in the cluster, with a Deployment that runs nothing."""
    return install(InstallOptions(replicas=0), api=cluster.api, velero=velero_programs["velero"], wait_seconds=None)


@pytest.fixture(scope="module")
def server(cluster, installed, velero_programs, tmp_path_factory):
    """Velero's server, the only one of this machine; whoever kills it starts it again."""
    running = Server(programs=velero_programs, kubeconfig=cluster.kubeconfig, folder=tmp_path_factory.mktemp("velero"))
    with LOCK, OTHER_LOCK:
        try:
            yield running.start().wait_until_it_works()
        finally:
            running.stop()


@pytest.fixture(scope="session")
def location_spec(s3):
    """Return what a location in the S3 server is; settings as of LocationSpec."""

    def spec(**settings):
        config = {"region": s3.region, "s3ForcePathStyle": "true", "s3Url": s3.endpoint}
        defaults = {"bucket": BUCKET, "prefix": "main", "config": config, "credentials": s3.credentials_file()}
        return LocationSpec(**{**defaults, **settings})

    return spec


@pytest.fixture(scope="module")
def velero(server, api, location_spec):
    """A client whose default location is available."""
    client = VeleroClient(api=api, request_seconds=20, silence_seconds=5)
    if "default" in {location.name for location in client.locations.list()}:
        client.locations.require_available("default", fresh=True)
    else:
        client.locations.create("default", location_spec(default=True))
    return client


@pytest.fixture
def shop(api, request):
    """A namespace with a few objects, for one test alone."""
    letters = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    name = f"s-{letters[-50:].strip('-')}"
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for number in range(5):
        api.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"settings-{number}", "namespace": name, "labels": {"app": "web"}},
                "data": {"number": str(number)},
            }
        )
    # A controller makes it a moment later; what a backup holds must not depend on which was faster.
    api.wait_for(
        api.resource("ConfigMap"),
        "kube-root-ca.crt",
        name,
        until=lambda seen: seen is not None,
        what="the namespace's own certificate",
        timeout_seconds=30,
    )
    return name
