"""Restoring real clusters of three members: from one file on all of them, or not at all."""

from __future__ import annotations

import itertools
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest

from clusterguard.clusters import EmbeddedCluster
from clusterguard.clusters.embedded import control_plane as module
from clusterguard.clusters.embedded.records import ClusterRecord
from clusterguard.clusters.records import read_record
from clusterguard.errors import ClusterError, ClusterGuardError, EtcdError, ResourceNotFoundError, RestoreError
from clusterguard.etcd import EtcdSnapshotter, rpc
from clusterguard.etcd.agreement import look_at_members, statuses_of
from clusterguard.etcd.member import EtcdMember
from clusterguard.etcd.membership import remove_member, replace_member
from clusterguard.stores import LocalStore

pytestmark = pytest.mark.programs

_numbers = itertools.count()
MEMBERS = ("clusterguard", "clusterguard-2", "clusterguard-3")


class World:
    """A cluster with a snapshot, in which ``lost`` is only in the snapshot and ``late`` only in the live state."""

    def __init__(self, cluster, folder):
        self.cluster = cluster
        self.store = LocalStore(folder)
        self.snapshotter = EtcdSnapshotter(store=self.store, access=cluster.etcd)
        self.maps = cluster.api.resource("ConfigMap")
        number = next(_numbers)
        self.lost, self.late = f"lost-{number}", f"late-{number}"
        self.make(self.lost)
        self.name = self.snapshotter.save(f"s{number}").name
        cluster.api.delete(self.maps, self.lost, "default")
        self.make(self.late)

    def make(self, name):
        self.cluster.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}})

    def has(self, name):
        try:
            self.cluster.api.get(self.maps, name, "default")
        except ResourceNotFoundError:
            return False
        return True

    def restore(self):
        return self.snapshotter.restore(self.name, self.cluster)

    def ids(self):
        found = []
        for endpoint in self.cluster.etcd.endpoints:
            with EtcdMember(self.cluster.etcd, endpoint) as member:
                status = member.status()
                found.append((status.cluster_id, status.member_id))
        return found

    def assert_serving(self, state):
        """Every member runs and holds the same, and the API serves it."""
        assert all(self.cluster.member_states().values())
        agreement = look_at_members(self.cluster.etcd)
        assert agreement.missing == ""
        self.make(f"write-{next(_numbers)}")
        assert {(True, False): "restored", (False, True): "old"}[self.has(self.lost), self.has(self.late)] == state
        names = {path.name for path in self.cluster.folder.glob("etcd*")}
        assert (
            {"etcd", "etcd-2", "etcd-3"}
            <= names
            <= {f"{n}{k}" for n in ("etcd", "etcd-2", "etcd-3") for k in ("", ".kept", ".replaced")}
        )


@pytest.fixture(scope="module")
def cluster(toolchain, tmp_path_factory):
    with EmbeddedCluster(toolchain=toolchain, home=tmp_path_factory.mktemp("home"), members=3) as running:
        yield running


@pytest.fixture
def world(cluster, tmp_path):
    return World(cluster, tmp_path / "store")


def test_all_members_come_back_from_one_file_as_a_cluster_that_never_was(world):
    before = world.ids()
    result = world.restore()
    world.assert_serving("restored")
    after = world.ids()
    assert len({cluster for cluster, _ in after}) == 1
    assert not {each for pair in before for each in pair} & {each for pair in after for each in pair}
    assert result.revision_after > result.revision_before
    assert "compare the members" in [step.name for step in result.steps]
    assert len(result.command.splitlines()) == 3


def test_a_member_that_is_given_another_snapshot_brings_all_of_them_back(world, monkeypatch):
    other = world.store.local_path(world.snapshotter.save(f"other-{next(_numbers)}").key)
    real = module.run

    def one_from_another(argv, **options):
        if any("etcd-2.prepared" in word for word in argv):
            argv = [str(other) if word.endswith(f"{world.name}.db") else word for word in argv]
        return real(argv, **options)

    monkeypatch.setattr(module, "run", one_from_another)
    with pytest.raises(RestoreError) as raised:
        world.restore()
    assert (raised.value.rolled_back, raised.value.__cause__.code) == (True, "members-differ")
    world.assert_serving("old")


