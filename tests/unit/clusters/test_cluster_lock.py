"""One lock for a cluster: several runs, a clock, an API server that goes away, and an etcd that is taken back in time.

The cluster is in memory, so that every interleaving can be tried; what a real API server makes of the same requests is
in `tests/integration/clusters/test_cluster_lock_held.py`.
"""

from __future__ import annotations

import copy
import itertools
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clusterguard.clusters import lock as locks
from clusterguard.clusters.lock import (
    NAME,
    NAMESPACE,
    ClusterLock,
    LeaseRecord,
    Observation,
    State,
    lock_cluster,
    restored_under_lock,
)
from clusterguard.errors import (
    ClusterLockedError,
    ClusterUnreachableError,
    ConflictError,
    ForbiddenError,
    ResourceNotFoundError,
)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Leases:
    """An API server that has one Lease, and an etcd that can be taken back."""

    server = "https://one"

    def __init__(self):
        self.lease = None
        self.up = True
        self.error = None
        self.before = {}  # what happens just before a verb: another run is quicker
        self._numbers = itertools.count(1)

    def ready(self):
        return Ready(self.up)

    def get(self, resource, name, namespace):
        self._call("get")
        assert (resource.plural, name, namespace) == ("leases", NAME, NAMESPACE)
        if self.lease is None:
            raise ResourceNotFoundError(name)
        return copy.deepcopy(self.lease)

    def create(self, manifest):
        self._call("create")
        if self.lease is not None:
            raise ConflictError("it exists")
        return self._store(manifest, uid=f"uid-{next(self._numbers)}")

    def replace(self, manifest):
        self._call("replace")
        wanted = manifest["metadata"]
        there = (self.lease or {"metadata": {}})["metadata"]
        if (wanted["uid"], wanted["resourceVersion"]) != (there.get("uid"), there.get("resourceVersion")):
            raise ConflictError("it was modified")
        return self._store(manifest, uid=wanted["uid"])

    def delete(self, resource, name, namespace, *, uid, resource_version):
        self._call("delete")
        if self.lease is None:
            raise ResourceNotFoundError(name)
        there = self.lease["metadata"]
        if (uid, resource_version) != (there["uid"], there["resourceVersion"]):
            raise ConflictError("it was modified")
        self.lease = None

    def _store(self, manifest, *, uid):
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"] |= {"uid": uid, "resourceVersion": str(next(self._numbers))}
        return copy.deepcopy(self.lease)

    def _call(self, verb):
        if act := self.before.pop(verb, None):
            act()
        if not self.up:
            raise ClusterUnreachableError("connection refused")
        if self.error:
            raise self.error

    @property
    def holder(self):
        return "" if self.lease is None else self.lease["spec"]["holderIdentity"]


class Ready:
    failing = "etcd"

    def __init__(self, up):
        self.up = up

    def __bool__(self):
        return self.up


@pytest.fixture
def api():
    return Leases()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def run(api, clock):
    """Make a run; nothing renews its lock but the test."""

    def run(name, **options):
        return ClusterLock(api, holder=name, clock=clock, sleep=clock.sleep, background=False, **options)

    return run


@pytest.fixture
def locked(run):
    def locked(name):
        made = run(name)
        made.acquire()
        return made

    return locked


# ---- one after the other ---------------------------------------------------------------------------------


def test_it_says_who_holds_it_and_leaves_nothing_behind(api, locked):
    lock = locked("drill one")
    assert api.lease["spec"]["holderIdentity"] == "drill one"
    assert api.lease["spec"]["leaseDurationSeconds"] == 40
    lock.release()
    assert api.lease is None


def test_a_free_lock_is_had_at_once(locked, clock):
    began = clock.now
    locked("one").release()
    locked("two").release()
    assert clock.now == began


def test_renewing_keeps_when_it_was_acquired(api, locked):
    lock = locked("one")
    first = api.lease["spec"]
    lock.renew()
    assert api.lease["spec"]["acquireTime"] == first["acquireTime"]
    assert api.lease["spec"]["leaseTransitions"] == first["leaseTransitions"] == 0


