"""The questions that are asked of a backup, each decided from what was read of it, without any I/O."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import orjson

from clusterguard.velero.bucket_evidence import Unreadable, part_of, post_operation_items, text_of
from clusterguard.velero.bucket_report import EXCLUDED_LABEL, Answer, Explanation, count_of
from clusterguard.velero.layout import FORMAT_MAJOR, MANDATORY, VERSION_PATH, BackupFile, format_major
from clusterguard.velero.phases import BackupPhase, TransferPhase
from clusterguard.velero.resources import PodVolumeBackup

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from clusterguard.model.inventory import Inventory
    from clusterguard.velero.bucket_evidence import Evidence
    from clusterguard.velero.bucket_report import BucketPolicy
    from clusterguard.velero.manifest import DigestManifest
    from clusterguard.velero.outcome import Message
    from clusterguard.velero.resources import Backup
    from clusterguard.velero.tarball import Inspection

__all__ = ["judge"]


def judge(
    evidence: Evidence,
    *,
    now: datetime,
    policy: BucketPolicy,
    inventory: Inventory | None,
    manifest: DigestManifest | None,
) -> list[Answer]:
    """Return the answer to every question, in the order they are told."""
    return [
        _files(evidence),
        _metadata(evidence),
        _phase(evidence, policy),
        _format(evidence),
        _expiration(evidence, policy, now),
        _tarball(evidence),
        _copies(evidence),
        _identities(evidence),
        _resource_list(evidence),
        _object_count(evidence),
        _messages(evidence, policy),
        _volumes(evidence, policy),
        _pod_volumes(evidence),
        _snapshots(evidence),
        _operations(evidence),
        _repositories(evidence),
        _inventory(evidence, inventory),
        _manifest(evidence, manifest),
    ]


def _unasked(check: str, why: str) -> Answer:
    return Answer(check, why, asked=False)


def _files(evidence: Evidence) -> Answer:
    layout = evidence.layout
    missing = [layout.key(file) for file in MANDATORY if layout.key(file) not in evidence.sizes]
    strange = sorted(evidence.sizes.keys() - layout.known().keys())
    explained = [Explanation("unknown file", key, f"{evidence.sizes[key]} bytes") for key in strange]
    if layout.key(BackupFile.LOG) not in evidence.sizes:
        explained.append(Explanation("no log", layout.key(BackupFile.LOG), "it is missing"))
    flaws = tuple((key, "it is missing") for key in missing)
    total = sum(evidence.sizes.values())
    return Answer("files", f"{len(evidence.sizes)} files, {total} bytes", flaws, tuple(explained))


def _metadata(evidence: Evidence) -> Answer:
    check, backup = BackupFile.METADATA.value, evidence.backup
    if isinstance(backup, Unreadable):
        return Answer(check, "", ((evidence.layout.key(BackupFile.METADATA), backup.reason),))
    flaws = []
    if backup.name != evidence.layout.name:
        flaws.append((check, f"it is that of backup {backup.name!r}"))
    if backup.being_deleted:
        flaws.append((check, "its deletion had been asked for"))
    return Answer(check, f"backup {backup.name} in namespace {backup.namespace}, uid {backup.uid}", tuple(flaws))


def _phase(evidence: Evidence, policy: BucketPolicy) -> Answer:
    backup = evidence.backup
    if isinstance(backup, Unreadable):
        return _unasked("phase", _NO_METADATA)
    phase = str(backup.phase)
    if phase == BackupPhase.COMPLETED:
        when = f" at {backup.completed.isoformat()}" if backup.completed else ""
        return Answer("phase", f"{phase}{when}")
    told = f"{phase}: {backup.failure_reason or _MEANINGS.get(phase, 'this release does not know that phase')}"
    if phase in policy.tolerate_phases:
        return Answer("phase", told, (), (Explanation("tolerated phase", backup.name, told),))
    begun = "" if backup.phase.final or backup.started is None else f" (begun at {backup.started.isoformat()})"
    return Answer("phase", "", ((backup.name, told + begun),))


_NO_METADATA = f"{BackupFile.METADATA} could not be read"
_STILL = "it was not finished when this was written"
_MEANINGS = {
    "PartiallyFailed": "not everything is in it",
    "Failed": "it was given up",
    "FailedValidation": "the server did not begin it",
    "Deleting": "it is being deleted",
    **dict.fromkeys([str(phase) for phase in BackupPhase if not phase.final and phase != BackupPhase.DELETING], _STILL),
}


def _format(evidence: Evidence) -> Answer:
    check, backup = "format version", evidence.backup
    if isinstance(backup, Unreadable):
        return _unasked(check, _NO_METADATA)
    told, inside = backup.format_version, evidence.inspection.version
    major = format_major(told)
    if major is None:
        return Answer(check, "", ((BackupFile.METADATA.value, f"it tells no format version, but {told!r}"),))
    if major != FORMAT_MAJOR:
        detail = f"{told}, and this release reads {FORMAT_MAJOR}.x: another Velero wrote it"
        return Answer(check, "", ((BackupFile.METADATA.value, detail),))
    if inside is None and not evidence.tarball_problem:
        return Answer(check, "", ((VERSION_PATH, "it is missing in the tarball"),))
    if inside is not None and inside != told:
        return Answer(check, "", ((VERSION_PATH, f"it says {inside!r}, and {BackupFile.METADATA} says {told!r}"),))
    return Answer(check, told)


def _expiration(evidence: Evidence, policy: BucketPolicy, now: datetime) -> Answer:
    check, backup = "expiration", evidence.backup
    if isinstance(backup, Unreadable):
        return _unasked(check, _NO_METADATA)
    if backup.expires is None:
        return Answer(check, "", ((backup.name, "it does not tell when it expires"),))
    when = backup.expires.isoformat()
    if backup.expires > now or policy.expired_ok:
        return Answer(check, f"{'expires' if backup.expires > now else 'expired'} at {when}")
    return Answer(check, "", ((backup.name, f"expired at {when}: Velero may delete it at any moment"),))


def _tarball(evidence: Evidence) -> Answer:
    key, found = evidence.layout.key(BackupFile.CONTENTS), evidence.inspection
    if evidence.tarball_problem:
        return Answer("tarball", "", ((key, evidence.tarball_problem),))
    return Answer("tarball", f"whole, {found.files} files in it", tuple(found.strangers))


def _copies(evidence: Evidence) -> Answer:
    check = "both copies"
    if evidence.tarball_problem:
        return Answer(check, "", tuple(evidence.inspection.copies)) if evidence.inspection.copies else _not_whole(check)
    return Answer(check, "the two copies of each object are equal", tuple(evidence.inspection.copies))


def _identities(evidence: Evidence) -> Answer:
    check, wrong = "paths", tuple(evidence.inspection.identities)
    if evidence.tarball_problem and not wrong:
        return _not_whole(check)
    return Answer(check, "each file holds the object that its path names", wrong)


def _not_whole(check: str) -> Answer:
    return _unasked(check, "the tarball could not be read to its end")


def _resource_list(evidence: Evidence) -> Answer:
    check, listed = "resource list", evidence.resource_list
    if isinstance(listed, Unreadable):
        return Answer(check, "", ((evidence.layout.key(BackupFile.RESOURCE_LIST), listed.reason),))
    if evidence.tarball_problem:
        return _not_whole(check)
    stored = _stored(evidence.inspection)
    flaws, explained = [], []
    late = post_operation_items(evidence.operations)
    for full_kind in sorted(listed.keys() | stored.keys()):
        resource, names = stored.get(full_kind, ("", ()))
        told = listed.get(full_kind, frozenset())
        flaws += [(f"{full_kind} {name}", _ONLY_LISTED) for name in sorted(told.difference(names))]
        for name in sorted(set(names) - told):
            if (resource, name) in late:
                explained.append(Explanation("added when operations ended", f"{full_kind} {name}", _ONLY_STORED))
            else:
                flaws.append((f"{full_kind} {name}", _ONLY_STORED))
    number = sum(map(len, listed.values()))
    return Answer(check, f"names the same {count_of(number, 'object')}", tuple(flaws), tuple(explained))


_ONLY_LISTED = "it is in the resource list, and not in the tarball"
_ONLY_STORED = "it is in the tarball, and not in the resource list"


def _object_count(evidence: Evidence) -> Answer:
    check, backup = "object count", evidence.backup
    if isinstance(backup, Unreadable):
        return _unasked(check, _NO_METADATA)
    if evidence.tarball_problem:
        return _not_whole(check)
    late = post_operation_items(evidence.operations)
    stored = evidence.inspection.names()
    added = sum(name in stored.get(resource, ()) for resource, name in late)
    found = len(evidence.inspection) - added
    done, total = backup.progress.done, backup.progress.total
    if not evidence.inspection:
        return Answer(check, "", ((backup.name, "it holds no object at all: did its filters match any?"),))
    if done < total:
        return Answer(check, "", ((backup.name, f"Velero stored {done} of {total} objects"),))
    # Objects named by operations may have been there before, too.
    if not found <= done <= found + added:
        detail = f"Velero counted {done}, and there are {len(evidence.inspection)}"
        return Answer(check, "", ((backup.name, detail),))
    return Answer(check, f"{len(evidence.inspection)}, as Velero counted")


def _messages(evidence: Evidence, policy: BucketPolicy) -> Answer:
    check, messages = "errors and warnings", evidence.messages
    if isinstance(messages, Unreadable):
        return Answer(check, "", ((evidence.layout.key(BackupFile.RESULTS), messages.reason),))
    flaws, explained = [], []
    for message in messages:
        subject, detail = _told(message)
        patterns = policy.tolerate_errors if message.severity == "error" else policy.tolerate_warnings
        if any(fnmatchcase(message.text, pattern) for pattern in patterns):
            explained.append(Explanation(f"tolerated {message.severity}", subject, detail))
        else:
            flaws.append((subject, f"{message.severity}: {detail}"))
    if not isinstance(evidence.backup, Unreadable):
        more, fewer = _compare_counts(evidence.backup, messages)
        flaws += fewer
        explained += more
    return Answer(check, count_of(len(messages), "message"), tuple(flaws), tuple(explained))


def _compare_counts(backup: Backup, messages: Sequence[Message]) -> tuple[list[Explanation], list[tuple[str, str]]]:
    explained, flaws = [], []
    told = Counter(message.severity for message in messages)
    for severity, counted in (("error", backup.errors), ("warning", backup.warnings)):
        if counted == told[severity]:
            continue
        detail = f"Velero counted {count_of(counted, severity)}, and tells of {told[severity]}"
        late = backup.item_operations_failed if severity == "error" else 0
        if told[severity] < counted <= told[severity] + late:
            explained.append(Explanation("errors of operations", backup.name, detail))
        else:
            flaws.append((backup.name, detail))
    return explained, flaws


def _volumes(evidence: Evidence, policy: BucketPolicy) -> Answer:
    check, volumes = "volumes", evidence.volumes
    if isinstance(volumes, Unreadable):
        return Answer(check, "", ((evidence.layout.key(BackupFile.VOLUME_INFO), volumes.reason),))
    if evidence.tarball_problem:
        return _not_whole(check)
    by_volume: dict[str, list[Mapping[str, Any]]] = {}
    for record in volumes:
        by_volume.setdefault(_volume_name(record), []).append(record)
    problems: dict[str, str] = {}
    for subject, records in by_volume.items():
        if (problem := _volume_problem(records)) is not None:
            problems[subject] = problem
    explained = []
    for claim in evidence.inspection.claims:
        subject = f"{claim.namespace}/{claim.name}"
        if subject in by_volume:
            continue
        if claim.volume:
            problems[subject] = f"Velero does not tell what became of its volume {claim.volume}"
        else:
            explained.append(Explanation("unbound claim", subject, "it had no volume"))
    declared = {one for one in problems if any(fnmatchcase(one, glob) for glob in policy.volumes_without_data)}
    explained += [Explanation("volume without data", one, problems[one]) for one in sorted(declared)]
    flaws = tuple((one, problem) for one, problem in sorted(problems.items()) if one not in declared)
    saved = len(by_volume.keys() - problems.keys())
    return Answer(check, f"{count_of(saved, 'volume')} with data", flaws, tuple(explained))


def _volume_name(record: Mapping[str, Any]) -> str:
    if claim := text_of(record, "pvcName"):
        return f"{text_of(record, 'pvcNamespace')}/{claim}"
    pod = part_of(record, "pvbInfo")
    if pod:
        return f"{text_of(pod, 'podNamespace')}/{text_of(pod, 'podName')}:{text_of(pod, 'volumeName')}"
    return f"PersistentVolume {text_of(record, 'pvName') or 'without a name'}"


def _volume_problem(records: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why the data of one volume is not in the backup, or None where it is."""
    if any(_has_data(record) for record in records):
        return None
    skipped = [record for record in records if record.get("skipped")]
    if len(skipped) == len(records):
        reason = text_of(skipped[0], "skippedReason") or "no reason is given"
        return f"its data was skipped, so it will be restored empty: {reason}"
    record = next(record for record in records if not record.get("skipped"))
    result = text_of(record, "result") or "without a result"
    return f"its data is not in the backup: {text_of(record, 'backupMethod') or 'no method'} {result}"


