"""What a verb is: a mapping of the drill file that says what it needs and would do, and does it or checks it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, get_args

from clusterguard.documents.model import Model
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import DrillError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from clusterguard.clusters.base import Cluster
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.run import DrillRun
    from clusterguard.drills.schema import DrillSpec, Step

__all__ = ["PHASES", "Action", "Engine", "Look", "PhaseName", "Requirement", "StepContext"]

PhaseName: TypeAlias = Literal["setup", "backup", "fault", "restore", "verify", "cleanup"]
PHASES: Final[tuple[PhaseName, ...]] = get_args(PhaseName)
Engine: TypeAlias = Literal["etcd", "velero"]


class Requirement(StrEnum):
    """What a step acts on that not every cluster has; the value is what messages call it."""

    CONTAINERS = "containers that run"
    NODES = "nodes that can be stopped and started"
    CONTROL_PLANE = "a control plane that can be broken"
    SNAPSHOTS = "a CSI driver that takes snapshots"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How to look at a check.

    Attributes:
        seconds: How long to wait for it to hold; 0 for a single look.
        watching: Whether it must also hold for as long as the drill file asks.
        fresh_since: The moment that a status must be newer than, UTC, or None if its age does not matter.
        clock: Seconds that only grow.
    """

    seconds: float = 0.0
    watching: bool = False
    fresh_since: datetime | None = None
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class StepContext:
    """A step in its run."""

    run: DrillRun
    step: LoadedStep

    @property
    def cluster(self) -> Cluster:
        """The running cluster that the step acts on."""
        return self.run.cluster_of(self.step)

    @property
    def api(self) -> KubeClient:
        """That cluster's API."""
        return self.cluster.api

    @property
    def seconds(self) -> float:
        """How long the step may take."""
        return self.run.wait_of(self.step)

    def seconds_of(self, look: Look) -> float:
        """Return how long a look may take: what is left of its watch, or for a single one as long as the step."""
        return look.seconds if look.watching else self.seconds


class Action(Model):
    """The one thing that a step does. Its fields are the keys of the drill file; the class's name is the verb."""

    phases: ClassVar[tuple[PhaseName, ...]] = ()
    """Where it is allowed; in cleanup every verb is."""
    destructive: ClassVar[bool] = False
    """Whether it destroys, overwrites or cuts something off even outside of the fault phase."""
    on_a_cluster: ClassVar[bool] = True
    """Whether it acts on the cluster of its step, and not on something that it names."""
    requires: ClassVar[frozenset[Requirement]] = frozenset()
    engine: ClassVar[Engine | None] = None
    """What it makes a backup with (in the backup phase), or restores with (in the restore phase)."""
    judges: ClassVar[bool] = False
    """Whether what it finds wrong fails the drill, instead of being an error, in the backup phase."""
    storage_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that name a storage of the drill."""
    backup_field: ClassVar[str] = ""
    """The field that names a backup of the drill."""

    @classmethod
    def verb(cls) -> str:
        """Return its key in drill files: the class's name, with a small first letter."""
        return cls.__name__[0].lower() + cls.__name__[1:]

    def works_with(self) -> Engine | None:
        """Return the engine of the backup that it makes or restores."""
        return self.engine

    def needs_cluster(self) -> bool:
        """Return whether the cluster of its step must run for it."""
        return self.on_a_cluster

    def programs(self) -> tuple[str, ...]:
        """Return the programs that it runs on this machine, beside those of its clusters."""
        return ()

    def plan(self) -> str:
        """Return in one line what it would do."""
        raise NotImplementedError

    def details(self, step: LoadedStep) -> Iterable[str]:
        """Return how it would do that, one line each."""
        return ()

    def requirements(self) -> frozenset[Requirement]:
        """Return what it needs that not every cluster has."""
        return self.requires

    def storages(self) -> Mapping[str, str]:
        """Return the storages that it names, by the key that names them."""
        named = {self.written(field): getattr(self, field) for field in self.storage_fields}
        return {key: name for key, name in named.items() if name is not None}

    def problems(self, spec: DrillSpec, step: Step) -> Iterator[tuple[DataPath, str]]:
        """Yield what is wrong with it in this drill, and at which of its keys."""
        yield from ()

    def require(self, here: StepContext) -> None:
        """Refuse what cannot work in this run: called before clusters are opened, and once more when they are.

        Raises:
            ClusterGuardError: It cannot work.
        """

    def prepare(self, here: StepContext) -> None:
        """Do at the beginning of the backup phase what takes time and must not be measured."""

    def noted(self) -> str:
        """Return in one line what a check notes before the backup, to compare with later; ``""`` for nothing."""
        return ""

    def note(self, here: StepContext) -> str:
        """Note that; return what was noted, in one line."""
        raise NotImplementedError

    def perform(self, here: StepContext) -> str:
        """Do it; return what was done, in one line.

        Raises:
            ClusterGuardError: It could not be done.
        """
        raise DrillError(f"`{self.verb()}` is a check: it belongs into verify")

    def check(self, here: StepContext, look: Look) -> CheckResult:
        """Look whether it holds; an action that is not a check is performed, and holds if that works.

        Raises:
            ClusterGuardError: It cannot be looked at, which is neither green nor red.
        """
        return CheckResult(ok=True, summary=self.perform(here))