def during_sleep(clock, act):
    """Let something happen whenever somebody waits."""
    sleep = clock.sleep

    def slept(seconds):
        sleep(seconds)
        act()

    clock.sleep = slept


def test_a_second_run_is_refused_by_name_once_the_first_is_seen_to_live(locked, run, clock):
    first = locked("drill one")
    during_sleep(clock, first.renew)
    began = clock.now
    with pytest.raises(ClusterLockedError) as raised:
        run("drill two").acquire()
    assert (raised.value.code, raised.value.fields["holder"]) == ("cluster-locked", "drill one")
    assert clock.now - began < 40
    first.require()


def test_a_second_run_waits_as_long_as_it_may(locked, run, clock, api):
    first = locked("one")
    begun = clock.now

    def live():
        if clock.now < begun + 100:
            first.renew()
        elif first._written is not None and api.holder == "one":
            first.release()

    during_sleep(clock, live)
    told = []
    second = run("two")
    second.acquire(wait_seconds=600, on_wait=told.append)
    assert api.holder == "two"
    assert len(told) == 1
    assert "one" in told[0]
    assert 100 <= clock.now - begun < 130


def test_a_wait_ends(locked, run, clock):
    first = locked("one")
    during_sleep(clock, first.renew)
    began = clock.now
    with pytest.raises(ClusterLockedError):
        run("two").acquire(wait_seconds=120)
    assert 120 <= clock.now - began < 130


def test_a_run_that_was_killed_gives_way_when_its_lease_is_over(locked, run, clock, api):
    locked("killed")
    began = clock.now
    run("two").acquire()
    assert api.holder == "two"
    assert 40 <= clock.now - began < 45
    assert api.lease["spec"]["leaseTransitions"] == 1


def test_of_two_who_find_it_free_one_is_refused(api, run, locked):
    second = run("two")
    api.before["create"] = lambda: locked("one")
    with pytest.raises(ClusterLockedError):
        second.acquire()
    assert api.holder == "one"


def test_of_two_who_find_it_abandoned_one_is_refused(api, run, locked, clock):
    locked("killed")
    winner = run("one")

    def quicker():
        winner._write(winner._read())
        during_sleep(clock, winner.renew)

    api.before["replace"] = quicker
    with pytest.raises(ClusterLockedError):
        run("two").acquire()
    assert api.holder == "one"


def test_a_run_that_was_stopped_for_too_long_finds_that_it_lost(locked, run, clock, api):
    stopped = locked("stopped")
    run("two").acquire()  # it waits out the lease
    with pytest.raises(ClusterLockedError) as raised:
        stopped.require()
    assert (raised.value.code, raised.value.fields["holder"]) == ("cluster-lock-lost", "two")
    stopped.release()
    assert api.holder == "two"  # what is not ours is not removed


def test_a_run_that_ends_after_it_was_stopped_takes_the_lock_from_nobody(locked, run, api):
    stopped = locked("stopped")
    run("two").acquire()
    stopped.release()
    assert api.holder == "two"


def test_nor_does_it_come_back_where_the_other_is_done_already(locked, run, clock):
    """It must not take up where it stopped: the cluster is not what it was."""
    stopped = locked("stopped")
    other = run("other")
    other.acquire()
    other.release()
    with pytest.raises(ClusterLockedError):
        stopped.require()


def test_a_lease_that_was_deleted_by_hand_is_written_again(locked, clock, api):
    lock = locked("one")
    clock.sleep(30)
    api.lease = None
    lock.require()
    assert api.holder == "one"


def test_a_cluster_that_does_not_answer_is_no_reason_to_stop(locked, clock, api):
    """The drill may have taken its etcd away itself; nobody else gets the lock meanwhile."""
    lock = locked("one")
    api.up = False
    for _ in range(10):
        clock.sleep(20)
        lock.require()
    api.up = True
    lock.require()
    assert api.holder == "one"


