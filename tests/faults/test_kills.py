"""SIGKILL at random moments. CLUSTERGUARD_FAULT_SEED repeats the moments of a run; its number is printed at the end."""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from contextlib import suppress

import invariants
import pytest
from injector import Plan
from invariants import KILLED, Before
from operations import OPERATIONS
from restores import nothing_in_plain
from worlds import World

pytestmark = [pytest.mark.programs, pytest.mark.timeout(7200)]

SEED = int(os.environ.get("CLUSTERGUARD_FAULT_SEED") or secrets.randbits(32))
QUICK, WHOLE = 3, 200
QUICK_RESTORES = 1  # each takes a control plane down and up again
SNAPSHOT_SAVED = {"save to a folder", "save to S3"}


def counts(quick=QUICK):
    return [pytest.param(quick, id=f"{quick} times"), pytest.param(WHOLE, id=f"{WHOLE} times", marks=pytest.mark.slow)]


class Moments:
    """Random moments of an operation, until so many of them came before its end.

    Attributes:
        lasted: How many seconds it takes undisturbed; less once it was seen to end earlier.
        killed: How often it was killed.
        missed: How often it had ended before.
    """

    def __init__(self, name, lasted):
        self.lasted = lasted
        self.killed = self.missed = 0
        self._random = random.Random(f"{SEED} {name}")  # noqa: S311 - moments, and no secrets

    def until(self, count):
        """Yield the number of each try."""
        while self.killed < count:
            yield self.killed + self.missed

    def kill(self, command):
        """Kill a command at a random moment; return what became of it."""
        began = time.monotonic()
        time.sleep(self._random.uniform(0, self.lasted))  # the moment of a kill is what this test is about
        with suppress(ProcessLookupError):
            command.send(signal.SIGKILL)
        code = command.wait()
        if code == KILLED:
            self.killed += 1
        else:
            self.missed += 1
            self.lasted = min(self.lasted, time.monotonic() - began)
        return code


def lasted(start):
    began = time.monotonic()
    command = start()
    assert command.wait() == 0, command.printed()
    return time.monotonic() - began


def world_of(services, template, folder, number):
    services.calm()
    return World.of(services, template, folder / f"world-{number}")


@pytest.mark.parametrize("count", counts())
@pytest.mark.parametrize("name", ["save to a folder", "run", "retain"])
def test_killed_at_any_moment_nothing_is_lost(name, count, services, template, tmp_path, record_property):
    operation, wrong = OPERATIONS[name], []
    first = world_of(services, template, tmp_path, "first")
    moments = Moments(name, lasted(lambda: first.start(*operation.words(first))))
    first.close()
    for number in moments.until(count):
        world = world_of(services, template, tmp_path, number)
        before = Before.of(world)
        command = world.start(*operation.words(world))
        moments.kill(command)
        struck = invariants.Struck(command, Plan(fault="kill"))
        wrong += invariants.after(world, before, operation, struck)
        wrong += resumed(name, world, before)
        world.close()
        assert not wrong, f"seed {SEED}, kill {number}: " + "\n".join([*wrong, command.printed()])
    record_property("kills", [name, moments.killed, moments.missed, SEED])


def resumed(name, world, before):
    """Return what is wrong after the same thing was done once more, undisturbed."""
    if name not in SNAPSHOT_SAVED:
        return list(invariants.recovered(world, before))
    listed = set(world.copies("disk", plain=True))
    again = world.run("etcd", "save", "fourth", "--store", world.store("disk"), "--endpoints",
                      world.services.etcd.endpoint)  # fmt: skip
    now = world.copies("disk", plain=True)
    if again.code != 0 or set(now) != {*listed, "fourth"} or not all(copy.whole for copy in now.values()):
        return [f"the next save ended with {again.code}; there is {now}: {again.printed()}"]
    return []


@pytest.mark.parametrize("count", counts(QUICK_RESTORES))
def test_a_restore_killed_at_any_moment_leaves_one_state(count, restorable, record_property):
    restorable.services.calm()
    restorable.make_old()
    moments = Moments("restore", lasted(restorable.restore))
    for number in moments.until(count):
        restorable.make_old()
        command = restorable.restore()
        code = moments.kill(command)
        restorable.recover()
        state, wrong = restorable.state(), list(nothing_in_plain(restorable))
        assert state == "restored" if code == 0 else state in ("old", "restored"), (
            f"seed {SEED}, kill {number}: {state}"
        )
        assert not wrong, f"seed {SEED}, kill {number}: {wrong}"
    record_property("kills", ["restore", moments.killed, moments.missed, SEED])
