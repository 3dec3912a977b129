"""The lease of a run in one location: taken, renewed, looked at and given back.

A lease is an object that names its holder and a generation. Every write of it is conditional: on the key being free,
or on the version that was read just before, so of several runs that take a lease one gets it. Each taker raises the
generation, and a holder reads the lease again before it removes anything: it may have stood still for a while.

No clock is compared with any other. The holder counts its lease from before it sent the last renewal, by its own clock.
Who waits counts from after it first saw that renewal, by its own, and waits longer: so the holder knows that its lease
is over before anybody takes it, however the time of day is set.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import orjson
from pydantic import Field, TypeAdapter

from clusterguard.errors import (
    ClusterGuardError,
    ObjectChangedError,
    ObjectCorruptError,
    ObjectExistsError,
    ObjectNotFoundError,
    RunInProgressError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.policies.copies.locations import OWN_FOLDER
from clusterguard.process import ProcessRecord
from clusterguard.stores.transfer import read_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clusterguard.policies.copies.locations import StorageLocation

__all__ = ["LOCK_KEY", "Lease", "LeaseTiming", "LocationLease"]

LOCK_KEY: Final = f"{OWN_FOLDER}/lock"
_LARGEST: Final = 4096
_LOOK_SECONDS: Final = 2.0
# What lies there may be anybody's writing, and must not stop all runs for good.
_LONGEST_LEASE_SECONDS: Final = 3600.0
_HIGHEST: Final = 2**53
_RENEWAL_ATTEMPTS: Final = 3
_MOST_FAILURES: Final = 3  # of a location that can be read and does not take the lease
_MOST_REFUSALS: Final = 10
_STUCK: Final = "another process may have stopped while it was writing the lock; look for it, or try again"
_TAKERS: Final = 2
_NO_VERSION: Final = '"00000000000000000000000000000000"'  # an ETag that no object has


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTiming:
    """How long a lease lasts without being renewed.

    Attributes:
        renew_interval: Seconds between two renewals.
        lease_duration: Seconds from a renewal to the end of the lease: several intervals, as a store may be slow.
    """

    renew_interval: float = 10
    lease_duration: float = 60


_Seconds = Annotated[float, Field(ge=0, le=_LONGEST_LEASE_SECONDS)]
_Count = Annotated[int, Field(ge=0, le=_HIGHEST)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What the lock of a location says. No two writes of it are alike.

    Attributes:
        holder: The run that holds it; empty once it was given back.
        generation: Raised each time somebody takes it.
        renewals: Raised each time the holder writes it.
        renew_interval: The holder's, in seconds; 0 where it is not told.
        lease_duration: Likewise.
        host: Name of the holder's machine.
        pid: Number of the holder's process.
        start_time: Of that process, in seconds after its machine booted.
        boot_id: The boot that ``start_time`` counts from.
        pid_namespace: Where ``pid`` counts: pods on the host's network all have its name, and are all process 1.
    """

    holder: str
    generation: _Count = 0
    renewals: _Count = 0
    renew_interval: _Seconds = 0
    lease_duration: _Seconds = 0
    host: str = ""
    pid: Annotated[int, Field(ge=0, lt=2**31)] = 0
    start_time: float = 0
    boot_id: str = ""
    pid_namespace: str = ""

    @classmethod
    def of_this_process(cls, run: str, timing: LeaseTiming) -> Lease:
        """Return what this process would write, of generation 0."""
        process = ProcessRecord.of(os.getpid())
        return cls(
            holder=run,
            host=socket.gethostname(),
            pid=process.pid,
            start_time=process.started,
            boot_id=process.boot_id,
            pid_namespace=process.pid_namespace,
            **asdict(timing),
        )

    @classmethod
    def parse(cls, data: bytes) -> Lease:
        """Return what a lock says; one that cannot be read is somebody's, and is watched like any other."""
        try:
            return _LEASE.validate_json(data)
        except ValueError:
            with suppress(ValueError, KeyError, TypeError):
                return _written_by_0_1(orjson.loads(data))
        return cls(holder="unknown", host="unknown")

    def dump(self) -> bytes:
        """Return it as it is stored."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    def is_dead(self) -> bool:
        """Return whether the holder's process has certainly ended: only its own machine can tell."""
        process = ProcessRecord(
            pid=self.pid, started=self.start_time, boot_id=self.boot_id, pid_namespace=self.pid_namespace
        )
        return self.host == socket.gethostname() and process.visible() and process.ended()

    def __str__(self) -> str:
        return f"run {self.holder} (process {self.pid} on {self.host})"


_LEASE: Final = TypeAdapter(Lease)


def _written_by_0_1(document: Mapping[str, object]) -> Lease:
    """Read a lock of before there were generations. When its process started was told by the time of day: unusable."""
    return Lease(holder=str(document["run"]), host=str(document["host"]), pid=int(str(document["pid"])))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    lease: Lease
    version: str


