"""What a location holds of a policy: its backups, what is known of each, and what was done and proven.

Every location has a catalog of its own, so that one which is lost takes nothing with it but itself. It is a summary of
the records beside the backups and of the audit trail, kept so that a look at ten thousand backups is one listing and
one read; a record that it does not know is read, and the catalog is mended.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson

from clusterguard.errors import ConfigError, ObjectCorruptError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

__all__ = [
    "CATALOG_FORMAT",
    "BackupEntry",
    "Catalog",
    "Depth",
    "Leftover",
    "ProofOutcome",
    "ProofRecord",
    "RunRecord",
    "entry_key",
]

CATALOG_FORMAT: Final = 1
_STORED_NAMES: Final = {"encrypted": "sealed"}

ProofOutcome: TypeAlias = Literal["proven", "not proven", "error"]
"""``error``: whether the backup restores could not be tried, or not to the end."""

Depth: TypeAlias = Literal["bytes", "contents"]
"""How deep a verification looked: the stored bytes are as written; or what is in them was opened and is whole."""


def entry_key(source: str, name: str) -> str:
    """Return what a backup is called in a whole location."""
    return f"{source}/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupEntry:
    """One copy of one backup.

    Attributes:
        source: Of the policy.
        name: Unique in its source; the same in every location.
        created: When it was taken, UTC.
        size: Bytes that it takes up there.
        sha256: Of its stored bytes, in lower-case hexadecimal; empty where several objects make it up.
        kind: What it is.
        encrypted: Whether a key is needed to read it; stored as ``sealed``.
        revision: Of etcd; None for Velero.
        run: The run that made it.
        verified: When it was last read back and found whole, UTC; None for never.
        depth: How deep anybody has looked into these bytes.
        problem: What a verification found wrong with it; empty for nothing.
        unread: What kept the last verification from looking; empty where it could. It says nothing of the copy.
    """

    source: str
    name: str
    created: datetime
    size: int
    sha256: str
    kind: Literal["etcd", "velero"]
    encrypted: bool
    run: str
    revision: int | None = None
    verified: datetime | None = None
    depth: Depth | None = None
    problem: str = ""
    unread: str = ""

    @property
    def key(self) -> str:
        """What it is called in the whole location."""
        return entry_key(self.source, self.name)

    @property
    def sound(self) -> bool:
        """Whether it was read back, and nothing was found wrong since."""
        return self.verified is not None and not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """What a backup or a copy that broke off left in a location: bytes that no record names, so nobody restores them.

    Attributes:
        source: Of the policy.
        name: Of the backup that they would have been, or were.
        keys: Of the objects, below the source's folder.
        size: Their bytes.
        modified: When the youngest was written, by the location's own clock, UTC.
    """

    source: str
    name: str
    keys: tuple[str, ...]
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The last run that backed a source up, and the last one that succeeded.

    Attributes:
        source: Which.
        run: The last run.
        at: When it ended, UTC.
        outcome: ``warning``: the backup counts, but something is wrong.
        detail: What was wrong; empty for nothing.
        seconds: How long it took.
        last_success: When a backup with enough verified copies was last made; None for never.
    """

    source: str
    run: str
    at: datetime
    outcome: Literal["ok", "warning", "failed"]
    detail: str = ""
    seconds: float = 0
    last_success: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRecord:
    """The last time that a drill was asked to prove a source, and the last time it did.

    Attributes:
        proof: Its name in the policy.
        source: What it proves.
        backup: The backup that was restored.
        at: When, UTC.
        outcome: The drill's verdict.
        detail: What was missing; empty for nothing.
        rto_seconds: How long the restore took until everything was back; None where it never was.
        rpo_seconds: How old the backup was when the drill began; None where unknown.
        last_proven: When it was last green; None for never.
    """

    proof: str
    source: str
    backup: str
    at: datetime
    outcome: ProofOutcome
    detail: str = ""
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    last_proven: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything that is known of one location.

    Attributes:
        policy: Whose backups these are.
        location: Its name in the policy.
        entries: By `BackupEntry.key`.
        runs: By source.
        proofs: By name of the proof.
        audit_head: Hash of the audit trail's last line there; empty before the first.
        updated: When it was last written, UTC; None before.
        notes: What was odd when it was put together: backups that vanished, records that cannot be read. Not stored.
        leftovers: Bytes that no record names, of a run that broke off or of one at work. Not stored.
    """

    policy: str
    location: str
    entries: Mapping[str, BackupEntry] = field(default_factory=dict)
    runs: Mapping[str, RunRecord] = field(default_factory=dict)
    proofs: Mapping[str, ProofRecord] = field(default_factory=dict)
    audit_head: str = ""
    updated: datetime | None = None
    notes: tuple[str, ...] = ()
    leftovers: tuple[Leftover, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all backups."""
        return sum(each.size for each in self.entries.values())

    def of_source(self, source: str) -> tuple[BackupEntry, ...]:
        """Return the backups of one source, newest first."""
        ours = (each for each in self.entries.values() if each.source == source)
        return tuple(sorted(ours, key=lambda each: (each.created, each.name), reverse=True))

    def with_entries(self, entries: Iterable[BackupEntry]) -> Catalog:
        """Return it with these backups added, or in the place of those of the same name."""
        return replace(self, entries={**self.entries, **{each.key: each for each in entries}})

    def without(self, keys: Iterable[str]) -> Catalog:
        """Return it without these backups."""
        gone = set(keys)
        return replace(self, entries={key: each for key, each in self.entries.items() if key not in gone})

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        document = {
            "format": CATALOG_FORMAT,
            "policy": self.policy,
            "location": self.location,
            "updated": self.updated,
            "audit_head": self.audit_head,
            "entries": [_stored_entry(each) for each in self.entries.values()],
            "runs": list(self.runs.values()),
            "proofs": list(self.proofs.values()),
        }
        return orjson.dumps(document, option=orjson.OPT_UTC_Z)

    @classmethod
    def from_json(cls, text: bytes) -> Catalog:
        """Read one.

        Raises:
            ObjectCorruptError: It is damaged, or is no catalog.
            ConfigError: A later release wrote it.
        """
        try:
            document = orjson.loads(text)
            found = document["format"]
            if found != CATALOG_FORMAT:
                raise ConfigError(
                    f"the catalog has format {found!r}; this release reads {CATALOG_FORMAT}",
                    hint="a later release wrote it: use that one",
                )
            return cls(
                policy=document["policy"],
                location=document["location"],
                updated=_moment(document["updated"]),
                audit_head=document["audit_head"],
                entries={each.key: each for each in map(_entry, document["entries"])},
                runs={each["source"]: _run(each) for each in document["runs"]},
                proofs={each["proof"]: _proof(each) for each in document["proofs"]},
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ObjectCorruptError(
                f"the catalog cannot be read: {error}",
                hint="remove it: it is made anew from the records of the backups",
            ) from error


def _moment(text: str | None) -> datetime | None:
    from datetime import datetime

    return datetime.fromisoformat(text) if text else None


def _with_moments(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {**document, **{name: _moment(document.get(name)) for name in names}}


def _stored_entry(entry: BackupEntry) -> dict[str, Any]:
    # Releases before this one read the catalog too, while they are being replaced: its format keeps its names.
    return {_STORED_NAMES.get(each.name, each.name): getattr(entry, each.name) for each in fields(entry)}


def _entry(document: Mapping[str, Any]) -> BackupEntry:
    named = {name: document[stored] for name, stored in _STORED_NAMES.items()}
    others = {key: value for key, value in document.items() if key not in _STORED_NAMES.values()}
    return BackupEntry(**_with_moments({**others, **named}, "created", "verified"))


def _run(document: Mapping[str, Any]) -> RunRecord:
    return RunRecord(**_with_moments(document, "at", "last_success"))


def _proof(document: Mapping[str, Any]) -> ProofRecord:
    return ProofRecord(**_with_moments(document, "at", "last_proven"))
