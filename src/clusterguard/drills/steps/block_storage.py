"""``blockStorage``: cut a storage off."""

from __future__ import annotations

from clusterguard.documents.model import Label
from clusterguard.drills.steps.base import Action, StepContext


class BlockStorage(Action):
    """Make a storage unreachable: a copy that needs its original is no copy."""

    phases = ("fault",)
    destructive = True
    on_a_cluster = False
    storage_fields = ("name",)

    name: Label
    """A name from spec.storage."""

    def plan(self) -> str:
        return f"make storage {self.name} unreachable"

    def perform(self, here: StepContext) -> str:
        here.run.storages.block(self.name)
        return f"storage `{self.name}` is cut off"
