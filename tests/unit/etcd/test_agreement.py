"""When members hold the same: one cluster, one leader, one hash; and what is only a matter of time."""

from types import SimpleNamespace

import pytest

from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import EtcdError, EtcdUnavailableError
from clusterguard.etcd import agreement as module
from clusterguard.etcd.agreement import Further, further_members, look_at_members

ALIKE = {"cluster": "c", "leader": "1", "revision": 10, "hash": 7, "compact": 3, "learner": False}


@pytest.fixture
def look(monkeypatch):
    """Look at members, each of which is told in what it is not like the others; None is one that does not answer."""

    def look(*members, unnamed=(), besides=()):
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
        return look_at_members(EtcdAccess(endpoints=tuple(said)), besides=besides)

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


def test_a_member_that_need_not_be_asked_is_not_missed(look):
    assert look({}, {}, unnamed=["gone"], besides=["gone"]).missing == ""
    assert "other" in look({}, {}, unnamed=["gone", "other"], besides=["gone"]).missing


# ---- members that no endpoint was named for ----------------------------------------------------------------

NAMED = SimpleNamespace(member_id="1", cluster_id="c", has_leader=True, endpoint="https://a:2379")


def listed(id_, *urls, learner=False):
    return SimpleNamespace(id=id_, name=f"m{id_}", client_urls=urls, is_learner=learner)


@pytest.fixture
def further(monkeypatch):
    """Look beside the named member 1; ``there`` has who answers at which URL: its ID, and the ID of its cluster."""

    def further(*members, there, statuses=(NAMED,)):
        asked = []

        class Member:
            def __init__(self, access, endpoint, **_):
                self.endpoint = endpoint

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def status(self):
                asked.append(self.endpoint)
                if self.endpoint not in there:
                    raise EtcdUnavailableError("nobody there")
                member_id, cluster_id = there[self.endpoint]
                return SimpleNamespace(member_id=member_id, cluster_id=cluster_id, endpoint=self.endpoint)

            def listed(self):
                return [listed("1", "https://a:2379"), *members]

        monkeypatch.setattr(module, "EtcdMember", Member)
        found = further_members(EtcdAccess(endpoints=("https://a:2379", "https://dead:2379")), statuses)
        return found, asked

    return further


def test_members_that_were_not_named_are_found_by_the_list(further):
    there = {"https://b:2379": ("2", "c"), "https://c2:2379": ("3", "c")}
    found, _ = further(listed("2", "https://b:2379"), listed("3", "https://c1:2379", "https://c2:2379"), there=there)
    assert [each.endpoint for each in found.statuses] == list(there)
    assert found.unreached == ()


@pytest.mark.parametrize(
    "answer", [None, ("1", "c"), ("9", "c"), ("2", "another")], ids=["nobody", "the named one", "a stranger", "another"]
)
def test_what_leads_to_somebody_else_is_out_of_reach(further, answer):
    """Behind a port-forward, or where an address means something else from here."""
    there = {"https://127.0.0.1:2379": answer} if answer else {}
    found, _ = further(listed("2", "https://127.0.0.1:2379"), there=there)
    assert found == Further(unreached=("m2",))


def test_what_was_meant_for_tls_goes_nowhere_else(further):
    found, asked = further(listed("2", "http://b:2379"), there={"http://b:2379": ("2", "c")})
    assert (found, asked) == (Further(unreached=("m2",)), [])


def test_learners_and_those_whose_endpoint_failed_are_not_looked_for(further):
    members = listed("2", "https://dead:2379"), listed("3", "https://b:2379", learner=True)
    found, asked = further(*members, there={"https://b:2379": ("3", "c")})
    assert (found, asked) == (Further(), [])


def test_without_a_leader_there_is_no_list_and_nobody_is_waited_for(further):
    alone = SimpleNamespace(member_id="1", cluster_id="c", has_leader=False, endpoint="https://a:2379")
    found, asked = further(listed("2", "https://b:2379"), there={}, statuses=(alone,))
    assert (found, asked) == (Further(), [])
