"""What drills have shown of this cluster, and when. Pure.

A drill proves what is in its scope when its last run passed, the file is still what ran, a check compares all of the
scope (`restored`), and what it restored was of this cluster: a backup that the cluster's own Velero, or a policy of it,
has made, or the cluster itself. A drill that builds a stand-in elsewhere shows that the procedure works, and nothing of
this cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clusterguard.coverage.sources import NotCounted
from clusterguard.documents.values import selects
from clusterguard.model.inventory import ObjectRef, Scope
from clusterguard.validate.capture import belongs_to

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from clusterguard.coverage.found import Kind, Thing
    from clusterguard.policies.policy import Policy
    from clusterguard.policies.watching.verdict import PolicyStatus

__all__ = ["DrillFacts", "DrillRun", "Proof", "proofs_of", "rehearsals_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillFacts:
    """What a drill file says.

    Attributes:
        sha256: Of the file as it is now.
        compares: Whether a check compares everything in scope with the baseline.
        of: Whose state it restores: this cluster's own, that of a Velero backup from before, that of a snapshot of a
            policy of this cluster, or that of a stand-in.
        sources: Those of a policy's sources that it restores.
    """

    id: str
    sha256: str
    scope: Scope
    compares: bool
    sources: frozenset[str] = frozenset()
    of: Literal["cluster", "velero", "policy", "stand-in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRun:
    """The last run of a drill.

    Attributes:
        sha256: Of the drill file that ran; empty where the evidence does not say.
        stored: Velero backups from before the run that it took.
    """

    started: datetime
    verdict: str
    sha256: str = ""
    stored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A drill whose last run proves that what is in its scope restores.

    Attributes:
        of: The sources whose backups it proves; empty where it broke the cluster itself, and made its own.
    """

    drill: str
    at: datetime
    scope: Scope
    of: frozenset[str] = frozenset()

    def covers(self, kind: Kind, thing: Thing) -> bool:
        """Return whether an object is in its scope."""
        ref = ObjectRef(kind.name.partition(".")[0], thing.namespace, thing.name, kind.group)
        return belongs_to(ref, self.scope) and selects(self.scope.selector, thing.labels)


def proofs_of(
    drills: Sequence[DrillFacts], runs: Mapping[str, DrillRun], *, backups: Mapping[str, str], now: datetime
) -> tuple[list[Proof], list[NotCounted]]:
    """Return what is proven, and which drills prove nothing of this cluster.

    Args:
        drills: The drill files.
        runs: The last run of each, by its id.
        backups: The Velero backups that the cluster knows, each with the source that made it.
        now: The time.
    """
    proofs: list[Proof] = []
    refused: list[NotCounted] = []
    for drill in drills:
        run = runs.get(drill.id)
        problem = next(_problems(drill, run, backups, now), None)
        if problem or run is None:
            refused.append(NotCounted(f"drill {drill.id}", *(problem or ("never-run", ""))))
        else:
            of = {"velero": {backups[each] for each in run.stored if each in backups}, "policy": drill.sources}
            proofs.append(Proof(drill=drill.id, at=run.started, scope=drill.scope, of=frozenset(of.get(drill.of, ()))))
    return proofs, refused


def rehearsals_of(
    looks: Sequence[tuple[Policy, PolicyStatus]], *, now: datetime
) -> tuple[list[Proof], list[NotCounted]]:
    """Return what the rehearsals of policies prove: a rehearsal compares every object in the backup.

    Args:
        looks: Policies, with the sources of this cluster alone, and what is known of them.
        now: The time.
    """
    proofs: list[Proof] = []
    refused: list[NotCounted] = []
    for policy, status in looks:
        named = {each.name for each in policy.sources}
        seen = {each.name: each for each in status.proofs}
        for proof in policy.proofs:
            if proof.rehearse is None or proof.source not in named:
                continue  # a drill is judged as one
            name, last = f"policy {policy.name}/{proof.name}", seen.get(proof.name)
            if last is None or last.last_proven is None:
                refused.append(NotCounted(name, "never-run", "it was never green"))
            elif last.last_outcome != "proven" or last.overdue or last.last_proven > now:
                detail = f"the last one, {last.last_at:%Y-%m-%d %H:%M} UTC, is {last.last_outcome}"
                refused.append(NotCounted(name, "not-proven", detail + (", and overdue" if last.overdue else "")))
            else:
                of = frozenset({f"policy {policy.name}/{proof.source}"})
                proofs.append(Proof(drill=name, at=last.last_proven, scope=Scope(), of=of))
    return proofs, refused


def _problems(
    drill: DrillFacts, run: DrillRun | None, backups: Collection[str], now: datetime
) -> Iterator[tuple[str, str]]:
    if run is None:
        yield "never-run", "there is no evidence that it has ever run"
        return
    when = f"its last run, {run.started:%Y-%m-%d %H:%M} UTC,"
    if run.verdict != "PASS":
        yield "not-proven", f"{when} was {run.verdict}"
    if run.started > now:
        yield "in-the-future", f"{when} has not come yet: a clock is wrong"
    if not run.sha256 or run.sha256 != drill.sha256:
        yield "drill-changed", f"{when} was of another version of the file"
    if not drill.compares:
        yield "compares-nothing", f"{when} passed, but no check `restored` compares what is in its scope"
    if drill.of == "stand-in":
        yield "stand-in", f"{when} passed on a stand-in, which shows nothing of this cluster's own backups"
    if drill.of == "velero" and not set(run.stored) & set(backups):
        taken = ", ".join(run.stored) or "none that is named"
        yield "other-backup", f"{when} restored a backup that this cluster does not know: {taken}"
