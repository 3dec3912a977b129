"""``ready``: wait until objects are ready, by a status that is newer than the restore."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from clusterguard.documents.model import Duration, Omitted, Selector
from clusterguard.documents.values import duration_text
from clusterguard.drills.steps.base import Look, StepContext
from clusterguard.drills.steps.fields import Count
from clusterguard.drills.steps.selection import ObjectsOfOneKind
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.schema import DrillSpec, Step


class Ready(ObjectsOfOneKind):
    """Hold once all selected objects are ready, with a status that is newer than the restore."""

    phases = ("setup", "verify")

    selector: Selector | Omitted = None
    """Objects by their labels."""
    count: Count | Omitted = None
    """How many there must be; at least one when left out."""
    stable_for: Duration | Omitted = None
    """How long it must hold without a break; not counted as recovery time."""

    def plan(self) -> str:
        count = f"; {self.count.in_words()} of them" if self.count else ""
        stable = f"; for {duration_text(self.stable_for)} without a break" if self.stable_for else ""
        return f"wait until every {self.selected()} is ready{count}{stable}"

    def problems(self, spec: DrillSpec, step: Step) -> Iterator[tuple[DataPath, str]]:
        if self.stable_for and step.timeout and self.stable_for >= step.timeout:
            yield ("stableFor",), "must be shorter than the step's timeout"

    def perform(self, here: StepContext) -> str:
        from clusterguard.drills.checks import watch_all

        (result,) = watch_all(here.run, [here.step])
        if not result.ok:
            raise WaitTimeoutError(here.step.title, seconds=here.seconds, last_seen=result.summary)
        return result.summary

    def check(self, here: StepContext, look: Look) -> CheckResult:
        from clusterguard.validate.readiness import Selection, wait_ready

        selection = Selection(
            kind=self.kind,
            namespace=self.namespace or "",
            selector=self.selector or "",
            names=(self.name,) if self.name else (),
        )
        try:
            evidence = wait_ready(
                here.api,
                selection,
                timeout_seconds=look.seconds,
                count=self.count,
                stable_seconds=self.stable_for.total_seconds() if self.stable_for and look.watching else 0.0,
                fresh_since=look.fresh_since,
                clock=look.clock,
            )
        except WaitTimeoutError as error:
            return CheckResult(ok=False, summary=f"{selection}: {error.last_seen}")
        freshness = f", {evidence.freshness}" if evidence.freshness else ""
        since = time.monotonic() - evidence.stable_seconds
        return CheckResult(ok=True, summary=f"{len(evidence.objects)} ready{freshness}", since=since)
