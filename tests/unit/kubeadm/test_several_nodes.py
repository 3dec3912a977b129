"""Three control-plane nodes of files: wherever a restore ends, all of them have one state, and it serves."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.kubeadm import KubeadmControlPlane
from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    ClusterUnreachableError,
    ProgramError,
    RestoreError,
    WaitTimeoutError,
)
from clusterguard.etcd.restore import restore_control_plane
from clusterguard.threads import interrupt_between_locks
from kubeadm_node import PATIENT, PODS, SNAPSHOT, STEPS, Api, Cluster, Killed, Node, peer_url

NAMES = ("node-1", "node-2", "node-3")


def new_cluster(root, names=NAMES):
    world = SimpleNamespace(dead=False)
    return Cluster([Node(root / name, name, cluster=names, world=world) for name in names])


@pytest.fixture
def cluster(tmp_path):
    return new_cluster(tmp_path)


ALL_RUN = {tuple(sorted(PODS))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A cluster after a whole restore, with what was done and why."""
    cluster = new_cluster(tmp_path_factory.mktemp("whole"))
    cluster.order = []
    cluster.restore(cluster.plane(on_command=lambda command: cluster.order.append(command.why)))
    return cluster


def test_all_members_are_restored_from_one_file_as_one_cluster(whole):
    assert (whole.states(), whole.running(), whole.leftovers()) == ({"restored"}, ALL_RUN, [])
    built = [line for node in whole.nodes for line in node.shell.lines if "--initial-cluster=" in line]
    words = [
        dict(word.split("=", 1) for word in line.split() if word.startswith("--") and "=" in word) for line in built
    ]
    wanted = ",".join(f"{name}={peer_url(name)}" for name in NAMES)
    assert {each["--initial-cluster"] for each in words} == {wanted}
    assert [each["--name"] for each in words] == list(NAMES)
    assert [each["--initial-advertise-peer-urls"] for each in words] == [peer_url(name) for name in NAMES]
    assert {each["--initial-cluster-token"] for each in words} == {"clusterguard-run1"}


def test_a_leader_that_looks_for_another_one_is_not_waited_for(cluster):
    """All stop at once: none is there to take over."""
    node = cluster.nodes[1]
    leader, crictl = node.root / "stuck", node.root / "stand-ins/crictl"
    etcd_stopped = f"test ! -e {node.root}/etc/kubernetes/manifests/etcd.yaml"
    text = crictl.read_text().replace(f"test -e {leader} &&", f"test -e {leader} && {etcd_stopped} &&")
    crictl.write_text(text.replace("#!/bin/sh\n", f"#!/bin/sh\nif test $1 = stop; then rm -f {leader}; exit; fi\n"))
    leader.write_text("id-etcd\n")
    cluster.restore(cluster.plane(timeouts=replace(PATIENT, member_grace=1, stubborn=600, gone=30)))
    assert (cluster.states(), leader.exists()) == ({"restored"}, False)


def test_no_node_begins_a_stage_before_all_ended_the_last(whole):
    """While an API server runs anywhere, no etcd is stopped; while one etcd runs, no data is swapped."""
    stages = [
        "from here on a second run knows what to undo",
        "see their containers gone: kube-apiserver",
        "see their containers gone: etcd",
        "the restored member goes live",
        "the kubelet starts etcd",
        "etcd serves",
        "the kubelet starts kube-apiserver",
        "the API server is ready",
    ]
    found = [
        next(stage for stage in stages if why.startswith(stage))
        for why in whole.order
        if any(why.startswith(stage) for stage in stages)
    ]
    assert found == [stage for stage in stages for _ in NAMES]


def commands_of(cluster, name):
    return len(next(node for node in cluster.nodes if node.name == name).shell.lines)


def kill_before(cluster, name, number):
    """Restore, with everything killed before a command on one node; return the state that the recovery ends in."""
    node = next(node for node in cluster.nodes if node.name == name)
    node.shell.die_before = number
    with suppress(Killed):
        cluster.restore(cluster.plane())
    cluster.recover()
    last = f"killed before command {number} of {name}: {node.shell.lines[number - 1 :][:1]}"
    assert len(cluster.states()) == 1, last
    assert (cluster.running(), cluster.leftovers()) == (ALL_RUN, []), last
    return cluster.states().pop()


