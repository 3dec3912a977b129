"""What Velero recorded of each volume of a backup: which have their data in it, how, and which have none.

Velero calls a backup ``Completed`` whose volumes it skipped, because nobody told it to take snapshots of them. Source
of the fields: Velero 1.18, ``internal/volume``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

from clusterguard.velero.findings import OutcomeFinding, Rule
from clusterguard.velero.records import part_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterguard.velero.options import BackupOptions

__all__ = [
    "NOT_WANTED",
    "VolumeRecord",
    "data_of",
    "is_decision",
    "skip_reasons",
    "volume_findings",
    "volume_name",
    "volume_records",
]

_CSI: Final = "CSISnapshot"
_FILES: Final = "PodVolumeBackup"
NOT_WANTED: Final = "not satisfy the criteria for VolumePolicy or the legacy snapshot way"
"""Velero's words for "nobody asked for a snapshot of it"."""

# And for what a policy, a label or an annotation decided.
_DECIDED: Final = (
    "skipped due to resource policy",
    "matched action is 'skip' in chosen resource policies",
    "item has label velero.io/exclude-from-backup=true",
    "opted out due to annotation in pod ",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """What became of one volume in a backup.

    Attributes:
        volume: ``namespace/claim``, or what else it is called where it has no claim.
        method: ``CSISnapshot``, ``PodVolumeBackup``, ``NativeSnapshot``; empty for one that was skipped.
        moved: Whether the snapshot's data was to be moved into the location.
        skipped: Whether nothing was done, for this reason.
        result: ``succeeded`` or ``failed``; empty while that is not known.
        handle: What the storage, or the repository, calls the snapshot.
        ready: Whether a snapshot was ready to use when the record was first written; None where it does not say so.
        watched: Whether an operation waited for it to be ready, whose result is the last word.
        phase: Of a DataUpload.
    """

    volume: str
    method: str = ""
    moved: bool = False
    skipped: bool = False
    reason: str = ""
    result: str = ""
    handle: str = ""
    ready: bool | None = None
    watched: bool = False
    phase: str = ""

    @property
    def by_snapshot(self) -> bool:
        """Whether its data is a CSI snapshot, or was moved from one."""
        return self.method == _CSI

    @property
    def in_storage_alone(self) -> bool:
        """Whether its data is nowhere but in the storage of its cluster."""
        return self.by_snapshot and not self.moved and not self.skipped

    @property
    def problem(self) -> OutcomeFinding | None:
        """Why its data is not in the backup; None where it is."""
        rule, detail = None, ""
        if self.skipped:
            rule, detail = Rule.VOLUME_LEFT_OUT, f"its data is not in the backup: {self._why_skipped}"
        elif self.result == "failed":
            rule, detail = Rule.VOLUME_FAILED, f"{self.method} failed" + (f" ({self.phase})" if self.phase else "")
        elif self.by_snapshot and not self.handle:
            what = "data in the location" if self.moved else "content in the storage"
            rule, detail = Rule.SNAPSHOT_WITHOUT_CONTENT, f"its snapshot has no {what}: no handle is recorded"
        elif self.by_snapshot and self.result != "succeeded" and (self.moved or self.watched or not self.ready):
            # What was seen of it while it was still being made does not count once the wait for it has succeeded.
            rule, detail = Rule.SNAPSHOT_WITHOUT_CONTENT, f"its snapshot {self.handle} is not known to be ready"
        return OutcomeFinding(rule=rule, detail=f"{self.volume}: {detail}") if rule else None

    @property
    def _why_skipped(self) -> str:
        return " ".join(self.reason.split()).rstrip("; ") or "Velero does not say why"

    def left_out_by(self, options: BackupOptions) -> str:
        """Return what decided that its data is not in the backup; empty where nobody did."""
        if not self.skipped:
            return ""
        if options.snapshot_volumes is False and not options.default_volumes_to_fs_backup:
            return "the backup was told to hold no data of volumes"
        no_snapshots = options.snapshot_volumes is False or bool(options.resource_policy)
        reasons = [each for each in skip_reasons(self.reason) if not (no_snapshots and each.endswith(NOT_WANTED))]
        return self._why_skipped if reasons and all(map(is_decision, reasons)) else ""


def skip_reasons(text: str) -> list[str]:
    """Return why a volume was skipped, a reason for each way to back it up: Velero has ``<way>: <reason>;`` for each.

    One that failed is no decision, whatever another one was.
    """
    return [reason for part in text.split(";") if (reason := part.partition(": ")[2])]


def is_decision(reason: str) -> bool:
    """Return whether a volume was skipped because somebody said so."""
    return reason.startswith(_DECIDED)


def volume_name(record: Mapping[str, Any]) -> str:
    """Return what a volume is called in its record: ``namespace/claim``, or else by its Pod or PersistentVolume."""
    if claim := text_of(record, "pvcName"):
        return f"{text_of(record, 'pvcNamespace')}/{claim}"
    pod = part_of(record, "pvbInfo")
    if pod:
        return f"{text_of(pod, 'podNamespace')}/{text_of(pod, 'podName')}:{text_of(pod, 'volumeName')}"
    return f"PersistentVolume {text_of(record, 'pvName') or 'without a name'}"


def volume_records(document: object) -> tuple[VolumeRecord, ...]:
    """Return the records of a backup's volume infos; an odd document has none."""
    items = document if isinstance(document, list) else []
    return tuple(_record(each) for each in items if isinstance(each, Mapping))


def _record(item: Mapping[str, Any]) -> VolumeRecord:
    snapshot, move, pod, native = (
        part_of(item, key) for key in ("csiSnapshotInfo", "snapshotDataMovementInfo", "pvbInfo", "nativeSnapshotInfo")
    )
    moved = bool(item.get("snapshotDataMoved"))
    ready = snapshot.get("ReadyToUse")
    return VolumeRecord(
        volume=volume_name(item),
        method=text_of(item, "backupMethod"),
        moved=moved,
        skipped=bool(item.get("skipped")),
        reason=text_of(item, "skippedReason"),
        result=text_of(item, "result"),
        handle=text_of(move if moved else pod or native or snapshot, "snapshotHandle"),
        ready=ready if isinstance(ready, bool) else None,
        watched=bool(snapshot.get("operationID")),
        phase=text_of(move, "Phase"),
    )


class DataOf(TypedDict):
    """Where the data of volumes in a backup is: see `clusterguard.drills.backups.TakenBackup`."""

    repositories: tuple[str, ...]
    files: bool
    snapshots: tuple[str, ...]
    moved: tuple[str, ...]


def data_of(records: Iterable[VolumeRecord]) -> DataOf:
    """Return where the data is of those volumes that have some."""
    whole = [each for each in records if each.problem is None]
    files = [each.volume for each in whole if each.method == _FILES]
    moved = dict.fromkeys(each.volume for each in whole if each.by_snapshot and each.moved)
    stays = dict.fromkeys(each.volume for each in whole if each.in_storage_alone and each.volume not in moved)
    return DataOf(
        repositories=tuple(sorted({each.partition("/")[0] for each in (*files, *moved)})),
        files=bool(files),
        snapshots=tuple(stays),
        moved=tuple(moved),
    )


def volume_findings(records: Iterable[VolumeRecord], options: BackupOptions) -> Iterator[OutcomeFinding]:
    """Yield what speaks against the volumes of a backup, and which of them are in its cluster's storage alone.

    Args:
        records: What Velero recorded; a volume may have several records, and one with data is enough.
        options: What the backup was asked for.
    """
    by_volume: dict[str, list[VolumeRecord]] = {}
    for each in records:
        by_volume.setdefault(each.volume, []).append(each)
    for volume, found in sorted(by_volume.items()):
        whole = [each for each in found if each.problem is None]
        problems = [each.problem for each in found if each.problem is not None]
        decisions = [each.left_out_by(options) for each in found]
        if whole and all(each.in_storage_alone for each in whole):
            detail = f"{volume}: its snapshot {whole[0].handle} is in the storage of its cluster alone"
            yield OutcomeFinding(rule=Rule.SNAPSHOT_NOT_MOVED, detail=detail)
        elif not whole and all(decisions):
            yield OutcomeFinding(rule=Rule.LEFT_OUT_BY_FILTER, detail=f"{volume}: {decisions[0]}")
        elif not whole:
            yield next((each for each in problems if each.rule != Rule.VOLUME_LEFT_OUT), problems[0])
