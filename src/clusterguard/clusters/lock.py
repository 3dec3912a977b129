"""One lock for each cluster, in the cluster itself: held by whoever breaks things in it, and seen from every machine.

It is a Lease of Kubernetes. Each write names the version of the Lease that it replaces, so that of two at once one is
refused. The holder renews it. Whether a holder lives is found out by whoever waits, by watching for as long as the
lease lasts and by its own clock: times of two machines are never compared.

An etcd restore takes the Lease back in time as well: it then says what it said when the snapshot was saved, which is
that nobody holds the lock, or somebody who is gone. So the holder writes itself into it again as soon as the API server
is back (`restored_under_lock`), and whoever waits believes a holder to be gone only once it has been out of the Lease
for a while. A run that came in between finds at its next step that the lock is not its own any more
(`ClusterLock.require`).

Two other locks are not this one: that of a policy's runs (`clusterguard.policies.runs.lock`), and that of a restore of
etcd (`exclusive` of a `clusterguard.clusters.base.ControlPlane`).

Sources of facts: kubernetes.io/docs/concepts/architecture/leases; the leader election of client-go has the same rules.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Self

from clusterguard.clusters.kube_discovery import ApiResource
from clusterguard.errors import (
    ClusterGuardError,
    ClusterLockedError,
    ClusterUnreachableError,
    ConflictError,
    ForbiddenError,
    ResourceNotFoundError,
    WaitTimeoutError,
)
from clusterguard.process import elapsed
from clusterguard.retrying import poll_until
from clusterguard.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.clusters.kube import KubeClient

__all__ = ["ClusterLock", "Observation", "State", "lock_cluster", "restored_under_lock"]

NAMESPACE: Final = "kube-system"
NAME: Final = "clusterguard"
LEASE: Final = ApiResource(
    group="coordination.k8s.io", version="v1", kind="Lease", plural="leases", namespaced=True, verbs=frozenset()
)
DURATION_SECONDS: Final = 40.0  # as the Lease of a node
_RENEWALS = 4  # within a duration
_LONGEST_DURATION_SECONDS = 300.0  # whatever a Lease says that was edited
_POLL_SECONDS = 1.0
_SETTLE_SECONDS = 10.0
_LONGEST_GAP_SECONDS = 10.0  # between two looks of a waiter that is awake
_LONGEST_DOUBT_SECONDS = 2 * _LONGEST_DURATION_SECONDS  # of a waiter in a cluster that hardly answers
_REWRITE_SECONDS = 120.0
_WRITES = 5


# ---- what a waiter makes of what it sees: pure -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """The Lease as it is in the cluster: who holds it (empty: nobody), and for how many seconds unless renewed."""

    holder: str
    duration: float
    uid: str
    version: str
    transitions: int = 0

    @classmethod
    def of(cls, manifest: Any) -> LeaseRecord:  # noqa: ANN401 - an object of Kubernetes
        """Read it from the object, whatever somebody may have written into that."""
        spec, metadata = manifest.get("spec") or {}, manifest["metadata"]
        duration = float(spec.get("leaseDurationSeconds") or DURATION_SECONDS)
        return cls(
            holder=str(spec.get("holderIdentity") or ""),
            duration=min(duration, _LONGEST_DURATION_SECONDS),
            uid=str(metadata.get("uid", "")),
            version=str(metadata.get("resourceVersion", "")),
            transitions=int(spec.get("leaseTransitions") or 0),
        )


class State(Enum):
    """What a waiter may believe of the lock."""

    FREE = "nobody holds it"
    HELD = "its holder lives"
    ABANDONED = "its holder is gone"
    UNCLEAR = "it has not been watched for long enough"


class Observation:
    """What one waiter has seen of a Lease, and since when it has not changed.

    Args:
        settle_seconds: How long a holder must be out of the Lease before it is believed to be gone: a restore of etcd
            takes the Lease back to before it, until the holder has written itself into it again.

    Attributes:
        holder: Who was last seen to hold it; empty if nobody ever was.
        state: What to believe of it.
    """

    def __init__(self, *, settle_seconds: float = _SETTLE_SECONDS) -> None:
        self._settle_seconds = settle_seconds
        self._seen: tuple[str, str, str] | None = None
        self._since = 0.0
        self._last = 0.0
        self._alive = False
        self.holder = ""
        self.state = State.UNCLEAR

    def see(self, lease: LeaseRecord | None, now: float) -> State:
        """Take in what the cluster says now, by this machine's clock, and return what that means."""
        self.state = self._judge(lease, now)
        return self.state

    def _judge(self, lease: LeaseRecord | None, now: float) -> State:
        # Never by the times in the Lease, which are of another machine's clock: only by how long it has not changed
        # before us.
        held = lease is not None and bool(lease.holder)
        seen = (lease.uid, lease.version, lease.holder) if lease is not None and held else ("", "", "")
        if now - self._last > _LONGEST_GAP_SECONDS:
            self.miss()  # this machine was asleep, and so may the holder's have been
        self._last = now
        if seen != self._seen:
            self._alive = self._seen is not None
            self._seen, self._since = seen, now
        unchanged = now - self._since
        if lease is None or not held:
            return State.FREE if not self.holder or unchanged >= self._settle_seconds else State.UNCLEAR
        self.holder = lease.holder
        if unchanged >= lease.duration:
            return State.ABANDONED
        return State.HELD if self._alive else State.UNCLEAR

    def miss(self) -> None:
        """Take in that the cluster did not answer: its holder could not renew it either, so watching begins again."""
        self._seen, self.state = None, State.UNCLEAR