def test_whoever_waits_counts_no_time_in_which_the_cluster_did_not_answer(locked, run, clock, api):
    first = locked("one")
    down_until = clock.now + 60

    def live():
        api.up = clock.now >= down_until or clock.now <= down_until - 55
        if api.up:
            first.renew()

    during_sleep(clock, live)
    with pytest.raises(ClusterLockedError):
        run("two").acquire()
    first.require()


def test_a_cluster_that_comes_and_goes_takes_the_lock_from_nobody(locked, run, clock, api):
    """It answers now and then, and never when the holder asks."""
    first = locked("one")
    began = clock.now

    def live():
        api.up = clock.now >= began + 90 or clock.now % 6 == 0
        if api.up and clock.now >= began + 90:
            first.renew()

    during_sleep(clock, live)
    with pytest.raises(ClusterLockedError):
        run("two").acquire()
    assert api.holder == "one"


def test_nor_does_one_whose_own_machine_slept(locked, run, clock, api):
    """A machine that sleeps may have had the holder on it: it gets its time to renew the lease."""
    first = locked("one")
    naps = iter([300.0])

    def live():
        clock.now += next(naps, 0.0)
        if clock.now % 5 < 1:
            first.renew()

    during_sleep(clock, live)
    with pytest.raises(ClusterLockedError):
        run("two").acquire()
    assert api.holder == "one"


def test_not_being_allowed_to_write_leases_is_an_error(api, run):
    api.error = ForbiddenError("leases are forbidden")
    with pytest.raises(ForbiddenError):
        run("one").acquire()


def test_an_api_server_that_has_just_started_is_waited_for(api, run, locked, clock):
    """Until it has loaded its rules it forbids everything to all but system:masters; the admin of kubeadm is none."""
    first = locked("one")
    began = clock.now

    def live():
        api.error = ForbiddenError("leases are forbidden") if began + 5 < clock.now < began + 25 else None
        if api.error is None and clock.now < began + 30:
            first.renew()
        elif clock.now >= began + 30 and first._written is not None and api.holder == "one":
            first.release()

    during_sleep(clock, live)
    run("two").acquire(wait_seconds=600)
    assert api.holder == "two"


@pytest.mark.parametrize(
    "spec",
    [None, {}, {"holderIdentity": None}, {"leaseDurationSeconds": 10**9}, {"leaseTransitions": None}],
)
def test_a_lease_that_somebody_edited_is_read(spec):
    record = LeaseRecord.of({"metadata": {}, "spec": spec})
    assert record.holder == ""
    assert 0 < record.duration <= 300


# ---- taken back in time ----------------------------------------------------------------------------------


def test_a_restore_to_before_the_lock_does_not_lose_it(api, locked, run, clock):
    """The usual case: a snapshot of last night. Nobody holds the lock in it."""
    lock = locked("one")
    with lock.rewound():
        api.lease = None
        clock.sleep(50)
    assert api.holder == "one"
    lock.require()


def test_nor_does_one_to_the_time_of_an_earlier_run(api, locked, clock):
    earlier = locked("earlier")
    snapshot = copy.deepcopy(api.lease)
    earlier.release()
    lock = locked("one")
    with lock.rewound():
        api.lease = copy.deepcopy(snapshot)
        clock.sleep(50)
    assert api.holder == "one"
    lock.require()


def test_whoever_waited_before_the_restore_does_not_take_it_for_the_end(api, locked, run, clock):
    """It sees the Lease vanish, and the holder in it again a moment later."""
    lock = locked("one")
    began = clock.now

    def live():
        if clock.now == began + 3:
            lock._rewound = True
            api.lease = None
        elif clock.now == began + 6:
            lock.renew()
            lock._rewound = False
        elif clock.now > began + 6:
            lock.renew()

    during_sleep(clock, live)
    with pytest.raises(ClusterLockedError):
        run("two").acquire()
    lock.require()


def test_whoever_came_in_between_finds_it_out_at_its_next_step(api, locked, run):
    lock = locked("one")
    newcomer = run("newcomer")
    with lock.rewound():
        api.lease = None
        newcomer.acquire()
    assert api.holder == "one"
    with pytest.raises(ClusterLockedError):
        newcomer.require()
    lock.require()


