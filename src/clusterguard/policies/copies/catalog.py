"""What a location holds of a policy: its backups, what is known of each, and what was done and proven.

Every location has a catalog of its own, so that one which is lost takes nothing with it but itself. It is a summary of
the records beside the backups and of the audit trail, kept so that a look at ten thousand backups is one listing and
one read; a record that it does not know is read, and the catalog is mended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping  # noqa: TC003 - pydantic evaluates annotations
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AwareDatetime, BeforeValidator, Field, PlainSerializer, TypeAdapter

from clusterguard.documents.stored import StoredFormat
from clusterguard.errors import ObjectCorruptError

__all__ = [
    "BackupEntry",
    "Catalog",
    "Depth",
    "Leftover",
    "ProofOutcome",
    "ProofRecord",
    "RunRecord",
    "entry_key",
]

ProofOutcome: TypeAlias = Literal["proven", "not proven", "error"]
"""``error``: whether the backup restores could not be tried, or not to the end."""

Depth: TypeAlias = Literal["bytes", "contents"]
"""How deep a verification looked: the stored bytes are as written; or what is in them was opened and is whole."""


def _listed(*names: str) -> BeforeValidator:
    """Read a list as a mapping by these fields of its items."""

    def mapping(listed: Iterable[Mapping[str, str]]) -> dict[str, Any]:
        try:
            return {"/".join(each[name] for name in names): each for each in listed}
        except (KeyError, TypeError) as error:
            raise ValueError(f"it should be a list of objects with {' and '.join(names)}") from error

    return BeforeValidator(mapping)


def _values(mapping: Mapping[str, Any]) -> list[Any]:
    return list(mapping.values())


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
        encrypted: Whether a key is needed to read it.
        revision: Of etcd; None for Velero.
        run: The run that made it.
        verified: When it was last read back and found whole, UTC; None for never.
        depth: How deep anybody has looked into these bytes.
        problem: What a verification found wrong with it; empty for nothing.
        unread: What kept the last verification from looking; empty where it could. It says nothing of the copy.
    """

    source: str
    name: str
    created: AwareDatetime
    size: int
    sha256: str
    kind: Literal["etcd", "velero"]
    # Releases that are being replaced read the catalog, too: what it calls this stays as it is.
    encrypted: Annotated[bool, Field(alias="sealed")]
    run: str
    revision: int | None = None
    verified: AwareDatetime | None = None
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
    modified: AwareDatetime


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
    at: AwareDatetime
    outcome: Literal["ok", "warning", "failed"]
    detail: str = ""
    seconds: float = 0
    last_success: AwareDatetime | None = None


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
    at: AwareDatetime
    outcome: ProofOutcome
    detail: str = ""
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    last_proven: AwareDatetime | None = None


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
    entries: Annotated[
        Mapping[str, BackupEntry], _listed("source", "name"), PlainSerializer(_values, list[BackupEntry])
    ] = field(default_factory=dict)
    runs: Annotated[Mapping[str, RunRecord], _listed("source"), PlainSerializer(_values, list[RunRecord])] = field(
        default_factory=dict
    )
    proofs: Annotated[Mapping[str, ProofRecord], _listed("proof"), PlainSerializer(_values, list[ProofRecord])] = field(
        default_factory=dict
    )
    audit_head: str = ""
    updated: AwareDatetime | None = None
    notes: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    leftovers: Annotated[tuple[Leftover, ...], Field(exclude=True)] = ()

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
        return _FORMAT.dump(self, indent=False)

    @classmethod
    def from_json(cls, text: bytes) -> Catalog:
        """Read one.

        Raises:
            ObjectCorruptError: It is damaged, or is not a catalog.
            ConfigError: A later release wrote it.
        """
        return _FORMAT.parse(text)


_FORMAT: Final = StoredFormat(
    adapter=TypeAdapter(Catalog),
    number=1,
    noun="the catalog",
    damaged=ObjectCorruptError,
    hint="remove it: it is written again from the records of the backups",
)
