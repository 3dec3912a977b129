"""What a run of a drill does not prove: said with every report, so that nobody reads more into it than there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.evidence.report import DrillReport

__all__ = ["Limit", "limits_of"]


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that a run does not prove: a stable name, and a sentence."""

    code: str
    text: str


def limits_of(report: DrillReport) -> Iterator[Limit]:
    """Yield the limits of a run, the weightiest first."""
    run = report.run
    if report.outcome != "PROVEN":
        yield Limit("not-proven", "That recovery works: the run did not come to that.")
    yield from _of_clusters(report)
    if run.red is not None and not run.red.red:
        yield Limit("never-red", "That the checks see a loss: none of them was red after the fault.")
    yield from _of_comparison(report)
    if report.last.lost is None:
        yield Limit("loss-not-measured", "How much data a restore loses: no marker measured it.")
    if run.mutation is None:
        text = "That the checks see subtle defects: none was put into the restored cluster to try them."
        yield Limit("defects-not-tried", text)
    elif run.mutation.found < run.mutation.counted:
        missed = f"{run.mutation.counted - run.mutation.found} of {run.mutation.counted}"
        yield Limit("defects-missed", f"That the checks see every defect: they did not see {missed} that were tried.")
    for lacking in report.materials.lacking:
        what = f"{lacking.what[:1].upper()}{lacking.what[1:]}"
        yield Limit("not-collected", f"{what}: not in the evidence: {lacking.reason}.")
    if report.signature is None:
        text = "That nobody changed the evidence since: its signature was not checked for this page."
        yield Limit("signature-not-checked", text)


def _of_clusters(report: DrillReport) -> Iterator[Limit]:
    for name, description in report.run.clusters.items():
        if "simulated" in description:
            text = (
                f"That applications start: pods were simulated in cluster {name}, so no container ran, no volume was "
            )
            yield Limit("pods-simulated", f"{text}mounted and no traffic flowed.")


def _of_comparison(report: DrillReport) -> Iterator[Limit]:
    if report.comparisons is None:
        text = "That everything in scope is as it was: no check compared all of it field by field."
        yield Limit("not-compared", text)
        return
    if forgiven := sum(number for _, number, _ in report.rules):
        text = f"That nothing differs at all: {forgiven} differences are explained by the rules that are listed."
        yield Limit("differences-suppressed", text)
    if report.run.tolerated:
        names = ", ".join(f"{name} ({number})" for name, number in report.run.tolerated.items())
        yield Limit("findings-tolerated", f"That Velero did everything: findings that the drill tolerates: {names}.")