def test_a_lock_that_was_lost_before_stops_the_restore(locked, run):
    stopped = locked("stopped")
    run("two").acquire()
    with pytest.raises(ClusterLockedError), stopped.rewound():
        pytest.fail("it was restored")


def test_a_lock_that_cannot_be_written_again_counts_as_lost_and_the_restore_as_done(api, locked):
    lock = locked("one")
    with lock.rewound():
        api.lease = None
        api.error = ForbiddenError("the rules are gone")
    with pytest.raises(ClusterLockedError):
        lock.require()


def test_a_restore_that_fails_fails_with_its_own_error(api, locked):
    lock = locked("one")
    with pytest.raises(ZeroDivisionError), lock.rewound():
        api.lease = None
        raise ZeroDivisionError
    lock.require()
    assert api.holder == "one"


# ---- in one process --------------------------------------------------------------------------------------


@pytest.fixture
def instant(monkeypatch, clock):
    """Locks of `lock_cluster` on the test's clock, and none of another test."""
    monkeypatch.setattr(locks, "_HELD", {})
    real = ClusterLock

    def made(api, *, holder):
        return real(api, holder=holder, clock=clock, sleep=clock.sleep, background=False)

    monkeypatch.setattr(locks, "ClusterLock", made)


def test_the_thread_that_holds_it_gets_it_again(api, instant):
    """A session's fixture holds the lock while the session's drills run."""
    session = lock_cluster(api, what="session")
    drill = lock_cluster(api, what="drill")
    drill.release()
    assert api.holder.startswith("session")
    session.require()
    session.release()
    assert api.lease is None


def test_another_thread_does_not(api, instant, clock):
    session = lock_cluster(api, what="session")
    session.thread += 1
    during_sleep(clock, session.renew)
    with pytest.raises(ClusterLockedError):
        lock_cluster(api, what="drill")


def test_a_cluster_that_is_not_ready_is_not_waited_for(api, instant):
    api.up = False
    with pytest.raises(ClusterUnreachableError):
        lock_cluster(api, what="drill")


def test_a_restore_keeps_the_locks_of_its_own_cluster(api, instant):
    other = Leases()
    other.server = "https://two"
    ours, theirs = lock_cluster(api, what="ours"), lock_cluster(other, what="theirs")
    with restored_under_lock(lambda: api.server):
        api.lease = None
        other.lease["spec"]["holderIdentity"] = "somebody else"
    ours.require()
    with pytest.raises(ClusterLockedError):
        theirs.require()


def test_without_a_lock_a_restore_asks_for_no_server(instant):
    with restored_under_lock(lambda: pytest.fail("there may be no kubeconfig")):
        pass


# ---- what a waiter believes ------------------------------------------------------------------------------


def record(version, holder="one"):
    return LeaseRecord(holder=holder, duration=40, uid="u", version=str(version))


def test_times_that_the_lease_tells_are_not_believed():
    """Its holder's clock may be hours away: only whether it changes counts, and by our own clock."""
    seen = Observation()
    states = [seen.see(record(1), now) for now in (0, 5, 10, 15, 20, 25, 30, 35, 39)]
    assert set(states) == {State.UNCLEAR}
    assert seen.see(record(1), 40) is State.ABANDONED
    assert seen.see(record(2), 41) is State.HELD


# ---- in every interleaving -------------------------------------------------------------------------------


