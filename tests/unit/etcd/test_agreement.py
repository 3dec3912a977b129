"""When members hold the same: one cluster, one leader, one hash; and what is only a matter of time."""

from types import SimpleNamespace

import pytest

from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import EtcdError, EtcdUnavailableError
from clusterguard.etcd import agreement as module
from clusterguard.etcd.agreement import look_at_members

ALIKE = {"cluster": "c", "leader": "1", "revision": 10, "hash": 7, "compact": 3, "learner": False}


@pytest.fixture
def look(monkeypatch):
    """Look at members, each of which is told in what it is not like the others; None is one that does not answer."""

    def look(*members, unnamed=()):
        said = {str(number): None if each is None else ALIKE | each for number, each in enumerate(members)}

        class Member:
            def __init__(self, access, endpoint, **_):
                self.endpoint, self.said = endpoint, said[endpoint]

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def status(self):
                if self.said is None:
                    raise EtcdUnavailableError("nobody there")
                return SimpleNamespace(
                    endpoint=self.endpoint,
                    member_id=self.said.get("id", self.endpoint),
                    cluster_id=self.said["cluster"],
                    leader=self.said["leader"],
                    has_leader=self.said["leader"] != "0",
                    revision=self.said["revision"],
                    is_learner=self.said["learner"],
                )

            def listed(self):
                ids = [*said, *unnamed]
                return [SimpleNamespace(id=each, name=each, is_learner=False) for each in ids]

            def hash_kv(self, revision):
                if revision > self.said["revision"]:
                    raise EtcdError("not reached yet")
                return SimpleNamespace(
                    hash=self.said["hash"], hash_revision=revision, compact_revision=self.said["compact"]
                )

        monkeypatch.setattr(module, "EtcdMember", Member)
        return look_at_members(EtcdAccess(endpoints=tuple(said)))

    return look


def test_members_that_hold_the_same_miss_nothing(look):
    found = look({}, {}, {})
    assert (found.missing, found.differ, found.hash_kv, found.hash_revision) == ("", False, 7, 10)


def test_one_that_lags_is_compared_at_what_it_has(look):
    found = look({"revision": 12}, {}, {"revision": 11})
    assert (found.missing, found.hash_revision, found.revisions) == ("", 10, (12, 10, 11))


@pytest.mark.parametrize("other", [{"hash": 8}, {"cluster": "d"}, {"cluster": "d", "hash": 8, "leader": "2"}])
def test_other_data_and_another_cluster_are_final(look, other):
    found = look({}, other, {})
    assert found.differ
    assert found.missing


@pytest.mark.parametrize("other", [None, {"leader": "0"}, {"leader": "2"}, {"compact": 4}, {"compact": 4, "hash": 8}])
def test_silence_elections_and_compactions_may_pass(look, other):
    found = look({}, other, {})
    assert not found.differ
    assert found.missing
    assert found.hash_kv is None


def test_a_split_is_seen_although_a_member_is_silent(look):
    assert look({}, {"cluster": "d"}, None).differ


def test_members_without_any_leader_do_not_agree(look):
    assert look({"leader": "0"}, {"leader": "0"}).missing


def test_a_learner_is_not_asked_for_a_hash(look):
    assert look({}, {"learner": True, "hash": 8}, {}).missing == ""


def test_a_member_that_no_endpoint_leads_to_may_hold_anything(look):
    found = look({}, {}, unnamed=["c"])
    assert (found.missing, found.hash_kv) == ("not asked: c", None)


def test_two_endpoints_of_one_member_are_one(look):
    assert look({"id": "a"}, {"id": "a"}).missing
