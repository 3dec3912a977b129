"""Stopping, swapping and going back, with a fault after every single thing that is done to disk or processes."""

from __future__ import annotations

import itertools
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from clusterguard.clusters.embedded import control_plane as module
from clusterguard.clusters.embedded.commands import CONTROLLERS, Layout, etcd_programs
from clusterguard.clusters.embedded.control_plane import EmbeddedControlPlane
from clusterguard.clusters.embedded.records import Ports
from clusterguard.errors import ClusterError, ProgramError, ResourceNotFoundError

REST = ("kube-apiserver", *CONTROLLERS)
ALL = ("etcd", *REST)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the process runs after it."""


class Faults:
    """Counts what is done, and kills after the chosen one; ``None`` lets everything happen."""

    def __init__(self):
        self.after = None
        self.done = 0

    def happened(self):
        self.done += 1
        if self.done == self.after:
            raise Killed

    def kill_after(self, number):
        self.after, self.done = number, 0


class Machine:
    """The programs that run, whoever started them, and what etcd was started on."""

    def __init__(self, layout, faults, members=1):
        self.layout = layout
        self.faults = faults
        self.etcds = etcd_programs(members)
        self.all = {*self.etcds, *REST}
        self.running_now = set(self.all)
        self.deleted_leases = []

    def folders(self, state=""):
        return [self.layout.folder / f"{name}{state}" for name in self.etcds]

    def any_is(self, state):
        return any(folder.exists() for folder in self.folders(f".{state}"))

    def state(self, kind=""):
        """Return what all members hold, and nothing else would do."""
        (held,) = {(folder / "member" / "db").read_text() for folder in self.folders(kind)}
        return held

    def assert_of_one_state(self):
        """Of the members that run, none may be of another state: they would be one cluster, or fail to be."""
        running = [self.layout.folder / name for name in self.etcds if name in self.running_now]
        assert len({(folder / "member" / "db").read_text() for folder in running if folder.exists()}) <= 1

    def kill_one(self, name):
        self.running_now.discard(name)


class FakePrograms:
    """What one process knows of the machine."""

    def __init__(self, machine):
        self.machine = machine
        self.layout = machine.layout
        further = tuple((number, number + 1) for number in range(4, 2 + 2 * len(machine.etcds), 2))
        ports = Ports(etcd_client=1, etcd_peer=2, api=3, further=further)
        self.record = SimpleNamespace(name="c", ports=ports, programs={"etcdutl": "/opt/etcdutl"})
        self.refreshed = 0

    def refresh(self):
        self.refreshed += 1

    def running(self, name):
        return name in self.machine.running_now

    def start(self, *names):
        for name in names:
            if name in self.machine.etcds:
                held = self.layout.folder / name / "member" / "db"
                assert held.is_file(), "etcd was started on half a data directory"
            if name not in self.machine.running_now:
                self.machine.running_now.add(name)
                self.machine.assert_of_one_state()
                self.machine.faults.happened()

    def stop(self, *names, grace_seconds):
        for name in names:
            if name in self.machine.running_now:
                self.machine.running_now.discard(name)
                self.machine.faults.happened()

    def wait(self, name, what, ready, *, seconds, needs=()):
        assert all(self.running(each) for each in (name, *needs))


class FakeApi:
    def __init__(self, machine):
        self.machine = machine

    def resource(self, kind):
        return kind

    def delete(self, resource, name, namespace):
        if name == "kube-scheduler":
            raise ResourceNotFoundError("no such lease")
        self.machine.deleted_leases.append(name)

    def delete_all(self, _, namespace):
        self.machine.deleted_leases.append(namespace)


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
def machine(tmp_path, faults):
    machine = Machine(Layout(folder=tmp_path), faults)
    write_data(machine.layout.data, "old")
    return machine


@pytest.fixture(params=[1, 3], ids=["one member", "three members"])
def members(request, tmp_path, faults):
    """A machine with so many members of etcd."""
    machine = Machine(Layout(folder=tmp_path), faults, request.param)
    reset(machine)
    return machine


@pytest.fixture(autouse=True)
def primitives(monkeypatch, faults):
    """Let every rename, deletion and run of etcdutl be a place to be killed at."""
    rename, rmtree = Path.rename, shutil.rmtree

    def killing_rename(self, target):
        rename(self, target)
        faults.happened()

    def killing_rmtree(path, ignore_errors=False):
        for file in sorted(Path(path).rglob("*")):
            if file.is_file():
                file.unlink()
                faults.happened()
        rmtree(path, ignore_errors=ignore_errors)
        faults.happened()

    def etcdutl(argv, *, timeout_seconds, dies_with_us):
        assert dies_with_us
        target = Path(next(word.removeprefix("--data-dir=") for word in argv if word.startswith("--data-dir=")))
        (target / "member").mkdir(parents=True)
        faults.happened()
        write_data(target, "new")
        faults.happened()

    monkeypatch.setattr(module, "run", etcdutl)
    monkeypatch.setattr(module.ssl, "create_default_context", lambda **_: Mock())
    monkeypatch.setattr(Path, "rename", killing_rename)
    monkeypatch.setattr(module.shutil, "rmtree", killing_rmtree)


def write_data(folder, text):
    (folder / "member").mkdir(parents=True, exist_ok=True)
    (folder / "member" / "db").write_text(text)
    (folder / "member" / "wal").write_text(text)


def process(machine):
    return EmbeddedControlPlane(programs=FakePrograms(machine), api=lambda: FakeApi(machine))


def restore(machine):
    control_plane = process(machine)
    control_plane.prepare(Path("s.db"), bump_revision=10)
    control_plane.stop()
    control_plane.swap_in()
    control_plane.start_etcd()
    control_plane.start_api()
    control_plane.commit()
    control_plane.start_controllers()
    control_plane.clean_up()
    return control_plane.previous


def roll_back(machine):
    control_plane = process(machine)
    control_plane.prepare(Path("s.db"), bump_revision=10)
    control_plane.stop()
    control_plane.swap_in()
    control_plane.start_etcd()
    control_plane.roll_back()


def killed_at_every_step(machine, faults, work):
    """Yield once for each thing that ``work`` does, right after being killed there."""
    for number in itertools.count(1):
        reset(machine)
        faults.kill_after(number)
        try:
            work(machine)
        except Killed:
            faults.kill_after(None)
            yield number
        else:
            assert number > 10, "so few steps that something is not counted"
            return


def reset(machine):
    machine.faults.kill_after(None)
    for folder in machine.layout.folder.glob("etcd*"):
        shutil.rmtree(folder)
    for live, kept in zip(machine.folders(), machine.folders(".kept"), strict=True):
        write_data(live, "old")
        write_data(kept, "older")  # of an earlier restore
    machine.running_now = set(machine.all)


def assert_serving(machine, *states):
    assert machine.running_now == machine.all
    assert machine.state() in states
    names = {path.name for path in machine.layout.folder.glob("etcd*")}
    expected = {path.name for path in (*machine.folders(), *machine.folders(".kept"))}
    assert names <= expected, "something of the interrupted restore is left over"


def test_a_whole_restore(machine):
    kept = restore(machine)
    assert_serving(machine, "new")
    assert (Path(kept) / "member" / "db").read_text() == "old"


@pytest.mark.parametrize("work", [restore, roll_back])
def test_a_kill_at_any_step_is_recovered_from(members, faults, work):
    for _ in killed_at_every_step(members, faults, work):
        process(members).recover()
        assert_serving(members, "old", "new")


@pytest.mark.parametrize("members", [1, pytest.param(3, marks=pytest.mark.slow)], indirect=True)
def test_a_kill_at_any_step_of_the_recovery_is_recovered_from(members, faults):
    for number in killed_at_every_step(members, faults, restore):
        for second in itertools.count(1):
            reset(members)
            faults.kill_after(number)
            with suppress(Killed):
                restore(members)
            faults.kill_after(second)
            with suppress(Killed):
                process(members).recover()
            done = faults.done < second
            faults.kill_after(None)
            process(members).recover()
            assert_serving(members, "old", "new")
            if done:
                break


def test_only_before_the_proof_is_the_old_state_brought_back(members, faults):
    seen_committed = False
    for _ in killed_at_every_step(members, faults, restore):
        whole = all(folder.exists() for folder in members.folders())
        swapped = members.any_is("before") and not members.any_is("proven")
        committed = whole and not swapped and members.state() == "new"
        seen_committed = seen_committed or committed
        process(members).recover()
        assert members.state() == ("new" if committed else "old")
        assert committed is seen_committed, "once proven, always proven"
    assert seen_committed


def test_what_was_cleaned_up_without_a_commit_is_not_undone(machine, monkeypatch):
    """The commit may fail, and the next step succeed: nobody may come later and go back."""
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedControlPlane, "clean_up", lambda _: None)
        patch.setattr(EmbeddedControlPlane, "commit", lambda _: None)
        restore(machine)
    process(machine).clean_up()
    process(machine).recover()
    assert_serving(machine, "new")


def test_what_was_written_since_a_proven_restore_stays(members, faults):
    seen = []
    for _ in killed_at_every_step(members, faults, restore):
        if members.any_is("proven"):
            for folder in members.folders():
                write_data(folder, "written since")
            seen.append(process(members).recover())
            assert_serving(members, "written since")
            assert members.state(".kept") == "old"
    assert len(seen) > 3
    assert all("finished" in told for told in seen)


@pytest.mark.parametrize("step", ["commit", "clean_up"])
def test_an_old_state_that_cannot_be_put_aside_is_told_with_what_to_do(machine, monkeypatch, step):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    machine.layout.data.with_name("etcd.before" if step == "commit" else "etcd.proven").mkdir()
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ClusterError, match="not permitted") as raised:
        getattr(process(machine), step)()
    assert "etcd.kept" in raised.value.hint or "etcd.proven" in raised.value.hint


@pytest.mark.parametrize("name", ALL)
def test_a_program_that_ended_is_started_again(machine, name):
    machine.kill_one(name)
    assert name in process(machine).recover()
    assert_serving(machine, "old")


def test_nothing_to_recover_is_told_and_touches_nothing(machine):
    assert process(machine).recover() is None
    assert machine.deleted_leases == []


def test_leases_whose_holders_we_stopped_are_not_waited_for(machine):
    restore(machine)
    # The snapshot held no lease of the scheduler; those of nodes are kwok's.
    assert machine.deleted_leases == ["kube-controller-manager", "kube-node-lease"]


def test_a_refused_snapshot_leaves_nothing_behind(machine, monkeypatch):
    def refuse(argv, **_):
        (machine.layout.data.with_name("etcd.prepared") / "member").mkdir(parents=True)
        raise ProgramError("etcdutl: exit code 1: snapshot missing hash")

    monkeypatch.setattr(module, "run", refuse)
    with pytest.raises(ProgramError, match="missing hash"):
        process(machine).prepare(Path("s.db"), bump_revision=10)
    process(machine).discard()
    assert_serving(machine, "old")


def test_the_command_raises_the_revision_and_marks_it_compacted(machine):
    command = process(machine).prepare(Path("s.db"), bump_revision=1_000_050).split()
    assert command[:4] == ["/opt/etcdutl", "snapshot", "restore", "s.db"]
    assert {"--bump-revision=1000050", "--mark-compacted", "--name=clusterguard"} <= set(command)
    assert "--initial-cluster=clusterguard=https://127.0.0.1:2" in command


def test_room_is_checked_with_numbers(machine, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(ClusterError) as raised:
        process(machine).check(needed_bytes=5_000)
    assert (raised.value.code, raised.value.fields["free"]) == ("no-room", 1_000)
    assert "make room" in raised.value.hint


def test_what_is_no_data_directory_is_refused(machine):
    shutil.rmtree(machine.layout.data / "member")
    with pytest.raises(ClusterError) as caught:
        process(machine).check(needed_bytes=0)
    assert (caught.value.code, caught.value.fields) == ("no-data-directory", {"path": str(machine.layout.data)})


def test_two_restores_at_once_are_refused(machine):
    first, second = process(machine), process(machine)
    with first.exclusive(), pytest.raises(ClusterError) as raised:
        second.exclusive().__enter__()
    assert raised.value.code == "restore-running"
    with second.exclusive():
        pass


def test_whoever_restores_looks_first_what_runs_now(machine):
    programs = FakePrograms(machine)
    with EmbeddedControlPlane(programs=programs, api=lambda: None).exclusive():
        assert programs.refreshed == 1


def test_all_members_are_built_of_one_file_for_one_cluster_that_never_was_before(tmp_path, faults):
    machine = Machine(Layout(folder=tmp_path), faults, members=3)
    reset(machine)
    lines = [process(machine).prepare(Path("s.db"), bump_revision=7).split("\n") for _ in range(2)]
    shared = [set.intersection(*(set(line.split()) for line in three)) for three in lines]
    assert [len(three) for three in lines] == [3, 3]
    peers = "clusterguard=https://127.0.0.1:2,clusterguard-2=https://127.0.0.1:5,clusterguard-3=https://127.0.0.1:7"
    assert all({"s.db", "--bump-revision=7", f"--initial-cluster={peers}"} <= each for each in shared)
    tokens = [{word for word in each if "token" in word} for each in shared]
    assert [len(each) for each in tokens] == [1, 1], "members of one restore have one token"
    assert tokens[0] != tokens[1], "an old member could join the cluster of another restore"


def test_a_member_that_was_lost_on_purpose_is_left_alone_and_keeps_nothing_from_serving(tmp_path, faults):
    machine = Machine(Layout(folder=tmp_path), faults, members=3)
    reset(machine)
    shutil.rmtree(machine.folders()[2])
    machine.folders()[2].mkdir()
    (machine.folders()[2] / "member").touch()
    machine.kill_one("etcd-3")
    assert process(machine).recover() is None


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_restore_begins_where_a_replacement_was_killed_before_there_was_data(tmp_path, faults, left):
    machine = Machine(Layout(folder=tmp_path), faults, members=3)
    reset(machine)
    live = machine.folders()[2]
    live.rename(live.with_name("etcd-3.broken"))
    if left == "an empty folder":
        live.mkdir()
    machine.kill_one("etcd-3")
    assert process(machine).recover() is None
    process(machine).check(needed_bytes=0)
    restore(machine)
    assert (machine.running_now, machine.state()) == (machine.all, "new")
    assert (live.with_name("etcd-3.kept") / "member").is_file()


def test_room_is_needed_for_every_member(tmp_path, faults, monkeypatch):
    machine = Machine(Layout(folder=tmp_path), faults, members=3)
    reset(machine)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * module.MARGIN_BYTES))
    with pytest.raises(ClusterError) as raised:
        process(machine).check(needed_bytes=5)
    assert raised.value.fields["needed"] == 3 * (module.MARGIN_BYTES + 5)


def test_without_a_majority_of_data_nothing_is_waited_for(tmp_path, faults):
    machine = Machine(Layout(folder=tmp_path), faults, members=3)
    reset(machine)
    for folder in machine.folders()[1:]:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "member").touch()
        machine.kill_one(folder.name)
    machine.kill_one("kube-scheduler")  # it has lost its Lease
    assert process(machine).recover() is None
    assert "etcd" in machine.running_now, "what little serves was stopped"
