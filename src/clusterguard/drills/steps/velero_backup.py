"""``veleroBackup``: make a Velero backup."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from clusterguard.documents.model import Duration, Label, Omitted, Text, wrong
from clusterguard.documents.values import duration_text
from clusterguard.drills.backups import TakenBackup
from clusterguard.drills.events import Note
from clusterguard.drills.steps.base import Requirement, StepContext
from clusterguard.drills.steps.fields import Kind
from clusterguard.drills.steps.velero_selection import VeleroSelection
from clusterguard.velero.findings import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from clusterguard.velero.claims import ClaimedVolume
    from clusterguard.velero.client import VeleroClient
    from clusterguard.velero.options import BackupOptions
    from clusterguard.velero.outcome import BackupOutcome

Way: TypeAlias = Literal["fileSystem", "snapshot", "move"]


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
    volumes: Way | Omitted = None
    """The data of all claimed volumes, too; one that is left out fails the drill. `fileSystem`: the files of Pods that
    run; `snapshot`: CSI snapshots, which stay in the cluster's storage; `move`: their data moved into the bucket."""
    ttl: Duration | Omitted = None
    """How long Velero keeps it; 30 days by its default. A run removes what it made in any case."""
    ordered_resources: dict[Kind, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Objects of a kind to back up first, in this order, as `NAMESPACE/NAME`."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        for key in ("snapshotVolumes", "snapshotMoveData"):
            if self.volumes and key in self.extra:
                raise wrong(f"`volumes: {self.volumes}` says that already, without `{key}`", key="extra")
        return self

    @property
    def _not_counted(self) -> AbstractSet[Rule]:
        """What does not count: of a backup that nobody wants the data of volumes in, that it is not in it."""
        unasked = not self.options({}).asks_for_volumes
        return self.tolerated | ({Rule.VOLUME_LEFT_OUT} if unasked else frozenset())

    def plan(self) -> str:
        what = f"namespaces {', '.join(self.namespaces)}" if self.namespaces else "all namespaces"
        where = f"storage {self.storage}" if self.storage else "Velero's default location"
        volumes = f", with {_IN_WORDS[self.volumes]}," if self.volumes else ""
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
            **_ASKED.get(self.volumes or "", {}),
            ttl=self.ttl,
        )

    def requirements(self) -> frozenset[Requirement]:
        needed = {Requirement.CONTAINERS} if self.volumes else set()
        needed |= {Requirement.SNAPSHOTS} if self.volumes in {"snapshot", "move"} else set()
        return super().requirements() | needed

    def require(self, here: StepContext) -> None:
        here.run.velero.require_supported(here.step.cluster)

    def prepare(self, here: StepContext) -> None:
        client = here.run.velero.client(here.step.cluster)
        if self.volumes in {"snapshot", "move"}:
            chosen = self.chosen(client, lambda: _namespaces(client))
            # Rules for volumes may give those of no CSI driver another way; what the backup holds of them will tell.
            found = self._claims(client, self.options(chosen))
            claims = tuple(each for each in found if each.driver or not self.resource_policy)
            here.run.velero.require_snapshots(here.step.cluster, claims, move=self.volumes == "move")

    def _claims(self, client: VeleroClient, options: BackupOptions) -> tuple[ClaimedVolume, ...]:
        from clusterguard.velero.claims import claimed_volumes

        namespaces = _searched(client, options)
        return claimed_volumes(client.objects.api, namespaces=namespaces, selector=self.selector or "")

    def perform(self, here: StepContext) -> str:
        from clusterguard.drills.velero import plurals
        from clusterguard.velero.manifest import record_manifest
        from clusterguard.velero.volume_infos import data_of

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
        outcome = client.outcome(done, tolerate=self._not_counted, bucket=bucket)
        if self.volumes:
            outcome = self._with_volumes(here, client, outcome, options)
        tolerated = self.accept(here, outcome)
        if done.phase.has_contents:
            here.run.velero.backups[self.name] = replace(taken, **data_of(outcome.volumes))
            record_manifest(bucket, name, into=here.run.store(None), now=datetime.now(UTC))
        return f"{self.ended(done.phase)}{done.progress.done} object(s) in backup {name}{tolerated}"

    def _with_volumes(
        self, here: StepContext, client: VeleroClient, outcome: BackupOutcome, options: BackupOptions
    ) -> BackupOutcome:
        """Return the outcome with what is wrong with the data of volumes."""
        from clusterguard.drills.unkept import not_kept
        from clusterguard.velero.volumes import require_every_claim, require_every_volume, with_findings

        claims = self._claims(client, options)
        if self.volumes == "fileSystem":
            outcome = require_every_volume(
                outcome, client.objects, namespaces=_searched(client, options), selector=self.selector or ""
            )
        else:
            moved = self.volumes == "move"
            outcome = require_every_claim(outcome, claims, moved=moved, tolerate=self.tolerated)
        if self.volumes == "snapshot":
            return outcome
        findings, unseen = not_kept(client.objects.api, claims, seconds=here.run.at_least(here.seconds, _LOOK_SECONDS))
        for each in unseen:
            here.run.on_event(Note(text=f"whether the mover keeps all of its files is not known: {each}"))
        return with_findings(outcome, findings, tolerate=self.tolerated)


_LOOK_SECONDS: Final = 60.0
_IN_WORDS: Final = {
    "fileSystem": "the files of every claimed volume",
    "snapshot": "a CSI snapshot of every claimed volume",
    "move": "the data of every claimed volume moved into the bucket",
}
_ASKED: Final[Mapping[str, Mapping[str, Any]]] = {
    "fileSystem": {"default_volumes_to_fs_backup": True},
    # A server may be set to move data, or to back up files, by itself.
    "snapshot": {"snapshot_volumes": True, "snapshot_move_data": False, "default_volumes_to_fs_backup": False},
    "move": {"snapshot_volumes": True, "snapshot_move_data": True, "default_volumes_to_fs_backup": False},
}


def _namespaces(client: VeleroClient) -> Sequence[str]:
    api = client.objects.api
    return [item["metadata"]["name"] for item in api.list(api.resource("Namespace"))]


def _searched(client: VeleroClient, options: BackupOptions) -> tuple[str, ...]:
    """Return the namespaces whose volumes must be in a backup; none means all."""
    if not options.excluded_namespaces:
        return options.included_namespaces
    names = options.included_namespaces or _namespaces(client)
    return tuple(name for name in names if name not in options.excluded_namespaces)
