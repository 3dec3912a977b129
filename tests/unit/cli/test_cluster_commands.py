"""``clusterguard cluster`` with kind, and drills that cannot be run where they were asked for."""

import json

import pytest

from clusterguard.clusters.kind import Docker, KindCluster
from clusterguard.clusters.kind.records import KindRecord
from clusterguard.clusters.records import read_record, write_record
from clusterguard.errors import ProvisioningError
from clusterguard.process import ProcessRecord
from clusterguard.toolchain import Toolchain


class Kind:
    """What the commands do to kind clusters."""

    def __init__(self, home):
        self.home = home
        self.log = []
        self.fails = ()

    def do(self, what, cluster, *more):
        self.log.append((what, cluster.name, *more))
        if what in self.fails:
            raise ProvisioningError(f"no {what}", hint="try again")

    def start(self, cluster):
        options = (cluster._image, cluster._version, cluster._control_planes, cluster._workers, cluster._config)
        self.do("start", cluster, *options)
        cluster.folder.mkdir(parents=True)
        write_record(cluster.folder, KindRecord(name=cluster.name, created=0, owner=None, etcd_port=1))
        return cluster


@pytest.fixture
def kind(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("CLUSTERGUARD_KIND_IMAGE", raising=False)
    kind = Kind(tmp_path)

    class Api:
        server_version = staticmethod(lambda: "v1.36.3")

    monkeypatch.setattr(KindCluster, "start", lambda cluster: kind.start(cluster))  # noqa: PLW0108 - a method
    monkeypatch.setattr(KindCluster, "keep", lambda cluster: kind.do("keep", cluster))
    monkeypatch.setattr(KindCluster, "delete", lambda cluster: kind.do("delete", cluster))
    monkeypatch.setattr(KindCluster, "load_image", lambda cluster, image: kind.do("load", cluster, image))
    monkeypatch.setattr(KindCluster, "api", Api)
    monkeypatch.setattr(Docker, "nodes", lambda *_: ())
    return kind


def test_a_kind_cluster_is_started_filled_and_kept(cli, kind, tmp_path):
    code, out, _ = cli("cluster", "up", "mine", "--provider", "kind", "--load-image", "app:1", "--load-image", "app:2")
    assert code == 0
    assert kind.log == [
        ("start", "mine", None, None, 1, 0, None),
        ("load", "mine", "app:1"),
        ("load", "mine", "app:2"),
        ("keep", "mine"),
    ]
    assert f"export KUBECONFIG={tmp_path}/clusterguard/kind/mine/kubeconfig" in out
    assert "--drill-cluster kind:mine --drill-allow-context kind-mine" in out


def test_options_of_kind_are_handed_on(cli, kind, tmp_path):
    options = ["--image", "my/node", "--version", "1.36", "--control-planes", "3", "--workers", "2"]
    options += ["--config", tmp_path / "c.yaml"]
    assert cli("cluster", "up", "mine", "--provider", "kind", *options).code == 0
    assert kind.log[0] == ("start", "mine", "my/node", "1.36", 3, 2, tmp_path / "c.yaml")


@pytest.mark.parametrize("step", ["load", "keep"])
def test_a_cluster_that_could_not_be_filled_does_not_stay(cli, kind, step):
    kind.fails = (step,)
    code, _, err = cli("cluster", "up", "mine", "--provider", "kind", "--load-image", "app:1")
    assert (code, f"no {step}" in err, "try again" in err) == (2, True, True)
    assert kind.log[-1] == ("delete", "mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--provider", "kind", "--api-port", "6443"], "--api-port and --members: only for embedded clusters"),
        (["--workers", "1"], "only for kind clusters"),
        (["--control-planes", "3"], "only for kind clusters"),
        (["--load-image", "app:1"], "only for kind clusters"),
    ],
)
def test_options_of_the_other_provider_are_refused(cli, kind, options, message):
    code, _, err = cli("cluster", "up", "mine", *options)
    assert (code, message in err) == (2, True), err
    assert kind.log == []


