"""The questions that are asked of a backup, each decided from what was read of it, without any I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.bucket_evidence import Unreadable
from clusterguard.velero.bucket_report import EXCLUDED_LABEL, Answer, Explanation, count_of
from clusterguard.velero.completeness import shortcomings
from clusterguard.velero.findings import DEFAULT_TOLERATED, Rule
from clusterguard.velero.layout import FORMAT_MAJOR, MANDATORY, VERSION_PATH, BackupFile, format_major, plural_of
from clusterguard.velero.outcome import rule_of
from clusterguard.velero.phases import BackupPhase, TransferPhase
from clusterguard.velero.records import part_of, text_of
from clusterguard.velero.resources import PodVolumeBackup
from clusterguard.velero.volume_infos import NOT_WANTED, is_decision, skip_reasons, volume_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from clusterguard.model.inventory import Inventory
    from clusterguard.velero.bucket_evidence import Evidence
    from clusterguard.velero.bucket_report import BucketPolicy
    from clusterguard.velero.manifest import DigestManifest
    from clusterguard.velero.outcome import Message
    from clusterguard.velero.resources import Backup
    from clusterguard.velero.tarball import Defect, Inspection

__all__ = ["judge"]

_NOT_WHOLE = "the tarball could not be read to its end"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One backup, and what it is judged by.

    Attributes:
        document: The file that the question is about.
    """

    evidence: Evidence
    now: datetime
    policy: BucketPolicy
    inventory: Inventory | None
    manifest: DigestManifest | None
    document: Any = None

    @property
    def backup(self) -> Backup:
        """Its metadata, for questions that are asked only where it could be read."""
        assert not isinstance(self.evidence.backup, Unreadable)  # noqa: S101 - for the type checker
        return self.evidence.backup


_Ask: TypeAlias = "Callable[[_Case], Answer]"
_QUESTIONS: list[_Ask] = []


def _question(
    check: str, file: BackupFile | None = None, *, backup: bool = False, tarball: bool = False
) -> Callable[[_Ask], _Ask]:
    """Add a question to the report, in the order of this module.

    Args:
        check: What it is called.
        file: The file that it is about; that it cannot be read is a finding.
        backup: Whether it cannot be asked without the metadata.
        tarball: Whether it cannot be asked without the whole tarball.
    """

    def answer(case: _Case, ask: _Ask) -> Answer:
        evidence = case.evidence
        document = evidence.documents[file] if file else None
        if file and isinstance(document, Unreadable):
            return Answer("", ((evidence.layout.key(file), document.reason),))
        if backup and isinstance(evidence.backup, Unreadable):
            return Answer(f"{BackupFile.METADATA} could not be read", asked=False)
        if tarball and evidence.tarball_problem:
            return Answer(_NOT_WHOLE, asked=False)
        return ask(replace(case, document=document))

    def add(ask: _Ask) -> _Ask:
        _QUESTIONS.append(lambda case: replace(answer(case, ask), check=check))
        return ask

    return add


def judge(
    evidence: Evidence,
    *,
    now: datetime,
    policy: BucketPolicy,
    inventory: Inventory | None,
    manifest: DigestManifest | None,
) -> list[Answer]:
    """Return the answer to every question."""
    case = _Case(evidence=evidence, now=now, policy=policy, inventory=inventory, manifest=manifest)
    return [question(case) for question in _QUESTIONS]


@_question("files")
def _files(case: _Case) -> Answer:
    layout, sizes = case.evidence.layout, case.evidence.sizes
    missing = [layout.key(file) for file in MANDATORY if layout.key(file) not in sizes]
    unknown = sorted(sizes.keys() - layout.known().keys())
    explained = [Explanation("unknown file", key, f"{sizes[key]} bytes") for key in unknown]
    if layout.key(BackupFile.LOG) not in sizes:
        explained.append(Explanation("no log", layout.key(BackupFile.LOG), "it is missing"))
    flaws = tuple((key, "it is missing") for key in missing)
    return Answer(f"{len(sizes)} files, {sum(sizes.values())} bytes", flaws, tuple(explained))


@_question(BackupFile.METADATA.value, BackupFile.METADATA)
def _metadata(case: _Case) -> Answer:
    backup, flaws = case.backup, []
    if backup.name != case.evidence.layout.name:
        flaws.append((BackupFile.METADATA.value, f"it is that of backup {backup.name!r}"))
    if backup.being_deleted:
        flaws.append((BackupFile.METADATA.value, "its deletion had been requested"))
    return Answer(f"backup {backup.name} in namespace {backup.namespace}, uid {backup.uid}", tuple(flaws))