@pytest.mark.slow  # the next one loses two
@pytest.mark.parametrize("lost", [MEMBERS, MEMBERS[:1]])
def test_lost_members_are_restored(world, lost):
    for name in lost:
        world.cluster.lose_member(name)
    result = world.restore()
    assert (result.revision_before is None) is (len(lost) == 3)
    world.assert_serving("restored")


def test_members_without_data_begin_no_cluster_are_not_replaced_without_a_majority_and_are_restored(world):
    cluster, name = world.cluster, MEMBERS[2]
    cluster.lose_member(name)
    shutil.rmtree(cluster.folder / "etcd-3")
    # A leader that knew it makes it end, as its log is shorter than was told; one elected since gives it the whole log.
    with suppress(ClusterError):
        cluster.start_member(name)
    assert len({each.cluster_id for each in statuses_of(cluster.etcd)[0]}) == 1
    for name in MEMBERS[1:]:
        cluster.lose_member(name)
    with pytest.raises(EtcdError) as raised:
        replaced(cluster, MEMBERS[1])
    assert raised.value.code == "no-quorum"
    assert folders(cluster, MEMBERS[1]) == {""}
    assert world.restore().revision_before is not None
    world.assert_serving("restored")


def test_a_snapshot_is_saved_from_a_follower_and_proven_on_all_members(world):
    with EtcdMember(world.cluster.etcd, world.cluster.etcd.endpoints[0]) as member:
        leader = member.status().leader
    snapshot = world.snapshotter.find(world.name)
    assert snapshot.member_id != leader
    assert [remark.code for remark in snapshot.remarks] == ["saved-from"]
    live = world.snapshotter.verify(world.name).checks[-1]
    assert (live.name, live.ok, live.unasked) == ("live HashKV", True, ())
    world.cluster.stop_member(MEMBERS[1])
    try:
        degraded = world.snapshotter.save(f"degraded-{next(_numbers)}")
        assert "member-unasked" in [remark.code for remark in degraded.remarks]
        assert degraded.member_name != MEMBERS[1]
        assert len(world.snapshotter.verify(degraded.name).checks[-1].unasked) == 1
    finally:
        world.cluster.start_member(MEMBERS[1])
    assert look_at_members(world.cluster.etcd).missing == ""


def test_members_that_were_not_named_are_saved_from_and_proven_by_the_list(world):
    cluster = world.cluster
    with EtcdMember(cluster.etcd, cluster.etcd.endpoints[0]) as member:
        leader = member.status().leader
    (named,) = (
        status.endpoint for status in statuses_of(cluster.etcd)[0] if status.member_id == leader
    )  # which is saved from only where no other is known
    one = EtcdSnapshotter(store=world.store, access=replace(cluster.etcd, endpoints=(named,)))
    snapshot = one.save(f"by-the-list-{next(_numbers)}")
    assert snapshot.member_id != leader
    assert [remark.code for remark in snapshot.remarks] == ["saved-from"]
    live = one.verify(snapshot.name).checks[-1]
    assert (live.ok, live.unasked, "on 3 member(s)" in live.detail) == (True, (), True)
    others = [name for name in MEMBERS if cluster._members()[name].client_url != named]
    cluster.stop_member(others[0])
    try:
        snapshot = one.save(f"without-one-{next(_numbers)}")
        told = {remark.code: remark.detail for remark in snapshot.remarks}
        assert set(told) == {"saved-from", "members-unreached"}
        assert others[0] in told["members-unreached"]
        assert snapshot.member_name == others[1]
        live = one.verify(snapshot.name).checks[-1]
        assert (live.ok, len(live.unasked), others[0] in live.unasked[0]) == (True, 1, True)
    finally:
        cluster.start_member(others[0])
    assert look_at_members(cluster.etcd).missing == ""


