"""Restores of a real control plane that suffer at every call and step: the cluster works afterwards, in one state."""

from __future__ import annotations

import os
import signal

import invariants
import pytest
from cells import (
    IN_PROCESS,
    LEASE_SECONDS,
    PATIENCE_SECONDS,
    SCRATCH,
    WIRE_FAULTS,
    Cell,
    lasting_decision,
    stable_signal,
    wait_until_stopped,
)
from injector import FULL, NODE_FAULTS, NODE_STEPS, STORE_FAULTS, Plan, Site
from restores import nothing_in_plain

pytestmark = [pytest.mark.programs, pytest.mark.timeout(600)]

NAME, SNAPSHOT, PREFIX = "kept", "before-the-fault", "restores"
READS = (Site("disk", "get", "record"), Site("disk", "stat", "bytes"), Site("disk", "get", "bytes"))
WIRE_READS = (Site("s3", "get", "record"), Site("s3", "stat", "bytes"), Site("s3", "get", "bytes"))
CONNECTIONS = tuple(Site("etcd", str(number)) for number in (1, 2, 3))
CONNECTION_FAULTS = ("before", "middle", "hang", "wrong")
# What a restore does not come back from by itself is not its own: its state is proven by then.
PROVEN = ("commit", "start_controllers", "clean_up")


def every_cell():
    sites = {site: STORE_FAULTS[site.verb] for site in READS}
    sites |= {site: (*WIRE_FAULTS[site.verb], *IN_PROCESS_READS) for site in WIRE_READS}
    sites |= dict.fromkeys(CONNECTIONS, CONNECTION_FAULTS)
    sites |= {Site("node", step): NODE_FAULTS for step in NODE_STEPS}
    sites[Site("node", "prepare")] += (FULL,)
    sites[Site("node", "start_etcd")] += (FULL,)
    sites[SCRATCH] = (FULL,)
    return [Cell("restore", site, fault) for site, faults in sites.items() for fault in faults]


IN_PROCESS_READS = tuple(fault for fault in STORE_FAULTS["get"] if fault in IN_PROCESS)
QUICK = {
    "restore: disk get bytes: wrong",
    "restore: node start_api: before",
    "restore: node swap_in: kill after",
}
CELLS = every_cell()


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=str(cell), marks=() if str(cell) in QUICK else pytest.mark.slow) for cell in CELLS]
)
def test_a_fault_leaves_one_state_that_works(cell, restorable, record_property):
    if cell.site == SCRATCH and restorable.services.small is None:
        pytest.skip("a small disk needs root, who may mount one")
    restorable.services.calm()
    restorable.etcd.set()
    restorable.make_old()
    command, reached = strike(cell, restorable)
    restorable.services.calm()
    restorable.etcd.set()
    wrong = [*right_end(cell, command, reached, restorable), *invariants.no_crash(restorable, command)]
    wrong += nothing_in_plain(restorable)
    record_property("fault", [*cell.row, invariants.outcome(command.code), len(wrong)])
    assert not wrong, "\n".join([*wrong, command.printed()])


def strike(cell, restorable):
    """Run a restore and let it suffer; return it, and whether it came to where it should."""
    wire, site = cell.on_the_wire, cell.site
    services, hits = restorable.services, []
    plan = Plan(
        site=None if wire else site,
        fault="" if wire else cell.fault,
        etcd=restorable.etcd.endpoint if site.where == "etcd" else "",
        lease=LEASE_SECONDS if cell.fault == "stop" else None,
        patience=PATIENCE_SECONDS if wire and cell.fault == "hang" else None,
        fill=str(services.small / "scratch") if site == SCRATCH else "",
    )
    if site.where == "etcd":
        restorable.etcd.set(site.verb, cell.fault, lambda: hits.append(site))
    elif wire:
        services.s3.decide = lasting_decision(cell, hits)
    where = "s3" if site.where == "s3" or site == SCRATCH else "disk"
    command = restorable.restore(where, plan=plan, **({"TMPDIR": plan.fill} if plan.fill else {}))
    if cell.wants_signal and command.wait_until_reached():
        command.send(stable_signal(cell))
        command.go()
    elif cell.fault == "stop" and command.wait_until_reached():
        wait_until_stopped(command.pid)
        second = restorable.restore(plan=Plan(lease=LEASE_SECONDS))
        hits += [] if second.wait() == 2 else [f"a second restore at the same time ended with {second.code}"]
        os.kill(command.pid, signal.SIGCONT)
    command.wait()
    called = any(Site(*call[2:5]) == site for call in command.calls())
    return command, bool(hits) or site == SCRATCH or called


def right_end(cell, command, reached, restorable):
    """Return what is wrong with the exit code, or with the state that goes with it, now and after a recovery."""
    if not reached:
        yield "the restore never called there"
    code, live = command.code, None
    if code == 0:
        live = restorable.state()
        if live != "restored":
            yield f"exit code 0, and the state is {live}"
    allowed = {0: {"restored"}, 2: {"old"}}.get(code, {"old", "restored"})
    # While one that reads stands still, another one restores, and this one finds that it lost the cluster's lock.
    if code == 2 and (cell.site.verb in PROVEN or (cell.fault == "stop" and cell.site.where != "node")):
        allowed = {"old", "restored"}
    restorable.recover()
    after = restorable.state()
    if after not in allowed:
        yield f"ended with {code}, and after a recovery the state is {after}"
    if live is not None and after != live:
        yield f"the recovery made {after} of {live}"
    wanted = {130, 143} if cell.wants_signal else {-9} if cell.fault.startswith("kill") else {0, 2}
    if code not in wanted:
        yield f"ended with {code}, not {wanted}"
