"""Velero's nouns: typed views of its custom resources, and what a backup or a restore can be asked for.

A view copies nothing out of the manifest it shows, so what a newer server adds (a field, a phase) is still in
it. Source of the fields: Velero's custom resource definitions, ``velero.io/v1`` and ``velero.io/v2alpha1``, as of
Velero 1.18.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, TypeVar

from clusterguard.model.backup_options import BackupOptions, RestoreOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Backup",
    "BackupPhase",
    "BackupRepository",
    "BackupStorageLocation",
    "DataDownload",
    "DataUpload",
    "DeleteBackupRequest",
    "DownloadKind",
    "DownloadRequest",
    "ItemProgress",
    "LocationPhase",
    "PodVolumeBackup",
    "PodVolumeRestore",
    "RepositoryPhase",
    "RequestPhase",
    "Restore",
    "RestorePhase",
    "Schedule",
    "SchedulePhase",
    "ServerPlugin",
    "ServerStatusRequest",
    "TransferPhase",
    "VeleroObject",
    "VolumeSnapshotLocation",
    "VolumeTransfer",
    "valid_label",
]

Manifest: TypeAlias = "Mapping[str, Any]"
_P = TypeVar("_P", bound=StrEnum)


# ---- phases ------------------------------------------------------------------------------------------------


class _OpenPhase(StrEnum):
    """A set of names that may grow: a name that a newer server introduces is kept, and means nothing here."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        unlisted = str.__new__(cls, value)
        unlisted._name_ = "UNLISTED"
        unlisted._value_ = value
        return unlisted

    @property
    def listed(self) -> bool:
        """Whether this release knows what it means."""
        return self._name_ != "UNLISTED"


class BackupPhase(_OpenPhase):
    """Where a backup is in its life; ``Queued`` and ``ReadyToStart`` came with Velero 1.18."""

    NEW = "New"
    QUEUED = "Queued"
    READY_TO_START = "ReadyToStart"
    FAILED_VALIDATION = "FailedValidation"
    IN_PROGRESS = "InProgress"
    WAITING_FOR_PLUGINS = "WaitingForPluginOperations"
    WAITING_FOR_PLUGINS_PARTIALLY_FAILED = "WaitingForPluginOperationsPartiallyFailed"
    FINALIZING = "Finalizing"
    FINALIZING_PARTIALLY_FAILED = "FinalizingPartiallyFailed"
    COMPLETED = "Completed"
    PARTIALLY_FAILED = "PartiallyFailed"
    FAILED = "Failed"
    DELETING = "Deleting"

    @property
    def final(self) -> bool:
        """Whether it stays so; never true of a phase that is not listed here."""
        return self in {self.FAILED_VALIDATION, self.COMPLETED, self.PARTIALLY_FAILED, self.FAILED}

    @property
    def succeeded(self) -> bool:
        """Whether everything was backed up, as far as Velero can tell."""
        return self == BackupPhase.COMPLETED

    @property
    def has_contents(self) -> bool:
        """Whether there is a tarball to restore from; partial ones have one too."""
        return self in {self.COMPLETED, self.PARTIALLY_FAILED}


class RestorePhase(_OpenPhase):
    """Where a restore is in its life."""

    NEW = "New"
    FAILED_VALIDATION = "FailedValidation"
    IN_PROGRESS = "InProgress"
    WAITING_FOR_PLUGINS = "WaitingForPluginOperations"
    WAITING_FOR_PLUGINS_PARTIALLY_FAILED = "WaitingForPluginOperationsPartiallyFailed"
    FINALIZING = "Finalizing"
    FINALIZING_PARTIALLY_FAILED = "FinalizingPartiallyFailed"
    COMPLETED = "Completed"
    PARTIALLY_FAILED = "PartiallyFailed"
    FAILED = "Failed"

    @property
    def final(self) -> bool:
        """Whether it stays so; never true of a phase that is not listed here."""
        return self in {self.FAILED_VALIDATION, self.COMPLETED, self.PARTIALLY_FAILED, self.FAILED}

    @property
    def succeeded(self) -> bool:
        """Whether everything was restored, as far as Velero can tell."""
        return self == RestorePhase.COMPLETED


class SchedulePhase(_OpenPhase):
    """Whether a schedule works."""

    NEW = "New"
    ENABLED = "Enabled"
    FAILED_VALIDATION = "FailedValidation"


class LocationPhase(_OpenPhase):
    """Whether a location can be used; ``New`` until Velero has looked for the first time."""

    NEW = "New"
    AVAILABLE = "Available"
    UNAVAILABLE = "Unavailable"