def test_only_what_clusterguard_started_is_taken_down(cli, kind):
    cli("cluster", "up", "mine", "--provider", "kind")
    assert cli("cluster", "down", "mine", "--provider", "kind").out == "mine is gone\n"
    assert kind.log[-1] == ("delete", "mine")
    code, _, err = cli("cluster", "down", "theirs", "--provider", "kind")
    assert (code, "there is no kind cluster 'theirs' that clusterguard created" in err) == (2, True)
    assert ("delete", "theirs") not in kind.log


def test_kind_clusters_are_listed(cli, kind):
    cli("cluster", "up", "mine", "--provider", "kind")
    assert "mine" in (out := cli("cluster", "list").out)
    assert "kind" in out
    (told,) = json.loads(cli("cluster", "list", "--json").out)
    assert (told["provider"], told["name"], told["etcd_port"]) == ("kind", "mine", 1)


def test_a_list_removes_nothing_and_names_what_it_does_not_list(cli, kind, tmp_path):
    home = tmp_path / "clusterguard" / "kind"
    dead = ProcessRecord(pid=2**22 + 1, started=0.0)
    for name, owner in (("mine", None), ("dead", dead)):
        (home / name).mkdir(parents=True)
        write_record(home / name, KindRecord(name=name, created=0, owner=owner, etcd_port=1))
    (home / "odd").mkdir()
    (home / "odd" / "cluster.json").write_text("{}")
    for options in ([], ["--json"]):
        code, out, err = cli("cluster", "list", *options)
        assert code == 0
        assert "mine" in out
        assert not {"dead", "odd"} & set(out.split())
        assert "dead" in err
        assert str(home / "odd") in err
    assert sorted(each.name for each in home.iterdir()) == ["dead", "mine", "odd"]


def test_a_docker_that_does_not_answer_is_told_beside_its_cluster(cli, kind, monkeypatch):
    def away(*_):
        raise ProvisioningError("docker does not answer")

    cli("cluster", "up", "mine", "--provider", "kind")
    monkeypatch.setattr(Docker, "nodes", away)
    code, out, _ = cli("cluster", "list")
    # A narrow terminal wraps the sentence in its column.
    assert code == 0
    assert {"mine", "docker", "does", "not", "answer"} <= set(out.split())


def test_leftovers_are_swept(cli, kind, monkeypatch):
    assert cli("cluster", "sweep").out == "nothing was left behind\n"
    monkeypatch.setattr(KindCluster, "sweep", lambda: ["old"])
    assert cli("cluster", "sweep").out == "old is gone\n"


def test_a_kept_record_is_read_back(kind, tmp_path):
    cluster = KindCluster("mine").start()
    assert read_record(cluster.folder, KindRecord).owner is None


# ---- drills ----------------------------------------------------------------------------------------------


DRILL = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: web}
spec:
  backup: [{etcdSnapshot: {name: before}}]
  fault: [{delete: {kind: Pod, namespace: shop, all: true}}]
  restore: [{etcdRestore: {from: before}}]
  verify: [{http: {service: web, namespace: shop, port: 80}}]
"""


def test_a_drill_that_cannot_be_run_here_is_told_and_is_no_success(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(Toolchain, "missing", lambda *_: set())
    (tmp_path / "web.drill.yaml").write_text(DRILL)
    code, out, _ = cli("drill", "run", tmp_path)
    assert code == 2
    assert "SKIPPED web: `http` " in out
    assert "PASS" not in out


def test_kind_without_docker_is_an_error_at_once(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "web.drill.yaml").write_text(DRILL)
    code, out, err = cli("drill", "run", tmp_path, "--cluster", "kind")
    assert (code, out) == (2, "")
    assert "kind needs Docker, and there is no program docker on PATH" in err


def test_a_new_kind_cluster_has_nothing_to_look_at(cli):
    code, _, err = cli("inventory", "capture", "--cluster", "kind", "out.json")
    assert (code, "clusterguard cluster up NAME --provider kind" in err) == (2, True), err
