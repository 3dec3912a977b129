"""Whose data is in a backup, and why that of the others is not. Pure.

An etcd snapshot has no data of volumes. Of Velero's backups only what was recorded counts: a PodVolumeBackup or a
DataUpload that is complete, or as many complete snapshots in the storage as there are claims that it takes one of;
which claims these are of, only the bucket knows.

Source of the facts: velero.io/docs/main/file-system-backup and …/csi; Velero 1.18.3, run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

from clusterguard.coverage.found import Kind, Thing
from clusterguard.coverage.takes import EXCLUDED
from clusterguard.velero.phases import TransferPhase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from clusterguard.coverage.found import Found, InlineVolume, PodUse
    from clusterguard.coverage.takes import Taking
    from clusterguard.velero.claims import ClaimedVolume
    from clusterguard.velero.resources import VolumeTransfer

__all__ = ["NoData", "VolumeRow", "volume_rows"]

_CLAIM: Final = Kind("PersistentVolumeClaim", "persistentvolumeclaims", namespaced=True)
_PVC_UID, _PVC_NAME = "velero.io/pvc-uid", "velero.io/pvc-name"


class NoData(StrEnum):
    """Why the data of a volume is in no backup, the most telling first."""

    UNBOUND = "unbound"
    EMPTY_DIR = "emptyDir"
    EPHEMERAL = "ephemeral"
    NODE_FILES = "node-files"
    UNCLAIMED = "unclaimed"
    RELEASED = "released"
    IGNORED = "ignored-namespace"
    FAILED = "copy-failed"
    EXCLUDED_BY_ANNOTATION = "excluded-by-annotation"
    EXCLUDED_BY_LABEL = "excluded-by-label"
    HOST_PATH = "hostPath"
    NO_SNAPSHOT_CLASS = "no-snapshot-class"
    SNAPSHOTS_OFF = "snapshots-off"
    NO_RUNNING_POD = "no-running-pod"
    OPT_IN_MISSING = "opt-in-missing"
    NOT_RECORDED = "not-recorded"
    NEWER = "newer-than-backup"
    CLAIM_LEFT_OUT = "claim-left-out"
    ETCD_ONLY = "etcd-only"
    NO_BACKUP = "no-backup"

    @property
    def excused(self) -> bool:
        """Whether there is nothing to lose that anybody could expect back."""
        return self in _EXCUSED

    @property
    def words(self) -> str:
        """What it means."""
        return _WORDS[self]


_EXCUSED: Final = frozenset(
    {NoData.UNBOUND, NoData.EMPTY_DIR, NoData.EPHEMERAL, NoData.NODE_FILES, NoData.UNCLAIMED, NoData.IGNORED}
)
_WORDS: Final[Mapping[NoData, str]] = {
    NoData.UNBOUND: "the claim is bound to no volume",
    NoData.EMPTY_DIR: "an emptyDir goes with its Pod",
    NoData.EPHEMERAL: "it is made with its Pod and goes with it",
    NoData.NODE_FILES: "files of the node that its Pods only read",
    NoData.UNCLAIMED: "no claim has used it yet",
    NoData.RELEASED: "its claim is gone, and nothing backs up a volume without one",
    NoData.IGNORED: "its namespace is ignored",
    NoData.FAILED: "the copy of its data did not complete",
    NoData.EXCLUDED_BY_ANNOTATION: "backup.velero.io/backup-volumes-excludes of its Pod names it",
    NoData.EXCLUDED_BY_LABEL: "it has the label velero.io/exclude-from-backup=true",
    NoData.HOST_PATH: "file-system backup leaves volumes of the type hostPath out, and nothing takes a snapshot of one",
    NoData.NO_SNAPSHOT_CLASS: "no VolumeSnapshotClass is taken for it",
    NoData.SNAPSHOTS_OFF: "the backup takes no snapshots, and no annotation opts in to file-system backup",
    NoData.NO_RUNNING_POD: "file-system backup takes volumes of running Pods only, and none uses it",
    NoData.OPT_IN_MISSING: "nothing takes a snapshot of it, and backup.velero.io/backup-volumes of no Pod names it",
    NoData.NOT_RECORDED: "it should be in the backup, and nothing shows that it is",
    NoData.NEWER: "it is newer than the backup",
    NoData.CLAIM_LEFT_OUT: "the backup does not take its claim",
    NoData.ETCD_ONLY: "etcd snapshots have no data of volumes",
    NoData.NO_BACKUP: "no backup counts at the moment",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRow:
    """One volume.

    Attributes:
        name: ``namespace/claim``; ``namespace/owner:volume`` of one that Pods name themselves; else the volume's.
        source: ``csi``, ``hostPath``, ``emptyDir`` …; empty where unknown.
        by: The sources with its data.
        method: How the data was taken; ``counted`` snapshots are known by Velero's count, and not by name.
        detail: More of the reason.
    """

    name: str
    namespace: str = ""
    source: str = ""
    state: Literal["protected", "unprotected", "excused"] = "unprotected"
    by: tuple[str, ...] = ()
    method: Literal["", "files", "moved", "counted"] = ""
    reason: NoData | None = None
    detail: str = ""


def volume_rows(found: Found, takings: Sequence[Taking], *, ignored: Collection[str] = ()) -> tuple[VolumeRow, ...]:
    """Return every volume: those of claims, those that Pods name themselves, and those that nobody claims.

    Args:
        found: The cluster.
        takings: The backups that count.
        ignored: Namespaces whose volumes need not be in any backup.
    """
    rows = [*_claimed(found, takings), *_inline(found, takings), *_unclaimed(found)]
    excused = (
        VolumeRow(name=each.name, namespace=each.namespace, source=each.source, state="excused", reason=NoData.IGNORED)
        if each.namespace in ignored and each.state == "unprotected"
        else each
        for each in rows
    )
    return tuple(sorted(excused, key=lambda each: (each.namespace, each.name)))


def _row(name: str, namespace: str, source: str, verdicts: Sequence[_Verdict]) -> VolumeRow:
    good = [each for each in verdicts if each.method]
    if good:
        by = tuple(each.of for each in good)
        return VolumeRow(name=name, namespace=namespace, source=source, state="protected", by=by, method=good[0].method)
    order = list(NoData)
    worst = min(verdicts, key=lambda each: order.index(each.reason), default=_Verdict(reason=NoData.NO_BACKUP))
    state: Literal["excused", "unprotected"] = "excused" if worst.reason.excused else "unprotected"
    return VolumeRow(
        name=name, namespace=namespace, source=source, state=state, reason=worst.reason, detail=worst.detail
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What one source has of one volume: how, or why not."""

    of: str = ""
    method: Literal["", "files", "moved", "counted"] = ""
    reason: NoData = NoData.NOT_RECORDED
    detail: str = ""


