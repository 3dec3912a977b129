"""The outcome of a backup or a restore: findings, decided from evidence alone.

Velero calls a restore ``Completed`` when objects were left as they were because they exist, when nothing was in
the backup, and when volumes are still being filled. Here each of these is a finding with a name, and whoever asks says
which names are tolerated.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterguard.errors import BackupFailedError, RestoreFailedError, VeleroError
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.completeness import shortcomings
from clusterguard.velero.findings import DEFAULT_TOLERATED, EXPLAINED, OutcomeFinding, Rule
from clusterguard.velero.layout import plural_of
from clusterguard.velero.phases import BackupPhase, RestorePhase, TransferPhase
from clusterguard.velero.volume_infos import volume_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.velero.resources import Backup, Restore, VolumeTransfer
    from clusterguard.velero.volume_infos import VolumeRecord

__all__ = [
    "DEFAULT_TOLERATED",
    "BackupOutcome",
    "Message",
    "Outcome",
    "OutcomeFinding",
    "RestoreOutcome",
    "RestoredItem",
    "Rule",
    "judge_backup",
    "judge_restore",
    "parse_resource_list",
    "parse_results",
    "rule_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One line of Velero's results file.

    Attributes:
        severity: ``error`` or ``warning``.
        namespace: Which namespace it is about; ``""`` for objects without one, and for Velero itself.
        text: The line.
    """

    severity: str
    namespace: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredItem:
    """One entry of a restore's resource list.

    Attributes:
        ref: The object, under its name in the target.
        action: ``created``, ``updated``, ``skipped`` or ``failed``; what a newer server says is kept.
    """

    ref: ObjectRef
    action: str


