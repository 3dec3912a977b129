"""``copyBackup``: copy a backup from one storage to another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from clusterguard.documents.model import Label, wrong
from clusterguard.drills.steps.base import Action, StepContext
from clusterguard.errors import DrillError, SnapshotCorruptError

if TYPE_CHECKING:
    from clusterguard.drills.run import DrillRun


class CopyBackup(Action):
    """Copy a backup's objects from one storage to another, and compare their digests."""

    phases = ("backup",)
    on_a_cluster = False
    storage_fields = ("from_", "to")
    backup_field = "backup"

    backup: Label
    """The backup's name."""
    from_: Annotated[Label, Field(alias="from")]
    """The storage it is in."""
    to: Label
    """The storage that gets the copy."""

    @model_validator(mode="after")
    def _two_storages(self) -> CopyBackup:
        if self.from_ == self.to:
            raise wrong("`from` and `to` are the same storage", key="to")
        return self

    def plan(self) -> str:
        return f"copy backup `{self.backup}` from storage {self.from_} to {self.to}, and compare the digests"

    def perform(self, here: StepContext) -> str:
        return (
            self._copy_snapshot(here.run) if self.backup in here.run.snapshots else self._copy_velero_backup(here.run)
        )

    def _copy_snapshot(self, run: DrillRun) -> str:
        from clusterguard.stores.transfer import copy_object

        taken = run.snapshot(self.backup)
        if taken.store is not None:
            raise DrillError("`copyBackup` copies what this drill backed up; a policy copies its backups itself")
        source, target = run.store(self.from_), run.store(self.to)
        digest = copy_object(source, taken.record.key, target)
        if digest != taken.record.sha256:
            raise SnapshotCorruptError(
                f"the copy in `{self.to}` has sha256 {digest}, {taken.record.sha256} was recorded"
            )
        copy_object(source, f"{taken.record.name}.json", target)
        run.snapshots[self.backup] = replace(taken, storages=(*taken.storages, self.to))
        return f"copied to `{self.to}`, sha256 {digest[:16]}…"

    def _copy_velero_backup(self, run: DrillRun) -> str:
        from clusterguard.stores.transfer import copy_object

        taken = run.velero.taken(self.backup)
        source, target = (run.velero.bucket(taken.cluster, storage) for storage in (self.from_, self.to))
        folders = [f"backups/{taken.name}/", *(f"kopia/{namespace}/" for namespace in taken.repositories)]
        keys = [info.key for folder in folders for info in source.list(folder)]
        if not keys:
            raise DrillError(f"storage `{self.from_}` has no backup {taken.name}")
        for key in keys:
            copy_object(source, key, target)
        run.velero.backups[self.backup] = replace(taken, storages=(*taken.storages, self.to))
        return f"{len(keys)} file(s) copied to `{self.to}`"
