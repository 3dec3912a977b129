"""The member of one node of files is replaced: killed anywhere, the next run ends it, or a recovery gives it up."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from clusterguard.clusters.certificates import Authority
from clusterguard.clusters.kubeadm import KubeadmControlPlane
from clusterguard.clusters.kubeadm.manifests import EtcdManifest
from clusterguard.errors import ClusterError
from kubeadm_node import PATIENT, PODS, Api, Killed, Node, peer_url

NAMES = ("node-1", "node-2", "node-3")
MEMBERS = {name: peer_url(name) for name in NAMES}
PART = "etc/kubernetes/clusterguard/journal.json.part"
REPLACED = ["etc/kubernetes/clusterguard/etcd.yaml.before", "var/lib/etcd/.clusterguard/replaced"]


class Cluster:
    """Three nodes, of which the first has other data than the rest; what joins gets the data of the rest."""

    def __init__(self, root, *, lost=False):
        self.world = SimpleNamespace(dead=False)
        self.nodes = [Node(root / name, name, cluster=NAMES, world=self.world) for name in NAMES]
        self.node = self.nodes[0]
        self.member = self.node.data / "member"
        (self.member / "db").write_text("broken")
        if lost:
            (self.member / "db").unlink()
            self.member.rmdir()

    def plane(self, nodes=None, **options):
        shells = [node.shell for node in nodes or self.nodes]
        return KubeadmControlPlane(
            shells, **{"api": Api, "timeouts": PATIENT, "run": "run1", "on_command": self.fill} | options
        )

    def fill(self, command):
        """Fill an empty member that joins, as etcd does, once it is waited for."""
        manifest = self.node.manifests / "etcd.yaml"
        if command.why == "etcd serves" and manifest.exists() and "=existing" in manifest.read_text():
            self.member.mkdir(exist_ok=True)
            (self.member / "db").write_text("old")

    def replace(self):
        """Do what `replace_member` does on the node."""
        with self.plane().member_places() as places:
            place = places["node-1"]
            serves = self.member.exists() and (self.member / "db").read_text() == "old"
            if serves and not place.begun:
                return "it is not lost"
            if not serves:
                place.check(needed_bytes=10)
                place.set_aside()
                assert not self.member.exists()
                place.start_empty(MEMBERS)
            return place.finish()

    def survive(self):
        for node in self.nodes:
            node.survive()

    def leftovers(self):
        return [each for each in self.node.leftovers() if "/replaced/" not in each]

    def assert_replaced(self, kept="broken"):
        assert self.node.live() == (sorted(PODS), "old")
        assert self.leftovers() == REPLACED
        replaced = self.node.data / ".clusterguard/replaced/member/db"
        assert (replaced.read_text() if replaced.exists() else "") == kept
        manifest = EtcdManifest.parse((self.node.manifests / "etcd.yaml").read_text(), where="")
        assert manifest.joins
        assert dict(manifest.initial_cluster) == MEMBERS


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


@pytest.mark.parametrize("lost", [False, True])
def test_a_member_is_stopped_with_its_api_server_and_joins_empty(tmp_path, lost):
    cluster = Cluster(tmp_path, lost=lost)
    assert cluster.replace() == "/var/lib/etcd/.clusterguard/replaced on node-1"
    cluster.assert_replaced(kept="" if lost else "broken")
    untouched = [node.live() for node in cluster.nodes[1:]]
    assert untouched == [(sorted(PODS), "old")] * 2
    written = [line for node in cluster.nodes[1:] for line in node.shell.lines if "mv -T" in line]
    assert written == []


def test_it_can_be_replaced_again_and_only_the_last_is_kept(cluster):
    cluster.replace()
    (cluster.member / "db").write_text("broken again")
    cluster.replace()
    cluster.assert_replaced(kept="broken again")


def whole(tmp_path):
    cluster = Cluster(tmp_path / "whole")
    cluster.replace()
    return cluster


def kill_before(cluster, number):
    cluster.node.shell.die_before = number
    with suppress(Killed):
        cluster.replace()
    cluster.survive()


def kill_in(cluster, number):
    cluster.node.die_at_call(number)
    with suppress(Killed):
        cluster.replace()
    cluster.survive()


TURNS = ("/var/lib/etcd/.clusterguard/broken.part", "etcd.yaml > ", "mv -T /etc/kubernetes/clusterguard/etcd.yaml")


def turning_points(lines):
    found = [next(number for number, line in enumerate(lines) if part in line) for part in TURNS]
    return sorted({number + after for number in found for after in (0, 1)})


def recover(cluster):
    plane = cluster.plane()
    with plane.exclusive():
        return plane.recover()


def assert_given_up(cluster, last):
    """All runs again, on what it had, or on what had joined by then."""
    assert sorted(path.stem for path in cluster.node.manifests.iterdir()) == sorted(PODS), last
    data = (cluster.member / "db").read_text() if cluster.member.exists() else ""  # etcd fills it in its own time
    joins = "=existing" in (cluster.node.manifests / "etcd.yaml").read_text()
    assert (data, joins) in (("broken", False), ("old", True), ("", True)), last
    # A journal that was never whole says nothing, and the next one is written over it.
    assert [each for each in cluster.leftovers() if each not in (*REPLACED, PART)] == [], last


def test_killed_at_its_turning_points_it_is_ended_by_the_next_or_given_up(tmp_path):
    lines = whole(tmp_path).node.shell.lines
    for number in turning_points(lines):
        cluster = Cluster(tmp_path / f"again-{number}")
        kill_before(cluster, number)
        cluster.replace()
        cluster.assert_replaced()
        cluster = Cluster(tmp_path / f"up-{number}")
        kill_before(cluster, number)
        recover(cluster)
        assert_given_up(cluster, lines[number])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kill", [kill_before, kill_in])
def test_killed_anywhere_it_is_ended_by_the_next_or_given_up(tmp_path, kill):
    ended = whole(tmp_path)
    count = len(ended.node.shell.lines) if kill is kill_before else 0
    if kill is kill_in:
        counting = Cluster(tmp_path / "counting")
        counting.node.die_at_call(10**6)
        counting.replace()
        count = counting.node.calls()
    assert count > 20
    for number in range(1, count + 1):
        cluster = Cluster(tmp_path / f"again-{number}")
        kill(cluster, number)
        cluster.replace()
        cluster.assert_replaced()
        cluster = Cluster(tmp_path / f"up-{number}")
        kill(cluster, number)
        recover(cluster)
        assert_given_up(cluster, f"{kill.__name__} {number}")


def test_a_restore_does_not_begin_on_a_node_whose_member_is_being_replaced(cluster):
    kill_before(cluster, next_number(cluster, tmp="broken.part"))
    plane = cluster.plane()
    with pytest.raises(ClusterError) as caught:
        plane.check(needed_bytes=10)
    assert caught.value.fields["problems"] == ["rollback-incomplete"]
    assert "given up" in recover(cluster)
    plane = cluster.plane()
    plane.check(needed_bytes=10)
    assert cluster.node.live() == (sorted(PODS), "broken")


def next_number(cluster, *, tmp):
    """Return the number of the first command after the one with these words, on a cluster like this one."""
    other = Cluster(cluster.node.root.parent / "other")
    other.replace()
    return next(n for n, line in enumerate(other.node.shell.lines) if tmp in line) + 1


@pytest.mark.parametrize("state", ["", "new"], ids=["no state", "state new"])
def test_a_member_without_data_that_is_given_up_begins_no_cluster_of_its_own(tmp_path, state):
    cluster = Cluster(tmp_path, lost=True)
    manifest = cluster.node.manifests / "etcd.yaml"
    if state:
        line = "    - --initial-cluster="
        manifest.write_text(manifest.read_text().replace(line, f"    - --initial-cluster-state={state}\n{line}"))
    before = EtcdManifest.parse(manifest.read_text(), where="")
    with cluster.plane().member_places() as places:
        places["node-1"].set_aside()
    told = recover(cluster)
    assert EtcdManifest.parse(manifest.read_text(), where="") == replace(before, joins=True)
    assert "no data" in told
    assert cluster.leftovers() == []
    cluster.replace()
    cluster.assert_replaced(kept="")


def test_whoever_gets_data_back_is_not_told_of_none(cluster):
    with cluster.plane().member_places() as places:
        places["node-1"].set_aside()
    assert "no data" not in recover(cluster)
    assert not EtcdManifest.parse((cluster.node.manifests / "etcd.yaml").read_text(), where="").joins


def test_data_that_is_half_aside_is_given_back(cluster):
    with cluster.plane().member_places() as places:
        places["node-1"].set_aside()
    work = cluster.node.data / ".clusterguard"
    (work / "broken").rename(work / "broken.part")
    recover(cluster)
    assert (cluster.node.live(), cluster.leftovers()) == ((sorted(PODS), "broken"), [])


def test_no_member_is_replaced_where_a_restore_was_interrupted(cluster):
    folder = cluster.node.root / "etc/kubernetes/clusterguard"
    folder.mkdir()
    (folder / "journal.json").write_text(json.dumps({"format": 3, "run": "r", "phase": "switching"}))
    with pytest.raises(ClusterError) as caught, cluster.plane().member_places():
        pass
    assert caught.value.code == "restore-interrupted"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda node: (node.root / "etc/kubernetes/pki/etcd/ca.crt").write_text("another"), "other-cluster"),
        (lambda node: rewrite(node, "- --initial-cluster=", "- --initial-cluster\n    - "), "manifest-not-rewritable"),
        (lambda node: rewrite(node, r"- (--initial-cluster=.*)", r'- "\1"'), "manifest-not-rewritable"),
        (
            lambda node: (node.root / "stand-ins/systemctl").write_text("#!/bin/sh\necho failed\n"),
            "kubelet-not-running",
        ),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_a_node_on_which_it_cannot_be_done_is_told_before_anything_is_touched(cluster, spoil, problem, number):
    node = cluster.nodes[number - 1]
    spoil(node)
    with cluster.plane().member_places() as places, pytest.raises(ClusterError) as caught:
        places[node.name].check(needed_bytes=10)
    assert caught.value.fields["problems"] == [problem]
    assert cluster.leftovers() == []


def rewrite(node, pattern, text):
    manifest = node.manifests / "etcd.yaml"
    manifest.write_text(re.sub(pattern, text, manifest.read_text()))


def test_nodes_of_another_cluster_than_the_api_are_left_alone(cluster):
    plane = cluster.plane(api=lambda: Api(ca="another authority"))
    with pytest.raises(ClusterError) as caught, plane.member_places():
        pass
    assert caught.value.code == "other-cluster"


@pytest.mark.parametrize(("address", "problems"), [("127.0.0.1", None), ("10.0.0.5", ["certificate-address"])])
def test_a_node_whose_address_changed_would_be_added_and_never_let_in(cluster, tmp_path, address, problems):
    """Certificates of ours are for loopback."""
    cert, _ = Authority("etcd-ca", folder=tmp_path).issue("peer", common_name="etcd")
    (cluster.node.root / "etc/kubernetes/pki/etcd/peer.crt").write_bytes(cert.read_bytes())
    manifest = cluster.node.manifests / "etcd.yaml"
    manifest.write_text(manifest.read_text().replace("urls=https://10.0.0.5:2380", f"urls=https://{address}:2380"))
    found = None
    with cluster.plane().member_places() as places:
        try:
            places["node-1"].check(needed_bytes=10)
        except ClusterError as error:
            found = error.fields["problems"]
    assert found == problems


def test_a_manifest_that_cannot_be_rewritten_starts_nothing(cluster):
    manifest = cluster.node.manifests / "etcd.yaml"
    manifest.write_text(manifest.read_text().replace("- --initial-cluster=", "- --initial-cluster\n    - "))
    before = manifest.read_text()
    with cluster.plane().member_places() as places:
        places["node-1"].set_aside()
        with pytest.raises(ClusterError):
            places["node-1"].start_empty(MEMBERS)
    assert not manifest.exists()
    recover(cluster)
    assert (manifest.read_text(), cluster.node.live()) == (before, (sorted(PODS), "broken"))


def test_a_member_that_has_much_to_get_is_given_time_for_it(cluster):
    with cluster.plane().member_places() as places:
        places["node-1"].check(needed_bytes=300 * 1024 * 1024)
        steps = places["node-1"].runbook(remove=(), disarm=(), members=MEMBERS, asked=places["node-2"])
    (wait,) = (line.line for step in steps for line in step.lines if line.why == "node-1: etcd serves")
    assert f"timeout {PATIENT.etcd + 30} " in wait


def test_whether_it_serves_is_asked_on_the_node(cluster):
    with cluster.plane().member_places() as places:
        assert not places["node-1"].serves()  # alone with its data, it has no majority
        assert places["node-2"].serves()


def test_what_a_plan_prints_is_what_runs_on_the_node(cluster):
    with cluster.plane().member_places() as places:
        steps = places["node-1"].runbook(
            remove=["1f"], disarm=["CORRUPT on 1f"], members=MEMBERS, asked=places["node-2"]
        )
        planned = [line.line for step in steps for line in step.lines if line.why.startswith("node-1: ")]
        asked = [line.line for step in steps for line in step.lines if line.why.startswith("node-2: ")]
        before = len(cluster.node.shell.lines)
        places["node-1"].set_aside()
        places["node-1"].start_empty(MEMBERS)
        places["node-1"].finish()
    ran = cluster.node.shell.lines[before:]
    assert [line for line in ran if not line.startswith("cat ")] == planned
    told = ['{"ID": "31"}', '"memberID": "31", "alarm": "CORRUPT"', MEMBERS["node-1"]]
    assert [words in line for words, line in zip(told, asked, strict=True)] == [True] * 3
