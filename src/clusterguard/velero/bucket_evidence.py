"""The files of a backup beside its tarball, read into shapes that can be judged without surprises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from clusterguard.errors import BackupCorruptError
from clusterguard.velero.layout import repository_key
from clusterguard.velero.outcome import parse_results
from clusterguard.velero.resources import Backup
from clusterguard.velero.tarball import read_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clusterguard.model.inventory import ObjectRef
    from clusterguard.stores.base import ByteReader
    from clusterguard.velero.layout import BackupLayout
    from clusterguard.velero.manifest import ObjectDigest
    from clusterguard.velero.outcome import Message
    from clusterguard.velero.tarball import Inspection, Limits

__all__ = [
    "Evidence",
    "Records",
    "Unreadable",
    "part_of",
    "post_operation_items",
    "read_backup",
    "read_messages",
    "read_records",
    "read_resource_list",
    "records_in",
    "repositories",
    "text_of",
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
    backup: Backup | Unreadable
    resource_list: Mapping[str, frozenset[str]] | Unreadable
    messages: Sequence[Message] | Unreadable
    volumes: Records | Unreadable
    pod_volumes: Records | Unreadable
    snapshots: Records | Unreadable
    operations: Records | Unreadable
    inspection: Inspection
    tarball_problem: str
    uids: Mapping[ObjectRef, str]
    missing_repositories: Sequence[str]
    repositories: int
    digests: Mapping[str, ObjectDigest]


def read_backup(stream: ByteReader, limits: Limits) -> Backup:
    """Read the Backup object that Velero keeps beside the tarball.

    Raises:
        BackupCorruptError: It is none.
    """
    document = read_document(stream, limits=limits, packed=False)
    if not isinstance(document, dict) or document.get("kind") != "Backup":
        raise BackupCorruptError("it is no Backup")
    group = str(document.get("apiVersion")).partition("/")[0]
    if group != "velero.io":
        raise BackupCorruptError(f"it is a Backup of {group!r}, not of velero.io")
    return Backup.model_validate(document)


def read_records(stream: ByteReader, limits: Limits) -> Records:
    """Read a packed list of JSON objects.

    Raises:
        BackupCorruptError: It is none.
    """
    document = read_document(stream, limits=limits)
    if document is None:  # an empty list of Go's
        return ()
    if not isinstance(document, list) or not all(isinstance(one, dict) for one in document):
        raise BackupCorruptError("it is no list of objects")
    return document


def read_resource_list(stream: ByteReader, limits: Limits) -> Mapping[str, frozenset[str]]:
    """Read which objects Velero says that it stored: ``namespace/name``, by kind with its group.

    Raises:
        BackupCorruptError: It is no such list.
    """
    return _resource_list(read_document(stream, limits=limits))


def read_messages(stream: ByteReader, limits: Limits) -> Sequence[Message]:
    """Read errors and warnings.

    Raises:
        BackupCorruptError: They are none.
    """
    return parse_results(_with_shape_of_results(read_document(stream, limits=limits)))


def _resource_list(document: object) -> Mapping[str, frozenset[str]]:
    if not isinstance(document, dict) or not all(isinstance(names, list) for names in document.values()):
        raise BackupCorruptError("it is no list of names by kind")
    found: dict[str, frozenset[str]] = {}
    for api_kind, names in document.items():
        if not all(isinstance(name, str) for name in names):
            raise BackupCorruptError(f"the names of {api_kind} are no texts")
        full_kind = _full_kind(api_kind)  # in whichever version
        found[full_kind] = found.get(full_kind, frozenset()) | frozenset(names)
    return found


def _full_kind(api_kind: str) -> str:
    """Return ``Deployment.apps`` for ``apps/v1/Deployment``."""
    api_version, _, kind = api_kind.rpartition("/")
    group = api_version.rpartition("/")[0]
    return f"{kind}.{group}" if group else kind


def _with_shape_of_results(document: object) -> Mapping[str, Any]:
    """Return a results document that can be read without surprises."""
    if not isinstance(document, dict):
        raise BackupCorruptError("it is no JSON object")
    if not all(_is_messages(document.get(part)) for part in ("errors", "warnings")):
        raise BackupCorruptError("its errors and warnings are no lists of texts")
    return document


def _is_messages(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    namespaces = part.get("namespaces") or {}
    if not isinstance(namespaces, dict):
        return False
    lists = [part.get("velero"), part.get("cluster"), *namespaces.values()]
    return all(texts is None or isinstance(texts, list) for texts in lists)


def repositories(pod_volumes: Records | Unreadable, volumes: Records | Unreadable) -> list[str]:
    """Return the keys that must exist for the data of volumes to be readable."""
    keys = set()
    for record in records_in(pod_volumes):
        spec = part_of(record, "spec")
        keys.add(repository_key(text_of(spec, "uploaderType"), text_of(part_of(spec, "pod"), "namespace")))
    for record in records_in(volumes):
        if record.get("snapshotDataMoved") and not record.get("skipped"):
            mover = text_of(part_of(record, "snapshotDataMovementInfo"), "uploaderType")
            keys.add(repository_key(mover, text_of(record, "pvcNamespace")))
    return sorted(keys)


def post_operation_items(operations: Records | Unreadable) -> frozenset[tuple[str, str]]:
    """Return resource and ``namespace/name`` of what is stored once the operations have ended."""
    named = set()
    for record in records_in(operations):
        items = part_of(record, "spec").get("postOperationItems")
        for item in items if isinstance(items, list) else ():
            if isinstance(item, dict):
                resource, group = text_of(item, "Resource"), text_of(item, "Group")
                words = (text_of(item, "Namespace"), text_of(item, "Name"))
                full_name = "/".join(word for word in words if word)
                named.add((f"{resource}.{group}" if group else resource, full_name))
    return frozenset(named)


def records_in(records: Records | Unreadable) -> Records:
    """Return the records, none where they could not be read."""
    return () if isinstance(records, Unreadable) else records


def part_of(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object inside another one, empty where there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def text_of(record: Mapping[str, Any], key: str) -> str:
    """Return a value as text, empty where there is none."""
    value = record.get(key)
    return "" if value is None else str(value)
