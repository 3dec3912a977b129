"""``storedBackup``: take a backup that was there before the drill: a policy's etcd snapshot, or one of Velero's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from clusterguard.documents.model import Label, Model, Name, Omitted, Text, wrong
from clusterguard.documents.values import selects
from clusterguard.drills.backups import TakenBackup, TakenSnapshot
from clusterguard.drills.steps.base import Action, Engine, StepContext
from clusterguard.errors import DrillError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterguard.drills.stored import StoredSnapshot
    from clusterguard.model.inventory import Inventory, ObjectRef, Scope
    from clusterguard.snapshots.encryption import EncryptionKeys
    from clusterguard.stores.base import ObjectStore
    from clusterguard.velero.resources import Backup
    from clusterguard.velero.volume_infos import DataOf


class StoredVeleroBackup(Model):
    """A backup that Velero made before: by its name, or else the newest, of a schedule or at all."""

    backup: Name | Omitted = None
    """The backup's name."""
    schedule: Name | Omitted = None
    """The schedule whose newest backup is taken, whatever became of it."""
    storage: Label | Omitted = None
    """The bucket that it is in, a name from spec.storage; what the cluster's own Velero knows when left out."""
    volumes: Literal["none"] | Omitted = None
    """`none`: that the data of volumes is not in it was decided, and is no damage to `verifyBackup`."""

    @model_validator(mode="after")
    def _one_way_to_name_it(self) -> StoredVeleroBackup:
        self.need_one("backup", "schedule", optional=True)
        return self

    def words(self) -> str:
        """Return which one it is as the plan words it."""
        of_schedule = f" of schedule `{self.schedule}`" if self.schedule else ""
        which = f"Velero backup {self.backup}" if self.backup else f"the newest Velero backup{of_schedule}"
        return f"{which} {f'in storage {self.storage}' if self.storage else 'that the cluster knows'}"


class StoredBackup(Action):
    """Take a backup that was made before, such as last night's: the drill proves that very one."""

    phases = ("backup",)
    engine = "etcd"
    judges = True

    name: Label
    """What later steps call it."""
    policy: Text | Omitted = None
    """The policy file whose etcd snapshot is taken, relative to the drill file."""
    source: Label | Omitted = None
    """A name from the policy's sources."""
    backup: Text | Omitted = None
    """The snapshot's name; the newest one that is not known to be damaged when left out."""
    location: Label | Omitted = None
    """A name from the policy's locations; the first that has the snapshot when left out."""
    encryption_config: Text | Omitted = None
    """The EncryptionConfiguration of the API server that was backed up, relative to the drill file, where it encrypts
    at rest: `restored` compares with what the snapshot holds."""
    prefix: Text | Omitted = None
    """Of etcd's keys, `/registry` when left out; OpenShift has `/kubernetes.io`."""
    velero: StoredVeleroBackup | Omitted = None
    """A Velero backup in place of a policy's snapshot; `{}` is the newest that the cluster knows."""

    @model_validator(mode="after")
    def _one_engine(self) -> StoredBackup:
        self.need_one("policy", "velero")
        if self.policy and not self.source:
            raise wrong("a policy has sources: say which one, with `source`")
        if self.velero and (given := self.given("source", "backup", "location", "encryption_config", "prefix")):
            key = self.written(given[0])
            raise wrong(f"`{key}` is of a policy; what is said of Velero's backup belongs into `velero`", key=key)
        return self

    def works_with(self) -> Engine:
        return "velero" if self.velero else "etcd"

    def needs_cluster(self) -> bool:
        return not self.storages()

    def storages(self) -> Mapping[str, str]:
        return {"velero": self.velero.storage} if self.velero and self.velero.storage else {}

    def plan(self) -> str:
        if self.velero:
            return f"take {self.velero.words()} as `{self.name}`, if all of it can be restored"
        which = f"backup {self.backup}" if self.backup else "the newest backup"
        where = f" from its location `{self.location}`" if self.location else ""
        return f"take {which} of source `{self.source}` of {self.policy}{where} as `{self.name}`"

    def require(self, here: StepContext) -> None:
        if not self.velero:
            self._keys(here)  # one that cannot be read is told before anything is touched
            return
        if not self.velero.storage and here.run.creates(here.step.cluster):
            raise DrillError(
                f"{here.step.location}: cluster `{here.step.cluster}` is created by this run, and its Velero knows no "
                "backup; nothing was touched",
                code="stored-where",
                hint="name the bucket of the backup: storage, from spec.storage",
            )
        here.run.velero.require_supported(here.step.cluster)

    def prepare(self, here: StepContext) -> None:
        if self.velero and here.step.cluster in here.run.clusters:
            here.run.velero.client(here.step.cluster)

    def perform(self, here: StepContext) -> str:
        return self._take_velero_backup(here, self.velero) if self.velero else self._take_snapshot(here)

    def _take_snapshot(self, here: StepContext) -> str:
        if here.run.settings.stored is None:
            raise DrillError("nothing was set up to find the backups of policies", hint="pass DrillSettings(stored=…)")
        policy = here.run.drill.path.parent / str(self.policy)
        source = str(self.source)
        found = here.run.settings.stored(policy, source, backup=self.backup or "", location=self.location or "")
        record = found.record
        here.run.snapshots[self.name] = TakenSnapshot(record=record, store=found.store)
        in_scope = self._take_baseline(here, found) if here.run.drill.spec.compares_stored else ""
        return (
            f"{record.name} of {found.location}, taken {record.taken:%Y-%m-%d %H:%M:%S} UTC: "
            f"revision {record.revision}, {record.total_keys:,} keys, {record.size:,} bytes{in_scope}"
        )

    def _keys(self, here: StepContext) -> EncryptionKeys | None:
        if not self.encryption_config:
            return None
        from clusterguard.snapshots.encryption import EncryptionKeys

        return EncryptionKeys.load(here.run.drill.path.parent / self.encryption_config)

    def _take_baseline(self, here: StepContext, found: StoredSnapshot) -> str:
        """Read what the snapshot holds; it is the baseline of the clusters that it is the last one restored into."""
        from clusterguard.etcd.opening import open_snapshot
        from clusterguard.snapshots.inventory import snapshot_inventory
        from clusterguard.snapshots.reader import SnapshotReader

        run = here.run
        with (
            open_snapshot((found.store, found.record.key), scratch=run.settings.scratch) as opened,
            SnapshotReader(path=opened.path, prefix=self.prefix or "/registry", encryption=self._keys(here)) as reader,
        ):
            baseline = snapshot_inventory(reader, run.scope, taken=found.record.taken)
        if not baseline.objects:
            raise _nothing_in_scope(found.record.name)
        restores = (step for step in run.drill.phase("restore") if step.action.engine == "etcd")
        last = {step.cluster: getattr(step.action, step.action.backup_field) for step in restores}
        for cluster in {here.step.cluster, *last}:
            if last.get(cluster, self.name) == self.name:
                run.baselines[cluster] = baseline
        return f", {len(baseline.objects):,} objects in scope"

    def _take_velero_backup(self, here: StepContext, wanted: StoredVeleroBackup) -> str:
        from clusterguard.velero.existing_backups import require_restorable
        from clusterguard.velero.manifest import record_manifest

        velero, cluster = here.run.velero, here.step.cluster
        found, bucket = _find(here, wanted)
        require_restorable(found, now=datetime.now(UTC))
        baseline = _contents(bucket, found, here.run.scope)
        if not baseline.objects:
            raise _nothing_in_scope(found.name)
        velero.backups[self.name] = TakenBackup(
            name=found.name,
            cluster=cluster,
            storages=(wanted.storage,),
            **_data_of(bucket, found.name),
            volumes=wanted.volumes is None and found.options.snapshot_volumes is not False,
            location="" if wanted.storage else found.storage_location,
            existing=True,
            started=baseline.taken,
        )
        here.run.baselines[cluster] = baseline
        # What is verified, and restored, must be what the baseline was read from.
        record_manifest(bucket, found.name, into=here.run.store(None), now=datetime.now(UTC))
        return (
            f"{found.name}, begun {baseline.taken:%Y-%m-%d %H:%M:%S} UTC: {found.progress.done:,} object(s), "
            f"{len(baseline.objects):,} of them in scope"
        )


