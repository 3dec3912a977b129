"""A policy's copy alone, once cluster and bucket are lost: every byte of a volume comes back in a new cluster."""

import os
import secrets
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pyrage
import pytest
import yaml

from clusterguard.clusters.kind import KindCluster
from clusterguard.clusters.kube_exec import find_container
from clusterguard.drills import Verdict
from clusterguard.drills.csi_driver import VARIABLE, install_driver, names_driver
from clusterguard.drills.files import write_file
from clusterguard.drills.servers.container_s3 import ContainerS3Server
from clusterguard.drills.velero import install_options
from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.copies.stored import fetch
from clusterguard.policies.policy import Encryption, Location, Policy, RetentionPolicy, Source, VeleroSource
from clusterguard.policies.runs.run import PolicyRunner
from clusterguard.process import run as run_program
from clusterguard.velero import LocationSpec, VeleroClient
from clusterguard.velero.install import install

pytestmark = [
    pytest.mark.kind,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not names_driver(), reason=f"{VARIABLE} names no CSI driver"),
]

MANIFEST = Path(__file__).parents[3] / "drills/manifests/shop-data.yaml"
BUCKET, PREFIX = "company", "main"


@pytest.fixture
def cluster():
    """Not the one of the drills here: each cluster of these tests is lost, or is a drill's own."""


@pytest.fixture
def clean():
    return lambda: None


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """Start a server with a bucket that pods and we reach by one address, and let its credentials be found."""
    with ExitStack() as servers:

        def bucket():
            server = servers.enter_context(ContainerS3Server(network="kind"))
            server.create_bucket(BUCKET)
            credentials = tmp_path / f"{server.name}.credentials"
            credentials.write_text(server.credentials_file())
            monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
            return server

        yield bucket


def address_of(server):
    shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = run_program(["docker", "inspect", f"--format={shown}", server.name], timeout_seconds=60).stdout.strip()
    return f"http://{address}:7070"


def a_shop_with_velero(cluster, toolchain, server):
    """Return the digest of what the shop has in its volume."""
    api = cluster.api
    install_driver(api)
    install(install_options(os.environ, snapshots=True), api=api, velero=toolchain.ensure("velero")["velero"])
    config = {"region": server.region, "s3ForcePathStyle": "true", "s3Url": address_of(server)}
    VeleroClient(api=api).locations.create(
        "default",
        LocationSpec(bucket=BUCKET, prefix=PREFIX, config=config, credentials=server.credentials_file(), default=True),
    )
    for document in yaml.safe_load_all(MANIFEST.read_text()):
        api.apply(document)
    api.wait_for(
        api.resource("StatefulSet"),
        "web",
        "shop",
        until=lambda seen: seen is not None and (seen.get("status") or {}).get("readyReplicas") == 1,
        what="the shop is ready",
        timeout_seconds=240,
    )
    container = find_container(api, "shop", selector="app=web")
    write_file(api, container, "/data/index.html", b"open\n", seconds=60)
    return write_file(api, container, "/data/orders.bin", secrets.token_bytes(4 << 20), seconds=120)


def a_policy(cluster, server, folder, *, volumes):
    identity = pyrage.x25519.Identity.generate()
    source = VeleroSource(
        cluster=f"kubeconfig:{cluster.kubeconfig}",
        bucket=f"s3://{BUCKET}/{PREFIX}?endpoint={address_of(server)}&pathStyle=true&region={server.region}",
        included_namespaces=("shop",),
        volumes=volumes,
        read_data="all",
    )
    return Policy(
        name="nightly",
        sources=(Source(name="shop", velero=source),),
        locations=tuple(Location(name=name, url=str(folder / name)) for name in ("disk", "nas")),
        copies=2,
        retention=RetentionPolicy(last=1),
        encryption=Encryption(recipients=(str(identity.to_public()),), identity_env="IDENTITY"),
    ), {"IDENTITY": str(identity)}


def drill_of(backup, server, digest):
    web = {"namespace": "shop", "selector": "app=web"}
    look = {"command": ["sha256sum", "/data/orders.bin"], "in": web, "contains": digest}
    return {
        "clusters": {"target": {"startIn": "restore"}},
        "storage": {"copy": {"s3": {"bucket": BUCKET, "prefix": PREFIX, "endpoint": address_of(server)}}},
        "scope": {"namespaces": ["shop"]},
        "backup": [
            {"storedBackup": {"name": "night", "velero": {"backup": backup, "storage": "copy"}}},
            {"verifyBackup": {"backup": "night", "data": "all"}},
        ],
        "restore": [{"veleroRestore": {"from": "night"}, "timeout": "6m"}],
        "verify": [
            {"restored": {}, "timeout": "2m"},
            {"ready": {"kind": "Pod", "namespace": "shop", "selector": "app=web", "count": 1}, "timeout": "4m"},
            {"exec": look, "timeout": "4m"},
        ],
    }


@pytest.mark.parametrize("volumes", ["move", "fileSystem"])
def test_a_copy_alone_brings_every_byte_back(run, bucket, toolchain, tmp_path, volumes):
    first = bucket()
    with KindCluster() as lost:
        digest = a_shop_with_velero(lost, toolchain, first)
        policy, environ = a_policy(lost, first, tmp_path, volumes=volumes)
        report = PolicyRunner(policy=policy, environ=environ).run(["backup"])
        assert report.outcome == "ok", [str(step) for step in report.steps]
    first.remove()

    second = bucket()
    name = fetch(
        policy,
        "shop",
        second.store(BUCKET, PREFIX),
        encryption=encryption_of(policy, environ),
        location="nas",
    )
    drill = drill_of(name, second, digest)
    result = run(drill, open=None, longest_wait=timedelta(minutes=4))
    assert result.verdict is Verdict.PASS, (result.reason, result.diff)
    [exec_] = [step for step in result.steps if (step.phase, step.title) == ("verify", "exec")]
    assert digest in exec_.detail
