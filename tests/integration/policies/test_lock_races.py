"""Real processes that race for one lock, in a folder and on a real S3 server; some are stopped, some are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from policy_nights import bucket_of

from clusterguard.policies.runs.lease import LOCK_KEY, Lease
from clusterguard.stores import open_store
from s3_gateway import CREDENTIALS

pytestmark = pytest.mark.programs

WORKER = Path(__file__).with_name("lock_worker.py")


@pytest.fixture(params=["folder", "bucket"])
def url(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return str(tmp_path / "location")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS.secret_key)
    return bucket_of(request.getfixturevalue("frankfurt"), uuid.uuid4().hex)


class Racers:
    """Processes, and what they wrote down."""

    def __init__(self, stack, url, folder, seed):
        self.random = random.Random(seed)  # noqa: S311 - to be repeated
        self.processes = {}
        self.killed = self.stopped = 0
        self._stack, self._url, self._folder = stack, url, folder

    def start(self, count, *, host=None):
        """Start processes that begin at once, each on a machine of its own unless one is named."""
        fresh = []
        for _ in range(count):
            name = f"p{len(list(self._folder.glob('*.log')))}"
            (self._folder / f"{name}.log").touch()
            arguments = [self._url, str(self._folder / f"{name}.log"), host or name]
            process = subprocess.Popen(
                [sys.executable, str(WORKER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._stack.callback(_end, process)
            self.processes[name] = process
            fresh.append(process)
        for process in fresh:
            assert process.stdout.readline() == b"ready\n"
        for process in fresh:
            process.stdin.write(b"go\n")
            process.stdin.flush()

    def events(self):
        """Return [what, run, generation, when] of everybody; a line that is being written is left out."""
        found = []
        for log in self._folder.glob("*.log"):
            found += [json.loads(line) for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        return found

    def generation(self):
        return max((generation for _, _, generation, _ in self.events()), default=0)

    def holder(self):
        """Return the process that took the lock last, once one has passed with it."""
        latest = self.generation()
        runs = {run for what, run, generation, _ in self.events() if generation == latest and what == "passed"}
        name = next(iter(runs)).partition(".")[0] if runs else None
        return name if name in self.processes else None

    def others(self, name):
        """Return what a process wrote down but the looks of one run after the other."""
        return [each for each in self.events() if each[0] != "passed" and each[1].startswith(f"{name}.")]

    def disturb(self):
        """Kill or stop whoever holds the lock, until somebody else has it; who was stopped goes on then."""
        name = _until(self.holder)
        before, kill, lines = self.generation(), self.random.random() < 0.5, len(self.others(name))
        process = self.processes[name]
        time.sleep(self.random.random() / 5)
        process.send_signal(signal.SIGKILL if kill else signal.SIGSTOP)
        if kill:
            del self.processes[name]
            self.killed += 1
            self.start(1)
        _until(lambda: self.generation() > before)
        if not kill:
            process.send_signal(signal.SIGCONT)
            self.stopped += 1
            _until(lambda: len(self.others(name)) > lines)


def _until(condition):
    """Wait for something that must come, however slow the machine is."""
    until = time.monotonic() + 250
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def _end(process):
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        pipe.close()


def judge(events):
    """No generation has two holders, and nobody passes once a later generation is held for certain."""
    held = [(generation, run, at) for what, run, generation, at in events if what == "held"]
    assert [generation for generation, times in Counter(each for each, _, _ in held).items() if times > 1] == []
    for what, run, generation, at in events:
        if what == "passed":
            late = [each for each in held if each[0] > generation and each[2] < at]
            assert not late, f"{run} of generation {generation} passed at {at}, after {late}"
    return len(held)


def race(url, tmp_path, *, processes, disturbances):
    seed = int(os.environ.get("CLUSTERGUARD_TEST_SEED", uuid.uuid4().int % 10**9))
    logs = tmp_path / "logs"
    logs.mkdir()
    store = open_store(url)
    stale = Lease(holder="dead", generation=7, lease_duration=3, renew_interval=0.3, host="elsewhere", pid=7)
    with store.put(LOCK_KEY) as writer:
        writer.write(stale.dump())
    with ExitStack() as stack:
        racers = Racers(stack, url, logs, seed)
        racers.start(processes - 2)
        racers.start(2, host="one machine")
        for _ in range(disturbances):
            racers.disturb()
        _until(lambda: racers.generation() > 7 + disturbances)
    events = racers.events()
    holds = judge(events)
    assert min(generation for what, _, generation, _ in events if what == "held") == 8
    assert "run-in-progress" in {what for what, _, _, _ in events}
    print(  # noqa: T201 - the counts, and how to see the same again
        f"seed {seed}: {holds} holds, {racers.killed} killed, {racers.stopped} stopped,"
        f" {dict(Counter(what for what, _, _, _ in events))}"
    )


def test_of_many_processes_one_holds_a_lock_whatever_becomes_of_it(url, tmp_path):
    race(url, tmp_path, processes=4, disturbances=4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_of_many_processes_one_holds_a_lock_at_length(url, tmp_path):
    race(url, tmp_path, processes=8, disturbances=100)


def test_the_judge_sees_two_holders():
    first, second = ["held", "a.0", 8, 1.0], ["held", "b.0", 9, 5.0]
    assert judge([first, ["passed", "a.0", 8, 4.9], second]) == 2
    for wrong in (["held", "b.1", 8, 2.0], ["passed", "a.0", 8, 5.1]):
        with pytest.raises(AssertionError):
            judge([first, second, wrong])