class RequestPhase(_OpenPhase):
    """Whether the server has answered a request."""

    NEW = "New"
    IN_PROGRESS = "InProgress"
    PROCESSED = "Processed"


class RepositoryPhase(_OpenPhase):
    """Whether a volume repository can be used."""

    NEW = "New"
    READY = "Ready"
    NOT_READY = "NotReady"


class TransferPhase(_OpenPhase):
    """Where the transfer of one volume is in its life."""

    NEW = "New"
    ACCEPTED = "Accepted"
    PREPARED = "Prepared"
    IN_PROGRESS = "InProgress"
    CANCELING = "Canceling"
    CANCELED = "Canceled"
    COMPLETED = "Completed"
    FAILED = "Failed"

    @property
    def final(self) -> bool:
        """Whether it stays so; never true of a phase that is not listed here."""
        return self in {self.CANCELED, self.COMPLETED, self.FAILED}


class DownloadKind(StrEnum):
    """What a DownloadRequest can ask for."""

    BACKUP_LOG = "BackupLog"
    BACKUP_CONTENTS = "BackupContents"
    BACKUP_RESULTS = "BackupResults"
    BACKUP_RESOURCE_LIST = "BackupResourceList"
    BACKUP_VOLUME_INFOS = "BackupVolumeInfos"
    BACKUP_VOLUME_SNAPSHOTS = "BackupVolumeSnapshots"
    BACKUP_ITEM_OPERATIONS = "BackupItemOperations"
    RESTORE_LOG = "RestoreLog"
    RESTORE_RESULTS = "RestoreResults"
    RESTORE_RESOURCE_LIST = "RestoreResourceList"
    RESTORE_VOLUME_INFO = "RestoreVolumeInfo"
    RESTORE_ITEM_OPERATIONS = "RestoreItemOperations"

    @property
    def of_restore(self) -> bool:
        """Whether it is a restore that is named, not a backup."""
        return self.value.startswith("Restore")

    @property
    def what(self) -> str:
        """In words: ``log``, ``resource list``."""
        return re.sub(r"([A-Z])", r" \1", self.value.removeprefix("Backup").removeprefix("Restore")).strip().lower()


# ---- the objects -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class VeleroObject:
    """One object of Velero's, as a typed view of its manifest.

    Attributes:
        manifest: The whole object as the API server or the bucket gave it. Nobody changes it.
    """

    kind: ClassVar[str]
    plural: ClassVar[str]
    version: ClassVar[str] = "v1"

    manifest: Manifest

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
        return cls(
            {
                "apiVersion": f"velero.io/{cls.version}",
                "kind": cls.kind,
                "metadata": metadata,
                "spec": dict(spec or {}),
            }
        )

    @property
    def metadata(self) -> Manifest:
        """Its ``metadata``."""
        return _part(self.manifest, "metadata")

    @property
    def spec(self) -> Manifest:
        """Its ``spec``."""
        return _part(self.manifest, "spec")

    @property
    def status(self) -> Manifest:
        """Its ``status``; empty while the server has not touched it."""
        return _part(self.manifest, "status")

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        """The namespace of the Velero server that it belongs to."""
        return str(self.metadata.get("namespace", ""))

    @property
    def uid(self) -> str:
        """What tells it apart from a later object of the same name."""
        return str(self.metadata.get("uid", ""))

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return _part(self.metadata, "labels")

    @property
    def annotations(self) -> Mapping[str, str]:
        """Its annotations."""
        return _part(self.metadata, "annotations")

    @property
    def created(self) -> datetime | None:
        """When it was created, or None before that."""
        return _time(self.metadata.get("creationTimestamp"))

    @property
    def being_deleted(self) -> bool:
        """Whether somebody has asked for its end."""
        return bool(self.metadata.get("deletionTimestamp"))

    def __str__(self) -> str:
        phase = self.status.get("phase")
        return f"{self.kind} {self.name}" + (f" ({phase})" if phase else "")

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemProgress:
    """How many objects are through; ``total`` grows while Velero still finds more."""

    done: int
    total: int


