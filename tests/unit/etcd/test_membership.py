"""Replacing a broken member: whom it needs, what it refuses, and that it may be begun again."""

from types import SimpleNamespace

import pytest

from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import ClusterError, ClusterGuardError, EtcdError, ResourceNotFoundError, WaitTimeoutError
from clusterguard.etcd import membership as module
from clusterguard.etcd.agreement import Agreement, Further
from clusterguard.etcd.membership import remove_member, replace_member


def peer(name):
    return f"https://{name}:2380"


class Cluster:
    """Members by their IDs, with their names; ``serving`` are the IDs that answer at the URLs of those names."""

    def __init__(self):
        self.members = {"1": "a", "2": "b", "3": "c"}
        self.serving = {"1": "a", "2": "b"}
        self.clusters = {}  # of those that are not of the usual one
        self.leaders = {}  # of those that do not follow member 1
        self.corrupt = set()
        self.differ = set()
        self.refusals = 0
        self.electing = 0  # how often nobody lists members, since there is no leader yet
        self.alone = set()  # those that have begun a cluster once more
        self.unstarted = set()
        self.done = []

    def status(self, id_):
        return SimpleNamespace(
            member_id=id_,
            endpoint=self.serving[id_],
            cluster_id=self.clusters.get(id_, "ours"),
            leader=self.leaders.get(id_, "1"),
            db_size=1000,
        )

    def statuses(self, access):
        return [self.status(id_) for id_, name in self.serving.items() if name in access.endpoints], []

    def look(self, access, besides=()):
        asked = {id_ for id_, name in self.serving.items() if name in access.endpoints}
        missing = set(self.members) - asked - set(besides)
        differ = bool(asked & self.differ) and not asked <= self.differ
        return Agreement(missing="different data" if differ else ", ".join(missing), differ=differ)


class Member:
    def __init__(self, cluster, endpoint):
        self.cluster = cluster
        self.id = next((id_ for id_, name in cluster.serving.items() if name == endpoint), None)
        if self.id is None:
            raise EtcdError("nobody answers")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def status(self):
        return self.cluster.status(self.id)

    def alarms(self):
        return tuple(f"CORRUPT on {id_}" for id_ in self.cluster.corrupt)

    def disarm(self, *, of):
        self.cluster.corrupt = {id_ for id_ in self.cluster.corrupt if not of(id_)}

    def listed(self, *, linearizable=True):
        if self.id in self.cluster.alone:
            name = self.cluster.serving[self.id]
            return [SimpleNamespace(id=self.id, name=name, peer_urls=(peer(name),), is_learner=False)]
        if not linearizable:
            return self._list()
        self.cluster.electing -= 1
        if 2 * len(set(self.cluster.serving) & set(self.cluster.members)) <= len(self.cluster.members):
            raise EtcdError("no leader")
        if self.cluster.electing >= 0:
            raise EtcdError("no leader")
        return self._list()

    def _list(self):
        return [
            SimpleNamespace(
                id=id_,
                name="" if id_ in self.cluster.unstarted else name,
                peer_urls=(peer(name),),
                is_learner=False,
            )
            for id_, name in self.cluster.members.items()
        ]

    def remove(self, member_id):
        self._may_refuse()
        self.cluster.done.append(f"remove {member_id}")
        del self.cluster.members[member_id]

    def add(self, peer_url):
        self._may_refuse()
        self.cluster.done.append("add")
        self.cluster.members["4"] = peer_url.removeprefix("https://").removesuffix(":2380")
        self.cluster.unstarted.add("4")

    def _may_refuse(self):
        if self.cluster.refusals:
            self.cluster.refusals -= 1
            raise EtcdError("unhealthy cluster")


class Place:
    def __init__(self, cluster, name, *, begun=False, client_url=""):
        self.cluster, self.name, self.begun = cluster, name, begun
        self.peer_url, self.client_url = peer(name), client_url or name
        self.local = False

    def serves(self):
        return self.local

    def check(self, *, needed_bytes):
        if needed_bytes != 1000:
            raise ClusterError("no room", code="no-room")

    def set_aside(self):
        self.cluster.done.append("set aside")
        self.cluster.serving = {id_: name for id_, name in self.cluster.serving.items() if name != self.name}

    def start_empty(self, members):
        if self.cluster.corrupt:
            raise ClusterError("corrupt cluster")  # what etcd answers to every request
        self.joined = members
        self.cluster.done.append("start")
        self.cluster.unstarted.clear()
        self.cluster.serving["4"] = self.name

    def finish(self):
        self.cluster.done.append("finish")
        return "there"


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(module, "EtcdMember", lambda _, endpoint: Member(cluster, endpoint))
    monkeypatch.setattr(module, "statuses_of", cluster.statuses)
    monkeypatch.setattr(module, "further_members", lambda *_: Further())
    monkeypatch.setattr(module, "look_at_members", cluster.look)
    monkeypatch.setattr(module, "_ELECTION_SECONDS", 0.7)
    return cluster


