"""Velero's custom resources as typed models.

Each keeps the manifest that it was read from, so nothing that a newer server adds (a field, a phase) is lost; a
field that is missing or malformed has its default, which never means success. Source of the fields: Velero's
CustomResourceDefinitions, ``velero.io/v1`` and ``velero.io/v2alpha1``, as of Velero 1.18.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SkipValidation,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from clusterguard.velero.layout import plural_of
from clusterguard.velero.phases import (
    BackupPhase,
    LocationPhase,
    RequestPhase,
    RestorePhase,
    SchedulePhase,
    TransferPhase,
)

if TYPE_CHECKING:
    from clusterguard.velero.options import BackupOptions, RestoreOptions

__all__ = [
    "Backup",
    "BackupRepository",
    "BackupStorageLocation",
    "DataDownload",
    "DataUpload",
    "DeleteBackupRequest",
    "DownloadKind",
    "DownloadRequest",
    "ItemProgress",
    "PodVolumeBackup",
    "PodVolumeRestore",
    "Restore",
    "Schedule",
    "ServerPlugin",
    "ServerStatusRequest",
    "VeleroObject",
    "VolumeSnapshotLocation",
    "VolumeTransfer",
    "valid_label",
]

Manifest: TypeAlias = Mapping[str, Any]


def _utc(value: object) -> datetime:
    """Read a time in RFC 3339, as Kubernetes writes it."""
    if not isinstance(value, str):
        raise ValueError("not a time")  # noqa: TRY004 - pydantic takes a ValueError for its own
    found = datetime.fromisoformat(value)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


Time: TypeAlias = Annotated[datetime, PlainValidator(_utc)]


def _at(path: str, default: Any = None) -> Any:  # noqa: ANN401 - a field of any type
    """Return a field that is read from a path of the manifest, such as ``status.phase``."""
    return Field(default, validation_alias=AliasPath(*path.split(".")))


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _malformed_is_unset(cls, value: object, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:  # noqa: ANN401 - a field of any type
        try:
            return read(value)
        except ValidationError:
            return cls.model_fields[str(info.field_name)].get_default(call_default_factory=True)


class VeleroObject(_Lenient):
    """One of Velero's custom resources.

    Attributes:
        manifest: The whole object as the API server or the bucket gave it; never changed.
        spec: Its ``spec`` as it is.
        status: Its ``status`` as it is; empty until the server has looked at the object.
        created: None before it exists.
        being_deleted: Whether its deletion has been requested.
    """

    kind: ClassVar[str]
    plural: ClassVar[str]
    version: ClassVar[str] = "v1"

    manifest: SkipValidation[Manifest]
    metadata: dict[str, Any] = _at("metadata", {})
    spec: dict[str, Any] = _at("spec", {})
    status: dict[str, Any] = _at("status", {})
    name: str = _at("metadata.name", "")
    namespace: str = _at("metadata.namespace", "")
    uid: str = _at("metadata.uid", "")
    labels: dict[str, str] = _at("metadata.labels", {})
    annotations: dict[str, str] = _at("metadata.annotations", {})
    created: Time | None = _at("metadata.creationTimestamp")

    def __init_subclass__(cls, **settings: Any) -> None:  # noqa: ANN401 - pydantic's
        super().__init_subclass__(**settings)
        cls.kind, cls.plural = cls.__name__, plural_of(cls.__name__)

    @model_validator(mode="before")
    @classmethod
    def _keep_manifest(cls, manifest: Manifest) -> Manifest:
        return {**manifest, "manifest": manifest}

    @classmethod
    def new(
        cls,
        *,
        namespace: str,
        name: str = "",
        generate_name: str = "",
        spec: Manifest | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Return an object that does not exist yet."""
        metadata: dict[str, Any] = {"namespace": namespace}
        metadata |= {"name": name} if name else {"generateName": generate_name}
        metadata |= {"labels": dict(labels)} if labels else {}
        metadata |= {"annotations": dict(annotations)} if annotations else {}
        head = {"apiVersion": f"velero.io/{cls.version}", "kind": cls.kind}
        return cls.model_validate({**head, "metadata": metadata, "spec": dict(spec or {})})

    @property
    def being_deleted(self) -> bool:
        """Whether its deletion has been requested."""
        return bool(self.metadata.get("deletionTimestamp"))

    def __str__(self) -> str:
        phase = self.status.get("phase")
        return f"{self.kind} {self.name}" + (f" ({phase})" if phase else "")

    def __repr__(self) -> str:
        return f"<{self}>"


class ItemProgress(_Lenient):
    """How many objects are processed; ``total`` grows while Velero still finds more."""

    done: int = Field(0, validation_alias=AliasChoices("itemsBackedUp", "itemsRestored"))
    total: int = Field(0, validation_alias="totalItems")