@_question("phase", backup=True)
def _phase(case: _Case) -> Answer:
    backup = case.backup
    phase = str(backup.phase)
    if phase == BackupPhase.COMPLETED:
        return Answer(f"{phase} at {backup.completed.isoformat()}" if backup.completed else phase)
    told = f"{phase}: {backup.failure_reason or _MEANINGS.get(phase, 'this release does not know that phase')}"
    partial = phase == BackupPhase.PARTIALLY_FAILED and Rule.PARTIALLY_FAILED in case.policy.tolerate_rules
    if phase in case.policy.tolerate_phases or partial:
        return Answer(told, (), (Explanation("tolerated phase", backup.name, told),))
    begun = "" if backup.phase.final or backup.started is None else f" (begun at {backup.started.isoformat()})"
    return Answer("", ((backup.name, told + begun),))


_STILL = "it was not finished when this was written"
_MEANINGS = {
    **{str(phase): _STILL for phase in BackupPhase if not phase.final},
    "PartiallyFailed": "not everything is in it",
    "Failed": "it was given up",
    "FailedValidation": "the server did not begin it",
    "Deleting": "it is being deleted",
}


@_question("format version", backup=True)
def _format(case: _Case) -> Answer:
    said, inside = case.backup.format_version, case.evidence.inspection.version
    major = format_major(said)
    if major is None:
        return Answer("", ((BackupFile.METADATA.value, f"its format version is not valid: {said!r}"),))
    if major != FORMAT_MAJOR:
        detail = f"{said}, and this release reads {FORMAT_MAJOR}.x: another Velero wrote it"
        return Answer("", ((BackupFile.METADATA.value, detail),))
    if inside is None and not case.evidence.tarball_problem:
        return Answer("", ((VERSION_PATH, "it is missing in the tarball"),))
    if inside is not None and inside != said:
        return Answer("", ((VERSION_PATH, f"it says {inside!r}, and {BackupFile.METADATA} says {said!r}"),))
    return Answer(said)


@_question("expiration", backup=True)
def _expiration(case: _Case) -> Answer:
    name, expires = case.backup.name, case.backup.expires
    if expires is None:
        return Answer("", ((name, "it does not say when it expires"),))
    when = expires.isoformat()
    if expires > case.now or case.policy.expired_ok:
        return Answer(f"{'expires' if expires > case.now else 'expired'} at {when}")
    return Answer("", ((name, f"expired at {when}: Velero may delete it at any moment"),))


@_question("tarball")
def _tarball(case: _Case) -> Answer:
    found = case.evidence.inspection
    if problem := case.evidence.tarball_problem:
        return Answer("", ((case.evidence.layout.key(BackupFile.CONTENTS), problem),))
    return Answer(f"whole, {found.files} files in it", tuple(found.unexpected_files))


def _seen_so_far(case: _Case, defects: Sequence[Defect], seen: str) -> Answer:
    """Answer from a pass over the tarball; that it found nothing counts only if it reached the end."""
    if case.evidence.tarball_problem and not defects:
        return Answer(_NOT_WHOLE, asked=False)
    return Answer(seen, tuple(defects))


@_question("both copies")
def _copies(case: _Case) -> Answer:
    return _seen_so_far(case, case.evidence.inspection.copies, "the two copies of each object are equal")


@_question("paths")
def _identities(case: _Case) -> Answer:
    return _seen_so_far(case, case.evidence.inspection.identities, "each file holds the object that its path names")


@_question("resource list", BackupFile.RESOURCE_LIST, tarball=True)
def _resource_list(case: _Case) -> Answer:
    listed, stored = case.document, _stored(case.evidence.inspection)
    late, failed = case.evidence.post_operation_items(), _failed_objects(case)
    flaws, explained = [], []
    for full_kind in sorted(listed.keys() | stored.keys()):
        resource, names = stored.get(full_kind, ("", ()))
        told = listed.get(full_kind, frozenset())
        for name in sorted(told.difference(names)):
            if _is_told(full_kind, name, failed):
                explained.append(Explanation("tolerated error", f"{full_kind} {name}", _ONLY_LISTED))
            else:
                flaws.append((f"{full_kind} {name}", _ONLY_LISTED))
        for name in sorted(set(names) - told):
            if (resource, name) in late:
                explained.append(Explanation("added when operations ended", f"{full_kind} {name}", _ONLY_STORED))
            else:
                flaws.append((f"{full_kind} {name}", _ONLY_STORED))
    number = sum(map(len, listed.values()))
    return Answer(f"names the same {count_of(number, 'object')}", tuple(flaws), tuple(explained))


