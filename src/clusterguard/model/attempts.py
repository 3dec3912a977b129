"""Several things of which each is tried, whatever becomes of the others: a cleanup leaves as little as it can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.errors import ClusterGuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["try_each"]


def try_each(acts: Iterable[Callable[[], object]]) -> None:
    """Do one thing after the other, all of them.

    Raises:
        ClusterGuardError: The one thing that failed, or one error with the code of the first and the words of each.
    """
    failed: list[ClusterGuardError] = []
    for act in acts:
        try:
            act()
        except ClusterGuardError as error:
            failed.append(error)
    if len(failed) > 1:
        words = "; ".join(error.message for error in failed)
        raise ClusterGuardError(words, code=failed[0].code, hint=failed[0].hint) from failed[0]
    if failed:
        raise failed[0]
