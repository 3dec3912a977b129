"""``veleroBackup``: make a Velero backup."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from clusterguard.documents.model import Label, Omitted, Selector
from clusterguard.drills.backups import TakenBackup
from clusterguard.drills.steps.base import Action, Requirement, StepContext
from clusterguard.drills.steps.fields import Kind, limited_to


class VeleroBackup(Action):
    """Make a Velero backup and wait until it is complete."""

    phases = ("backup",)
    storage_fields = ("storage",)
    engine = "velero"

    name: Label
    """What later steps call it."""
    namespaces: tuple[Label, ...] = ()
    """What to back up; all namespaces when left out."""
    kinds: tuple[Kind, ...] = ()
    """Only these kinds, cluster-scoped ones among them; all kinds when left out."""
    selector: Selector | Omitted = None
    """Only objects with these labels."""
    cluster_scoped: bool | Omitted = None
    """true: all cluster-scoped objects; false: none; left out: those that the chosen namespaces need, all where no
    namespace is chosen."""
    storage: Label | Omitted = None
    """A name from spec.storage; Velero's default location when left out."""
    volumes: Literal["fileSystem"] | Omitted = None
    """`fileSystem`: the files of all claimed volumes of Pods, too; one that is left out fails the drill."""

    def plan(self) -> str:
        what = f"namespaces {', '.join(self.namespaces)}" if self.namespaces else "all namespaces"
        where = f"storage {self.storage}" if self.storage else "Velero's default location"
        volumes = ", with the files of every claimed volume," if self.volumes else ""
        return (
            f"make a Velero backup `{self.name}` of {what}{limited_to(self.kinds, self.selector)}{volumes} in {where}"
        )

    def requirements(self) -> frozenset[Requirement]:
        return frozenset({Requirement.CONTAINERS} if self.volumes else ())

    def require(self, here: StepContext) -> None:
        here.run.velero.require_supported(here.step.cluster)

    def prepare(self, here: StepContext) -> None:
        here.run.velero.client(here.step.cluster)

    def perform(self, here: StepContext) -> str:
        from clusterguard.drills.velero import label_selector, plurals
        from clusterguard.velero.manifest import record_manifest
        from clusterguard.velero.options import BackupOptions
        from clusterguard.velero.volumes import repositories_of, require_every_volume

        client = here.run.velero.client(here.step.cluster)
        name = f"{self.name}-{here.run.run_id}"
        # Known before it is made: where that fails, something of it may have to be cleaned up.
        taken = TakenBackup(name=name, cluster=here.step.cluster, storages=(self.storage,), volumes=bool(self.volumes))
        here.run.velero.backups[self.name] = taken
        done = client.back_up(
            name,
            BackupOptions(
                included_namespaces=self.namespaces,
                included_resources=plurals(client, self.kinds),
                label_selector=label_selector(self.selector),
                include_cluster_resources=self.cluster_scoped,
                default_volumes_to_fs_backup=True if self.volumes else None,
                storage_location=here.run.velero.location(here.step.cluster, self.storage),
            ),
            timeout_seconds=here.seconds,
        )
        bucket = here.run.velero.bucket(here.step.cluster, self.storage)
        outcome = client.outcome(done, bucket=bucket)
        if self.volumes:
            outcome = require_every_volume(
                outcome, client.objects, namespaces=self.namespaces, selector=self.selector or ""
            )
        outcome.raise_for_findings()
        here.run.velero.backups[self.name] = replace(taken, repositories=repositories_of(client.objects, name))
        record_manifest(bucket, name, into=here.run.store(None), now=datetime.now(UTC))
        return f"{done.progress.done} object(s) in backup {name}"