def _failed_objects(case: _Case) -> list[tuple[str, str, str]]:
    """Return what tolerated errors are about: resource and namespace, as far as Velero tells them, and name."""
    backup, messages = case.evidence.backup, case.evidence.documents[BackupFile.RESULTS]
    if isinstance(backup, Unreadable) or isinstance(messages, Unreadable) or backup.phase == BackupPhase.COMPLETED:
        return []
    errors = [each for each in messages if each.severity == "error" and _is_tolerated(each, case.policy)]
    fields = [(_fields(each), each.namespace) for each in errors]
    return [
        (found["resource"].partition(".")[0], namespace, found["name"]) for found, namespace in fields if found["name"]
    ]


def _is_told(full_kind: str, full_name: str, failed: list[tuple[str, str, str]]) -> bool:
    """Return whether a tolerated error is about an object, and use that error up: it is about no second one."""
    namespace, _, name = full_name.rpartition("/")
    plural = plural_of(full_kind.partition(".")[0])
    for each in failed:
        if each[2] == name and each[0] in {"", plural} and each[1] in {"", namespace}:
            failed.remove(each)
            return True
    return False


_ONLY_LISTED = "it is in the resource list, and not in the tarball"
_ONLY_STORED = "it is in the tarball, and not in the resource list"


@_question("object count", backup=True, tarball=True)
def _object_count(case: _Case) -> Answer:
    backup, inspection = case.backup, case.evidence.inspection
    stored = inspection.names()
    added = sum(name in stored.get(resource, ()) for resource, name in case.evidence.post_operation_items())
    found = len(inspection) - added
    done, total = backup.progress.done, backup.progress.total
    if not inspection:
        return Answer("", ((backup.name, "it holds no object at all: did its filters match any?"),))
    if done < total:
        return Answer("", ((backup.name, f"Velero stored {done} of {total} objects"),))
    # Objects named by operations may have been there before, too; those that failed are counted as done.
    if not found <= done <= found + added + len(_failed_objects(case)):
        return Answer("", ((backup.name, f"Velero counted {done}, and there are {len(inspection)}"),))
    return Answer(f"{len(inspection)}, as Velero counted")


@_question("completeness", backup=True, tarball=True)
def _completeness(case: _Case) -> Answer:
    messages = case.evidence.documents[BackupFile.RESULTS]
    said = "" if isinstance(messages, Unreadable) else " ".join(message.text for message in messages)
    found = [
        finding
        for finding in shortcomings(case.backup.options, _refs(case.evidence.inspection), said=said)
        if len(case.evidence.inspection) and finding.rule not in DEFAULT_TOLERATED
    ]
    flaws, explained = [], []
    for finding in found:
        subject = str(finding.ref or case.backup.name)
        if finding.rule in case.policy.tolerate_rules:
            explained.append(Explanation("tolerated finding", subject, str(finding)))
        else:
            flaws.append((subject, f"{finding.rule}: {finding.detail}"))
    return Answer("its namespaces and definitions are in it", tuple(flaws), tuple(explained))


def _refs(inspection: Inspection) -> Iterator[ObjectRef]:
    for full_kind, (_, names) in _stored(inspection).items():
        kind, _, group = full_kind.partition(".")
        for full_name in names:
            namespace, _, name = full_name.rpartition("/")
            yield ObjectRef(kind=kind, namespace=namespace, name=name, group=group)


@_question("errors and warnings", BackupFile.RESULTS)
def _messages(case: _Case) -> Answer:
    flaws, explained = [], []
    for message, times in Counter(case.document).items():
        subject, detail = _parsed(message)
        detail += f" ({times} times)" if times > 1 else ""
        if _is_tolerated(message, case.policy):
            explained.append(Explanation(f"tolerated {message.severity}", subject, detail))
        else:
            flaws.append((subject, f"{message.severity}: {detail}"))
    if not isinstance(case.evidence.backup, Unreadable):
        more, fewer = _compare_counts(case.backup, case.document)
        flaws += fewer
        explained += more
    return Answer(count_of(len(case.document), "message"), tuple(flaws), tuple(explained))


def _is_tolerated(message: Message, policy: BucketPolicy) -> bool:
    patterns = policy.tolerate_errors if message.severity == "error" else policy.tolerate_warnings
    return rule_of(message) in policy.tolerate_rules or any(fnmatchcase(message.text, each) for each in patterns)


