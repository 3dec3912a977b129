"""Storage locations: where backups are stored, and whether Velero can use them now."""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from clusterguard.errors import (
    ConfigError,
    ConflictError,
    LocationUnavailableError,
    ResourceNotFoundError,
    VeleroError,
    WaitTimeoutError,
)
from clusterguard.model.attempts import try_each
from clusterguard.stores.bucket_names import check_bucket_name
from clusterguard.velero.durations import go_duration, parse_go_duration
from clusterguard.velero.phases import LocationPhase
from clusterguard.velero.resources import Backup, BackupRepository, BackupStorageLocation, VolumeSnapshotLocation

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableSequence, Sequence
    from datetime import timedelta

    from clusterguard.clusters.kube import Json
    from clusterguard.velero.objects import VeleroObjects

__all__ = ["LocationSpec", "Locations", "cloud_credentials"]

_OWNED = {"app.kubernetes.io/managed-by": "clusterguard"}
_CREDENTIALS_KEY = "cloud"
_LOCATION_LABEL = "velero.io/storage-location"
_SERVERS_PERIOD = "1m0s"
_TOO_EARLY = "unable to get key for secret"  # as Velero words it
_NEVER_LOOKED_AT = {"lastValidationTime": None}


def cloud_credentials(access_key: str, secret_key: str, *, session_token: str = "") -> str:
    """Return static keys as the AWS plugin reads them: the ``[default]`` profile of a credentials file."""
    lines = ["[default]", f"aws_access_key_id={access_key}", f"aws_secret_access_key={secret_key}"]
    if session_token:
        lines.append(f"aws_session_token={session_token}")
    if any("\n" in line or "\r" in line for line in lines):
        raise ConfigError("a key holds a line break", hint="strip what was read from a file")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationSpec:
    """A storage location to create.

    Attributes:
        bucket: The bucket; it must exist.
        prefix: The part of it that is Velero's alone.
        provider: The plugin for it.
        config: The plugin's settings, such as ``region``, ``s3Url``, ``s3ForcePathStyle``, ``publicUrl``.
        credentials: Text of a credentials file, kept in a Secret of the location's own; None for those of the
            server, or of ``credential``.
        credential: An existing Secret of Velero's namespace and the key in it.
        ca: PEM certificates that the object store is trusted by.
        default: Whether backups that name no location go here.
        read_only: Whether nothing may be written or deleted.
        sync_period: How often Velero looks for backups made elsewhere; it looks once a minute at most.
        validation_frequency: How often Velero looks whether it can use the location.
    """

    bucket: str
    prefix: str = ""
    provider: str = "aws"
    config: Mapping[str, str] = field(default_factory=dict)
    credentials: str | None = field(default=None, repr=False)
    credential: tuple[str, str] | None = None
    ca: str = ""
    default: bool = False
    read_only: bool = False
    sync_period: timedelta | None = None
    validation_frequency: timedelta | None = None

    def to_spec(self, *, name: str) -> Json:
        """Return the spec of a BackupStorageLocation.

        Raises:
            ConfigError: Credentials are given twice, or there is no bucket.
        """
        if not self.bucket:
            raise ConfigError(f"location {name} has no bucket")
        if self.provider.removeprefix("velero.io/") == "aws":
            self._check_bucket(name)
        if self.credentials is not None and self.credential is not None:
            raise ConfigError(f"location {name} has credentials twice: as text and as a Secret")
        secret = self.credential or ((secret_name(name), _CREDENTIALS_KEY) if self.credentials is not None else None)
        storage = {
            "bucket": self.bucket,
            "prefix": self.prefix.strip("/"),
            "caCert": base64.b64encode(self.ca.encode()).decode(),
        }
        spec = {
            "provider": self.provider,
            "objectStorage": _without_blanks(storage),
            "config": dict(self.config),
            "default": self.default,
            "accessMode": "ReadOnly" if self.read_only else "",
            "backupSyncPeriod": None if self.sync_period is None else go_duration(self.sync_period),
            "validationFrequency": None
            if self.validation_frequency is None
            else go_duration(self.validation_frequency),
            "credential": dict(zip(("name", "key"), secret, strict=True)) if secret else None,
        }
        return _without_blanks(spec)

    def _check_bucket(self, name: str) -> None:
        endpoint, region = self.config.get("s3Url", ""), self.config.get("region", "")
        try:
            check_bucket_name(self.bucket, endpoint=endpoint, region=region)
        except ValueError as error:
            raise ConfigError(f"location {name}: {error}", code="invalid-bucket-name") from error


