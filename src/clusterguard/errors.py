"""Every error that clusterguard raises on purpose.

    ClusterGuardError                     .code, .fields, .hint: what to do next; .retryable: whether it may help
    ├── ConfigError                       the request itself is wrong; nothing was touched
    │   └── InvalidDocumentError          a file: path:line:column, what was seen, what was meant
    │       ├── InvalidDrillError         a drill file
    │       └── InvalidPolicyError        a policy file
    ├── UnsupportedVersionError           of a cluster, its etcd or its Velero; nothing was touched
    ├── ToolchainError                    a program is missing, has the wrong version, or could not be had
    │   └── ChecksumMismatchError         downloaded bytes are not the pinned ones
    ├── ProgramError                      a program failed: exit code and the end of what it printed
    ├── ScratchError                      the scratch folder is full, or fails: it says nothing about any backup
    ├── StoreError                        where the bytes rest
    │   ├── ObjectNotFoundError
    │   ├── ObjectExistsError
    │   ├── ObjectChangedError            not the version that was to be replaced
    │   ├── ObjectCorruptError            the stored bytes are not what was written
    │   ├── WrongKeyError                 an encrypted object, and none of our keys opens it
    │   └── StoreUnavailableError         retryable
    ├── RunInProgressError                another run of the same policy is in progress
    ├── ClusterError
    │   ├── ClusterUnreachableError       retryable
    │   ├── ProvisioningError
    │   ├── ResourceNotFoundError         no such object, or no such kind in this cluster
    │   ├── ConflictError                 the object changed meanwhile, or exists already
    │   ├── ForbiddenError                this user may not do that
    │   ├── ClusterLockedError            another run breaks things in the cluster right now
    │   └── NotAllowedError               a destructive step on a cluster that nobody allowed
    ├── SnapshotError
    │   ├── SnapshotIncompleteError       the stream ended early; nothing was stored
    │   ├── SnapshotCorruptError          the bytes are not a whole, intact snapshot
    │   └── StoredObjectError             one object in it cannot be read; the code says why
    ├── EtcdError
    │   ├── EtcdUnavailableError          retryable
    │   └── EtcdAuthError                 the member refused our identity
    ├── RestoreError                      .rolled_back: the old state is back; .restored: the new one stays
    ├── VeleroError                       Velero refused or could not do what was asked
    │   ├── VeleroNotInstalledError       the cluster has no Velero; the message names what is missing
    │   ├── VeleroUnavailableError        retryable: its objects are there, but no server answers
    │   ├── LocationUnavailableError      retryable: a storage location that Velero cannot use now
    │   ├── BackupCorruptError            a stored file is not whole and intact
    │   ├── BackupFailedError             .phase it ended in
    │   └── RestoreFailedError            .phase it ended in
    ├── WaitTimeoutError                  .what was waited for, .last_seen
    ├── DrillError
    │   ├── UnexpectedOutcomeError        a step ended otherwise than the drill expects
    │   └── StepFailedError               .step
    ├── RehearsalFailedError              .report; raised by RehearsalReport.raise_for_findings() alone
    └── RestoreValidationError            .report; raised by ValidationReport.raise_for_findings() alone

SDK errors never cross the module that owns the SDK: they are chained as ``__cause__``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.model.report import ValidationReport
    from clusterguard.rehearsal.report import RehearsalReport

__all__ = [
    "BackupCorruptError",
    "BackupFailedError",
    "ChecksumMismatchError",
    "ClusterError",
    "ClusterGuardError",
    "ClusterLockedError",
    "ClusterUnreachableError",
    "ConfigError",
    "ConflictError",
    "DrillError",
    "EtcdAuthError",
    "EtcdError",
    "EtcdUnavailableError",
    "ForbiddenError",
    "InvalidDocumentError",
    "InvalidDrillError",
    "InvalidPolicyError",
    "LocationUnavailableError",
    "NotAllowedError",
    "ObjectChangedError",
    "ObjectCorruptError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "ProgramError",
    "ProvisioningError",
    "RehearsalFailedError",
    "ResourceNotFoundError",
    "RestoreError",
    "RestoreFailedError",
    "RestoreValidationError",
    "RunInProgressError",
    "ScratchError",
    "SnapshotCorruptError",
    "SnapshotError",
    "SnapshotIncompleteError",
    "StepFailedError",
    "StoreError",
    "StoreUnavailableError",
    "StoredObjectError",
    "ToolchainError",
    "UnexpectedOutcomeError",
    "UnsupportedVersionError",
    "VeleroError",
    "VeleroNotInstalledError",
    "VeleroUnavailableError",
    "WaitTimeoutError",
    "WrongKeyError",
]

_WORDS: Final = re.compile("[A-Z][a-z]*")


class ClusterGuardError(Exception):
    """Base of all errors: ``str(error)`` is what was seen. Match on the class and the code; the wording may change.

    Attributes:
        code: Stable name of what went wrong, in kebab case: the class's own (``SnapshotCorruptError`` has
            ``snapshot-corrupt``) unless the raiser gives a narrower one. Listed in docs/reference/errors.md.
        fields: The values that the message is made of, by name, where a caller may want them.
        hint: The next step, or None where none is known.
        retryable: Whether the same call may succeed later.
    """

    code: str = "error"
    retryable: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in vars(cls):
            cls.code = "-".join(_WORDS.findall(cls.__name__.removesuffix("Error"))).lower()

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = dict(fields or {})
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is copied by calling its class with its args, which keyword-only parameters do not survive.
        return _revived, (type(self), self.args, self.__dict__.copy())


class ConfigError(ClusterGuardError):
    """The request is wrong; nothing was touched."""


class InvalidDocumentError(ConfigError):
    """A file that people write is wrong; every problem found is in the message, each with its place."""


class InvalidDrillError(InvalidDocumentError):
    """A drill file is wrong, or a manifest that it applies."""


class InvalidPolicyError(InvalidDocumentError):
    """A policy file is wrong."""


class UnsupportedVersionError(ClusterGuardError):
    """A cluster, its etcd or its Velero is of a version that is not supported; nothing was touched."""


class ToolchainError(ClusterGuardError):
    """A program is missing, has the wrong version, or could not be had."""


class ChecksumMismatchError(ToolchainError):
    """Downloaded bytes are not the pinned ones; they were discarded."""


class ProgramError(ClusterGuardError):
    """A program failed."""

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        output: str = "",
        hint: str | None = None,
        code: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code, fields=fields)
        self.exit_code = exit_code
        self.output = output


class ScratchError(ClusterGuardError):
    """The scratch folder cannot take what must lie there for a while: it is full, it is memory, or its disk fails."""


class StoreError(ClusterGuardError):
    """A store could not do what was asked."""


class ObjectNotFoundError(StoreError):
    """The store has no object under that key."""


class ObjectExistsError(StoreError):
    """The key is taken, and overwriting was not asked for."""


class ObjectChangedError(StoreError):
    """The object is not the version that was to be replaced: somebody else wrote or removed it first."""


class ObjectCorruptError(StoreError):
    """The stored bytes are not what was written: cut, changed, or followed by others."""


class WrongKeyError(StoreError):
    """The object is encrypted, and none of the keys at hand opens it."""


class StoreUnavailableError(StoreError):
    """The store did not answer, or answered that it cannot now."""

    retryable = True


class RunInProgressError(ClusterGuardError):
    """Another run of the same policy is in progress, or has taken over (code ``lease-lost``)."""


class ClusterError(ClusterGuardError):
    """A cluster could not do what was asked."""


class ClusterUnreachableError(ClusterError):
    """The API server did not answer."""

    retryable = True


class ProvisioningError(ClusterError):
    """A cluster could not be created; what had been started was stopped again."""


def ended_at_once(program: str, output: str, *, hint: str | None = None) -> ProvisioningError:
    """Return the error of a server that ended right after its start; ``output`` is the end of its log."""
    return ProvisioningError(
        f"{program} ended right after its start:\n{output}",
        code="program-ended",
        fields={"program": program, "output": output},
        hint=hint,
    )


class ResourceNotFoundError(ClusterError):
    """No such object, or no such kind in this cluster."""


class ConflictError(ClusterError):
    """The object changed meanwhile, or exists already."""


class ForbiddenError(ClusterError):
    """The API server does not let this user do that, or an admission plugin refuses the object."""


class ClusterLockedError(ClusterError):
    """Another run breaks things in the cluster right now, or has taken its lock over (code ``cluster-lock-lost``)."""


class NotAllowedError(ClusterError):
    """A destructive step on a cluster that nobody allowed it on; nothing was touched."""


class SnapshotError(ClusterGuardError):
    """An etcd snapshot is not what it should be."""


class SnapshotIncompleteError(SnapshotError):
    """The stream ended early; nothing was stored."""


class SnapshotCorruptError(SnapshotError):
    """The bytes are not a whole, intact etcd snapshot."""


class StoredObjectError(SnapshotError):
    """One object in a snapshot cannot be read: it is damaged or encrypted, or of a kind or form that is not known."""


class EtcdError(ClusterGuardError):
    """etcd answered with an error."""


class EtcdUnavailableError(EtcdError):
    """The member did not answer."""

    retryable = True


class EtcdAuthError(EtcdError):
    """The member refused our certificate, user or password."""


class RestoreError(ClusterGuardError):
    """A restore failed.

    Attributes:
        rolled_back: Whether the state before it is back and serving.
        restored: Whether the restored state is proven and stays, and only what comes after that failed.
    """

    def __init__(
        self,
        message: str,
        *,
        rolled_back: bool,
        restored: bool = False,
        hint: str | None = None,
        code: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code, fields=fields)
        self.rolled_back = rolled_back
        self.restored = restored


class VeleroError(ClusterGuardError):
    """Velero refused or could not do what was asked."""


class VeleroNotInstalledError(VeleroError):
    """The cluster has no Velero, or not all of it."""


class VeleroUnavailableError(VeleroError):
    """Velero's objects are in the cluster, but no server answers for them."""

    retryable = True


