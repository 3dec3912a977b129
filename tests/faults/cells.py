"""The cells of the matrix: an operation, a site in it, a fault there; and how each fault is brought about."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import grpc_proxy
import psutil
from injector import FULL, SIGNAL_BACK, SIGNAL_FORWARD, STORE_FAULTS, Plan, Site, what_of
from invariants import Struck
from operations import OPERATIONS
from worlds import BUCKET

from s3_fault_proxy import Fault

SITES_FILE = Path(__file__).with_name("sites.json")
SCRATCH = Site("scratch", "write")
LEASE_SECONDS = 2.0
PATIENCE_SECONDS = 1.0
IN_PROCESS = ("kill", "kill after", "stop", "clock+1h", "clock-1h")
WRITING = ("put", "create", "replace")

_REFUSED, _AWAY = Fault(status=403, code="AccessDenied"), Fault(status=503, code="SlowDown")
_CHANGES = {"before": _AWAY, "refused": _REFUSED, "after": Fault(lose_answer=True), "hang": Fault(stall=True)}
_LOOKS = {"before": _AWAY, "refused": _REFUSED, "hang": Fault(stall=True)}
_ABSENT = Fault(status=404, code="NoSuchKey")
# What an S3 server can do to a verb, on the wire.
WIRE_FAULTS = {
    "get": {**_LOOKS, "middle": Fault(cut_after=100), "wrong": Fault(damage=True), "absent": _ABSENT},
    "stat": {**_LOOKS, "absent": _ABSENT},
    "list": {**_LOOKS, "middle": Fault(cut_after=100), "wrong": Fault(status=200, code="InternalError")},
    "put": {**_CHANGES, "wrong": Fault(damage=True)},
    "create": {**_CHANGES, "wrong": Fault(damage=True), "taken": Fault(status=412, code="PreconditionFailed")},
    "replace": {**_CHANGES, "wrong": Fault(damage=True), "taken": Fault(status=412, code="PreconditionFailed")},
    "delete": {**_CHANGES, "wrong": Fault(status=204, code="")},
}


@dataclass(frozen=True)
class Cell:
    """One fault at one site of one operation."""

    operation: str
    site: Site
    fault: str

    def __str__(self):
        return f"{self.operation}: {self.site}: {self.fault}"

    @property
    def row(self):
        return [self.operation, str(self.site), self.fault]

    @property
    def on_the_wire(self):
        return self.site.where in ("s3", "etcd") and self.fault not in IN_PROCESS

    @property
    def on_small_disk(self):
        return self.fault == FULL

    @property
    def wants_signal(self):
        """Whether it hangs where no time limit of ours can end it, so that somebody must."""
        return self.fault == "hang" and not self.on_the_wire


def faults_of(site):
    """Return what can go wrong at a site."""
    if site == SCRATCH:
        return (FULL,)
    if site.where == "etcd":
        return (*grpc_proxy.FAULTS, "kill", "stop", "clock+1h", "clock-1h")
    if site.where == "s3":
        own = [fault for fault in STORE_FAULTS[site.verb] if fault in IN_PROCESS]
        return (*WIRE_FAULTS[site.verb], *own)
    return (*STORE_FAULTS[site.verb], *((FULL,) if site.where == "disk" and site.verb in WRITING else ()))


def known_sites():
    """Return the sites of every operation, as an undisturbed run of each showed them."""
    return {name: [Site(*each) for each in sites] for name, sites in json.loads(SITES_FILE.read_text()).items()}


def every_cell():
    cells = [
        Cell(name, site, fault)
        for name, sites in known_sites().items()
        for site in (*sites, SCRATCH)
        for fault in faults_of(site)
    ]
    return sorted(cells, key=str)


def chosen(cells):
    """Return few cells that have each operation, each verb, and each fault at the port and on the wire."""
    quick, missing = [], {each for cell in cells for each in _shown(cell)}
    while missing:
        quick.append(max(cells, key=lambda cell: (len(_shown(cell) & missing), -_WORTH.index(cell.site.what))))
        missing -= _shown(quick[-1])
    return frozenset(quick)


# Whose faults could cost a backup come first.
_WORTH = ("bytes", "record", "lock", "catalog", "", "all", "audit")


def _shown(cell):
    wire = "wire" if cell.on_the_wire else "port"
    return {(cell.operation,), (cell.site.verb,), (wire, cell.fault)}


def seen_sites(command, services):
    """Return where an undisturbed command called, each site once; of like locations the first stands for all."""
    sites = {Site(*call[2:5]) for call in command.calls()} | {Site("etcd", verb) for verb in services.etcd.calls}
    return sorted(site for site in sites if site.where != "nas" or replace(site, where="disk") not in sites)


# ---- bringing it about -------------------------------------------------------------------------------------


def strike(cell, world, *, lease=LEASE_SECONDS, stopped_seconds=0.0):
    """Run the operation of a cell and let it suffer.

    Args:
        cell: What, and where.
        world: Its world.
        lease: Of the run lock where that matters, in seconds; None for the real one.
        stopped_seconds: How long it stands still at least.
    """
    plan = Plan(
        site=cell.site,
        fault=cell.fault,
        # A lock that nobody can read is watched for a whole lease.
        lease=lease if cell.fault == "stop" or cell.site.what == "lock" else None,
        patience=PATIENCE_SECONDS if cell.fault == "hang" and cell.on_the_wire else None,
        fill=str(world.services.small / "scratch") if cell.site == SCRATCH else "",
    )
    words = OPERATIONS[cell.operation].words(world)
    if cell.site.where == "etcd":
        return _strike_etcd(cell, world, plan, words)
    if cell.on_the_wire:
        return _strike_s3(cell, world, plan, words)
    environ = {"TMPDIR": plan.fill} if plan.fill else {}
    command = world.start(*words, plan=plan, **environ)
    if cell.wants_signal and command.wait_until_reached():
        command.send(stable_signal(cell))
        command.go()
    if cell.fault == "stop" and command.wait_until_reached():
        return _while_stopped(cell, world, command, plan, stopped_seconds)
    command.wait()
    return Struck(command, plan, reached=plan.site == SCRATCH or _called(command, cell.site))


def _called(command, site):
    return any(Site(*call[2:5]) == site for call in command.calls())


def _strike_s3(cell, world, plan, words):
    hits = []
    world.services.s3.decide = lasting_decision(cell, hits)
    command = world.run(*words, plan=replace(plan, site=None, fault=""))
    return Struck(command, plan, reached=bool(hits))


def stable_signal(cell):
    """Return one of the two signals that tell a command to end."""
    return signal.SIGTERM if len(str(cell)) % 2 else signal.SIGINT


def lasting_decision(cell, hits):
    """Return what an S3 server does to requests; each that it harms is added to the hits."""
    fault = WIRE_FAULTS[cell.site.verb][cell.fault]
    # An answer that is lost or wrong is one answer; a server that is away is away for all that it is asked.
    once = cell.fault in ("after", "wrong", "absent", "taken")

    def decide(request):
        if site_of(request) != cell.site or (once and hits):
            return None
        hits.append(request)
        return fault

    return decide


def site_of(request):
    """Return which verb of a store a request is, on what kind of object."""
    url = urlsplit(request.path)
    query, key = parse_qs(url.query, keep_blank_values=True), unquote(url.path).removeprefix(f"/{BUCKET}/")
    headers = {name.lower() for name in request.headers}
    if request.method == "GET" and "list-type" in query:
        return Site("s3", "list", what_of(query.get("prefix", [""])[0]))
    if request.method == "PUT":
        verb = "create" if "if-none-match" in headers else "replace" if "if-match" in headers else "put"
    else:
        verb = {"GET": "get", "HEAD": "stat", "DELETE": "delete"}.get(request.method, request.method)
    return Site("s3", verb, what_of(key))


_SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "clock+1h": SIGNAL_FORWARD,
    "clock-1h": SIGNAL_BACK,
}


def _strike_etcd(cell, world, plan, words):
    started, struck = [], []

    def strike_once():
        if not struck and cell.fault in _SIGNALS:
            while not started:
                time.sleep(0.001)
            started[0].send(_SIGNALS[cell.fault])
        struck.append(cell.fault)

    proxy = world.services.etcd
    wire = "" if cell.fault in _SIGNALS else cell.fault
    proxy.set(cell.site.verb, wire, strike_once)
    started.append(world.start(*words, plan=replace(plan, site=None, fault="")))
    command = started[0]
    if cell.fault == "stop":
        wait_until_stopped(command.pid)
        proxy.set()
        return _while_stopped(cell, world, command, plan)
    command.wait()
    return Struck(command, plan, reached=bool(struck))


def wait_until_stopped(pid):
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.002)


def _while_stopped(cell, world, command, plan, stopped_seconds=0.0):
    """Let another run take over while a command stands still, and let the command go on under its eyes."""
    wait_until_stopped(command.pid)
    until = time.monotonic() + stopped_seconds
    other = None
    if OPERATIONS[cell.operation].locked:
        held = Site("disk", "list", "all")  # the first thing that a run does once it holds every lock
        other = world.start(
            *("run", "policy.yaml", "--json", "--wait", "5m"), plan=Plan(site=held, fault="hang", lease=plan.lease)
        )
        assert other.wait_until_reached(), other.printed()
    time.sleep(max(0.0, until - time.monotonic()))
    taken_over = time.monotonic_ns()
    os.kill(command.pid, signal.SIGCONT)
    command.wait()
    if other is not None:
        other.go()
        other.wait()
    return Struck(command, plan, reached=True, other=other, taken_over=taken_over)
