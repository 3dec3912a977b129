"""The files of a backup beside its tarball, read into shapes that can be judged without surprises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from clusterguard.errors import BackupCorruptError
from clusterguard.velero.layout import BackupFile, repository_key
from clusterguard.velero.outcome import parse_results
from clusterguard.velero.records import part_of, text_of
from clusterguard.velero.resources import Backup
from clusterguard.velero.tarball import read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clusterguard.model.inventory import ObjectRef
    from clusterguard.stores.base import ByteReader
    from clusterguard.velero.layout import BackupLayout
    from clusterguard.velero.manifest import ObjectDigest
    from clusterguard.velero.outcome import Message
    from clusterguard.velero.tarball import Inspection, Limits
    from clusterguard.velero.volume_data import VolumeData

__all__ = [
    "READERS",
    "Evidence",
    "Unreadable",
    "read_backup",
    "records_in",
    "repositories",
]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a document or a tarball should be, with the reason."""

    reason: str


Records: TypeAlias = "Sequence[Mapping[str, Any]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that was read of one backup."""

    layout: BackupLayout
    sizes: Mapping[str, int]
    documents: Mapping[BackupFile, Any]
    inspection: Inspection
    tarball_problem: str
    uids: Mapping[ObjectRef, str]
    missing_repositories: Sequence[str]
    repositories: int
    digests: Mapping[str, ObjectDigest]
    stored_volumes: int = 0
    volume_data: VolumeData | None = None

    @property
    def backup(self) -> Backup | Unreadable:
        """Its metadata."""
        backup: Backup | Unreadable = self.documents[BackupFile.METADATA]
        return backup

    def post_operation_items(self) -> frozenset[tuple[str, str]]:
        """Return resource and ``namespace/name`` of what is stored once the operations have ended."""
        named = set()
        for record in records_in(self.documents[BackupFile.ITEM_OPERATIONS]):
            items = part_of(record, "spec").get("postOperationItems")
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict):
                    resource, group = text_of(item, "Resource"), text_of(item, "Group")
                    words = (text_of(item, "Namespace"), text_of(item, "Name"))
                    full_name = "/".join(word for word in words if word)
                    named.add((f"{resource}.{group}" if group else resource, full_name))
        return frozenset(named)


def read_backup(stream: ByteReader, limits: Limits) -> Backup:
    """Read the Backup object that Velero keeps beside the tarball.

    Raises:
        BackupCorruptError: It is not one.
    """
    document = read_document(stream, limits=limits, packed=False)
    if not isinstance(document, dict) or document.get("kind") != "Backup":
        raise BackupCorruptError("it is not a Backup")
    group = str(document.get("apiVersion")).partition("/")[0]
    if group != "velero.io":
        raise BackupCorruptError(f"it is a Backup of {group!r}, not of velero.io")
    return Backup.model_validate(document)


def _read_records(stream: ByteReader, limits: Limits) -> Records:
    document = read_document(stream, limits=limits)
    if document is None:  # an empty list of Go's
        return ()
    if not isinstance(document, list) or not all(isinstance(one, dict) for one in document):
        raise BackupCorruptError("it is not a list of objects")
    return document


def _read_resource_list(stream: ByteReader, limits: Limits) -> Mapping[str, frozenset[str]]:
    """Return ``namespace/name`` of the objects that Velero says it stored, by kind with its group."""
    document = read_document(stream, limits=limits)
    if not isinstance(document, dict) or not all(isinstance(names, list) for names in document.values()):
        raise BackupCorruptError("it is not a list of names by kind")
    found: dict[str, frozenset[str]] = {}
    for api_kind, names in document.items():
        if not all(isinstance(name, str) for name in names):
            raise BackupCorruptError(f"the names of {api_kind} are not texts")
        full_kind = _full_kind(api_kind)  # in whichever version
        found[full_kind] = found.get(full_kind, frozenset()) | frozenset(names)
    return found


def _read_messages(stream: ByteReader, limits: Limits) -> Sequence[Message]:
    document = read_document(stream, limits=limits)
    if not isinstance(document, dict):
        raise BackupCorruptError("it is not a JSON object")
    if not all(_is_messages(document.get(part)) for part in ("errors", "warnings")):
        raise BackupCorruptError("its errors and warnings are not lists of texts")
    return parse_results(document)


def _full_kind(api_kind: str) -> str:
    """Return ``Deployment.apps`` for ``apps/v1/Deployment``."""
    api_version, _, kind = api_kind.rpartition("/")
    group = api_version.rpartition("/")[0]
    return f"{kind}.{group}" if group else kind


def _is_messages(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    namespaces = part.get("namespaces") or {}
    if not isinstance(namespaces, dict):
        return False
    lists = [part.get("velero"), part.get("cluster"), *namespaces.values()]
    return all(texts is None or isinstance(texts, list) for texts in lists)


def repositories(documents: Mapping[BackupFile, Any]) -> list[str]:
    """Return the keys that must exist for the data of volumes to be readable."""
    keys = set()
    for record in records_in(documents[BackupFile.POD_VOLUME_BACKUPS]):
        spec = part_of(record, "spec")
        keys.add(repository_key(text_of(spec, "uploaderType"), text_of(part_of(spec, "pod"), "namespace")))
    for record in records_in(documents[BackupFile.VOLUME_INFO]):
        if record.get("snapshotDataMoved") and not record.get("skipped"):
            mover = text_of(part_of(record, "snapshotDataMovementInfo"), "uploaderType")
            keys.add(repository_key(mover, text_of(record, "pvcNamespace")))
    return sorted(keys)


def records_in(records: Records | Unreadable) -> Records:
    """Return the records, none where they could not be read."""
    return () if isinstance(records, Unreadable) else records


READERS: Mapping[BackupFile, Callable[[ByteReader, Limits], Any]] = {
    BackupFile.METADATA: read_backup,
    BackupFile.VOLUME_INFO: _read_records,
    BackupFile.POD_VOLUME_BACKUPS: _read_records,
    BackupFile.RESOURCE_LIST: _read_resource_list,
    BackupFile.RESULTS: _read_messages,
    BackupFile.VOLUME_SNAPSHOTS: _read_records,
    BackupFile.ITEM_OPERATIONS: _read_records,
}
"""How each file beside the tarball is read; in that order."""