def _has_data(record: Mapping[str, Any]) -> bool:
    if record.get("skipped"):
        return False
    if text_of(record, "result"):
        return text_of(record, "result") == "succeeded"
    # The result of a snapshot is written when its operation ends; a snapshot without one tells for itself.
    snapshot = part_of(record, "csiSnapshotInfo")
    return (
        not record.get("snapshotDataMoved")
        and not text_of(snapshot, "operationID")
        and snapshot.get("ReadyToUse") is True
    )


def _pod_volumes(evidence: Evidence) -> Answer:
    check, records = "pod volume backups", evidence.pod_volumes
    if isinstance(records, Unreadable):
        return Answer(check, "", ((evidence.layout.key(BackupFile.POD_VOLUME_BACKUPS), records.reason),))
    flaws = []
    for transfer in map(PodVolumeBackup.model_validate, records):
        if transfer.phase != TransferPhase.COMPLETED:
            flaws.append((transfer.volume, f"{transfer.phase} {transfer.message}".strip()))
        elif transfer.bytes_done != transfer.bytes_total:
            flaws.append((transfer.volume, f"{transfer.bytes_done} of {transfer.bytes_total} bytes"))
        elif not text_of(transfer.status, "snapshotID"):
            flaws.append((transfer.volume, "Completed, but without a snapshot"))
    return Answer(check, f"{len(records)}, all Completed" if records else "none", tuple(flaws))