# ---- claims --------------------------------------------------------------------------------------------------


def _claimed(found: Found, takings: Sequence[Taking]) -> Iterator[VolumeRow]:
    things = {(each.namespace, each.name): each for each in found.of_kind(_CLAIM.name)}
    looks = [_ClaimsOf(taking, found, things) for taking in takings]
    for claim in found.claims:
        if not claim.volume:
            verdicts = [_Verdict(reason=NoData.UNBOUND, detail=claim.why_unbound)]
        elif _thing(things, claim).rule:  # made with its Pod, being deleted, or of a system namespace
            verdicts = [_Verdict(reason=NoData.EPHEMERAL, detail=_thing(things, claim).rule)]
        else:
            verdicts = [each.verdict(claim) for each in looks]
        yield _row(str(claim), claim.namespace, claim.source, verdicts)


def _thing(things: Mapping[tuple[str, str], Thing], claim: ClaimedVolume) -> Thing:
    return things.get((claim.namespace, claim.name)) or Thing(claim.name, claim.namespace)


class _ClaimsOf:
    """What one backup has of claims."""

    def __init__(self, taking: Taking, found: Found, things: Mapping[tuple[str, str], Thing]) -> None:
        self._taking, self._found, self._things = taking, found, things
        self._name = taking.source.name
        self._counted: bool | None = None

    def verdict(self, claim: ClaimedVolume) -> _Verdict:
        method, reason, detail = self._decided(claim)
        return _Verdict(of=self._name, method=method, reason=reason, detail=detail)

    def _decided(self, claim: ClaimedVolume) -> tuple[Literal["", "files", "moved", "counted"], NoData, str]:
        options = self._taking.source.options
        if options is None:
            return "", NoData.ETCD_ONLY, ""
        if transfer := self._transfer_of(claim):
            if transfer.phase == TransferPhase.COMPLETED:
                return ("files" if transfer.kind == "PodVolumeBackup" else "moved"), NoData.NOT_RECORDED, ""
            return "", NoData.FAILED, f"{transfer.kind} {transfer.phase}: {transfer.message}".removesuffix(": ")
        reason, detail = self._why_not(claim)
        if reason is None and self._snapshots_are_complete():
            return "counted", NoData.NOT_RECORDED, ""
        begun, done = self._taking.source.snapshots
        if reason is None:
            reason, detail = NoData.NOT_RECORDED, f"{done} of {begun} snapshots are complete"
        return "", reason, detail

    def _why_not(self, claim: ClaimedVolume) -> tuple[NoData | None, str]:
        """Return why a claim without a record has no data in the backup; None where its storage may have a snapshot."""
        thing, uses = _thing(self._things, claim), self._uses(claim)
        if thing.labels.get(EXCLUDED) == "true":
            return NoData.EXCLUDED_BY_LABEL, ""
        if self._left_out(claim, thing, uses):
            return NoData.CLAIM_LEFT_OUT, ""
        if thing.created > self._taking.taken_at:
            return NoData.NEWER, ""
        if claim.source == "hostPath":
            return NoData.HOST_PATH, ""
        return self._why_not_copied(claim, uses)

    def _why_not_copied(self, claim: ClaimedVolume, uses: Sequence[PodUse]) -> tuple[NoData | None, str]:
        options = self._taking.source.options
        assert options is not None  # noqa: S101 - for the type checker: it is a Velero backup
        files = bool(options.default_volumes_to_fs_backup)
        if any(each.running and (each.opted_in or (files and not each.opted_out)) for each in uses):
            return NoData.NOT_RECORDED, "no PodVolumeBackup is there"
        if claim.driver and options.snapshot_volumes is not False:
            return self._why_no_snapshot(claim)
        if any(each.opted_out for each in uses):
            return NoData.EXCLUDED_BY_ANNOTATION, ""
        if files or any(each.opted_in for each in uses):
            return NoData.NO_RUNNING_POD, ""
        if claim.driver:
            return NoData.SNAPSHOTS_OFF, ""
        return NoData.OPT_IN_MISSING, f"it is of the type {claim.source or 'unknown'}, of no CSI driver"

    def _why_no_snapshot(self, claim: ClaimedVolume) -> tuple[NoData | None, str]:
        options, classes = self._taking.source.options, self._found.snapshot_classes
        assert options is not None  # noqa: S101 - likewise
        if classes is None:
            return NoData.NO_SNAPSHOT_CLASS, "the cluster has no VolumeSnapshotClasses that can be read"
        chosen = classes.chosen_for(claim)
        if chosen.problem:
            return NoData.NO_SNAPSHOT_CLASS, chosen.problem
        if options.snapshot_move_data:
            return NoData.NOT_RECORDED, "no DataUpload is there"
        if options.resource_policy:
            return NoData.NOT_RECORDED, f"the rules in ConfigMap {options.resource_policy} may leave it out"
        return None, ""

    def _left_out(self, claim: ClaimedVolume, thing: Thing, uses: Sequence[PodUse]) -> bool:
        from clusterguard.coverage.takes import Reason

        reason = self._taking.left_out(_CLAIM, thing)
        if reason is Reason.OTHER_LABELS:  # a Pod brings its claims, whatever their labels
            pod = Kind("Pod", "pods", namespaced=True)
            return all(
                self._taking.left_out(pod, Thing(each.pod, claim.namespace, each.labels)) is not None for each in uses
            )
        return reason is not None

    def _uses(self, claim: ClaimedVolume) -> Sequence[PodUse]:
        return self._found.uses.get((claim.namespace, claim.name), ())

    def _transfer_of(self, claim: ClaimedVolume) -> VolumeTransfer | None:
        """Return the copy of a claim's data, a complete one rather than another."""
        of_pods = {f"{claim.namespace}/{each.pod}:{each.volume}" for each in self._uses(claim)}
        found = [each for each in self._taking.source.transfers if _is_of(each, claim, of_pods)]
        return next((each for each in found if each.phase == TransferPhase.COMPLETED), next(iter(found), None))

    def _snapshots_are_complete(self) -> bool:
        if self._counted is None:
            claims = [each for each in self._found.claims if each.volume and not _thing(self._things, each).rule]
            expected = sum(self._transfer_of(each) is None and self._why_not(each)[0] is None for each in claims)
            begun, done = self._taking.source.snapshots
            self._counted = begun == done and done >= expected > 0
        return self._counted


