"""What the names in a drill refer to: clusters, storages, backups. Pure: a model in, complaints out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.documents.values import did_you_mean
from clusterguard.drills.marker_plan import plan_markers
from clusterguard.drills.steps.base import PHASES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.schema import DrillSpec, Step
    from clusterguard.drills.steps.base import PhaseName

    Complaint: TypeAlias = tuple[DataPath, str]

__all__ = ["all_steps", "broken_references"]


def all_steps(spec: DrillSpec) -> Iterator[tuple[PhaseName, int, Step]]:
    """Yield every step with its phase and its index there, in the order of phases and file."""
    for phase in PHASES:
        for index, step in enumerate(spec.steps(phase)):
            yield phase, index, step


def broken_references(spec: DrillSpec) -> Iterator[Complaint]:
    """Yield what refers to nothing, to the wrong thing, or to something that is not there yet."""
    yield from _no_place_for_markers(spec)
    if spec.objectives.rpo and spec.canary is False and not spec.proves_stored:
        yield ("spec", "objectives", "rpo"), "needs the canary, which measures data loss"
    made: list[tuple[int, Step]] = [(index, step) for index, step in enumerate(spec.backup) if step.action.works_with()]
    backups = {_name_of(step): (index, step) for index, step in reversed(made)}
    for index, step in made:
        first = backups[_name_of(step)][0]
        if first != index:
            path: DataPath = ("spec", "backup", index, step.verb, "name")
            yield path, f"spec.backup[{first}] already makes a backup `{_name_of(step)}`"
    for phase, index, step in all_steps(spec):
        path = ("spec", phase, index)
        yield from _wrong_cluster(spec, phase, step, path)
        action_path = (*path, step.verb)
        for key, name in step.action.storages().items():
            if name not in spec.storage:
                yield (*action_path, key), f"there is no `{name}` in spec.storage{did_you_mean(name, spec.storage)}"
        yield from _wrong_backup(backups, phase, index, step, action_path)
        for inner, message in step.action.problems(spec, step):
            yield (*action_path, *inner), message


def _no_place_for_markers(spec: DrillSpec) -> Iterator[Complaint]:
    """Yield what would be measured by markers that cannot be in what is restored."""
    reason = plan_markers(spec).impossible
    if spec.canary is False or spec.proves_stored or not reason:
        return
    if not isinstance(spec.canary, bool):
        yield ("spec", "canary"), f"no marker can be restored: {reason}"
    if spec.objectives.rpo:
        yield ("spec", "objectives", "rpo"), f"needs markers, and none can be restored: {reason}"


def _name_of(step: Step) -> str:
    return str(getattr(step.action, "name"))  # noqa: B009 - whatever makes a backup has a name for it


def _wrong_cluster(spec: DrillSpec, phase: PhaseName, step: Step, path: DataPath) -> Iterator[Complaint]:
    clusters = spec.effective_clusters
    place: DataPath = (*path, "cluster") if step.cluster else path
    name = step.cluster or next(iter(clusters))
    if name not in clusters:
        yield place, f"there is no cluster `{name}` in spec.clusters{did_you_mean(name, clusters)}"
    elif step.action.needs_cluster() and phase in ("setup", "backup", "fault") and clusters[name].start_in == "restore":
        yield place, f"cluster `{name}` starts in the restore phase; it is not there yet in {phase}"


def _wrong_backup(
    backups: dict[str, tuple[int, Step]], phase: PhaseName, index: int, step: Step, path: DataPath
) -> Iterator[Complaint]:
    if not step.action.backup_field:
        return
    name = getattr(step.action, step.action.backup_field)
    place: DataPath = (*path, step.action.written(step.action.backup_field))
    if name not in backups:
        yield place, f"the backup phase makes no `{name}`{did_you_mean(name, backups)}"
        return
    made_at, made = backups[name]
    if phase == "backup" and made_at > index:
        yield place, f"`{name}` is made later, by spec.backup[{made_at}]"
    if step.action.works_with() not in (None, made.action.works_with()):
        yield place, f"`{name}` is made by {made.verb}, which {step.verb} cannot restore"
