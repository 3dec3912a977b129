"""``veleroRestore``: restore a Velero backup."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from clusterguard.documents.model import Label, Name, Omitted
from clusterguard.drills.steps.base import StepContext
from clusterguard.drills.steps.stored_backup import StoredBackup
from clusterguard.drills.steps.velero_selection import VeleroSelection
from clusterguard.errors import RestoreFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.backups import TakenBackup
    from clusterguard.drills.schema import DrillSpec, Step
    from clusterguard.velero.client import VeleroClient
    from clusterguard.velero.options import RestoreOptions
    from clusterguard.velero.outcome import RestoreOutcome


_READY_SECONDS: Final = 60.0  # of storage, for snapshots that it has; what it knows nothing of it refuses at once


class VeleroRestore(VeleroSelection):
    """Restore a Velero backup and wait until it is complete."""

    phases = ("restore",)
    storage_fields = ("storage",)
    engine = "velero"
    backup_field = "from_"
    own_keys: ClassVar[dict[str, str]] = {
        **VeleroSelection.own_keys,
        "backupName": "from",
        "scheduleName": "from",
        "namespaceMapping": "namespaceMapping",
        "existingResourcePolicy": "existingResources",
        "preserveNodePorts": "preserveNodePorts",
        "resourceModifier": "resourceModifier",
    }

    from_: Annotated[Label, Field(alias="from")]
    """The name of a veleroBackup of the backup phase, or of a storedBackup of Velero's."""
    storage: Label | Omitted = None
    """The storage to restore from; the one that it was made in when left out."""
    namespace_mapping: dict[Label, Label] = Field(default_factory=dict)
    """Old and new name of namespaces; what is verified is expected under the new one."""
    existing_resources: Literal["none", "update"] = "none"
    """`update`: objects that are there already are changed to what the backup has."""
    preserve_node_ports: bool | Omitted = None
    """true: Services keep their node ports; left out: only those that their owner wrote into a manifest."""
    resource_modifier: Name | Omitted = None
    """A ConfigMap in Velero's namespace with patches that restored objects get."""

    def plan(self) -> str:
        where = f" from storage {self.storage}" if self.storage else ""
        only = f", only namespaces {', '.join(self.namespaces)}" if self.namespaces else ""
        return f"restore Velero backup `{self.from_}`{where}{only}{self.limits()}, and wait until it is complete"

    def _limits(self) -> Iterator[str]:
        yield from super()._limits()
        yield from (f"{old} as {new}" for old, new in self.namespace_mapping.items())
        if self.existing_resources == "update":
            yield "changing what is there already"
        if self.preserve_node_ports is not None:
            yield f"{'keeping' if self.preserve_node_ports else 'without'} node ports"
        if self.resource_modifier:
            yield f"patched as ConfigMap {self.resource_modifier} says"

    def options(self, chosen: Mapping[str, Any]) -> RestoreOptions:
        from clusterguard.velero.options import RestoreOptions

        return replace(
            RestoreOptions.from_spec(self.extra),
            **self.asked(chosen),
            namespace_mapping=self.namespace_mapping or None,
            existing_resource_policy="update" if self.existing_resources == "update" else "",
            preserve_node_ports=self.preserve_node_ports,
            resource_modifier=self.resource_modifier or "",
        )

    def problems(self, spec: DrillSpec, step: Step) -> Iterator[tuple[DataPath, str]]:
        clusters = spec.effective_clusters
        for made in spec.backup:
            if not isinstance(made.action, StoredBackup) or made.action.name != self.from_ or self.storage:
                continue
            here, there = (each.cluster or next(iter(clusters)) for each in (step, made))
            if here != there and not made.action.storages():
                yield (
                    ("from",),
                    f"the backup is in a location of `{there}`; for `{here}` name the `storage` that it is in",
                )

    def require(self, here: StepContext) -> None:
        here.run.velero.require_supported(here.step.cluster)

    def perform(self, here: StepContext) -> str:
        from clusterguard.velero.bucket import namespaces_in_backup
        from clusterguard.velero.csi import require_server
        from clusterguard.velero.volumes import require_all_restored, require_claims_restored

        velero = here.run.velero
        taken = velero.taken(self.from_)
        client = velero.client(here.step.cluster)
        location = velero.location_of(here.step.cluster, taken, self.storage)
        bucket = velero.bucket_of(here.step.cluster, taken, self.storage)
        by_snapshots = bool(taken.snapshots or taken.moved)
        if by_snapshots:
            require_server(client.objects, moves_data=bool(taken.moved))
        client.locations.require_available(location, fresh=True)
        self._forget_elsewhere(here, client, taken, location)
        client.adopt(taken.name, store=bucket, location=location)
        options = self.options(self.chosen(client, lambda: namespaces_in_backup(bucket, taken.name)))
        name = velero.restore_name(here.step.cluster, taken, bucket)
        with velero.restoring(here.step.cluster) as namespaces:
            started = client.restore(taken.name, options, name=name, wait=False)
            done = client.wait(started, timeout_seconds=here.seconds)
            outcome = client.outcome(done, tolerate=self.tolerated)
            namespaces.update(outcome.created_namespaces)
        if by_snapshots and self.takes_all:
            outcome = require_claims_restored(
                outcome, client.objects, snapshots=taken.snapshots, moved=taken.moved, wait_seconds=_READY_SECONDS
            )
        if taken.files and self.takes_all:
            outcome = require_all_restored(outcome, client.objects, backup=taken.name)
        tolerated = self.accept(here, outcome)
        if taken.existing or here.run.without_markers:
            brings = _brings_back(here, outcome)
            here.run.brought_back |= brings
            if taken.existing and not brings:
                raise _brought_nothing(outcome)
        counts = ", ".join(f"{number} {what}" for what, number in sorted(outcome.actions.items()))
        return f"{self.ended(done.phase)}{counts or 'nothing'}{tolerated}"

    def _forget_elsewhere(self, here: StepContext, client: VeleroClient, taken: TakenBackup, location: str) -> None:
        """Let the server forget a backup that it knows from another location: a name means one location to it."""
        from clusterguard.velero.resources import Backup

        cluster = here.step.cluster
        if taken.existing and not here.run.owns(cluster):
            here.run.velero.require_not_elsewhere(cluster, taken.name, location)
        known = client.objects.find(Backup, taken.name)
        if known is not None and known.storage_location != location:
            # This deletes the object and leaves the files where they are.
            client.objects.delete(known)


def _brings_back(here: StepContext, outcome: RestoreOutcome) -> bool:
    """Return whether a restore lists something of the scope as created or updated."""
    wanted = here.run.baseline_for(here.step).objects
    return any(item.action in {"created", "updated"} and item.ref in wanted for item in outcome.items)


def _brought_nothing(outcome: RestoreOutcome) -> RestoreFailedError:
    """Return the error for a restore of a backup that is older than the run, so that no marker is in it."""
    return RestoreFailedError(
        f"restore {outcome.name} created and updated nothing of the scope",
        phase=outcome.phase,
        hint="whatever of it is there was there before; does the restore leave it out?",
    )
