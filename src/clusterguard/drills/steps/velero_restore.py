"""``veleroRestore``: restore a Velero backup."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clusterguard.documents.model import Label, Omitted, Selector
from clusterguard.drills.steps.base import Action, StepContext
from clusterguard.drills.steps.fields import Kind, limited_to


class VeleroRestore(Action):
    """Restore a Velero backup and wait until it is complete."""

    phases = ("restore",)
    storage_fields = ("storage",)
    engine = "velero"
    backup_field = "from_"

    from_: Annotated[Label, Field(alias="from")]
    """The name of a veleroBackup of the backup phase."""
    storage: Label | Omitted = None
    """The storage to restore from; the one that it was made in when left out."""
    namespaces: tuple[Label, ...] = ()
    """What to restore; all namespaces of the backup when left out."""
    kinds: tuple[Kind, ...] = ()
    """Only these kinds; all kinds when left out."""
    selector: Selector | Omitted = None
    """Only objects with these labels."""
    namespace_mapping: dict[Label, Label] = Field(default_factory=dict)
    """Old and new name of namespaces; what is verified is expected under the new one."""
    existing_resources: Literal["none", "update"] = "none"
    """`update`: objects that are there already are changed to what the backup has."""

    def plan(self) -> str:
        where = f" from storage {self.storage}" if self.storage else ""
        limits = f", only namespaces {', '.join(self.namespaces)}" if self.namespaces else ""
        limits += limited_to(self.kinds, self.selector)
        renamed = "".join(f", {old} as {new}" for old, new in self.namespace_mapping.items())
        update = ", changing what is there already" if self.existing_resources == "update" else ""
        return f"restore Velero backup `{self.from_}`{where}{limits}{renamed}{update}, and wait until it is complete"

    def require(self, here: StepContext) -> None:
        here.run.velero.require_supported(here.step.cluster)

    def perform(self, here: StepContext) -> str:
        from clusterguard.drills.velero import label_selector, plurals
        from clusterguard.velero.options import RestoreOptions
        from clusterguard.velero.resources import Backup
        from clusterguard.velero.volumes import require_all_restored

        velero = here.run.velero
        taken = velero.taken(self.from_)
        storage = self.storage or taken.storages[0]
        client = velero.client(here.step.cluster)
        location = velero.location(here.step.cluster, storage)
        client.locations.require_available(location, fresh=True)
        known = client.objects.find(Backup, taken.name)
        if known is not None and known.storage_location != location:
            # A name means one location to a server. This deletes the object and leaves the files where they are.
            client.objects.delete(known)
        client.adopt(taken.name, store=velero.bucket(here.step.cluster, storage), location=location)
        done = client.restore(
            taken.name,
            RestoreOptions(
                included_namespaces=self.namespaces,
                included_resources=plurals(client, self.kinds),
                label_selector=label_selector(self.selector),
                namespace_mapping=self.namespace_mapping or None,
                existing_resource_policy="update" if self.existing_resources == "update" else "",
            ),
            timeout_seconds=here.seconds,
        )
        outcome = client.outcome(done)
        if taken.repositories and not (self.kinds or self.selector or self.namespaces):
            outcome = require_all_restored(outcome, client.objects, backup=taken.name)
        outcome.raise_for_findings()
        counts = ", ".join(f"{number} {what}" for what, number in sorted(outcome.actions.items()))
        tolerated = f"; tolerated: {len(outcome.tolerated)}" if outcome.tolerated else ""
        return f"{counts or 'nothing'}{tolerated}"
