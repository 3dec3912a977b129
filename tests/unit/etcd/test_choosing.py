"""Which member is saved from: a follower that lacks nothing, and only else the one that loses least."""

from types import SimpleNamespace

import pytest

from clusterguard.errors import EtcdUnavailableError
from clusterguard.etcd import choosing
from clusterguard.etcd.choosing import Choice, choose


class Member:
    """Tells one revision after the other; None is no answer."""

    def __init__(self, name, *revisions, leader="a", learner=False, errors=()):
        self.name, self.revisions = name, list(revisions)
        self.rest = {"leader": leader, "has_leader": leader != "0", "is_learner": learner, "errors": errors}

    def status(self):
        revision = self.revisions.pop(0) if len(self.revisions) > 1 else self.revisions[0]
        if revision is None:
            raise EtcdUnavailableError("nobody there")
        return SimpleNamespace(member_id=self.name, revision=revision, **self.rest)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(choosing, "_CATCH_UP_SECONDS", 0.05)
    monkeypatch.setattr(choosing, "_POLL_SECONDS", 0.001)


def chosen(*members):
    found = choose([Choice(member, member.status()) for member in members])
    return found.member.name, found.status.revision, bool(found.why)


def test_the_only_member_is_no_choice():
    assert chosen(Member("a", 5)) == ("a", 5, False)
    assert chosen(Member("b", 5, learner=True)) == ("b", 5, False)


def test_a_follower_that_has_everything_spares_the_leader():
    assert chosen(Member("a", 5), Member("b", 5), Member("c", 4)) == ("b", 5, True)


def test_a_follower_that_catches_up_in_a_moment_is_taken():
    assert chosen(Member("a", 5), Member("b", 3, 4, 6)) == ("b", 6, True)


@pytest.mark.parametrize(
    "follower",
    [
        Member("b", 4),
        Member("b", 4, None),
        Member("b", 4, 5, learner=True),
        Member("b", 5, leader="0"),
        Member("b", 5, errors=("memberID:2 alarm:CORRUPT",)),
    ],
    ids=["behind", "silent", "learner", "no leader", "alarm"],
)
def test_otherwise_the_one_furthest_ahead_loses_least(follower):
    assert chosen(Member("a", 5), Member("c", 1), follower)[:2] == ("a", 5)


def test_a_learner_comes_last_however_far_it_is():
    assert chosen(Member("a", 5), Member("b", 7, learner=True)) == ("a", 5, False)
