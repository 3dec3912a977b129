"""Clusters of a drill on kind: the second is created beside the work on the first, and none is left behind."""

import threading
from types import SimpleNamespace

import pytest

from clusterguard.clusters.kind import KindCluster
from clusterguard.drills import DrillSettings
from clusterguard.drills.clusters import _cluster, kept_clusters, start_cluster, start_in_background
from clusterguard.drills.run import DrillRun
from clusterguard.drills.runner import DrillRunner
from clusterguard.drills.steps.base import StepContext
from clusterguard.drills.steps.delete_cluster import DeleteCluster
from clusterguard.drills.verdict import Verdict
from clusterguard.errors import ClusterError, ProvisioningError

SECONDS = 20


class Provider:
    """Makes clusters as `KindCluster` does, as slowly and as badly as a test wants it."""

    def __init__(self):
        self.made = {}
        self.errors = {}
        self.gates = {}  # what the creation of a cluster waits for
        self.log = []

    def start(self, cluster):
        key = cluster.name.rpartition("-")[2]
        self.made[key] = cluster
        self.log.append(("begin", key, threading.current_thread() is threading.main_thread()))
        gate = self.gates.get(key)
        if gate is not None:
            assert gate.wait(SECONDS)
        if key in self.errors:
            raise self.errors[key]
        if cluster._abandoned.is_set():
            raise ProvisioningError("abandoned")
        self.log.append(("ready", key))
        return cluster

    def note(self, what):
        def do(cluster, *_):
            self.log.append((what, cluster.name.rpartition("-")[2]))

        return do


@pytest.fixture
def provider(monkeypatch):
    provider = Provider()
    monkeypatch.setattr(KindCluster, "start", lambda cluster: provider.start(cluster))  # noqa: PLW0108 - a method of the class
    monkeypatch.setattr(KindCluster, "delete", provider.note("delete"))
    monkeypatch.setattr(KindCluster, "keep", provider.note("keep"))
    api = SimpleNamespace(server_version=lambda: "v1.36.3", close=lambda: None)
    monkeypatch.setattr(KindCluster, "api", api)

    def abandon(cluster):
        provider.log.append(("abandon", cluster.name.rpartition("-")[2]))
        cluster._abandoned.set()
        for gate in provider.gates.values():
            gate.set()

    monkeypatch.setattr(KindCluster, "abandon", abandon)
    return provider


@pytest.fixture
def load(load):
    return lambda **changes: load(**({"clusters": {"first": {}, "second": {}}} | changes))


@pytest.fixture
def make_run(load):
    def make_run(*, settings=None, **changes):
        return DrillRun(drill=load(**changes), run_id="0123abcd", settings=settings or DrillSettings(cluster="kind"))

    return make_run


def test_names_carry_the_run_and_fit_a_hosts_name(make_run, provider):
    long = "a-name-of-a-cluster-that-somebody-wanted-to-be-long"
    run = make_run(clusters={long: {}})
    name = start_cluster(run, long).name
    assert name.startswith("clusterguard-0123abcd-a-name-of")
    assert len(f"{name}-control-plane") <= 63
    run.close()


def test_the_second_cluster_is_created_beside_the_first(make_run, provider):
    provider.gates["second"] = threading.Event()
    run = make_run()
    first = start_cluster(run, "first")
    assert start_in_background(run, "second")
    assert list(run.pending) == ["second"]
    assert list(run.clusters.values()) == [first]
    provider.gates["second"].set()
    second = start_cluster(run, "second")
    assert not run.pending
    assert run.clusters == {"first": first, "second": second}
    assert run.owns("second")
    assert ("begin", "second", False) in provider.log
    run.close()
    assert provider.log[-2:] == [("delete", "second"), ("delete", "first")]


def test_what_goes_wrong_in_the_background_is_told_when_the_cluster_is_wanted(make_run, provider):
    provider.errors["second"] = ProvisioningError("kind could not create it")
    run = make_run()
    start_cluster(run, "first")
    start_in_background(run, "second")
    with pytest.raises(ProvisioningError, match="kind could not create it"):
        start_cluster(run, "second")
    run.close()
    assert set(provider.log[-2:]) == {("delete", "second"), ("delete", "first")}


def test_a_cluster_that_nobody_waited_for_is_removed(make_run, provider):
    run = make_run()
    start_in_background(run, "second")
    run.close()
    assert provider.log[-1] == ("delete", "second")
    assert run.clusters == {}


def test_a_creation_that_still_goes_on_is_stopped(make_run, provider):
    provider.gates["second"] = threading.Event()
    run = make_run()
    start_in_background(run, "second")
    run.close()
    assert provider.log[-2:] == [("abandon", "second"), ("delete", "second")]


def test_kept_clusters_are_those_that_were_used(make_run, provider):
    run = make_run(clusters={"first": {}, "second": {}, "third": {}})
    start_cluster(run, "first")
    start_in_background(run, "second")
    start_cluster(run, "second")
    start_in_background(run, "third")
    run.keep_clusters = True
    again = kept_clusters(run)
    run.close()
    assert [entry for entry in provider.log if entry[0] in {"keep", "delete"}] == [
        ("delete", "third"),
        ("keep", "second"),
        ("keep", "first"),
    ]
    assert "--drill-cluster kind:clusterguard-0123abcd-first" in again[0]
    assert "--drill-allow-context kind-clusterguard-0123abcd-first" in again[0]


def test_a_cluster_that_the_drill_deleted_is_not_kept(make_run, provider):
    run = make_run()
    start_cluster(run, "first")
    DeleteCluster(name="first").perform(StepContext(run, None))
    run.keep_clusters = True
    run.close()
    assert ("keep", "first") not in provider.log


def test_embedded_and_existing_clusters_are_opened_in_front(make_run):
    run = make_run(clusters={"first": {"embedded": {}}, "second": {"context": "mine"}, "third": {"kind": {}}})
    assert not start_in_background(run, "first")
    assert not start_in_background(run, "second")
    given = make_run(settings=DrillSettings(cluster="kind", open=lambda _: None))
    assert not start_in_background(given, "second")


@pytest.mark.parametrize(
    ("said", "control_planes", "workers"), [({}, 1, 0), ({"controlPlanes": 3, "workers": 2}, 3, 2)]
)
def test_the_drills_own_words_choose_version_and_nodes(make_run, monkeypatch, said, control_planes, workers):
    made = {}
    monkeypatch.setattr("clusterguard.clusters.kind.KindCluster", lambda name, **options: made.update(options))
    run = make_run(clusters={"first": {"kind": {"version": "1.36"} | said}})
    _cluster(run, "first", "kind")
    assert (made["version"], made["control_planes"], made["workers"]) == ("1.36", control_planes, workers)


def test_docker_that_is_missing_is_an_error_of_the_drill(load, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = DrillRunner(settings=DrillSettings(cluster="kind")).run(load())
    assert result.verdict is Verdict.ERROR
    assert "kind needs Docker, and there is no program docker on PATH" in result.reason


def test_a_failing_background_creation_does_not_hide_another_error(make_run, provider):
    provider.errors["second"] = ClusterError("first of all")
    run = make_run()
    start_in_background(run, "second")
    run.close()
    assert provider.log[-1] == ("delete", "second")
