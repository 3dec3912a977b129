"""``restored``: compare everything in scope with the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from clusterguard.drills.steps.base import Action, Look, StepContext
from clusterguard.drills.steps.fields import Count, CountOrReport, FieldPath
from clusterguard.drills.values import Comparison
from clusterguard.drills.verdict import CheckResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.schema import DrillSpec, Step
    from clusterguard.model.report import ValidationReport


class Restored(Action):
    """Compare everything in scope, field by field, with the baseline taken when the backup phase began."""

    phases = ("verify",)

    missing: Count = Comparison("==", 0)
    """How many objects may be missing."""
    changed: Count = Comparison("==", 0)
    """How many objects may differ."""
    extra: CountOrReport = "report"
    """How many objects may be there that were not; `report` shows them without judging."""
    ignore: tuple[FieldPath, ...] = ()
    """Fields that may differ, beside the volatile ones that are known anyway."""
    identity: Literal["name", "uid"] = "name"
    """`uid`: an object recreated under its old name counts as changed. Left out: `uid` after an etcd restore."""

    def plan(self) -> str:
        extra = "shown only" if isinstance(self.extra, str) else self.extra.in_words()
        allowed = f"missing {self.missing.in_words()}, changed {self.changed.in_words()}, extra {extra}"
        identity = "; the same UIDs" if self.identity == "uid" else ""
        ignored = f"; not compared: {', '.join(self.ignore)}" if self.ignore else ""
        return f"compare everything in scope with the baseline, field by field: {allowed}{identity}{ignored}"

    def problems(self, spec: DrillSpec, step: Step) -> Iterator[tuple[DataPath, str]]:
        if spec.proves_stored:
            yield (), "a `storedBackup` has no baseline to compare with: use assert, ready, http or exec"

    def check(self, here: StepContext, look: Look) -> CheckResult:
        from clusterguard.validate.rules import ETCD_RESTORE, SAME_CLUSTER, VELERO_RESTORE
        from clusterguard.validate.validator import RestoreValidator, Tolerance

        profile = (
            ETCD_RESTORE
            if here.run.restores("etcd")
            else VELERO_RESTORE
            if here.run.restores("velero")
            else SAME_CLUSTER
        )
        limits = {"missing": self.missing, "changed": self.changed, "extra": self.extra}
        report = RestoreValidator(api=here.api).validate(
            here.run.baseline_for(here.step),
            profile=profile,
            identity=self.identity if "identity" in self.model_fields_set else None,
            ignore=self.ignore,
            tolerate=Tolerance(**{kind: _limit(asked) for kind, asked in limits.items()}),
        )
        off = list(self._off(report))
        ok = report.ok and not off
        return CheckResult(
            ok=ok,
            summary="; ".join([report.summary(), *off]),
            detail="" if ok else report.to_text(),
            suppressed=report.suppressed_by_rule,
        )

    def _off(self, report: ValidationReport) -> Iterator[str]:
        """Yield the counts that no upper limit can judge, such as ``>=3``, and that are not as asked."""
        counted = [*report.findings, *report.tolerated]
        for kind in ("missing", "changed", "extra"):
            asked = getattr(self, kind)
            number = sum(finding.kind == kind for finding in counted)
            if isinstance(asked, Comparison) and _limit(asked) is None and not asked.holds(number):
                yield f"{number} {kind}, {asked.in_words()} asked for"


def _limit(asked: object) -> int | None:
    """Return how many findings are tolerated, or None where that is not an upper limit."""
    if isinstance(asked, Comparison):
        if asked.operator == "<=" or (asked.operator == "==" and asked.value == 0):
            return asked.value
        if asked.operator == "<" and asked.value > 0:
            return asked.value - 1
    return None
