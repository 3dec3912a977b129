"""Drills that lose members of etcd one by one."""

from contextlib import contextmanager

import pytest
from fake_cluster import FakeCluster, FakeSnapshotter

from clusterguard.clusters.kube import ApiReadiness
from clusterguard.drills import Verdict
from clusterguard.drills.steps import members, start_member
from clusterguard.etcd import agreement, membership
from clusterguard.etcd.agreement import Agreement


class Members(FakeCluster):
    """Three members, whose API server answers while most of them run."""

    created_by_us = True

    def __init__(self):
        super().__init__()
        self.runs = dict.fromkeys(("m1", "m2", "m3"), True)
        self.lost = set()
        self.api.ready = lambda: ApiReadiness(ok=sum(self.runs.values()) > 1, failing="etcd")

    def member_states(self):
        return dict(self.runs)

    def stop_member(self, name):
        self.runs[name] = False

    def lose_member(self, name):
        self.runs[name] = False
        self.lost.add(name)

    def start_member(self, name):
        self.runs[name] = name not in self.lost

    @contextmanager
    def member_places(self):
        yield {name: name for name in self.runs}


@pytest.fixture
def cluster(monkeypatch):
    cluster = Members()
    for module in (members, start_member):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr("clusterguard.drills.run.EtcdSnapshotter", FakeSnapshotter)

    def look(access):
        missing = ", ".join(name for name, runs in cluster.runs.items() if not runs)
        return Agreement(missing=missing and f"{missing} does not answer")

    def replace_member(access, places, name, *, seconds):
        cluster.lost.discard(places[name])
        cluster.start_member(name)

    monkeypatch.setattr(agreement, "look_at_members", look)
    monkeypatch.setattr(membership, "replace_member", replace_member)
    return cluster


DRILL = {"canary": False, "verify": [{"sameMembers": {}}]}


@pytest.mark.parametrize(
    ("fault", "restore"),
    [
        ([{"stopMember": {"member": 3}}], [{"startMember": {}}]),
        ([{"stopMember": {"member": 2}}, {"stopMember": {"member": 3}}], [{"startMember": {}}]),
        ([{"stopMember": {"member": 1}}], [{"startMember": {"member": 1}}]),
        ([{"loseMember": {"member": 2}}], [{"replaceMember": {"member": 2}}]),
    ],
)
def test_a_member_that_is_down_is_red_until_it_is_back(run, spec, cluster, fault, restore):
    result = run(spec | DRILL | {"fault": fault, "restore": restore})
    assert result.verdict is Verdict.PASS, result
    assert result.red_after_fault == (1, 1)
    assert all(cluster.runs.values())


@pytest.mark.parametrize("restore", [{"startMember": {}}, {"startMember": {"member": 2}}])
def test_a_lost_member_is_not_brought_back_by_a_start(run, spec, cluster, restore):
    result = run(spec | DRILL | {"fault": [{"loseMember": {"member": 2}}], "restore": [restore]})
    assert result.verdict is Verdict.FAIL


def test_most_members_are_lost_and_no_more(run, spec, cluster):
    run(spec | DRILL | {"fault": [{"loseQuorum": {}}], "restore": [{"startMember": {}, "timeout": "100ms"}]})
    assert cluster.lost == {"m2", "m3"}


def test_what_breaks_nothing_is_an_error(run, spec, cluster):
    for verb in ("stopMember", "loseMember"):
        cluster.runs["m2"] = False
        result = run(spec | DRILL | {"fault": [{verb: {"member": 2}}], "restore": [{"startMember": {}}]})
        assert (result.verdict, result.code) == (Verdict.ERROR, "nothing-broken"), result.reason
        result = run(spec | DRILL | {"fault": [{verb: {"member": 4}}], "restore": [{"startMember": {}}]})
        assert result.verdict is Verdict.ERROR


@pytest.mark.parametrize("fault", [{"stopMember": {"member": 1}}, {"loseMember": {"member": 1}}, {"loseQuorum": {}}])
def test_members_of_somebodys_cluster_are_left_alone(run, spec, cluster, fault):
    cluster.created_by_us = False
    result = run(spec | DRILL | {"fault": [fault], "restore": [{"startMember": {}}]})
    assert (result.verdict, result.code) == (Verdict.ERROR, "not-allowed"), result.reason
    assert all(cluster.runs.values())
