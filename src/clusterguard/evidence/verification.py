"""Whether a bundle is what was signed: no file changed, cut, added, left out, or taken from another run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from clusterguard.documents.json_output import json_data
from clusterguard.errors import ObjectCorruptError
from clusterguard.evidence.bundle import ENVELOPE, RESULT, bundles_in, evidence_store, is_remote
from clusterguard.evidence.envelope import open_envelope, signers
from clusterguard.stores.transfer import digest_object, read_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.evidence.envelope import Statement
    from clusterguard.evidence.keys import VerifyingKey
    from clusterguard.stores.base import ObjectStore

__all__ = ["BundleReport", "EvidenceCode", "EvidenceFinding", "signed_statement", "verify_evidence"]

EvidenceCode: TypeAlias = Literal[
    "evidence-not-signed",  # there is no envelope
    "evidence-damaged",  # the envelope is cut, or not one
    "evidence-key-mismatch",  # signed, by another key
    "evidence-signature-wrong",  # it names this key, and the signature is not this key's
    "evidence-file-changed",
    "evidence-file-missing",
    "evidence-file-added",
    "evidence-of-another-run",  # its result is not that of the run that was signed
    "evidence-twice",  # the run is there already, in another folder
]
"""What is wrong with a bundle; docs/reference/errors.md has them."""

_LARGEST_DOCUMENT: Final = 64 << 20
_SAME: Final = ("drill", "runId", "started")
"""What tells a run from another one, in the statement and in the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFinding:
    """One thing that is wrong with a bundle."""

    code: EvidenceCode
    detail: str
    file: str = ""  # of the bundle; empty where it is about the whole of it

    def __str__(self) -> str:
        return f"{self.code}: {f'{self.file}: ' if self.file else ''}{self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """What a look at one bundle found.

    Attributes:
        folder: Its name; ``""`` where the location itself is the bundle.
        files: How many files are signed.
        predicate: What was signed of the run; empty where no signature holds.
        findings: What is wrong, the envelope's faults first.
    """

    folder: str
    files: int
    predicate: Mapping[str, Any]
    findings: tuple[EvidenceFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether it is, to the byte, what was signed."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {"ok": self.ok, **json_data(self)}


def verify_evidence(location: Path | str, key: VerifyingKey) -> tuple[BundleReport, ...]:
    """Check a bundle, or each one that lies in a folder or bucket.

    That a whole bundle was taken away does not show here: nothing that is left names it.

    Raises:
        ObjectNotFoundError: There is no bundle.
        StoreError: Something cannot be read, so that nobody can tell.
    """
    store = evidence_store(location)
    irregular = {} if is_remote(location) else _irregular(store)
    reports: list[BundleReport] = []
    seen: dict[str, str] = {}
    for prefix, names in bundles_in(store):
        odd = [name.removeprefix(prefix) for name in irregular if name.startswith(prefix)]
        report = _verified(store, prefix, names, odd, key)
        run = str(report.predicate.get("runId", ""))
        if run and run in seen:
            twice = EvidenceFinding(code="evidence-twice", detail=f"run {run} is in {seen[run]}, too")
            report = _with(report, twice)
        seen.setdefault(run, report.folder)
        reports.append(report)
    return tuple(reports)


def signed_statement(store: ObjectStore, prefix: str, key: VerifyingKey) -> Statement | None:
    """Return what a key has signed of a bundle; None where that is nothing, or nothing that can be read.

    Raises:
        StoreError: The store cannot be read.
    """
    try:
        return open_envelope(read_object(store, prefix + ENVELOPE, most_bytes=_LARGEST_DOCUMENT), key)
    except ValueError:
        return None


def _verified(
    store: ObjectStore, prefix: str, names: frozenset[str], irregular: list[str], key: VerifyingKey
) -> BundleReport:
    statement, findings = _statement(store, prefix, names, key)
    if statement is not None:
        findings += _compare_files(store, prefix, names, statement)
        findings += [
            EvidenceFinding(code="evidence-file-added", file=name, detail="it is no plain file") for name in irregular
        ]
        if RESULT in names:
            findings += _compare_result(store, prefix, statement)
    return BundleReport(
        folder=prefix.rstrip("/"),
        files=len(statement.files) if statement else 0,
        predicate=statement.predicate if statement else {},
        findings=tuple(findings),
    )


def _statement(
    store: ObjectStore, prefix: str, names: frozenset[str], key: VerifyingKey
) -> tuple[Statement | None, list[EvidenceFinding]]:
    if ENVELOPE not in names:
        return None, [EvidenceFinding(code="evidence-not-signed", detail=f"there is no {ENVELOPE}")]
    try:
        data = read_object(store, prefix + ENVELOPE, most_bytes=_LARGEST_DOCUMENT)
        statement = open_envelope(data, key)
        if statement is not None:
            return statement, []
        named = signers(data)
    except (ValueError, ObjectCorruptError) as error:
        return None, [EvidenceFinding(code="evidence-damaged", file=ENVELOPE, detail=str(error))]
    if key.id in named:
        detail = "it names this key, which did not sign what is there"
        return None, [EvidenceFinding(code="evidence-signature-wrong", file=ENVELOPE, detail=detail)]
    who = ", ".join(filter(None, named)) or "a key that it does not name"
    detail = f"signed by {who}, not by {key.id}"
    return None, [EvidenceFinding(code="evidence-key-mismatch", file=ENVELOPE, detail=detail)]


def _compare_files(
    store: ObjectStore, prefix: str, names: frozenset[str], statement: Statement
) -> list[EvidenceFinding]:
    findings = []
    for name, signed in sorted(statement.files.items()):
        if name not in names:
            findings.append(EvidenceFinding(code="evidence-file-missing", file=name, detail="it was signed"))
            continue
        found, size = digest_object(store, prefix + name)
        if found != signed:
            detail = f"its {size:,} bytes have the sha256 {found[:16]}…, signed was {signed[:16]}…"
            findings.append(EvidenceFinding(code="evidence-file-changed", file=name, detail=detail))
    findings += [
        EvidenceFinding(code="evidence-file-added", file=name, detail="nobody signed it")
        for name in sorted(names - statement.files.keys() - {ENVELOPE})
    ]
    return findings


def _compare_result(store: ObjectStore, prefix: str, statement: Statement) -> Iterator[EvidenceFinding]:
    """Tell whose the files are, beside that they are not those that were signed."""
    try:
        result = json.loads(read_object(store, prefix + RESULT, most_bytes=_LARGEST_DOCUMENT))
        told = {name: result.get(name) for name in _SAME}
    except (ValueError, AttributeError, ObjectCorruptError):
        return  # it is told as changed
    other = [
        f"{name} {told[name]}, signed {statement.predicate.get(name)}"
        for name in _SAME
        if told[name] != statement.predicate.get(name)
    ]
    if other:
        yield EvidenceFinding(code="evidence-of-another-run", file=RESULT, detail="; ".join(other))


def _irregular(store: ObjectStore) -> list[str]:
    """Return what a store that is a folder does not list: links, and whatever else is no plain file."""
    root = Path(unquote(urlsplit(store.url).path))
    listed = {info.key for info in store.list()}
    found = (path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for path in found if (name := path.relative_to(root).as_posix()) not in listed)


def _with(report: BundleReport, finding: EvidenceFinding) -> BundleReport:
    return BundleReport(
        folder=report.folder, files=report.files, predicate=report.predicate, findings=(*report.findings, finding)
    )
