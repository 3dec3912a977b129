"""Replacing a lost member: whom it needs, what it refuses, and that it may be begun again."""

from types import SimpleNamespace

import pytest

from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import EtcdError, WaitTimeoutError
from clusterguard.etcd import membership as module
from clusterguard.etcd.agreement import Agreement
from clusterguard.etcd.membership import replace_member

LOST = "https://c:2380"


class Cluster:
    """Members by their peer URLs; ``serving`` are those that answer, and ``refusals`` how often an add is refused."""

    def __init__(self):
        self.members = {"a": "https://a:2380", "b": "https://b:2380", "c": LOST}
        self.serving = ["a", "b"]
        self.refusals = 0
        self.electing = 0  # how often nobody lists members, since there is no leader yet
        self.done = []

    def member(self, access, endpoint):
        return Member(self)

    def statuses(self, access):
        return [SimpleNamespace(member_id=name, endpoint=name) for name in self.serving], []


class Member:
    def __init__(self, cluster):
        self.cluster = cluster

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass

    def listed(self):
        self.cluster.electing -= 1
        if len(self.cluster.serving) < 2 or self.cluster.electing >= 0:
            raise EtcdError("no leader")
        return [SimpleNamespace(id=name, peer_urls=(url,)) for name, url in self.cluster.members.items()]

    def remove(self, member_id):
        self.cluster.done.append(f"remove {member_id}")
        del self.cluster.members[member_id]

    def add(self, peer_url):
        if self.cluster.refusals:
            self.cluster.refusals -= 1
            raise EtcdError("unhealthy cluster")
        self.cluster.done.append("add")
        self.cluster.members["d"] = peer_url


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(module, "EtcdMember", cluster.member)
    monkeypatch.setattr(module, "statuses_of", cluster.statuses)
    monkeypatch.setattr(module, "look_at_members", lambda _: Agreement(missing="" if "start" in cluster.done else "c"))
    return cluster


def replaced(cluster, start=None):
    access = EtcdAccess(endpoints=("a", "b", "c"))
    start = start or (lambda: cluster.done.append("start"))
    replace_member(access, peer_url=LOST, start=start, seconds=0.01)


@pytest.mark.parametrize("refusals", [0, 2])
def test_it_is_removed_added_and_started_in_this_order(cluster, refusals):
    cluster.refusals = refusals
    replaced(cluster)
    assert cluster.done == ["remove c", "add", "start"]


def test_an_election_is_waited_for(cluster):
    cluster.electing = 3
    replaced(cluster)
    assert cluster.done == ["remove c", "add", "start"]


def test_one_that_was_removed_already_is_added_and_one_that_was_added_is_added_anew(cluster):
    del cluster.members["c"]
    replaced(cluster)
    assert cluster.done == ["add", "start"]
    cluster.done.clear()
    replaced(cluster)
    assert cluster.done == ["remove d", "add", "start"]


@pytest.mark.parametrize(
    ("serving", "code"), [(["a", "b", "c"], "member-serves"), (["a"], "no-quorum"), ([], "no-quorum")]
)
def test_what_cannot_be_replaced_is_left_alone(cluster, monkeypatch, serving, code):
    monkeypatch.setattr(module, "_ELECTION_SECONDS", 0.01)
    cluster.serving = serving
    with pytest.raises(EtcdError) as raised:
        replaced(cluster)
    assert raised.value.code == code
    assert cluster.done == []


def test_one_that_does_not_come_to_hold_the_same_is_an_error(cluster):
    with pytest.raises(WaitTimeoutError):
        replaced(cluster, start=lambda: None)