def number_of(whole, name, part):
    lines = next(node for node in whole.nodes if node.name == name).shell.lines
    return max(number for number, line in enumerate(lines) if part in line)


@pytest.mark.parametrize(
    ("name", "part", "states"),
    [
        ("node-1", '"phase": "preparing"', {"old"}),
        ("node-3", '"phase": "preparing"', {"old"}),
        ("node-2", '"phase": "switching"', {"old"}),
        ("node-3", "/member /var/lib/etcd/member", {"old"}),
        ("node-2", "mv -T /etc/kubernetes/clusterguard/manifests/etcd.yaml /etc/kubernetes/manifests", {"old"}),
        # Some nodes may have committed already: then all are.
        ("node-2", "mv -fT /etc/kubernetes/clusterguard/proven", {"old", "restored"}),
        ("node-3", "rm -f /etc/kubernetes/clusterguard/proven", {"restored"}),
    ],
)
def test_killed_at_its_turning_points_all_nodes_have_one_state(tmp_path, whole, name, part, states):
    assert kill_before(new_cluster(tmp_path), name, number_of(whole, name, part)) in states


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_killed_before_any_command_of_any_node_all_have_one_state(tmp_path, whole, name):
    for number in range(commands_of(whole, name) + 1):
        kill_before(new_cluster(tmp_path / str(number)), name, number)


def test_a_commit_that_reached_one_node_is_finished_on_all(cluster):
    cluster.restore(cluster.plane(), until="start_api")
    staging = cluster.nodes[1].root / "etc/kubernetes/clusterguard"
    (staging / "proven.json").rename(staging / "journal.json")
    assert "finished" in cluster.recover()
    assert (cluster.states(), cluster.running(), cluster.leftovers()) == ({"restored"}, ALL_RUN, [])


@pytest.mark.parametrize(
    ("part", "states"),
    [
        ('"phase": "switching"', {"old"}),
        ("see their containers gone", {"old"}),
        ("/member /var/lib/etcd/member", {"old"}),
        ("mv -T /etc/kubernetes/clusterguard/manifests/etcd.yaml", {"old"}),
        ("mv -fT /etc/kubernetes/clusterguard/proven", {"restored"}),
    ],
)
def test_a_node_whose_line_is_lost_never_serves_another_state_than_the_rest(cluster, whole, part, states):
    lost = cluster.nodes[2]
    lines = next(node for node in whole.nodes if node.name == lost.name).shell.lines
    first = next((number for number, line in enumerate(lines) if part in line), None)
    if first is None:  # a wait has no name in its line: the first wait after the API server's manifests went
        first = next(number for number, line in enumerate(lines) if "timeout" in line)
    lost.shell.broken_for = range(first, 10**6)
    with pytest.raises(ClusterGuardError):
        cluster.restore(cluster.plane())
    served = {node.live()[1] for node in cluster.nodes[:2]}
    assert served == states
    cluster.recover()
    assert (cluster.states(), cluster.running(), cluster.leftovers()) == (states, ALL_RUN, [])


def test_a_rollback_that_one_node_cannot_follow_lets_the_others_serve(cluster):
    plane = cluster.plane()
    cluster.restore(plane, until="swap_in")
    lost = cluster.nodes[2]
    lost.shell.broken_for = range(10**6)
    with pytest.raises(ClusterError) as caught:
        plane.roll_back()
    assert (caught.value.code, caught.value.fields) == ("rollback-incomplete", {"nodes": "node-3"})
    assert {node.live()[1] for node in cluster.nodes[:2]} == {"old"}
    cluster.recover()
    assert (cluster.states(), cluster.running(), cluster.leftovers()) == ({"old"}, ALL_RUN, [])


