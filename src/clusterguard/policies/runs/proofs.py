"""Proofs: drills that restore what a policy backed up, run when the last proof is too old."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drills
from clusterguard.drills.requirements import skip_reason
from clusterguard.policies.copies.catalog import ProofOutcome, ProofRecord
from clusterguard.policies.copies.stored import PolicyBackups

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterguard.drills import DrillResult
    from clusterguard.drills.stored import StoredSnapshot
    from clusterguard.policies.policy import Proof
    from clusterguard.policies.runs.session import Session, Task

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
    """Run the drills of the proofs that are due, one after the other, and take down what they showed."""
    for proof in session.policy.proofs if all_of_them else due_proofs(session):
        with session.step("prove", source=proof.source) as task:
            record = _prove(proof, session, task)
            for location in session.locations:
                catalog = session.catalogs[location.name]
                before = catalog.proofs.get(proof.name)
                proven = record.last_proven or (before.last_proven if before else None)
                session.update(location, proofs={**catalog.proofs, proof.name: replace(record, last_proven=proven)})


def _prove(proof: Proof, session: Session, task: Task) -> ProofRecord:
    asked = _Remembering(PolicyBackups(environ=session.environ, policy=session.policy), proof.source)
    settings = DrillSettings(stored=asked, scratch=session.scratch)
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
    taken = [*asked.names, *(name for result in results for name in result.stored if name in known)]
    record = _record(proof, results, not_run, taken, session)
    task.detail = f"{proof.name}: {record.outcome}"
    if record.rto_seconds is not None:
        task.detail += f", everything back in {record.rto_seconds:.1f} s"
    if record.outcome != "proven":
        # What could not be tried says nothing about the backup: only a drill that failed is a no.
        no = record.outcome == "not proven"
        task.outcome, task.code = ("failed", "not-proven") if no else ("warning", "proof-undecided")
        task.detail += f": {record.detail}"
        task.hint = next((result.hint for result in results if result.hint), "") or f"clusterguard drill run {path}"
    return record


def _record(
    proof: Proof, results: Sequence[DrillResult], not_run: Sequence[str], backups: Sequence[str], session: Session
) -> ProofRecord:
    wrong = [f"{each.drill}: {each.reason}" for each in results if each.verdict is not Verdict.PASS]
    if results and not not_run and not wrong and not backups:
        # It may be a good drill; but of the policy's backups it has shown nothing.
        wrong.append(f"the drill restored no backup of source {proof.source}: no `storedBackup` step names it")
    outcome = _outcome({each.verdict for each in results}, wrong=wrong, not_run=not_run)
    times = [each.rto.total for each in results if each.rto is not None]
    ages = [each.rpo for each in results if each.rpo is not None]
    now = session.now()
    return ProofRecord(
        proof=proof.name,
        source=proof.source,
        backup=", ".join(backups),
        at=now,
        outcome=outcome,
        detail="; ".join([*not_run, *wrong]),
        rto_seconds=max(times) if len(times) == len(results) and times else None,
        rpo_seconds=max(ages, default=None),
        last_proven=now if outcome == "proven" else None,
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
