"""``scale``: set the number of replicas."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from clusterguard.documents.model import Omitted, Selector
from clusterguard.drills.steps.base import StepContext
from clusterguard.drills.steps.fields import check_namespace
from clusterguard.drills.steps.selection import ObjectsOfOneKind, names_of, select
from clusterguard.errors import DrillError


class Scale(ObjectsOfOneKind):
    """Set the number of replicas."""

    phases = ("fault",)
    destructive = True

    selector: Selector | Omitted = None
    """Objects by their labels."""
    replicas: Annotated[int, Field(ge=0)]
    """The new number."""

    @model_validator(mode="after")
    def _sensible(self) -> Scale:
        self.need_one("name", "selector")
        check_namespace(self, (self.kind,), needed=True)
        return self

    def plan(self) -> str:
        return f"scale {self.selected()} to {self.replicas}"

    def perform(self, here: StepContext) -> str:
        api = here.api
        resource = api.resource(self.kind)
        names = (self.name,) if self.name else ()
        found = list(select(api, resource, namespace=self.namespace, names=names, selector=self.selector or ""))
        if not found:
            raise DrillError(f"`scale` selects no {self.selected()}")
        for item in found:
            metadata = item["metadata"]
            api.scale(resource, metadata["name"], metadata.get("namespace"), replicas=self.replicas)
        return f"{names_of(found)} scaled to {self.replicas}"