class Runs(RuleBasedStateMachine):
    """Three runs that want one cluster. Any may be stopped, killed, or restore etcd; the cluster may be away."""

    def __init__(self):
        super().__init__()
        self.api, self.clock = Leases(), Clock()
        self.snapshots = [None]
        self.numbers = itertools.count(1)
        self.runs = {}
        for place in range(3):
            self._enter(place)

    def _enter(self, place):
        lock = ClusterLock(
            self.api, holder=f"run {next(self.numbers)}", clock=self.clock, sleep=self.clock.sleep, background=False
        )
        self.runs[place] = SimpleNamespace(
            lock=lock, holds=False, stopped=False, watching=Observation(), renewed=0.0, looked=0.0, touched=False
        )

    # -- time passes: whoever lives renews, as the thread of a holder does, and looks, as a waiter does

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds):
        for _ in range(seconds):
            self.clock.now += 1
            for run in self.runs.values():
                if run.stopped:
                    continue
                if run.holds and self.clock.now - run.renewed >= 10:
                    run.renewed = self.clock.now
                    self._quietly(run.lock.renew)
                if not run.holds and run.watching is not None:
                    self._look(run)

    def _look(self, run):
        before, held_before = self.api.holder, self._holder()
        try:
            taken = run.lock._try(run.watching)
        except ClusterUnreachableError:
            return
        if taken:
            run.holds, run.renewed = True, self.clock.now
            # Who holds it, lives and was not stopped never loses it to a waiter, whatever happened to etcd in between.
            assert held_before is None or held_before.touched, (before, "lost the lock while it lived")

    def _holder(self):
        return next((run for run in self.runs.values() if run.holds and run.lock.holder == self.api.holder), None)

    def _quietly(self, act):
        try:
            act()
        except ClusterUnreachableError:
            return

    @rule(place=st.integers(0, 2))
    def stop_or_go_on(self, place):
        run = self.runs[place]
        run.stopped = not run.stopped
        run.touched = True

    @rule(place=st.integers(0, 2))
    def kill(self, place):
        self.runs[place].stopped = True  # its Lease stays
        self._enter(place)

    @rule(place=st.integers(0, 2))
    def end(self, place):
        run = self.runs[place]
        if run.holds and not run.stopped and self.api.up:
            run.lock.release()
            self._enter(place)

    @rule()
    def the_cluster_goes_or_comes(self):
        self.api.up = not self.api.up

    @precondition(lambda self: self.api.up)
    @rule()
    def save_a_snapshot(self):
        self.snapshots.append(copy.deepcopy(self.api.lease))

    @precondition(lambda self: self.api.up)
    @rule(place=st.integers(0, 2), which=st.integers(0, 5), seconds=st.integers(0, 9))
    def restore(self, place, which, seconds):
        run = self.runs[place]
        if not run.holds or run.stopped:
            return
        try:
            with run.lock.rewound():
                self.api.lease = copy.deepcopy(self.snapshots[which % len(self.snapshots)])
                run.renewed = self.clock.now
                for _ in range(seconds):  # the thread tries every second; here it comes last, as late as it may
                    self.clock.now += 1
                    for other in self.runs.values():
                        if other is not run and not other.stopped and not other.holds:
                            self._look_while_rewound(other)
        except ClusterLockedError:
            run.holds = False
            return
        assert self.api.holder == run.lock.holder

    def _look_while_rewound(self, other):
        if other.lock._try(other.watching):  # only one that came anew: it has never seen a holder
            other.holds, other.renewed, other.touched = True, self.clock.now, True

    @rule(place=st.integers(0, 2))
    def take_a_step(self, place):
        run = self.runs[place]
        if not run.holds or run.stopped:
            return
        try:
            run.lock.require()
        except ClusterLockedError:
            run.holds, run.watching = False, None  # it ends there
            return
        assert not self.api.up or self.api.holder == run.lock.holder

    @invariant()
    def two_never_pass_at_once(self):
        if not self.api.up:
            return
        passing = []
        for run in self.runs.values():
            if run.holds and not run.stopped:
                saved = copy.deepcopy(self.api.lease)
                renewed, written, lost = run.lock._renewed, run.lock._written, run.lock._lost_to
                try:
                    run.lock.require()
                    passing.append(run)
                except ClusterLockedError:
                    pass
                self.api.lease = saved
                run.lock._renewed, run.lock._written, run.lock._lost_to = renewed, written, lost
        assert len(passing) <= 1


Runs.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRuns = Runs.TestCase
