"""A kind cluster comes up whole or not at all, and never at the cost of somebody else's."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import yaml
from fake_kind import KUBECONFIG, node, ready

from clusterguard.clusters import kubeadm
from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.capabilities import MemberFaults, ReplacesMembers
from clusterguard.clusters.kind import cluster as module
from clusterguard.clusters.kind import members
from clusterguard.clusters.kind.driver import KindDriver
from clusterguard.clusters.kind.records import KindRecord
from clusterguard.clusters.records import read_record, write_record
from clusterguard.errors import (
    ClusterError,
    ConfigError,
    NotAllowedError,
    ProgramError,
    ProvisioningError,
    ResourceNotFoundError,
    WaitTimeoutError,
)
from clusterguard.process import ProcessRecord


def created(kind_folder):
    return (kind_folder / "calls").read_text().splitlines() if (kind_folder / "calls").exists() else []


def gone(home):
    return not home.exists() or list(home.iterdir()) == []


# ---- it comes up -----------------------------------------------------------------------------------------


def test_a_cluster_is_created_used_and_deleted(make, kind_folder, docker, api, home):
    with make(image="my/node", workers=1) as cluster:
        assert cluster.provider == "kind"
        assert not cluster.simulated_pods
        assert cluster.context == "kind-test"
        assert cluster.created_by_us
        assert cluster.api is api
        assert [each.name for each in cluster.nodes] == ["test-control-plane", "test-worker"]
        assert "--image=my/node" in created(kind_folder)[0]
        assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
        assert cluster.folder.stat().st_mode & 0o077 == 0
        owner = read_record(cluster.folder, KindRecord).owner
        assert owner == ProcessRecord.of(os.getpid())
    assert docker.removed == ["id-of-leader", "id-of-test-worker"]
    assert gone(home)
    assert api.closed == 1


def test_nothing_is_written_into_the_working_directory(make, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with make():
        pass
    assert list(here.iterdir()) == []


def test_the_configuration_publishes_the_ports_that_are_written_down(make, kind_folder):
    with make(control_planes=3, workers=2) as cluster:
        nodes = yaml.safe_load((kind_folder / "config.yaml").read_text())["nodes"]
        published = [mapping["hostPort"] for node in nodes for mapping in node.get("extraPortMappings", ())]
        record = read_record(cluster.folder, KindRecord)
        assert published == [record.etcd_port, *record.more_etcd_ports]
        assert (len(nodes), len(set(published))) == (5, 3)


def test_a_load_balancer_is_no_node_and_goes_with_them(make, docker):
    with make(control_planes=2) as cluster:
        assert list(cluster.node_power()) == ["test-control-plane", "test-control-plane2"]
        with pytest.raises(ResourceNotFoundError):
            cluster.stop_node("test-external-load-balancer")
    assert docker.removed[-1] == "id-of-test-external-load-balancer"


def test_members_are_those_of_the_control_planes_by_the_names_of_their_nodes(make, monkeypatch):
    monkeypatch.setattr(members, "runs", lambda shell: not shell.name.endswith("plane2"))
    with make(control_planes=3, workers=1) as cluster:
        assert isinstance(cluster, MemberFaults)
        assert isinstance(cluster, ReplacesMembers)
        cluster.stop_node("test-control-plane3")
        states = {"test-control-plane": True, "test-control-plane2": False, "test-control-plane3": False}
        assert cluster.member_states() == states


@pytest.mark.parametrize(
    ("control_planes", "stopped", "address"),
    [(1, "control-plane", ""), (3, "control-plane2", "172.18.0.2"), (3, "worker", "")],
)
def test_one_of_several_control_planes_comes_back_where_the_others_know_it(
    make, docker, control_planes, stopped, address
):
    """etcd's members know each other by address; a node alone, or a worker, is at home anywhere."""
    with make(control_planes=control_planes, workers=1) as cluster:
        cluster.stop_node(f"test-{stopped}")
        cluster.start_node(f"test-{stopped}")
        assert docker.started_at == address


@pytest.fixture
def certificates(monkeypatch):
    """Give the nodes whose certificates were asked for."""
    asked = []

    def etcd_access(shell, *, keep, endpoints):
        asked.append(shell.name)
        return EtcdAccess(endpoints=endpoints)

    monkeypatch.setattr(kubeadm, "etcd_access", etcd_access)
    return asked


