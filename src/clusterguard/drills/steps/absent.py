"""``absent``: hold while no such object exists."""

from __future__ import annotations

from pydantic import model_validator

from clusterguard.documents.model import Omitted, Selector
from clusterguard.drills.steps.base import Look, StepContext
from clusterguard.drills.steps.fields import check_namespace
from clusterguard.drills.steps.selection import ObjectsOfOneKind, names_of, select
from clusterguard.drills.verdict import CheckResult


class Absent(ObjectsOfOneKind):
    """Hold while no such object exists."""

    phases = ("verify",)

    selector: Selector | Omitted = None
    """Objects by their labels."""

    @model_validator(mode="after")
    def _sensible(self) -> Absent:
        self.need_one("name", "selector", optional=True)
        check_namespace(self, (self.kind,), needed=self.name is not None)
        return self

    def plan(self) -> str:
        return f"find no {self.selected()}"

    def check(self, here: StepContext, look: Look) -> CheckResult:
        api = here.api
        resource = api.resource(self.kind)
        names = (self.name,) if self.name else ()
        found = list(select(api, resource, namespace=self.namespace, names=names, selector=self.selector or ""))
        some = f": {names_of(found)}" if found else ""
        return CheckResult(ok=not found, summary=f"{len(found)} {resource.kind} there{some}")
