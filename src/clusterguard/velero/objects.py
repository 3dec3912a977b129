"""Velero's resources in one cluster: read, create, change, wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from clusterguard.clusters.kube import FIELD_MANAGER, ApiResource
from clusterguard.errors import (
    ClusterError,
    ConfigError,
    ConflictError,
    ResourceNotFoundError,
    VeleroError,
    VeleroNotInstalledError,
)
from clusterguard.velero.resources import (
    Backup,
    BackupRepository,
    BackupStorageLocation,
    DataDownload,
    DataUpload,
    DeleteBackupRequest,
    DownloadRequest,
    PodVolumeBackup,
    PodVolumeRestore,
    Restore,
    Schedule,
    ServerStatusRequest,
    VeleroObject,
    VolumeSnapshotLocation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clusterguard.clusters.kube import Json, KubeClient

__all__ = ["DEFINITIONS", "GROUP", "KINDS", "VeleroObjects", "definition_of", "resource_of"]

GROUP = "velero.io"
_INSTALL_HINT = "clusterguard velero install, or velero install"

KINDS: tuple[type[VeleroObject], ...] = (
    Backup,
    BackupRepository,
    BackupStorageLocation,
    DataDownload,
    DataUpload,
    DeleteBackupRequest,
    DownloadRequest,
    PodVolumeBackup,
    PodVolumeRestore,
    Restore,
    Schedule,
    ServerStatusRequest,
    VolumeSnapshotLocation,
)
"""Every kind of Velero's: its server does not start unless all of them are defined."""

DEFINITIONS = ApiResource(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    namespaced=False,
    verbs=frozenset(),
)

_T = TypeVar("_T", bound=VeleroObject)
_STRICT = "strict decoding error: "  # as the API server words it


def resource_of(kind: type[VeleroObject]) -> ApiResource:
    """Return where a kind's objects are; written down here, so that no discovery is needed."""
    return ApiResource(
        group=GROUP, version=kind.version, kind=kind.kind, plural=kind.plural, namespaced=True, verbs=frozenset()
    )


