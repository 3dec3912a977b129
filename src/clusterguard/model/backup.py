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
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeAlias, TypeVar, overload

from clusterguard.model.backup_options import BackupOptions, RestoreOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
_T = TypeVar("_T")
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


# ---- how a manifest is read -----------------------------------------------------------------------------------


class _Field(property, Generic[_T]):
    """A property that shows one place of a manifest; unlike others it is typed by what it reads, not by a function."""

    def __init__(self, path: str, read: Callable[[Any], _T], doc: str) -> None:
        *parts, key = path.split(".")

        def show(view: VeleroObject) -> _T:
            holder = view.manifest
            for part in parts:
                holder = _part(holder, part)
            return read(holder.get(key))

        show.__doc__ = doc  # a subclass of property takes its own only from there
        super().__init__(show)

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type, /) -> Self: ...
        @overload
        def __get__(self, instance: VeleroObject, owner: type | None = None, /) -> _T: ...
        def __get__(self, instance: VeleroObject | None, owner: type | None = None, /) -> Self | _T: ...


def _text(path: str, doc: str) -> _Field[str]:
    return _Field(path, _as_text, doc)


def _texts(path: str, doc: str) -> _Field[tuple[str, ...]]:
    return _Field(path, _as_texts, doc)


def _number(path: str, doc: str) -> _Field[int]:
    return _Field(path, _as_number, doc)


def _flag(path: str, doc: str) -> _Field[bool]:
    return _Field(path, bool, doc)


def _time(path: str, doc: str) -> _Field[datetime | None]:
    return _Field(path, _as_time, doc)


def _mapping(path: str, doc: str) -> _Field[Mapping[str, str]]:
    return _Field(path, _as_mapping, doc)


def _phase(phases: type[_P], doc: str) -> _Field[_P]:
    return _Field("status.phase", lambda value: phases(_as_text(value) or "New"), doc)


def _part(holder: Manifest, key: str) -> Mapping[str, Any]:
    return _as_mapping(holder.get(key))


def _as_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_text(value: object) -> str:
    return "" if value is None else str(value)


def _as_texts(value: object) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list) else ()


def _as_number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _as_time(value: object) -> datetime | None:
    """Return a time of a manifest in UTC, or None where there is none; Kubernetes writes RFC 3339."""
    if not isinstance(value, str) or not value:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None  # only a bucket that was tampered with says so; bucket verification tells that
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


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

    labels = _mapping("metadata.labels", "Its labels.")
    annotations = _mapping("metadata.annotations", "Its annotations.")
    created = _time("metadata.creationTimestamp", "When it was created, or None before that.")
    being_deleted = _flag("metadata.deletionTimestamp", "Whether somebody has asked for its end.")

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

    warnings = _number("status.warnings", "How many warnings there were.")
    errors = _number("status.errors", "How many errors there were.")
    failure_reason = _text("status.failureReason", "Why all of it failed, or nothing.")
    validation_errors = _texts("status.validationErrors", "Why the server did not even begin, or nothing.")
    started = _time("status.startTimestamp", "When the server began, or None before that.")
    completed = _time("status.completionTimestamp", "When it ended, or None before that.")
    hooks_attempted = _number("status.hookStatus.hooksAttempted", "How many hooks were run.")
    hooks_failed = _number("status.hookStatus.hooksFailed", "How many of them failed.")