def test_every_member_of_etcd_is_reached_whose_node_runs(make, certificates):
    with make(control_planes=3) as cluster:
        record = read_record(cluster.folder, KindRecord)
        first, second, third = (f"https://127.0.0.1:{port}" for port in (record.etcd_port, *record.more_etcd_ports))
        assert cluster.etcd.endpoints == (first, second, third)
        cluster.stop_node("test-control-plane")
        assert cluster.etcd.endpoints == (second, third)
        cluster.start_node("test-control-plane")
        assert cluster.etcd.endpoints == (first, second, third)
        assert certificates == ["test-control-plane", "test-control-plane2", "test-control-plane"]
        for name in cluster.node_power():
            cluster.stop_node(name)
        with pytest.raises(ClusterError) as caught:
            _ = cluster.etcd
        assert caught.value.code == "cluster-not-running"


def test_members_that_are_not_published_are_reached_at_their_nodes_while_these_run(attach, docker, certificates):
    docker.theirs["theirs"] = (
        node(etcd_port=None, address="", running=False),
        node(name="second", etcd_port=None, address="172.18.0.3"),
    )
    with attach() as cluster:
        assert cluster.etcd.endpoints == ("https://172.18.0.3:2379",)


def test_the_variable_names_the_image(make, kind_folder, monkeypatch):
    monkeypatch.setenv("CLUSTERGUARD_KIND_IMAGE", "env/node")
    with make():
        assert "--image=env/node" in created(kind_folder)[0]


def test_without_an_image_kind_takes_its_own(make, kind_folder):
    with make():
        assert "--image" not in created(kind_folder)[0]


def test_two_clusters_stand_side_by_side(make, docker, home):
    with make("one"), make("two"):
        assert {folder.name for folder in home.iterdir()} == {"one", "two"}
    assert gone(home)


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a" * 50])
def test_a_name_that_no_node_can_have_is_refused(make, name):
    with pytest.raises(ConfigError) as caught:
        make(name)
    assert (caught.value.code, caught.value.fields) == ("invalid-cluster-name", {"name": name})


def test_images_are_copied_into_the_nodes(make, kind_folder):
    with make() as cluster:
        cluster.load_image("my/app:1")
    assert created(kind_folder)[-1] == "load docker-image --name test my/app:1"


def test_an_image_that_docker_does_not_have(make, kind_folder):
    with make() as cluster:
        (kind_folder / "fails").touch()
        (kind_folder / "says").write_text('ERROR: image: "my/app:1" not present locally')
        with pytest.raises(ProvisioningError, match="not present locally") as raised:
            cluster.load_image("my/app:1")
    assert "docker pull" in raised.value.hint


def test_nodes_are_switched_off_and_on(make, docker):
    with make() as cluster:
        assert cluster.node_power() == {"test-control-plane": True}
        cluster.stop_node("test-control-plane")
        assert docker.killed == ["id-of-leader"]
        cluster.start_node("test-control-plane")
        assert docker.killed == []
        with pytest.raises(ResourceNotFoundError) as caught:
            cluster.stop_node("other")
        assert caught.value.fields == {"node": "other", "known": ["test-control-plane"]}
        assert cluster.docker_network == "kind"


# ---- it does not come up ---------------------------------------------------------------------------------


def test_docker_is_looked_for_before_anything_is_written(make, docker, home):
    docker.error = ProvisioningError("kind needs Docker")
    with pytest.raises(ProvisioningError, match="kind needs Docker"):
        make().start()
    assert gone(home)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ('ERROR: failed to pull image "my/node": manifest unknown', "docker pull"),
        ("ERROR: failed to create: write /x: no space left on device", "make room for Docker"),
    ],
)
def test_what_kind_says_is_told_and_everything_removed(make, kind_folder, docker, home, said, hint):
    (kind_folder / "fails").touch()
    (kind_folder / "says").write_text(f" • Preparing nodes\n{said}\n")
    with pytest.raises(ProvisioningError) as raised:
        make(image="my/node").start()
    assert raised.value.message.startswith("kind could not create cluster test from the node image my/node")
    assert said in raised.value.message
    assert hint in raised.value.hint
    assert docker.removed == ["id-of-leader"]
    assert gone(home)