class _Run(VeleroObject):
    """What backups and restores have in common."""

    __slots__ = ()

    @property
    def warnings(self) -> int:
        """How many warnings there were."""
        return _number(self.status, "warnings")

    @property
    def errors(self) -> int:
        """How many errors there were."""
        return _number(self.status, "errors")

    @property
    def failure_reason(self) -> str:
        """Why all of it failed, or nothing."""
        return _text(self.status, "failureReason")

    @property
    def validation_errors(self) -> tuple[str, ...]:
        """Why the server did not even begin, or nothing."""
        return _texts(self.status, "validationErrors")

    @property
    def started(self) -> datetime | None:
        """When the server began, or None before that."""
        return _time(self.status.get("startTimestamp"))

    @property
    def completed(self) -> datetime | None:
        """When it ended, or None before that."""
        return _time(self.status.get("completionTimestamp"))

    @property
    def hooks_attempted(self) -> int:
        """How many hooks were run."""
        return _number(_part(self.status, "hookStatus"), "hooksAttempted")

    @property
    def hooks_failed(self) -> int:
        """How many of them failed."""
        return _number(_part(self.status, "hookStatus"), "hooksFailed")


class Backup(_Run):
    """A backup of API objects, and of volumes where that was asked for."""

    __slots__ = ()
    kind = "Backup"
    plural = "backups"

    @property
    def phase(self) -> BackupPhase:
        """Where it is in its life."""
        return _phase(BackupPhase, self.status)

    @property
    def options(self) -> BackupOptions:
        """What was asked for, with the server's defaults filled in once it began."""
        return BackupOptions.from_spec(self.spec, labels=self.labels, annotations=self.annotations)

    @property
    def storage_location(self) -> str:
        """The location it rests in; empty until the server has chosen the default one."""
        return _text(self.spec, "storageLocation")

    @property
    def schedule(self) -> str:
        """The schedule that made it, or nothing."""
        return str(self.labels.get("velero.io/schedule-name", ""))

    @property
    def expires(self) -> datetime | None:
        """When Velero may delete it."""
        return _time(self.status.get("expiration"))

    @property
    def format_version(self) -> str:
        """Of what is in the bucket: ``1.1.0``."""
        return _text(self.status, "formatVersion")

    @property
    def queue_position(self) -> int:
        """Its place in the queue, or 0."""
        return _number(self.status, "queuePosition")

    @property
    def progress(self) -> ItemProgress:
        """How many objects are in it so far."""
        progress = _part(self.status, "progress")
        return ItemProgress(done=_number(progress, "itemsBackedUp"), total=_number(progress, "totalItems"))

    @property
    def item_operations_failed(self) -> int:
        """How many asynchronous operations of plugins (data movers, mostly) failed."""
        return _number(self.status, "backupItemOperationsFailed")


class Restore(_Run):
    """A restore from one backup."""

    __slots__ = ()
    kind = "Restore"
    plural = "restores"

    @property
    def phase(self) -> RestorePhase:
        """Where it is in its life."""
        return _phase(RestorePhase, self.status)

    @property
    def options(self) -> RestoreOptions:
        """What was asked for; once it began, the kinds that Velero never restores are among the excluded ones."""
        return RestoreOptions.from_spec(self.spec, labels=self.labels, annotations=self.annotations)

    @property
    def backup_name(self) -> str:
        """The backup it restores; of a restore from a schedule, once the server has chosen one."""
        return _text(self.spec, "backupName")

    @property
    def schedule(self) -> str:
        """The schedule whose latest backup it restores, or that made the backup, or nothing."""
        return _text(self.spec, "scheduleName")

    @property
    def progress(self) -> ItemProgress:
        """How many objects are through, those left alone because they exist among them."""
        progress = _part(self.status, "progress")
        return ItemProgress(done=_number(progress, "itemsRestored"), total=_number(progress, "totalItems"))

    @property
    def item_operations_failed(self) -> int:
        """How many asynchronous operations of plugins (data movers, mostly) failed."""
        return _number(self.status, "restoreItemOperationsFailed")


class Schedule(VeleroObject):
    """A backup that is made again and again."""

    __slots__ = ()
    kind = "Schedule"
    plural = "schedules"

    @property
    def phase(self) -> SchedulePhase:
        """Whether it works."""
        return _phase(SchedulePhase, self.status)

    @property
    def cron(self) -> str:
        """When: five cron fields in UTC, or ``@every 1h``."""
        return _text(self.spec, "schedule")

    @property
    def options(self) -> BackupOptions:
        """What its backups are asked for."""
        template = _part(self.spec, "template")
        labels = _part(_part(template, "metadata"), "labels") or self.labels
        return BackupOptions.from_spec(template, labels=labels, annotations=self.annotations)

    @property
    def paused(self) -> bool:
        """Whether it makes no backups now."""
        return bool(self.spec.get("paused", False))

    @property
    def last_backup(self) -> datetime | None:
        """When it last made one."""
        return _time(self.status.get("lastBackup"))

    @property
    def validation_errors(self) -> tuple[str, ...]:
        """Why it does not work."""
        return _texts(self.status, "validationErrors")


