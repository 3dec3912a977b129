"""The lock in any interleaving: three runs, locations that fail, clocks that differ, processes that stop or die."""

from __future__ import annotations

import random
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lock_world import PATIENCE, RATES, HeldTwiceError, Location, simulated

from clusterguard.policies.runs.lease import LocationLease

TAPES = st.binary(min_size=200, max_size=1500)
WORLDS = {
    "tape": TAPES,
    "names": st.sampled_from([("here",), ("here", "there")]),
    "sees_the_dead": st.booleans(),
}


def played(monkeypatch, **world):
    """Let three runs of everything play, and return what happened."""
    with simulated(monkeypatch, **world) as it:
        for number, rate in enumerate(RATES):
            it.add("abc"[number], rate=rate)
        it.play()
        require_progress(it)
        return it.happened


def require_progress(world):
    """Once nothing fails any more, and whatever was left behind: a run takes the lock, and may remove."""
    for work in world.late:
        world._arrives(work)
    world.calm = True
    began = world.now
    world.add("z", runs=1, wait_seconds=0)
    world.play()
    assert [world.stores[name].lease().holder for name in world.names] == [""] * len(world.names)
    assert all(world.passed[name][-1][1] == "z.0" for name in world.names)
    assert world.now - began <= len(world.names) * (PATIENCE + 5) + 60


def check(monkeypatch, examples):
    seen = {}

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(**WORLDS)
    @example(tape=b"", names=("here", "there"), sees_the_dead=False)
    def interleavings(**world):
        for what, count in played(monkeypatch, **world).items():
            seen[what] = seen.get(what, 0) + count

    interleavings()
    return seen


def test_never_two_hold_it_and_somebody_always_gets_it(monkeypatch):
    seen = check(monkeypatch, 150)
    # What was never tried proves nothing.
    tried = {"fails before", "fails after", "fails late", "time passes", "clock is set", "killed", "stopped"}
    assert tried | {"holds", "removes", "run-in-progress", "lease-unconfirmed"} <= set(seen)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_never_two_hold_it_at_length(monkeypatch):
    seen = check(monkeypatch, 10_000)
    assert {"lease-lost", "a late write counts"} <= set(seen)
    print(dict(sorted(seen.items())))  # noqa: T201 - the count of what was tried


# ---- the guard's own guard -----------------------------------------------------------------------------------


class _IgnoresConditions(Location):
    def _write(self, key, data, version):
        self._objects.pop(key, None)
        super()._write(key, data, None)


class _LooksBeforeItWrites(Location):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        if if_version is not None:
            self._world.request(lambda: self._refuse_changed(key, if_version))
        with super().put(key, if_version=if_version) as writer:
            yield writer

    def _write(self, key, data, version):
        if version is not None:
            self._objects.pop(key, None)
        super()._write(key, data, None)


class _NeverOver:
    valid = property(lambda lease: lease.lost is None and lease._valid_until > 0)


class _Impatient:
    @staticmethod
    def _may_take(lease, watch):
        return watch.seen is None or not watch.seen.lease.holder or lease._clock() - watch.since >= 20


class _CountsFromTheAnswer:
    """A lease that is counted from when the renewal's answer came, and not from when it was sent."""

    @staticmethod
    def renew(lease):
        with lease._writing:
            seen = lease._confirm()
            if lease._write(lease._next(lease._mine.generation), seen.version):
                lease._valid_until = lease._clock() + lease._mine.lease_duration


@pytest.mark.parametrize(
    "mistake", [_NeverOver, _Impatient, _CountsFromTheAnswer, _IgnoresConditions, _LooksBeforeItWrites]
)
def test_the_interleavings_find_a_mistake(monkeypatch, mistake):
    world = {"store": mistake} if issubclass(mistake, Location) else {}
    for name, broken in vars(mistake).items() if not world else ():
        if not name.startswith("__"):
            monkeypatch.setattr(LocationLease, name, broken.__func__ if isinstance(broken, staticmethod) else broken)
    tapes = random.Random(7)  # noqa: S311 - the same interleavings each time
    with pytest.raises(HeldTwiceError):
        for _ in range(2000):
            played(monkeypatch, tape=tapes.randbytes(1500), **world)