def _is_of(transfer: VolumeTransfer, claim: ClaimedVolume, of_pods: Collection[str]) -> bool:
    if transfer.pod and transfer.pod.get("namespace") != claim.namespace:
        return False
    if uid := transfer.labels.get(_PVC_UID):
        return bool(claim.uid) and uid == claim.uid  # another claim of that name has other data
    if name := transfer.annotations.get(_PVC_NAME):
        return name == claim.name
    return transfer.volume == str(claim) or transfer.volume in of_pods


# ---- other volumes -------------------------------------------------------------------------------------------


def _inline(found: Found, takings: Sequence[Taking]) -> Iterator[VolumeRow]:
    for volume in found.inline:
        name = f"{volume.namespace}/{volume.owner}:{volume.volume}"
        verdicts = [_of_inline(volume, taking) for taking in takings]
        if volume.source in {"emptyDir", "csi"}:
            default = NoData.EMPTY_DIR if volume.source == "emptyDir" else NoData.EPHEMERAL
            verdicts = [each for each in verdicts if each.method] or [_Verdict(reason=default)]
        elif volume.source == "hostPath" and volume.read_only:
            verdicts = [_Verdict(reason=NoData.NODE_FILES)]
        yield _row(name, volume.namespace, volume.source, verdicts)


def _of_inline(volume: InlineVolume, taking: Taking) -> _Verdict:
    if taking.source.options is None:
        return _Verdict(reason=NoData.ETCD_ONLY)
    names = {f"{volume.namespace}/{pod}:{volume.volume}" for pod in volume.pods}
    done = {each.volume for each in taking.source.transfers if each.phase == TransferPhase.COMPLETED}
    if names and names <= done:
        return _Verdict(of=taking.source.name, method="files")
    return _Verdict(reason=NoData.HOST_PATH if volume.source == "hostPath" else NoData.OPT_IN_MISSING)


def _unclaimed(found: Found) -> Iterator[VolumeRow]:
    for name, phase in found.unclaimed.items():
        reason = NoData.RELEASED if phase in {"Released", "Failed"} else NoData.UNCLAIMED
        yield _row(name, "", "", [_Verdict(reason=reason)])