def _snapshots(evidence: Evidence) -> Answer:
    check, records = "volume snapshots", evidence.snapshots
    if isinstance(records, Unreadable):
        return Answer(check, "", ((evidence.layout.key(BackupFile.VOLUME_SNAPSHOTS), records.reason),))
    flaws = tuple(
        (
            f"PersistentVolume {text_of(part_of(record, 'spec'), 'persistentVolumeName')}",
            f"its snapshot is {phase or 'without a phase'}",
        )
        for record in records
        if (phase := text_of(part_of(record, "status"), "phase")) != "Completed"
    )
    return Answer(check, f"{len(records)}, all Completed" if records else "none", flaws)


def _operations(evidence: Evidence) -> Answer:
    check, records = "item operations", evidence.operations
    if isinstance(records, Unreadable):
        return Answer(check, "", ((evidence.layout.key(BackupFile.ITEM_OPERATIONS), records.reason),))
    flaws = []
    for record in records:
        status = part_of(record, "status")
        if text_of(status, "phase") != "Completed":
            subject = _identified(part_of(part_of(record, "spec"), "resourceIdentifier"))
            flaws.append((subject, f"{text_of(status, 'phase') or 'no phase'} {text_of(status, 'error')}".strip()))
    return Answer(check, f"{len(records)}, all Completed" if records else "none", tuple(flaws))


