"""Every step on a node of files: killed before each command and in the middle of each, everything comes back."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress

import pytest
from kubeadm_node import PODS, Api, Killed, Node

from clusterguard.clusters.kubeadm import KubeadmControlPlane, Timeouts
from clusterguard.clusters.kubeadm.survey import Seen, complaints
from clusterguard.errors import ClusterError, ClusterUnreachableError, ConfigError, ProgramError, WaitTimeoutError

OLD, NEW = (sorted(PODS), "old"), (sorted(PODS), "restored")
QUICK = Timeouts(build=20, api_grace=1, gone=2, etcd=1, api=1)
PLACES = pytest.mark.parametrize("data_dir", [None, "/mnt/new"], ids=["in place", "to a new directory"])


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def control_plane(node, *, data_dir=None, api=None, **options):
    return KubeadmControlPlane(
        shell=node.shell, api=lambda: api or Api(), data_dir=data_dir, timeouts=QUICK, run="run1", **options
    )


def restore(plane, node, *, until="commit"):
    with plane.exclusive():
        plane.recover()
        plane.check(needed_bytes=10, etcd_version="3.6.1")
        plane.prepare(node.snapshot, bump_revision=1000)
        for step in ("stop", "swap_in", "start_etcd", "start_api", "start_controllers", "commit"):
            getattr(plane, step)()
            if step == until:
                return


def recovered(node, data_dir=None):
    node.survive()
    plane = control_plane(node, data_dir=data_dir)
    with plane.exclusive():
        return plane.recover()


# ---- the way there -----------------------------------------------------------------------------------------


@PLACES
def test_the_restored_member_serves_and_the_old_one_is_kept(node, data_dir):
    plane = control_plane(node, data_dir=data_dir)
    restore(plane, node)
    assert node.live() == NEW
    kept = node.root / ("var/lib/etcd/member" if data_dir else "var/lib/etcd/.clusterguard/kept/member")
    assert (kept / "db").read_text() == "old"
    assert [path for path in node.leftovers() if not path.endswith("etcd.yaml.before")] in (
        [],
        ["var/lib/etcd/.clusterguard/kept"],
    )


def test_it_can_be_restored_again_and_only_the_last_old_member_is_kept(node):
    restore(control_plane(node), node)
    node.snapshot.write_text("restored twice")
    restore(control_plane(node), node)
    assert node.live() == (sorted(PODS), "restored twice")
    assert (node.data / ".clusterguard/kept/member/db").read_text() == "restored"


def test_lost_data_is_no_obstacle(node):
    (node.data / "member/db").unlink()
    (node.data / "member").rmdir()
    restore(control_plane(node), node)
    assert node.live() == NEW


def test_a_lost_data_directory_is_made_anew(node):
    shutil.rmtree(node.data)
    restore(control_plane(node), node)
    assert node.live() == NEW
    assert node.data.stat().st_mode & 0o777 == 0o700


def test_a_data_directory_that_cannot_be_written_is_refused():
    answers = "uid=0\nwritable=/etc/kubernetes\nwritable=/etc/kubernetes/manifests\nfree=1000000000000\n"
    found = complaints(Seen.parse(answers), data_dir="/var/lib/etcd", target="/var/lib/etcd", needed_bytes=1)
    assert "not writable, or not there: /var/lib/etcd" in [each.message for each in found]


def test_lost_data_stays_lost_when_a_restore_is_rolled_back(node):
    (node.data / "member/db").unlink()
    (node.data / "member").rmdir()
    restore(control_plane(node), node, until="start_api")
    assert "rolled back" in recovered(node)
    assert not (node.data / "member").exists()


def test_the_api_server_stops_before_etcd_and_starts_after_it(node):
    restore(control_plane(node), node)
    lines = [line for line in node.shell.lines if re.search("manifests/|readyz|sh -c|systemctl", line)]
    text = "\n".join(lines)
    assert text.index("for pod in kube-apiserver kube-controller") < text.index("for pod in etcd;")
    assert text.index("2379/readyz") < text.index("for pod in kube-apiserver; do") < text.index("6443/readyz")
    # Once before it can tell the restored state of the lost one, once to look at the restored state at once.
    assert (node.root / "systemctl.log").read_text() == "restart kubelet\n" * 2
    restarts = [match.start() for match in re.finditer("systemctl restart kubelet", text)]
    assert text.index("for pod in etcd;") < restarts[0] < text.index("for pod in kube-apiserver; do") < restarts[1]


# ---- the plan ----------------------------------------------------------------------------------------------


@PLACES
def test_a_run_executes_what_the_plan_says_and_nothing_else(node, data_dir):
    planned = control_plane(node, data_dir=data_dir).runbook(node.snapshot, bump_revision=1000)
    lines = [each.line for step in planned for each in step.lines]
    watched = []
    plane = control_plane(node, data_dir=data_dir, watch=watched.append)
    with plane.exclusive():
        plane.recover()
        plane.check(needed_bytes=10)
        plane.prepare(node.snapshot, bump_revision=1000)
        node.shell.lines.clear()  # from here on
        for step in ("stop", "swap_in", "start_etcd", "start_api", "start_controllers", "commit"):
            getattr(plane, step)()
    assert [plane._line(command) for command in watched] == lines
    assert node.shell.lines == lines[-len(node.shell.lines) :]
    assert len(node.shell.lines) == sum(len(step.lines) for step in planned[1:])


def test_a_plan_touches_nothing(node):
    before = sorted(str(path) for path in node.root.rglob("*"))
    control_plane(node).runbook(node.snapshot, bump_revision=1000)
    assert sorted(str(path) for path in node.root.rglob("*")) == before


@PLACES
def test_the_printed_way_back_is_the_one_that_is_gone(node, data_dir):
    plane = control_plane(node, data_dir=data_dir)
    restore(plane, node, until="start_api")
    way_back = [each.line for each in plane.way_back()]
    node.shell.lines.clear()
    plane.roll_back()
    assert node.shell.lines == way_back
    assert node.live() == OLD


# ---- killed ------------------------------------------------------------------------------------------------


def commands_of_a_restore(tmp_path, data_dir):
    node = Node(tmp_path)
    restore(control_plane(node, data_dir=data_dir), node)
    return len(node.shell.lines)


def kill_before(node, number, data_dir):
    """Restore, killed before a command; return what a person finds after the recovery."""
    node.shell.die_before = number
    with suppress(Killed):
        restore(control_plane(node, data_dir=data_dir), node)
    last = node.shell.lines[-1]
    recovered(node, data_dir)
    assert node.live() in (OLD, NEW), f"killed before command {number}: {last}"
    return node.live()[1]


def test_killed_at_its_turning_points_the_cluster_works_again(tmp_path):
    total = commands_of_a_restore(tmp_path / "whole", None)
    found = [kill_before(Node(tmp_path / str(number)), number, None) for number in range(total - 13, total + 1, 2)]
    assert found[0] == "old"
    assert found[-1] == "restored"
    assert found == sorted(found), "once proven, always proven"


@pytest.mark.slow
@PLACES
@pytest.mark.parametrize("part", range(4))
def test_killed_before_any_command_the_cluster_works_again_and_can_be_restored(tmp_path, data_dir, part):
    total = commands_of_a_restore(tmp_path / "whole", data_dir)
    for number in range(part, total + 1, 4):
        node = Node(tmp_path / str(number))
        found = kill_before(node, number, data_dir)
        restore(control_plane(node, data_dir=data_dir if found == "old" else None), node)
        assert node.live() == NEW, f"not restorable after a kill before command {number}"


@pytest.mark.slow
@PLACES
@pytest.mark.parametrize("part", range(4))
def test_killed_in_the_middle_of_any_command_the_cluster_works_again(tmp_path, data_dir, part):
    whole = Node(tmp_path / "whole")
    whole.die_at_call(-1)
    restore(control_plane(whole, data_dir=data_dir), whole)
    for number in range(1 + part, whole.calls() + 1, 4):
        node = Node(tmp_path / str(number))
        node.die_at_call(number)
        with pytest.raises(Killed):
            restore(control_plane(node, data_dir=data_dir), node)
        recovered(node, data_dir)
        assert node.live() in (OLD, NEW), f"killed at call {number}: {node.shell.lines[-1]}"


@pytest.mark.slow
@PLACES
@pytest.mark.parametrize("part", range(4))
def test_a_rollback_that_is_killed_too_is_rolled_back_by_the_next(tmp_path, data_dir, part):
    whole = Node(tmp_path / "whole")
    restore(control_plane(whole, data_dir=data_dir), whole, until="start_api")
    whole.die_at_call(-1)
    control_plane(whole, data_dir=data_dir).recover()
    for number in range(1 + part, whole.calls() + 1, 4):
        node = Node(tmp_path / str(number))
        restore(control_plane(node, data_dir=data_dir), node, until="start_api")
        node.die_at_call(number)
        with pytest.raises(Killed):
            control_plane(node, data_dir=data_dir).recover()
        recovered(node, data_dir)
        assert node.live() == OLD, f"killed at call {number}"


def test_recover_says_nothing_where_nothing_was_interrupted(node):
    assert recovered(node) is None
    assert node.live() == OLD


def test_a_journal_that_cannot_be_read_is_told_not_passed_over(node):
    restore(control_plane(node), node, until="stop")
    journal = node.root / "etc/kubernetes/clusterguard/journal.json"
    record = json.loads(journal.read_text())
    journal.write_text("{")
    with pytest.raises(ClusterError, match=r"journal\.json cannot be read"):
        recovered(node)
    journal.write_text(json.dumps(record | {"format": 2}))
    with pytest.raises(ClusterError, match="has format 2"):
        recovered(node)


# ---- faults ------------------------------------------------------------------------------------------------


def test_an_etcd_that_does_not_come_back_is_told_with_its_log(node):
    plane = control_plane(node)
    restore(plane, node, until="swap_in")
    (node.root / "etcd-broken").touch()
    with pytest.raises(WaitTimeoutError, match="node-1: etcd serves: not within 1 s; last seen: "):
        plane.start_etcd()
    (node.root / "etcd-broken").unlink()
    plane.roll_back()
    assert node.live() == OLD


def test_a_container_that_stays_is_seen(node):
    (node.root / "stuck").write_text("id-stuck\n")
    with pytest.raises(WaitTimeoutError, match="see their containers gone"):
        restore(control_plane(node), node)
    (node.root / "stuck").unlink()
    assert "rolled back" in recovered(node)
    assert node.live() == OLD


def test_a_runtime_that_does_not_answer_does_not_pass_for_gone(node):
    crictl = node.root / "stand-ins/crictl"
    text = crictl.read_text()
    crictl.write_text("#!/bin/sh\necho 'connect: no such file' >&2; exit 1\n")
    with pytest.raises(ProgramError):
        restore(control_plane(node), node)
    crictl.write_text(text)
    recovered(node)
    assert node.live() == OLD


def test_a_refused_snapshot_leaves_no_trace(node):
    (node.root / "etcdutl-fails").touch()
    with pytest.raises(ProgramError, match="expected sha256"):
        restore(control_plane(node), node)
    assert node.live() == OLD
    assert not [path for path in node.leftovers() if "run1" in path]


def test_too_little_room_is_refused_before_anything_is_touched(node):
    before = sorted(str(path) for path in node.root.rglob("*"))
    with pytest.raises(ClusterError, match=r"need 2,000,134,217,728 bytes in /var/lib/etcd, and [\d,]+ are free"):
        control_plane(node).check(needed_bytes=10**12)
    assert sorted(str(path) for path in node.root.rglob("*")) == before


def test_a_snapshot_of_another_minor_version_is_refused(node):
    with pytest.raises(ClusterError, match=r"the snapshot is from etcd 3\.5\.9, and node-1 runs etcd 3\.6\.8"):
        control_plane(node).check(needed_bytes=10, etcd_version="3.5.9")


def test_members_that_only_etcd_knows_are_seen(node):
    (node.root / "members").write_text('{"members":[{"name":"node-1"},{"name":"node-2"}]}')
    with pytest.raises(ClusterError, match=r"etcd has 2 members \(node-1, node-2\)") as caught:
        control_plane(node).check(needed_bytes=10)
    assert "join it anew" in caught.value.hint


def test_a_node_of_another_cluster_is_refused(node):
    with pytest.raises(ClusterError, match="no node of the cluster that the kubeconfig reaches"):
        control_plane(node, api=Api(ca="another")).check(needed_bytes=10)


def test_a_cluster_that_does_not_answer_can_be_restored(node):
    asked = []

    class Gone(Api):
        def get(self, *_, timeout_seconds):
            asked.append(timeout_seconds)
            raise ClusterUnreachableError("refused")

    control_plane(node, api=Gone()).check(needed_bytes=10)
    assert max(asked) <= 15, "one without etcd would keep the question for a minute, and the restore with it"


def test_everything_that_is_missing_is_told_at_once(node):
    (node.root / "etc/kubernetes/admin.conf").unlink()
    (node.root / "etc/kubernetes/pki/etcd/healthcheck-client.key").unlink()
    with pytest.raises(
        ClusterError, match=r"health check certificate is not .*; the administrator's kubeconfig is not"
    ):
        control_plane(node).check(needed_bytes=10)


def test_an_external_etcd_is_told_apart(node):
    (node.manifests / "etcd.yaml").unlink()
    with pytest.raises(
        ClusterError, match=r"its API server uses an external etcd \(https://127\.0\.0\.1:2379\)"
    ) as caught:
        control_plane(node).check(needed_bytes=10)
    assert "Velero" in caught.value.hint


def test_a_node_without_a_control_plane_is_told_apart(node):
    for pod in PODS:
        (node.manifests / f"{pod}.yaml").unlink()
    with pytest.raises(ClusterError, match="it is not a control-plane node"):
        control_plane(node).layout()


def test_a_new_directory_with_a_member_is_refused(node):
    (node.root / "mnt/new/member").mkdir(parents=True)
    with pytest.raises(ClusterError, match="/mnt/new holds an etcd member already"):
        control_plane(node, data_dir="/mnt/new").check(needed_bytes=10)


@pytest.mark.parametrize("path", ["relative", "/with space", "/with'quote", "/$(reboot)", "/a|b"])
def test_a_path_that_a_shell_would_read_differently_is_refused(node, path):
    with pytest.raises(ConfigError, match="no absolute path"):
        control_plane(node, data_dir=path)


def test_two_restores_of_one_node_exclude_each_other(node):
    with control_plane(node).exclusive(), pytest.raises(ClusterError, match="another process holds"):
        node.shell.lock("/run/clusterguard-restore.lock").__enter__()


# ---- afterwards --------------------------------------------------------------------------------------------


def test_leases_of_dead_api_servers_are_told(node):
    keys = ["L3JlZ2lzdHJ5L21hc3RlcmxlYXNlcy8xMC4wLjAuNQ==", "L3JlZ2lzdHJ5L21hc3RlcmxlYXNlcy8xMC4wLjAuOQ=="]
    (node.root / "range").write_text(json.dumps({"kvs": [{"key": key} for key in keys]}))
    (warning,) = control_plane(node).warnings()
    assert "2 API servers hold a lease" in warning
    assert "/registry/masterleases/10.0.0.9" in warning


def test_one_api_server_is_nothing_to_tell(node):
    assert control_plane(node).warnings() == ()


def test_a_moved_data_directory_is_told_to_whoever_upgrades(node):
    plane = control_plane(node, data_dir="/mnt/new")
    restore(plane, node)
    assert "etcd.local.dataDir" in plane.warnings()[0]
