"""Addresses that are secrets: a webhook's URL is all that it takes to write there. They are kept out of logs."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["unlogged"]

# Loggers that write down the addresses they are given: apprise in its warnings, urllib3 the path of each request.
_TALKATIVE: Final = ("apprise", "urllib3.connectionpool", "urllib3.util.retry", "requests")

_silent: ContextVar[list[str] | None] = ContextVar("clusterguard_unlogged", default=None)


@contextmanager
def unlogged() -> Iterator[list[str]]:
    """Keep what other libraries log in this block out of every log, and give it to the caller instead.

    It holds what was logged as text, addresses and all, so that the caller may look for what is harmless in it. Other
    threads are not affected unless they carry on this one's context.
    """
    kept: list[str] = []
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        if _keep_out not in logger.filters:
            logger.addFilter(_keep_out)
    token = _silent.set(kept)
    try:
        yield kept
    finally:
        _silent.reset(token)


def _keep_out(record: logging.LogRecord) -> bool:
    kept = _silent.get()
    if kept is None:
        return True
    kept.append(record.getMessage())
    return False
