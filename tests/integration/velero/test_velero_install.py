"""Velero put into a cluster and taken out of it again, with no server to help."""

from __future__ import annotations

import pytest

from clusterguard.clusters import EmbeddedCluster
from clusterguard.errors import NotAllowedError, ResourceNotFoundError, VeleroNotInstalledError
from clusterguard.velero import InstallOptions, VeleroClient
from clusterguard.velero.install import install, uninstall
from clusterguard.velero.objects import resource_of
from clusterguard.velero.resources import Backup, BackupStorageLocation, Restore

pytestmark = [pytest.mark.programs, pytest.mark.slow]


@pytest.fixture(scope="module")
def bare(toolchain, tmp_path_factory):
    """A cluster without Velero."""
    with EmbeddedCluster(toolchain=toolchain, home=tmp_path_factory.mktemp("bare")) as running:
        yield running.api


@pytest.fixture
def program(velero_programs):
    return velero_programs["velero"]


def test_a_cluster_without_velero_is_told_by_what_it_lacks(bare):
    velero = VeleroClient(api=bare)
    assert not velero.installed()
    with pytest.raises(VeleroNotInstalledError, match=r"backups\.velero\.io"):
        velero.require_installed()
    for ask in (velero.status, velero.backups, lambda: velero.back_up("x"), lambda: velero.restore("x")):
        with pytest.raises(VeleroNotInstalledError, match=r"velero\.io") as caught:
            ask()
        assert "install" in caught.value.hint


def test_installing_twice_and_removing_without_a_server(bare, program):
    options = InstallOptions(
        replicas=1,
        plugins=("velero/velero-plugin-for-aws:v1.14.3",),
        provider="aws",
        bucket="backups",
        location_config={"region": "us-east-1"},
        credentials="[default]\n",
        node_agent=True,
        service_account_annotations={"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/velero"},
        server_args=("--client-qps=500",),
    )
    # kwok plays the pods, so Deployment and DaemonSet become ready.
    first = install(options, api=bare, velero=program, wait_seconds=60)
    assert {"Namespace velero", "Deployment velero", "DaemonSet node-agent"} <= set(first.objects)
    velero = VeleroClient(api=bare)
    velero.require_installed()
    upgraded = InstallOptions(replicas=0, image="velero/velero:v1.18.9", plugins=options.plugins)
    install(upgraded, api=bare, velero=program, wait_seconds=None)
    deployment = bare.get(bare.resource("Deployment"), "velero", "velero")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "velero/velero:v1.18.9"
    assert deployment["spec"]["replicas"] == 0
    assert velero.locations.get("default").bucket == "backups"  # an upgrade names no location and leaves them

    velero.objects.create(Backup.new(namespace="velero", name="left"))
    stuck = Restore.new(namespace="velero", name="stuck", spec={"backupName": "left"})
    stuck.manifest["metadata"]["finalizers"] = ["restores.velero.io/external-resources-finalizer"]
    velero.objects.create(stuck)
    planned = uninstall(api=bare, dry_run=True)
    assert {"Namespace velero", "Restore stuck", "ClusterRoleBinding velero"} <= set(planned.objects)
    assert velero.installed()
    removed = uninstall(api=bare, grace_seconds=1)
    assert removed.finalizers == ["Restore stuck"]
    assert not velero.installed()
    with pytest.raises(ResourceNotFoundError):
        bare.get(bare.resource("Namespace"), "velero")
    with pytest.raises(ResourceNotFoundError):
        bare.get(bare.resource("ClusterRoleBinding"), "velero")
    assert uninstall(api=bare).objects == []


def test_another_velero_keeps_the_definitions(bare, program):
    install(InstallOptions(definitions_only=True), api=bare, velero=program)
    bare.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "second"}})
    other = VeleroClient(api=bare, namespace="second")
    spec = {"provider": "aws", "objectStorage": {"bucket": "theirs"}}
    other.objects.create(BackupStorageLocation.new(namespace="second", name="theirs", spec=spec))
    with pytest.raises(NotAllowedError, match="namespace second"):
        uninstall(api=bare)
    assert bare.get(resource_of(BackupStorageLocation), "theirs", "second")
