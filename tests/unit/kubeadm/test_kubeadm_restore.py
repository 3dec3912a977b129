"""Every step on a node of files: killed before each command and in the middle of each, everything comes back."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.kubeadm import KubeadmControlPlane
from clusterguard.clusters.kubeadm.manifests import ApiServerManifest, EtcdManifest
from clusterguard.clusters.kubeadm.roles import Roles
from clusterguard.clusters.kubeadm.survey import Seen, complaints
from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    ClusterUnreachableError,
    ConfigError,
    ProgramError,
    RestoreError,
    UnsupportedVersionError,
    WaitTimeoutError,
)
from clusterguard.etcd import restore as engine
from clusterguard.etcd.restore import restore_control_plane
from clusterguard.model.support import SUPPORTED
from clusterguard.retrying import RetryPolicy
from kubeadm_node import API, ETCD, PATIENT, PODS, SNAPSHOT, Api, Killed, Node

OLD, NEW = (sorted(PODS), "old"), (sorted(PODS), "restored")
STEPS = ("stop", "swap_in", "start_etcd", "start_api", "commit", "start_controllers", "clean_up")
PLACES = pytest.mark.parametrize("data_dir", [None, "/mnt/new"], ids=["in place", "to a new directory"])


class Member:
    """An etcd that answers for every node, each time with a revision beyond all before."""

    revisions = itertools.count(200, 10**10)

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def status(self):
        return SimpleNamespace(revision=next(self.revisions))

    def alarms(self):
        return ()


@pytest.fixture(autouse=True)
def etcd(monkeypatch):
    monkeypatch.setattr(engine, "EtcdMember", Member)


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def control_plane(node, *, data_dir=None, api=None, timeouts=PATIENT, **options):
    return KubeadmControlPlane(
        [node.shell], api=lambda: api or Api(), data_dir=data_dir, timeouts=timeouts, run="run1", **options
    )


def restore(plane, node, *, until="clean_up"):
    with plane.exclusive():
        plane.recover()
        plane.check(needed_bytes=10, etcd_version="3.6.1")
        plane.prepare(node.snapshot, bump_revision=1000)
        for step in STEPS[: STEPS.index(until) + 1]:
            getattr(plane, step)()


def restore_as_everybody_does(plane, node):
    """Restore with everything that is done about failures; never waits between two attempts."""
    access = EtcdAccess(endpoints=("https://127.0.0.1:2379",))
    at_once = RetryPolicy(attempts=3, sleep=lambda _: None)
    return restore_control_plane(plane, access, snapshot=SNAPSHOT, file=node.snapshot, retry=at_once)


def resume(plane):
    """Let a control plane go on with the restore that the journals tell of."""
    plane._restore = {node: node.commands_of(node.journal()) for node in plane._nodes}


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
    roles = Roles(etcd=EtcdManifest.parse(ETCD, where="etcd"), api=ApiServerManifest.parse(API, where="api"))
    found = complaints(Seen.parse(answers), roles, target="/var/lib/etcd", needed_bytes=1)
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
    plane = control_plane(node, data_dir=data_dir, on_command=watched.append)
    with plane.exclusive():
        plane.recover()
        plane.check(needed_bytes=10)
        plane.prepare(node.snapshot, bump_revision=1000)
        node.shell.lines.clear()  # from here on
        for step in STEPS:
            getattr(plane, step)()
    assert [plane._nodes[0].line(command) for command in watched] == lines
    assert node.shell.lines == lines[-len(node.shell.lines) :]
    assert len(node.shell.lines) == sum(len(step.lines) for step in planned[1:])


def test_a_plan_touches_nothing(node):
    before = sorted(str(path) for path in node.root.rglob("*"))
    control_plane(node).runbook(node.snapshot, bump_revision=1000)
    assert sorted(str(path) for path in node.root.rglob("*")) == before


@PLACES
def test_the_printed_rollback_is_the_one_that_runs(node, data_dir):
    plane = control_plane(node, data_dir=data_dir)
    restore(plane, node, until="start_api")
    rollback = [each.line for each in plane.rollback_lines()]
    node.shell.lines.clear()
    plane.roll_back()
    assert node.shell.lines == rollback
    assert node.live() == OLD


# ---- killed ------------------------------------------------------------------------------------------------


def commands_of_a_restore(tmp_path, data_dir):
    """How many commands there are until a restore has cleaned up, and until it is committed."""
    node = Node(tmp_path)
    restore_as_everybody_does(control_plane(node, data_dir=data_dir), node)
    lines = node.shell.lines
    commit = next(
        number for number, line in enumerate(lines, 1) if "mv -fT /etc/kubernetes/clusterguard/proven" in line
    )
    done = max(number for number, line in enumerate(lines, 1) if "rm -f /etc/kubernetes/clusterguard/proven" in line)
    return done, commit


def kill_before(node, number, data_dir):
    """Restore, killed before a command; return what a person finds after the recovery."""
    node.shell.die_before = number
    with suppress(Killed):
        restore_as_everybody_does(control_plane(node, data_dir=data_dir), node)
    last = node.shell.lines[-1]
    recovered(node, data_dir)
    assert node.live() in (OLD, NEW), f"killed before command {number}: {last}"
    left = [path for path in node.leftovers() if re.search(r"run1|journal|proven|manifests|prepared", path)]
    assert left == [], f"killed before command {number}: {last}"
    return node.live()[1]


def test_killed_at_its_turning_points_the_cluster_works_again(tmp_path):
    total, commit = commands_of_a_restore(tmp_path / "whole", None)
    for number in (commit - 2, commit - 1, commit, commit + 1, total - 1, total):
        found = kill_before(Node(tmp_path / str(number)), number, None)
        assert found == ("restored" if number >= commit else "old")


@pytest.mark.slow
@PLACES
@pytest.mark.parametrize("part", range(4))
def test_killed_before_any_command_the_cluster_works_again_and_can_be_restored(tmp_path, data_dir, part):
    total, commit = commands_of_a_restore(tmp_path / "whole", data_dir)
    for number in range(part, total + 1, 4):
        node = Node(tmp_path / str(number))
        found = kill_before(node, number, data_dir)
        assert found == ("restored" if number >= commit else "old")
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
@pytest.mark.parametrize("until", ["commit", "start_controllers"])
def test_finishing_that_is_killed_too_is_finished_by_the_next(tmp_path, data_dir, until):
    whole = Node(tmp_path / "whole")
    restore(control_plane(whole, data_dir=data_dir), whole, until=until)
    whole.die_at_call(-1)
    control_plane(whole, data_dir=data_dir).recover()
    for number in range(1, whole.calls() + 1):
        node = Node(tmp_path / str(number))
        restore(control_plane(node, data_dir=data_dir), node, until=until)
        node.die_at_call(number)
        with pytest.raises(Killed):
            control_plane(node, data_dir=data_dir).recover()
        recovered(node, data_dir)
        assert node.live() == NEW, f"killed at call {number}"


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
    with pytest.raises(ClusterError) as caught:
        recovered(node)
    assert caught.value.code == "journal-unreadable"
    journal.write_text(json.dumps(record | {"phase": "unheard-of"}))
    with pytest.raises(ClusterError) as caught:
        recovered(node)
    assert caught.value.code == "journal-unreadable"
    journal.write_text(json.dumps(record | {"format": 5}))
    with pytest.raises(ClusterError) as caught:
        recovered(node)
    assert (caught.value.code, caught.value.fields) == ("journal-format", {"format": 5})


def test_a_restore_that_an_earlier_version_left_half_done_is_rolled_back(node):
    restore(control_plane(node), node, until="start_api")
    journal = node.root / "etc/kubernetes/clusterguard/journal.json"
    record = json.loads(journal.read_text())
    del record["phase"]
    journal.write_text(json.dumps(record | {"format": 1}))
    assert "rolled back" in recovered(node)
    assert node.live() == OLD


# ---- proven ------------------------------------------------------------------------------------------------


@PLACES
@pytest.mark.parametrize("until", ["commit", "start_controllers"])
def test_a_proven_restore_is_finished_and_never_undone(node, data_dir, until):
    restore(control_plane(node, data_dir=data_dir), node, until=until)
    assert "finished" in recovered(node)
    assert node.live() == NEW
    assert [path for path in node.leftovers() if re.search("journal|proven|manifests/", path)] == []
    kept = node.root / ("var/lib/etcd/member" if data_dir else "var/lib/etcd/.clusterguard/kept/member")
    assert (kept / "db").read_text() == "old"
    assert recovered(node) is None


def test_what_was_written_since_a_restore_whose_cleaning_up_failed_stays(node):
    total, _ = commands_of_a_restore(node.root / "whole", None)
    node.shell.broken_for = range(total - 1, 1000)  # its very last command, and all that follow
    result = restore_as_everybody_does(control_plane(node), node)
    (warning,) = result.warnings[:1]
    assert "clusterguard etcd recover" in warning
    (node.data / "member/db").write_text("written since")
    assert "finished" in recovered(node)
    assert node.live() == (sorted(PODS), "written since")


def test_the_next_restore_finishes_a_proven_one_first(node):
    restore(control_plane(node), node, until="commit")
    (node.data / "member/db").write_text("written since")
    restore(control_plane(node), node)
    assert node.live() == NEW
    assert (node.data / ".clusterguard/kept/member/db").read_text() == "written since"


def test_to_commit_needs_no_room(node):
    restore(control_plane(node), node, until="start_api")
    (node.root / "stand-ins/printf").write_text("#!/bin/sh\nexit 1\n")  # whoever writes anything would use it
    plane = control_plane(node)
    resume(plane)
    plane.commit()
    plane.commit()
    assert "finished" in recovered(node)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_a_line_that_breaks_once_never_leaves_anything_in_between(tmp_path, part):
    total, commit = commands_of_a_restore(tmp_path / "whole", None)
    for number in range(1 + part, total, 4):
        node = Node(tmp_path / str(number))
        node.shell.broken_for = (number,)
        if number < commit - 1:
            with pytest.raises(ClusterGuardError) as caught:
                restore_as_everybody_does(control_plane(node), node)
            assert getattr(caught.value, "rolled_back", True)
            assert node.live() == OLD
        else:
            assert restore_as_everybody_does(control_plane(node), node).warnings == ()
            assert node.live() == NEW
        assert recovered(node) is None, "nothing is left to undo or to finish"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_a_line_that_stays_broken_never_undoes_what_was_told_to_be_done(tmp_path, part):
    total, commit = commands_of_a_restore(tmp_path / "whole", None)
    for number in range(1 + part, total, 4):
        node = Node(tmp_path / str(number))
        node.shell.broken_for = range(number, 1000)
        done = stays = False
        try:
            done = bool(restore_as_everybody_does(control_plane(node), node))
        except RestoreError as error:
            stays = error.restored
            if number == commit - 1:  # it serves, but nothing says so on the node: only the person was told
                assert stays
                node.survive()
                for line in error.hint.partition("\n")[2].splitlines():
                    node.shell.run(shlex.split(line))
        except ClusterGuardError:
            pass
        recovered(node)
        assert node.live() == (NEW if done or stays else OLD), f"broken from command {number} on"


# ---- faults ------------------------------------------------------------------------------------------------


def test_an_etcd_that_does_not_come_back_is_told_with_its_log(node):
    plane = control_plane(node, timeouts=replace(PATIENT, etcd=1))
    restore(plane, node, until="swap_in")
    (node.root / "etcd-broken").touch()
    with pytest.raises(WaitTimeoutError) as caught:
        plane.start_etcd()
    assert (caught.value.what, caught.value.seconds) == ("node-1: etcd serves", 1)
    (node.root / "etcd-broken").unlink()
    plane.roll_back()
    assert node.live() == OLD


def test_an_etcd_that_has_no_readyz_is_ready_when_it_says_so_in_the_words_of_its_version(node):
    (node.root / "readyz").write_text("404")
    restore(control_plane(node), node)
    assert node.live() == NEW


@pytest.mark.parametrize("code", ["200", "404"])
def test_an_etcd_that_is_not_ready_is_waited_for_in_every_version(node, code):
    (node.root / "readyz").write_text(code)
    (node.root / "etcd-broken").touch()
    with pytest.raises(WaitTimeoutError):
        restore(control_plane(node, timeouts=replace(PATIENT, etcd=1)), node)


def test_a_container_that_stays_is_seen(node):
    (node.root / "stuck").write_text("id-stuck\n")
    with pytest.raises(WaitTimeoutError) as caught:
        restore(control_plane(node, timeouts=replace(PATIENT, gone=1)), node)
    assert caught.value.what.startswith("node-1: see their containers gone: ")
    (node.root / "stuck").unlink()
    assert "rolled back" in recovered(node)
    assert node.live() == OLD


def test_a_container_that_nobody_ends_is_killed_however_slow_the_looks_are(node):
    """A kubelet that was started while no API server answered ends nothing."""
    stuck = node.root / "stuck"
    stuck.write_text("id-stuck\n")
    crictl = node.root / "stand-ins/crictl"
    crictl.write_text(crictl.read_text().replace(
        "#!/bin/sh\n", f"#!/bin/sh\nif test $1 = stop; then rm -f {stuck}; exit; fi; test -e {stuck} && sleep 2\n"
    ))  # fmt: skip
    restore(control_plane(node, timeouts=replace(PATIENT, stubborn=1, gone=15)), node)
    assert node.live() == NEW


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
    with pytest.raises(RestoreError, match="expected sha256") as caught:
        restore_as_everybody_does(control_plane(node), node)
    assert caught.value.rolled_back
    assert node.live() == OLD
    assert node.leftovers() == []


@pytest.mark.parametrize("moment", ["etcdutl", "chown"])
def test_ctrl_c_while_preparing_leaves_no_trace(node, moment):
    def interrupt(command):
        if moment in command.argv:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_as_everybody_does(control_plane(node, on_command=interrupt), node)
    assert node.live() == OLD
    assert node.leftovers() == []


@PLACES
def test_what_a_killed_preparation_left_is_swept_by_the_next_recovery(node, data_dir):
    def die(command):
        if "chown" in command.argv:
            raise Killed

    with suppress(Killed):
        restore(control_plane(node, data_dir=data_dir, on_command=die), node)
    assert any("prepared-run1" in path for path in node.leftovers())
    assert "had built was removed" in recovered(node)  # which does not know where that was
    assert node.leftovers() == []
    assert node.live() == OLD


def test_too_little_room_is_refused_before_anything_is_touched(node):
    before = sorted(str(path) for path in node.root.rglob("*"))
    with pytest.raises(ClusterError) as caught:
        control_plane(node).check(needed_bytes=10**12)
    assert caught.value.fields["problems"] == ["no-room"]
    assert caught.value.fields["needed"] == 2_000_134_217_728
    assert sorted(str(path) for path in node.root.rglob("*")) == before


def test_a_snapshot_with_newer_storage_is_refused_and_an_older_one_is_not(node):
    control_plane(node).check(needed_bytes=10, etcd_version="3.5.9")
    with pytest.raises(UnsupportedVersionError) as raised:
        control_plane(node).check(needed_bytes=10, etcd_version="3.7.3", storage_version="3.7.0")
    assert (raised.value.fields["version"], raised.value.fields["storage"]) == ("3.6.8", "3.7")


def set_versions(node, *, etcd="3.6.8", kubernetes="1.36.3", answers=True):
    """Let the node run certain versions, by its manifests and, if it answers, by etcd's own word."""
    for pod, image in (("etcd", f"etcd:{etcd}-0"), ("kube-apiserver", f"kube-apiserver:v{kubernetes}")):
        path = node.manifests / f"{pod}.yaml"
        path.write_text(re.sub(r"image: .*", f"image: registry.k8s.io/{image}", path.read_text()))
    (node.root / "version").write_text(f'{{"etcdserver":"{etcd}"}}' if answers else "")


