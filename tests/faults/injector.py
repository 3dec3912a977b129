"""What goes wrong, and where: the plan of one fault, and the injector that carries it out inside the process.

A *site* is one kind of call: which location, which verb, on what kind of object. An injector follows a plan of at most
one fault at one site, and takes down every call, so that the sites of an operation are known and not guessed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import time_machine

from clusterguard.errors import ClusterError, ObjectExistsError, ObjectNotFoundError, StoreUnavailableError

BALLAST = "ballast"
HOUR = timedelta(hours=1)
SIGNAL_FORWARD, SIGNAL_BACK = signal.SIGUSR1, signal.SIGUSR2

# What a verb can suffer at the store's port. `before` and `middle` stay until the end, as a location that is away does;
# every other fault happens once.
READS = ("before", "hang", "absent", "kill", "stop", "clock+1h", "clock-1h")
WRITES = ("before", "after", "middle", "hang", "wrong", "kill", "kill after", "stop", "clock+1h", "clock-1h")
STORE_FAULTS = {
    "get": ("middle", "wrong", *READS),
    "stat": ("wrong", *READS),
    "list": ("middle", *READS),
    "put": WRITES,
    "create": (*WRITES, "taken"),
    "replace": (*WRITES, "taken"),
    "delete": ("before", "after", "hang", "wrong", "kill", "kill after", "stop", "clock+1h", "clock-1h"),
}
LASTING = ("before", "middle")
# What a step of a control plane's restore can suffer; its disk is full for that step.
FULL = "full"
NODE_FAULTS = ("before", "after", "hang", "kill", "kill after", "stop", "clock+1h", "clock-1h")
NODE_STEPS = (
    "check",
    "prepare",
    "stop",
    "swap_in",
    "start_etcd",
    "start_api",
    "commit",
    "start_controllers",
    "clean_up",
)
_SMALL_FILE = 1 << 20


@dataclass(frozen=True, order=True)
class Site:
    """One kind of call, such as ``disk create lock`` or ``etcd status``."""

    where: str
    verb: str
    what: str = ""

    def __str__(self):
        return " ".join(filter(None, (self.where, self.verb, self.what)))


@dataclass(frozen=True)
class Plan:
    """What the process under test shall suffer, and which waits are cut short for it.

    ``lease`` and ``patience`` are seconds: of the locks, and of everything that waits for a server. ``fill`` is a
    folder whose disk is full from the beginning, ``etcd`` where embedded clusters find their etcd.
    """

    site: Site | None = None
    fault: str = ""
    lease: float | None = None
    patience: float | None = None
    fill: str = ""
    etcd: str = ""

    def to_json(self):
        return {**vars(self), "site": vars(self.site) if self.site else None}

    @classmethod
    def from_json(cls, document):
        site = document["site"]
        return cls(**{**document, "site": Site(**site) if site else None})


def what_of(key):
    """Return the kind of an object by its key, or of what a listing is about by its prefix."""
    folder, _, name = key.rpartition("/")
    if "audit" in folder:
        return "audit"
    if folder.endswith(".clusterguard"):
        return name.removesuffix(".json")
    if name.endswith(".json"):
        return "record"
    return "bytes" if name else "all"


def step_clock(by):
    """Set the wall clock of this process; what measures durations does not notice, as in a real step."""
    time_machine.travel(datetime.now(UTC) + by, tick=True).start()


class Injector:
    """Carries a plan out. ``say`` tells the test what happened, ``await_go`` waits for it."""

    def __init__(self, plan, *, folder, say, await_go):
        self.plan = plan
        self._say = say
        self._await_go = await_go
        self._used = False
        self._guard = threading.Lock()
        self._calls = os.open(folder / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if plan.fill:
            fill_disk(Path(plan.fill))

    def begin(self, site, key):
        """Take a call down and suffer what comes before it; return the fault that the call itself must suffer."""
        line = [time.monotonic_ns(), os.getpid(), site.where, site.verb, site.what, key]
        os.write(self._calls, json.dumps(line).encode() + b"\n")
        fault = self._due(site)
        if fault == "before":
            raise injected("before", site)
        if fault == "stop":
            self._say({"reached": str(site)})
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault.startswith("clock"):
            step_clock(HOUR if fault == "clock+1h" else -HOUR)
        return fault

    def _due(self, site):
        with self._guard:
            if site != self.plan.site or (self._used and self.plan.fault not in LASTING):
                return ""
            self._used = True
            return self.plan.fault

    def hang(self):
        self._say({"reached": "hang"})
        self._await_go()

    def now(self, fault):
        """Suffer what comes in the middle of a call, or instead of it."""
        if fault == "hang":
            self.hang()
        elif fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

    def end(self, fault, site):
        """Suffer what comes after a call that did its work."""
        if fault == "after":
            raise injected("after", site)
        if fault == "kill after":
            os.kill(os.getpid(), signal.SIGKILL)


class Faulty:
    """A mixin over a real store: every verb asks the injector first. The store below does the work, and is real."""

    injector: Injector

    @property
    def where(self):
        raise NotImplementedError

    def site(self, verb, key):
        return Site(self.where, verb, what_of(key))

    @contextmanager
    def put(self, key, *, overwrite=False, **more):
        site = self.site("replace" if more.get("if_version") is not None else "put" if overwrite else "create", key)
        fault = self.injector.begin(site, key)
        if fault == "taken":
            raise taken(site)
        if fault == FULL:
            fill_disk(self._root)
        with super().put(key, overwrite=overwrite, **more) as writer:
            yield Writer(writer, fault, site)
            self.injector.now(fault)
        self.injector.end(fault, site)

    @contextmanager
    def get(self, key):
        site = self.site("get", key)
        fault = self.injector.begin(site, key)
        refuse_absent(fault, site)
        with super().get(key) as reader:
            self.injector.now(fault)
            yield Reader(reader, fault, site)

    def stat(self, key):
        site = self.site("stat", key)
        fault = self.injector.begin(site, key)
        self.injector.now(fault)
        refuse_absent(fault, site)
        info = super().stat(key)
        return replace(info, size=info.size + 1) if fault == "wrong" else info

    def list(self, prefix=""):
        site = self.site("list", prefix)
        fault = self.injector.begin(site, prefix)
        self.injector.now(fault)
        for number, info in enumerate(super().list(prefix)):
            if number or fault != "absent":
                yield info
            if fault == "middle":
                raise injected("in the middle of", site)

    def delete(self, key):
        site = self.site("delete", key)
        fault = self.injector.begin(site, key)
        self.injector.now(fault)
        if fault != "wrong":
            super().delete(key)
        self.injector.end(fault, site)


class Writer:
    def __init__(self, writer, fault, site):
        self._writer, self._fault, self._site = writer, fault, site

    def write(self, data, /):
        if self._fault == "middle":
            self._writer.write(bytes(data[: len(data) // 2]))
            raise injected("in the middle of", self._site)
        if self._fault == "wrong":
            self._fault, data = "", damaged(bytes(data))
        self._writer.write(data)


class Reader:
    def __init__(self, reader, fault, site):
        self._reader, self._fault, self._site = reader, fault, site

    def read(self, size=-1, /):
        if self._fault == "broken":
            raise injected("in the middle of", self._site)
        data = self._reader.read(size)
        if self._fault == "middle":
            self._fault = "broken"
            return data[: max(1, len(data) // 2)]
        if self._fault == "wrong":
            self._fault = ""
            return damaged(data)
        return data


def damaged(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


def injected(when, site):
    return (ClusterError if site.where == "node" else StoreUnavailableError)(f"injected {when} {site}")


def taken(site):
    if site.verb == "create":
        return ObjectExistsError(f"injected: {site} is taken")
    from clusterguard.errors import ObjectChangedError

    return ObjectChangedError(f"injected: {site} has changed")


def refuse_absent(fault, site):
    if fault == "absent":
        raise ObjectNotFoundError(f"injected: {site} is not there")


def fill_disk(folder):
    """Leave no byte free on the disk of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = next(each for each in (folder, *folder.parents) if each.is_mount())
    with (disk / BALLAST).open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(64 << 10)):
            pass
    with (disk / BALLAST).open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(64)):
            pass


