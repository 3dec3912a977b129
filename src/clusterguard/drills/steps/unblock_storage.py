"""``unblockStorage``: make a blocked storage reachable again."""

from __future__ import annotations

from clusterguard.documents.model import Label
from clusterguard.drills.steps.base import Action, StepContext


class UnblockStorage(Action):
    """Make a blocked storage reachable again."""

    phases = ("cleanup",)
    on_a_cluster = False
    storage_fields = ("name",)

    name: Label
    """A name from spec.storage."""

    def plan(self) -> str:
        return f"make storage {self.name} reachable again"

    def perform(self, here: StepContext) -> str:
        here.run.storages.unblock(self.name)
        return f"storage `{self.name}` is reachable"