def test_a_refused_snapshot_leaves_no_trace_on_any_node(cluster):
    (cluster.nodes[1].root / "etcdutl-fails").touch()
    plane = cluster.plane()
    with plane.exclusive():
        plane.check(needed_bytes=10)
        with pytest.raises(ProgramError):
            plane.prepare(cluster.nodes[0].snapshot, bump_revision=1000)
        plane.discard()
    assert (cluster.states(), cluster.running(), cluster.leftovers()) == ({"old"}, ALL_RUN, [])


# ---- who takes part ----------------------------------------------------------------------------------------


def problems(plane):
    with pytest.raises(ClusterError) as caught:
        plane.check(needed_bytes=10)
    return caught.value.fields


def lose_quorum(cluster, *, answers=False):
    """Members that still run go on listing what they knew; those that do not tell nothing."""
    for node in cluster.nodes:
        (node.root / "range").write_text("")
        if not answers:
            (node.root / "members").write_text("")


def test_members_that_were_not_named_are_told(cluster):
    found = problems(cluster.plane(cluster.nodes[:2]))
    assert (found["problems"], found["members"]) == (["members-missing"], "node-3")


def test_without_a_quorum_the_manifests_tell_who_is_missing(cluster):
    lose_quorum(cluster)
    found = problems(cluster.plane([cluster.nodes[2]]))
    assert (found["problems"], found["members"]) == (["members-missing"], "node-1, node-2")


def test_a_control_plane_that_only_the_api_knows_is_missed(cluster):
    """The manifest of the first node names no other, and its etcd is down: the others serve all the same."""
    lose_quorum(cluster)
    nodes = [{"metadata": {"name": name, "labels": {"node-role.kubernetes.io/control-plane": ""}}} for name in NAMES]
    found = problems(cluster.plane(cluster.nodes[:1], api=lambda: Api(nodes=nodes)))
    assert (found["problems"], found["members"]) == (["members-missing"], "node-2, node-3")


def test_an_api_server_that_does_not_answer_is_asked_once(cluster):
    """One that has lost its etcd keeps each question for as long as it may."""
    asked = []

    class Lost(Api):
        def get(self, *names, **_):
            asked.append(names)
            raise ClusterUnreachableError("no answer")

        def list(self, *kinds, **_):
            asked.append(kinds)
            raise ClusterUnreachableError("no answer")

    lose_quorum(cluster)
    cluster.plane(api=Lost).check(needed_bytes=10)
    assert len(asked) == 1


def test_a_node_whose_kubelet_does_not_run_is_refused(cluster):
    systemctl = cluster.nodes[1].root / "stand-ins/systemctl"
    systemctl.write_text("#!/bin/sh\necho inactive\n")
    assert problems(cluster.plane())["problems"] == ["kubelet-not-running"]


def test_what_a_manifest_said_when_its_node_joined_does_not_count_beside_the_list(tmp_path):
    """A node that joined, and whose companions were removed since, is the one member that there is."""
    cluster = new_cluster(tmp_path)
    only = cluster.nodes[2]
    (only.root / "members").write_text(json.dumps({"members": [{"name": "node-3", "peerURLs": [peer_url("node-3")]}]}))
    cluster.plane([only]).check(needed_bytes=10)


def test_a_member_lost_beside_a_quorum_is_no_case_for_a_restore(cluster):
    found = problems(cluster.plane(cluster.nodes[:2], gone=("node-3",)))
    assert (found["problems"], found["members"]) == (["quorum-is-there"], "node-3")


def api_with(*workers):
    planes = [{"metadata": {"name": name, "labels": {"node-role.kubernetes.io/control-plane": ""}}} for name in NAMES]
    return Api(nodes=[*planes, *({"metadata": {"name": name}} for name in workers)])


@pytest.mark.parametrize("name", ["worker-1", "node-9"], ids=["a worker", "nobody"])
def test_only_a_member_can_be_gone(cluster, name):
    """Its Node would be removed from the API."""
    lose_quorum(cluster, answers=True)
    plane = cluster.plane(cluster.nodes[:1], gone=("node-2", "node-3", name), api=lambda: api_with("worker-1"))
    found = problems(plane)
    assert (found["problems"], found["members"]) == (["gone-not-a-member"], name)


