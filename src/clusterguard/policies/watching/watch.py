"""Looks at a policy's locations, for no longer than anybody wants to wait."""

from __future__ import annotations

from concurrent.futures import wait
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ClusterGuardError, StoreUnavailableError
from clusterguard.policies.watching.background import in_background
from clusterguard.policies.watching.status import policy_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from clusterguard.policies.copies.catalog import Catalog
    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.policy import Policy
    from clusterguard.policies.watching.verdict import PolicyStatus

__all__ = ["PolicyWatch"]

_WITHIN_SECONDS: Final = 30.0


class PolicyWatch:
    """Says what a policy's status is, as often as it is asked.

    A location that hangs is reported as unreadable. It is not asked again before it has answered, so a server
    that watches for weeks has one thread waiting for it, and not one for each time it was asked.

    - ``within_seconds``: how long to wait for all of them together.
    """

    def __init__(
        self,
        policy: Policy,
        locations: Sequence[StorageLocation],
        *,
        within_seconds: float = _WITHIN_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._policy = policy
        self._locations = locations
        self._within_seconds = within_seconds
        self._now = now
        self._looks: dict[str, Future[Catalog]] = {}

    def status(self) -> PolicyStatus:
        """Look at all locations at once, and judge what they hold."""
        until = monotonic() + self._within_seconds
        for location in self._locations:
            if location.name not in self._looks:
                self._looks[location.name] = in_background(f"clusterguard-look-{location.name}", location.catalog)
        catalogs = {name: self._result(name, until) for name in list(self._looks)}
        return policy_status(self._policy, catalogs, now=self._now())

    def _result(self, name: str, until: float) -> Catalog | ClusterGuardError:
        look = self._looks[name]
        if not wait([look], timeout=max(0.0, until - monotonic())).done:
            within = f"{self._within_seconds:g} s"
            return StoreUnavailableError(f"it did not answer within {within}", hint="look at the network to it")
        del self._looks[name]
        error = look.exception()
        if error is None or isinstance(error, ClusterGuardError):
            return error or look.result()
        return ClusterGuardError(f"looking at it failed: {type(error).__name__}: {error}")