def _compare_counts(backup: Backup, messages: Sequence[Message]) -> tuple[list[Explanation], list[tuple[str, str]]]:
    explained, flaws = [], []
    told = Counter(message.severity for message in messages)
    for severity, counted in (("error", backup.errors), ("warning", backup.warnings)):
        if counted == told[severity]:
            continue
        detail = f"Velero counted {count_of(counted, severity)}, and lists {told[severity]}"
        late = backup.item_operations_failed if severity == "error" else 0
        if told[severity] < counted <= told[severity] + late:
            explained.append(Explanation("errors of operations", backup.name, detail))
        else:
            flaws.append((backup.name, detail))
    return explained, flaws


@_question("volumes", BackupFile.VOLUME_INFO, tarball=True)
def _volumes(case: _Case) -> Answer:
    by_volume: dict[str, list[Mapping[str, Any]]] = {}
    for record in case.document:
        by_volume.setdefault(volume_name(record), []).append(record)
    problems = {name: found for name, records in by_volume.items() if (found := _volume_problem(records)) is not None}
    explained = []
    for claim in case.evidence.inspection.claims:
        subject = f"{claim.namespace}/{claim.name}"
        if subject in by_volume:
            continue
        if claim.volume:
            problems[subject] = f"Velero does not say what became of its volume {claim.volume}"
        else:
            explained.append(Explanation("unbound claim", subject, "it had no volume"))
    flaws = []
    for subject, problem in sorted(problems.items()):
        rule = _reason_for_no_data(case, subject, by_volume.get(subject, ()))
        if rule:
            explained.append(Explanation(rule, subject, problem))
        else:
            flaws.append((subject, problem))
    saved = len(by_volume.keys() - problems.keys())
    return Answer(f"{count_of(saved, 'volume')} with data", tuple(flaws), tuple(explained))


