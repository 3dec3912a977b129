"""Drills get their programs before they run."""

import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterguard.drills import load_drill
from clusterguard.drills.programs import ProgramsInTurn, programs_for
from clusterguard.errors import ToolchainError
from clusterguard.model.progress import Progress

DRILLS = Path(__file__).parents[3] / "drills"


def needs(name, default="embedded"):
    return set(programs_for([load_drill(DRILLS / f"{name}.drill.yaml")], default_cluster=default))


def test_an_etcd_drill_needs_a_control_plane_and_no_velero():
    needed = needs("deleted-pods")
    assert {"etcd", "etcdutl", "kube-apiserver", "kwok"} <= needed
    assert not needed & {"velero", "velero-plugin-for-aws", "versitygw"}


def test_a_velero_drill_needs_the_server_its_plugin_and_an_s3_server():
    assert {"etcd", "velero", "velero-plugin-for-aws", "versitygw"} <= needs("velero-new-cluster")


@pytest.mark.parametrize("default", ["context:staging", "embedded:mine"])
def test_a_cluster_that_is_there_needs_nothing(default):
    assert needs("deleted-pods", default) == set()


class Slow:
    """A toolchain that compiles Velero until it is let go on, or for ever."""

    def __init__(self, *absent, error=None):
        self.absent = set(absent)
        self.error = error
        self.got = []
        self.go_on = threading.Event()
        self.compiling = threading.Event()

    def __call__(self, progress):
        self.progress = progress
        return self

    def missing(self, *names):
        return self.absent & set(names)

    def ensure(self, *names):
        if "velero" in names and "velero" in self.absent:
            self.compiling.set()
            while not self.go_on.wait(0.001):
                self.progress(Progress(task="building velero"))
            if self.error:
                raise self.error
        self.got.append(names)


@pytest.fixture
def two():
    return [load_drill(DRILLS / f"{name}.drill.yaml") for name in ("velero-new-cluster", "deleted-pods")]


@pytest.fixture
def in_turn(two):
    shown = []

    @contextmanager
    def show():
        yield shown.append

    def make(toolchain):
        made = ProgramsInTurn(two, default_cluster="embedded", toolchain=toolchain, show=show)
        made.shown = shown
        return made

    return make


def test_a_drill_does_not_wait_for_programs_that_it_does_not_use(in_turn, two):
    slow = Slow("etcd", "velero")
    with in_turn(slow) as programs:
        first, second = programs.in_turn(two)
        assert (first.id, second.id) == ("deleted-pods", "velero-new-cluster")
        programs.wait_for(first)
        assert slow.compiling.wait(30)
        assert not any("velero" in names for names in slow.got)
        slow.go_on.set()
        programs.wait_for(second)
        assert "velero" in slow.got[-1]


def test_whoever_waits_sees_what_is_compiled(in_turn, two):
    slow = Slow("velero")
    with in_turn(slow) as programs:
        assert slow.compiling.wait(30)
        waiter = threading.Thread(target=programs.wait_for, args=[two[0]])
        waiter.start()
        while not programs.shown:
            pass
        slow.go_on.set()
        waiter.join()


def test_drills_run_as_they_are_named_where_nothing_is_missing(in_turn, two):
    slow = Slow()
    with in_turn(slow) as programs:
        assert programs.in_turn(two) == two
        for drill in two:
            programs.wait_for(drill)
    assert slow.got == []


def test_what_cannot_be_had_is_told_to_those_that_need_it(in_turn, two):
    slow = Slow("etcd", "velero", error=ToolchainError("velero: no source", code="no-source"))
    slow.go_on.set()
    with in_turn(slow) as programs:
        programs.wait_for(two[1])
        with pytest.raises(ToolchainError) as caught:
            programs.wait_for(two[0])
    assert caught.value.code == "no-source"


def test_leaving_stops_what_is_still_compiled(in_turn):
    slow = Slow("velero")
    with in_turn(slow) as programs:
        assert slow.compiling.wait(30)
    assert not programs._worker.is_alive()
    assert slow.got == []
