"""What the names in a drill refer to: clusters, storages, backups. Pure: a model in, complaints out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.documents.values import did_you_mean
from clusterguard.drills.schema import (
    PHASES,
    BlockStorage,
    CopyBackup,
    DeleteCluster,
    EtcdRestore,
    EtcdSnapshot,
    Ready,
    Restored,
    StoredBackup,
    UnblockStorage,
    VeleroBackup,
    VeleroRestore,
    VerifyBackup,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, TypeAlias

    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.schema import Action, DrillSpec, PhaseName, Step

    Complaint: TypeAlias = tuple[DataPath, str]

__all__ = ["all_steps", "broken_references"]

# These act on something that they name, not on the cluster of their step.
_NOT_ON_A_CLUSTER: Final = (CopyBackup, DeleteCluster, BlockStorage, UnblockStorage)
_BEFORE_RESTORE: Final = ("setup", "backup", "fault")


def all_steps(spec: DrillSpec) -> Iterator[tuple[PhaseName, int, Step]]:
    """Yield every step with its phase and its index there, in the order of phases and file."""
    for phase in PHASES:
        for index, step in enumerate(spec.steps(phase)):
            yield phase, index, step


def broken_references(spec: DrillSpec) -> Iterator[Complaint]:
    """Yield what refers to nothing, to the wrong thing, or to something that is not there yet."""
    if spec.objectives.rpo and spec.canary is False:
        yield ("spec", "objectives", "rpo"), "without the canary nothing measures data loss"
    backups = _Backups(spec)
    yield from backups.named_twice()
    for phase, index, step in all_steps(spec):
        path: DataPath = ("spec", phase, index)
        action_path = (*path, step.verb)
        yield from _wrong_cluster(spec, phase, step, path)
        yield from _wrong_storage(spec, step.action, action_path)
        yield from backups.wrong_name(phase, index, step.action, action_path)
        yield from _impossible_wait(step, action_path)
        if spec.proves_stored and isinstance(step.action, Restored):
            yield action_path, "a `storedBackup` has no baseline to compare with: use assert, ready, http or exec"


def _wrong_cluster(spec: DrillSpec, phase: PhaseName, step: Step, path: DataPath) -> Iterator[Complaint]:
    clusters = spec.effective_clusters
    named = [(step.cluster, (*path, "cluster"))] if step.cluster else []
    if isinstance(step.action, DeleteCluster):
        place: DataPath = (*path, step.verb, "name")
        named.append((step.action.name, place))
        if step.action.name in clusters and clusters[step.action.name].existing:
            yield (
                place,
                f"cluster `{step.action.name}` was there before the drill; drills delete only their own",
            )
    for name, place in named:
        if name not in clusters:
            yield place, f"there is no cluster `{name}` in spec.clusters{did_you_mean(name, clusters)}"
    if isinstance(step.action, _NOT_ON_A_CLUSTER) or phase not in _BEFORE_RESTORE:
        return
    name = step.cluster or next(iter(clusters))
    if name in clusters and clusters[name].start_in == "restore":
        place = (*path, "cluster") if step.cluster else path
        yield place, f"cluster `{name}` starts in the restore phase; it is not there yet in {phase}"


def _wrong_storage(spec: DrillSpec, action: Action, path: DataPath) -> Iterator[Complaint]:
    named: dict[str, str | None] = {}
    match action:
        case EtcdSnapshot() | VeleroBackup() | VeleroRestore():
            named = {"storage": action.storage}
        case VerifyBackup():
            named = {"storage": action.storage, "sameAs": action.same_as}
        case CopyBackup():
            named = {"from": action.from_, "to": action.to}
        case BlockStorage() | UnblockStorage():
            named = {"name": action.name}
    for key, name in named.items():
        if name is not None and name not in spec.storage:
            yield (*path, key), f"there is no `{name}` in spec.storage{did_you_mean(name, spec.storage)}"


def _impossible_wait(step: Step, path: DataPath) -> Iterator[Complaint]:
    stable_for = step.action.stable_for if isinstance(step.action, Ready) else None
    if stable_for and step.timeout and stable_for >= step.timeout:
        yield (*path, "stableFor"), "not shorter than the step's timeout, so it could never hold"


class _Backups:
    """The backups that a drill makes, and whether other steps name them rightly."""

    def __init__(self, spec: DrillSpec) -> None:
        self.made = [
            (index, step.action)
            for index, step in enumerate(spec.backup)
            if isinstance(step.action, (EtcdSnapshot, StoredBackup, VeleroBackup))
        ]
        self.by_name = {action.name: (index, action) for index, action in reversed(self.made)}
        self.verbs = [step.verb for step in spec.backup]

    def named_twice(self) -> Iterator[Complaint]:
        for index, action in self.made:
            first = self.by_name[action.name][0]
            if first != index:
                path = ("spec", "backup", index, self.verbs[index], "name")
                yield path, f"spec.backup[{first}] already makes a backup `{action.name}`"

    def wrong_name(self, phase: PhaseName, index: int, action: Action, path: DataPath) -> Iterator[Complaint]:
        match action:
            case EtcdRestore() | VeleroRestore():
                place, name = (*path, "from"), action.from_
            case CopyBackup() | VerifyBackup():
                place, name = (*path, "backup"), action.backup
            case _:
                return
        if name not in self.by_name:
            yield place, f"the backup phase makes no `{name}`{did_you_mean(name, self.by_name)}"
            return
        made_at, made = self.by_name[name]
        if phase == "backup" and made_at > index:
            yield place, f"`{name}` is made only later, by spec.backup[{made_at}]"
        wanted = {EtcdRestore: (EtcdSnapshot, StoredBackup), VeleroRestore: (VeleroBackup,)}.get(type(action))
        if wanted is not None and not isinstance(made, wanted):
            yield place, f"`{name}` is made by {self.verbs[made_at]}, which {path[-1]} cannot restore"
