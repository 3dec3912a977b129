"""Trying again. The only user of tenacity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import tenacity
from tenacity import nap

from clusterguard.errors import ClusterGuardError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RetryPolicy", "may_help"]

T = TypeVar("T")


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
    sleep: Callable[[float], None] = nap.sleep

    def run(self, action: Callable[[], T], *, retryable: Callable[[BaseException], bool] = may_help) -> T:
        """Return what the action returns, trying again where that may help.

        Args:
            action: What to try; it must be harmless to repeat.
            retryable: Which errors are worth another attempt.

        Raises:
            BaseException: The last attempt's own error, as it was raised.
        """
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential(multiplier=self.first_wait_seconds, max=self.longest_wait_seconds)
            + tenacity.wait_random(0, self.first_wait_seconds),
            retry=tenacity.retry_if_exception(retryable),
            sleep=self.sleep,
            reraise=True,
        )
        return retrying(action)
