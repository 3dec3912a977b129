"""``sameFiles``: compare the files of a container with what was there before the backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from clusterguard.drills.files import Aspect, differences, filled_holes, read_tree
from clusterguard.drills.steps.base import Action, Look, Requirement, StepContext
from clusterguard.drills.steps.containers import NOT_RUNNING, ExecTarget
from clusterguard.drills.steps.fields import ContainerPath
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import DrillError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.run import DrillRun
    from clusterguard.drills.schema import DrillSpec, Step

_SHORTEST_SECONDS = 60.0


class SameFiles(Action):
    """Compare all below a path with what was there when the backup phase began: bytes, links, owners, modes."""

    phases = ("verify",)
    requires = frozenset({Requirement.CONTAINERS})

    in_: Annotated[ExecTarget, Field(alias="in")]
    """Where; the container needs `sh`, `find`, `sha256sum` and `wc`, and for owners, modes and hard links `stat`."""
    path: ContainerPath
    """A directory, a file or a block device, by its path in the container. No file at all is an error."""
    ignore: tuple[Aspect, ...] = ()
    """What is passed over: `owners`, `modes`, `hardLinks`, `specialFiles` (FIFOs, sockets, devices), `emptyFolders`."""

    def plan(self) -> str:
        but = f", but for {', '.join(self.ignore)}" if self.ignore else ""
        return (
            f"compare every file below {self.path} in {self.in_} with what was there before the backup, by SHA-256{but}"
        )

    def problems(self, spec: DrillSpec, step: Step) -> Iterator[tuple[DataPath, str]]:
        if spec.proves_stored:
            yield (), "a `storedBackup` is older than this run, which has no files to compare with: use exec"

    def noted(self) -> str:
        return f"note size and SHA-256 of every file below {self.path}; none is an error"

    def note(self, here: StepContext) -> str:
        api = (here.run.clusters.get(here.step.cluster) or here.run.clusters[here.run.drill.default_cluster]).api
        container = self._before_renaming(here.run).wait(api, seconds=here.seconds)
        tree = read_tree(api, container, self.path, seconds=here.run.at_least(here.seconds, _SHORTEST_SECONDS))
        if not tree.has_files:
            raise DrillError(f"there is no file below {self.path} in {container}: nothing would be compared")
        here.run.files[here.step.location] = tree
        return f"{self.path}: {tree.summary()}"

    def check(self, here: StepContext, look: Look) -> CheckResult:
        before = here.run.files.get(here.step.location)
        if before is None:
            raise DrillError(f"the files below {self.path} were not noted before the backup")
        api = here.api
        try:
            seconds = here.run.at_least(here.seconds_of(look), _SHORTEST_SECONDS)
            after = read_tree(api, self.in_.find(api), self.path, seconds=seconds)
        except (*NOT_RUNNING, DrillError) as error:
            return CheckResult(ok=False, summary=error.message)
        moved = any(each.repositories for each in here.run.velero.backups.values())
        found = differences(before, after, ignore=self.ignore, moved=moved)
        own = f"{after.ignored} of Velero's own passed over" if after.ignored else ""
        beside = "".join(f"; {each}" for each in (filled_holes(before, after), own) if each)
        summary = "; ".join(found) or f"the same {after.summary()}"
        return CheckResult(ok=not found, summary=summary + beside, detail="\n".join(found))

    def _before_renaming(self, run: DrillRun) -> ExecTarget:
        """Return where the files were before a restore that renames namespaces."""
        old = {new: old for old, new in run.namespace_mapping.items()}
        return self.in_.model_copy(update={"namespace": old.get(self.in_.namespace, self.in_.namespace)})