def test_a_port_that_was_taken_meanwhile_is_replaced(make, kind_folder, monkeypatch):
    ports = iter([[30001], [30002]])
    (kind_folder / "fails").touch()
    (kind_folder / "says").write_text("Bind for 127.0.0.1:30001 failed: port is already allocated")

    def free_ports(_):
        port = next(ports)
        if port == [30002]:
            (kind_folder / "fails").unlink()
        return port

    monkeypatch.setattr(module, "free_ports", free_ports)
    with make() as cluster:
        assert read_record(cluster.folder, KindRecord).etcd_port == 30002


def test_a_port_that_is_always_taken_is_an_error(make, kind_folder, home):
    (kind_folder / "fails").touch()
    (kind_folder / "says").write_text("port is already allocated")
    with pytest.raises(ProvisioningError, match="port is already allocated"):
        make().start()
    assert len(created(kind_folder)) == 3
    assert gone(home)


@pytest.mark.parametrize(
    ("break_it", "seen"),
    [
        (lambda api: setattr(api, "conditions", [ready("False")]), "not ready: test-control-plane"),
        (
            lambda api: setattr(api, "taints", [{"key": "node.kubernetes.io/not-ready"}]),
            "not ready: test-control-plane",
        ),
        (lambda api: api.unknown.add("test-control-plane"), "not ready: test-control-plane"),
        (lambda api: setattr(api, "service_account", False), "no ServiceAccount default/default"),
    ],
)
def test_a_cluster_that_does_not_get_ready_is_removed(
    make, kind_folder, docker, api, home, monkeypatch, break_it, seen
):
    break_it(api)
    (kind_folder / "says").write_text("the end of what kind said\n")
    monkeypatch.setattr(module, "_READY_SECONDS", 0.05)
    with pytest.raises(WaitTimeoutError) as raised:
        make().start()
    assert seen in raised.value.message
    assert "the end of what kind said" in raised.value.hint
    assert docker.removed == ["id-of-leader"]
    assert gone(home)


def test_another_version_than_the_one_asked_for_is_no_success(make, docker, home):
    with pytest.raises(ProvisioningError) as caught:
        make(version="1.35").start()
    assert (caught.value.code, caught.value.fields) == ("other-version", {"requested": "1.35", "running": "v1.36.3"})
    assert docker.removed == ["id-of-leader"]
    assert gone(home)


@pytest.mark.parametrize(("text", "reason"), [(None, "cannot be read"), ("a: [", "is not YAML"), ("a: 1", "Cluster")])
def test_a_configuration_that_cannot_be_used_is_refused(make, tmp_path, home, text, reason):
    config = tmp_path / "given.yaml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        make(config=config).start()
    assert gone(home)


def test_the_reason_is_told_when_docker_goes_away_while_a_cluster_is_created(make, kind_folder, docker, home):
    (kind_folder / "fails").touch()
    (kind_folder / "says").write_text("Cannot connect to the Docker daemon")
    cluster = make()

    def nodes(_):
        raise ProvisioningError("Docker does not answer")

    docker.nodes = nodes
    with pytest.raises(ProvisioningError) as raised:
        cluster.start()
    assert (raised.value.code, raised.value.fields["cluster"]) == ("kind-failed", "test")
    assert "start Docker" in raised.value.hint
    assert read_record(home / "test", KindRecord) is not None  # what may be left is looked for at the next start