# ---- in the process under test -----------------------------------------------------------------------------


def install(plan, *, folder, say, await_go):
    """Let every store that this process opens from now on follow a plan, and cut its waits short."""
    from clusterguard.stores import location, s3
    from clusterguard.stores.local import LocalStore
    from clusterguard.stores.s3 import S3Store

    following = Injector(plan, folder=folder, say=say, await_go=await_go)

    class FaultyFolder(Faulty, LocalStore):
        injector = following

        @property
        def where(self):
            return self._root.name

        def local_path(self, key):
            site = self.site("get", key)
            fault = self.injector.begin(site, key)
            self.injector.now(fault)
            refuse_absent(fault, site)
            if fault == "middle":
                raise injected("in the middle of", site)
            path = super().local_path(key)
            if fault == "wrong":
                other = self._root / "damaged"
                other.write_bytes(damaged(path.read_bytes()))
                return other
            return path

    class FaultyBucket(Faulty, S3Store):
        injector = following

        @property
        def where(self):
            return "s3"

    location.LocalStore = FaultyFolder
    s3.S3Store = FaultyBucket
    _disturb_nodes(following)
    if plan.etcd:
        _reach_etcd_by(plan.etcd)
    signal.signal(SIGNAL_FORWARD, lambda *_: step_clock(HOUR))
    signal.signal(SIGNAL_BACK, lambda *_: step_clock(-HOUR))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _cut_waits_short(plan)


