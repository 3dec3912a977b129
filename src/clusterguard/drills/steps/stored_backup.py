"""``storedBackup``: take an etcd snapshot that a policy made."""

from __future__ import annotations

from clusterguard.documents.model import Label, Omitted, Text
from clusterguard.drills.backups import TakenSnapshot
from clusterguard.drills.steps.base import Action, StepContext
from clusterguard.errors import DrillError


class StoredBackup(Action):
    """Take an etcd snapshot that a policy made before, such as last night's: the drill proves that very one."""

    phases = ("backup",)
    engine = "etcd"

    name: Label
    """What later steps call it."""
    policy: Text
    """The policy file, relative to the drill file."""
    source: Label
    """A name from the policy's sources."""
    backup: Text | Omitted = None
    """The backup's name; the newest one that is not known to be damaged when left out."""
    location: Label | Omitted = None
    """A name from the policy's locations; the first that has the backup when left out."""

    def plan(self) -> str:
        which = f"backup {self.backup}" if self.backup else "the newest backup"
        where = f" from its location `{self.location}`" if self.location else ""
        return f"take {which} of source `{self.source}` of {self.policy}{where} as `{self.name}`"

    def perform(self, here: StepContext) -> str:
        if here.run.settings.stored is None:
            raise DrillError("nothing was set up to find the backups of policies", hint="pass DrillSettings(stored=…)")
        policy = here.run.drill.path.parent / self.policy
        found = here.run.settings.stored(policy, self.source, backup=self.backup or "", location=self.location or "")
        record = found.record
        here.run.snapshots[self.name] = TakenSnapshot(record=record, store=found.store)
        return (
            f"{record.name} of {found.location}, taken {record.taken:%Y-%m-%d %H:%M:%S} UTC: "
            f"revision {record.revision}, {record.total_keys:,} keys, {record.size:,} bytes"
        )