def definition_of(kind: type[VeleroObject]) -> str:
    """Return the name of a kind's CustomResourceDefinition."""
    return f"{kind.plural}.{GROUP}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VeleroObjects:
    """The objects of one Velero server.

    Attributes:
        api: The cluster.
        namespace: The one that the server works in.
    """

    api: KubeClient = field(repr=False)
    namespace: str

    def missing_definitions(self) -> tuple[str, ...]:
        """Return the kinds that the cluster does not know; none when Velero is installed."""
        there = {item["metadata"]["name"] for item in self.api.list(DEFINITIONS, metadata_only=True)}
        return tuple(name for kind in KINDS if (name := definition_of(kind)) not in there)

    def find(self, kind: type[_T], name: str) -> _T | None:
        """Return an object, or None where there is none.

        Raises:
            VeleroNotInstalledError: The cluster does not know the kind.
        """
        try:
            return kind.model_validate(self.api.get(resource_of(kind), name, self.namespace))
        except ResourceNotFoundError:
            self._require(kind)
            return None

    def get(self, kind: type[_T], name: str) -> _T:
        """Return an object.

        Raises:
            ResourceNotFoundError: It does not exist.
            VeleroNotInstalledError: The cluster does not know the kind.
        """
        found = self.find(kind, name)
        if found is None:
            known = ", ".join(sorted(each.name for each in self.list(kind))[:10])
            raise ResourceNotFoundError(
                f"no {kind.kind} {name!r} in namespace {self.namespace}",
                hint=f"known: {known}" if known else f"there is no {kind.kind} at all",
            )
        return found

    def list(self, kind: type[_T], *, labels: Mapping[str, str] | None = None) -> Sequence[_T]:
        """Return the objects of a kind, oldest first.

        Raises:
            VeleroNotInstalledError: The cluster does not know the kind.
        """
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        try:
            items = self.api.list(resource_of(kind), self.namespace, label_selector=selector)
            found = [kind.model_validate(item) for item in items]
        except ResourceNotFoundError:
            self._require(kind)
            raise
        return sorted(found, key=lambda each: (str(each.metadata.get("creationTimestamp", "")), each.name))

    def create(self, new: _T, *, strict: bool = False) -> _T:
        """Create an object.

        Args:
            new: The object.
            strict: Refuse fields that the cluster does not know, which are dropped without a word otherwise.

        Raises:
            ConfigError: A field is unknown, and ``strict`` is set.
            ConflictError: The name is taken.
            VeleroNotInstalledError: The cluster does not know the kind.
            ResourceNotFoundError: There is no such namespace.
        """
        resource = resource_of(type(new))
        try:
            answer = self.api.request(
                "POST",
                resource.path(self.namespace),
                query={"fieldManager": FIELD_MANAGER} | ({"fieldValidation": "Strict"} if strict else {}),
                body=dict(new.manifest),
            )
        except ResourceNotFoundError:
            self._require(type(new))
            raise
        except ConflictError as error:
            raise ConflictError(
                f"there is a {self.find(type(new), new.name) or new} already, in namespace {self.namespace}",
                fields={"kind": type(new).__name__, "name": new.name},
                hint="choose another name, or delete that one first",
            ) from error
        except ClusterError as error:
            if strict and _STRICT in error.message:
                raise ConfigError(
                    f"{new.kind} {new.name}: {error.message.partition(_STRICT)[2]}",
                    code="unknown-field",
                    hint="nothing was created; the Velero of this cluster has no such field",
                ) from error
            raise
        return type(new).model_validate(answer.json())

    def patch(self, kind: type[_T], name: str, patch: Json) -> _T:
        """Change some fields of an object (merge patch; null removes one).

        Raises:
            ResourceNotFoundError: It does not exist.
        """
        return kind.model_validate(self.api.patch(resource_of(kind), name, self.namespace, patch=patch))

    def delete(self, old: VeleroObject) -> None:
        """Delete this very object, not a later one of the same name; one that is already deleted is not an error."""
        try:
            self.api.delete(resource_of(type(old)), old.name, self.namespace, uid=old.uid or None)
        except (ResourceNotFoundError, ConflictError):
            return

    def wait(
        self,
        kind: type[_T],
        name: str,
        *,
        until: Callable[[_T | None], bool],
        what: str,
        timeout_seconds: float,
    ) -> _T | None:
        """Watch one object until it is as wanted; None stands for "there is no such object".

        Raises:
            WaitTimeoutError: It did not happen in time.
        """

        def judged(manifest: dict[str, Any] | None) -> bool:
            return until(None if manifest is None else kind.model_validate(manifest))

        found = self.api.wait_for(
            resource_of(kind), name, self.namespace, until=judged, what=what, timeout_seconds=timeout_seconds
        )
        return None if found is None else kind.model_validate(found)

    def ask(self, request: _T, *, answered: Callable[[_T], bool], what: str, timeout_seconds: float) -> _T:
        """Create a request, return it once the server has answered it, and delete it in any case.

        Raises:
            WaitTimeoutError: It was not answered in time.
            VeleroError: Somebody else deleted it.
        """
        made = self.create(request)
        try:
            seen = self.wait(
                type(made),
                made.name,
                until=lambda now: now is None or answered(now),
                what=what,
                timeout_seconds=timeout_seconds,
            )
        finally:
            self.delete(made)
        if seen is None:
            raise VeleroError(f"{made} was deleted by somebody else", hint="try again")
        return seen

    def _require(self, kind: type[VeleroObject]) -> None:
        """Tell a kind that is not defined from an object that is not there: the API server says 404 to both."""
        try:
            self.api.get(DEFINITIONS, definition_of(kind))
        except ResourceNotFoundError as error:
            raise VeleroNotInstalledError(
                f"{self.api.server} has no Velero: no definition {definition_of(kind)}", hint=_INSTALL_HINT
            ) from error
