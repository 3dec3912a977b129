"""The lock of a policy: one run at a time, by its leases in all locations (`lease`), held while it lasts.

There are two other locks. That of a cluster keeps two runs from breaking it at once: `clusterguard.clusters.lock`. That
of a control plane keeps two restores of etcd apart: `exclusive` of each `clusterguard.clusters.base.ControlPlane`.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from clusterguard.errors import ClusterGuardError, RunInProgressError, StoreError, StoreUnavailableError
from clusterguard.policies.runs.lease import Lease, LeaseTiming, LocationLease
from clusterguard.process import elapsed
from clusterguard.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from clusterguard.policies.copies.locations import StorageLocation

__all__ = ["RunLock", "locked"]


class RunLock:
    """The leases of one run; use `locked`.

    - ``timing``: how long a lease lasts.
    - ``clock``: monotonic, in seconds.
    - ``sleep``: called between two looks at a lease that somebody else holds.

    Attributes:
        failures: Why locations take no lock, by their names; the run does without them.
        warnings: What is wrong with the locks of other locations, by their names.
    """

    def __init__(
        self,
        locations: Sequence[StorageLocation],
        *,
        run: str,
        timing: LeaseTiming | None = None,
        clock: Callable[[], float] = elapsed,
        sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - a parameter
    ) -> None:
        self.failures: dict[str, ClusterGuardError] = {}
        self.warnings: dict[str, ClusterGuardError] = {}
        self._locations = locations
        self._lease = Lease.of_this_process(run, timing or LeaseTiming())
        self._clock = clock
        self._sleep = sleep
        self._held: dict[str, LocationLease] = {}
        self._ended = threading.Event()
        self._renewing: dict[str, Worker] = {}

    def take(self, *, wait_seconds: float) -> None:
        """Take the leases, always in the same order, so that two runs never wait for each other.

        Args:
            wait_seconds: How long to wait for a run that is alive.

        A location that takes none takes no backup either; it is left out, and listed in ``failures``.

        Raises:
            RunInProgressError: Another run holds one of them, and is alive.
            StoreUnavailableError: No location takes one.
        """
        until = self._clock() + wait_seconds
        for location in self._locations:
            lease = LocationLease(location, self._lease, clock=self._clock, sleep=self._sleep)
            try:
                lease.acquire(until)
            except RunInProgressError:
                raise  # leaving this location out would let two runs work side by side in all the others
            except ClusterGuardError as error:
                self.failures[location.name] = error
            else:
                self._held[location.name] = lease
                self._keep(location.name, lease)
                if not lease.exclusive:
                    self.warnings[location.name] = _not_exclusive(location)
        if self.failures and not self._held:
            raise _none_taken(self.failures)

    def release(self) -> None:
        """Give back what is held; in a location that cannot be reached the lease runs out by itself."""
        self._ended.set()
        for name, lease in self._held.items():
            thread = self._renewing.get(name)
            # A renewal that is still on its way would take the lease again after it was given back.
            if thread is not None:
                thread.join(self._lease.lease_duration)
            if thread is None or not thread.is_alive():
                lease.release()
        self._held.clear()

    def require(self, location: str = "") -> None:
        """Make sure that this run still is the one: after a pause of the whole machine another one may have taken over.

        Args:
            location: Where something shall be removed or replaced: its lease is looked at. Without one, any lease that
                still lasts will do, as long as none was lost.

        Raises:
            RunInProgressError: Another run has taken the lease, or one of them.
            StoreError: The lease, or all of them, ran out and could not be renewed.
        """
        if location:
            if location not in self._held:
                raise StoreError(f"{location}: this run holds no lease there", code="lease-unconfirmed")
            return self._held[location].require()
        leases = self._held.values()
        for lease in leases:
            if lease.lost is not None:
                raise lease.lost
        return None if any(lease.valid for lease in leases) else self._require_any()

    def _require_any(self) -> None:
        failed: list[StoreError] = []
        for lease in self._held.values():
            try:
                return lease.require()
            except StoreError as error:
                failed.append(error)
        raise failed[0] if failed else StoreError("this run holds no lease", code="lease-unconfirmed")

    def _keep(self, name: str, lease: LocationLease) -> None:
        # A thread for each: a location that hangs must not let the other leases run out.
        thread = Worker(partial(lease.keep, self._ended), name=f"clusterguard-lease-{name}")
        self._renewing[name] = thread
        thread.start()


@contextmanager
def locked(
    locations: Sequence[StorageLocation], *, run: str, wait_seconds: float = 0, timing: LeaseTiming | None = None
) -> Iterator[RunLock]:
    """Hold the lease of every given location.

    Raises:
        RunInProgressError: Another run is in progress.
        StoreUnavailableError: No location takes a lock.
    """
    lock = RunLock(locations, run=run, timing=timing)
    try:
        lock.take(wait_seconds=wait_seconds)
        yield lock
    finally:
        lock.release()


def _not_exclusive(location: StorageLocation) -> StoreError:
    return StoreError(
        f"{location.name}: this location let two writers win where one may: it ignores conditions (If-Match), or looks"
        " at them before it writes",
        code="lock-not-exclusive",
        hint="two runs at the same moment may not notice each other there: never start two, or use a server that has"
        " atomic conditional writes",
        fields={"location": location.name},
    )


def _none_taken(failures: Mapping[str, ClusterGuardError]) -> StoreUnavailableError:
    reasons = "; ".join(f"{name}: {error.message}" for name, error in failures.items())
    error = StoreUnavailableError(f"no location takes a lock: {reasons}", hint="nothing was backed up")
    error.__cause__ = next(iter(failures.values()))
    return error