class LocationUnavailableError(VeleroError):
    """A storage location cannot be used now; the message has Velero's own reason."""

    retryable = True


class BackupCorruptError(VeleroError):
    """A stored file is not whole and intact, or nothing that Velero would have written; do not restore it."""


class BackupFailedError(VeleroError):
    """A backup ended in anything but plain success; ``phase`` is what Velero calls it."""

    def __init__(self, message: str, *, phase: str, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message, hint=hint, code=code)
        self.phase = phase


class RestoreFailedError(VeleroError):
    """A restore ended in anything but plain success; ``phase`` is what Velero calls it."""

    def __init__(self, message: str, *, phase: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.phase = phase


class WaitTimeoutError(ClusterGuardError):
    """Something did not happen in time."""

    def __init__(self, what: str, *, seconds: float, last_seen: str, hint: str | None = None) -> None:
        super().__init__(f"{what}: not within {seconds:g} s; last seen: {last_seen}", hint=hint)
        self.what = what
        self.seconds = seconds
        self.last_seen = last_seen


class DrillError(ClusterGuardError):
    """A drill could not tell whether recovery works."""


class UnexpectedOutcomeError(DrillError):
    """A step ended otherwise than its drill expects: ``fields`` has ``expected`` and ``phase``."""


class StepFailedError(DrillError):
    """One step of a drill failed."""

    def __init__(self, message: str, *, step: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step


class RehearsalFailedError(ClusterGuardError):
    """A backup does not restore whole; the message is the verdict and each finding."""

    def __init__(self, report: RehearsalReport) -> None:
        super().__init__(report.to_text())
        self.report = report


class RestoreValidationError(ClusterGuardError):
    """The restored cluster does not match; the message is the readable diff."""

    def __init__(self, report: ValidationReport) -> None:
        super().__init__(report.to_text())
        self.report = report


def _revived(kind: type[ClusterGuardError], args: tuple[object, ...], state: dict[str, object]) -> ClusterGuardError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error
