"""One member of etcd gets another state than the others, and its own again."""

from types import SimpleNamespace

import pytest

from clusterguard.clusters.kube import ApiReadiness
from clusterguard.drills.defects.members import another_state
from clusterguard.drills.defects.placing import NotAppliedError, NotUndoneError
from clusterguard.errors import EtcdUnavailableError
from clusterguard.etcd.agreement import Agreement
from clusterguard.etcd.member import StoredValue


class Members:
    """Three members, whose files hold what was put into all of them."""

    def __init__(self):
        self.files = {"a": b"", "b": b"", "c": b""}
        self.runs = dict.fromkeys(self.files, True)
        self.keys = {}
        self.writes = True  # whether what was put is in the files by the time that they are looked at
        self.api = SimpleNamespace(ready=lambda: ApiReadiness(ok=True))

    # As a cluster.

    def member_states(self):
        return dict(self.runs)

    def stop_member(self, name):
        self.runs[name] = False

    def start_member(self, name):
        self.runs[name] = True

    def replace_in_member(self, name, old, new):
        assert not self.runs[name]
        assert len(old) == len(new)
        count = self.files[name].count(old)
        self.files[name] = self.files[name].replace(old, new)
        return count

    # As etcd.

    def __call__(self, *_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def stored(self, key):
        return StoredValue(value=self.keys[key], revision=1) if key in self.keys else None

    def replace(self, key, value, *, revision):
        if value is None:
            del self.keys[key]
            return True
        assert revision == 0
        self.keys[key] = value
        self.files = {name: data + value * self.writes for name, data in self.files.items()}
        return True

    def look(self, _):
        differ = len(set(self.files.values())) > 1
        return Agreement(differ=differ, missing="they hold different data" if differ else "")


@pytest.fixture
def members(monkeypatch):
    members = Members()
    monkeypatch.setattr("clusterguard.etcd.member.EtcdMember", members)
    monkeypatch.setattr("clusterguard.etcd.agreement.look_at_members", members.look)
    monkeypatch.setattr("clusterguard.drills.defects.members._SECONDS", 0.05)
    monkeypatch.setattr("clusterguard.drills.defects.members._POLL_SECONDS", 0.01)
    return members


def put(members):
    return another_state(members, SimpleNamespace(endpoints=("https://a",)), sleep=lambda _: None)


def test_the_last_member_differs_and_is_the_same_again(members):
    with put(members):
        assert members.files["a"] == members.files["b"] != members.files["c"]
        assert all(members.runs.values())
    assert members.files["c"] == members.files["a"]
    assert (members.keys, set(members.runs.values())) == ({}, {True})


def test_what_the_member_has_not_written_yet_cannot_be_changed(members):
    members.writes = False
    with pytest.raises(NotAppliedError), put(members):
        pytest.fail("nothing was changed")
    assert (members.keys, set(members.runs.values())) == ({}, {True})


def test_a_member_that_does_not_start_with_it_gets_its_own_back(members):
    start, tries = members.start_member, []

    def start_member(name):
        tries.append(name)
        start(name)
        if len(tries) == 1:
            raise EtcdUnavailableError("it does not answer")

    members.start_member = start_member
    with pytest.raises(NotAppliedError), put(members):
        pytest.fail("it does not serve")
    assert members.files["c"] == members.files["a"]


def test_a_member_that_lost_what_was_put_there_is_told(members):
    with pytest.raises(NotUndoneError), put(members):
        members.files["c"] = b"compacted"


def test_members_that_stay_different_are_told(members):
    with pytest.raises(NotUndoneError), put(members):
        members.files["c"] += b"more"
