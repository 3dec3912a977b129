"""``scale``: set the number of replicas."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from clusterguard.documents.model import Omitted, Selector
from clusterguard.drills.steps.base import StepContext
from clusterguard.drills.steps.selection import ObjectsOfOneKind, names_of
from clusterguard.errors import DrillError


class Scale(ObjectsOfOneKind):
    """Set the number of replicas."""

    phases = ("fault",)
    destructive = True

    selector: Selector | Omitted = None
    """Objects by their labels."""
    replicas: Annotated[int, Field(ge=0)]
    """The new number."""

    def plan(self) -> str:
        return f"scale {self.selected()} to {self.replicas}"

    def perform(self, here: StepContext) -> str:
        api = here.api
        resource = api.resource(self.kind)
        found = self.find(api)
        if not found:
            raise DrillError(f"`scale` selects no {self.selected()}", code="nothing-broken")
        for item in found:
            metadata = item["metadata"]
            api.scale(resource, metadata["name"], metadata.get("namespace"), replicas=self.replicas)
        return f"{names_of(found)} scaled to {self.replicas}"
