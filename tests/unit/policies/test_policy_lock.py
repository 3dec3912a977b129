"""One run at a time, whatever became of the one before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace

import orjson
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_worlds import data_of, locations_of, policy, put

from clusterguard.errors import (
    ConfigError,
    ObjectExistsError,
    RunInProgressError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.policies.runs import lease as lease_module
from clusterguard.policies.runs.lease import LOCK_KEY, Lease, LeaseTiming
from clusterguard.policies.runs.lock import RunLock, locked
from clusterguard.process import ProcessRecord
from clusterguard.stores.local import LocalStore
from clusterguard.stores.memory import MemoryStore

TIMING = LeaseTiming()  # 10 s and 60 s, by clocks of the tests' own
OVER = TIMING.lease_duration + TIMING.renew_interval  # how long a lease must stand still before somebody takes it
QUICK = LeaseTiming(renew_interval=0.02, lease_duration=5)


class Time:
    """Time that passes when somebody sleeps; ``each`` is called after each sleep."""

    def __init__(self):
        self.now = 1000.0
        self.each = lambda: None

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.each()


class Blind(MemoryStore):
    """Shows nothing while it is ``blind``."""

    blind = False

    def stat(self, key):
        if self.blind:
            raise StoreUnavailableError("503")
        return super().stat(key)


class ByHand(RunLock):
    """A run whose leases are renewed when the test says so."""

    def __init__(self, locations, run, clock, *, timing=TIMING):
        super().__init__(locations, run=run, timing=timing, clock=clock, sleep=clock.sleep)
        self.kept = []

    def _keep(self, name, lease):
        self.kept.append(name)

    def renew(self):
        for lease in self._held.values():
            lease.renew()


@pytest.fixture
def clock():
    return Time()


@pytest.fixture
def locations():
    return locations_of(policy("here", "there"))


@pytest.fixture
def location():
    return locations_of(policy("here"))


def taken(locations, run, clock, *, wait_seconds=0):
    lock = ByHand(locations, run, clock)
    lock.take(wait_seconds=wait_seconds)
    return lock


def held_by(location, **changes):
    """Write the lease of a run that is not renewed."""
    lease = Lease(**({"holder": "other", "generation": 7, "host": "elsewhere", "pid": 7, **asdict(TIMING)} | changes))
    put(location.root, LOCK_KEY, lease.dump(), overwrite=True)
    return lease


def lease_in(location):
    return Lease.parse(data_of(location.root, LOCK_KEY))


def here(pid, **changes):
    """What a lease of a process on this machine says of it."""
    me = replace(Lease.of_this_process("x", TIMING), pid=pid, **changes)
    return {name: getattr(me, name) for name in ("host", "pid", "start_time", "boot_id", "pid_namespace")}


# ---- taking, holding, giving back ----------------------------------------------------------------------------


def test_it_is_in_every_location_while_it_is_held_and_free_afterwards(locations, clock):
    lock = taken(locations, "mine", clock)
    assert [(lease_in(each).holder, lease_in(each).generation) for each in locations] == [("mine", 1)] * 2
    lock.require()
    lock.release()
    assert [(lease_in(each).holder, lease_in(each).generation) for each in locations] == [("", 1)] * 2
    with pytest.raises(StoreError):
        lock.require()


def test_each_taker_raises_the_generation(location, clock):
    for generation in range(1, 4):
        lock = taken(location, f"run-{generation}", clock)
        assert lease_in(location[0]).generation == generation
        lock.release()


def test_no_two_writes_are_alike(location, clock):
    seen = set()
    for _ in range(3):
        lock = taken(location, "same", clock)
        for _ in range(3):
            seen.add(data_of(location[0].root, LOCK_KEY))
            lock.renew()
        lock.release()
        seen.add(data_of(location[0].root, LOCK_KEY))
    assert len(seen) == 12, "a version is its bytes' digest on many servers"


def test_a_lease_that_is_being_given_back_is_not_held_any_more(clock):
    """Somebody else may have it before the answer comes."""
    valid = []

    class Slow(MemoryStore):
        @contextmanager
        def put(self, key, *, overwrite=False, if_version=None):
            with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
                yield writer
            valid.append(lock._held["here"].valid if "here" in lock._held else None)

    lock = ByHand(locations_of(policy("here"), {"here": Slow()}), "mine", clock)
    lock.take(wait_seconds=0)
    lock.renew()
    lock.release()
    assert valid == [None, True, False]


def test_a_run_that_is_alive_is_not_disturbed(locations, clock):
    first = taken(locations, "first", clock)
    clock.each = first.renew
    with pytest.raises(RunInProgressError) as raised:
        taken(locations, "second", clock)
    assert raised.value.fields == {"holder": "first", "location": "here"}
    assert clock.now < 1000 + TIMING.lease_duration
    first.require("here")


def test_a_second_run_waits_when_it_is_asked_to(locations, clock):
    first = taken(locations, "first", clock)
    clock.each = lambda: first.release() if clock.now > 1300 else first.renew()
    second = taken(locations, "second", clock, wait_seconds=3600)
    assert 1300 < clock.now < 1310
    second.require()


def test_a_location_that_is_away_for_a_moment_is_waited_for(clock):
    store = Blind()
    location = locations_of(policy("here"), {"here": store})
    first = taken(location, "first", clock)

    def go_on():
        store.blind = 1100 < clock.now < 1120
        if not store.blind:
            first.release() if clock.now > 1300 else first.renew()

    clock.each = go_on
    second = taken(location, "second", clock, wait_seconds=3600)
    assert clock.now > 1300
    second.require("here")


def test_a_location_that_stays_away_is_not_waited_for_any_longer(clock):
    store = Blind()
    location = locations_of(policy("here"), {"here": store})
    taken(location, "first", clock)
    clock.each = lambda: setattr(store, "blind", True)
    with pytest.raises(StoreUnavailableError):
        taken(location, "second", clock, wait_seconds=60)
    assert clock.now < 1070


def test_what_is_held_already_is_kept_while_another_location_is_waited_for(locations, clock):
    other = taken(locations[1:], "other", clock)
    waiting = ByHand(locations, "mine", clock)
    clock.each = lambda: (other.renew(), seen.append(list(waiting.kept)))
    seen = []
    with pytest.raises(RunInProgressError):
        waiting.take(wait_seconds=120)
    assert seen[0] == ["here"]


# ---- leases that are over ------------------------------------------------------------------------------------


def test_a_lease_that_stands_still_is_taken_over_and_not_a_moment_too_early(location, clock):
    first = taken(location, "first", clock)
    written = clock.now
    clock.now += 30  # by which the second run can tell nothing
    second = taken(location, "second", clock)
    assert clock.now >= written + 30 + OVER
    assert (lease_in(location[0]).holder, lease_in(location[0]).generation) == ("second", 2)
    second.require("here")
    with pytest.raises(RunInProgressError) as raised:
        first.require("here")
    assert raised.value.code == "lease-lost"


def test_a_machine_whose_clock_stood_still_finds_out_by_looking(location, clock):
    """A virtual machine that was paused: by its own account no time has passed."""
    first = taken(location, "first", Time())
    taken(location, "second", clock)
    assert first._held["here"].valid
    with pytest.raises(RunInProgressError) as raised:
        first.require("here")
    assert raised.value.code == "lease-lost"


def test_a_holder_that_renews_less_often_is_given_its_own_time(location, clock):
    held_by(location[0], lease_duration=600, renew_interval=100)
    taken(location, "mine", clock)
    assert clock.now >= 1000 + 700


def test_a_lease_of_a_process_that_died_here_is_taken_over_at_once(location, clock):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    held_by(location[0], **here(child.pid, start_time=ProcessRecord.of(child.pid).started))
    child.kill()
    child.communicate()
    taken(location, "mine", clock)
    assert clock.now == 1000


def test_a_process_number_that_was_given_out_again_is_another_process(location, clock):
    held_by(location[0], **here(os.getpid(), start_time=1.0))
    taken(location, "mine", clock)
    assert clock.now == 1000


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_process_that_lives_does_so_whatever_the_clock_is_set_to(location, clock, monkeypatch, step):
    held_by(location[0], **here(os.getpid()))
    began, now = psutil.Process().create_time(), time.time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: began + step)
    monkeypatch.setattr(time, "time", lambda: now + step)
    assert not lease_in(location[0]).is_dead()
    taken(location, "mine", clock)
    assert clock.now >= 1000 + OVER


@pytest.mark.parametrize(
    "change", [{"boot_id": ""}, {"boot_id": "another"}, {"pid_namespace": "pid:[1]"}, {"host": "h"}]
)
def test_a_process_of_another_container_or_boot_is_not_taken_for_dead(location, clock, change):
    held_by(location[0], **here(2**22 + 1) | change)
    taken(location, "mine", clock)
    assert clock.now >= 1000 + OVER


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"holder": 5}', b"x" * 10_000])
def test_what_cannot_be_read_is_somebodys_until_it_stood_still(location, clock, data):
    put(location[0].root, LOCK_KEY, data)
    taken(location, "mine", clock)
    assert clock.now >= 1000 + OVER
    assert lease_in(location[0]).holder == "mine"


def test_a_lock_of_the_release_before_is_understood(location, clock):
    old = {"run": "old", "host": "elsewhere", "pid": 7, "born": 1.7e9, "space": "boot pid:[1]", "beat": 0}

    def beat():
        old["beat"] += 1
        put(location[0].root, LOCK_KEY, orjson.dumps(old), overwrite=True)

    beat()
    clock.each = beat
    with pytest.raises(RunInProgressError) as raised:
        taken(location, "mine", clock)
    assert raised.value.fields["holder"] == "old"
    clock.each = lambda: None
    began = clock.now
    taken(location, "mine", clock)
    assert clock.now >= began + OVER


@given(
    st.binary()
    | st.builds(
        Lease, **{name: st.just(value) for name, value in here(1).items()} | {"holder": st.text(), "pid": st.integers()}
    )
    .map(asdict)
    .map(json.dumps)
    .map(str.encode)
    | st.from_type(Lease).map(asdict).map(json.dumps).map(str.encode)
)
def test_whatever_lies_there_is_some_lease_that_can_be_followed(data):
    lease = Lease.parse(data)
    assert lease.lease_duration + lease.renew_interval <= 7200
    assert lease.is_dead() in {True, False}


@pytest.mark.parametrize("generation", [0, 2**53 - 1, 2**53, 2**53 + 1, 2**64, -1])
def test_no_generation_is_the_last_one(location, clock, generation):
    put(location[0].root, LOCK_KEY, json.dumps({"holder": "", "generation": generation}).encode())
    for _ in range(2):
        lock = taken(location, "mine", clock)
        lock.require("here")
        lock.release()


@given(st.text(), st.integers(0, 2**53), st.integers(0, 2**53), st.floats(0, 3600))
def test_a_lease_reads_back_as_it_was_written(holder, generation, renewals, seconds):
    lease = replace(Lease.of_this_process("x", TIMING), holder=holder.encode(errors="replace").decode())
    lease = replace(lease, generation=generation, renewals=renewals, lease_duration=seconds)
    assert Lease.parse(lease.dump()) == lease


# ---- races ---------------------------------------------------------------------------------------------------


class Racy(MemoryStore):
    """Calls something once, right before a lock is written."""

    def __init__(self):
        super().__init__()
        self.before_write = None

    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
            yield writer
            race, self.before_write = self.before_write, None
            if race is not None:
                race()


@pytest.fixture
def in_sequence(monkeypatch):
    """Let a taker's tries follow each other, so that a test says what happens between them."""
    monkeypatch.setattr(lease_module, "_at_once", lambda tries: [each() for each in tries])


