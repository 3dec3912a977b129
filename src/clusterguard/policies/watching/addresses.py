"""Addresses that are secrets: a webhook's URL is all that it takes to write there. Read here, and kept out of logs."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ConfigError
from clusterguard.secret_files import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.policies.policy import Secret

__all__ = ["read_address", "unlogged"]

# Loggers that write down the addresses they are given: apprise in its warnings, urllib3 the path of each request.
_TALKATIVE: Final = ("apprise", "urllib3.connectionpool", "urllib3.util.retry", "requests")

_silent: ContextVar[list[str] | None] = ContextVar("clusterguard_unlogged", default=None)


def read_address(secret: Secret, environ: Mapping[str, str]) -> str:
    """Return an address from where the policy says it is."""
    text = read_secret_file(Path(secret.file), what="the address") if secret.file else environ.get(secret.env, "")
    if not text.strip():
        raise ConfigError(f"{secret} holds no address", hint="write the address there, and nothing else")
    return text.strip()


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
