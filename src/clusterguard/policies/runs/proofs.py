"""Proofs: rehearsals and drills that restore what a policy backed up, run when the last proof is too old."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drills
from clusterguard.drills.requirements import skip_reason
from clusterguard.errors import ClusterGuardError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.policies.copies.catalog import ProofOutcome, ProofRecord
from clusterguard.policies.copies.stored import PolicyBackups, opened_copy
from clusterguard.rehearsal.rehearsal import Rehearsal
from clusterguard.rehearsal.report import Level
from clusterguard.rehearsal.velero import VeleroRehearsal
from clusterguard.toolchain import from_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterguard.drills import DrillResult
    from clusterguard.drills.stored import StoredSnapshot
    from clusterguard.policies.copies.catalog import BackupEntry
    from clusterguard.policies.policy import Proof, RehearsalOptions
    from clusterguard.policies.runs.session import Session, Task
    from clusterguard.rehearsal.report import RehearsalFinding
    from clusterguard.stores.base import ObjectStore

__all__ = ["due_proofs", "prove"]

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def due_proofs(session: Session) -> tuple[Proof, ...]:
    """Return the proofs that are too old by what any location knows, or that failed the last time."""
    due = []
    for proof in session.policy.proofs:
        known = [each for catalog in session.catalogs.values() if (each := catalog.proofs.get(proof.name)) is not None]
        last = max(known, key=lambda each: each.at, default=None)
        proven = _NEVER if last is None else last.last_proven or _NEVER
        # A proof from the future was made by a wrong clock, and is none.
        if last is None or last.outcome != "proven" or not proven <= session.now() < proven + proof.every:
            due.append(proof)
    return tuple(due)


def prove(session: Session, *, all_of_them: bool = False) -> None:
    """Do the proofs that are due, one after the other, and take down what they showed."""
    for proof in session.policy.proofs if all_of_them else due_proofs(session):
        with session.step("prove", source=proof.source) as task:
            record = _prove(proof, session, task)
            for location in session.locations:
                catalog = session.catalogs[location.name]
                before = catalog.proofs.get(proof.name)
                proven = record.last_proven or (before.last_proven if before else None)
                session.update(location, proofs={**catalog.proofs, proof.name: replace(record, last_proven=proven)})


def _prove(proof: Proof, session: Session, task: Task) -> ProofRecord:
    if proof.rehearse is not None:
        record, told, hint = _rehearse(proof, proof.rehearse, session)
    else:
        asked = _Remembering(PolicyBackups(environ=session.environ, policy=session.policy), proof.source)
        record, told, hint = _drill(proof, session, asked)
    task.detail = f"{proof.name}: {record.outcome}{told}"
    if record.rto_seconds is not None:
        task.detail += f", everything back in {record.rto_seconds:.1f} s"
    if record.outcome != "proven":
        # What could not be tried says nothing about the backup: only what was tried, and failed, is a no.
        no = record.outcome == "not proven"
        task.outcome, task.code = ("failed", "not-proven") if no else ("warning", "proof-undecided")
        task.detail += f": {record.detail}"
        task.hint = hint
    return record


def _record(
    proof: Proof,
    session: Session,
    backups: Sequence[str],
    *,
    outcome: ProofOutcome,
    detail: str,
    rto_seconds: float | None = None,
    rpo_seconds: float | None = None,
) -> ProofRecord:
    now = session.now()
    return ProofRecord(
        proof=proof.name,
        source=proof.source,
        backup=", ".join(backups),
        at=now,
        outcome=outcome,
        detail=detail,
        rto_seconds=rto_seconds,
        rpo_seconds=rpo_seconds,
        last_proven=now if outcome == "proven" else None,
    )


# ---- by a rehearsal ------------------------------------------------------------------------------------------


def _rehearse(proof: Proof, options: RehearsalOptions, session: Session) -> tuple[ProofRecord, str, str]:
    """Rehearse the newest backup; return the record, what to tell beside its outcome, and what to do."""
    began = session.now()
    age: float | None = None
    names: list[str] = []
    try:
        entry, store = opened_copy(session.policy, proof.source, environ=session.environ)
        age = (began - entry.created).total_seconds()
        names.append(entry.name)
        report = _rehearsal(entry, store, options, session).run()
    except ClusterGuardError as error:
        record = _record(proof, session, names, outcome="error", detail=error.message, rpo_seconds=age)
        return record, "", error.hint or "clusterguard rehearse tells more"
    wrong = [each for each in report.findings if each.level is Level.ERROR]
    record = _record(
        proof,
        session,
        names,
        outcome="proven" if report.ok else "not proven",
        detail="; ".join(map(_in_words, wrong)) or ("" if report.ok else "it holds no object to compare"),
        rto_seconds=round(report.recovery_seconds, 3) if report.ok else None,
        rpo_seconds=age,
    )
    told = f", {sum(kind.equal for kind in report.kinds):,} objects came back equal"
    warnings = [each.code for each in report.findings if each.level is Level.WARNING]
    told += f", with warnings: {', '.join(warnings)}" if warnings else ""
    return record, told, wrong[0].hint if wrong else "is it a backup of the cluster you mean?"


def _rehearsal(
    entry: BackupEntry, store: ObjectStore, options: RehearsalOptions, session: Session
) -> Rehearsal | VeleroRehearsal:
    toolchain = from_environment(session.environ, progress=session.progress)
    if entry.kind == "velero":
        return VeleroRehearsal(
            location=store,
            backup=entry.name,
            kubernetes_version=options.kubernetes_version,
            toolchain=toolchain,
            progress=session.progress,
            now=session.now,
        )
    config = Path(options.encryption_config) if options.encryption_config else None
    return Rehearsal(
        location=(store, EtcdSnapshotter(store=store).find(entry.name).key),
        encryption_config=config,
        prefix=options.prefix,
        kubernetes_version=options.kubernetes_version,
        toolchain=toolchain,
        scratch=session.scratch,
        progress=session.progress,
        now=session.now,
    )


def _in_words(finding: RehearsalFinding) -> str:
    example = f", such as {finding.examples[0]}" if finding.examples else ""
    return f"{finding.message}{example} ({finding.code})"


# ---- by a drill ----------------------------------------------------------------------------------------------


def _drill(proof: Proof, session: Session, find: _Remembering) -> tuple[ProofRecord, str, str]:
    settings = DrillSettings(stored=find, scratch=session.scratch)
    path = Path(proof.drill)
    drills = load_drills(path, environ=session.environ, root=path.parent)
    results, not_run = [], []
    for drill in drills:
        if reason := skip_reason(drill, default_cluster=settings.cluster):
            not_run.append(f"{drill.id} was not run: {reason}")
        else:
            results.append(DrillRunner(settings=settings).run(drill))
    known = {entry.name for catalog in session.catalogs.values() for entry in catalog.of_source(proof.source)}
    # What a drill takes of Velero it takes from Velero's own bucket, where the policy's backup has the same name.
    taken = [*find.names, *(name for result in results for name in result.stored if name in known)]
    hint = next((result.hint for result in results if result.hint), "") or f"clusterguard drill run {path}"
    return _judged(proof, results, not_run, taken, session), "", hint


def _judged(
    proof: Proof, results: Sequence[DrillResult], not_run: Sequence[str], backups: Sequence[str], session: Session
) -> ProofRecord:
    wrong = [f"{each.drill}: {each.reason}" for each in results if each.verdict is not Verdict.PASS]
    if results and not not_run and not wrong and not backups:
        # It may be a good drill; but of the policy's backups it has shown nothing.
        wrong.append(f"the drill restored no backup of source {proof.source}: no `storedBackup` step names it")
    outcome = _outcome({each.verdict for each in results}, wrong=wrong, not_run=not_run)
    times = [each.rto.total for each in results if each.rto is not None]
    ages = [each.rpo for each in results if each.rpo is not None]
    return _record(
        proof,
        session,
        backups,
        outcome=outcome,
        detail="; ".join([*not_run, *wrong]),
        rto_seconds=max(times) if len(times) == len(results) and times else None,
        rpo_seconds=max(ages, default=None),
    )


def _outcome(verdicts: set[Verdict], *, wrong: Sequence[str], not_run: Sequence[str]) -> ProofOutcome:
    """Judge all drills of a proof together: one that failed counts, whatever the others could not tell."""
    if Verdict.FAIL in verdicts:
        return "not proven"
    if not_run or Verdict.ERROR in verdicts:
        return "error"
    return "not proven" if wrong or not verdicts else "proven"


class _Remembering:
    """Finds stored backups and remembers which of one source they were."""

    def __init__(self, find: Callable[..., StoredSnapshot], source: str) -> None:
        self._find = find
        self._source = source
        self.names: list[str] = []

    def __call__(self, policy: Path, source: str, *, backup: str = "", location: str = "") -> StoredSnapshot:
        found = self._find(policy, source, backup=backup, location=location)
        if source == self._source:
            self.names.append(found.record.name)
        return found