_MOST_SHOWN: Final = 10  # tolerated findings of one rule in the text form; the data form has all of them
_UNDECIDED: Final = "see why it could not be read, and judge it again: clusterguard velero backup|restore describe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a run; no findings mean success.

    Attributes:
        name: Of the backup or restore.
        phase: What Velero calls it.
        findings: What counts against it.
        tolerated: What does not count; shown all the same.
    """

    name: str
    phase: str
    findings: Sequence[OutcomeFinding] = ()
    tolerated: Sequence[OutcomeFinding] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing counts against it."""
        return not self.findings

    @property
    def undecided(self) -> bool:
        """Whether nothing speaks against it but that something could not be read: neither a yes nor a no."""
        return {each.rule for each in self.findings} == {Rule.EVIDENCE_MISSING}

    def to_text(self) -> str:
        """Return it for people, one line for each finding."""
        return "\n".join(self._lines())

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {
            "name": self.name,
            "phase": self.phase,
            "ok": self.ok,
            "findings": [each.to_dict() for each in self.findings],
            "tolerated": [each.to_dict() for each in self.tolerated],
        }

    def summary(self) -> str:
        """Return it in one line."""
        counts = Counter(each.rule for each in self.findings)
        counted = ", ".join(f"{count} {rule}" for rule, count in counts.items()) or "no findings"
        return f"{self.name}: {self.phase}, {counted}"

    def _lines(self) -> Iterator[str]:
        yield self.summary()
        yield from (f"  {each}" for each in self.findings)
        for rule, number in Counter(each.rule for each in self.tolerated).items():
            why = f" ({EXPLAINED[rule]})" if rule in EXPLAINED else ""
            if number > _MOST_SHOWN:
                yield f"  tolerated: {number} {rule}{why}"
            else:
                yield from (f"  tolerated: {each}{why}" for each in self.tolerated if each.rule is rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOutcome(Outcome):
    """The outcome of a backup.

    Attributes:
        backup: In its last state.
        volumes: What Velero recorded of each volume; empty where that is unknown.
    """

    backup: Backup
    volumes: Sequence[VolumeRecord] = field(default=(), repr=False)

    def raise_for_findings(self) -> None:
        """Turn findings into an exception.

        Raises:
            VeleroError: What tells whether it succeeded could not be read.
            BackupFailedError: There are findings.
        """
        if self.undecided:
            raise VeleroError(f"backup {self.to_text()}", hint=_UNDECIDED)
        if not self.ok:
            raise BackupFailedError(
                f"backup {self.to_text()}", phase=self.phase, hint=f"clusterguard velero backup logs {self.name}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOutcome(Outcome):
    """The outcome of a restore.

    Attributes:
        restore: In its last state.
        items: What it did with each object; empty when that is unknown.
    """

    restore: Restore
    items: Sequence[RestoredItem] = field(default=(), repr=False)

    @property
    def actions(self) -> Mapping[str, int]:
        """How many objects were created, updated, skipped or failed."""
        return dict(Counter(item.action for item in self.items).most_common())

    @property
    def created_namespaces(self) -> AbstractSet[str]:
        """The namespaces that it made, under their names in the target."""
        return {each.ref.name for each in self.items if each.ref.full_kind == "Namespace" and each.action == "created"}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        # Not super(): a slotted dataclass is rebuilt, and the implicit one would look for the class before that.
        return {**Outcome.to_dict(self), "actions": dict(self.actions)}

    def raise_for_findings(self) -> None:
        """Turn findings into an exception.

        Raises:
            VeleroError: What tells whether it succeeded could not be read.
            RestoreFailedError: There are findings.
        """
        if self.undecided:
            raise VeleroError(f"restore {self.to_text()}", hint=_UNDECIDED)
        if not self.ok:
            raise RestoreFailedError(
                f"restore {self.to_text()}", phase=self.phase, hint=f"clusterguard velero restore logs {self.name}"
            )


# ---- reading Velero's files --------------------------------------------------------------------------------

_ENTRY = re.compile(r"^(?:(?P<namespace>[^/]+)/)?(?P<name>.+?)(?:\((?P<action>[a-z]+)\))?$", re.DOTALL)


def parse_results(document: object) -> tuple[Message, ...]:
    """Return the messages of a results file (``…-results.gz``), errors first; an odd file is a message, too."""
    if not isinstance(document, Mapping):
        return (Message(severity="error", namespace="", text="the results file is not a JSON object"),)
    return tuple(
        message for severity in ("error", "warning") for message in _messages(severity, document.get(f"{severity}s"))
    )


def _messages(severity: str, part: object) -> Iterator[Message]:
    if not isinstance(part, Mapping):
        return
    for key in ("velero", "cluster"):
        yield from (Message(severity=severity, namespace="", text=str(text)) for text in part.get(key) or ())
    for namespace, texts in sorted((part.get("namespaces") or {}).items()):
        yield from (Message(severity=severity, namespace=namespace, text=str(text)) for text in texts or ())


def parse_resource_list(document: object) -> tuple[RestoredItem, ...]:
    """Return the entries of a resource list (``{"apps/v1/Deployment": ["shop/web(created)", …]}``)."""
    if not isinstance(document, Mapping):
        return ()
    return tuple(
        RestoredItem(ref=ref, action=action)
        for full_kind, entries in sorted(document.items())
        for ref, action in (_entry(str(full_kind), str(text)) for text in entries or ())
    )


def _entry(full_kind: str, text: str) -> tuple[ObjectRef, str]:
    version, _, kind = full_kind.rpartition("/")
    group = version.rpartition("/")[0]
    match = _ENTRY.match(text)
    if match is None:
        return ObjectRef(kind=kind, namespace="", name=text, group=group), ""
    ref = ObjectRef(kind=kind, namespace=match["namespace"] or "", name=match["name"], group=group)
    return ref, match["action"] or ""


# ---- judging -----------------------------------------------------------------------------------------------

# As Velero's restorer words it, with and without an existing-resource policy.
_EXISTS = re.compile(r'could not restore, (?P<kind>\w+)(?::| ")(?P<name>[^"\s]+)"? already exists')
# As the API server words it where policy ``update`` could not patch what exists.
_REFUSED = re.compile(
    r'^(?:Operation cannot be fulfilled on )?(?P<kind>[A-Za-z][\w.-]*) "(?P<name>[^"]+)"'
    r"(?: is invalid| is forbidden| not found|:)"
)
_ITEM_ERROR = re.compile(r"error restoring (?P<resource>[a-z0-9.-]+)/(?:(?P<namespace>[^/:\s]+)/)?(?P<name>[^/:\s]+): ")
# As the plugin for CSI snapshots words it, and Velero itself.
_UNBOUND = re.compile(r"PVC (?P<namespace>[^/\s]+)/(?P<name>\S+) has no volume backing this claim")
_NO_DISCOVERY = re.compile(r"Failed to discover group: (?P<api>\S+)")
_RESOURCE = re.compile(r" resource: /\S+")
_OBJECT_NAME = " name: /"
_ROOT_CA = ("ConfigMap", "kube-root-ca.crt")
_NO_DEPLOYMENT = 'deployments.apps "velero" not found'
_LONGEST_DETAIL = 300  # characters; the API server quotes whole objects
_MOST_NAMED = 3  # namespaces in which the same was said


def judge_backup(
    backup: Backup,
    *,
    messages: Sequence[Message] = (),
    contents: Sequence[ObjectRef] | None = None,
    undiscovered: Sequence[OutcomeFinding] = (),
    volumes: Sequence[VolumeTransfer] = (),
    records: Sequence[VolumeRecord] = (),
    missing_evidence: Sequence[str] = (),
    tolerate: AbstractSet[Rule] = DEFAULT_TOLERATED,
) -> BackupOutcome:
    """Judge a backup in its last state.

    Args:
        backup: The backup.
        messages: Of its results file.
        contents: Of its resource list; None where that is unknown.
        undiscovered: The kinds that its server did not know yet.
        volumes: Its PodVolumeBackups and DataUploads.
        records: What Velero recorded of each volume.
        missing_evidence: What could not be read, each with the reason.
        tolerate: The rules that do not count.
    """

    def found() -> Iterator[OutcomeFinding]:
        yield from _phase_findings(backup)
        yield from _message_findings(backup, messages)
        if backup.phase in {BackupPhase.COMPLETED, BackupPhase.PARTIALLY_FAILED}:
            yield from _content_findings(backup, contents, messages)
        yield from undiscovered
        yield from volume_findings(records, backup.options)
        yield from _common_findings(backup, volumes, missing_evidence)

    return BackupOutcome(**_judged(backup, found(), tolerate), backup=backup, volumes=tuple(records))


def _content_findings(
    backup: Backup, contents: Sequence[ObjectRef] | None, messages: Sequence[Message]
) -> Iterator[OutcomeFinding]:
    if not backup.progress.done:
        yield OutcomeFinding(rule=Rule.NOTHING_BACKED_UP, detail="it has no objects; do its filters match any?")
    elif backup.phase == BackupPhase.COMPLETED and backup.progress.done < backup.progress.total:
        detail = f"{backup.progress.done:,} of {backup.progress.total:,} objects are in it"
        yield OutcomeFinding(rule=Rule.ITEMS_LEFT_OUT, detail=detail)
    if contents:
        said = " ".join(message.text for message in messages)  # Velero itself names a namespace that does not exist
        yield from shortcomings(backup.options, contents, said=said)


def judge_restore(
    restore: Restore,
    *,
    messages: Sequence[Message] = (),
    items: Sequence[RestoredItem] = (),
    existing: Mapping[ObjectRef, OutcomeFinding] = MappingProxyType({}),
    jobs: Sequence[OutcomeFinding] = (),
    volumes: Sequence[VolumeTransfer] = (),
    missing_evidence: Sequence[str] = (),
    tolerate: AbstractSet[Rule] = DEFAULT_TOLERATED,
) -> RestoreOutcome:
    """Judge a restore in its last state.

    Args:
        restore: The restore.
        messages: Of its results file.
        items: Of its resource list.
        existing: What a comparison said of objects that Velero left as they were; see `doubtful`.
        jobs: What runs again because it was restored.
        volumes: Its PodVolumeRestores and DataDownloads.
        missing_evidence: What could not be read, each with the reason.
        tolerate: The rules that do not count.
    """

    def found() -> Iterator[OutcomeFinding]:
        yield from _phase_findings(restore)
        index = _index(items)
        raw = [*_message_findings(restore, messages, index), *_item_findings(items, messages, index)]
        yield from dict.fromkeys(existing.get(each.ref, each) if each.ref else each for each in raw)
        yield from jobs
        if restore.phase in {RestorePhase.COMPLETED, RestorePhase.PARTIALLY_FAILED}:
            yield from _nothing_restored(restore, items, sure=not missing_evidence)
            yield from _unmatched(restore, items)
        yield from _common_findings(restore, volumes, missing_evidence)

    return RestoreOutcome(**_judged(restore, found(), tolerate), restore=restore, items=items)


_Index: TypeAlias = Mapping[tuple[str, str], Sequence[ObjectRef]]


def doubtful(messages: Sequence[Message], items: Sequence[RestoredItem]) -> AbstractSet[ObjectRef]:
    """Return the objects that Velero calls different or left as they were: a comparison tells what that means."""
    index = _index(items)
    raw = [*(_message_finding(message, index) for message in messages), *_item_findings(items, messages, index)]
    wanted = {Rule.EXISTS_DIFFERENT, Rule.ITEM_FAILED}
    return {each.ref for each in raw if each.ref is not None and each.rule in wanted}


def _judged(run: Backup | Restore, found: Iterator[OutcomeFinding], tolerate: AbstractSet[Rule]) -> dict[str, Any]:
    every = tuple(found)
    return {
        "name": run.name,
        "phase": str(run.phase),
        "findings": tuple(each for each in every if each.rule not in tolerate | _NEVER_COUNTED),
        "tolerated": tuple(each for each in every if each.rule in tolerate | _NEVER_COUNTED),
    }


_NEVER_COUNTED: Final = frozenset({Rule.EXISTS_SAME})  # both were fetched and compared: there is nothing to tolerate


def _phase_findings(run: Backup | Restore) -> Iterator[OutcomeFinding]:
    for error in run.validation_errors:
        unavailable = "navailable" in error and ("BSL" in error or "StorageLocation" in error)
        rule = Rule.LOCATION_UNAVAILABLE if unavailable else Rule.VALIDATION
        yield OutcomeFinding(rule=rule, detail=error)
    if not run.phase.listed:
        yield OutcomeFinding(rule=Rule.UNKNOWN_PHASE, detail=f"this release does not know phase {run.phase}")
    elif not run.phase.final:
        yield OutcomeFinding(rule=Rule.NOT_FINAL, detail=f"it is still {run.phase}")
    elif run.phase == "PartiallyFailed":
        detail = run.failure_reason or f"{run.errors} errors, {run.warnings} warnings"
        yield OutcomeFinding(rule=Rule.PARTIALLY_FAILED, detail=detail)
    elif not run.phase.succeeded and not run.validation_errors:
        yield OutcomeFinding(rule=Rule.FAILED, detail=run.failure_reason or f"{run.phase}, and no reason is given")


def _message_findings(
    run: Backup | Restore, messages: Sequence[Message], index: _Index = MappingProxyType({})
) -> Iterator[OutcomeFinding]:
    for message, namespaces in _without_repeats(messages):
        finding = _message_finding(message, index)
        if finding.ref is None and namespaces[0]:
            finding = replace(finding, detail=f"{_named(namespaces)}: {finding.detail}")
        yield replace(finding, count=len(namespaces))
    listed = Counter(message.severity for message in messages)
    for severity, counted, rule in (("error", run.errors, Rule.ERROR), ("warning", run.warnings, Rule.WARNING)):
        if counted > listed[severity]:
            detail = f"{counted - listed[severity]} more {severity}(s) are counted than listed; see the log"
            yield OutcomeFinding(rule=rule, detail=detail)


def _without_repeats(messages: Sequence[Message]) -> Iterator[tuple[Message, Sequence[str]]]:
    """Yield each message once, with the namespaces it was said of; one that names an object is another in each."""
    said: dict[tuple[str, str, str], list[Message]] = {}
    for message in messages:
        about = message.namespace if _EXISTS.search(message.text) or _REFUSED.search(message.text) else ""
        said.setdefault((message.severity, _of_any_kind(message.text), about), []).append(message)
    for (_, text, _), same in said.items():
        whole = len({message.text for message in same}) == 1
        yield same[0] if whole else replace(same[0], text=text), [message.namespace for message in same]


def _of_any_kind(text: str) -> str:
    """Return a message without the resource that it was said of, unless it names an object of it."""
    return text if _OBJECT_NAME in text else _RESOURCE.sub("", text)


def _named(namespaces: Sequence[str]) -> str:
    names = sorted(set(namespaces))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"namespace{'s' if len(names) > 1 else ''} {', '.join(names[:_MOST_NAMED])}{more}"


def _message_finding(message: Message, index: _Index) -> OutcomeFinding:
    rule = Rule.ERROR if message.severity == "error" else Rule.WARNING
    text = message.text
    if match := _EXISTS.search(text):
        ref = _ref(index, match["kind"], message.namespace, match["name"])
        expected = (ref.kind, ref.name) == _ROOT_CA
        return OutcomeFinding(rule=Rule.ROOT_CA_EXISTS if expected else Rule.EXISTS_DIFFERENT, detail=text, ref=ref)
    if finding := _about_item(text, rule, index):
        return finding
    if _NO_DEPLOYMENT in text:
        return OutcomeFinding(rule=Rule.SERVER_NOT_DEPLOYED, detail=text)
    if match := _NO_DISCOVERY.search(text):
        group, _, version = match["api"].rpartition("/")
        ref = ObjectRef(_API_SERVICE[0], "", f"{version}.{group}", _API_SERVICE[1])
        return OutcomeFinding(
            rule=Rule.API_UNAVAILABLE, detail="it is down, so nothing of it is in the backup", ref=ref
        )
    if message.severity == "warning" and (match := _REFUSED.search(text)):
        ref = _ref(index, match["kind"], message.namespace, match["name"])
        if ref in index.get((ref.namespace, ref.name), ()):
            detail = f"it exists, and could not be changed: {text[:_LONGEST_DETAIL]}"
            return OutcomeFinding(rule=Rule.EXISTS_DIFFERENT, detail=detail, ref=ref)
    return OutcomeFinding(rule=rule, detail=text)


def _about_item(text: str, rule: Rule, index: _Index) -> OutcomeFinding | None:
    """Return what a message says of one object that it names by its resource."""
    if match := _UNBOUND.search(text):
        ref = ObjectRef(kind="PersistentVolumeClaim", namespace=match["namespace"], name=match["name"])
        return OutcomeFinding(rule=Rule.CLAIM_UNBOUND, detail=text, ref=ref)
    if match := _ITEM_ERROR.search(text):
        ref = _ref(index, match["resource"], match["namespace"] or "", match["name"])
        return OutcomeFinding(rule=rule, detail=text, ref=ref)
    return None


def rule_of(message: Message) -> Rule:
    """Return what kind of finding a message of a backup is."""
    return _message_finding(message, {}).rule


_API_SERVICE: Final = ("APIService", "apiregistration.k8s.io")


def _index(items: Sequence[RestoredItem]) -> _Index:
    found: dict[tuple[str, str], list[ObjectRef]] = defaultdict(list)
    for item in items:
        found[item.ref.namespace, item.ref.name].append(item.ref)
    return found


def _ref(index: _Index, kind: str, namespace: str, name: str) -> ObjectRef:
    """Return the object that a message means by a kind or a resource, with its group where the list has it."""
    for ref in index.get((namespace, name), ()):
        if kind.lower() in _words(ref):
            return ref
    kind, _, group = kind.partition(".")
    return ObjectRef(kind=kind, namespace=namespace, name=name, group=group)


def _words(ref: ObjectRef) -> set[str]:
    plural = plural_of(ref.kind)
    return {ref.kind.lower(), ref.full_kind.lower(), plural, f"{plural}.{ref.group}"}


def _item_findings(
    items: Sequence[RestoredItem], messages: Sequence[Message], index: _Index
) -> Iterator[OutcomeFinding]:
    """Yield the objects that a resource list calls failed, less those that a message is about."""
    reported = {_message_finding(message, index).ref for message in messages}
    for item in items:
        if item.action == "failed" and item.ref not in reported:
            yield OutcomeFinding(rule=Rule.ITEM_FAILED, detail="the restore's resource list says failed", ref=item.ref)


def _nothing_restored(restore: Restore, items: Sequence[RestoredItem], *, sure: bool) -> Iterator[OutcomeFinding]:
    progress = restore.progress
    if not progress.done and not items:
        yield OutcomeFinding(rule=Rule.NOTHING_RESTORED, detail="no object was restored; do its filters match any?")
    elif sure and not any(item.action in {"created", "updated"} for item in items):
        detail = f"none of {max(len(items), progress.done):,} objects was created or updated: all of them exist"
        yield OutcomeFinding(rule=Rule.NOTHING_RESTORED, detail=detail)


def _unmatched(restore: Restore, items: Sequence[RestoredItem]) -> Iterator[OutcomeFinding]:
    """Yield the namespaces that were asked for, and of which nothing was in the backup."""
    if not items:
        return  # then nothing was restored at all
    old_names = {new: old for old, new in (restore.options.namespace_mapping or {}).items()}
    met = {item.ref.name if item.ref.full_kind == "Namespace" else item.ref.namespace for item in items}
    known = met | {old_names.get(name, name) for name in met}
    for pattern in restore.options.included_namespaces:
        if not any(fnmatchcase(name, pattern) for name in known):
            detail = f"nothing of namespace {pattern} was restored, which was asked for"
            yield OutcomeFinding(rule=Rule.FILTER_MATCHES_NOTHING, detail=detail)


def _common_findings(
    run: Backup | Restore, volumes: Sequence[VolumeTransfer], missing_evidence: Sequence[str]
) -> Iterator[OutcomeFinding]:
    if run.hooks_failed:
        detail = f"{run.hooks_failed} of {run.hooks_attempted} hooks failed"
        yield OutcomeFinding(rule=Rule.HOOK_FAILED, detail=detail)
    if run.item_operations_failed:
        detail = f"{run.item_operations_failed} asynchronous operations of plugins failed"
        yield OutcomeFinding(rule=Rule.OPERATION_FAILED, detail=detail)
    yield from _volume_findings(volumes)
    yield from (OutcomeFinding(rule=Rule.EVIDENCE_MISSING, detail=each) for each in missing_evidence)


def _volume_findings(volumes: Sequence[VolumeTransfer]) -> Iterator[OutcomeFinding]:
    for volume in volumes:
        if volume.phase == TransferPhase.COMPLETED:
            if volume.bytes_done < volume.bytes_total:
                detail = f"{volume.kind}: {volume.bytes_done:,} of {volume.bytes_total:,} bytes"
                yield OutcomeFinding(rule=Rule.VOLUME_UNFINISHED, detail=f"{volume.volume}: {detail}")
            continue
        rule = Rule.VOLUME_FAILED if volume.phase.final else Rule.VOLUME_UNFINISHED
        said = f" ({volume.message})" if volume.message else ""
        detail = f"{volume.volume}: {volume.kind} is {volume.phase}{said}"
        yield OutcomeFinding(rule=rule, detail=detail)
