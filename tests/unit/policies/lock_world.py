"""Several runs in simulated time over locations that fail: each call of a store is a point where others may go on.

What runs is the real lock. Its threads are real threads, of which one moves at a time: whose turn it is, how time
passes, what fails, who is stopped or killed is read from a tape of bytes, so a found interleaving can be shrunk.
"""

from __future__ import annotations

import io
import math
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from policy_worlds import locations_of, policy

from clusterguard.errors import ClusterGuardError, ConfigError, RunInProgressError, StoreUnavailableError
from clusterguard.policies.runs import lease as lease_module
from clusterguard.policies.runs.lease import LOCK_KEY, Lease, LeaseTiming
from clusterguard.policies.runs.lock import RunLock
from clusterguard.stores.memory import MemoryStore

TIMING = LeaseTiming()
PATIENCE = TIMING.lease_duration + TIMING.renew_interval
# Clocks that nobody sets still differ a little; far more than this would be needed to break what the lock promises.
RATES = (1.0, 0.95, 1.05)
JUMPS = (1, 9, 31, 61, 75, 200)
_TURNS = 6000


class Killed(BaseException):
    """The process was killed: nothing of it runs any more."""


class HeldTwiceError(AssertionError):
    """Two runs hold what one may hold."""


@dataclass
class Actor:
    """A process: its clock may run a little fast or slow, and it may be stopped or killed."""

    name: str
    world: World
    rate: float
    stopped_until: float = 0
    killed: bool = False
    lock: SimulatedLock | None = None

    def clock(self):
        return 1000 + self.world.now * self.rate

    def sleep(self, seconds):
        self.world.point(wake=self.world.now + seconds / self.rate)


class Thread:
    """One thread of an actor."""

    def __init__(self, actor, work):
        self.actor = actor
        self.wake = 0.0
        self.waits_for = None
        self.done = False
        self.killed = False
        self.failure = None
        self.go = threading.Semaphore(0)
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.actor.world.threads.append(self)
        self._thread.start()

    def _run(self):
        self.go.acquire()
        _HERE.thread = self
        try:
            if not self.killed:
                self._work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - told by the scheduler
            self.failure = error
        self.done = True
        self.actor.world.back.release()

    # What the lock asks of a thread.

    def is_alive(self):
        return not self.done

    def join(self, timeout=None):
        until = math.inf if timeout is None else self.actor.world.now + timeout
        while not self.done and self.actor.world.now < until:
            self.actor.world.point(wake=min(until, self.actor.world.now + 1))


_HERE = threading.local()


class Event:
    """As `threading.Event`, in simulated time."""

    def __init__(self, actor):
        self._actor = actor
        self._is_set = False

    def set(self):
        self._is_set = True

    def wait(self, timeout):
        if not self._is_set:
            self._actor.sleep(timeout)
        return self._is_set


class Lock:
    """As `threading.RLock`, of threads that move in turn."""

    def __init__(self, world):
        self._world = world
        self._owner = None
        self._depth = 0

    def free_for(self, thread):
        return self._owner in {None, thread}

    def __enter__(self):
        me = _HERE.thread
        while not self.free_for(me):
            self._world.point(waits_for=self)
        self._owner, self._depth = me, self._depth + 1

    def __exit__(self, *_):
        self._depth -= 1
        if not self._depth:
            self._owner = None


class SimulatedLock(RunLock):
    """The lock of one run, in simulated time."""

    def __init__(self, actor, locations, run):
        super().__init__(locations, run=run, timing=TIMING, clock=actor.clock, sleep=actor.sleep)
        self.actor = actor
        self.run = run
        self._lease = Lease(holder=run, host=actor.name, renew_interval=10, lease_duration=60)
        self._ended = Event(actor)

    def _keep(self, name, lease):
        lease._writing = Lock(self.actor.world)
        self._renewing[name] = thread = Thread(self.actor, partial(lease.keep, self._ended))
        thread.start()