@pytest.mark.usefixtures("in_sequence")
@pytest.mark.parametrize("before", ["nothing", "a free lease", "a stale lease"])
def test_of_two_that_see_the_same_lease_one_takes_it(clock, before):
    store = Racy()
    location = locations_of(policy("here"), {"here": store})
    if before == "a free lease":
        taken(location, "earlier", clock).release()
    elif before == "a stale lease":
        held_by(location[0])
    quicker = ByHand(location, "quicker", clock)

    def overtake():
        quicker.take(wait_seconds=0)
        clock.each = quicker.renew

    store.before_write = overtake
    with pytest.raises(RunInProgressError) as raised:
        taken(location, "slower", clock)
    assert raised.value.fields["holder"] == "quicker"
    quicker.require("here")
    assert lease_in(location[0]).holder == "quicker"


@pytest.mark.usefixtures("in_sequence")
def test_a_holder_that_comes_back_right_before_it_is_overtaken_keeps_its_lease(clock):
    store = Racy()
    location = locations_of(policy("here"), {"here": store})
    first = taken(location, "first", clock)

    def come_back():
        first.renew()
        clock.each = first.renew

    store.before_write = come_back
    with pytest.raises(RunInProgressError):
        taken(location, "second", clock)
    first.require("here")
    assert lease_in(location[0]).generation == 1