# ---- the lock ----------------------------------------------------------------------------------------------


class ClusterLock:
    """The lock of one cluster; `lock_cluster` makes one.

    Its clock must go on while the machine sleeps; without ``background`` nothing but `renew` renews it.
    """

    def __init__(
        self,
        api: KubeClient,
        *,
        holder: str,
        duration_seconds: float = DURATION_SECONDS,
        clock: Callable[[], float] = elapsed,
        sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
        background: bool = True,
    ) -> None:
        self.holder = holder
        self.thread = threading.get_ident()
        self._api = api
        self._duration = duration_seconds
        self._clock = clock
        self._sleep = sleep
        self._background = background
        self._written: LeaseRecord | None = None
        self._acquired = ""
        self._renewed = 0.0
        self._lost_to: str | None = None
        self._rewound = False
        self._writing = threading.RLock()
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._renewer: Worker | None = None
        self._users = 1

    @property
    def server(self) -> str:
        """The API server of the cluster."""
        return self._api.server

    def held_by(self) -> str:
        """Return who holds the lock now, as far as the Lease says; empty for nobody."""
        lease = self._read()
        return "" if lease is None else lease.holder

    def shared(self) -> Self:
        """Return the same lock, which ends once it has been released as often as it was taken."""
        self._users += 1
        return self

    def acquire(self, *, wait_seconds: float = 0.0, on_wait: Callable[[str], object] = lambda _: None) -> None:
        """Take the lock, if need be from a holder that is gone.

        That takes a moment where somebody holds it: until it is seen to be renewed, or to have run out.

        Args:
            wait_seconds: How long to wait for a holder that lives.
            on_wait: Called once with who is waited for.

        Raises:
            ClusterLockedError: Another run holds it.
            ClusterUnreachableError: The cluster does not answer.
            ForbiddenError: We may not write Leases there.
        """
        observation, deadline, told = Observation(), self._clock() + wait_seconds, False
        while not self._try(observation):
            if not told:
                on_wait(f"the cluster is in use, or was: {observation.holder}")
            told, late = True, self._clock() - deadline
            if late >= (0 if observation.state is State.HELD else _LONGEST_DOUBT_SECONDS):
                raise _locked(self.server, observation.holder)
            self._sleep(_POLL_SECONDS)
        if self._background:
            self._renewer = Worker(self._keep, name="clusterguard-cluster-lock")
            self._renewer.start()

    def _try(self, observation: Observation) -> bool:
        """Look once, and take the lock where it is free."""
        try:
            lease = self._read()
            if observation.see(lease, self._clock()) not in {State.FREE, State.ABANDONED}:
                return False
            self._write(lease)
        except ConflictError:
            observation.holder = observation.holder or "another run"  # which was quicker
            return False
        except (ClusterUnreachableError, ForbiddenError):
            if not observation.holder:
                raise
            # Whoever holds it may be restoring etcd; an API server that has just started forbids what it will allow.
            observation.miss()
            return False
        return True

    def require(self) -> None:
        """Make sure that the lock is still ours, and renew it.

        A cluster that does not answer gives it to nobody, so that is no reason to stop.

        Raises:
            ClusterLockedError: Another run has taken it: this one was silent for longer than the lease holds, or
                somebody took the cluster back in time.
        """
        if self._lost_to is None:
            with suppress(ClusterUnreachableError, ForbiddenError):
                self.renew()
        if self._lost_to is not None:
            raise _lost(self.server, self._lost_to)

    def renew(self) -> None:
        """Renew the lock once, or find out that it was lost."""
        with self._writing:
            if self._ended.is_set() or self._lost_to is not None:
                return
            if not (ready := self._api.ready()):  # without its etcd it would keep us waiting for a minute
                raise ClusterUnreachableError(f"{self.server} is not ready: {ready.failing}")
            for left in reversed(range(_WRITES)):
                lease = self._read()
                if self._is_lost(lease):
                    self._lost_to = lease.holder if lease is not None else ""
                    return
                try:
                    self._write(lease)
                except ConflictError:
                    if left:
                        continue
                    raise
                return

    def release(self) -> None:
        """Release the lock and delete the Lease; in a cluster that does not answer it expires by itself."""
        self._users -= 1
        if self._users:
            return
        _HELD.pop(self.holder, None)
        self._ended.set()
        self._wake.set()
        if self._renewer is not None:
            self._renewer.join()
        with self._writing:
            if self._written is None or self._lost_to is not None:
                return
            if not (ready := self._api.ready()):
                raise ClusterUnreachableError(
                    f"{self.server} is not ready, so its lock stays: {ready.failing}",
                    hint=f"it runs out {self._duration:g} s after the cluster is back",
                )
            # By uid and version: since our last renewal somebody may have taken it.
            with suppress(ResourceNotFoundError, ConflictError):  # gone, or somebody else's by now
                self._api.delete(LEASE, NAME, NAMESPACE, uid=self._written.uid, resource_version=self._written.version)

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Hold the lock while etcd is restored in the ``with`` block: what the Lease says then is older than we are.

        Where the Lease cannot be written again afterwards, the lock counts as lost, of which `require` tells: a restore
        that worked is not called a failure.
        """
        self.require()
        self._rewound = True
        self._wake.set()
        try:
            yield
            self._write_again()
        except BaseException:
            with suppress(ClusterGuardError):  # what went wrong matters more
                self.renew()
            raise
        finally:
            self._rewound = False

    def _write_again(self) -> None:
        def missing() -> str:
            try:
                self.renew()
            except (ClusterUnreachableError, ConflictError, ForbiddenError) as error:  # its rules may not be loaded yet
                return error.message
            return ""

        try:
            poll_until(
                missing,
                what="the lock is written again",
                seconds=_REWRITE_SECONDS,
                every=_POLL_SECONDS,
                sleep=self._sleep,
                clock=self._clock,
            )
        except WaitTimeoutError:
            self._lost_to = ""

    def _is_lost(self, lease: LeaseRecord | None) -> bool:
        if self._rewound or (lease is not None and lease.holder == self.holder):
            return False
        # A Lease without a holder was removed by hand, unless somebody had the time to come and go.
        return bool(lease is not None and lease.holder) or self._clock() - self._renewed >= self._duration

    def _keep(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(_POLL_SECONDS if self._rewound else self._duration / _RENEWALS)
            self._wake.clear()
            # Whatever goes wrong passes or shows at the next step: a thread that ends would lose the lock for sure.
            with suppress(Exception):
                self.renew()

    def _read(self) -> LeaseRecord | None:
        try:
            return LeaseRecord.of(self._api.get(LEASE, NAME, NAMESPACE))
        except ResourceNotFoundError:
            return None

    def _write(self, lease: LeaseRecord | None) -> None:
        """Write ourselves into the Lease, in the place of what was read from it."""
        # Counted from before the request: the Lease must not seem to last longer to us than to those who watch it.
        began = self._clock()
        manifest = self._manifest(lease)
        try:
            made = self._api.create(manifest) if lease is None else self._api.replace(manifest)
        except ResourceNotFoundError as error:
            if lease is None:
                raise  # there is no such namespace
            raise ConflictError(error.message) from error
        self._written, self._renewed = LeaseRecord.of(made), began

    def _manifest(self, lease: LeaseRecord | None) -> dict[str, Any]:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        ours = lease is not None and lease.holder == self.holder
        self._acquired = self._acquired or now
        before = lease.transitions if lease is not None else 0
        version = {} if lease is None else {"uid": lease.uid, "resourceVersion": lease.version}
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {
                "name": NAME,
                "namespace": NAMESPACE,
                "labels": {"app.kubernetes.io/managed-by": "clusterguard"},
                **version,
            },
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": max(1, round(self._duration)),
                "renewTime": now,
                "acquireTime": self._acquired,
                "leaseTransitions": before if ours or lease is None else before + 1,
            },
        }


_HELD: dict[str, ClusterLock] = {}  # by who holds them; those of this process


def lock_cluster(
    api: KubeClient, *, what: str, wait_seconds: float = 0.0, on_wait: Callable[[str], object] = lambda _: None
) -> ClusterLock:
    """Take the lock of a cluster and return it; whoever breaks something there calls `ClusterLock.require` before.

    The thread that holds it already gets the same again, as often as it asks; each has to be released. Errors are
    those of `ClusterLock.acquire`.

    Args:
        api: The cluster.
        what: What is about to happen there, as others are told.
        wait_seconds: How long to wait for another run.
        on_wait: Called once with who is waited for.
    """
    if not (ready := api.ready()):  # one without its etcd would keep us waiting for a minute
        raise ClusterUnreachableError(f"{api.server} is not ready: {ready.failing}")
    token = secrets.token_hex(4)
    lock = ClusterLock(api, holder=f"{what}, on {socket.gethostname()}, process {os.getpid()} ({token})")
    mine = _HELD.get(lock.held_by())
    if mine is not None and mine.thread == lock.thread:
        return mine.shared()
    lock.acquire(wait_seconds=wait_seconds, on_wait=on_wait)
    _HELD[lock.holder] = lock
    return lock


@contextmanager
def restored_under_lock(server: Callable[[], str]) -> Iterator[None]:
    """Keep this process's locks of a cluster (by its API server's URL) over a restore of its etcd."""
    with contextlib.ExitStack() as stack:
        for lock in tuple(_HELD.values()):
            if lock.server == server():
                stack.enter_context(lock.rewound())
        yield


def _locked(server: str, holder: str) -> ClusterLockedError:
    return ClusterLockedError(
        f"{server}: another run is at work in this cluster: {holder}",
        fields={"server": server, "holder": holder},
        hint="let it end, or wait for it: --lock-timeout 30m, with pytest --drill-lock-timeout 30m",
    )


def _lost(server: str, holder: str) -> ClusterLockedError:
    return ClusterLockedError(
        f"{server}: the lock of this cluster was lost to {holder or 'another run'}",
        code="cluster-lock-lost",
        fields={"server": server, "holder": holder},
        hint="this run was silent for too long, or somebody restored the cluster's etcd; look at the cluster",
    )
