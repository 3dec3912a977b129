"""``etcdSnapshot``: save a snapshot of one etcd member."""

from __future__ import annotations

from clusterguard.documents.model import Label, Omitted
from clusterguard.drills.backups import TakenSnapshot, require_etcd
from clusterguard.drills.steps.base import Action, StepContext


class EtcdSnapshot(Action):
    """Save a snapshot of one etcd member, checked while it is written."""

    phases = ("backup",)
    storage_fields = ("storage",)
    engine = "etcd"

    name: Label
    """What later steps call it."""
    storage: Label | Omitted = None
    """A name from spec.storage; the run's own temporary store when left out."""

    def plan(self) -> str:
        where = f"storage {self.storage}" if self.storage else "the run's own store"
        return f"save an etcd snapshot as `{self.name}` in {where}, checked while it is written"

    def require(self, here: StepContext) -> None:
        require_etcd(here, lambda cluster: cluster.etcd)

    def perform(self, here: StepContext) -> str:
        access = here.cluster.etcd
        # In a store that others use, too, a drill's snapshots must not collide from run to run.
        name = self.name if self.storage is None else f"{self.name}-{here.run.run_id}"
        record = here.run.snapshotter(here.run.store(self.storage), access=access).save(name)
        here.run.snapshots[self.name] = TakenSnapshot(
            record=record, cluster=here.step.cluster, storages=(self.storage,)
        )
        remarks = "".join(f"; {remark.detail}" for remark in record.remarks)
        return f"revision {record.revision}, {record.total_keys:,} keys, {record.size:,} bytes{remarks}"