@pytest.mark.parametrize("answers", [True, False], ids=["etcd answers", "by its image"])
@pytest.mark.parametrize("etcd", ["3.3.27", "3.8.0", "4.0.0"])
def test_an_unsupported_etcd_is_refused_before_anything_is_touched(node, etcd, answers):
    set_versions(node, etcd=etcd, answers=answers)
    before = sorted(str(path) for path in node.root.rglob("*"))
    with pytest.raises(UnsupportedVersionError) as caught:
        restore_as_everybody_does(control_plane(node), node)
    assert caught.value.fields == {"program": "etcd", "version": etcd, "supported": str(SUPPORTED["etcd"])}
    lock = str(node.root / "run/clusterguard-restore.lock")
    assert [path for path in sorted(str(path) for path in node.root.rglob("*")) if path != lock] == before


@pytest.mark.parametrize("kubernetes", ["1.29.14", "1.38.0"])
def test_an_unsupported_kubernetes_is_refused_by_its_manifest(node, kubernetes):
    set_versions(node, kubernetes=kubernetes)
    with pytest.raises(UnsupportedVersionError) as caught:
        control_plane(node).check(needed_bytes=10)
    assert caught.value.fields["version"] == kubernetes


@pytest.mark.parametrize("tag", ["v1.36.3", "v1.30.0-gke.100", "latest", ""])
def test_an_image_that_tells_no_version_is_not_held_against_a_node(node, tag):
    path = node.manifests / "kube-apiserver.yaml"
    path.write_text(
        re.sub(r"image: .*", f"image: registry.corp:5000/kube-apiserver:{tag}".rstrip(":"), path.read_text())
    )
    control_plane(node).check(needed_bytes=10)


