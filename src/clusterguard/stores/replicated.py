"""`ReplicatedStore`: one stream into several stores at once."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from clusterguard.errors import (
    ClusterGuardError,
    ConfigError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.stores.base import CHUNK_BYTES, check_key
from clusterguard.stores.channel import Channel, GivenUpError
from clusterguard.stores.parts import Part
from clusterguard.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from clusterguard.stores.base import ByteReader, ObjectInfo, ObjectStore, ObjectWriter

__all__ = ["ReplicatedStore"]

_T = TypeVar("_T")
_UNDERWAY_BYTES = 3 * CHUNK_BYTES


class ReplicatedStore:
    """Writes every object to several stores in parallel, and reads it from the first that has it.

    A store that fails at any verb is left out of all that follow: a record must not appear where the bytes that it is
    about did not. What it failed with is in `failures`; who needs to know that nothing was overlooked looks there, or
    sets the minimum to all of them. A key that is taken in any of the others is taken.

    A put holds 5 MiB, and what each store's own put does. Where stores upload parts, they upload the same ones, of
    which there are five at a time (25 MiB), however many stores there are. The slowest store sets the pace. The stores
    publish the object one after the first: of two writers of one key the first store tells who wins.

    Args:
        stores: By the names that people call them; in this order they are read.
        minimum: How many must have taken an object for a put to succeed, and must answer for any other verb to.

    Raises:
        ConfigError: There are fewer stores than that.
    """

    def __init__(self, stores: Mapping[str, ObjectStore], *, minimum: int = 1) -> None:
        if not 1 <= minimum <= len(stores):
            raise ConfigError(
                f"{minimum} of {len(stores)} stores shall take each object", hint="name at least so many, and one"
            )
        self._stores = dict(stores)
        self._minimum = minimum
        self._failures: dict[str, StoreError] = {}

    @property
    def url(self) -> str:
        """Where the objects are, all places together; `open_store` takes only one of them."""
        return " and ".join(store.url for store in self._stores.values())

    @property
    def failures(self) -> Mapping[str, StoreError]:
        """What the stores that were left out failed with, by their names."""
        return MappingProxyType(self._failures)

    @contextmanager
    def put(self, key: str, *, overwrite: bool = False, if_version: str | None = None) -> Iterator[ObjectWriter]:
        """Open an object for writing; see `ObjectStore.put`.

        Raises:
            ConfigError: A version is named: each store has its own.
            ObjectExistsError: The key is taken in one of the stores, and ``overwrite`` is false.
            StoreError: Fewer stores than the minimum took it. Those that did had it removed again, unless it
                replaced another one.
        """
        check_key(key)
        if if_version is not None:
            raise ConfigError(
                f"{key}: several stores together have no versions", hint="replace the object in each store by itself"
            )
        replicas = [
            _Replica(name, store, key, overwrite=overwrite)
            for name, store in self._stores.items()
            if name not in self._failures
        ]
        put = _Put(replicas, minimum=self._minimum, failures=self._failures, overwrite=overwrite)
        try:
            put.begin()
            yield put
            put.finish()
        except BaseException:
            # All puts have ended before anything is removed, or one could still publish after its object was removed.
            for replica in replicas:
                replica.abort()
            if not overwrite:
                self._remove_published(replicas, key)
            raise

    @contextmanager
    def get(self, key: str) -> Iterator[ByteReader]:
        """Open an object of the first store that has it; see `ObjectStore.get`.

        Raises:
            ObjectNotFoundError: None of the stores that answer has it.
            StoreError: Fewer stores than the minimum answer.
        """
        with ExitStack() as stack:
            yield self._first(key, lambda store: stack.enter_context(store.get(key)))

    def stat(self, key: str) -> ObjectInfo:
        """Describe an object as the first store that has it does; otherwise as `get`."""
        return _without_version(self._first(key, lambda store: store.stat(key)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield what any of the stores has whose key starts with ``prefix``, in the order of the keys.

        Raises:
            StoreError: Fewer stores than the minimum can be listed.
        """
        # Each listing is in the order of its keys, so equal ones come together, the first store's first.
        every = heapq.merge(*(self._listed(name, prefix) for name in self._usable()), key=_key_of)
        return (_without_version(next(same)) for _, same in groupby(every, key=_key_of))

    def delete(self, key: str) -> None:
        """Remove an object from every store; one that is left out may keep it.

        Raises:
            StoreError: Fewer stores than the minimum removed it.
        """
        check_key(key)
        with ThreadPoolExecutor(len(self._stores), thread_name_prefix="clusterguard-copies") as pool:
            deleted = {name: pool.submit(store.delete, key) for name, store in self._stores.items()}
        failed = {name: error for name, done in deleted.items() if (error := done.exception()) is not None}
        for name, error in failed.items():
            if not isinstance(error, ClusterGuardError):
                raise error
            if name not in self._failures:
                self._leave_out(name, error)

    def _usable(self) -> Mapping[str, ObjectStore]:
        usable = {name: store for name, store in self._stores.items() if name not in self._failures}
        if len(usable) < self._minimum:
            raise _too_few(self._failures, self._minimum, left=len(usable))
        return usable

    def _leave_out(self, name: str, error: ClusterGuardError) -> None:
        """Go on without a store, as long as enough are left."""
        self._failures[name] = _as_store_error(error)
        self._usable()

    def _listed(self, name: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            yield from self._stores[name].list(prefix)
        except ClusterGuardError as error:
            self._leave_out(name, error)

    def _first(self, key: str, ask: Callable[[ObjectStore], _T]) -> _T:
        check_key(key)
        missing = ObjectNotFoundError(f"{self.url}: {key}: there is no such object")
        for name, store in self._usable().items():
            try:
                return ask(store)
            except ObjectNotFoundError as error:
                missing = error
            except ClusterGuardError as error:
                self._leave_out(name, error)
        raise missing

    def _remove_published(self, replicas: Iterable[_Replica], key: str) -> None:
        for replica in replicas:
            if replica.published:
                try:
                    replica.store.delete(key)
                except ClusterGuardError as error:
                    self._failures[replica.name] = StoreError(
                        f"{key} was stored, and could not be removed again: {error.message}", hint=error.hint
                    )


class _Put:
    """One object on its way into several stores."""

    def __init__(
        self, replicas: Sequence[_Replica], *, minimum: int, failures: dict[str, StoreError], overwrite: bool
    ) -> None:
        self._live = list(replicas)
        self._minimum = minimum
        self._failures = failures
        self._overwrite = overwrite
        self._part_size = max((replica.part_size for replica in replicas), default=CHUNK_BYTES)
        self._spare: deque[bytearray] = deque()
        self._gathered = bytearray(self._part_size)
        self._filled = 0

    def begin(self) -> None:
        """Open the object in every store; a key that is taken in one of them is taken."""
        # All are begun before one is waited for: each may take a few round trips.
        for replica in self._live:
            replica.start()
        for replica in self._live:
            replica.entered.wait()
        self._drop_failed()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes, waiting for the slowest store."""
        rest = memoryview(data).cast("B")
        while rest:
            taken = rest[: self._part_size - self._filled]
            # Through a view: what is assigned to a part of a bytearray itself is copied twice.
            with memoryview(self._gathered) as gathered:
                gathered[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rest = rest[len(taken) :]
            if self._filled == self._part_size:
                self._send()

    def finish(self) -> None:
        """Publish the object: in the first store, which tells whether the key is still free, then in the others."""
        if self._filled:
            self._send()
        self._drop_failed()
        if not self._overwrite:
            self._publish_first()
        for replica in self._live:
            replica.publish()
        for replica in self._live:
            replica.wait()
        self._drop_failed()

    def _publish_first(self) -> None:
        while self._live and not self._live[0].published:
            self._live[0].publish()
            self._live[0].wait()
            self._drop_failed()

    def _send(self) -> None:
        # One for all of them: another buffer is filled while the slowest still has this part before it.
        part = Part(self._gathered, self._filled, holders=len(self._live), spare=self._spare)
        for replica in self._live:
            replica.send(part)
        self._gathered = self._spare.pop() if self._spare else bytearray(self._part_size)
        self._filled = 0
        self._drop_failed()

    def _drop_failed(self) -> None:
        """Go on without the stores that failed, here or when they were asked for something else meanwhile."""
        for replica in [each for each in self._live if each.failure is None and each.name in self._failures]:
            self._live.remove(replica)
            replica.abort()
        for replica in [each for each in self._live if each.failure is not None]:
            self._live.remove(replica)
            self._failures[replica.name] = self._as_store_error(replica.failure)
        if len(self._live) < self._minimum:
            raise _too_few(self._failures, self._minimum, left=len(self._live))

    def _as_store_error(self, failure: BaseException | None) -> StoreError:
        # Before anything was published the key is the caller's mistake; after that, one store differs from the others.
        if isinstance(failure, ObjectExistsError) and not any(each.published for each in self._live):
            raise failure
        if not isinstance(failure, ClusterGuardError):
            raise failure or AssertionError  # a mistake in the program is nothing to go on after
        return _as_store_error(failure)


class _Replica:
    """One store's put, in a thread of its own."""

    def __init__(self, name: str, store: ObjectStore, key: str, *, overwrite: bool) -> None:
        self.name = name
        self.store = store
        self.published = False
        self.failure: BaseException | None = None
        self.entered = threading.Event()
        self._key = key
        self._overwrite = overwrite
        self.part_size: int = getattr(store, "part_size", CHUNK_BYTES)
        self._channel: Channel[Part] = Channel(pieces=max(1, _UNDERWAY_BYTES // self.part_size))
        self._thread = Worker(self._put, name=f"clusterguard-copy-{name}")

    def start(self) -> None:
        """Begin the put."""
        self._thread.start()

    def send(self, part: Part) -> None:
        """Hand the next part over; nothing comes of it once the put failed."""
        if self.failure is None:
            with suppress(_RefusedError):
                self._channel.send(part)

    def publish(self) -> None:
        """Let the object appear."""
        self._channel.end()

    def abort(self) -> None:
        """Give the put up and wait until it is."""
        self._channel.end(GivenUpError())
        if self._thread.ident is not None:
            self._thread.join()

    def wait(self) -> None:
        """Wait until the put is done or failed."""
        self._thread.join()

    def _put(self) -> None:
        try:
            with self.store.put(self._key, overwrite=self._overwrite) as writer:
                self.entered.set()
                write_part = getattr(writer, "write_part", None) or partial(_write, writer)
                while part := self._channel.receive():
                    write_part(part)
            self.published = True
        except BaseException as error:  # noqa: BLE001 - judged by the thread that writes
            self.failure = error
            self._channel.refuse(_RefusedError())
        finally:
            self.entered.set()


class _RefusedError(Exception):
    """The store of a replica takes nothing more; the replica knows why."""


def _write(writer: ObjectWriter, part: Part) -> None:
    writer.write(part.body)
    part.let_go()


def _without_version(info: ObjectInfo) -> ObjectInfo:
    """Each store has its own, and a put here could not name all of them."""
    return replace(info, version="")


def _key_of(info: ObjectInfo) -> str:
    return info.key


def _as_store_error(failure: ClusterGuardError) -> StoreError:
    if isinstance(failure, StoreError):
        return failure
    wrapped = StoreError(failure.message, hint=failure.hint, code=failure.code, fields=failure.fields)
    wrapped.__cause__ = failure
    return wrapped


def _too_few(failures: Mapping[str, StoreError], minimum: int, *, left: int) -> StoreError:
    told = "; ".join(f"{name}: {error.message}" for name, error in failures.items())
    first = next(iter(failures.values()))
    kind = StoreUnavailableError if all(error.retryable for error in failures.values()) else StoreError
    error = kind(
        f"too few stores answer ({left} of {minimum} required): {told}",
        code="too-few-stores",
        fields={"minimum": minimum, "left": left, "failed": list(failures)},
        hint=first.hint,
    )
    error.__cause__ = first
    return error