def test_a_proven_restore_is_not_finished_without_a_worker(cluster):
    lose_quorum(cluster, answers=True)
    cluster.restore(cluster.plane(cluster.nodes[:1], gone=("node-2", "node-3")), until="commit")
    gone = ("node-2", "node-3", "worker-1")
    with pytest.raises(ClusterError) as caught:
        cluster.plane(cluster.nodes[:1], gone=gone, api=lambda: api_with("worker-1")).recover()
    assert (caught.value.code, caught.value.fields) == ("gone-not-a-member", {"members": "worker-1"})
    assert not [line for line in cluster.nodes[0].shell.lines if "delete node" in line]
    cluster.plane(cluster.nodes[:1], gone=gone[:2], api=lambda: api_with("worker-1")).recover()
    assert [line for line in cluster.nodes[0].shell.lines if "delete node" in line]


@pytest.mark.parametrize("answers", [True, False], ids=["a member still runs", "none runs"])
def test_a_restore_without_dead_nodes_begins_with_those_that_remain(cluster, answers):
    lose_quorum(cluster, answers=answers)
    remaining = cluster.nodes[:1]
    dead = cluster.nodes[1:]
    plane = cluster.plane(remaining, gone=("node-2", "node-3"))
    cluster.restore(plane)
    assert remaining[0].live()[1] == "restored"
    assert {node.live()[1] for node in dead} == {"old"}
    deleted = [line for line in remaining[0].shell.lines if "delete node" in line]
    assert ["node-2 node-3" in line for line in deleted] == [True]
    assert [warning for warning in plane.warnings() if "node-2" in warning]


class Alias:
    """A node under another name, such as its address."""

    def __init__(self, node):
        self.shell = type(node.shell)(node.root, "10.0.0.5", node.world)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda c: [*c.nodes, Alias(c.nodes[0])], "same-member-twice"),
        (lambda c: (c.nodes[1].root / "version").write_text('{"etcdserver":"3.5.9"}') and None, "versions-differ"),
        (lambda c: [(n.root / "members").write_text(
            json.dumps({"members": [{"name": "node-1", "peerURLs": [peer_url("node-1")]}]})) for n in c.nodes] and None,
         "not-a-member"),
    ],
)  # fmt: skip
def test_nodes_that_do_not_belong_together_are_refused(cluster, spoil, problem):
    nodes = spoil(cluster)
    assert problem in problems(cluster.plane(nodes))["problems"]
    assert (cluster.states(), cluster.leftovers()) == ({"old"}, [])


def test_clocks_that_are_far_apart_are_told(cluster):
    date = cluster.nodes[1].root / "stand-ins/date"
    date.write_text('#!/bin/sh\ncase $1 in +%s.%N) echo $(($(/bin/date +%s) + 60)).0;; *) exec /bin/date "$@";; esac\n')
    date.chmod(0o755)
    found = problems(cluster.plane())
    assert (found["problems"], found["nodes"]) == (["clocks-differ"], "node-2, node-1")


def test_an_interrupted_restore_is_not_recovered_on_a_part_of_its_nodes(cluster):
    cluster.restore(cluster.plane(), until="swap_in")
    with pytest.raises(ClusterError) as caught:
        cluster.plane(cluster.nodes[:2]).recover()
    assert (caught.value.code, caught.value.fields) == ("members-missing", {"members": "node-3"})
    cluster.recover()
    assert cluster.states() == {"old"}


def test_what_is_left_of_a_restore_is_recovered_without_nodes_that_died_since(cluster):
    lose_quorum(cluster, answers=True)
    cluster.restore(cluster.plane(cluster.nodes[:1], gone=("node-2", "node-3")), until="swap_in")
    plane = cluster.plane(cluster.nodes[:1], gone=("node-2", "node-3"))
    (cluster.nodes[0].root / "size").write_text("1")  # a member that can serve alone, for the rollback's sake
    assert "rolled back" in plane.recover()