def _repositories(evidence: Evidence) -> Answer:
    flaws = tuple((key, "the repository of these volumes is missing") for key in evidence.missing_repositories)
    seen = f"{evidence.repositories} there" if evidence.repositories else "none needed"
    return Answer("repositories", seen, flaws)


def _inventory(evidence: Evidence, inventory: Inventory | None) -> Answer:
    check = "inventory"
    if inventory is None:
        return _unasked(check, "none was given; what should be in the backup is not known")
    if evidence.tarball_problem:
        return _not_whole(check)
    flaws, explained = [], []
    for ref, data in sorted(inventory.objects.items()):
        metadata = orjson.loads(data)["metadata"]
        if ref not in evidence.uids:
            if (metadata.get("labels") or {}).get(EXCLUDED_LABEL) == "true":
                explained.append(Explanation("excluded by label", str(ref), "it is not in the backup"))
            else:
                flaws.append((str(ref), "it was in the cluster, and is not in the backup"))
        elif evidence.uids[ref] != metadata.get("uid", ""):
            flaws.append((str(ref), "the backup holds another object of that name (its uid differs)"))
    return Answer(check, f"all {count_of(len(inventory), 'object')} are in it", tuple(flaws), tuple(explained))


def _manifest(evidence: Evidence, manifest: DigestManifest | None) -> Answer:
    check = "digest manifest"
    if manifest is None:
        return _unasked(check, "none was given; Velero itself keeps no digests")
    if manifest.backup != evidence.layout.name:
        return Answer(check, "", ((manifest.backup, f"the manifest is not that of {evidence.layout.name}"),))
    flaws = tuple(manifest.differences(evidence.digests))
    return Answer(check, f"no byte was changed since {manifest.recorded.isoformat()}", flaws)


