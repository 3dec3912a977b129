"""The operations that are disturbed, and every site at which they can be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import invariants

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Operation:
    """One command line.

    ``done`` and ``refused`` say what exit code 0 and 1 need; ``signalled`` that it was told to end.
    """

    name: str
    words: Callable[[object], list[str]]
    done: Callable = invariants.nothing_more
    refused: Callable = invariants.never
    locked: bool = False
    signalled: bool = False

    def when_signalled(self):
        return replace(self, signalled=True)


def step(*parts):
    return lambda world: ["run", "policy.yaml", "--json", *(word for part in parts for word in ("--step", part))]


def on(where, verb, *words):
    return lambda world: ["etcd", verb, *words, "--store", world.store(where), "--endpoints",
                          world.services.etcd.endpoint, "--json"]  # fmt: skip


OPERATIONS = {
    each.name: each
    for each in (
        Operation("save to a folder", on("disk", "save", "third"), invariants.saved),
        Operation("save to S3", on("s3", "save", "third"), invariants.saved),
        Operation("verify in a folder", on("disk", "verify", "second"), refused=invariants.only_if_it_lied),
        Operation("verify in S3", on("s3", "verify", "second"), refused=invariants.only_if_it_lied),
        Operation("copy", step("backup"), invariants.backed_up, invariants.failed_step, locked=True),
        Operation("verify copies", step("verify"), refused=invariants.failed_step, locked=True),
        Operation("retain", step("retain"), invariants.removed, invariants.failed_step, locked=True),
        Operation("run", step(), invariants.backed_up, invariants.failed_step, locked=True),
    )
}