ACCESS = EtcdAccess(endpoints=("a", "b", "c"))
WHOLE = ["set aside", "remove 3", "add", "start", "finish"]


def replaced(cluster, name="c", *, places=None, begun=False):
    places = places or {each: Place(cluster, each, begun=begun and each == name) for each in "abc"}
    replace_member(ACCESS, places, name, seconds=0.01)
    return places[name]


def refused(cluster, name="c", **options):
    with pytest.raises(ClusterGuardError) as raised:
        replaced(cluster, name, **options)
    assert cluster.done == []
    return raised.value.code


@pytest.mark.parametrize("refusals", [0, 2])
def test_it_is_stopped_removed_added_and_started_in_this_order(cluster, refusals):
    cluster.refusals = refusals
    place = replaced(cluster)
    assert cluster.done == WHOLE
    assert place.joined == {name: peer(name) for name in "abc"}


def test_an_election_is_waited_for(cluster):
    cluster.electing = 3
    replaced(cluster)
    assert cluster.done == WHOLE


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.clusters.update({"9": "another"}) or c.serving.update({"9": "c"}),
        lambda c: c.serving.update({"9": "c"}),
        lambda c: c.serving.update({"3": "c"}) or c.leaders.update({"3": "0"}),
        lambda c: c.serving.update({"3": "c"}) or c.leaders.update({"3": "3"}),
        lambda c: c.serving.update({"3": "c"}) or c.corrupt.add("3"),
        lambda c: c.serving.update({"3": "c"}) or c.differ.add("3"),
    ],
    ids=["of another cluster", "removed", "without a leader", "its own leader", "corrupt", "with other data"],
)
def test_one_that_answers_and_is_broken_is_replaced(cluster, spoil):
    spoil(cluster)
    replaced(cluster)
    assert cluster.done == WHOLE


def test_an_election_after_the_leader_was_stopped_is_waited_for(cluster, monkeypatch):
    def set_aside(place):
        cluster.electing = 3
        stop(place)

    stop = Place.set_aside
    monkeypatch.setattr(Place, "set_aside", set_aside)
    replaced(cluster)
    assert cluster.done == WHOLE


def test_the_alarm_of_what_an_earlier_run_removed_is_disarmed_as_well(cluster):
    del cluster.members["3"]
    cluster.corrupt.add("3")
    replaced(cluster, begun=True)
    assert cluster.done == ["set aside", "add", "start", "finish"]


@pytest.mark.parametrize("id_", ["2", "0"], ids=["on another one", "on nobody knows whom"])
def test_nothing_is_replaced_while_another_alarm_would_keep_it_from_serving(cluster, id_):
    cluster.corrupt.add(id_)
    assert refused(cluster) == "members-differ"


def test_one_that_is_found_corrupt_while_it_is_filled_is_not_taken_for_done(cluster, monkeypatch):
    start = Place.start_empty
    monkeypatch.setattr(Place, "start_empty", lambda place, members: [start(place, members), cluster.corrupt.add("4")])
    with pytest.raises(WaitTimeoutError):
        replaced(cluster)
    assert "finish" not in cluster.done


def elsewhere(cluster):
    """Return the places of members that advertise what leads nowhere from here."""
    return {each: Place(cluster, each, client_url=f"inside-{each}") for each in "abc"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: None,
        lambda c: c.serving.update({"3": "c"}) or c.corrupt.add("3"),
        # As a wiped first node of kubeadm: under the same IDs, and as its own leader.
        lambda c: c.serving.update({"3": "c"}) or c.alone.add("3") or c.leaders.update({"3": "3"}),
        lambda c: c.serving.update({"9": "c"}) or c.alone.add("9") or c.clusters.update({"9": "another"}),
    ],
    ids=["lost", "corrupt", "begun once more", "begun as another"],
)
def test_members_that_are_reached_by_other_urls_than_they_advertise(cluster, spoil):
    spoil(cluster)
    access = EtcdAccess(endpoints=("c", "a", "b"))
    replace_member(access, elsewhere(cluster), "c", seconds=0.01)
    assert cluster.done == WHOLE


@pytest.mark.parametrize("begun", [True, False])
def test_one_that_was_removed_already_is_added_and_one_that_was_added_is_added_anew(cluster, begun):
    del cluster.members["3"]
    replaced(cluster, begun=begun)
    assert cluster.done == ["set aside", "add", "start", "finish"]
    cluster.done.clear()
    del cluster.serving["4"]
    replaced(cluster, begun=True)
    assert cluster.done == ["set aside", "remove 4", "add", "start", "finish"]


