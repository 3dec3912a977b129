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
    "Leftover",
    "ProofOutcome",
    "ProofRecord",
    "RunRecord",
    "VerifyLevel",
    "entry_key",
]

ProofOutcome: TypeAlias = Literal["proven", "not proven", "error"]
"""``error``: whether the backup restores could not be tried, or not to the end."""

VerifyLevel: TypeAlias = Literal["bytes", "contents"]
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
    """One copy of one backup."""

    source: str
    name: str  # unique in its source; the same in every location
    created: AwareDatetime  # when it was taken, UTC
    size: int  # bytes that it takes up there
    sha256: str  # of its stored bytes, in lower-case hexadecimal; empty where several objects make it up
    kind: Literal["etcd", "velero"]  # what it is
    # Releases that are being replaced read the catalog, too: what it calls this stays as it is.
    encrypted: Annotated[bool, Field(alias="sealed")]  # whether a key is needed to read it
    run: str  # the run that made it
    revision: int | None = None  # of etcd; None for Velero
    verified: AwareDatetime | None = None  # when it was last read back and found whole, UTC; None for never
    depth: VerifyLevel | None = None  # how deep anybody has looked into these bytes
    problem: str = ""  # what a verification found wrong with it; empty for nothing
    unread: str = ""  # what kept the last verification from looking; empty where it could. It says nothing of the copy.

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
    """What a backup or a copy that broke off left in a location: bytes that no record names."""

    source: str
    name: str  # of the backup that they would have been, or were
    keys: tuple[str, ...]  # of the objects, below the source's folder
    size: int  # their bytes
    modified: AwareDatetime  # when the youngest was written, by the location's own clock, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The last run that backed a source up, and the last one that succeeded."""

    source: str
    run: str  # the last run
    at: AwareDatetime  # when it ended, UTC
    outcome: Literal["ok", "warning", "failed"]  # ``warning``: the backup counts, but something is wrong
    detail: str = ""  # what was wrong; empty for nothing
    seconds: float = 0  # how long it took
    last_success: AwareDatetime | None = None  # when a backup with enough verified copies was last made; None for never


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRecord:
    """The last time that a drill or a rehearsal was to prove a source, and the last time it did."""

    proof: str
    source: str  # what it proves
    backup: str  # the backup that was restored
    at: AwareDatetime  # when, UTC
    outcome: ProofOutcome  # the verdict; ``error``: it could not tell
    detail: str = ""  # what was missing; empty for nothing
    rto_seconds: float | None = None  # how long the restore took until everything was back; None where it never was
    rpo_seconds: float | None = None  # how old the backup was when the proof began; None where unknown
    last_proven: AwareDatetime | None = None  # when it was last green; None for never


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything that is known of one location.

    Attributes:
        entries: By `BackupEntry.key`.
        runs: By source.
        proofs: By name of the proof.
        notes: What was odd when it was put together: backups that vanished, records that cannot be read. Not stored.
        leftovers: Bytes that no record names, of a run that broke off or of one at work. Not stored.
    """

    policy: str  # whose backups these are
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
    audit_head: str = ""  # hash of the audit trail's last line there; empty before the first
    updated: AwareDatetime | None = None  # when it was last written, UTC; None before
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