@dataclass(slots=True, kw_only=True)
class _Watch:
    """What a run that wants a lease knows of it.

    Attributes:
        seen: What lies there; None for nothing.
        since: When that was first seen, by our clock.
        contended: Whether somebody wrote it meanwhile.
        refusals: How often we were not fast enough for this very version.
        failures: How often the location did not take it.
    """

    seen: _Seen | None
    since: float
    contended: bool = False
    refusals: int = 0
    failures: int = 0


class LocationLease:
    """The lease of one run in one location.

    Args:
        location: The location.
        lease: What to write; its generation is that of whoever is there, raised by one.
        clock: Monotonic, in seconds.
        sleep: Called between two looks.

    Attributes:
        exclusive: Whether the location lets one writer win; otherwise another run may believe it has this lease, too.
        lost: Set once another run has taken the lease; nothing brings it back.
        failure: Why the last renewal failed; None where it succeeded.
    """

    def __init__(
        self, location: StorageLocation, lease: Lease, *, clock: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        self.exclusive = True
        self.lost: RunInProgressError | None = None
        self.failure: Exception | None = None
        self._name = location.name
        self._store = location.root
        self._mine = lease
        self._clock = clock
        self._sleep = sleep
        self._valid_until = -math.inf
        self._writing = threading.RLock()

    @property
    def valid(self) -> bool:
        """Whether the lease is held by this machine's own account."""
        return self.lost is None and self._clock() < self._valid_until

    def acquire(self, until: float) -> None:
        """Take the lease as soon as it is free, or its holder's is over.

        Args:
            until: The clock's time until which to wait for a run that is alive. One that may be dead is watched for as
                long as it takes to tell.

        Raises:
            RunInProgressError: Another run holds it, and is alive.
            ClusterGuardError: The location takes no lock.
        """
        watch = _Watch(seen=self._look(), since=self._clock())
        while True:
            if self._may_take(watch):
                if self._try(watch):
                    return
            # Only a lease that was seen to change has a holder that lives. One that does not change is watched until it
            # is over, even by a run that was told not to wait.
            elif watch.contended and watch.seen is not None and self._clock() >= until:
                raise _in_progress(watch.seen.lease, self._name)
            self._sleep(min(_LOOK_SECONDS, self._mine.renew_interval))
            self._look_again(watch, until)

    def renew(self) -> None:
        """Let the lease last for another while; one that is over is renewed as well, if nobody took it meanwhile.

        Raises:
            RunInProgressError: Somebody took it.
            ClusterGuardError: The location could not be read or written.
        """
        with self._writing:
            # Again, since a write of ours whose answer was lost may arrive in between: another version, and still ours.
            for _ in range(_RENEWAL_ATTEMPTS):
                # Counted from before the request: others count from when they see it, which is later, so we give up
                # first.
                seen, sent = self._confirm(), self._clock()
                if self._write(self._next(self._mine.generation), seen.version):
                    self._valid_until, self.failure = sent + self._mine.lease_duration, None
                    return
        raise StoreUnavailableError(f"{self._name}: somebody else is writing the lease", hint="try again")

    def keep(self, ended: threading.Event) -> None:
        """Renew the lease until the run ended or it is lost; whatever goes wrong, the next renewal may succeed."""
        while not ended.wait(self._mine.renew_interval) and self.lost is None:
            try:
                self.renew()
            except Exception as error:  # noqa: BLE001 - the door of a thread; `require` tells it
                self.failure = error

    def require(self) -> None:
        """Make sure that the lease is held, by a look at it; call this right before anything is removed.

        Raises:
            RunInProgressError: Another run has taken it.
            StoreError: It is over, and could not be renewed.
            ClusterGuardError: The location could not be looked at.
        """
        if self.lost is not None:
            raise self.lost
        try:
            with self._writing:
                # A look even while it lasts by our own clock: a machine that stood still may count less than others.
                self._confirm()
                if not self.valid:
                    self.renew()
        except RunInProgressError:
            raise
        except ClusterGuardError as error:
            raise self._unconfirmed(error) from error
        if not self.valid:  # looking may have taken long
            raise self._unconfirmed(self.failure)

    def release(self) -> None:
        """Give the lease back, if it is still ours; where that fails it runs out by itself."""
        with self._writing, suppress(ClusterGuardError):
            self._valid_until = -math.inf  # before others are told: the answer may come when one of them has it already
            for _ in range(_RENEWAL_ATTEMPTS):
                seen = self._confirm()
                if self._write(replace(self._next(self._mine.generation), holder=""), seen.version):
                    return

    def _may_take(self, watch: _Watch) -> bool:
        if watch.seen is None or not watch.seen.lease.holder or watch.seen.lease.is_dead():
            return True
        mine, theirs = self._mine, watch.seen.lease
        # An interval more than the lease lasts: what its holder sent while it lasted must have arrived, too.
        patience = max(mine.lease_duration, theirs.lease_duration) + max(mine.renew_interval, theirs.renew_interval)
        return self._clock() - watch.since >= patience

    def _try(self, watch: _Watch) -> bool:
        try:
            if self._take(watch.seen):
                return True
            watch.contended, watch.refusals = True, watch.refusals + 1
        except StoreUnavailableError:
            watch.failures += 1
            if watch.failures == _MOST_FAILURES:
                raise
        if watch.refusals == _MOST_REFUSALS:
            raise StoreUnavailableError(f"{self._name}: the lock can neither be taken nor changes", hint=_STUCK)
        return False

    def _look_again(self, watch: _Watch, until: float) -> None:
        try:
            seen = self._look()
        except StoreUnavailableError:
            if self._clock() >= until:
                raise
            return  # a location that is waited for may be away for a moment
        if (seen and seen.version) != (watch.seen and watch.seen.version):
            watch.seen, watch.since, watch.contended, watch.refusals = seen, self._clock(), True, 0

    def _take(self, seen: _Seen | None) -> bool:
        """Write our lease in the place of what was seen; return whether nobody else was faster.

        Several writers try it at once, of which one may win, and one more that names a version that never was: where
        two win, the location guards nothing.
        """
        generation = 1 if seen is None else seen.lease.generation % _HIGHEST + 1
        sent, version = self._clock(), None if seen is None else seen.version
        tries = [self._next(generation) for _ in range(_TAKERS)]
        found = _at_once([partial(self._attempt, lease, version) for lease in tries])
        if True not in found:
            failed = [each for each in found if isinstance(each, ClusterGuardError)]
            if not failed:
                return False
            if not self._is_there(tries):
                raise failed[0]
        self._valid_until = sent + self._mine.lease_duration
        tries.append(self._next(generation))
        self.exclusive = found.count(True) <= 1 and self._attempt(tries[-1], _NO_VERSION) is not True
        if not self.exclusive:
            # What is left is to write and to look, after a while, who wrote last.
            self._sleep(self._mine.renew_interval)
            return self._is_there(tries)
        return True

    def _attempt(self, lease: Lease, version: str | None) -> bool | ClusterGuardError:
        try:
            return self._write(lease, version)
        except ClusterGuardError as error:
            return error

    def _is_there(self, leases: Sequence[Lease]) -> bool:
        """Return whether one of these is what lies there: a request may have done its work although no answer came."""
        with suppress(ClusterGuardError):
            seen = self._look()
            return seen is not None and seen.lease in leases
        return False

    def _next(self, generation: int) -> Lease:
        self._mine = replace(self._mine, generation=generation, renewals=self._mine.renewals + 1)
        return self._mine

    def _confirm(self) -> _Seen:
        """Return the lease as it lies there, if it is ours."""
        seen = self._look()
        if seen is None or (seen.lease.holder, seen.lease.generation) != (self._mine.holder, self._mine.generation):
            who = "somebody removed its lock" if seen is None else f"another one took over: {seen.lease}"
            self.lost = RunInProgressError(
                f"this run stood still so long that {who} (location {self._name})",
                code="lease-lost",
                hint="let that one finish; what this one had written is kept",
                fields={"location": self._name, "holder": seen.lease.holder if seen else ""},
            )
            raise self.lost
        return seen

    def _unconfirmed(self, cause: Exception | None) -> StoreError:
        why = "" if cause is None else f": {cause}"
        return StoreError(
            f"{self._name}: this run cannot be sure that it still holds its lease{why}",
            code="lease-unconfirmed",
            hint=getattr(cause, "hint", None) or "nothing is removed without a lease; the next run does what is left",
            fields={"location": self._name},
        )

    def _look(self) -> _Seen | None:
        try:
            # The version before the bytes: a write between the two makes our own fail, and never the other way round.
            version = self._store.stat(LOCK_KEY).version
            data = read_object(self._store, LOCK_KEY, most_bytes=_LARGEST)
        except ObjectNotFoundError:
            return None
        except ObjectCorruptError:
            data = b""
        if not version:
            raise StoreError(f"{self._name}: the location tells no versions of objects, so it can keep no lock")
        return _Seen(lease=Lease.parse(data), version=version)

    def _write(self, lease: Lease, version: str | None) -> bool:
        """Write the lease in the place of a version, or where there is none; return whether that still was so."""
        try:
            with self._store.put(LOCK_KEY, if_version=version) as writer:
                writer.write(lease.dump())
        except (ObjectChangedError, ObjectExistsError):
            return False
        return True


def _in_progress(lease: Lease, location: str) -> RunInProgressError:
    return RunInProgressError(
        f"another run of this policy is in progress: {lease}",
        hint="let it end, or wait for it: --wait 1h",
        fields={"holder": lease.holder, "location": location},
    )


def _at_once(tries: Sequence[Callable[[], bool | ClusterGuardError]]) -> list[bool | ClusterGuardError]:
    with ThreadPoolExecutor(len(tries), thread_name_prefix="clusterguard-lock") as pool:
        return [each.result() for each in [pool.submit(one) for one in tries]]