def test_a_node_that_went_back_alone_is_not_touched_when_the_last_one_does(cluster):
    """What lies in a directory that only this run was asked for is none of that restore's."""
    plane = cluster.plane()
    cluster.restore(plane, until="swap_in")
    lost = cluster.nodes[2]
    lost.shell.broken_for = range(10**6)
    with pytest.raises(ClusterError):
        plane.roll_back()
    for node in cluster.nodes:
        node.survive()
    kept = cluster.nodes[0].root / "mnt/new/member/db"
    kept.parent.mkdir(parents=True)
    kept.write_text("kept by somebody")
    cluster.plane(data_dir="/mnt/new").recover()
    assert kept.read_text() == "kept by somebody"
    assert (cluster.states(), cluster.running()) == ({"old"}, ALL_RUN)


def test_a_cluster_that_cannot_serve_is_restored_after_an_interrupted_restore(cluster):
    cluster.restore(cluster.plane(), until="swap_in")
    for node in cluster.nodes:
        (node.root / "etcd-broken").touch()
    plane = cluster.plane(timeouts=replace(PATIENT, etcd=1))
    with pytest.raises(WaitTimeoutError):
        plane.recover()
    for node in cluster.nodes:
        (node.root / "etcd-broken").unlink()
    plane.check(needed_bytes=10)
    plane.prepare(cluster.nodes[0].snapshot, bump_revision=1000)
    for step in STEPS:
        getattr(plane, step)()
    assert (cluster.states(), cluster.running()) == ({"restored"}, ALL_RUN)


def test_ctrl_c_waits_for_what_is_at_work_on_the_nodes(cluster):
    """What undoes a step must not run beside it."""
    begun, ended = threading.Barrier(len(NAMES) + 1), []
    plane = cluster.plane()

    def slow(node):
        begun.wait(30)
        plane._halt.wait(30)  # at work when it is pressed, however late that is
        time.sleep(0.5)
        ended.append(node.name)

    def press():
        begun.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    interrupt_between_locks(signal.SIGINT)  # as the command line does
    presser = threading.Thread(target=press)
    presser.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            plane._everywhere(slow)
    finally:
        signal.signal(signal.SIGINT, before)
        presser.join()
    assert sorted(ended) == list(NAMES)


def test_after_ctrl_c_no_further_command_begins(cluster):
    plane = cluster.plane()
    plane._halt.set()
    with pytest.raises(ClusterError) as caught:
        plane._nodes[0].perform([SimpleNamespace(why="anything")])
    assert caught.value.code == "interrupted"


def test_members_are_asked_where_one_node_is_away(cluster):
    cluster.nodes[0].shell.broken_for = range(10**6)
    with ExitStack() as keep:
        access = cluster.plane(workers=None).etcd_access(keep=keep)
        assert access.endpoints == ("https://10.0.0.5:2379",) * 2


def test_two_interrupted_restores_are_told_apart(cluster):
    cluster.restore(cluster.plane(), until="stop")
    journal = cluster.nodes[1].root / "etc/kubernetes/clusterguard/journal.json"
    journal.write_text(journal.read_text().replace("run1", "run2"))
    with pytest.raises(ClusterError) as caught:
        cluster.plane().recover()
    assert caught.value.code == "journals-differ"


def test_two_restores_that_share_a_node_exclude_each_other(cluster):
    first = cluster.plane(cluster.nodes[:2])
    second = cluster.plane(cluster.nodes[1:], timeouts=replace(PATIENT, lock=0))
    with first.exclusive(), pytest.raises(ClusterError) as caught, second.exclusive():
        pass
    assert caught.value.code == "restore-running"


# ---- workers -----------------------------------------------------------------------------------------------


class Worker:
    def __init__(self, name, error=None):
        self.name, self.error, self.ran = name, error, []

    def run(self, argv, **_):
        if self.error:
            raise self.error
        self.ran.append(list(argv))
        return f"{self.name}.example.com\n"

    def describe(self, argv):
        return " ".join(argv)


