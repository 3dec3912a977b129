"""``assert``: compare objects with a part of what they must look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from clusterguard.documents.model import Omitted, wrong
from clusterguard.drills.partial import mismatches
from clusterguard.drills.steps.base import Action, Look, StepContext
from clusterguard.drills.steps.fields import Count
from clusterguard.drills.steps.selection import select
from clusterguard.drills.values import Comparison
from clusterguard.drills.verdict import CheckResult

if TYPE_CHECKING:
    from clusterguard.clusters.kube import KubeClient


class Assert(Action):
    """Compare objects with a part of what they must look like. Finding no object is a failure."""

    phases = ("verify",)

    resource: dict[str, Any]
    """A partial object: apiVersion and kind, then a name or labels that select, and the fields to compare."""
    match: Literal["all", "any"] = "all"
    """Whether all selected objects must match, or one is enough."""
    count: Count | Omitted = None
    """How many objects must be selected; at least one when left out."""

    @model_validator(mode="after")
    def _selects_something(self) -> Assert:
        for key in ("apiVersion", "kind"):
            if not isinstance(self.resource.get(key), str):
                raise wrong(f"resource.{key} is needed, as in a manifest", key="resource")
        if not isinstance(self.resource.get("metadata", {}), dict):
            raise wrong("resource.metadata must be a mapping", key="resource")
        return self

    def plan(self) -> str:
        metadata = self.resource.get("metadata", {})
        name = "/".join(str(metadata[key]) for key in ("namespace", "name") if key in metadata)
        count = f"; {self.count.in_words()} of them" if self.count else ""
        which = "every" if self.match == "all" else "at least one"
        return f"compare {which} {' '.join(filter(None, (self.resource['kind'], name)))} with the file{count}"

    def check(self, here: StepContext, look: Look) -> CheckResult:
        # As the cluster writes it: the file may say `secrets`.
        kind = here.api.resource(self.resource["kind"], api_version=self.resource["apiVersion"]).kind
        found = self.find(here.api)
        count = self.count or Comparison(">=", 1)
        if not count.holds(len(found)):
            summary = f"{len(found)} {kind} found, {count.in_words()} expected"
            return CheckResult(ok=False, summary=summary)
        lines = {item["metadata"]["name"]: mismatches(self.resource, item) for item in found}
        wrong_ones = {name: each for name, each in lines.items() if each}
        ok = len(wrong_ones) < len(found) if self.match == "any" else not wrong_ones
        return CheckResult(
            ok=ok,
            summary=f"{len(found) - len(wrong_ones)} of {len(found)} {kind} match",
            detail="" if ok else _described(kind, wrong_ones),
        )

    def find(self, api: KubeClient) -> list[Any]:
        """Return what it selects."""
        resource = api.resource(self.resource["kind"], api_version=self.resource["apiVersion"])
        metadata = self.resource.get("metadata") or {}
        names = [metadata["name"]] if "name" in metadata else []
        selector = ",".join(f"{key}={value}" for key, value in (metadata.get("labels") or {}).items())
        namespace = metadata.get("namespace") or ("default" if names else None)
        where = namespace if resource.namespaced else None
        return list(select(api, resource, namespace=where, names=names, selector=selector))


def _described(kind: str, wrong_ones: dict[str, list[str]]) -> str:
    if kind == "Secret":  # its values must not be in any report
        wrong_ones = {
            name: [line.partition(":")[0] + ": differs" for line in lines] for name, lines in wrong_ones.items()
        }
    return "\n".join(f"{kind} {name}: {line}" for name, lines in wrong_ones.items() for line in lines)