def _stored(inspection: Inspection) -> dict[str, tuple[str, Collection[str]]]:
    """Return resource and names of what is in a tarball, by kind with its group."""
    found = {}
    for resource, names in inspection.names().items():
        # Where no object of a resource could be read its kind is unknown, and "paths" tells why.
        group, kind = inspection.kinds.get(resource, (resource.partition(".")[2], resource))
        found[f"{kind}.{group}" if group else kind] = (resource, names)
    return found


def _identified(identifier: Mapping[str, Any]) -> str:
    words = (text_of(identifier, "Namespace"), text_of(identifier, "Name"))
    return f"{text_of(identifier, 'Resource')} {'/'.join(word for word in words if word)}".strip() or "an operation"


def _told(message: Message) -> tuple[str, str]:
    """Return subject and text of a message; Velero puts ``resource:``, ``name:`` and more into one line."""
    fields = {"resource": "", "name": "", "message": "", "error": ""}
    rest = message.text
    for key in reversed(fields):
        before, found, value = rest.partition(f" {key}: /")
        if found:
            fields[key], rest = value.strip(), before
    where = "/".join(part for part in (message.namespace, fields["name"]) if part)
    subject = f"{fields['resource']} {where}".strip() or "Velero"
    detail = ": ".join(part for part in (fields["message"], fields["error"]) if part)
    return subject, detail or message.text.strip()