def test_a_chosen_member_stays_the_only_one(world):
    for endpoint in world.cluster.etcd.endpoints:
        snapshotter = EtcdSnapshotter(store=world.store, access=world.cluster.etcd, endpoint=endpoint)
        snapshot = snapshotter.save(f"chosen-{next(_numbers)}")
        assert (snapshot.endpoint, snapshot.remarks) == (endpoint, ())


def replaced(cluster, name, **options):
    with cluster.member_places() as places:
        return replace_member(cluster.etcd, places, name, seconds=60, **options)


def folders(cluster, name=MEMBERS[2]):
    live = name.replace("clusterguard", "etcd")
    return {path.name.removeprefix(live) for path in cluster.folder.glob(f"{live}*")} - {".kept"}


def test_a_member_that_serves_is_not_replaced_nor_one_that_nobody_knows(world):
    before = world.ids()
    for name, code in ((MEMBERS[2], "member-serves"), ("nobody", "member-unknown")):
        with pytest.raises(ClusterGuardError) as refused:
            replaced(world.cluster, name)
        assert refused.value.code == code
    assert world.ids() == before


# A lost one is replaced below, too, after its replacement was killed.
@pytest.mark.parametrize(
    "broken", [pytest.param("lost", marks=pytest.mark.slow), "killed", "no data directory", "another cluster"]
)
def test_a_broken_member_is_replaced_by_etcds_own_means(world, toolchain, broken):
    cluster, name = world.cluster, MEMBERS[2]
    before = world.ids()
    data = cluster.folder / "etcd-3"
    other = None
    if broken == "lost":
        cluster.lose_member(name)
    else:
        cluster.stop_member(name)
    if broken in ("no data directory", "another cluster"):
        shutil.rmtree(data)
    if broken == "another cluster":  # as an empty disk makes kubeadm's first node begin one
        other = begin_alone(cluster, name)
    with cluster.member_places() as places:
        if other:  # reached by another URL than it advertises, as with --endpoints
            places[name].client_url = "https://127.0.0.1:9"
        done = replace_member(cluster.etcd, places, name, seconds=60)
    if other:
        assert not other.alive()
    assert ("another cluster" in done.reason) is (broken == "another cluster")
    world.assert_serving("old")
    after = world.ids()
    assert after[:2] == before[:2]
    assert after[2] != before[2]
    assert folders(cluster) == {"", ".replaced"}
    kept = cluster.folder / "etcd-3.replaced/member"
    assert kept.exists() is (broken != "no data directory")


def begin_alone(cluster, name):
    """Start a member as the only one of a cluster of its own, as the programs of the cluster know it."""
    member = cluster._members()[name]
    alone = (f"--initial-cluster={name}={member.peer_url}", "--initial-cluster-state=new")
    cluster._running().start(member.program, flags=alone)
    cluster.control_plane.start_member(member.program)
    return cluster.record.processes[member.program]


# Comparing changes nothing: the next run finds the same after it as after the start.
@pytest.mark.parametrize(
    "until",
    [
        *("stop the member, and keep its data aside", "remove the member", "add it anew", "compare the members"),
        pytest.param("start it empty", marks=pytest.mark.slow),
    ],
)
def test_a_replacement_that_is_killed_is_finished_by_the_next(world, until):
    cluster, name = world.cluster, MEMBERS[2]

    def kill(step):
        if step.name == until:
            raise KeyboardInterrupt

    cluster.lose_member(name)
    (cluster.folder / "etcd-3" / "mine").touch()
    with pytest.raises(KeyboardInterrupt):
        replaced(cluster, name, watch=kill)
    assert (cluster.folder / "etcd-3.broken/mine").exists()
    replaced(cluster, name)
    world.assert_serving("old")
    assert folders(cluster) == {"", ".replaced"}
    assert (cluster.folder / "etcd-3.replaced/mine").exists()
    with pytest.raises(EtcdError) as ended:
        replaced(cluster, name)
    assert ended.value.code == "member-serves"


