"""The next drill's cluster, started while this one runs."""

from __future__ import annotations

import threading

import pytest

from clusterguard.clusters.embedded import EmbeddedCluster
from clusterguard.drills.ahead import ClusterAhead
from clusterguard.drills.clusters import start_cluster
from clusterguard.drills.run import DrillRun, DrillSettings
from clusterguard.errors import ClusterError, ProvisioningError

SPEC = {
    "backup": [{"etcdSnapshot": {"name": "before"}}],
    "fault": [{"delete": {"kind": "Pod", "namespace": "shop", "all": True}}],
    "restore": [{"etcdRestore": {"from": "before"}}],
    "verify": [{"restored": {}}],
}


class Log:
    """What became of the clusters, by name; `gate` holds them up, `error` makes them fail, `ended` answers nobody."""

    def __init__(self):
        self.entries = []
        self.gate = None
        self.error = None
        self.ended = False

    def of(self, what):
        return [name for each, name in self.entries if each == what]


@pytest.fixture
def log(monkeypatch):
    log = Log()

    def start(cluster):
        log.entries.append(("begin", cluster.name))
        if log.gate is not None:
            assert log.gate.wait(60)
        if log.error is not None:
            raise log.error
        log.entries.append(("ready", cluster.name))
        return cluster

    class Api:
        def server_version(self):
            if log.ended:
                raise ClusterError("connection refused")

    monkeypatch.setattr(EmbeddedCluster, "__enter__", start)
    monkeypatch.setattr(EmbeddedCluster, "api", Api())
    monkeypatch.setattr(EmbeddedCluster, "close", lambda cluster: log.entries.append(("closed", cluster.name)))
    monkeypatch.setattr(EmbeddedCluster, "__exit__", lambda cluster, *_: cluster.close())
    return log


@pytest.fixture
def load(load):
    return lambda **changes: load(SPEC | changes)


@pytest.fixture
def ahead():
    return ClusterAhead(default_cluster="embedded")


@pytest.fixture
def run(load, ahead):
    def run(*, clusters=None, **settings):
        drill = load(**({"clusters": clusters} if clusters else {}))
        return DrillRun(drill=drill, settings=DrillSettings(ahead=ahead, **settings))

    return run


def test_a_drill_takes_what_was_started_before_it_and_closes_it(log, ahead, load, run):
    ahead.start_for(load())
    this = run()
    cluster = start_cluster(this, "main")
    assert log.entries == [("begin", cluster.name), ("ready", cluster.name)]
    assert this.owns("main")
    this.close()
    ahead.close()
    assert log.of("closed") == [cluster.name]


def test_a_drill_waits_for_a_cluster_that_is_not_ready_yet(log, ahead, load, run):
    log.gate = threading.Event()
    ahead.start_for(load())
    threading.Timer(0.05, log.gate.set).start()
    cluster = start_cluster(run(), "main")
    assert log.entries == [("begin", cluster.name), ("ready", cluster.name)]


def test_it_is_taken_once(log, ahead, load, run):
    ahead.start_for(load())
    ahead.start_for(load())
    first, second = start_cluster(run(), "main"), start_cluster(run(), "main")
    assert first is not second
    assert log.of("begin") == [first.name, second.name]


def test_what_fails_meanwhile_is_tried_again_where_somebody_sees_it(log, ahead, load, run):
    log.error = ProvisioningError("no room")
    ahead.start_for(load())
    with pytest.raises(ProvisioningError, match="no room"):
        start_cluster(run(), "main")
    assert len(log.of("begin")) == 2


def test_one_that_ended_meanwhile_is_removed_and_not_taken(log, ahead, load, run):
    ahead.start_for(load())
    ahead.settle()
    log.ended = True
    cluster = start_cluster(run(), "main")
    first, second = log.of("begin")
    assert (cluster.name, log.of("closed")) == (second, [first])


def test_who_is_interrupted_while_waiting_leaves_it_to_the_end_of_the_session(log, ahead, load, monkeypatch):
    def interrupted(_futures):
        raise KeyboardInterrupt

    ahead.start_for(load())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("clusterguard.drills.ahead.wait", interrupted)
        ahead.take()
    ahead.close()
    assert log.of("closed") == log.of("begin") != []


def test_what_nobody_takes_is_removed(log, ahead, load):
    ahead.start_for(load())
    ahead.close()
    ahead.close()
    assert log.of("closed") == log.of("ready")
    assert len(log.of("closed")) == 1


def test_what_could_not_be_created_needs_no_removal(log, ahead, load):
    log.error = ProvisioningError("no room")
    ahead.start_for(load())
    ahead.close()
    assert log.of("closed") == []


@pytest.mark.parametrize(
    "clusters",
    [{"main": {"kind": {}}}, {"main": {"context": "prod"}}, {"main": {"embedded": {"members": 3}}}],
    ids=["kind", "somebody's", "three members"],
)
def test_only_embedded_clusters_of_one_member_are_started_ahead(log, ahead, load, clusters):
    ahead.start_for(load(clusters=clusters))
    ahead.close()
    assert log.entries == []


def test_the_default_cluster_decides_for_drills_that_name_none(log, load):
    ahead = ClusterAhead(default_cluster="kind")
    ahead.start_for(load())
    ahead.close()
    assert log.entries == []


def test_a_run_whose_cluster_may_be_kept_takes_none(log, ahead, load, run):
    ahead.start_for(load())
    cluster = start_cluster(run(keep="on-failure"), "main")
    assert cluster.name == log.of("begin")[-1]
    assert len(log.of("begin")) == 2