class Backup(_Run):
    """A backup of API objects, and of volumes where that was asked for."""

    __slots__ = ()
    kind = "Backup"
    plural = "backups"

    phase = _phase(BackupPhase, "Where it is in its life.")

    @property
    def options(self) -> BackupOptions:
        """What was asked for, with the server's defaults filled in once it began."""
        return BackupOptions.from_spec(self.spec, labels=self.labels, annotations=self.annotations)

    storage_location = _text(
        "spec.storageLocation", "The location it rests in; empty until the server has chosen the default one."
    )

    @property
    def schedule(self) -> str:
        """The schedule that made it, or nothing."""
        return str(self.labels.get("velero.io/schedule-name", ""))

    expires = _time("status.expiration", "When Velero may delete it.")
    format_version = _text("status.formatVersion", "Of what is in the bucket: ``1.1.0``.")
    queue_position = _number("status.queuePosition", "Its place in the queue, or 0.")

    @property
    def progress(self) -> ItemProgress:
        """How many objects are in it so far."""
        progress = _part(self.status, "progress")
        return ItemProgress(
            done=_as_number(progress.get("itemsBackedUp")), total=_as_number(progress.get("totalItems"))
        )

    item_operations_failed = _number(
        "status.backupItemOperationsFailed", "How many asynchronous operations of plugins (data movers, mostly) failed."
    )


class Restore(_Run):
    """A restore from one backup."""

    __slots__ = ()
    kind = "Restore"
    plural = "restores"

    phase = _phase(RestorePhase, "Where it is in its life.")

    @property
    def options(self) -> RestoreOptions:
        """What was asked for; once it began, the kinds that Velero never restores are among the excluded ones."""
        return RestoreOptions.from_spec(self.spec, labels=self.labels, annotations=self.annotations)

    backup_name = _text(
        "spec.backupName", "The backup it restores; of a restore from a schedule, once the server has chosen one."
    )
    schedule = _text(
        "spec.scheduleName", "The schedule whose latest backup it restores, or that made the backup, or nothing."
    )

    @property
    def progress(self) -> ItemProgress:
        """How many objects are through, those left alone because they exist among them."""
        progress = _part(self.status, "progress")
        return ItemProgress(
            done=_as_number(progress.get("itemsRestored")), total=_as_number(progress.get("totalItems"))
        )

    item_operations_failed = _number(
        "status.restoreItemOperationsFailed",
        "How many asynchronous operations of plugins (data movers, mostly) failed.",
    )


class Schedule(VeleroObject):
    """A backup that is made again and again."""

    __slots__ = ()
    kind = "Schedule"
    plural = "schedules"

    phase = _phase(SchedulePhase, "Whether it works.")
    cron = _text("spec.schedule", "When: five cron fields in UTC, or ``@every 1h``.")

    @property
    def options(self) -> BackupOptions:
        """What its backups are asked for."""
        template = _part(self.spec, "template")
        labels = _part(_part(template, "metadata"), "labels") or self.labels
        return BackupOptions.from_spec(template, labels=labels, annotations=self.annotations)

    paused = _flag("spec.paused", "Whether it makes no backups now.")
    last_backup = _time("status.lastBackup", "When it last made one.")
    validation_errors = _texts("status.validationErrors", "Why it does not work.")


class BackupStorageLocation(VeleroObject):
    """A bucket, or a part of one, that backups rest in."""

    __slots__ = ()
    kind = "BackupStorageLocation"
    plural = "backupstoragelocations"

    phase = _phase(LocationPhase, "Whether it could be used when Velero last looked.")
    message = _text("status.message", "Why it cannot be used.")
    provider = _text("spec.provider", "The plugin that reaches it: ``aws``, ``velero.io/aws``.")
    bucket = _text("spec.objectStorage.bucket", "The bucket.")

    @property
    def prefix(self) -> str:
        """The part of the bucket that is Velero's alone; empty for all of it."""
        return _as_text(_part(self.spec, "objectStorage").get("prefix")).strip("/")

    ca_cert = _text(
        "spec.objectStorage.caCert", "Base64 of the PEM certificates that its server is trusted by, or nothing."
    )
    config = _mapping("spec.config", "The plugin's settings: ``region``, ``s3Url``, ``s3ForcePathStyle`` and the like.")

    @property
    def credential(self) -> tuple[str, str] | None:
        """The Secret and the key in it that hold the credentials, or None for the server's own."""
        credential = _part(self.spec, "credential")
        return (_as_text(credential.get("name")), _as_text(credential.get("key"))) if credential else None

    default = _flag("spec.default", "Whether backups that name no location go here.")

    @property
    def read_only(self) -> bool:
        """Whether nothing may be written to it or deleted from it."""
        return self.spec.get("accessMode") == "ReadOnly"

    last_validated = _time("status.lastValidationTime", "When Velero last looked, in whole seconds.")
    last_synced = _time("status.lastSyncedTime", "When Velero last compared the bucket with its Backup objects.")