def test_what_another_run_has_taken_is_neither_renewed_nor_given_back(locations, clock):
    lock = taken(locations, "mine", clock)
    lock.require()
    held_by(locations[1])
    with pytest.raises(RunInProgressError) as raised:
        lock.renew()
    assert raised.value.fields == {"location": "there", "holder": "other"}
    for wanted in ("", "there"):  # whoever took one of them will take the others
        with pytest.raises(RunInProgressError):
            lock.require(wanted)
    lock.require("here")  # but has not yet: what was done there can still be written down
    lock.release()
    assert lease_in(locations[1]).holder == "other"
    assert lease_in(locations[0]).holder == ""


def test_a_lock_that_somebody_removed_is_lost(location, clock):
    lock = taken(location, "mine", clock)
    location[0].root.delete(LOCK_KEY)
    with pytest.raises(RunInProgressError):
        lock.require("here")


def test_two_at_once_on_real_files_never_hold_it_together(tmp_path):
    wanted = policy("here")
    inside, most = [], []

    def run(number):
        location = locations_of(wanted, {"here": LocalStore(tmp_path)})
        with locked(location, run=f"run-{number}", wait_seconds=60, timing=QUICK) as lock:
            inside.append(number)
            most.append(len(inside))
            lock.require("here")
            time.sleep(0.05)
            lock.require("here")
            inside.remove(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 5
    assert lease_in(locations_of(wanted, {"here": LocalStore(tmp_path)})[0]).generation == 5


# ---- stores that fail ----------------------------------------------------------------------------------------


class Failing(MemoryStore):
    """Fails with ``error`` while it has one; ``moment`` is ``before`` or ``after`` the work of a put."""

    def __init__(self, error=None, *, moment="before"):
        super().__init__()
        self.error = error
        self.moment = moment

    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        if self.error is not None and self.moment == "before":
            raise self.error
        with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
            yield writer
        if self.error is not None and self.moment == "after":
            raise self.error


ERRORS = [
    StoreUnavailableError("503"),
    StoreError("denied"),
    ConfigError("token file: no such file"),  # a rotated file of a role's token, for one
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_a_location_that_takes_no_lock_is_left_out_and_named(locations, clock, error):
    broken = locations_of(policy("here", "there"), {"here": Failing(error), "there": locations[1].root})
    lock = taken(broken, "mine", clock)
    assert lock.failures == {"here": error}
    lock.require("there")
    with pytest.raises(StoreError):
        lock.require("here")
    lock.release()


def test_a_location_that_refuses_a_moment_is_asked_again(clock):
    store = Failing(StoreUnavailableError("503"))
    location = locations_of(policy("here"), {"here": store})
    clock.each = lambda: setattr(store, "error", None)
    taken(location, "mine", clock).require("here")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_where_no_location_takes_a_lock_nothing_is_run(clock, error):
    broken = locations_of(policy("here", "there"), {"here": Failing(error), "there": Failing(ERRORS[0])})
    with pytest.raises(StoreUnavailableError) as raised:
        taken(broken, "mine", clock)
    assert error.message in raised.value.message
    assert raised.value.__cause__ is error


def test_a_lease_that_was_written_although_no_answer_came_is_held(clock):
    store = Failing(StoreUnavailableError("the connection broke"), moment="after")
    location = locations_of(policy("here"), {"here": store})
    lock = taken(location, "mine", clock)
    store.error = None
    lock.require("here")
    lock.release()
    assert lease_in(location[0]).holder == ""


@pytest.mark.parametrize("error", [*ERRORS, ZeroDivisionError()], ids=lambda error: type(error).__name__)
def test_a_holder_that_cannot_renew_knows_when_its_lease_is_over(clock, error):
    store = Failing()
    location = locations_of(policy("here"), {"here": store})
    lock = taken(location, "mine", clock)
    store.error = error
    clock.now += TIMING.lease_duration - 1
    lock.require()
    clock.now += 1
    with pytest.raises(Exception) as raised:
        lock.require()
    assert getattr(raised.value, "code", "") == ("" if isinstance(error, ZeroDivisionError) else "lease-unconfirmed")
    store.error = None
    lock.require()  # nobody took it meanwhile, so it could be renewed
    lock.require("here")


@pytest.mark.parametrize("error", [*ERRORS, ZeroDivisionError()], ids=lambda error: type(error).__name__)
def test_the_renewing_thread_outlives_every_error_and_records_it(error):
    store = Failing()
    location = locations_of(policy("here"), {"here": store})
    with locked(location, run="mine", timing=LeaseTiming(renew_interval=0.01, lease_duration=600)) as lock:
        store.error = error
        wait_until(lambda: lock._held["here"].failure is error)
        store.error = None
        before = lease_in(location[0]).renewals
        wait_until(lambda: lease_in(location[0]).renewals > before)
        assert lock._held["here"].failure is None


def test_a_location_that_hangs_lets_no_other_lease_run_out():
    hangs, go = threading.Event(), threading.Event()

    class Hanging(MemoryStore):
        def stat(self, key):
            if hangs.is_set():
                go.wait(60)
            return super().stat(key)

    locations = locations_of(policy("here", "there"), {"here": Hanging(), "there": MemoryStore()})
    lock = RunLock(locations, run="mine", timing=LeaseTiming(renew_interval=0.01, lease_duration=0.5))
    lock.take(wait_seconds=0)
    hangs.set()
    before = lease_in(locations[1]).renewals
    wait_until(lambda: lease_in(locations[1]).renewals > before + 20)
    wait_until(lambda: not lock._held["here"].valid)
    lock.require()
    lock.require("there")
    lock.release()
    assert lease_in(locations[1]).holder == ""
    go.set()


def test_a_location_that_cannot_be_looked_at_gives_no_leave_to_remove(clock):
    store = Blind()
    locations = locations_of(policy("here", "there"), {"here": store, "there": MemoryStore()})
    lock = taken(locations, "mine", clock)
    store.blind = True
    with pytest.raises(StoreError) as raised:
        lock.require("here")
    assert (raised.value.code, raised.value.fields) == ("lease-unconfirmed", {"location": "here"})
    lock.require()
    lock.require("there")


def test_a_renewal_that_takes_too_long_is_worth_nothing(clock):
    class Slow(MemoryStore):
        seconds = 0.0

        def stat(self, key):
            clock.now += self.seconds
            return super().stat(key)

        @contextmanager
        def put(self, key, *, overwrite=False, if_version=None):
            with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
                yield writer
            clock.now += self.seconds

    store = Slow()
    location = locations_of(policy("here"), {"here": store})
    lock = taken(location, "mine", clock)
    store.seconds = TIMING.lease_duration
    with pytest.raises(StoreError) as raised:
        lock.require("here")
    assert raised.value.code == "lease-unconfirmed"


# ---- locations that guard nothing ----------------------------------------------------------------------------


class IgnoresConditions(MemoryStore):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        with super().put(key, overwrite=True) as writer:
            yield writer


class LooksBeforeItWrites(MemoryStore):
    """Compares, and writes a moment later: in sequence it refuses, at once several win."""

    def __init__(self):
        super().__init__()
        self.both = threading.Barrier(2, timeout=5)

    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        fits = (key not in self._objects) if if_version is None else self._objects[key][2] == if_version
        if threading.current_thread() is not threading.main_thread():
            self.both.wait()
        with super().put(key, overwrite=fits) as writer:
            yield writer


class RefusesOnEntryAlone(MemoryStore):
    """A bucket of a quick server that ignores conditions: the second writer finds the key taken before it writes."""

    def __init__(self):
        super().__init__()
        self.one_at_a_time = threading.Lock()

    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        with self.one_at_a_time:
            if if_version is None and not overwrite and key in self._objects:
                raise ObjectExistsError(key)
            with super().put(key, overwrite=True) as writer:
                yield writer


@pytest.mark.parametrize("kind", [IgnoresConditions, LooksBeforeItWrites, RefusesOnEntryAlone])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_location_that_lets_two_writers_win_is_told(clock, kind, earlier):
    store = kind()
    location = locations_of(policy("here"), {"here": store})
    if earlier:
        put(store, LOCK_KEY, Lease(holder="", generation=3).dump(), overwrite=True)
    lock = taken(location, "mine", clock)
    assert {name: warning.code for name, warning in lock.warnings.items()} == {"here": "lock-not-exclusive"}
    lock.require("here")


@pytest.mark.parametrize("folder", [False, True])
def test_a_location_that_lets_one_writer_win_is_not(tmp_path, clock, folder):
    location = locations_of(policy("here"), {"here": LocalStore(tmp_path) if folder else MemoryStore()})
    for _ in range(5):
        lock = taken(location, "mine", clock)
        assert lock.warnings == {}
        lock.release()


def test_where_two_writers_win_the_last_one_stays(clock):
    """Written by both, then looked at after a while: the one who does not find its own lease steps aside."""
    store = IgnoresConditions()
    location = locations_of(policy("here"), {"here": store})
    clock.each = lambda: held_by(location[0], renewals=int(clock.now))
    with pytest.raises(RunInProgressError):
        taken(location, "mine", clock)


def test_a_location_without_versions_takes_no_lock(clock):
    class Without(MemoryStore):
        def stat(self, key):
            return replace(super().stat(key), version="")

    location = locations_of(policy("here"), {"here": Without()})
    held_by(location[0])
    with pytest.raises(StoreError):
        taken(location, "mine", clock)


def test_a_lock_that_nobody_can_write_is_an_error_and_no_endless_wait(clock):
    class Stuck(MemoryStore):
        def _refuse_changed(self, key, version):
            super()._refuse_changed(key, "another")

    location = locations_of(policy("here"), {"here": Stuck()})
    held_by(location[0], holder="")
    with pytest.raises(StoreUnavailableError):
        taken(location, "mine", clock)


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
