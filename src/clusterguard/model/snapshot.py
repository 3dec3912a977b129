"""What is known of one stored snapshot, and what a verification of it found."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from clusterguard.errors import ConfigError, SnapshotCorruptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from clusterguard.errors import ClusterGuardError

__all__ = ["FORMAT", "CheckOutcome", "Checked", "Remark", "Snapshot", "SnapshotList", "VerifyReport"]

FORMAT: Final = 1
_TEXT, _OPTIONAL_TEXT, _NUMBER = "text", "text or null", "a whole number"
_KINDS: Final[Mapping[str, str]] = {
    "name": _TEXT,
    "key": _TEXT,
    "revision": _NUMBER,
    "total_keys": _NUMBER,
    "size": _NUMBER,
    "etcd_version": _TEXT,
    "storage_version": _OPTIONAL_TEXT,
    "cluster_id": _TEXT,
    "member_id": _TEXT,
    "member_name": _TEXT,
    "sha256": _TEXT,
    "hash_kv": _NUMBER,
    "hash_revision": _NUMBER,
    "compact_revision": _NUMBER,
    "endpoint": _TEXT,
}
_MAY_BE_MINUS_ONE: Final = frozenset({"compact_revision"})


# Remarks after which somebody should do something.
_WARNINGS: Final = frozenset(
    {"alarm-nospace", "alarm-corrupt", "learner", "no-leader", "no-keys", "behind", "no-trailer", "newer-objects"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What to know about a snapshot that is whole, and about the member that sent it.

    Attributes:
        code: Stable name; docs/reference/errors.md has them all.
        detail: In words.
    """

    code: str
    detail: str

    @property
    def warning(self) -> bool:
        """Whether somebody should do something about it."""
        return self.code in _WARNINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The record that is stored beside a snapshot.

    Attributes:
        name: What people call it.
        key: Where the store keeps its bytes.
        taken: When the stream began, in UTC.
        revision: Main revision of its newest record.
        total_keys: Live keys at that revision.
        size: Bytes of the object, trailer included.
        etcd_version: Of the member that sent it.
        storage_version: Version of its schema, or None before etcd 3.6.
        cluster_id: Hexadecimal, as etcdctl prints it.
        member_id: Likewise, of the member that sent it.
        member_name: That member's name.
        sha256: Of the whole object, trailer included, in lower-case hexadecimal.
        hash_kv: HashKV (CRC-32C) at ``hash_revision``.
        hash_revision: The revision a member started from it is at.
        compact_revision: The compaction that HashKV presupposes; -1 if there was none.
        endpoint: Where it was read from; never with credentials.
        remarks: What was noticed when it was saved.
        extra: Fields written by a later release, kept as they are.

    Raises:
        ConfigError: ``taken`` has no zone, or ``endpoint`` has credentials in it.
    """

    name: str
    key: str
    taken: datetime
    revision: int
    total_keys: int
    size: int
    etcd_version: str
    storage_version: str | None
    cluster_id: str
    member_id: str
    member_name: str
    sha256: str
    hash_kv: int
    hash_revision: int
    compact_revision: int
    endpoint: str
    remarks: tuple[Remark, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def __post_init__(self) -> None:
        if self.taken.utcoffset() != timedelta(0):
            raise ConfigError(f"taken: {self.taken.isoformat()} is not in UTC", hint="use a datetime in UTC")
        if "@" in (urlsplit(self.endpoint).netloc or self.endpoint):
            raise ConfigError(
                "endpoint: has credentials in it",
                code="credentials-in-endpoint",
                hint="record it without user and password",
            )

    def to_json(self) -> str:
        """Return the record as a JSON object, readable by people."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "extra"}
        remarks = [{"code": remark.code, "detail": remark.detail} for remark in self.remarks]
        document = {"format": FORMAT, **own, "taken": self.taken.isoformat(), "remarks": remarks, **self.extra}
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Snapshot:
        """Read a record.

        Raises:
            SnapshotCorruptError: It is no such record; the message names the field.
            ConfigError: A later release wrote it, which is no fault of the snapshot.
        """
        document = _parse(text)
        values = {name: _required(document, name, kind) for name, kind in _KINDS.items()}
        known = {*_KINDS, "taken", "remarks", "format"}
        extra = {name: value for name, value in document.items() if name not in known}
        try:
            return cls(taken=_taken(document), remarks=_remarks(document), extra=MappingProxyType(extra), **values)
        except ConfigError as error:
            raise _wrong(error.message) from error