def _disturb_nodes(injector):
    """Let each step of an embedded control plane's restore ask the injector first."""
    from clusterguard.clusters.embedded.control_plane import EmbeddedControlPlane

    def disturbed(name, real):
        def step(self, *args, **options):
            site = Site("node", name)
            fault = injector.begin(site, name)
            injector.now(fault)
            with small_files() if fault == FULL else nullcontext():
                result = real(self, *args, **options)
            injector.end(fault, site)
            return result

        return step

    for name in NODE_STEPS:
        setattr(EmbeddedControlPlane, name, disturbed(name, getattr(EmbeddedControlPlane, name)))


@contextmanager
def small_files():
    """Let no file grow beyond a megabyte, in this process or in those that it starts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_SMALL_FILE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _reach_etcd_by(endpoint):
    from clusterguard.clusters.embedded import EmbeddedCluster

    real = EmbeddedCluster.etcd
    EmbeddedCluster.etcd = property(lambda self: replace(real.fget(self), endpoints=(endpoint,)))


def _cut_waits_short(plan):
    from clusterguard.stores.s3 import S3Store

    if plan.lease is not None:
        from clusterguard.clusters.lock import ClusterLock
        from clusterguard.policies.runs.lock import LeaseTiming

        shorten(LeaseTiming.__init__, renew_interval=plan.lease / 10, lease_duration=plan.lease)
        shorten(ClusterLock.__init__, duration_seconds=plan.lease)
    if plan.patience is not None:
        shorten(S3Store.__init__, read_timeout_seconds=plan.patience, attempts=1)
        _shorten_etcd(plan.patience)
    from botocore.retries import standard

    standard.ExponentialBackoff.delay_amount = lambda *_: 0.01


def _shorten_etcd(seconds):
    from clusterguard.etcd.member import EtcdMember

    shorten(EtcdMember.__init__, timeout_seconds=seconds)
    shorten(EtcdMember.stream_snapshot, stall_seconds=seconds)


def shorten(function, **seconds):
    """Change defaults of keyword-only parameters; a name that is not there any more is an error."""
    defaults = function.__kwdefaults__
    assert seconds.keys() <= defaults.keys(), f"{function.__qualname__} has {sorted(defaults)}"
    defaults |= seconds
