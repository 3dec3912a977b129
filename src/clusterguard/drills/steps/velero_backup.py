"""``veleroBackup``: make a Velero backup."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from clusterguard.documents.model import Duration, Label, Omitted, Text
from clusterguard.documents.values import duration_text
from clusterguard.drills.backups import TakenBackup
from clusterguard.drills.steps.base import Requirement, StepContext
from clusterguard.drills.steps.fields import Kind
from clusterguard.drills.steps.velero_selection import VeleroSelection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterguard.velero.client import VeleroClient
    from clusterguard.velero.options import BackupOptions


class VeleroBackup(VeleroSelection):
    """Make a Velero backup and wait until it is complete."""

    phases = ("backup",)
    storage_fields = ("storage",)
    engine = "velero"
    own_keys: ClassVar[dict[str, str]] = {
        **VeleroSelection.own_keys,
        "storageLocation": "storage",
        "defaultVolumesToFsBackup": "volumes",
        "ttl": "ttl",
        "orderedResources": "orderedResources",
    }

    name: Label
    """What later steps call it."""
    storage: Label | Omitted = None
    """A name from spec.storage; Velero's default location when left out."""
    volumes: Literal["fileSystem"] | Omitted = None
    """`fileSystem`: the files of all claimed volumes of Pods, too; one that is left out fails the drill."""
    ttl: Duration | Omitted = None
    """How long Velero keeps it; 30 days by its default. A run removes what it made in any case."""
    ordered_resources: dict[Kind, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Objects of a kind to back up first, in this order, as `NAMESPACE/NAME`."""

    def plan(self) -> str:
        what = f"namespaces {', '.join(self.namespaces)}" if self.namespaces else "all namespaces"
        where = f"storage {self.storage}" if self.storage else "Velero's default location"
        volumes = ", with the files of every claimed volume," if self.volumes else ""
        return f"make a Velero backup `{self.name}` of {what}{self.limits()}{volumes} in {where}"

    def _limits(self) -> Iterator[str]:
        yield from super()._limits()
        for kind, names in self.ordered_resources.items():
            yield f"{kind} {', '.join(names)} first"
        if self.ttl:
            yield f"kept for {duration_text(self.ttl)}"

    def options(self, chosen: Mapping[str, Any]) -> BackupOptions:
        from clusterguard.velero.options import BackupOptions

        return replace(
            BackupOptions.from_spec(self.extra),
            **self.asked(chosen),
            default_volumes_to_fs_backup=True if self.volumes else None,
            ttl=self.ttl,
        )

    def requirements(self) -> frozenset[Requirement]:
        return super().requirements() | ({Requirement.CONTAINERS} if self.volumes else frozenset())

    def require(self, here: StepContext) -> None:
        here.run.velero.require_supported(here.step.cluster)

    def prepare(self, here: StepContext) -> None:
        here.run.velero.client(here.step.cluster)

    def perform(self, here: StepContext) -> str:
        from clusterguard.drills.velero import plurals
        from clusterguard.velero.manifest import record_manifest
        from clusterguard.velero.volumes import repositories_of, require_every_volume

        client = here.run.velero.client(here.step.cluster)
        name = f"{self.name}-{here.run.run_id}"
        kinds = plurals(client, tuple(self.ordered_resources))
        chosen = self.chosen(client, lambda: _namespaces(client)) | {
            "ordered_resources": dict(zip(kinds, self.ordered_resources.values(), strict=True)) or None,
            "storage_location": here.run.velero.location(here.step.cluster, self.storage),
        }
        options = self.options(chosen)
        # Known before it is made: where that fails, something of it may have to be cleaned up.
        taken = TakenBackup(
            name=name,
            cluster=here.step.cluster,
            storages=(self.storage,),
            volumes=options.asks_for_volumes,
            expect=self.expect or "",
            tolerated=self.tolerated,
        )
        here.run.velero.backups[self.name] = taken
        done = client.wait(client.back_up(name, options, wait=False), timeout_seconds=here.seconds)
        bucket = here.run.velero.bucket(here.step.cluster, self.storage)
        outcome = client.outcome(done, tolerate=self.tolerated, bucket=bucket)
        if self.volumes:
            outcome = require_every_volume(
                outcome, client.objects, namespaces=_searched(client, options), selector=self.selector or ""
            )
        tolerated = self.accept(here, outcome)
        if done.phase.has_contents:
            here.run.velero.backups[self.name] = replace(taken, repositories=repositories_of(client.objects, name))
            record_manifest(bucket, name, into=here.run.store(None), now=datetime.now(UTC))
        return f"{self.ended(done.phase)}{done.progress.done} object(s) in backup {name}{tolerated}"


def _namespaces(client: VeleroClient) -> Sequence[str]:
    api = client.objects.api
    return [item["metadata"]["name"] for item in api.list(api.resource("Namespace"))]


def _searched(client: VeleroClient, options: BackupOptions) -> tuple[str, ...]:
    """Return the namespaces whose volumes must be in a backup; none means all."""
    if not options.excluded_namespaces:
        return options.included_namespaces
    names = options.included_namespaces or _namespaces(client)
    return tuple(name for name in names if name not in options.excluded_namespaces)