def test_a_member_with_other_data_is_replaced(world, toolchain):
    """Its raft is the others', so nobody but HashKV tells."""
    cluster, name = world.cluster, MEMBERS[2]
    cluster.stop_member(name)
    spoil(cluster.folder / "etcd-3/member/snap/db")
    cluster.start_member(name)
    assert look_at_members(cluster.etcd).differ
    with pytest.raises(EtcdError) as refused:  # two of three would differ without the first
        cluster.stop_member(MEMBERS[0])
        replaced(cluster, MEMBERS[0])
    assert refused.value.code == "members-differ"
    cluster.start_member(MEMBERS[0])
    assert "different data" in replaced(cluster, name).reason
    world.assert_serving("old")


def test_a_corrupt_member_leaves_no_alarm_that_keeps_the_others_from_serving(world):
    cluster, name = world.cluster, MEMBERS[2]
    with EtcdMember(cluster.etcd, cluster.etcd.endpoints[0]) as member:
        raise_corrupt(member, name)
        with pytest.raises(ClusterError, match="corrupt"):
            world.make("refused")
        assert "corrupt" in replaced(cluster, name).reason
        assert member.alarms() == ()
    world.assert_serving("old")


def raise_corrupt(member, name):
    """Raise the alarm on a member that etcd raises itself where its data differs."""
    (id_,) = (each.id for each in member.listed() if each.name == name)
    member._ask(rpc.ALARM, action="ACTIVATE", memberID=int(id_, 16), alarm="CORRUPT")


def test_the_leader_is_replaced_by_those_who_elect_another_one(world):
    """Reached by another URL than it advertises, as with --endpoints."""
    cluster, name = world.cluster, MEMBERS[2]
    leader = world.ids()[2][1]
    cluster.stop_member(name)
    spoil(cluster.folder / "etcd-3/member/snap/db")
    cluster.start_member(name)
    lead(cluster, leader)
    assert {each.leader for each in statuses_of(cluster.etcd)[0]} == {leader}
    with cluster.member_places() as places:
        places[name].client_url = "https://127.0.0.1:9"
        assert "different data" in replace_member(cluster.etcd, places, name, seconds=60).reason
    assert leader not in [id_ for _, id_ in world.ids()]
    world.assert_serving("old")


def lead(cluster, id_):
    """Let a member lead; only the leader can say who is next."""
    move = rpc.Call(
        method="/etcdserverpb.Maintenance/MoveLeader",
        path="maintenance/transfer-leadership",
        request={"targetID": rpc.Field(1, "uint")},
        response={},
    )
    for endpoint in cluster.etcd.endpoints:
        with EtcdMember(cluster.etcd, endpoint) as member:
            status = member.status()
            if status.member_id == status.leader != id_:
                member._ask(move, targetID=int(id_, 16))


def spoil(db):
    """Change a value in a database, as a bad disk may."""
    data = db.read_bytes()
    assert data.count(b"simulated-1") > 1
    db.write_bytes(data.replace(b"simulated-1", b"simulated-9"))


def test_a_member_that_is_gone_for_good_is_removed_and_taken_in_again(world):
    cluster, name = world.cluster, MEMBERS[2]
    with cluster.member_places() as places:
        with pytest.raises(EtcdError) as serves:
            remove_member(cluster.etcd, places, name, api=lambda: cluster.api)
        assert serves.value.code == "member-serves"
        with EtcdMember(cluster.etcd, cluster.etcd.endpoints[0]) as member:
            raise_corrupt(member, name)
        cluster.lose_member(name)
        remove_member(cluster.etcd, places, name, api=lambda: cluster.api)
        with EtcdMember(cluster.etcd, cluster.etcd.endpoints[0]) as member:
            assert member.alarms() == ()
            assert {each.name for each in member.listed()} == set(MEMBERS[:2])
        with pytest.raises(ClusterError) as unknown:
            remove_member(cluster.etcd, {}, name, api=lambda: cluster.api)
        assert unknown.value.code == "member-unknown"
        replace_member(cluster.etcd, places, name, seconds=60)
    world.assert_serving("old")


def test_what_is_written_down_names_every_member(cluster):
    record = read_record(cluster.folder, ClusterRecord)
    assert record == cluster.record
    assert len(record.ports.members) == len(cluster.etcd.endpoints) == 3
    assert {"etcd", "etcd-2", "etcd-3"} <= set(record.running())
