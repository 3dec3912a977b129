"""``restored``: compare everything in scope with the baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from clusterguard.documents.values import did_you_mean
from clusterguard.drills.steps.base import Action, Look, StepContext
from clusterguard.drills.steps.fields import Count, CountOrReport, FieldPath, RuleName
from clusterguard.drills.values import Comparison
from clusterguard.drills.verdict import CheckResult
from clusterguard.validate.rules import ETCD_RESTORE, OWNERS_LOST, SAME_CLUSTER, VELERO_RESTORE, adjusted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.schema import DrillSpec, Step
    from clusterguard.model.report import ValidationReport
    from clusterguard.validate.rules import Identity, Profile


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
    without_rules: tuple[RuleName, ...] = ()
    """Rules for volatile fields that are switched off: what they explain counts as changed. By the names that
    reports give them, such as `service addresses`."""
    identity: Literal["name", "uid"] = "name"
    """`uid`: an object recreated under its old name counts as changed. Left out: `uid` after an etcd restore."""

    def plan(self) -> str:
        extra = "shown only" if isinstance(self.extra, str) else self.extra.in_words()
        allowed = f"missing {self.missing.in_words()}, changed {self.changed.in_words()}, extra {extra}"
        identity = "; the same UIDs" if self.identity == "uid" else ""
        ignored = f"; not compared: {', '.join(self.ignore)}" if self.ignore else ""
        strict = f"; without rules: {', '.join(self.without_rules)}" if self.without_rules else ""
        return f"compare everything in scope with the baseline, field by field: {allowed}{identity}{ignored}{strict}"

    def problems(self, spec: DrillSpec, step: Step) -> Iterator[tuple[DataPath, str]]:
        profile = adjusted(_profile(spec), identity=self._identity)
        for index, name in enumerate(self.without_rules):
            if name not in profile.rule_names:
                near = did_you_mean(name, profile.rule_names)
                message = f"{profile.name}, which this drill compares by, has no rule `{name}`{near}"
                yield ("withoutRules", index), message

    @property
    def _identity(self) -> Identity | None:
        return self.identity if "identity" in self.model_fields_set else None

    def check(self, here: StepContext, look: Look) -> CheckResult:
        from clusterguard.validate.validator import RestoreValidator, Tolerance

        limits = {"missing": self.missing, "changed": self.changed, "extra": self.extra}
        profile = _profile(here.run.drill.spec)
        report = RestoreValidator(api=here.api).validate(
            here.run.baseline_for(here.step),
            profile=profile,
            identity=self._identity,
            ignore=self.ignore,
            without=self.without_rules,
            tolerate=Tolerance(**{kind: _limit(asked) for kind, asked in limits.items()}),
        )
        here.run.comparisons[here.step.location] = (profile.name, report)
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


def _profile(spec: DrillSpec) -> Profile:
    """Return the rules for what may differ, by what restores; what a restore may do to owners is explained, too."""
    engines = {step.action.engine for step in spec.restore}
    if "etcd" in engines:
        return ETCD_RESTORE
    if "velero" not in engines:
        return SAME_CLUSTER
    tolerated = {each for step in spec.restore for each in getattr(step.action, "tolerate", ())}
    lost = tuple(rule for finding, rule in OWNERS_LOST.items() if finding in tolerated)
    return replace(VELERO_RESTORE, rules=(*VELERO_RESTORE.rules, *lost))


def _limit(asked: object) -> int | None:
    """Return how many findings are tolerated, or None where that is not an upper limit."""
    if isinstance(asked, Comparison):
        if asked.operator == "<=" or (asked.operator == "==" and asked.value == 0):
            return asked.value
        if asked.operator == "<" and asked.value > 0:
            return asked.value - 1
    return None
