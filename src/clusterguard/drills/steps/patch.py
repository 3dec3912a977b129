"""``patch``: change one object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from clusterguard.documents.model import Name
from clusterguard.drills.steps.base import StepContext
from clusterguard.drills.steps.selection import ObjectsOfOneKind
from clusterguard.errors import DrillError, ResourceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Patch(ObjectsOfOneKind):
    """Change one object by a JSON merge patch (RFC 7396), in which null removes a key."""

    phases = ("fault", "restore")
    destructive = True

    name: Name
    """The object's name."""
    patch: Annotated[dict[str, Any], Field(min_length=1)]
    """What changes, in the shape of the object."""

    def plan(self) -> str:
        return f"change {self.selected()} by a merge patch of {', '.join(_leaves(self.patch, ''))}"

    def perform(self, here: StepContext) -> str:
        api = here.api
        resource = api.resource(self.kind)
        try:
            before = api.get(resource, self.name, self.namespace)
        except ResourceNotFoundError:
            if here.step.phase != "cleanup":
                raise
            return f"there is no {self.kind} {self.name}"
        after = api.patch(resource, self.name, self.namespace, patch=self.patch)
        if not _differ(before, after) and here.step.phase == "fault":
            raise DrillError(
                f"`patch` changes nothing in {self.kind} {self.name}: a fault that breaks nothing proves nothing",
                hint="it has these values already; patch something else",
                code="nothing-broken",
            )
        return f"{self.kind} {self.name} changed"


def _differ(before: Any, after: Any) -> bool:  # noqa: ANN401 - objects of any kind
    """Return whether a patch did something; taking the last finalizer off deletes, and gives no new version."""
    one, other = before["metadata"], after["metadata"]
    return bool(one["resourceVersion"] != other["resourceVersion"] or one.get("finalizers") != other.get("finalizers"))


def _leaves(patch: object, path: str) -> Iterator[str]:
    """Yield the fields that a merge patch sets or removes."""
    if isinstance(patch, dict) and patch:
        for key, value in patch.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path