def _go(period: timedelta | None) -> str:
    return "" if period is None else go_duration(period)


def _without_blanks(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if value}


def secret_name(location: str) -> str:
    """Return the name of the Secret that is made for a location's credentials."""
    return f"{location}-credentials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Locations:
    """The storage locations of one Velero server."""

    objects: VeleroObjects

    def list(self) -> Sequence[BackupStorageLocation]:
        """Return all of them, oldest first."""
        return self.objects.list(BackupStorageLocation)

    def get(self, name: str = "") -> BackupStorageLocation:
        """Return one, by default the default one.

        Raises:
            ResourceNotFoundError: It does not exist, or no location is the default one.
        """
        if name:
            return self.objects.get(BackupStorageLocation, name)
        # As the server chooses: the one marked as default, else the one of that name.
        every = self.list()
        found = next((each for each in every if each.default), None)
        found = found or next((each for each in every if each.name == "default"), None)
        if found is None:
            have = ", ".join(each.name for each in every)
            raise ResourceNotFoundError(
                "no storage location is the default one",
                hint=f"name one of {have}" if have else "clusterguard velero location create",
            )
        return found

    def create(
        self, name: str, spec: LocationSpec, *, wait: bool = True, timeout_seconds: float = 60
    ) -> BackupStorageLocation:
        """Create a location, with a Secret for its credentials where they are given; return it Available.

        Args:
            name: Its name.
            spec: What it is.
            wait: Whether to wait until Velero has looked.
            timeout_seconds: How long Velero may take to look.

        Raises:
            ConfigError: The request contradicts itself; nothing was made.
            ConflictError: The name is taken; nothing was made.
            LocationUnavailableError: Velero cannot use it; it is there, and the message says why.
            WaitTimeoutError: Velero did not look in time.
        """
        new = BackupStorageLocation.new(
            namespace=self.objects.namespace, name=name, spec=spec.to_spec(name=name), labels=_OWNED
        )
        if self.objects.find(BackupStorageLocation, name) is not None:
            raise ConflictError(
                f"there is a storage location {name} already",
                fields={"kind": "BackupStorageLocation", "name": name},
                hint=f"clusterguard velero location delete {name}, or choose another name",
            )
        if spec.credentials is not None:
            self._put_secret(name, spec.credentials)
        if spec.default:
            self._unmark_default()
        made = self.objects.create(new)
        if not wait:
            return made
        # Velero looks at a new location at once, so there is no need to make it; that may be too early.
        seen = self._await_look(made, timeout_seconds=timeout_seconds)
        return _checked(self.validate(seen, timeout_seconds=timeout_seconds) if _looked_too_early(seen) else seen)

    def require_available(
        self, name: str = "", *, timeout_seconds: float = 60, fresh: bool = False
    ) -> BackupStorageLocation:
        """Return a location once it is Available; where it is not, or not yet, Velero is made to look now.

        Args:
            name: The location, by default the default one.
            timeout_seconds: How long Velero may take to look.
            fresh: Do not believe an earlier look, which may be a minute old.

        Raises:
            LocationUnavailableError: Velero cannot use it; the message says why.
            WaitTimeoutError: Velero did not look in time.
        """
        location = self.get(name)
        if location.phase == LocationPhase.AVAILABLE and not fresh:
            return location
        return _checked(self.validate(location, timeout_seconds=timeout_seconds))

    def validate(self, location: BackupStorageLocation, *, timeout_seconds: float = 60) -> BackupStorageLocation:
        """Make Velero look at a location now, and return what it found.

        The time of the last look is removed, because its return shows that there was a new one. The server notices that
        within ten seconds. It looks at once when the spec changes; that is used for locations of our making only, since
        the spec of any other may belong to whatever deploys it (GitOps). There one field is changed in a way that means
        nothing (how often to look), and put back afterwards.

        Putting it back makes Velero look again, and that is waited for too. At each look the server writes the
        location's credentials to a file anew, in place: a backup that began meanwhile could find the file empty, and
        would fail for want of credentials.

        Raises:
            WaitTimeoutError: Velero did not look in time; no server may be running.
        """
        if not _made_by_us(location.manifest):
            self.objects.patch(BackupStorageLocation, location.name, {"status": _NEVER_LOOKED_AT})
            return self._await_look(location, timeout_seconds=timeout_seconds)
        before = location.spec.get("validationFrequency")
        self._set_frequency(location, _nudged(before))
        try:
            self._await_look(location, timeout_seconds=timeout_seconds)
        finally:
            with suppress(ResourceNotFoundError):  # it was deleted meanwhile, which is an error as well
                self._set_frequency(location, before)
        return self._await_look(location, timeout_seconds=timeout_seconds)

    def _await_look(self, location: BackupStorageLocation, *, timeout_seconds: float) -> BackupStorageLocation:
        try:
            seen = self.objects.wait(
                BackupStorageLocation,
                location.name,
                until=lambda now: now is None or now.last_validated is not None,
                what=f"Velero to look at storage location {location.name}",
                timeout_seconds=timeout_seconds,
            )
        except WaitTimeoutError as error:
            error.hint = "is its server running? clusterguard velero status"
            raise
        if seen is None:
            raise VeleroError(f"storage location {location.name} was deleted while it was waited for")
        return seen

    def set_default(self, name: str) -> BackupStorageLocation:
        """Make a location the default one, and no other.

        Raises:
            ResourceNotFoundError: There is no such location.
        """
        self.get(name)
        self._unmark_default(but=name)
        return self.objects.patch(BackupStorageLocation, name, {"spec": {"default": True}})

    def set_read_only(self, name: str, *, read_only: bool) -> BackupStorageLocation:
        """Forbid or allow Velero to write to a location and to delete from it.

        Raises:
            ResourceNotFoundError: There is no such location.
        """
        mode = "ReadOnly" if read_only else "ReadWrite"
        return self.objects.patch(BackupStorageLocation, name, {"spec": {"accessMode": mode}})

    def delete(self, name: str) -> Sequence[str]:
        """Delete a location with its Backup objects; the bucket keeps everything.

        A Backup object without its location is of no use, and Velero's own command line deletes both. Each is tried,
        whatever becomes of the others.

        Returns:
            What was deleted.

        Raises:
            ResourceNotFoundError: There is no such location.
        """
        location = self.objects.get(BackupStorageLocation, name)
        deleted: MutableSequence[str] = []
        known = (partial(self._delete_known, kind, location, deleted) for kind in (Backup, BackupRepository))
        try_each([
            partial(self._delete, location, deleted),
            *known,
            partial(self._delete_secret, location, deleted),
        ])  # fmt: skip
        return deleted

    def _delete(self, one: BackupStorageLocation | Backup | BackupRepository, deleted: MutableSequence[str]) -> None:
        self.objects.delete(one)
        deleted.append(f"{one.kind} {one.name}")

    def _delete_known(
        self, kind: type[Backup | BackupRepository], location: BackupStorageLocation, deleted: MutableSequence[str]
    ) -> None:
        found = self.objects.list(kind, labels={_LOCATION_LABEL: location.name})
        try_each(partial(self._delete, each, deleted) for each in found)

    def snapshot_locations(self) -> Sequence[VolumeSnapshotLocation]:
        """Return where native volume snapshots can go."""
        return self.objects.list(VolumeSnapshotLocation)

    def create_snapshot_location(
        self, name: str, *, provider: str, config: Mapping[str, str] | None = None
    ) -> VolumeSnapshotLocation:
        """Create a place for native volume snapshots.

        Raises:
            ConflictError: The name is taken.
        """
        spec = {"provider": provider} | ({"config": dict(config)} if config else {})
        return self.objects.create(
            VolumeSnapshotLocation.new(namespace=self.objects.namespace, name=name, spec=spec, labels=_OWNED)
        )

    def _set_frequency(self, location: BackupStorageLocation, value: str | None) -> None:
        patch = {"spec": {"validationFrequency": value}, "status": _NEVER_LOOKED_AT}
        self.objects.patch(BackupStorageLocation, location.name, patch)

    def _unmark_default(self, *, but: str = "") -> None:
        for each in self.list():
            if each.default and each.name != but:
                self.objects.patch(BackupStorageLocation, each.name, {"spec": {"default": False}})

    def _put_secret(self, location: str, credentials: str) -> None:
        name, api = secret_name(location), self.objects.api
        secrets = api.resource("Secret", api_version="v1")
        try:
            there = api.get(secrets, name, self.objects.namespace)
        except ResourceNotFoundError:
            there = None
        if there is not None and not _made_by_us(there):
            raise ConflictError(
                f"there is a Secret {name} in namespace {self.objects.namespace} that clusterguard did not create",
                hint="name it as the location's credential, or choose another name for the location",
            )
        api.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "Opaque",
                "metadata": {"name": name, "namespace": self.objects.namespace, "labels": dict(_OWNED)},
                "data": {_CREDENTIALS_KEY: base64.b64encode(credentials.encode()).decode()},
            }
        )

    def _delete_secret(self, location: BackupStorageLocation, deleted: MutableSequence[str]) -> None:
        """Delete the Secret that was made for a location; one that was made by others stays."""
        name, api = secret_name(location.name), self.objects.api
        if location.credential is None or location.credential[0] != name:
            return
        secrets = api.resource("Secret", api_version="v1")
        with suppress(ResourceNotFoundError):
            if _made_by_us(api.get(secrets, name, self.objects.namespace)):
                api.delete(secrets, name, self.objects.namespace)
                deleted.append(f"Secret {name}")


def _made_by_us(manifest: Mapping[str, Any]) -> bool:
    labels = manifest["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in _OWNED.items())


def _looked_too_early(seen: BackupStorageLocation) -> bool:
    """Return whether the first look came before its result or the Secret, which reached the server's cache later."""
    return (
        not seen.phase
        or seen.phase == LocationPhase.NEW
        or (seen.phase == LocationPhase.UNAVAILABLE and _TOO_EARLY in seen.message)
    )


def _checked(seen: BackupStorageLocation) -> BackupStorageLocation:
    """Return a location that Velero found Available.

    Raises:
        LocationUnavailableError: It did not.
    """
    if seen.phase != LocationPhase.AVAILABLE:
        raise LocationUnavailableError(
            f"storage location {seen.name} is {seen.phase}: {seen.message or 'no reason is given'}",
            hint="are its bucket, region, address and credentials right, and does its server answer?",
        )
    return seen


def _nudged(frequency: str | None) -> str:
    """Return a frequency that differs from this one and means the same."""
    if frequency is None:
        return _SERVERS_PERIOD
    try:
        period = parse_go_duration(frequency)
    except ValueError:
        return _SERVERS_PERIOD
    from datetime import timedelta

    return go_duration(period + timedelta(milliseconds=1))
