"""Do something at several nodes at once, and tell what went wrong where."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    ProvisioningError,
    RestoreError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from threading import Event

    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["answers", "ends_all", "failures", "worst"]

# A signal that comes just before this thread begins to wait for a lock is seen when that ends, and not before.
_LOOK_SECONDS = 0.5


def answers(shells: Sequence[NodeShell], ask: Callable[[NodeShell], bool]) -> dict[NodeShell, bool]:
    """Return what each node answers, or raise what went wrong."""
    told: dict[NodeShell, bool] = {}

    def note(shell: NodeShell) -> None:
        told[shell] = ask(shell)

    if failed := failures(shells, note):
        raise worst(failed.values())
    return told


def failures(
    places: Sequence[Any], act: Callable[[Any], object], *, halt: Event | None = None
) -> dict[Any, BaseException]:
    """Do something at several places at once; return what went wrong, by place, once all have ended.

    Ctrl-C waits for the commands that are at work, too: what undoes them must not run beside them. ``halt`` is set
    then, so that no further ones begin.
    """
    if len(places) < 2:  # noqa: PLR2004 - nothing to do at once: in this thread, which Ctrl-C interrupts
        return _failure(places, act)
    interrupted: BaseException | None = None
    pool = ThreadPoolExecutor(len(places), thread_name_prefix="clusterguard-node")
    running: dict[Any, Future[object]] = {}
    while True:
        try:
            for place in places if interrupted is None else ():
                running[place] = pool.submit(act, place)
            while wait(running.values(), timeout=_LOOK_SECONDS).not_done:
                pass
            pool.shutdown()
            break
        except BaseException as caught:  # noqa: BLE001 - raised again below
            interrupted = caught
            if halt is not None:
                halt.set()
    if interrupted is not None:
        raise interrupted
    return {place: error for place, each in running.items() if (error := each.exception()) is not None}


def _failure(places: Sequence[Any], act: Callable[[Any], object]) -> dict[Any, BaseException]:
    for place in places:
        try:
            act(place)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asked
            return {place: error}
    return {}


def ends_all(error: BaseException) -> bool:
    """Tell whether nothing may be done any more after this error, on any node."""
    return isinstance(error, RestoreError) or not isinstance(error, ClusterGuardError)


def worst(errors: Any) -> BaseException:  # noqa: ANN401 - any collection of them
    """Return the error that has to be told: one that ends all, or all of them together."""
    every = list(errors)
    for error in every:
        if ends_all(error):
            return error  # type: ignore[no-any-return]
    first: ClusterGuardError = every[0]
    messages = list(dict.fromkeys(error.message for error in every))
    if len(messages) == 1 or all(isinstance(error, (ProvisioningError, WaitTimeoutError)) for error in every):
        return first  # that it does not come up may be no obstacle, so it must be known by its class
    return ClusterError("\n".join(messages), code=first.code, fields=first.fields, hint=first.hint)
