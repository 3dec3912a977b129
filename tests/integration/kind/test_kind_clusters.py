"""Kind clusters by the real kind and Docker: what comes up, what is refused, and what is left behind (nothing)."""

import os
import signal
import subprocess
import sys
import time

import pytest

from clusterguard.clusters import open_cluster
from clusterguard.clusters.base import Cluster
from clusterguard.clusters.kind import KindCluster
from clusterguard.clusters.kind.driver import KindDriver
from clusterguard.errors import ClusterError, ConfigError, ProgramError, ProvisioningError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import MemoryStore
from clusterguard.toolchain import from_environment

SECONDS = 300


def until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# ---- the shared one --------------------------------------------------------------------------------------


def test_it_is_a_cluster_with_real_nodes(shared_kind):
    assert isinstance(shared_kind, Cluster)
    (node,) = shared_kind.api.list(shared_kind.api.resource("Node"))
    assert node["metadata"]["name"] == f"{shared_kind.name}-control-plane"
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")
    assert shared_kind.api.server_version().startswith("v1.")


def test_etcd_answers_on_loopback_and_gives_a_whole_snapshot(shared_kind):
    assert shared_kind.etcd.endpoints[0].startswith("https://127.0.0.1:")
    snapshotter = EtcdSnapshotter(store=MemoryStore(), access=shared_kind.etcd)
    snapshot = snapshotter.save("one")
    snapshotter.verify("one").raise_for_findings()
    assert snapshot.total_keys > 100


def test_private_files_are_private(shared_kind):
    access = shared_kind.etcd
    files = [shared_kind.kubeconfig, access.ca, access.cert, access.key, shared_kind.folder]
    assert [oct(file.stat().st_mode & 0o077) for file in files] == ["0o0"] * len(files)


def test_the_control_plane_is_within_reach(shared_kind):
    layout = shared_kind.control_plane.layout()
    assert layout.name == f"{shared_kind.name}-control-plane"
    assert layout.peer_url.endswith(":2380")


def test_an_image_of_docker_gets_into_the_nodes(shared_kind, workload_image):
    shared_kind.load_image(workload_image)
    (node,) = shared_kind.api.list(shared_kind.api.resource("Node"))
    names = {name for image in node["status"].get("images", []) for name in image["names"]}
    assert any(workload_image.rpartition("/")[2].partition(":")[0] in name for name in names)


def test_an_image_that_docker_does_not_have_is_an_error(shared_kind):
    with pytest.raises(ProvisioningError, match="not present locally") as raised:
        shared_kind.load_image("clusterguard.invalid/no-such-image:1")
    assert "docker pull" in raised.value.hint


def test_whoever_knows_its_name_may_use_it_and_it_stays(shared_kind):
    with open_cluster(f"kind:{shared_kind.name}") as attached:
        assert (attached.provider, attached.created_by_us) == ("kind", False)
        assert attached.context == f"kind-{shared_kind.name}"
        assert attached.api.server_version() == shared_kind.api.server_version()
        assert attached.control_plane.layout() == shared_kind.control_plane.layout()
        assert EtcdSnapshotter(store=MemoryStore(), access=attached.etcd).save("two").total_keys > 100
    assert shared_kind.nodes[0].running
    assert shared_kind.api.server_version()


def test_its_name_is_taken_for_everybody_else(shared_kind, tmp_path):
    before = shared_kind.nodes
    with pytest.raises(ConfigError) as caught:
        KindCluster(shared_kind.name, home=tmp_path / "home").start()
    assert caught.value.code == "cluster-exists"
    assert shared_kind.nodes == before


def test_kind_itself_refuses_a_name_that_was_taken_after_we_looked(shared_kind, tmp_path):
    before = shared_kind.nodes
    kind = from_environment(os.environ).ensure("kind")["kind"]
    config = tmp_path / "kind.yaml"
    config.write_text("{kind: Cluster, apiVersion: kind.x-k8s.io/v1alpha4}")
    with pytest.raises(ProgramError, match="already exist for a cluster with the name"):
        KindDriver(name=shared_kind.name, folder=tmp_path, kind=kind).create(config)
    assert shared_kind.nodes == before


# ---- others beside it ------------------------------------------------------------------------------------


def test_a_kept_cluster_lives_on_survives_a_power_cut_and_goes_when_told(shared_kind, new_name, docker):
    name = new_name()
    cluster = KindCluster(name, version=shared_kind.api.server_version(), outlive_us=True).start()
    cluster.api.close()
    assert name in {record.name for record in KindCluster.known()}
    with KindCluster.attach(name) as again:
        node = again.nodes[0].name
        again.stop_node(node)
        assert again.node_power() == {node: False}
        with pytest.raises(ClusterError, match=f"{node} does not run"):
            KindCluster.attach(name)
        again.start_node(node)
        until(lambda: _answers(again))
    assert docker.nodes(name) != ()
    KindCluster(name).delete()
    assert docker.nodes(name) == ()
    assert name not in {record.name for record in KindCluster.known()}
    assert shared_kind.api.server_version()


def _answers(cluster):
    try:
        return cluster.api.server_version()
    except ClusterError:
        return ""


def test_an_image_that_cannot_be_had_leaves_nothing(docker, new_name, tmp_path):
    name = new_name()
    with pytest.raises(ProvisioningError) as raised:
        KindCluster(name, image="clusterguard.invalid/no-such-node:v1", home=tmp_path / "home").start()
    assert raised.value.code == "kind-failed"
    assert raised.value.fields["image"] == "clusterguard.invalid/no-such-node:v1"
    assert "docker pull" in raised.value.hint
    assert docker.nodes(name) == ()
    assert list((tmp_path / "home").iterdir()) == []


def test_a_configuration_that_kind_refuses_leaves_nothing(docker, new_name, tmp_path):
    name = new_name()
    config = tmp_path / "given.yaml"
    config.write_text("{kind: Cluster, apiVersion: kind.x-k8s.io/v1alpha4, no-such-field: 1}")
    with pytest.raises(ProvisioningError, match="no-such-field") as raised:
        KindCluster(name, config=config, home=tmp_path / "home").start()
    assert raised.value.hint == "correct the kind configuration file"
    assert docker.nodes(name) == ()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_while_it_creates_leaves_nothing_for_long(docker, new_name, tmp_path, how):
    name, home = new_name(), tmp_path / "home"
    code = (
        "from pathlib import Path; from clusterguard.clusters import KindCluster; "
        f"KindCluster({name!r}, home=Path({str(home)!r})).start()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True) as run:
        try:
            until(lambda: docker.nodes(name) or run.poll() is not None)
            assert run.poll() is None
            run.send_signal(how)
            run.wait(SECONDS)
        finally:
            run.kill()
    if how is signal.SIGKILL:
        assert docker.nodes(name) != ()
        assert KindCluster.sweep(home=home) == [name]
    assert docker.nodes(name) == ()
    assert list(home.iterdir()) == []
    time.sleep(2)
    assert docker.nodes(name) == ()  # no kind goes on after its parent


def test_a_stopped_docker_is_told_as_such(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(ProvisioningError) as raised:
        KindCluster(home=tmp_path / "home").start()
    assert raised.value.code == "docker-failed"
    assert "start Docker" in raised.value.hint
    with pytest.raises(ProvisioningError):
        KindCluster.attach("any")


def test_a_cluster_that_nobody_created_is_not_there(docker):
    with pytest.raises(ClusterError) as caught:
        open_cluster("kind:no-such-cluster")
    assert (caught.value.code, caught.value.fields["cluster"]) == ("cluster-not-found", "no-such-cluster")