def _reason_for_no_data(case: _Case, subject: str, records: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the rule that explains why a volume's data is not in the backup, or None."""
    if any(fnmatchcase(subject, glob) for glob in case.policy.volumes_without_data):
        return "volume without data"
    if isinstance(case.evidence.backup, Unreadable) or not all(record.get("skipped") for record in records):
        return None  # it was tried, and failed
    spec = case.backup.spec
    unasked = case.policy.skipped_volumes_ok or spec.get("snapshotVolumes") is False
    if unasked and not spec.get("defaultVolumesToFsBackup"):
        return "volume data not asked for"
    no_snapshots = spec.get("snapshotVolumes") is False or "resourcePolicy" in spec
    reasons = [reason for record in records for reason in skip_reasons(text_of(record, "skippedReason"))]
    reasons = [reason for reason in reasons if not (no_snapshots and reason == NOT_WANTED)]
    return "volume left out by choice" if reasons and all(map(is_decision, reasons)) else None


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
    # The result of a snapshot is written when its operation ends; a snapshot without one says so itself.
    snapshot = part_of(record, "csiSnapshotInfo")
    return (
        not record.get("snapshotDataMoved")
        and not text_of(snapshot, "operationID")
        and snapshot.get("ReadyToUse") is True
    )


@_question("pod volume backups", BackupFile.POD_VOLUME_BACKUPS)
def _pod_volumes(case: _Case) -> Answer:
    flaws = []
    for transfer in map(PodVolumeBackup.model_validate, case.document):
        if transfer.phase != TransferPhase.COMPLETED:
            flaws.append((transfer.volume, f"{transfer.phase} {transfer.message}".strip()))
        elif transfer.bytes_done != transfer.bytes_total:
            flaws.append((transfer.volume, f"{transfer.bytes_done} of {transfer.bytes_total} bytes"))
        elif not text_of(transfer.status, "snapshotID"):
            flaws.append((transfer.volume, "Completed, but without a snapshot"))
    return _all_completed(case, flaws)


@_question("volume snapshots", BackupFile.VOLUME_SNAPSHOTS)
def _snapshots(case: _Case) -> Answer:
    flaws = []
    for record in case.document:
        if (phase := text_of(part_of(record, "status"), "phase")) != "Completed":
            volume = text_of(part_of(record, "spec"), "persistentVolumeName")
            flaws.append((f"PersistentVolume {volume}", f"its snapshot is {phase or 'without a phase'}"))
    return _all_completed(case, flaws)


@_question("item operations", BackupFile.ITEM_OPERATIONS)
def _operations(case: _Case) -> Answer:
    flaws = []
    for record in case.document:
        status = part_of(record, "status")
        if text_of(status, "phase") != "Completed":
            subject = _identified(part_of(part_of(record, "spec"), "resourceIdentifier"))
            flaws.append((subject, f"{text_of(status, 'phase') or 'no phase'} {text_of(status, 'error')}".strip()))
    return _all_completed(case, flaws)


def _all_completed(case: _Case, flaws: Sequence[tuple[str, str]]) -> Answer:
    return Answer(f"{len(case.document)}, all Completed" if case.document else "none", tuple(flaws))


@_question("repositories")
def _repositories(case: _Case) -> Answer:
    flaws = tuple((key, "the repository of these volumes is missing") for key in case.evidence.missing_repositories)
    return Answer(f"{case.evidence.repositories} there" if case.evidence.repositories else "none needed", flaws)


@_question("volume data")
def _volume_data(case: _Case) -> Answer:
    told, found = case.evidence.stored_volumes, case.evidence.volume_data
    records = (BackupFile.POD_VOLUME_BACKUPS, BackupFile.VOLUME_INFO)
    unread = [file for file in records if isinstance(case.evidence.documents[file], Unreadable)]
    if unread:
        missing = case.evidence.layout.key(unread[0])
        return Answer(f"which volumes have data in the bucket is not known without {missing}", asked=False)
    if not told:
        return Answer("none is in the bucket")
    if found is None:
        return Answer(f"that of {count_of(told, 'volume')} was not read", asked=False)
    equal = f"{found.read:,} bytes decrypted and equal to their hashes"
    seen = f"{count_of(told, 'volume')}, {found.entries:,} entries, {found.size:,} bytes; {equal}"
    return Answer(seen, tuple(found.flaws))


@_question("inventory", tarball=True)
def _inventory(case: _Case) -> Answer:
    inventory, uids = case.inventory, case.evidence.uids
    if inventory is None:
        return Answer("none was given; what should be in the backup is not known", asked=False)
    flaws, explained = [], []
    for ref, data in sorted(inventory.objects.items()):
        metadata = orjson.loads(data)["metadata"]
        if ref not in uids:
            if (metadata.get("labels") or {}).get(EXCLUDED_LABEL) == "true":
                explained.append(Explanation("excluded by label", str(ref), "it is not in the backup"))
            else:
                flaws.append((str(ref), "it was in the cluster, and is not in the backup"))
        elif uids[ref] != metadata.get("uid", ""):
            flaws.append((str(ref), "the backup holds another object of that name (its uid differs)"))
    return Answer(f"all {count_of(len(inventory), 'object')} are in it", tuple(flaws), tuple(explained))


@_question("digest manifest")
def _manifest(case: _Case) -> Answer:
    manifest, name = case.manifest, case.evidence.layout.name
    if manifest is None:
        return Answer("none was given; Velero itself keeps no digests", asked=False)
    if manifest.backup != name:
        return Answer("", ((manifest.backup, f"the manifest is not that of {name}"),))
    flaws = tuple(manifest.differences(case.evidence.digests))
    return Answer(f"no byte was changed since {manifest.recorded.isoformat()}", flaws)


def _stored(inspection: Inspection) -> dict[str, tuple[str, Collection[str]]]:
    """Return resource and names of what is in a tarball, by kind with its group."""
    found = {}
    for resource, names in inspection.names().items():
        # Where no object of a resource could be read its kind is unknown, and the check "paths" says why.
        group, kind = inspection.kinds.get(resource, (resource.partition(".")[2], resource))
        found[f"{kind}.{group}" if group else kind] = (resource, names)
    return found


def _identified(identifier: Mapping[str, Any]) -> str:
    words = (text_of(identifier, "Namespace"), text_of(identifier, "Name"))
    return f"{text_of(identifier, 'Resource')} {'/'.join(word for word in words if word)}".strip() or "an operation"


def _parsed(message: Message) -> tuple[str, str]:
    """Return subject and text of a message."""
    fields = _fields(message)
    where = "/".join(part for part in (message.namespace, fields["name"]) if part)
    subject = f"{fields['resource']} {where}".strip() or "Velero"
    detail = ": ".join(part for part in (fields["message"], fields["error"]) if part)
    return subject, detail or message.text.strip()


def _fields(message: Message) -> Mapping[str, str]:
    """Return the parts of a message: Velero puts ``resource:``, ``name:`` and more into one line."""
    fields = {"resource": "", "name": "", "message": "", "error": ""}
    rest = message.text
    for key in reversed(fields):
        before, found, value = rest.partition(f" {key}: /")
        if found:
            fields[key], rest = value.strip(), before
    return fields
