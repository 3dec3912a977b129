"""``delete``: delete objects."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from clusterguard.documents.model import Label, Name, Omitted, Selector, ZeroableDuration
from clusterguard.documents.values import duration_text
from clusterguard.drills.steps.base import Action, StepContext
from clusterguard.drills.steps.fields import Kind, check_namespace
from clusterguard.drills.steps.selection import (
    current,
    in_namespace,
    names_of,
    select,
    wait_until_gone,
    what_holds_it,
)
from clusterguard.errors import DrillError, ResourceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.clusters.kube import ApiResource, KubeClient
    from clusterguard.drills.steps.selection import Selected

_POLL_SECONDS = 0.1
# Longer than the controllers take to delete what nothing holds.
_STUCK_SECONDS = 8.0


class Delete(Action):
    """Delete objects, and wait until they are gone, replaced or stuck. Selecting none is an error."""

    phases = ("fault",)
    destructive = True

    kind: Kind | Omitted = None
    """The kind to delete."""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] | Omitted = None
    """Several kinds; each must select at least one object."""
    namespace: Label | Omitted = None
    """Their namespace; needed for kinds that live in one."""
    name: Name | Omitted = None
    """One object by its name."""
    names: Annotated[tuple[Name, ...], Field(min_length=1)] | Omitted = None
    """Several objects by their names."""
    selector: Selector | Omitted = None
    """Objects by their labels."""
    all: bool = False
    """true: every object of the kind in the namespace. It must be said; it is never the default."""
    grace_period: ZeroableDuration | Omitted = None
    """How long a Pod may take to end; the Pod's own value when left out, `0s` ends it at once."""
    until: Literal["gone", "stuck"] = "gone"
    """`stuck`: the deletion has begun, and finalizers hold it; that it goes through is an error then."""

    @property
    def all_kinds(self) -> tuple[str, ...]:
        """The kinds to delete, however they were written."""
        return self.kinds or ((self.kind,) if self.kind else ())

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names to delete, however they were written; empty when chosen by labels or `all`."""
        return self.names or ((self.name,) if self.name else ())

    @model_validator(mode="after")
    def _sensible(self) -> Delete:
        self.need_one("kind", "kinds")
        self.need_one("name", "names", "selector", "all")
        check_namespace(self, self.all_kinds, needed=True)
        return self

    def plan(self) -> str:
        what = f"all of {' and '.join(self.all_kinds)}" if self.all else " and ".join(self.all_kinds)
        names = f" {', '.join(self.all_names)}" if self.all_names else ""
        labels = f" with labels {self.selector}" if self.selector else ""
        grace = f", grace period {duration_text(self.grace_period)}" if self.grace_period is not None else ""
        stuck = ", and see finalizers hold it" if self.until == "stuck" else ""
        return f"delete {what}{names}{labels}{in_namespace(self.namespace)}{grace}{stuck}; selecting none is an error"

    def perform(self, here: StepContext) -> str:
        api = here.api
        doomed = list(self._select(api, may_be_none=here.step.phase == "cleanup"))
        grace = None if self.grace_period is None else int(self.grace_period.total_seconds())
        for resource, item in doomed:
            metadata = item["metadata"]
            with suppress(ResourceNotFoundError):
                api.delete(
                    resource, metadata["name"], metadata.get("namespace"), grace_seconds=grace, uid=metadata["uid"]
                )
        if self.until == "stuck":
            return "; ".join(_stuck(api, resource, item) for resource, item in doomed)
        wait_until_gone(api, doomed, seconds=here.seconds)
        return f"{len(doomed)} object(s) deleted: {names_of(item for _, item in doomed)}"

    def _select(self, api: KubeClient, *, may_be_none: bool) -> Iterator[Selected]:
        for kind in self.all_kinds:
            resource = api.resource(kind)
            found = select(api, resource, namespace=self.namespace, names=self.all_names, selector=self.selector or "")
            selected = [(resource, item) for item in found]
            if not selected and not may_be_none:
                chosen = self.selector or ", ".join(self.all_names) or "at all"
                raise DrillError(
                    f"`delete` selects no {kind} ({chosen}){in_namespace(self.namespace)}: "
                    "a fault that breaks nothing proves nothing",
                    hint="correct the selection, or build what it selects in setup",
                    code="nothing-broken",
                )
            yield from selected


def _stuck(
    api: KubeClient,
    resource: ApiResource,
    item: Any,  # noqa: ANN401 - an object of any kind
    *,
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
) -> str:
    """Return what holds an object that is being deleted, once that has been so for a while.

    Raises:
        DrillError: It goes, so nothing is stuck.
    """
    deadline = time.monotonic() + _STUCK_SECONDS
    while now := current(api, resource, item):
        if time.monotonic() >= deadline:
            return what_holds_it(api, now)
        sleep(_POLL_SECONDS)
    raise DrillError(
        f"{resource.kind} {item['metadata']['name']} is gone, and nothing held it: the deletion is not stuck",
        hint="let setup make something with a finalizer, or leave `until` out",
    )
