"""The order of a restore and its ways back, on a control plane that only writes down what is asked of it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kubeadm_node
from clusterguard.clusters.base import EtcdAccess, EtcdLayout
from clusterguard.errors import (
    ClusterError,
    EtcdUnavailableError,
    ProgramError,
    ProvisioningError,
    RestoreError,
    UnsupportedVersionError,
)
from clusterguard.etcd import restore as module
from clusterguard.etcd.agreement import Agreement
from clusterguard.etcd.restore import DEFAULT_REVISION_BUMP, REVISION_MARGIN, bump_for, restore_control_plane
from clusterguard.retrying import RetryPolicy

STEPS = ["recover", "check", "prepare", "stop", "swap_in", "start_etcd", "start_api"]
STEPS += ["commit", "start_controllers", "clean_up"]
BEFORE_STOP = STEPS[: STEPS.index("stop")]
AFTER_STOP = STEPS[STEPS.index("stop") : STEPS.index("commit")]
PROVEN = STEPS[STEPS.index("commit") :]

SNAPSHOT = replace(kubeadm_node.SNAPSHOT, size=5000, etcd_version="3.7.3", storage_version="3.7.0")


class ControlPlane:
    previous = "/data/etcd.kept"

    def layout(self):
        return EtcdLayout(name="m", peer_url="https://127.0.0.1:2380", token="t", data_dir="/data/etcd")

    def __init__(self, *, fail=None, error=None, roll_back_error=None, times=1000):
        self.calls = []
        self.times = times
        self.fail, self.error, self.roll_back_error = fail, error or ClusterError(f"{fail} failed"), roll_back_error
        self.locked = False
        self.bump = None
        self.needed = None
        self.told = ()

    def _do(self, name):
        assert self.locked, f"{name} outside of the lock"
        self.calls.append(name)
        if name == self.fail and self.times:
            self.times -= 1
            raise self.error

    @contextmanager
    def exclusive(self):
        self.locked = True
        yield
        self.locked = False

    def recover(self):
        self._do("recover")

    def check(self, *, needed_bytes, etcd_version="", storage_version=None):
        self.needed = needed_bytes
        self._do("check")

    def prepare(self, snapshot, *, bump_revision):
        self.bump = bump_revision
        self._do("prepare")
        return "etcdutl snapshot restore …"

    def stop(self):
        self._do("stop")

    def swap_in(self):
        self._do("swap_in")

    def start_etcd(self):
        self._do("start_etcd")

    def start_api(self):
        self._do("start_api")

    def start_controllers(self):
        self._do("start_controllers")

    def roll_back(self):
        self.calls.append("roll_back")
        if self.roll_back_error:
            raise self.roll_back_error

    def commit(self):
        self._do("commit")

    def clean_up(self):
        self._do("clean_up")

    def discard(self):
        self.calls.append("discard")

    def warnings(self):
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


class Gateway:
    """Answers with the revisions of a list, one after the other; None is a member that does not answer."""

    revisions: ClassVar[list] = []
    alarm_answer: object = ()

    def __init__(self, access, endpoint):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def status(self):
        revision = self.revisions.pop(0)
        if revision is None:
            raise EtcdUnavailableError("nobody there")
        return type("Status", (), {"revision": revision})

    def alarms(self):
        if isinstance(self.alarm_answer, Exception):
            raise self.alarm_answer
        return self.alarm_answer


@pytest.fixture(autouse=True)
def gateway(monkeypatch):
    monkeypatch.setattr(module, "EtcdMember", Gateway)
    monkeypatch.setattr(Gateway, "revisions", [150, 2_000_000])
    monkeypatch.setattr(Gateway, "alarm_answer", ())
    return Gateway


def restored(control_plane, **options):
    access = EtcdAccess(endpoints=("https://127.0.0.1:2379",))
    at_once = RetryPolicy(attempts=3, sleep=lambda _: None)
    return restore_control_plane(control_plane, access, snapshot=SNAPSHOT, file=Path("s.db"), retry=at_once, **options)


def test_everything_is_checked_and_built_before_anything_stops():
    control_plane = ControlPlane()
    result = restored(control_plane)
    assert control_plane.calls == STEPS
    assert control_plane.needed == SNAPSHOT.size
    assert (result.revision_before, result.revision_after) == (150, 2_000_000)
    assert (result.previous, result.command) == ("/data/etcd.kept", "etcdutl snapshot restore …")
    assert result.warnings == ()


@pytest.mark.parametrize("step", [step for step in BEFORE_STOP if step != "recover"])
def test_a_failure_before_the_stop_touches_nothing(step):
    control_plane = ControlPlane(fail=step, error=ProgramError("etcdutl: exit code 1", hint="look at it"))
    with pytest.raises(RestoreError, match="Nothing was touched") as raised:
        restored(control_plane)
    assert raised.value.rolled_back
    assert raised.value.hint == "look at it"
    built = ["discard"] if step == "prepare" else []
    assert control_plane.calls == [*STEPS[: STEPS.index(step) + 1], *built]


@pytest.mark.parametrize("step", ["check", "prepare"])
@pytest.mark.parametrize(
    "error",
    [
        RestoreError("another run has changed cp-1", rolled_back=False, code="restore-taken-over"),
        UnsupportedVersionError("cp-1 runs etcd 3.3.1"),
    ],
    ids=lambda error: error.code,
)
def test_what_says_by_itself_what_it_means_is_not_told_as_anything_else(step, error):
    with pytest.raises(type(error)) as raised:
        restored(ControlPlane(fail=step, error=error))
    assert raised.value is error


def test_ctrl_c_while_preparing_discards_what_was_built_and_stays_ctrl_c():
    control_plane = ControlPlane(fail="prepare", error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        restored(control_plane)
    assert control_plane.calls[-1] == "discard"


def test_ctrl_c_right_before_the_stop_discards_what_was_built():
    def interrupt(step):
        if step.name == "build the new data directory":
            raise KeyboardInterrupt

    control_plane = ControlPlane()
    with pytest.raises(KeyboardInterrupt):
        restored(control_plane, watch=interrupt)
    assert control_plane.calls[-2:] == ["prepare", "discard"]


@pytest.mark.parametrize("error", [ClusterError("it broke"), OSError(28, "No space left")], ids=["ours", "system"])
@pytest.mark.parametrize("step", AFTER_STOP)
def test_a_failure_after_the_stop_brings_the_old_state_back(step, error):
    control_plane = ControlPlane(fail=step, error=error)
    with pytest.raises(RestoreError) as raised:
        restored(control_plane)
    assert raised.value.code == "restore"
    assert raised.value.rolled_back
    assert raised.value.__cause__ is error
    assert control_plane.calls == [*STEPS[: STEPS.index(step) + 1], "roll_back"]


@pytest.mark.parametrize("error", [ProvisioningError("etcd ended"), OSError(5, "Input/output error")])
def test_a_failed_rollback_names_what_led_to_it(error):
    control_plane = ControlPlane(fail="start_api", roll_back_error=error)
    with pytest.raises(RestoreError) as raised:
        restored(control_plane)
    assert raised.value.code == "rollback-failed"
    assert raised.value.__cause__.args == ("start_api failed",)
    assert not raised.value.rolled_back
    assert str(error) in raised.value.message


# ---- proven: from the commit on nothing is undone


@pytest.mark.parametrize("step", PROVEN)
def test_what_fails_once_after_the_proof_is_tried_again(step):
    control_plane = ControlPlane(fail=step, times=2)
    assert restored(control_plane).warnings == ()
    assert control_plane.calls.count(step) == 3
    assert "roll_back" not in control_plane.calls


@pytest.mark.parametrize(("step", "calls"), [("commit", 0), ("clean_up", 3)])
def test_what_cannot_be_cleaned_up_is_a_warning_with_what_to_run(step, calls):
    control_plane = ControlPlane(fail=step, error=ProgramError("rm: the line broke"))
    warnings = restored(control_plane).warnings
    assert control_plane.calls.count("clean_up") == (calls or 1)
    assert "roll_back" not in control_plane.calls
    assert len(warnings) == (1 if step == "clean_up" else 0), "no journal is left that a next run could act on"
    assert all("clusterguard etcd recover" in warning for warning in warnings)


def test_a_commit_that_is_written_nowhere_is_no_success_and_told_with_the_lines_that_write_it():
    class Unwritable(ControlPlane):
        def clean_up(self):
            self._do("clean_up")
            raise ClusterError("read-only file system")

    control_plane = Unwritable(fail="commit", error=ClusterError("read-only file system", hint="mv a b"))
    with pytest.raises(RestoreError) as raised:
        restored(control_plane)
    assert (raised.value.code, raised.value.restored) == ("restore-uncommitted", True)
    assert raised.value.hint.endswith("mv a b")
    assert "roll_back" not in control_plane.calls


def test_controllers_that_do_not_start_are_no_success_and_undo_nothing():
    control_plane = ControlPlane(fail="start_controllers")
    with pytest.raises(RestoreError) as raised:
        restored(control_plane)
    assert (raised.value.restored, raised.value.rolled_back) == (True, False)
    assert raised.value.code == "restore-unfinished"
    assert "etcd recover" in raised.value.hint
    assert "roll_back" not in control_plane.calls
    assert "clean_up" not in control_plane.calls, "the next recover must find what is left to do"


@pytest.mark.parametrize("step", PROVEN)
def test_ctrl_c_after_the_proof_undoes_nothing(step):
    control_plane = ControlPlane(fail=step, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        restored(control_plane)
    assert control_plane.calls[-1] == step


def test_a_run_that_has_stepped_aside_does_not_try_again_and_says_why():
    aside = RestoreError("another run has changed cp-1", rolled_back=False, code="restore-taken-over", hint="look")
    control_plane = ControlPlane(fail="start_etcd", roll_back_error=aside)
    with pytest.raises(RestoreError) as raised:
        restored(control_plane)
    assert raised.value.code == "restore-taken-over"
    assert (raised.value.rolled_back, raised.value.restored, raised.value.hint) == (False, False, "look")


@pytest.mark.parametrize("step", PROVEN)
def test_a_run_that_has_to_step_aside_after_the_proof_promises_nothing(step):
    aside = RestoreError("another run has changed cp-1", rolled_back=False, hint="look")
    control_plane = ControlPlane(fail=step, error=aside)
    with pytest.raises(RestoreError) as raised:
        restored(control_plane)
    assert raised.value is aside
    assert control_plane.calls[-1] == step
    assert control_plane.calls.count(step) == 1


def test_ctrl_c_brings_the_old_state_back_and_stays_ctrl_c():
    control_plane = ControlPlane(fail="start_etcd", error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        restored(control_plane)
    assert control_plane.calls[-1] == "roll_back"


def test_a_revision_that_went_back_is_a_failure(gateway):
    gateway.revisions = [150, 150]
    control_plane = ControlPlane()
    with pytest.raises(RestoreError) as caught:
        restored(control_plane)
    assert (caught.value.rolled_back, caught.value.__cause__.code) == (True, "revision-too-low")
    assert caught.value.__cause__.fields["revision"] == 150
    assert control_plane.calls[-1] == "roll_back"


def test_a_lost_etcd_is_no_obstacle(gateway):
    gateway.revisions = [None, 2_000_000_000]
    control_plane = ControlPlane(fail="recover", error=ProvisioningError("etcd ended right after its start"))
    result = restored(control_plane)
    assert result.revision_before is None
    assert control_plane.bump == DEFAULT_REVISION_BUMP


def test_alarms_of_the_snapshot_are_warnings(gateway):
    gateway.alarm_answer = ("NOSPACE on 8e9e",)
    (warning,) = restored(ControlPlane()).warnings
    assert "NOSPACE on 8e9e came back with the snapshot" in warning


def test_alarms_are_disarmed_before_the_api_server_starts(gateway, monkeypatch):
    control_plane = ControlPlane()
    monkeypatch.setattr(gateway, "disarm", lambda _: control_plane.calls.append("disarm"), raising=False)
    assert restored(control_plane, disarm_alarms=True).warnings == ()
    assert control_plane.calls.index("disarm") == control_plane.calls.index("start_api") - 1


def test_an_alarm_that_is_raised_again_is_not_a_success(gateway, monkeypatch):
    gateway.alarm_answer = ("NOSPACE on 8e9e",)
    monkeypatch.setattr(gateway, "disarm", lambda _: None, raising=False)
    control_plane = ControlPlane()
    with pytest.raises(RestoreError) as raised:
        restored(control_plane, disarm_alarms=True)
    assert raised.value.rolled_back
    assert control_plane.calls[-1] == "roll_back"


def test_alarms_that_cannot_be_asked_do_not_undo_a_restore(gateway):
    gateway.alarm_answer = EtcdUnavailableError("busy")
    control_plane = ControlPlane()
    (warning,) = restored(control_plane).warnings
    assert "busy" in warning
    assert control_plane.calls[-1] == "clean_up"


def test_an_aftermath_that_cannot_be_looked_for_does_not_undo_a_restore():
    control_plane = ControlPlane()
    control_plane.told = ClusterError("the API went away")
    (warning,) = restored(control_plane).warnings
    assert "the API went away" in warning


def test_each_step_is_told_with_its_time():
    clock = iter(range(100))
    told = []
    result = restored(ControlPlane(), watch=told.append, clock=lambda: float(next(clock)))
    assert tuple(told) == result.steps
    assert {step.seconds for step in told} == {1.0}
    assert [step.name for step in told][:3] == [
        "check the control plane",
        "build the new data directory",
        "stop the control plane",
    ]


@given(snapshot=st.integers(0, 2**40), live=st.integers(0, 2**40), late_writes=st.integers(0, REVISION_MARGIN - 1))
def test_no_watcher_ever_sees_the_revision_go_back(snapshot, live, late_writes):
    bump = bump_for(snapshot_revision=snapshot, live_revision=live)
    assert snapshot + bump > live + late_writes


def test_what_the_control_plane_has_to_tell_is_told_with_the_result():
    control_plane = ControlPlane()
    control_plane.told = ("shop/web-2 on n1 runs, but the restored state does not know it",)
    assert restored(control_plane).warnings == control_plane.told


# ---- several members ---------------------------------------------------------------------------------------


def restored_on_two(monkeypatch, *looks):
    """Restore two members that are at these revisions in each look, the last of them for ever."""
    seen = list(looks)
    monkeypatch.setattr(module, "look_at_members", lambda _: Agreement(revisions=seen.pop(0) if seen[1:] else seen[0]))
    access = EtcdAccess(endpoints=("https://127.0.0.1:2379", "https://127.0.0.1:2389"))
    return restore_control_plane(ControlPlane(), access, snapshot=SNAPSHOT, file=Path("s.db"))


def test_a_lease_that_runs_out_between_two_questions_is_no_difference(gateway, monkeypatch):
    gateway.revisions = [150, 150, 2_000_003, 2_000_003]
    looks = (2_000_000, 2_000_001), (2_000_001, 2_000_002), (2_000_003, 2_000_003)
    assert restored_on_two(monkeypatch, *looks).revision_after == 2_000_003


def test_members_that_stay_at_different_revisions_are_of_different_snapshots(gateway, monkeypatch):
    gateway.revisions = [150] * 10
    with pytest.raises(RestoreError) as caught:
        restored_on_two(monkeypatch, (2_000_000, 2_000_004))
    assert caught.value.__cause__.code == "members-differ"
