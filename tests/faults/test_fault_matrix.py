"""Every fault at every call of every operation; what must hold afterwards is in invariants.py."""

from __future__ import annotations

import json
import os

import invariants
import pytest
from cells import SITES_FILE, chosen, every_cell, known_sites, seen_sites, strike
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
