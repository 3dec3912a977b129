"""Which programs drills will need, and getting them before each drill, outside of any time limit."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from clusterguard.drills.requirements import skip_reason
from clusterguard.drills.schema import LOCAL
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import Self

    from clusterguard.drills.load import Drill
    from clusterguard.drills.schema import StorageSpec
    from clusterguard.toolchain import Toolchain

__all__ = ["ProgramsInTurn", "programs_for", "require_docker_for"]


def programs_for(drills: Iterable[Drill], *, default_cluster: str) -> tuple[str, ...]:
    """Return the names of the programs that drills need on this machine, each once.

    Args:
        drills: What will run.
        default_cluster: The reference of the cluster of drills that name no provider.
    """
    needed: dict[str, None] = {}
    for drill in drills:
        if skip_reason(drill, default_cluster=default_cluster):
            continue
        needed |= dict.fromkeys(name for step in drill.steps for name in step.action.programs())
        if _uses_kind(drill, default_cluster):
            from clusterguard.clusters.kind.cluster import PROGRAMS as KIND_PROGRAMS

            needed |= dict.fromkeys(KIND_PROGRAMS)
        if not _starts_embedded(drill, default_cluster):
            continue
        from clusterguard.clusters.embedded import PROGRAMS
        from clusterguard.clusters.embedded.velero_server import VELERO_PROGRAMS

        velero = any(step.action.engine == "velero" for step in drill.steps)
        needed |= dict.fromkeys((*PROGRAMS, *(VELERO_PROGRAMS if velero else ())))
        if velero or any(_is_local(spec) for spec in drill.spec.storage.values()):
            needed["versitygw"] = None
    return tuple(needed)


class ProgramsInTurn:
    """Gets the programs of drills in the order in which they are needed, so that each drill waits for its own only.

    Compiling them takes minutes on a machine that has none, and a drill without Velero need not wait for Velero.
    Leaving the block stops what is still being compiled; Go keeps what it has so far.

    Args:
        drills: What will run.
        default_cluster: The reference of the cluster of drills that name no provider.
        toolchain: Makes a toolchain that tells its progress to a sink.
        show: Gives a sink for as long as somebody waits for programs.

    Raises:
        ToolchainError: A variable names a program that will not do.
    """

    def __init__(
        self,
        drills: Iterable[Drill],
        *,
        default_cluster: str,
        toolchain: Callable[[ProgressSink], Toolchain],
        show: Callable[[], AbstractContextManager[ProgressSink]],
    ) -> None:
        drills = tuple(drills)
        self._default_cluster = default_cluster
        self._toolchain = toolchain(self._tell)
        self._show = show
        self._sink: ProgressSink = ignore_progress
        self._stopped = False
        self._got: dict[tuple[str, ...], Event] = {}
        self._errors: dict[tuple[str, ...], Exception] = {}
        self._worker = Worker(self._get, name="clusterguard-programs")
        with self._shown():
            absent = self._toolchain.missing(*programs_for(drills, default_cluster=default_cluster))
        for programs in sorted(map(self._programs, drills), key=len):
            if absent.intersection(programs):
                self._got.setdefault(programs, Event())

    def in_turn(self, drills: Iterable[Drill]) -> list[Drill]:
        """Return the drills that need the fewest programs first, if any have to be got at all."""
        return sorted(drills, key=lambda drill: len(self._programs(drill))) if self._got else list(drills)

    def wait_for(self, drill: Drill) -> None:
        """Return once the programs of a drill are there.

        Raises:
            ChecksumMismatchError: A download is not the pinned one.
            ToolchainError: They cannot be had.
        """
        programs = self._programs(drill)
        if got := self._got.get(programs):
            with self._shown():
                got.wait()
        if error := self._errors.get(programs):
            raise error

    def __enter__(self) -> Self:
        if self._got:
            self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        if self._worker.is_alive():
            self._worker.join()

    def _programs(self, drill: Drill) -> tuple[str, ...]:
        return programs_for([drill], default_cluster=self._default_cluster)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        with self._show() as sink:
            self._sink = sink
            try:
                yield
            finally:
                self._sink = ignore_progress

    def _get(self) -> None:
        for programs, got in self._got.items():
            try:
                self._toolchain.ensure(*programs)
            except _StoppedError:
                break
            except Exception as error:  # noqa: BLE001 - raised where somebody waits
                self._errors[programs] = error
            got.set()

    def _tell(self, progress: Progress) -> None:
        # It is told of every package that is compiled; an error here ends the compiler.
        if self._stopped:
            raise _StoppedError
        self._sink(progress)


class _StoppedError(Exception):
    """Nobody wants the programs any more."""


def require_docker_for(drills: Iterable[Drill], *, default_cluster: str) -> None:
    """Find out at once, before the first drill, whether Docker is there for those who asked for kind.

    A drill whose file names kind while others run elsewhere says so itself, in its own verdict.

    Raises:
        ProvisioningError: It is not, or does not answer.
    """
    if default_cluster.partition(":")[0] == "kind" and any(_uses_kind(drill, default_cluster) for drill in drills):
        from clusterguard.clusters.kind import Docker

        Docker().require()


def _uses_kind(drill: Drill, default_cluster: str) -> bool:
    default = default_cluster.partition(":")[0]
    return any((spec.provider(default) or default) == "kind" for spec in drill.spec.effective_clusters.values())


def _starts_embedded(drill: Drill, default_cluster: str) -> bool:
    specs = drill.spec.effective_clusters.values()
    return any((spec.provider(default_cluster) or default_cluster) == "embedded" for spec in specs)


def _is_local(spec: StorageSpec) -> bool:
    return spec.s3 is not None and spec.s3.endpoint == LOCAL