def test_one_that_was_replaced_and_not_ended_is_only_ended(cluster):
    cluster.serving["3"] = "c"
    replaced(cluster, begun=True)
    assert cluster.done == ["finish"]


def all_serve(cluster):
    cluster.serving["3"] = "c"


@pytest.mark.parametrize(
    ("spoil", "name", "code"),
    [
        (all_serve, "c", "member-serves"),
        (lambda c: c.serving.pop("2"), "c", "no-quorum"),
        (lambda c: c.serving.clear(), "c", "no-quorum"),
        (lambda c: None, "z", "member-unknown"),
        (lambda c: [c.members.pop("2"), c.members.pop("3"), c.serving.pop("2")], "c", "member-unknown"),
        (lambda c: c.members.update({"5": "e", "6": "f"}) or c.serving.update({"5": "e"}), "c", "another-member-lost"),
        (lambda c: c.differ.add("2"), "c", "members-differ"),
        (lambda c: c.clusters.update({"2": "another"}), "c", "members-differ"),
    ],
)
def test_what_cannot_be_replaced_is_left_alone(cluster, spoil, name, code):
    spoil(cluster)
    access = EtcdAccess(endpoints=("a", "b", "c", "e"))
    with pytest.raises(ClusterGuardError) as raised:
        replace_member(access, {each: Place(cluster, each) for each in "abc"}, name, seconds=0.01)
    assert (raised.value.code, cluster.done) == (code, [])


def test_a_member_whose_node_was_not_named_is_left_alone(cluster):
    with pytest.raises(ResourceNotFoundError) as raised:
        replaced(cluster, places={each: Place(cluster, each) for each in "ab"})
    assert (raised.value.code, cluster.done) == ("node-not-named", [])


def test_one_that_serves_where_this_machine_does_not_reach_it_is_left_alone(cluster):
    places = {each: Place(cluster, each) for each in "abc"}
    places["c"].local = True
    assert refused(cluster, places=places) == "member-serves"


def test_one_that_cannot_be_replaced_on_its_node_is_left_alone(cluster, monkeypatch):
    monkeypatch.setattr(Place, "check", lambda *_, **__: (_ for _ in ()).throw(ClusterError("full", code="no-room")))
    assert refused(cluster) == "no-room"


def test_one_that_does_not_come_to_hold_the_same_is_an_error(cluster, monkeypatch):
    monkeypatch.setattr(Place, "start_empty", lambda *_: None)
    with pytest.raises(WaitTimeoutError):
        replaced(cluster)
    assert "finish" not in cluster.done


# ---- gone for good -----------------------------------------------------------------------------------------


class Api:
    def __init__(self, nodes):
        self.nodes, self.deleted = nodes, []

    def resource(self, kind):
        return kind

    def get(self, kind, name):
        if name not in self.nodes:
            raise ResourceNotFoundError(name)
        return {"status": {"conditions": [{"type": "Ready", "status": self.nodes[name]}]}}

    def delete(self, kind, name, namespace=None):
        self.deleted.append(f"{kind} {name}")
        if kind != "Node":
            raise ResourceNotFoundError(name)


@pytest.mark.parametrize(
    ("nodes", "deleted"),
    [({"a": "True"}, []), ({"c": "Unknown"}, ["Node c", "Lease.coordination.k8s.io c"])],
    ids=["without a node", "with a dead node"],
)
def test_a_member_that_is_gone_for_good_leaves_with_its_node(cluster, nodes, deleted):
    cluster.members |= {"5": "e", "6": "f"}  # of which another one may be lost as well
    cluster.serving["5"] = "e"
    cluster.corrupt.add("3")
    api = Api(nodes)
    access = EtcdAccess(endpoints=("a", "b", "c", "e"))
    remove_member(access, {"a": Place(cluster, "a")}, "c", api=lambda: api)
    assert (cluster.done, api.deleted, cluster.corrupt) == (["remove 3"], deleted, set())


def test_one_that_was_asked_where_it_runs_needs_no_node(cluster):
    api = Api({})
    remove_member(ACCESS, {"c": Place(cluster, "c")}, "c", api=lambda: api)
    assert (cluster.done, api.deleted) == (["remove 3"], [])


@pytest.mark.parametrize(
    ("spoil", "nodes", "code"),
    [
        (all_serve, {"c": "True"}, "member-serves"),
        (lambda _: None, {"c": "True"}, "node-ready"),
        (lambda _: None, {"worker": "True"}, "node-unknown"),
    ],
    ids=["serves", "node ready", "the API of another cluster"],
)
def test_what_is_not_gone_is_not_removed(cluster, spoil, nodes, code):
    spoil(cluster)
    api = Api(nodes)
    with pytest.raises(ClusterGuardError) as raised:
        remove_member(ACCESS, {}, "c", api=lambda: api)
    assert (raised.value.code, cluster.done, api.deleted) == (code, [], [])
