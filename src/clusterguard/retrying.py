"""Retries after errors, and polling with a deadline. The only user of tenacity."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from clusterguard.errors import ClusterGuardError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RetryPolicy", "may_help", "poll_until"]

T = TypeVar("T")

_POLL_SECONDS = 0.2


def poll_until(
    ask: Callable[[], str | None],
    *,
    what: str,
    seconds: float,
    hint: str | Callable[[], str | None] | None = None,
    every: float = _POLL_SECONDS,
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Ask until nothing is missing any more: once at least, and once more when the time is up.

    Args:
        ask: Returns what is still missing; None or ``""`` once all is there. Its errors pass through.
        what: What is expected to happen, for the error.
        seconds: How long to wait.
        hint: What to do if it does not happen; a callable is called only then.
        every: Seconds between two questions.
        sleep: Waits for so many seconds.
        clock: Seconds that only grow.

    Raises:
        WaitTimeoutError: It did not happen; `last_seen` is the last answer.
    """
    deadline = clock() + seconds
    while missing := ask():
        left = deadline - clock()
        if left <= 0:
            raise WaitTimeoutError(what, seconds=seconds, last_seen=missing, hint=hint() if callable(hint) else hint)
        sleep(min(every, left))


def may_help(error: BaseException) -> bool:
    """Return whether trying again may help: the error itself says so."""
    return isinstance(error, ClusterGuardError) and error.retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often to try, and how long to wait in between: exponentially longer, with jitter.

    Attributes:
        attempts: How often in all; 1 means never again.
        first_wait_seconds: Before the second attempt; doubled for each further one.
        longest_wait_seconds: Where the doubling ends.
        sleep: Waits for so many seconds.
    """

    attempts: int = 4
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 8
    sleep: Callable[[float], None] = time.sleep  # noqa: TID251 - the real one; tests pass their own

    def run(self, action: Callable[[], T], *, retryable: Callable[[BaseException], bool] = may_help) -> T:
        """Return what the action returns, trying again where that may help.

        Args:
            action: What to try; it must be harmless to repeat.
            retryable: Which errors are worth another attempt.

        Raises:
            BaseException: The last attempt's own error, as it was raised.
        """
        import tenacity

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential(multiplier=self.first_wait_seconds, max=self.longest_wait_seconds)
            + tenacity.wait_random(0, self.first_wait_seconds),
            retry=tenacity.retry_if_exception(retryable),
            sleep=self.sleep,
            reraise=True,
        )
        return retrying(action)