@pytest.mark.parametrize(
    ("etcdutl", "etcd", "own"),
    [
        ("3.6.8", "3.6.8", False),
        ("3.6.1", "3.6.8", False),
        ("3.5.10", "3.5.10", False),
        ("3.5.9", "3.5.9", True),  # it cannot raise revisions
        ("3.5.9", "3.5.21", True),
        ("3.5.21", "3.6.8", True),  # older than etcd
        ("3.7.0", "3.6.8", True),
        ("", "3.4.13", True),
    ],
)
def test_etcdutl_is_one_that_can_raise_revisions_and_fits_etcd(node, tmp_path, monkeypatch, etcdutl, etcd, own):
    set_versions(node, etcd=etcd)
    program = node.root / "stand-ins/etcdutl"
    program.write_text(program.read_text().replace("3.6.8", etcdutl) if etcdutl else "#!/bin/sh\nexit 127\n")
    ours = tmp_path / "ours"
    ours.write_text("#!/bin/sh\necho etcdutl version: 3.7.3\n")
    ours.chmod(0o755)
    plane = control_plane(node, etcdutl=lambda: ours)
    plane.check(needed_bytes=10)
    assert [each.member.own_etcdutl for each in plane._restore.values()] == [ours if own else None]


def test_an_etcdutl_of_ours_that_is_older_than_etcd_is_no_help(node, tmp_path):
    set_versions(node, etcd="3.7.0")
    ours = tmp_path / "ours"
    ours.write_text("#!/bin/sh\necho etcdutl version: 3.6.8\n")
    ours.chmod(0o755)
    with pytest.raises(ClusterError) as caught:
        control_plane(node, etcdutl=lambda: ours).check(needed_bytes=10)
    assert "3.7" in caught.value.hint


