"""A process that takes a policy's lock again and again, and writes down what it held: URL LOG HOST.

Each line is written at once, so that a process may be killed or stopped at any moment. The times are of one clock for
all processes of the machine.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from itertools import count
from pathlib import Path

from clusterguard.errors import ClusterGuardError
from clusterguard.policies.copies.locations import StorageLocation
from clusterguard.policies.policy import Location
from clusterguard.policies.runs.lease import LeaseTiming
from clusterguard.policies.runs.lock import RunLock
from clusterguard.process import elapsed
from clusterguard.stores import open_store

TIMING = LeaseTiming(renew_interval=0.3, lease_duration=3)
LOOKS = 40  # of one run, which takes about two seconds


class Clock(threading.local):
    """Remembers what it said last to each thread: a process that is stopped right after a look did not look later."""

    last = 0.0

    def __call__(self):
        self.last = elapsed()
        return self.last


def main(url, log, host):
    socket.gethostname = lambda: host  # one machine cannot tell whether another one's processes are dead
    store, clock = open_store(url), Clock()
    location = StorageLocation(policy="nightly", location=Location(name="here", url=url), root=store)
    line = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(event, lock, at):
        lease = lock._held["here"]._mine
        os.write(line, json.dumps([event, lease.holder, lease.generation, at]).encode() + b"\n")

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for number in count():
        lock = RunLock([location], run=f"{Path(log).stem}.{number}", timing=TIMING, clock=clock)
        try:
            lock.take(wait_seconds=1)
            write("held", lock, elapsed())
            for _ in range(LOOKS):
                time.sleep(0.05)
                lock.require("here")
                write("passed", lock, clock.last)
        except ClusterGuardError as error:
            os.write(line, json.dumps([error.code, f"{Path(log).stem}.{number}", 0, elapsed()]).encode() + b"\n")
        finally:
            lock.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
