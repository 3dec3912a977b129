"""What the records of a backup say of the data of its volumes in the bucket: which snapshot, in which repository.

Source: Velero 1.18, ``internal/volume/volumes_information.go`` and the types of PodVolumeBackup.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clusterguard.velero.bucket_evidence import records_in
from clusterguard.velero.layout import BackupFile, repository_folder
from clusterguard.velero.phases import TransferPhase
from clusterguard.velero.records import part_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["StoredVolume", "stored_volumes"]

_OPERATION = "velero.io/async-operation-id"
# What tells the snapshots of one repository apart: the uploader keeps these of the request with the snapshot.
_TELLING = ("backup-uid", "pod-uid", "volume", _OPERATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVolume:
    """The data of one volume, as the records tell it.

    Attributes:
        name: ``namespace/claim``, or ``namespace/pod:volume``.
        repository: What the keys of its repository start with.
        uploader: ``kopia``, or ``restic`` in old backups.
        snapshot: The ID of the snapshot there; empty where none is told.
        size: Bytes of its files; None where that is not told.
        tags: What the snapshot itself must say, where it says anything of it.
    """

    name: str
    repository: str
    uploader: str
    snapshot: str
    size: int | None
    tags: Mapping[str, str] = field(default_factory=dict)


def stored_volumes(documents: Mapping[BackupFile, Any]) -> list[StoredVolume]:
    """Return the volumes whose data the records say is in the bucket, by name.

    Args:
        documents: What was read of each file beside the tarball.
    """
    found = [*_moved(documents), *_by_files(documents)]
    return sorted(found, key=lambda volume: (volume.repository, volume.name))


def _by_files(documents: Mapping[BackupFile, Any]) -> Iterator[StoredVolume]:
    for record in records_in(documents[BackupFile.POD_VOLUME_BACKUPS]):
        spec, status = part_of(record, "spec"), part_of(record, "status")
        # What failed is a finding of another check, and has nothing in the bucket to look at.
        if text_of(status, "phase") != TransferPhase.COMPLETED:
            continue
        pod, uploader = part_of(spec, "pod"), text_of(spec, "uploaderType")
        namespace = text_of(pod, "namespace")
        # What a Go program leaves out is zero.
        yield StoredVolume(
            name=f"{namespace}/{text_of(pod, 'name')}:{text_of(spec, 'volume')}",
            repository=repository_folder(uploader, namespace),
            uploader=uploader,
            snapshot=text_of(status, "snapshotID"),
            size=_size(part_of(status, "progress").get("totalBytes", 0)),
            tags=_telling(part_of(spec, "tags")),
        )


def _moved(documents: Mapping[BackupFile, Any]) -> Iterator[StoredVolume]:
    for record in records_in(documents[BackupFile.VOLUME_INFO]):
        if not record.get("snapshotDataMoved") or record.get("skipped") or text_of(record, "result") == "failed":
            continue
        moved = part_of(record, "snapshotDataMovementInfo")
        namespace, uploader = text_of(record, "pvcNamespace"), text_of(moved, "uploaderType")
        yield StoredVolume(
            name=f"{namespace}/{text_of(record, 'pvcName')}",
            repository=repository_folder(uploader, namespace),
            uploader=uploader or "kopia",
            snapshot=text_of(moved, "snapshotHandle"),
            size=_size(moved.get("size", 0)),
            tags=_telling({_OPERATION: text_of(moved, "operationID")}),
        )


def _telling(tags: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name in _TELLING if (value := text_of(tags, name))}


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
