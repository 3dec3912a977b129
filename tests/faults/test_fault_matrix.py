"""Every fault at every call of every operation; what must hold afterwards is in invariants.py."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import invariants
import pytest
from cells import SITES_FILE, Cell, chosen, every_cell, known_sites, seen_sites, strike
from injector import Site
from invariants import Before
from operations import OPERATIONS
from worlds import World

pytestmark = [pytest.mark.programs, pytest.mark.timeout(300)]

CELLS = every_cell()
QUICK = chosen(CELLS)
WRITE_SITES = "CLUSTERGUARD_FAULT_SITES"


def test_every_call_of_an_undisturbed_operation_is_a_site(services, template, tmp_path):
    """Otherwise a new call would never be disturbed: CLUSTERGUARD_FAULT_SITES=1 writes sites.json anew."""
    seen = {}
    for name, operation in OPERATIONS.items():
        world = World.of(services, template, tmp_path / name.replace(" ", "-"))
        services.calm()
        command = world.run(*operation.words(world))
        assert command.code == 0, command.printed()
        seen[name] = seen_sites(command, services)
        world.close()
    if os.environ.get(WRITE_SITES):
        listed = {name: [[site.where, site.verb, site.what] for site in sites] for name, sites in seen.items()}
        lines = (
            f'  "{name}": [\n    ' + ",\n    ".join(map(json.dumps, sites)) + "\n  ]" for name, sites in listed.items()
        )
        SITES_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert seen == known_sites()


STOPPED = (
    Cell("copy", Site("disk", "create", "bytes"), "stop"),
    Cell("run", Site("s3", "put", "catalog"), "stop"),
    Cell("retain", Site("disk", "delete", "record"), "stop"),
    Cell("verify copies", Site("disk", "get", "bytes"), "stop"),
    Cell("save to S3", Site("s3", "create", "bytes"), "stop"),
)


@pytest.mark.slow
def test_two_minutes_of_standing_still_with_the_real_lease(services, template, tmp_path):
    """All of them at once: each in its own world, and none of them reaches a proxy that another one's fault is in."""
    services.calm()
    worlds = [World.of(services, template, tmp_path / str(number)) for number in range(len(STOPPED))]
    befores = [Before.of(world) for world in worlds]
    with ThreadPoolExecutor(len(STOPPED)) as pool:
        stop = partial(strike, lease=None, stopped_seconds=120)
        struck = list(pool.map(stop, STOPPED, worlds))
    for cell, world, before, each in zip(STOPPED, worlds, befores, struck, strict=True):
        wrong = invariants.after(world, before, OPERATIONS[cell.operation], each)
        wrong += invariants.recovered(world, before)
        assert not wrong, f"{cell}: " + "\n".join([*wrong, each.command.printed()])
        assert each.reached
        world.close()


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=str(cell), marks=() if cell in QUICK else pytest.mark.slow) for cell in CELLS]
)
def test_a_fault_costs_nothing_but_the_operation(cell, services, template, tmp_path, record_property):
    if cell.fault == "full" and services.small is None:
        pytest.skip("a small disk needs root, who may mount one")
    services.calm()
    operation = OPERATIONS[cell.operation]
    world = World.of(services, template, tmp_path / "world", on_small_disk=cell.on_small_disk)
    try:
        before = Before.of(world)
        struck = strike(cell, world)
        command = struck.command
        wrong = [] if struck.reached else ["the operation never called there"]
        wrong += invariants.after(world, before, operation.when_signalled() if cell.wants_signal else operation, struck)
        wrong += invariants.recovered(world, before, struck.plan)
        record_property("fault", [*cell.row, invariants.outcome(command.code), len(wrong)])
        assert not wrong, "\n".join([*wrong, command.printed()])
    finally:
        services.calm()
        world.close()