class VolumeSnapshotLocation(VeleroObject):
    """Where a provider keeps native snapshots of volumes."""

    __slots__ = ()
    kind = "VolumeSnapshotLocation"
    plural = "volumesnapshotlocations"

    provider = _text("spec.provider", "The plugin that makes the snapshots.")
    config = _mapping("spec.config", "The plugin's settings.")
    phase = _phase(LocationPhase, "As far as Velero tells; today it does not check these.")


class DeleteBackupRequest(VeleroObject):
    """Asks the server to delete a backup with everything it has in the bucket."""

    __slots__ = ()
    kind = "DeleteBackupRequest"
    plural = "deletebackuprequests"

    phase = _phase(RequestPhase, "Whether the server has answered.")
    backup_name = _text("spec.backupName", "The backup to delete.")
    errors = _texts("status.errors", "Why it could not be deleted.")


class DownloadRequest(VeleroObject):
    """Asks the server for a URL to one file of a backup or restore."""

    __slots__ = ()
    kind = "DownloadRequest"
    plural = "downloadrequests"

    phase = _phase(
        RequestPhase, "Whether the server has answered; it never does for a backup or a location that is not there."
    )
    url = _text("status.downloadURL", "A signed URL: who has it has the file, until it expires.")
    expires = _time("status.expiration", "When the URL stops working.")


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

    phase = _phase(RequestPhase, "Whether the server has answered.")
    server_version = _text("status.serverVersion", "Such as ``v1.18.3``.")

    @property
    def plugins(self) -> tuple[ServerPlugin, ...]:
        """The plugins it found, in the order of their names; the server itself tells some of them twice."""
        found = self.status.get("plugins")
        found = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        return tuple(
            sorted({ServerPlugin(name=_as_text(each.get("name")), kind=_as_text(each.get("kind"))) for each in found})
        )


class BackupRepository(VeleroObject):
    """The kopia repository of one namespace's volumes in one location."""

    __slots__ = ()
    kind = "BackupRepository"
    plural = "backuprepositories"

    phase = _phase(RepositoryPhase, "Whether it can be used.")
    message = _text("status.message", "Why it cannot be used.")
    volume_namespace = _text("spec.volumeNamespace", "The namespace whose volumes it holds.")
    storage_location = _text("spec.backupStorageLocation", "The location it rests in.")
    last_maintained = _time("status.lastMaintenanceTime", "When it was last compacted.")


class VolumeTransfer(VeleroObject):
    """The transfer of one volume's files, in either direction."""

    __slots__ = ()

    phase = _phase(TransferPhase, "Where it is in its life.")
    message = _text("status.message", "What went wrong.")
    storage_location = _text("spec.backupStorageLocation", "The location on the other end.")
    bytes_done = _number("status.progress.bytesDone", "Bytes transferred.")
    bytes_total = _number("status.progress.totalBytes", "Bytes in all, or 0 while that is unknown.")

    @property
    def volume(self) -> str:
        """Which volume, in words."""
        pod = _part(self.spec, "pod")
        if pod:
            return f"{_as_text(pod.get('namespace'))}/{_as_text(pod.get('name'))}:{_as_text(self.spec.get('volume'))}"
        target = _part(self.spec, "targetVolume")
        if target:
            return f"{_as_text(target.get('namespace'))}/{_as_text(target.get('pvc'))}"
        return f"{_as_text(self.spec.get('sourceNamespace'))}/{_as_text(self.spec.get('sourcePVC'))}"


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