def test_a_node_of_another_cluster_is_refused(node):
    with pytest.raises(ClusterError) as caught:
        control_plane(node, api=Api(ca="another")).check(needed_bytes=10)
    assert caught.value.fields["problems"] == ["other-cluster"]


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
    with pytest.raises(ClusterError) as caught:
        control_plane(node).check(needed_bytes=10)
    assert caught.value.fields["problems"] == ["no-health-certificate", "no-admin-kubeconfig"]


def test_an_external_etcd_is_told_apart(node):
    (node.manifests / "etcd.yaml").unlink()
    with pytest.raises(ClusterError) as caught:
        control_plane(node).check(needed_bytes=10)
    assert (caught.value.code, caught.value.fields["pod"]) == ("no-static-pod", "etcd")
    assert "https://127.0.0.1:2379" in caught.value.message
    assert "Velero" in caught.value.hint


def test_a_node_without_a_control_plane_is_told_apart(node):
    for pod in PODS:
        (node.manifests / f"{pod}.yaml").unlink()
    with pytest.raises(ClusterError) as caught:
        control_plane(node).layout()
    assert (caught.value.code, caught.value.fields["pod"]) == ("no-static-pod", "etcd")
    assert "external" not in caught.value.message


def test_a_new_directory_with_a_member_is_refused(node):
    (node.root / "mnt/new/member").mkdir(parents=True)
    with pytest.raises(ClusterError) as caught:
        control_plane(node, data_dir="/mnt/new").check(needed_bytes=10)
    assert caught.value.fields["problems"] == ["target-taken"]