def test_an_interruption_removes_what_was_begun(make, docker, home, monkeypatch):
    def interrupted(self, config):
        (docker.folder / "config.yaml").write_text(config.read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(KindDriver, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make().start()
    assert docker.removed == ["id-of-leader"]
    assert gone(home)


def test_a_creation_that_nobody_wants_any_more_ends(make, kind_folder, docker, home):
    (kind_folder / "hangs").touch()
    (kind_folder / "fails").touch()
    cluster = make()
    errors = []

    def start():
        try:
            cluster.start()
        except ProvisioningError as error:
            errors.append(error.message)

    thread = threading.Thread(target=start)
    thread.start()
    deadline = time.monotonic() + 20
    while not (kind_folder / "config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    cluster.abandon()
    thread.join(20)
    assert not thread.is_alive()
    assert errors == ["cluster 'test' is not wanted any more, so its creation was stopped"]
    assert set(docker.removed) == {"id-of-leader"}
    assert gone(home)


def test_kind_ends_with_the_process_that_runs_it(kind_folder, tmp_path):
    """Otherwise it would go on creating a cluster that nobody knows of."""
    (kind_folder / "hangs").touch()
    code = (
        "import sys; from pathlib import Path; from clusterguard.clusters.kind.driver import KindDriver;"
        f"KindDriver(name='test', folder=Path({str(tmp_path)!r}), kind=Path({str(kind_folder / 'kind')!r}))"
        f".create(Path({str(kind_folder / 'kind')!r}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    calls = kind_folder / "calls"
    deadline = time.monotonic() + 20
    while not calls.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait()
    time.sleep(0.3)
    (kind_folder / "hangs").unlink()
    time.sleep(0.3)
    assert not (kind_folder / "up").exists()


# ---- somebody else's -------------------------------------------------------------------------------------


def test_a_name_that_is_taken_is_refused(make, kind_folder, docker, home):
    docker.theirs["test"] = (node(),)
    with pytest.raises(ConfigError) as raised:
        make().start()
    assert (raised.value.code, raised.value.fields["cluster"]) == ("cluster-exists", "test")
    assert raised.value.__cause__ is None
    assert "kind:test" in raised.value.hint
    assert created(kind_folder) == []
    assert docker.removed == []
    assert gone(home)


def test_a_name_that_another_run_is_claiming_is_refused(make, home):
    with make():
        folder = home / "test"
        with pytest.raises(ConfigError, match="already"):
            make().start()
        assert read_record(folder, KindRecord) is not None


def test_a_cluster_that_appears_meanwhile_is_not_adopted(make, kind_folder, docker, home):
    """pytest-kind takes a cluster of that name for its own, and deletes it in the end; kind itself refuses."""
    (kind_folder / "existing").write_text("test\n")
    (kind_folder / "fails").touch()
    (kind_folder / "says").write_text('ERROR: node(s) already exist for a cluster with the name "test"')
    docker.clusters = frozenset  # nobody had it when we looked
    docker.theirs["test"] = (node(etcd_port=None),)
    with pytest.raises(ConfigError) as caught:
        make().start()
    assert (caught.value.code, caught.value.fields["cluster"]) == ("cluster-exists", "test")
    assert isinstance(caught.value.__cause__, ProgramError)
    assert docker.removed == []
    assert gone(home)


def test_pytest_kind_alone_would_adopt_it(kind_folder, tmp_path):
    """Shows that the guard is needed: without it the same call succeeds, on somebody else's cluster."""
    from pytest_kind import KindCluster as PytestKind

    (kind_folder / "existing").write_text("test\n")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    adopted = PytestKind(str(tmp_path / "pytest-kind"), kubeconfig=kubeconfig, kind_path=kind_folder / "kind")
    adopted.name = "test"
    adopted.create()
    assert created(kind_folder) == ["get clusters"]  # it never created one, and went on to use the other
    (kind_folder / "fails").touch()
    guarded = KindDriver(name="test", folder=tmp_path, kind=kind_folder / "kind")
    with pytest.raises(ProgramError):
        guarded.create(kubeconfig)


def test_a_cluster_that_took_the_place_of_ours_is_not_deleted(make, docker, home):
    cluster = make().start()
    docker.theirs["test"] = (node(id="id-of-theirs", etcd_port=None),)
    with pytest.raises(NotAllowedError) as caught:
        cluster.close()
    assert (caught.value.code, caught.value.fields) == ("cluster-replaced", {"cluster": "test"})
    assert docker.removed == []
    assert gone(home)


# ---- it stays --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, False])
def test_a_kept_cluster_belongs_to_nobody(make, early):
    cluster = make(outlive_us=early).start()
    if not early:
        cluster.keep()
    assert read_record(cluster.folder, KindRecord).owner is None
    assert [record.name for record in cluster.known(home=cluster.folder.parent)] == ["test"]
    cluster.delete()
    assert cluster.known(home=cluster.folder.parent) == []


def test_only_a_running_cluster_can_be_kept(make):
    with pytest.raises(ClusterError, match="is not running"):
        make().keep()


def test_closing_twice_is_harmless(make, docker):
    cluster = make().start()
    cluster.close()
    cluster.close()
    assert docker.removed == ["id-of-leader"]


def test_docker_that_stopped_meanwhile_leaves_the_record_for_later(make, docker, home):
    cluster = make().start()
    docker.error = ProvisioningError("Docker does not answer")
    with pytest.raises(ProvisioningError):
        cluster.close()
    assert read_record(home / "test", KindRecord) is not None


def test_leftovers_go_when_the_next_cluster_starts(make, docker, home):
    cluster = make("old").start()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = ProcessRecord.of(child.pid)
    child.communicate(b"\n")
    write_record(cluster.folder, replace(read_record(cluster.folder, KindRecord), owner=dead))
    with make("new"):
        assert docker.removed == ["id-of-leader"]
        assert [folder.name for folder in home.iterdir()] == ["new"]
        docker.removed.clear()


# ---- attached --------------------------------------------------------------------------------------------


@pytest.fixture
def attach(make, docker, kind_folder):
    def attach(name="theirs"):
        options = make()
        return module.KindCluster.attach(name, toolchain=options._toolchain, home=options._home, docker=docker)

    return attach


def test_a_cluster_that_is_there_is_used_and_stays(attach, docker, kind_folder, home, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    docker.theirs["theirs"] = (node(name="theirs-control-plane"),)
    with attach() as cluster:
        assert (cluster.created_by_us, cluster.context, cluster.provider) == (False, "kind-theirs", "kind")
        assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
        assert cluster.api is not None
        told = yaml.safe_load(cluster.kubeconfig.read_text())
        assert told["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:30443"
        assert told["users"] == json.loads(KUBECONFIG)["users"]
        assert (told["contexts"][0]["name"], told["current-context"]) == ("kind-theirs", "kind-theirs")
        folder = cluster.folder
    assert docker.removed == []
    assert created(kind_folder) == []
    assert gone(home)
    # Whoever comes next removes it from there if this process is killed.
    assert folder.parent == tmp_path / "state" / "clusterguard" / "scratch"
    assert gone(folder.parent)


@pytest.mark.parametrize(("owner", "kept"), [("nobody", True), ("me", False), ("no record", False)])
def test_it_is_known_whether_we_kept_it(make, attach, docker, home, owner, kept):
    cluster = make("theirs").start()
    if owner == "nobody":
        cluster.keep()
    if owner == "no record":
        (home / "theirs" / "cluster.json").unlink()
    assert attach().kept is kept


def test_a_cluster_that_is_not_there_cannot_be_used(attach, docker):
    docker.theirs["other"] = (node(),)
    with pytest.raises(ClusterError) as caught:
        attach()
    assert (caught.value.code, caught.value.fields["known"]) == ("cluster-not-found", ["other"])


def test_a_cluster_that_is_stopped_cannot_be_used(attach, docker):
    docker.theirs["theirs"] = (node(name="theirs-control-plane", running=False),)
    with pytest.raises(ClusterError) as raised:
        attach()
    assert (raised.value.code, raised.value.fields["stopped"]) == ("cluster-not-running", ["theirs-control-plane"])
    assert raised.value.hint == "docker start theirs-control-plane"


LEADERS = tuple(node(name=name, id=name) for name in ("a", "b", "c"))
WORKER = node(name="w", id="w", role="worker", etcd_port=None)
BALANCER = node(name="lb", id="lb", role="external-load-balancer", etcd_port=None, api="127.0.0.1:30444")


@pytest.mark.parametrize(
    ("stopped", "usable"),
    [({"a"}, True), ({"a", "b", "w"}, True), ({"a", "b", "c"}, False), ({"lb"}, False)],
    ids=lambda value: "".join(sorted(value)) if isinstance(value, set) else None,
)
def test_a_cluster_is_used_while_its_api_can_be_served(attach, docker, stopped, usable):
    """Who restores what remains of a cluster comes when some of its nodes are gone."""
    containers = [replace(each, running=each.name not in stopped) for each in (*LEADERS, WORKER, BALANCER)]
    docker.theirs["theirs"] = tuple(containers)
    if usable:
        with attach() as cluster:
            assert [name for name, runs in cluster.node_power().items() if not runs] == sorted(stopped)
            assert "server: https://127.0.0.1:30444" in cluster.kubeconfig.read_text()
        running = next(each for each in "abc" if each not in stopped)
        assert (docker.folder / "asked").read_text() == f"{running} /etc/kubernetes/admin.conf\n"
        return
    with pytest.raises(ClusterError) as raised:
        attach()
    assert (raised.value.code, raised.value.fields["stopped"]) == ("cluster-not-running", sorted(stopped))