def test_the_kubelets_of_workers_look_at_everything_again(cluster):
    worker, lost = Worker("worker-1"), Worker("worker-2", ProgramError("worker-2: no route to host"))
    nodes = [{"metadata": {"name": name}} for name in ("worker-1.example.com", "worker-9")]
    plane = cluster.plane(workers=[worker, lost], api=lambda: Api(nodes=nodes))
    cluster.restore(plane)
    assert worker.ran[0] == ["systemctl", "restart", "kubelet"]
    told = [warning for warning in plane.warnings() if "worker" in warning]
    assert [next(name for name in ("worker-2", "worker-9") if name in each) for each in told] == [
        "worker-2",
        "worker-9",
    ]


def test_nodes_without_a_control_plane_are_workers(cluster, tmp_path):
    worker = Node(tmp_path / "worker-1", "node-1")
    for manifest in worker.manifests.iterdir():
        manifest.unlink()
    worker.shell.name = "worker-1"
    plane = KubeadmControlPlane(
        [*(node.shell for node in cluster.nodes), worker.shell], workers=None, api=Api, timeouts=PATIENT, run="run1"
    )
    cluster.restore(plane)
    assert cluster.states() == {"restored"}
    assert (worker.root / "systemctl.log").read_text() == "restart kubelet\n"


# ---- what restores do with them ----------------------------------------------------------------------------


def test_members_that_cannot_be_asked_are_refused_before_anything_is_touched(cluster):
    access = EtcdAccess(endpoints=("https://10.0.0.5:2379",))
    with pytest.raises(RestoreError) as caught:
        restore_control_plane(cluster.plane(), access, snapshot=SNAPSHOT, file=cluster.nodes[0].snapshot)
    assert (caught.value.__cause__.code, caught.value.rolled_back) == ("endpoints-missing", True)
    assert (cluster.states(), cluster.leftovers()) == ({"old"}, [])


# ---- a rollback that did not end ---------------------------------------------------------------------------


def test_a_kubelet_that_died_meanwhile_is_started_by_the_rollback(cluster):
    plane = cluster.plane(timeouts=replace(PATIENT, etcd=1))
    cluster.restore(plane, until="swap_in")
    for node in cluster.nodes:
        (node.root / "kubelet-died").touch()
    plane.roll_back()
    assert (cluster.states(), cluster.running(), cluster.leftovers()) == ({"old"}, ALL_RUN, [])


def test_a_restore_does_not_begin_over_one_that_was_not_brought_back(cluster):
    """Its own journal would say that nothing was swapped, and what the first one has aside would never come back."""
    plane = cluster.plane()
    cluster.restore(plane, until="swap_in")
    cluster.nodes[2].shell.broken_for = range(10**6)
    with pytest.raises(ClusterError):
        plane.roll_back()
    cluster.nodes[2].survive()
    assert problems(cluster.plane())["problems"] == ["rollback-incomplete"]
    cluster.recover()
    cluster.plane().check(needed_bytes=10)


@pytest.mark.parametrize("broken", [NAMES, NAMES[2:]], ids=["none serves", "a quorum serves"])
def test_where_only_serving_is_missing_a_rollback_leaves_nothing_aside(cluster, broken):
    cluster.restore(cluster.plane(), until="swap_in")
    for node in cluster.nodes:
        if node.name in broken:
            (node.root / "etcd-broken").touch()
    plane = cluster.plane(timeouts=replace(PATIENT, etcd=1))
    with pytest.raises(ClusterGuardError):
        plane.recover()
    assert (cluster.states(), cluster.running()) == ({"old"}, ALL_RUN)
    plane.check(needed_bytes=10)


def test_ctrl_c_while_what_went_back_is_started_is_not_lost(tmp_path):
    cluster = new_cluster(tmp_path, NAMES[:1])
    seen = []

    def press(command):
        seen.append(command.why)
        if "etcd serves" in seen[:-1]:
            raise KeyboardInterrupt

    cluster.restore(cluster.plane(), until="swap_in")
    (cluster.nodes[0].root / "etcd-broken").touch()
    with pytest.raises(KeyboardInterrupt):
        cluster.plane(timeouts=replace(PATIENT, etcd=1), on_command=press).recover()