class SnapshotList(tuple[Snapshot, ...]):  # noqa: SLOT001 - a tuple that has an attribute needs a dictionary
    """The snapshots of a store, oldest first.

    Attributes:
        unreadable: The keys of objects that are named like records and are none, or none that this release reads, each
            with the error that says why.
    """

    unreadable: Mapping[str, ClusterGuardError]

    def __new__(cls, snapshots: Iterable[Snapshot], *, unreadable: Mapping[str, ClusterGuardError]) -> Self:
        """Sort the snapshots."""
        listed = super().__new__(cls, sorted(snapshots, key=lambda snapshot: snapshot.taken))
        listed.unreadable = unreadable
        return listed


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """One question and its answer.

    Attributes:
        name: What was asked, such as "sha256 trailer".
        ok: The answer, or None where it could not be asked; then ``detail`` says why.
        detail: What was seen.
        unasked: Of several who were asked, those who gave no answer, and why; ``detail`` names them, too.
    """

    name: str
    ok: bool | None
    detail: str
    unasked: tuple[str, ...] = ()


class Checked:
    """What several checks say together, whatever they were made of."""

    __slots__ = ()
    checks: Sequence[CheckOutcome]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong and something was asked; what could not be asked proves nothing."""
        answers = [check.ok for check in self.checks]
        return False not in answers and True in answers

    @property
    def unasked(self) -> tuple[CheckOutcome, ...]:
        """The checks that could not be made."""
        return tuple(check for check in self.checks if check.ok is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport(Checked):
    """What a verification of one stored snapshot found.

    Attributes:
        snapshot: The record it was compared with.
        checks: In the order they were made.
        remarks: What to know before it is restored, although it is intact: alarms, authentication, no keys.
    """

    snapshot: Snapshot
    checks: Sequence[CheckOutcome]
    remarks: Sequence[Remark] = ()

    def to_text(self) -> str:
        """Return one line for the verdict and one for each check."""
        verdict = "intact" if self.ok else "NOT PROVEN" if not self._failed() else "NOT INTACT"
        width = max((len(check.name) for check in self.checks), default=0)
        marks = {True: "ok", False: "FAILED", None: "not asked"}
        lines = [f"{self.snapshot.name}: {verdict} (revision {self.snapshot.revision})"]
        lines += [f"  {check.name:<{width}}  {marks[check.ok]:<9}  {check.detail}" for check in self.checks]
        lines += [f"  note: {remark.detail}" for remark in self.remarks]
        return "\n".join(line.rstrip() for line in lines)

    def raise_for_findings(self) -> None:
        """Turn findings into an exception.

        Raises:
            SnapshotCorruptError: A check failed, or none could be made.
        """
        if not self.ok:
            raise SnapshotCorruptError(self.to_text(), hint="do not restore it; save a new snapshot")

    def _failed(self) -> bool:
        return any(check.ok is False for check in self.checks)


def _parse(text: str | bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _wrong("it is not a JSON object")
    found = document.get("format")
    if type(found) is int and found > FORMAT:
        raise ConfigError(
            f"the snapshot's record has format {found}; this release reads {FORMAT}",
            code="record-format",
            fields={"format": found},
            hint="a later release wrote it: use that one",
        )
    if found != FORMAT or isinstance(found, bool):
        raise SnapshotCorruptError(
            f"the snapshot's record has format {found!r}; this release reads {FORMAT}",
            fields={"defect": "record", "format": found},
            hint="it is not a record of a snapshot",
        )
    return document


def _required(document: Mapping[str, Any], name: str, kind: str) -> Any:  # noqa: ANN401 - kind tells the type
    if name not in document:
        raise _wrong(f"{name} is missing", name)
    value = document[name]
    if kind == _NUMBER:
        least = -1 if name in _MAY_BE_MINUS_ONE else 0
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    else:
        fits = isinstance(value, str) or (kind == _OPTIONAL_TEXT and value is None)
    if not fits:
        raise _wrong(f"{name} is {json.dumps(value)[:60]}, not {kind}", name)
    return value


def _taken(document: Mapping[str, Any]) -> datetime:
    text = _required(document, "taken", _TEXT)
    try:
        taken = datetime.fromisoformat(text)
    except ValueError as error:
        raise _wrong(f"taken is {json.dumps(text)[:60]}, not a date and time") from error
    if taken.tzinfo is None:
        raise _wrong(f"taken is {json.dumps(text)[:60]}, without a zone")
    return taken.astimezone(UTC)


def _remarks(document: Mapping[str, Any]) -> tuple[Remark, ...]:
    try:
        return tuple(Remark(code=str(each["code"]), detail=str(each["detail"])) for each in document.get("remarks", ()))
    except (TypeError, KeyError) as error:
        raise _wrong(f"remarks is {json.dumps(document['remarks'])[:60]}, not a list of codes and details") from error


def _wrong(problem: str, name: str | None = None) -> SnapshotCorruptError:
    return SnapshotCorruptError(
        f"the snapshot's record cannot be read: {problem}",
        fields={"defect": "record"} | ({"field": name} if name else {}),
        hint="the record was changed or damaged; the snapshot itself may be intact",
    )
