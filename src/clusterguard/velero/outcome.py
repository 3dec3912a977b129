"""The outcome of a backup or a restore: findings, decided from evidence alone.

Velero calls a restore ``Completed`` when objects were left as they were because they exist, when nothing was in
the backup, and when volumes are still being filled. Here each of these is a finding with a name, and whoever asks says
which names are tolerated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from clusterguard.errors import BackupFailedError, RestoreFailedError, VeleroError
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.phases import BackupPhase, RestorePhase, TransferPhase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.velero.resources import Backup, Restore, VolumeTransfer

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
]


class Rule(StrEnum):
    """The names of findings."""

    NOT_FINAL = "not-final"
    FAILED = "failed"
    PARTIALLY_FAILED = "partially-failed"
    UNKNOWN_PHASE = "unknown-phase"
    VALIDATION = "validation"
    LOCATION_UNAVAILABLE = "location-unavailable"
    ERROR = "error"
    WARNING = "warning"
    EXISTS_DIFFERENT = "exists-different"
    ROOT_CA_EXISTS = "root-ca-exists"
    SERVER_NOT_DEPLOYED = "server-not-deployed"
    ITEM_FAILED = "item-failed"
    NOTHING_BACKED_UP = "nothing-backed-up"
    NOTHING_RESTORED = "nothing-restored"
    ITEMS_LEFT_OUT = "items-left-out"
    HOOK_FAILED = "hook-failed"
    OPERATION_FAILED = "operation-failed"
    VOLUME_FAILED = "volume-failed"
    VOLUME_UNFINISHED = "volume-unfinished"
    VOLUME_LEFT_OUT = "volume-left-out"
    EVIDENCE_MISSING = "evidence-missing"


_EXPLAINED: Mapping[Rule, str] = {
    Rule.ROOT_CA_EXISTS: "every namespace has its own kube-root-ca.crt, with the certificate of its own cluster",
    Rule.SERVER_NOT_DEPLOYED: "Velero runs outside of the cluster, so it has no Deployment to take settings from",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeFinding:
    """One thing that is not as it should be.

    Attributes:
        rule: What kind of thing.
        detail: What was seen, in Velero's words where there are any.
        ref: The object, where it is known.
    """

    rule: Rule
    detail: str
    ref: ObjectRef | None = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.ref}: {self.detail}" if self.ref else f"{self.rule}: {self.detail}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        ref = self.ref
        named = {"kind": ref.full_kind, "namespace": ref.namespace, "name": ref.name} if ref else None
        return {"rule": str(self.rule), "detail": self.detail, "object": named}


DEFAULT_TOLERATED: Final = frozenset({Rule.ROOT_CA_EXISTS})
"""What is expected of every restore into a new namespace."""


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
        for each in self.tolerated:
            why = _EXPLAINED.get(each.rule)
            yield f"  tolerated: {each}" + (f" ({why})" if why else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOutcome(Outcome):
    """The outcome of a backup.

    Attributes:
        backup: In its last state.
    """

    backup: Backup

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
_ITEM_ERROR = re.compile(r"error restoring (?P<resource>[a-z0-9.-]+)/(?:(?P<namespace>[^/:\s]+)/)?(?P<name>[^/:\s]+): ")
_ROOT_CA = ("ConfigMap", "kube-root-ca.crt")
_NO_DEPLOYMENT = 'deployments.apps "velero" not found'


def judge_backup(
    backup: Backup,
    *,
    messages: Sequence[Message] = (),
    volumes: Sequence[VolumeTransfer] = (),
    missing_evidence: Sequence[str] = (),
    tolerate: AbstractSet[Rule] = DEFAULT_TOLERATED,
) -> BackupOutcome:
    """Judge a backup in its last state.

    Args:
        backup: The backup.
        messages: Of its results file.
        volumes: Its PodVolumeBackups and DataUploads.
        missing_evidence: What could not be read, each with the reason.
        tolerate: The rules that do not count.
    """

    def found() -> Iterator[OutcomeFinding]:
        yield from _phase_findings(backup)
        yield from _message_findings(backup, messages)
        if backup.phase in {BackupPhase.COMPLETED, BackupPhase.PARTIALLY_FAILED} and not backup.progress.done:
            yield OutcomeFinding(rule=Rule.NOTHING_BACKED_UP, detail="it has no objects; do its filters match any?")
        elif backup.phase == BackupPhase.COMPLETED and backup.progress.done < backup.progress.total:
            detail = f"{backup.progress.done:,} of {backup.progress.total:,} objects are in it"
            yield OutcomeFinding(rule=Rule.ITEMS_LEFT_OUT, detail=detail)
        yield from _common_findings(backup, volumes, missing_evidence)

    return BackupOutcome(**_judged(backup, found(), tolerate), backup=backup)


def judge_restore(
    restore: Restore,
    *,
    messages: Sequence[Message] = (),
    items: Sequence[RestoredItem] = (),
    volumes: Sequence[VolumeTransfer] = (),
    missing_evidence: Sequence[str] = (),
    tolerate: AbstractSet[Rule] = DEFAULT_TOLERATED,
) -> RestoreOutcome:
    """Judge a restore in its last state; ``items`` are those of its resource list, the rest as in `judge_backup`."""

    def found() -> Iterator[OutcomeFinding]:
        yield from _phase_findings(restore)
        yield from _message_findings(restore, messages)
        yield from _item_findings(items, messages=messages)
        if restore.phase in {RestorePhase.COMPLETED, RestorePhase.PARTIALLY_FAILED}:
            yield from _nothing_restored(restore, items, sure=not missing_evidence)
        yield from _common_findings(restore, volumes, missing_evidence)

    return RestoreOutcome(**_judged(restore, found(), tolerate), restore=restore, items=items)


def _judged(run: Backup | Restore, found: Iterator[OutcomeFinding], tolerate: AbstractSet[Rule]) -> dict[str, Any]:
    every = tuple(found)
    return {
        "name": run.name,
        "phase": str(run.phase),
        "findings": tuple(each for each in every if each.rule not in tolerate),
        "tolerated": tuple(each for each in every if each.rule in tolerate),
    }


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


def _message_findings(run: Backup | Restore, messages: Sequence[Message]) -> Iterator[OutcomeFinding]:
    for message in messages:
        yield _message_finding(message)
    listed = Counter(message.severity for message in messages)
    for severity, counted, rule in (("error", run.errors, Rule.ERROR), ("warning", run.warnings, Rule.WARNING)):
        if counted > listed[severity]:
            detail = f"{counted - listed[severity]} more {severity}(s) are counted than listed; see the log"
            yield OutcomeFinding(rule=rule, detail=detail)


def _message_finding(message: Message) -> OutcomeFinding:
    rule = Rule.ERROR if message.severity == "error" else Rule.WARNING
    if match := _EXISTS.search(message.text):
        ref = ObjectRef(kind=match["kind"], namespace=message.namespace, name=match["name"])
        expected = (ref.kind, ref.name) == _ROOT_CA
        return OutcomeFinding(
            rule=Rule.ROOT_CA_EXISTS if expected else Rule.EXISTS_DIFFERENT, detail=message.text, ref=ref
        )
    if match := _ITEM_ERROR.search(message.text):
        ref = ObjectRef(kind=match["resource"], namespace=match["namespace"] or "", name=match["name"])
        return OutcomeFinding(rule=rule, detail=message.text, ref=ref)
    if _NO_DEPLOYMENT in message.text:
        return OutcomeFinding(rule=Rule.SERVER_NOT_DEPLOYED, detail=message.text)
    where = f"namespace {message.namespace}: " if message.namespace else ""
    return OutcomeFinding(rule=rule, detail=f"{where}{message.text}")


def _item_findings(items: Sequence[RestoredItem], *, messages: Sequence[Message]) -> Iterator[OutcomeFinding]:
    """Yield the objects that a resource list calls failed, less those that a message is about."""
    reported = {
        (match["kind"], message.namespace, match["name"])
        for message in messages
        if (match := _EXISTS.search(message.text))
    }
    for item in items:
        ref = item.ref
        if item.action == "failed" and (ref.kind, ref.namespace, ref.name) not in reported:
            yield OutcomeFinding(rule=Rule.ITEM_FAILED, detail="the restore's resource list says failed", ref=ref)


def _nothing_restored(restore: Restore, items: Sequence[RestoredItem], *, sure: bool) -> Iterator[OutcomeFinding]:
    progress = restore.progress
    if not progress.done and not items:
        yield OutcomeFinding(rule=Rule.NOTHING_RESTORED, detail="no object was restored; do its filters match any?")
    elif sure and not any(item.action in {"created", "updated"} for item in items):
        detail = f"none of {max(len(items), progress.done):,} objects was created or updated: all of them exist"
        yield OutcomeFinding(rule=Rule.NOTHING_RESTORED, detail=detail)


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