@pytest.mark.parametrize("path", ["relative", "/with space", "/with'quote", "/$(reboot)", "/a|b"])
def test_a_path_that_a_shell_would_read_differently_is_refused(node, path):
    with pytest.raises(ConfigError, match="not an absolute path"):
        control_plane(node, data_dir=path)


def test_two_restores_of_one_node_exclude_each_other(node):
    with control_plane(node).exclusive(), pytest.raises(ClusterError, match="another process holds"):
        node.shell.lock("/run/clusterguard-restore.lock").__enter__()


@pytest.mark.parametrize("until", ["stop", "start_api", "commit"])
def test_a_run_that_lost_its_lock_to_another_steps_aside(node, until):
    restore(control_plane(node), node, until=until)
    first = control_plane(node)
    with first.exclusive():
        first._nodes[0].ours = ("run1",)
        ask = node.shell.regained
        ask()  # nobody else was there
    recovered(node)
    first._nodes[0].ours = ("run1",)
    with pytest.raises(RestoreError) as caught:
        ask()
    assert (caught.value.code, caught.value.rolled_back) == ("restore-taken-over", False)


def test_a_run_that_has_written_nothing_yet_need_not_step_aside(node):
    plane = control_plane(node)
    with plane.exclusive():
        node.shell.regained()
        plane.check(needed_bytes=10)
        node.shell.regained()


def test_while_a_run_removes_its_journal_it_may_be_gone(node):
    restore(control_plane(node), node, until="start_controllers")
    plane = control_plane(node)
    with plane.exclusive():
        resume(plane)
        plane.clean_up()
        node.shell.regained()


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
