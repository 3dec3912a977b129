"""Looks at a policy's locations, for no longer than anybody wants to wait."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ClusterGuardError, StoreUnavailableError
from clusterguard.policies.watching.status import policy_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterguard.policies.copies.catalog import Catalog
    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.policy import Policy
    from clusterguard.policies.watching.verdict import PolicyStatus

__all__ = ["PolicyWatch"]

_WITHIN_SECONDS: Final = 30.0


class PolicyWatch:
    """Says what a policy's status is, as often as it is asked.

    A location that hangs is told as one that cannot be read. It is not asked again before it has answered, so a server
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
        self._looks: dict[str, _Look] = {}

    def status(self) -> PolicyStatus:
        """Look at all locations at once, and judge what they hold."""
        until = monotonic() + self._within_seconds
        for location in self._locations:
            look = self._looks.get(location.name)
            if look is None or look.ended:
                self._looks[location.name] = _Look(location)
        catalogs = {
            name: look.result(max(0.0, until - monotonic()), limit=self._within_seconds)
            for name, look in self._looks.items()
        }
        return policy_status(self._policy, catalogs, now=self._now())


class _Look:
    """One look at one location, in a thread that ends with the process, whatever it waits for."""

    def __init__(self, location: StorageLocation) -> None:
        self._location = location
        self._found: Catalog | ClusterGuardError | None = None
        self._collected = False
        self._thread = threading.Thread(target=self._look, name=f"clusterguard-look-{location.name}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether it was answered, and the answer was given."""
        return self._collected or (not self._thread.is_alive() and self._found is None)

    def result(self, seconds: float, *, limit: float) -> Catalog | ClusterGuardError:
        """Return what was found, or that nothing was within the time."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return StoreUnavailableError(f"it did not answer within {limit:g} s", hint="look at the network to it")
        self._collected = True
        return self._found or ClusterGuardError("looking at it ended in nothing")

    def _look(self) -> None:
        try:
            self._found = self._location.catalog()
        except ClusterGuardError as error:
            self._found = error
        except Exception as error:  # noqa: BLE001 - told as what it is; a thread has nobody else to tell
            self._found = ClusterGuardError(f"looking at it failed: {type(error).__name__}: {error}")