def _nothing_in_scope(name: str) -> DrillError:
    return DrillError(
        f"{name} has nothing of the scope, so the drill proves nothing", hint="correct spec.scope", code="scope-empty"
    )


def _find(here: StepContext, wanted: StoredVeleroBackup) -> tuple[Backup, ObjectStore]:
    """Return the backup, and the bucket that it is in, once the cluster's Velero can use that."""
    from clusterguard.velero.bucket import backups_in
    from clusterguard.velero.existing_backups import choose_backup

    velero, cluster = here.run.velero, here.step.cluster
    named = {"name": wanted.backup or "", "schedule": wanted.schedule or ""}
    if not wanted.storage:
        client = velero.client(cluster)
        found = choose_backup(client.backups(), **named, where=f"the Velero of cluster `{cluster}`")
        client.locations.require_available(found.storage_location, fresh=True)
        return found, velero.bucket_at(cluster, found.storage_location)
    bucket = velero.bucket(cluster, wanted.storage)
    found = choose_backup(backups_in(bucket, wanted.backup or ""), **named, where=f"storage `{wanted.storage}`")
    if cluster in here.run.clusters:  # one that starts in the restore phase is asked then
        velero.client(cluster)
        velero.require_not_elsewhere(cluster, found.name, velero.location(cluster, wanted.storage))
    return found, bucket


def _contents(bucket: ObjectStore, backup: Backup, scope: Scope) -> Inventory:
    """Return what a backup holds of a scope, without what a capture of a cluster leaves out, too."""
    from clusterguard.velero.bucket import as_inventory

    return as_inventory(bucket, backup.name, scope, leave_out=_leaving_out(scope, server=backup.namespace))


def _leaving_out(scope: Scope, *, server: str) -> Callable[[ObjectRef, Mapping[str, Any]], str | None]:
    """Return what leaves objects out; what is the Velero server's own comes with the Velero that restores them."""
    from clusterguard.validate.capture import rule_leaving_out

    def rule(ref: ObjectRef, item: Mapping[str, Any]) -> str | None:
        if not selects(scope.selector, item["metadata"].get("labels") or {}):
            return "other labels"
        named = scope.namespaces or scope.kinds
        if not named and (_namespace_of(ref) == server or ref.name.endswith(".velero.io")):
            return "Velero's own"
        return rule_leaving_out(ref, dict(item), scope)

    return rule


def _namespace_of(ref: ObjectRef) -> str:
    return ref.name if ref.full_kind == "Namespace" else ref.namespace


def _data_of(bucket: ObjectStore, name: str) -> DataOf:
    """Return where the data of its volumes is, by what Velero recorded of each."""
    from clusterguard.velero.layout import BackupFile, BackupLayout
    from clusterguard.velero.tarball import DEFAULT_LIMITS, read_document
    from clusterguard.velero.volume_infos import data_of, volume_records

    with bucket.get(BackupLayout(name).key(BackupFile.VOLUME_INFO)) as stream:
        return data_of(volume_records(read_document(stream, limits=DEFAULT_LIMITS)))