class _Run(VeleroObject):
    """What backups and restores have in common."""

    warnings: int = _at("status.warnings", 0)
    errors: int = _at("status.errors", 0)
    failure_reason: str = _at("status.failureReason", "")
    validation_errors: tuple[str, ...] = _at("status.validationErrors", ())
    started: Time | None = _at("status.startTimestamp")
    completed: Time | None = _at("status.completionTimestamp")
    hooks_attempted: int = _at("status.hookStatus.hooksAttempted", 0)
    hooks_failed: int = _at("status.hookStatus.hooksFailed", 0)
    progress: ItemProgress = _at("status.progress", ItemProgress())


class Backup(_Run):
    """A backup of API objects, and of volumes where that was requested.

    Attributes:
        storage_location: Empty until the server has chosen the default one.
        expires: When Velero may delete it.
        format_version: Of its files in the bucket: ``1.1.0``.
        queue_position: 0 when it is not queued.
        item_operations_failed: How many asynchronous operations of plugins (data movers, mostly) failed.
    """

    phase: BackupPhase = _at("status.phase", BackupPhase.NEW)
    storage_location: str = _at("spec.storageLocation", "")
    expires: Time | None = _at("status.expiration")
    format_version: str = _at("status.formatVersion", "")
    queue_position: int = _at("status.queuePosition", 0)
    item_operations_failed: int = _at("status.backupItemOperationsFailed", 0)

    def expires_by(self, moment: datetime) -> bool:
        """Return whether Velero may delete it by a moment, UTC; False where it does not say when it expires."""
        return self.expires is not None and self.expires <= moment

    @property
    def source_version(self) -> str:
        """Of the API server that it is of, such as ``v1.36.3``; empty where it does not say so."""
        return self.annotations.get("velero.io/source-cluster-k8s-gitversion", "")

    @property
    def options(self) -> BackupOptions:
        """What was requested, with the server's defaults filled in once it began."""
        from clusterguard.velero.options import BackupOptions  # reading a bucket does without

        return BackupOptions.from_spec(self.spec, labels=self.labels, annotations=self.annotations)

    @property
    def schedule(self) -> str:
        """The schedule that made it, or nothing."""
        return self.labels.get("velero.io/schedule-name", "")


class Restore(_Run):
    """A restore from one backup.

    Attributes:
        backup_name: Of a restore from a schedule, once the server has chosen a backup.
        schedule: The schedule whose latest backup it restores, or that made the backup, or nothing.
        item_operations_failed: How many asynchronous operations of plugins (data movers, mostly) failed.
    """

    phase: RestorePhase = _at("status.phase", RestorePhase.NEW)
    backup_name: str = _at("spec.backupName", "")
    schedule: str = _at("spec.scheduleName", "")
    item_operations_failed: int = _at("status.restoreItemOperationsFailed", 0)

    @property
    def options(self) -> RestoreOptions:
        """What was requested; once it began, the kinds that Velero never restores are among the excluded ones."""
        from clusterguard.velero.options import RestoreOptions

        return RestoreOptions.from_spec(self.spec, labels=self.labels, annotations=self.annotations)


class Schedule(VeleroObject):
    """Makes backups at fixed times.

    Attributes:
        cron: Five cron fields in UTC, or ``@every 1h``.
    """

    phase: SchedulePhase = _at("status.phase", SchedulePhase.NEW)
    cron: str = _at("spec.schedule", "")
    paused: bool = _at("spec.paused", default=False)
    last_backup: Time | None = _at("status.lastBackup")
    validation_errors: tuple[str, ...] = _at("status.validationErrors", ())
    template: dict[str, Any] = _at("spec.template", {})
    template_labels: dict[str, str] = _at("spec.template.metadata.labels", {})

    @property
    def options(self) -> BackupOptions:
        """What its backups are requested with."""
        from clusterguard.velero.options import BackupOptions

        labels = self.template_labels or self.labels
        return BackupOptions.from_spec(self.template, labels=labels, annotations=self.annotations)


class BackupStorageLocation(VeleroObject):
    """A bucket, or a part of one, that holds backups.

    Attributes:
        phase: As of Velero's last look.
        message: Why it cannot be used.
        provider: The plugin for it: ``aws``, ``velero.io/aws``.
        ca_cert: Base64 of PEM certificates, or nothing.
        config: The plugin's settings: ``region``, ``s3Url``, ``s3ForcePathStyle`` and the like.
        default: Whether it takes the backups that name no location.
        last_validated: When Velero last looked, in whole seconds.
    """

    phase: LocationPhase = _at("status.phase", LocationPhase.NEW)
    message: str = _at("status.message", "")
    provider: str = _at("spec.provider", "")
    bucket: str = _at("spec.objectStorage.bucket", "")
    prefix: Annotated[str, AfterValidator(lambda text: text.strip("/"))] = _at("spec.objectStorage.prefix", "")
    ca_cert: str = _at("spec.objectStorage.caCert", "")
    config: dict[str, str] = _at("spec.config", {})
    default: bool = _at("spec.default", default=False)
    last_validated: Time | None = _at("status.lastValidationTime")

    @property
    def credential(self) -> tuple[str, str] | None:
        """The Secret and the key in it that hold the credentials, or None for the server's own."""
        found = self.spec.get("credential")
        return (str(found.get("name", "")), str(found.get("key", ""))) if found else None

    @property
    def read_only(self) -> bool:
        """Whether Velero may neither write to it nor delete from it."""
        return self.spec.get("accessMode") == "ReadOnly"