class BackupStorageLocation(VeleroObject):
    """A bucket, or a part of one, that backups rest in."""

    __slots__ = ()
    kind = "BackupStorageLocation"
    plural = "backupstoragelocations"

    @property
    def phase(self) -> LocationPhase:
        """Whether it could be used when Velero last looked."""
        return _phase(LocationPhase, self.status)

    @property
    def message(self) -> str:
        """Why it cannot be used."""
        return _text(self.status, "message")

    @property
    def provider(self) -> str:
        """The plugin that reaches it: ``aws``, ``velero.io/aws``."""
        return _text(self.spec, "provider")

    @property
    def bucket(self) -> str:
        """The bucket."""
        return _text(_part(self.spec, "objectStorage"), "bucket")

    @property
    def prefix(self) -> str:
        """The part of the bucket that is Velero's alone; empty for all of it."""
        return _text(_part(self.spec, "objectStorage"), "prefix").strip("/")

    @property
    def ca_cert(self) -> str:
        """Base64 of the PEM certificates that its server is trusted by, or nothing."""
        return _text(_part(self.spec, "objectStorage"), "caCert")

    @property
    def config(self) -> Mapping[str, str]:
        """The plugin's settings: ``region``, ``s3Url``, ``s3ForcePathStyle`` and the like."""
        return _part(self.spec, "config")

    @property
    def credential(self) -> tuple[str, str] | None:
        """The Secret and the key in it that hold the credentials, or None for the server's own."""
        credential = _part(self.spec, "credential")
        return (_text(credential, "name"), _text(credential, "key")) if credential else None

    @property
    def default(self) -> bool:
        """Whether backups that name no location go here."""
        return bool(self.spec.get("default", False))

    @property
    def read_only(self) -> bool:
        """Whether nothing may be written to it or deleted from it."""
        return self.spec.get("accessMode") == "ReadOnly"

    @property
    def last_validated(self) -> datetime | None:
        """When Velero last looked, in whole seconds."""
        return _time(self.status.get("lastValidationTime"))

    @property
    def last_synced(self) -> datetime | None:
        """When Velero last compared the bucket with its Backup objects."""
        return _time(self.status.get("lastSyncedTime"))


class VolumeSnapshotLocation(VeleroObject):
    """Where a provider keeps native snapshots of volumes."""

    __slots__ = ()
    kind = "VolumeSnapshotLocation"
    plural = "volumesnapshotlocations"

    @property
    def provider(self) -> str:
        """The plugin that makes the snapshots."""
        return _text(self.spec, "provider")

    @property
    def config(self) -> Mapping[str, str]:
        """The plugin's settings."""
        return _part(self.spec, "config")

    @property
    def phase(self) -> LocationPhase:
        """As far as Velero tells; today it does not check these."""
        return _phase(LocationPhase, self.status)


class DeleteBackupRequest(VeleroObject):
    """Asks the server to delete a backup with everything it has in the bucket."""

    __slots__ = ()
    kind = "DeleteBackupRequest"
    plural = "deletebackuprequests"

    @property
    def phase(self) -> RequestPhase:
        """Whether the server has answered."""
        return _phase(RequestPhase, self.status)

    @property
    def backup_name(self) -> str:
        """The backup to delete."""
        return _text(self.spec, "backupName")

    @property
    def errors(self) -> tuple[str, ...]:
        """Why it could not be deleted."""
        return _texts(self.status, "errors")


class DownloadRequest(VeleroObject):
    """Asks the server for a URL to one file of a backup or restore."""

    __slots__ = ()
    kind = "DownloadRequest"
    plural = "downloadrequests"

    @property
    def phase(self) -> RequestPhase:
        """Whether the server has answered; it never does for a backup or a location that is not there."""
        return _phase(RequestPhase, self.status)

    @property
    def url(self) -> str:
        """A signed URL: who has it has the file, until it expires."""
        return _text(self.status, "downloadURL")

    @property
    def expires(self) -> datetime | None:
        """When the URL stops working."""
        return _time(self.status.get("expiration"))


@dataclass(frozen=True, slots=True, order=True)
class ServerPlugin:
    """One plugin of a server: ``velero.io/aws``, ``ObjectStore``."""

    name: str
    kind: str


