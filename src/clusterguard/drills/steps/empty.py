"""``empty``: hold while nothing of a scope is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.drills.steps.base import Action, Look, StepContext
from clusterguard.drills.steps.scope import ScopeSpec
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import ResourceNotFoundError
from clusterguard.validate.system import BEING_DELETED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.model.inventory import Inventory, Scope

_MOST_NAMED = 3


class Empty(ScopeSpec, Action):
    """Hold while nothing of a scope is there: of spec.scope when all keys are left out."""

    phases = ("verify",)

    def plan(self) -> str:
        return f"find nothing of {self.words() if self.model_fields_set else 'the scope'}"

    def check(self, here: StepContext, look: Look) -> CheckResult:
        from clusterguard.validate.capture import capture

        scope = self.scope() if self.model_fields_set else here.run.scope
        unknown = list(_unknown(here.api, scope))
        found = capture(here.api, scope, absent_kinds_ok=True)
        there = list(_there(found))
        named = [f"the cluster has no kind {kind}" for kind in unknown]
        return CheckResult(ok=not there, summary="; ".join([*there, *named]) or "nothing is there")


def _unknown(api: KubeClient, scope: Scope) -> Iterator[str]:
    """Yield the custom kinds that the cluster does not know, so that none of them is there.

    Raises:
        ResourceNotFoundError: It does not know a kind that is written without a group: a slip, not an absence.
    """
    for kind in scope.kinds:
        try:
            api.resource(kind)
        except ResourceNotFoundError:
            if "." not in kind:
                raise
            yield kind


def _there(found: Inventory) -> Iterator[str]:
    if refs := sorted(found.objects):
        more = f" and {len(refs) - _MOST_NAMED} more" if len(refs) > _MOST_NAMED else ""
        yield f"{len(refs)} object(s) there: {', '.join(map(str, refs[:_MOST_NAMED]))}{more}"
    if number := found.left_out.get(BEING_DELETED):
        yield f"{number} object(s) still there, being deleted"
    for what, reason in {**found.skipped, **found.unanswered}.items():
        yield f"{what} could not be listed: {reason}"