class VolumeSnapshotLocation(VeleroObject):
    """Where a provider keeps native snapshots of volumes."""

    provider: str = _at("spec.provider", "")


class DeleteBackupRequest(VeleroObject):
    """Requests the deletion of a backup with everything it has in the bucket.

    Attributes:
        errors: Why it could not be deleted.
    """

    phase: RequestPhase = _at("status.phase", RequestPhase.NEW)
    errors: tuple[str, ...] = _at("status.errors", ())


class DownloadRequest(VeleroObject):
    """Requests a URL of one file of a backup or restore.

    Attributes:
        phase: Stays ``New`` for a backup or a location that does not exist.
        url: Signed: whoever has it can read the file until it expires.
    """

    phase: RequestPhase = _at("status.phase", RequestPhase.NEW)
    url: str = _at("status.downloadURL", "")


class DownloadKind(StrEnum):
    """The files that a DownloadRequest can name."""

    BACKUP_LOG = "BackupLog"
    BACKUP_CONTENTS = "BackupContents"
    BACKUP_RESULTS = "BackupResults"
    BACKUP_RESOURCE_LIST = "BackupResourceList"
    BACKUP_VOLUME_INFOS = "BackupVolumeInfos"
    RESTORE_LOG = "RestoreLog"
    RESTORE_RESULTS = "RestoreResults"
    RESTORE_RESOURCE_LIST = "RestoreResourceList"
    RESTORE_VOLUME_INFO = "RestoreVolumeInfo"

    @property
    def of_restore(self) -> bool:
        """Whether it is a file of a restore, not of a backup."""
        return self.value.startswith("Restore")

    @property
    def what(self) -> str:
        """In words: ``log``, ``resource list``."""
        return re.sub(r"([A-Z])", r" \1", self.value.removeprefix("Backup").removeprefix("Restore")).strip().lower()


class ServerPlugin(NamedTuple):
    """One plugin of a server: ``velero.io/aws``, ``ObjectStore``."""

    name: str
    kind: str


class ServerStatusRequest(VeleroObject):
    """Asks the server whether it is running, and for its version and plugins.

    Attributes:
        server_version: Such as ``v1.18.3``.
        plugins: In the order of their names; the server lists some of them twice.
    """

    phase: RequestPhase = _at("status.phase", RequestPhase.NEW)
    server_version: str = _at("status.serverVersion", "")
    plugins: Annotated[tuple[ServerPlugin, ...], AfterValidator(lambda found: tuple(sorted(set(found))))] = _at(
        "status.plugins", ()
    )


class BackupRepository(VeleroObject):
    """The kopia repository of one namespace's volumes in one location."""


class VolumeTransfer(VeleroObject):
    """The transfer of one volume's files, in either direction.

    Attributes:
        message: What went wrong.
        bytes_total: 0 while that is unknown.
    """

    phase: TransferPhase = _at("status.phase", TransferPhase.NEW)
    message: str = _at("status.message", "")
    bytes_done: int = _at("status.progress.bytesDone", 0)
    bytes_total: int = _at("status.progress.totalBytes", 0)
    pod: dict[str, str] = _at("spec.pod", {})
    target: dict[str, str] = _at("spec.targetVolume", {})

    @property
    def volume(self) -> str:
        """Which volume: ``shop/db-0:data``, or ``shop/data-db-0`` of a snapshot's data."""
        if self.pod:
            return f"{self.pod.get('namespace', '')}/{self.pod.get('name', '')}:{self.spec.get('volume', '')}"
        if self.target:
            return f"{self.target.get('namespace', '')}/{self.target.get('pvc', '')}"
        return f"{self.spec.get('sourceNamespace', '')}/{self.spec.get('sourcePVC', '')}"


class PodVolumeBackup(VolumeTransfer):
    """A backup of one pod's volume by its files."""


class PodVolumeRestore(VolumeTransfer):
    """A restore of one pod's volume by its files."""


class DataUpload(VolumeTransfer):
    """The move of one volume snapshot's data into a location."""

    version = "v2alpha1"


class DataDownload(VolumeTransfer):
    """The move of one volume's data out of a location."""

    version = "v2alpha1"


_LONGEST_LABEL = 63


def valid_label(name: str) -> str:
    """Return a name as Velero puts it into a label: longer ones than 63 characters are cut, with a hash's start."""
    return name if len(name) <= _LONGEST_LABEL else name[: _LONGEST_LABEL - 6] + sha256(name.encode()).hexdigest()[:6]
