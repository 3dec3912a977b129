"""Clusters that are created beside the work on the first one: awaited in time, and never part of the drill's own."""

import threading

import pytest
from fake_cluster import FakeCluster, FakeSnapshotter

from clusterguard.drills import DrillRunner, DrillSettings, Verdict
from clusterguard.drills import clusters as module
from clusterguard.errors import ProvisioningError

SECONDS = 20


class SlowCluster(FakeCluster):
    """A cluster that comes up when it is let, or fails then."""

    provider = "kind"
    created_by_us = True

    def __init__(self, name):
        super().__init__(name)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.error = None
        self.abandoned = False
        self.closed = False

    def __enter__(self):
        self.begun.set()
        assert self.gate.wait(SECONDS)
        if self.error or self.abandoned:
            raise self.error or ProvisioningError("abandoned")
        return super().__enter__()

    def abandon(self):
        self.abandoned = True
        self.gate.set()

    def close(self):
        super().close()
        self.closed = True


@pytest.fixture
def clusters(monkeypatch):
    """The two clusters of the drill, the second one created in the background."""
    clusters = {name: SlowCluster(name) for name in ("first", "second")}
    monkeypatch.setattr("clusterguard.drills.run.EtcdSnapshotter", FakeSnapshotter)
    monkeypatch.setattr(module, "_kind_cluster", lambda _run, name, _progress: clusters[name])
    return clusters


@pytest.fixture
def two(spec):
    """A drill of two clusters; nothing but its name uses the second one."""
    return spec | {"clusters": {"first": {}, "second": {}}}


@pytest.fixture
def go(load):
    def go(spec, tell=lambda _: None):
        return DrillRunner(settings=DrillSettings(cluster="kind"), on_event=tell).run(load(spec))

    return go


def provisioned(result):
    return [step.title for step in result.steps if step.title.startswith("cluster ")]


def test_work_on_the_first_goes_on_while_the_second_comes_up(go, two, clusters):
    second = clusters["second"]
    second.gate.clear()
    seen = []

    def saving():
        seen.append((second.begun.wait(SECONDS), second.running))
        second.gate.set()

    clusters["first"].saving = saving
    result = go(two)
    assert result.verdict is Verdict.PASS, result.reason
    assert seen == [(True, False)]
    assert provisioned(result) == ["cluster `first`", "cluster `second`"]
    assert set(result.clusters) == {"first", "second"}
    assert [cluster.closed for cluster in clusters.values()] == [True, True]


def test_nothing_is_broken_before_all_clusters_are_there(go, two, clusters):
    """A creation that fails later would leave the damage without what the restore needs."""
    clusters["second"].error = ProvisioningError("no room", hint="make some")
    result = go(two)
    assert (result.verdict, result.hint) == (Verdict.ERROR, "make some")
    assert result.reason == "provision: cluster `second`: no room"
    assert clusters["first"].api.item("ConfigMap", "web") is not None
    assert ("delete", "ConfigMap") not in clusters["first"].api.calls
    assert [cluster.closed for cluster in clusters.values()] == [True, True]


def test_a_step_that_needs_the_second_waits_for_it(go, two, clusters):
    two["setup"] = [*two["setup"], {**two["setup"][0], "cluster": "second"}]
    result = go(two)
    assert result.verdict is Verdict.PASS, result.reason
    titles = [step.title for step in result.steps]
    assert titles.index("cluster `second`") < titles.index("baseline of the scope")
    assert clusters["second"].api.item("ConfigMap", "web") is not None


def test_waiting_for_a_cluster_is_no_part_of_the_drills_own_time(go, two, clusters):
    clusters["second"].gate.clear()

    def saved():
        threading.Timer(2.5, clusters["second"].gate.set).start()

    clusters["first"].saved = saved
    result = go(two | {"timeout": "2s"})
    assert result.verdict is Verdict.PASS, result.reason
    assert result.rto.total < 2


def test_an_interruption_ends_the_creation_and_removes_both(go, two, clusters):
    clusters["second"].gate.clear()

    def interrupted():
        raise KeyboardInterrupt

    clusters["first"].saving = interrupted
    with pytest.raises(KeyboardInterrupt):
        go(two)
    assert clusters["second"].abandoned
    assert [cluster.closed for cluster in clusters.values()] == [True, True]
