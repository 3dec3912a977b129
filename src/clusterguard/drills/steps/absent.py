"""``absent``: hold while no such object exists."""

from __future__ import annotations

from clusterguard.documents.model import Omitted, Selector
from clusterguard.drills.steps.base import Look, StepContext
from clusterguard.drills.steps.selection import ObjectsOfOneKind, names_of
from clusterguard.drills.verdict import CheckResult


class Absent(ObjectsOfOneKind):
    """Hold while no such object exists."""

    phases = ("verify",)

    selector: Selector | Omitted = None
    """Objects by their labels."""

    def plan(self) -> str:
        return f"find no {self.selected()}"

    def check(self, here: StepContext, look: Look) -> CheckResult:
        found = self.find(here.api)
        some = f": {names_of(found)}" if found else ""
        return CheckResult(ok=not found, summary=f"{len(found)} {self.kind.partition('.')[0]} there{some}")