class ServerStatusRequest(VeleroObject):
    """Asks the server whether it is there, and what it is."""

    __slots__ = ()
    kind = "ServerStatusRequest"
    plural = "serverstatusrequests"

    @property
    def phase(self) -> RequestPhase:
        """Whether the server has answered."""
        return _phase(RequestPhase, self.status)

    @property
    def server_version(self) -> str:
        """Such as ``v1.18.3``."""
        return _text(self.status, "serverVersion")

    @property
    def plugins(self) -> tuple[ServerPlugin, ...]:
        """The plugins it found, in the order of their names; the server itself tells some of them twice."""
        found = self.status.get("plugins")
        found = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        return tuple(sorted({ServerPlugin(name=_text(each, "name"), kind=_text(each, "kind")) for each in found}))


class BackupRepository(VeleroObject):
    """The kopia repository of one namespace's volumes in one location."""

    __slots__ = ()
    kind = "BackupRepository"
    plural = "backuprepositories"

    @property
    def phase(self) -> RepositoryPhase:
        """Whether it can be used."""
        return _phase(RepositoryPhase, self.status)

    @property
    def message(self) -> str:
        """Why it cannot be used."""
        return _text(self.status, "message")

    @property
    def volume_namespace(self) -> str:
        """The namespace whose volumes it holds."""
        return _text(self.spec, "volumeNamespace")

    @property
    def storage_location(self) -> str:
        """The location it rests in."""
        return _text(self.spec, "backupStorageLocation")

    @property
    def last_maintained(self) -> datetime | None:
        """When it was last compacted."""
        return _time(self.status.get("lastMaintenanceTime"))


class VolumeTransfer(VeleroObject):
    """The transfer of one volume's files, in either direction."""

    __slots__ = ()

    @property
    def phase(self) -> TransferPhase:
        """Where it is in its life."""
        return _phase(TransferPhase, self.status)

    @property
    def message(self) -> str:
        """What went wrong."""
        return _text(self.status, "message")

    @property
    def storage_location(self) -> str:
        """The location on the other end."""
        return _text(self.spec, "backupStorageLocation")

    @property
    def bytes_done(self) -> int:
        """Bytes transferred."""
        return _number(_part(self.status, "progress"), "bytesDone")

    @property
    def bytes_total(self) -> int:
        """Bytes in all, or 0 while that is unknown."""
        return _number(_part(self.status, "progress"), "totalBytes")

    @property
    def volume(self) -> str:
        """Which volume, in words."""
        pod = _part(self.spec, "pod")
        if pod:
            return f"{_text(pod, 'namespace')}/{_text(pod, 'name')}:{_text(self.spec, 'volume')}"
        target = _part(self.spec, "targetVolume")
        if target:
            return f"{_text(target, 'namespace')}/{_text(target, 'pvc')}"
        return f"{_text(self.spec, 'sourceNamespace')}/{_text(self.spec, 'sourcePVC')}"


class PodVolumeBackup(VolumeTransfer):
    """A backup of one pod's volume by its files."""

    __slots__ = ()
    kind = "PodVolumeBackup"
    plural = "podvolumebackups"


class PodVolumeRestore(VolumeTransfer):
    """A restore of one pod's volume by its files."""

    __slots__ = ()
    kind = "PodVolumeRestore"
    plural = "podvolumerestores"


class DataUpload(VolumeTransfer):
    """The move of one volume snapshot's data into a location."""

    __slots__ = ()
    kind = "DataUpload"
    plural = "datauploads"
    version = "v2alpha1"


class DataDownload(VolumeTransfer):
    """The move of one volume's data out of a location."""

    __slots__ = ()
    kind = "DataDownload"
    plural = "datadownloads"
    version = "v2alpha1"


# ---- values ------------------------------------------------------------------------------------------------

_LONGEST_LABEL = 63


def valid_label(name: str) -> str:
    """Return a name as Velero puts it into a label: longer ones than 63 characters are cut, with a hash's start."""
    if len(name) <= _LONGEST_LABEL:
        return name
    from hashlib import sha256

    return name[: _LONGEST_LABEL - 6] + sha256(name.encode()).hexdigest()[:6]


def _part(holder: Manifest, key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, dict) else {}


def _text(holder: Manifest, key: str) -> str:
    value = holder.get(key)
    return "" if value is None else str(value)


def _texts(holder: Manifest, key: str) -> tuple[str, ...]:
    value = holder.get(key)
    return tuple(str(each) for each in value) if isinstance(value, list) else ()


def _number(holder: Manifest, key: str) -> int:
    value = holder.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _phase(phases: type[_P], status: Manifest) -> _P:
    return phases(_text(status, "phase") or "New")


def _time(value: object) -> datetime | None:
    """Return a time of a manifest in UTC, or None where there is none; Kubernetes writes RFC 3339."""
    if not isinstance(value, str) or not value:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None  # only a bucket that was tampered with says so; bucket verification tells that
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
