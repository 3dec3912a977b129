"""Work in a thread that ends with the process, whatever it waits for, so that callers can stop waiting."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from clusterguard.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_background"]

T = TypeVar("T")


def in_background(name: str, work: Callable[[], T]) -> Future[T]:
    """Begin something, and return what becomes of it."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the door of a thread; raised where the result is taken
            future.set_exception(error)

    Worker(run, name=name).start()
    return future
