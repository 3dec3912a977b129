"""The phases of Velero's resources. A phase that a newer server introduces is kept, and means nothing here."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

__all__ = [
    "BackupPhase",
    "LocationPhase",
    "OpenPhase",
    "RequestPhase",
    "RestorePhase",
    "RunPhase",
    "SchedulePhase",
    "TransferPhase",
]


class OpenPhase(StrEnum):
    """A set of names that may grow."""

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


class RunPhase(OpenPhase):
    """A phase of a backup or a restore."""

    @property
    def final(self) -> bool:
        """Whether it stays so; never true of a phase that is not listed."""
        return self.value in {"FailedValidation", "Completed", "PartiallyFailed", "Failed"}

    @property
    def succeeded(self) -> bool:
        """Whether everything was backed up or restored, as far as Velero can tell."""
        return self.value == "Completed"

    @property
    def has_contents(self) -> bool:
        """Whether a backup in this phase has a tarball to restore from; partial ones have one too."""
        return self.value in {"Completed", "PartiallyFailed"}


class BackupPhase(RunPhase):
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


class RestorePhase(RunPhase):
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


class SchedulePhase(OpenPhase):
    """Whether a schedule works."""

    NEW = "New"
    ENABLED = "Enabled"
    FAILED_VALIDATION = "FailedValidation"


class LocationPhase(OpenPhase):
    """Whether a location can be used; ``New`` until Velero has looked for the first time."""

    NEW = "New"
    AVAILABLE = "Available"
    UNAVAILABLE = "Unavailable"


class RequestPhase(OpenPhase):
    """Whether the server has answered a request."""

    NEW = "New"
    IN_PROGRESS = "InProgress"
    PROCESSED = "Processed"


class TransferPhase(OpenPhase):
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
        """Whether it stays so; never true of a phase that is not listed."""
        return self.value in {"Canceled", "Completed", "Failed"}
