"""Adopting the backups of a bucket: the objects that make a server know them.

A server does this itself once a minute ("backup sync"). What it keeps, drops and refuses is done likewise here:
only phases that are final, no hooks, the name of the location as it is in this cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterguard.errors import BackupCorruptError, VeleroError
from clusterguard.velero.layout import FORMAT_MAJOR, BackupFile, BackupLayout, format_major
from clusterguard.velero.phases import BackupPhase
from clusterguard.velero.resources import Backup, PodVolumeBackup, valid_label
from clusterguard.velero.tarball import Limits, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clusterguard.stores.base import ObjectStore

__all__ = ["adopted", "read_documents", "to_volume_backup"]

_LIMITS = Limits(document_bytes=64 << 20)  # etcd refuses objects above a few MiB, lists of volumes are a little longer
_BACKUP_UID = "velero.io/backup-uid"
_LOCATION = "velero.io/storage-location"
_FINAL = (BackupPhase.COMPLETED, BackupPhase.PARTIALLY_FAILED, BackupPhase.FAILED)


def read_documents(store: ObjectStore, name: str) -> tuple[Any, Sequence[Any]]:
    """Return a backup's own document, and those of its pod volume backups.

    Raises:
        ObjectNotFoundError: The bucket has no such backup.
        VeleroError: A document is damaged or too long.
    """
    layout = BackupLayout(name)
    document = _read(store, layout.key(BackupFile.METADATA), packed=False)
    key = layout.key(BackupFile.POD_VOLUME_BACKUPS)
    if not any(info.key == key for info in store.list(key)):
        return document, ()  # backups without volumes before Velero 1.4 have none
    return document, _read(store, key, packed=True) or ()


def adopted(document: object, *, name: str, namespace: str, location: str) -> Backup:
    """Return the Backup object to create for a document of the bucket.

    Args:
        document: What ``velero-backup.json`` holds.
        name: The folder that it was found in.
        namespace: The server's.
        location: What the location is called in this cluster.

    Raises:
        VeleroError: It is not a backup, has another name or a future format, or is unfinished.
    """
    if not isinstance(document, dict) or document.get("kind") != Backup.kind:
        raise VeleroError(
            f"backups/{name}/velero-backup.json is not a Backup", code="not-a-backup", hint="verify the bucket"
        )
    source = Backup.model_validate(document)
    if source.name != name:
        raise VeleroError(
            f"backups/{name}/velero-backup.json is that of backup {source.name!r}",
            code="not-a-backup",
            hint="a part of the bucket was copied or renamed; a backup cannot be renamed",
        )
    if (major := format_major(source.format_version)) is not None and major > FORMAT_MAJOR:
        raise VeleroError(
            f"backup {name!r} has format {source.format_version}; this release reads {FORMAT_MAJOR}.x",
            code="backup-format",
            hint="a newer Velero wrote it: restore it with a server and a clusterguard of that version",
        )
    if source.phase not in _FINAL:
        raise VeleroError(
            f"{source} in the bucket is unfinished",
            code="backup-unfinished",
            hint="its server may still write it; try again later",
        )
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {**source.labels, _LOCATION: valid_label(location)},
        "annotations": dict(source.annotations),
    }
    if owners := source.metadata.get("ownerReferences"):
        metadata["ownerReferences"] = list(owners)
    spec = {key: value for key, value in source.spec.items() if key != "hooks"}
    return Backup.model_validate({**document, "metadata": metadata, "spec": {**spec, "storageLocation": location}})


def to_volume_backup(document: Mapping[str, Any], *, backup: Backup, location: str) -> PodVolumeBackup:
    """Return the PodVolumeBackup to create for a document of the bucket, belonging to a Backup of this cluster."""
    source = PodVolumeBackup.model_validate(document)
    labels = {**source.labels} | ({_BACKUP_UID: backup.uid} if _BACKUP_UID in source.labels else {})
    owners = [
        {**owner, "uid": backup.uid} if (owner.get("kind"), owner.get("name")) == (Backup.kind, backup.name) else owner
        for owner in source.metadata.get("ownerReferences") or ()
    ]
    metadata: dict[str, Any] = {"name": source.name, "namespace": backup.namespace, "labels": labels}
    metadata |= {"annotations": dict(source.annotations)} if source.annotations else {}
    metadata |= {"ownerReferences": owners} if owners else {}
    # A list of them was written to the bucket, and items of lists do not say what they are.
    typed = {"apiVersion": f"velero.io/{PodVolumeBackup.version}", "kind": PodVolumeBackup.kind}
    spec = {**source.spec, "backupStorageLocation": location}
    return PodVolumeBackup.model_validate({**document, **typed, "metadata": metadata, "spec": spec})


def _read(store: ObjectStore, key: str, *, packed: bool) -> Any:  # noqa: ANN401 - any JSON
    try:
        with store.get(key) as stream:
            return read_document(stream, limits=_LIMITS, packed=packed)
    except BackupCorruptError as error:
        raise VeleroError(f"{key}: {error.message}", code="backup-damaged", hint="verify the bucket") from error
