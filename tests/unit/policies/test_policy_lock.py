"""One run at a time, whatever became of the one before."""

from __future__ import annotations

import subprocess
import sys
import time

import orjson
import psutil
import pytest
from policy_worlds import data_of, places_of, policy, put

from clusterguard.errors import RunInProgressError, StoreUnavailableError
from clusterguard.policies.runs.lock import Holder, Rhythm, RunLock, locked
from clusterguard.stores.local import LocalStore
from clusterguard.stores.memory import MemoryStore

QUICK = Rhythm(beat_seconds=0.02, patience_seconds=0.3)
KEY = ".clusterguard/lock"


@pytest.fixture
def places():
    return places_of(policy("here", "there"))


def held_by(place, **changes):
    holder = {"run": "other", "host": "elsewhere", "pid": 7, "born": 1.0, "beat": 3} | changes
    put(place.root, KEY, orjson.dumps(holder), overwrite=True)


def holder_of(place):
    return orjson.loads(data_of(place.root, KEY))


def test_it_is_in_every_location_while_it_is_held_and_in_none_afterwards(places):
    with locked(places, run="mine", rhythm=QUICK):
        assert [holder_of(place)["run"] for place in places] == ["mine", "mine"]
    assert [list(place.root.list()) for place in places] == [[], []]


def test_a_run_that_is_alive_is_not_disturbed(places):
    with (
        locked(places, run="first", rhythm=QUICK),
        pytest.raises(RunInProgressError, match="another run of this policy is at work: run first"),
        locked(places, run="second", rhythm=QUICK),
    ):
        pass
    assert [list(place.root.list()) for place in places] == [[], []]


def test_a_second_run_waits_when_it_is_asked_to(places):
    import threading

    entered = []

    def second():
        with locked(places, run="second", wait_seconds=10, rhythm=QUICK):
            entered.append(time.monotonic())

    with locked(places, run="first", rhythm=QUICK):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        left = time.monotonic()
    thread.join(10)
    assert entered
    assert entered[0] >= left - 0.1


def test_a_lock_that_stands_still_is_taken_over(places):
    held_by(places[0])
    began = time.monotonic()
    with locked(places, run="mine", rhythm=QUICK):
        assert holder_of(places[0])["run"] == "mine"
    assert time.monotonic() - began >= QUICK.patience_seconds


def test_a_lock_of_a_process_that_died_here_is_taken_over_at_once(places):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me = Holder.this_process("x")
    held_by(places[0], host=me.host, space=me.space, pid=child.pid, born=psutil.Process(child.pid).create_time())
    child.kill()
    child.communicate()
    slow = Rhythm(beat_seconds=10, patience_seconds=3600)
    with locked(places, run="mine", rhythm=slow):
        assert holder_of(places[0])["run"] == "mine"


def test_a_process_number_that_was_given_out_again_is_another_process(places):
    me = Holder.this_process("x")
    held_by(places[0], host=me.host, space=me.space, pid=me.pid, born=me.born - 100)
    with locked(places, run="mine", rhythm=Rhythm(beat_seconds=10, patience_seconds=3600)):
        assert holder_of(places[0])["run"] == "mine"


@pytest.mark.parametrize("space", ["", "another boot pid:[1]"])
def test_a_process_of_another_container_or_boot_is_not_taken_for_dead(places, space):
    me = Holder.this_process("x")
    held_by(places[0], host=me.host, space=space, pid=2**22 + 1, born=1.0)
    began = time.monotonic()
    with locked(places, run="mine", rhythm=QUICK):
        assert time.monotonic() - began >= QUICK.patience_seconds


def test_a_lock_that_another_run_took_over_first_is_let_be(places):
    stale = Holder(run="dead", host="elsewhere", pid=7, born=1.0)
    held_by(places[0], run="quicker")
    RunLock(places, run="mine", rhythm=QUICK)._clear(places[0].root, stale)
    assert holder_of(places[0])["run"] == "quicker"


def test_half_a_lock_is_nobodys(places):
    put(places[0].root, KEY, b"{")
    with locked(places, run="mine", rhythm=QUICK):
        assert holder_of(places[0])["run"] == "mine"


def test_a_run_whose_lock_was_taken_over_must_not_go_on(places):
    with locked(places, run="mine", rhythm=QUICK) as lock:
        lock.require()
        held_by(places[1])
        until = time.monotonic() + 5
        with pytest.raises(RunInProgressError, match="stood still so long"):
            while time.monotonic() < until:
                lock.require()
    assert holder_of(places[1])["run"] == "other", "what is not ours is not given back"


def test_two_at_once_on_real_files_never_hold_it_together(tmp_path):
    import threading

    wanted = policy("here")
    inside, most = [], []

    def run(number):
        place = places_of(wanted, {"here": LocalStore(tmp_path)})
        with locked(place, run=f"run-{number}", wait_seconds=30, rhythm=Rhythm(beat_seconds=0.02, patience_seconds=5)):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.05)
            inside.remove(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 5


class Refusing(MemoryStore):
    def put(self, key, *, overwrite=False):
        raise StoreUnavailableError("down")


def test_a_location_that_takes_no_lock_is_left_out(places):
    broken = places_of(policy("here", "there"), {"here": places[0].root, "there": Refusing()})
    with locked(broken, run="mine", rhythm=QUICK) as lock:
        assert list(lock.failures) == ["there"]
        assert holder_of(places[0])["run"] == "mine"
    assert list(places[0].root.list()) == []


def test_where_no_location_takes_a_lock_nothing_is_run():
    broken = places_of(policy("here"), {"here": Refusing()})
    with pytest.raises(StoreUnavailableError), locked(broken, run="mine", rhythm=QUICK):
        pass