class Location(MemoryStore):
    """A location that does what the tape says: works, fails before or after its work, or works much later."""

    def __init__(self, world):
        super().__init__(now=world.wall_clock)
        self._world = world

    def stat(self, key):
        return self._world.request(partial(super().stat, key))

    @contextmanager
    def get(self, key):
        with super().get(key) if self._world.calm else self._world.request(partial(self._opened, key)) as reader:
            yield reader

    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        check_on_entry = partial(self._refuse_taken, key) if if_version is None else lambda: None
        self._world.request(check_on_entry)
        data = io.BytesIO()
        yield data
        self._world.request(partial(self._write, key, data.getvalue(), if_version), writes=True)

    def lease(self):
        """Look past the world."""
        data = self._objects.get(LOCK_KEY)
        return None if data is None else Lease.parse(data[0])

    def _opened(self, key):
        with super().get(key) as reader:
            return io.BytesIO(reader.read())

    def _write(self, key, data, version):
        with super().put(key, if_version=version) as writer:
            writer.write(data)


@dataclass
class World:
    """Everything there is, and the tape that decides.

    Attributes:
        sees_the_dead: Whether processes are on one machine, where a killed one is known to be dead.
        store: The kind of locations; a broken one shows that the invariants can go red.
    """

    tape: bytes
    names: tuple[str, ...] = ("here",)
    sees_the_dead: bool = False
    store: type[Location] = Location
    now: float = 0.0
    calm: bool = False
    back: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    threads: list[Thread] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    late: list = field(default_factory=list)
    passed: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    happened: dict[str, int] = field(default_factory=dict)
    _read: int = 0
    _wall_offset: timedelta = timedelta()

    def __post_init__(self):
        wanted = policy(*self.names)
        self.stores = {name: self.store(self) for name in self.names}
        self.locations = locations_of(wanted, self.stores)

    # ---- the tape --------------------------------------------------------------------------------------------

    @property
    def over(self):
        return self.calm or self._read >= len(self.tape)

    def draw(self, count):
        """Return a number below ``count``; 0 once the tape is over."""
        if self.over:
            return 0
        self._read += 1
        return self.tape[self._read - 1] % count

    def chance(self, one_in):
        return self.draw(one_in) == one_in - 1

    # ---- what threads call -----------------------------------------------------------------------------------

    def wall_clock(self):
        return datetime(2026, 6, 1, tzinfo=UTC) + timedelta(seconds=self.now) + self._wall_offset

    def point(self, *, wake=0.0, waits_for=None):
        """Let others go on."""
        me = _HERE.thread
        if me.killed:
            raise Killed
        me.wake, me.waits_for = wake, waits_for
        self.back.release()
        me.go.acquire()
        if me.killed:
            raise Killed

    def request(self, work, *, writes=False):
        """Send something to a location: on its way, done, and on its way back others may go on."""
        self.point()
        fault = None if self.over else {0: "before", 1: "after", 2: "late"}.get(self.draw(16))
        if fault is not None:
            self._count(f"fails {fault}")
        if fault == "late" and writes:
            self.late.append(work)
        if fault in {"before", "late"}:
            self.point()
            raise self._error()
        try:
            answer, refused = work(), None
        except ClusterGuardError as error:
            answer, refused = None, error
        self.point()
        if fault == "after":
            raise self._error()
        if refused is not None:
            raise refused
        return answer

    def _error(self):
        return (StoreUnavailableError("503"), ConfigError("token file: no such file"))[self.draw(2)]

    def _count(self, what):
        self.happened[what] = self.happened.get(what, 0) + 1

    # ---- actors ----------------------------------------------------------------------------------------------

    def add(self, name, *, rate=1.0, runs=3, wait_seconds=None):
        actor = Actor(name, self, rate)
        self.actors.append(actor)
        Thread(actor, partial(self._work, actor, runs, wait_seconds)).start()
        return actor

    def _work(self, actor, runs, wait_seconds):
        for number in range(runs):
            wait = (0, 30, 1000)[self.draw(3)] if wait_seconds is None else wait_seconds
            lock = SimulatedLock(actor, self.locations, f"{actor.name}.{number}")
            actor.lock = lock
            try:
                lock.take(wait_seconds=wait)
                self._count("holds")
                for _ in range(1 + self.draw(4)):
                    actor.sleep((1, 5, 20, 50)[self.draw(4)])
                    self._remove_something(lock)
            except (RunInProgressError, StoreUnavailableError) as error:
                self._count(error.code)
            finally:
                lock.release()
            actor.sleep(1 + self.draw(60))

    def _remove_something(self, lock):
        for name in self.names:
            try:
                lock.require(name)
            except RunInProgressError:
                raise
            except ClusterGuardError as error:
                self._count(error.code)
            else:
                self._removes(lock, name)

    def _removes(self, lock, name):
        """What lies there now must be ours, and nobody whose generation is lower may pass after us."""
        self._count("removes")
        there = self.stores[name].lease()
        if there is None or there.holder != lock.run:
            raise HeldTwiceError(f"{lock.run} removes something at {self.now:g} s in {name}, which {there} holds")
        passed = self.passed.setdefault(name, [])
        if passed and (
            passed[-1][0] > there.generation or (passed[-1][0] == there.generation) != (passed[-1][1] == lock.run)
        ):
            raise HeldTwiceError(f"{lock.run} with generation {there.generation} comes after {passed[-1]}")
        passed.append((there.generation, lock.run))

    # ---- the scheduler ---------------------------------------------------------------------------------------

    def play(self):
        """Let everybody go on until all are through."""
        for _ in range(_TURNS):
            alive = [each for each in self.threads if not each.done and not each.actor.killed]
            if not alive:
                return
            if not self._event(alive):
                self._turn(alive)
            self._judge()
        raise AssertionError("nobody gets anywhere")

    def _event(self, alive):
        """Let something else happen than a thread's next step."""
        if self.over or not self.chance(6):
            return False
        what = ("time passes", "late", "clock is set", "killed", "stopped")[(0, 0, 0, 1, 2, 3, 4, 4)[self.draw(8)]]
        actor = alive[self.draw(len(alive))].actor
        if what == "time passes":
            self.now += JUMPS[self.draw(len(JUMPS))]
        elif what == "late" and self.late:
            self._arrives(self.late.pop(self.draw(len(self.late))))
        elif what == "clock is set":
            self._wall_offset += timedelta(hours=self.draw(3) - 1)
        elif what == "killed" and self.chance(3):
            actor.killed = True
        elif what == "stopped":
            actor.stopped_until = self.now + JUMPS[self.draw(len(JUMPS))]
        else:
            return False
        self._count(what)
        return True

    def _arrives(self, work):
        try:
            work()
        except ClusterGuardError:
            return
        self._count("a late write counts")

    def _turn(self, alive):
        ready = [each for each in alive if each.wake <= self.now and each.actor.stopped_until <= self.now]
        ready = [each for each in ready if each.waits_for is None or each.waits_for.free_for(each)]
        if not ready:
            self.now = max(self.now, min(max(each.wake, each.actor.stopped_until) for each in alive))
            return
        thread = ready[self.draw(len(ready))] if not self.over else min(ready, key=lambda each: each.wake)
        self._resume(thread)

    def _resume(self, thread):
        thread.go.release()
        assert self.back.acquire(timeout=60), "a thread waits for something outside of this world"
        if thread.failure is not None:
            raise thread.failure

    def _judge(self):
        """Of all runs that are not dead, one at most holds a lease by its own account."""
        for name in self.names:
            holding = [
                actor.lock.run
                for actor in self.actors
                if not actor.killed and actor.lock is not None and self._holds(actor.lock, name)
            ]
            if len(holding) > 1:
                raise HeldTwiceError(f"at {self.now:g} s {' and '.join(holding)} hold {name}")

    @staticmethod
    def _holds(lock, name):
        return name in lock._held and lock._held[name].valid

    def end(self):
        """Unwind what has not ended, so that no thread outlives its world."""
        for thread in self.threads:
            while not thread.done:
                thread.killed = True
                thread.go.release()
                assert self.back.acquire(timeout=60)


@contextmanager
def simulated(monkeypatch, **settings):
    """A world, in which a taker's tries follow each other and only its own clocks exist."""
    world = World(**settings)
    with monkeypatch.context() as patch:
        patch.setattr(lease_module, "_at_once", lambda tries: [each() for each in tries])
        patch.setattr(Lease, "is_dead", lambda lease: world.sees_the_dead and _is_dead(world, lease))
        # The module imports no clock; whoever gives it one again meets this.
        patch.setattr(lease_module, "time", _NoClock(), raising=False)
        try:
            yield world
        finally:
            world.end()


def _is_dead(world, lease):
    return any(actor.name == lease.host and actor.killed for actor in world.actors)


class _NoClock:
    """Whoever asks the machine for its time fails."""

    def __getattr__(self, name):
        raise HeldTwiceError(f"the lock asks for time.{name}")
