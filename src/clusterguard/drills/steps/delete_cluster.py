"""``deleteCluster``: delete a whole cluster that this run created."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.documents.model import Label
from clusterguard.documents.values import did_you_mean
from clusterguard.drills.steps.base import Action, StepContext
from clusterguard.errors import DrillError, NotAllowedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.schema import DrillSpec, Step


class DeleteCluster(Action):
    """Delete a whole cluster that this run created."""

    phases = ("fault",)
    destructive = True
    on_a_cluster = False

    name: Label
    """A name from spec.clusters."""

    def plan(self) -> str:
        return f"delete the whole cluster {self.name}"

    def problems(self, spec: DrillSpec, step: Step) -> Iterator[tuple[DataPath, str]]:
        clusters = spec.effective_clusters
        if self.name not in clusters:
            yield ("name",), f"there is no cluster `{self.name}` in spec.clusters{did_you_mean(self.name, clusters)}"
        elif clusters[self.name].existing:
            yield ("name",), f"cluster `{self.name}` was there before the drill; drills delete only their own"

    def require(self, here: StepContext) -> None:
        if not here.run.creates(self.name):
            raise NotAllowedError(
                f"{here.step.location}: cluster `{self.name}` is not created by this run, and clusterguard never "
                "deletes such a cluster; nothing was touched"
            )

    def perform(self, here: StepContext) -> str:
        if self.name not in here.run.clusters:
            raise DrillError(f"cluster `{self.name}` is not running at this point of the drill")
        if not here.run.owns(self.name):
            raise NotAllowedError(
                f"cluster `{self.name}` was not created by this run; clusterguard never deletes such a cluster"
            )
        here.run.created.discard(self.name)
        here.run.clusters.pop(self.name).close()
        return f"cluster `{self.name}` deleted"
