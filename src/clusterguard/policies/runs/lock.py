"""One run at a time: a lock in each location, kept alive while the run is.

A lock is an object that only its first writer can create. Its holder writes a new number into it every few seconds, so
a lock whose number stands still belongs to nobody any more. No clock is compared with any other: one that jumps frees
nothing and holds nothing.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import orjson
import psutil

from clusterguard.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    RunInProgressError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.policies.copies.places import OWN_FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clusterguard.policies.copies.places import Place
    from clusterguard.stores.base import ObjectStore

__all__ = ["Holder", "RunLock", "locked"]

_KEY: Final = f"{OWN_FOLDER}/lock"
_LARGEST: Final = 4096
_LOOK_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who runs.

    Attributes:
        run: The run.
        host: The machine's name.
        space: The boot and the process namespace: pods on the host's network all bear its name, and are all process 1.
        pid: The process there.
        born: When that process began, in seconds by its own machine: a number that is given out again is told by it.
        beat: Grows while the run is alive.
    """

    run: str
    host: str
    pid: int
    born: float
    space: str = ""
    beat: int = 0

    @classmethod
    def this_process(cls, run: str) -> Holder:
        """Return this process as a holder."""
        process = psutil.Process()
        return cls(
            run=run, host=socket.gethostname(), pid=process.pid, born=process.create_time(), space=_process_space()
        )

    def is_dead(self) -> bool:
        """Return whether it certainly runs no more: only its own machine can tell."""
        if not self.space or (self.host, self.space) != (socket.gethostname(), _process_space()):
            return False
        try:
            return psutil.Process(self.pid).create_time() != self.born
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def __str__(self) -> str:
        return f"run {self.run} (process {self.pid} on {self.host})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often a lock is written, and how long it must stand still to be nobody's.

    Attributes:
        beat_seconds: Between two numbers.
        patience_seconds: Several beats: a store may be slow.
    """

    beat_seconds: float = 10
    patience_seconds: float = 60


class RunLock:
    """The locks of one run; use `locked`.

    Args:
        places: The locations that can be read.
        run: The run.
        rhythm: How often it is written.
    """

    def __init__(self, places: Sequence[Place], *, run: str, rhythm: Rhythm) -> None:
        self._places = places
        # What the locations that do not take a lock failed with, by their names.
        self.failures: dict[str, StoreError] = {}
        self._me = Holder.this_process(run)
        self._rhythm = rhythm
        self._held: list[ObjectStore] = []
        self._lost: Holder | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="clusterguard-lock", daemon=True)

    def take(self, *, wait_seconds: float, sleep: Callable[[float], object] = time.sleep) -> None:  # noqa: TID251 - a parameter
        """Take the locks, always in the same order, so that two runs never wait for each other.

        Args:
            wait_seconds: How long to wait for a run that is alive.
            sleep: Called between two looks.

        A location that takes none takes no backup either; it is left out, and told of in ``failures``.

        Raises:
            RunInProgressError: Another run holds one of them, and is alive.
            StoreUnavailableError: No location takes one.
        """
        until = time.monotonic() + wait_seconds
        for place in self._places:
            try:
                self._take_from(place.root, until, sleep)
            except StoreError as error:
                self.failures[place.name] = error
            else:
                self._held.append(place.root)
        if self.failures and not self._held:
            reasons = "; ".join(f"{name}: {error.message}" for name, error in self.failures.items())
            raise StoreUnavailableError(f"no location takes a lock: {reasons}", hint="nothing was backed up")
        self._thread.start()

    def _take_from(self, store: ObjectStore, until: float, sleep: Callable[[float], object]) -> None:
        while (holder := self._take(store)) is not None:
            fate = "ended" if holder.is_dead() else self._watch(store, holder, sleep)
            if fate == "ended":
                self._clear(store, holder)
            elif fate == "alive" and time.monotonic() >= until:
                raise RunInProgressError(
                    f"another run of this policy is at work: {holder}",
                    hint="wait for it, or let this one wait: --wait 1h",
                )

    def release(self) -> None:
        """Give back what is held; a location that cannot be reached keeps a lock that stands still."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        for store in self._held:
            with suppress(StoreError):
                if (holder := _read(store)) is not None and holder.run == self._me.run:
                    store.delete(_KEY)

    def require(self) -> None:
        """Make sure that the locks are still ours: after a pause of the whole machine another run may have taken them.

        Raises:
            RunInProgressError: It has.
        """
        if self._lost is not None:
            raise RunInProgressError(
                f"this run stood still so long that another one took over: {self._lost}",
                hint="let that one finish; what this one had written is kept",
            )

    def _take(self, store: ObjectStore) -> Holder | None:
        """Take one lock, or return who has it."""
        try:
            _write(store, self._me, overwrite=False)
        except ObjectExistsError:
            return _read(store)
        return None

    def _watch(
        self, store: ObjectStore, holder: Holder, sleep: Callable[[float], object]
    ) -> Literal["alive", "ended", "gone"]:
        """Watch a lock until it moves, is given back, or has stood still for long enough."""
        until = time.monotonic() + self._rhythm.patience_seconds
        while time.monotonic() < until:
            sleep(min(_LOOK_SECONDS, self._rhythm.beat_seconds))
            seen = _read(store)
            if seen is None:
                return "gone"
            if seen != holder:
                return "alive"
        return "ended"

    def _clear(self, store: ObjectStore, holder: Holder) -> None:
        """Remove a lock that is nobody's any more, unless somebody else did so meanwhile and has taken it."""
        if _read(store) == holder:
            store.delete(_KEY)

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(self._rhythm.beat_seconds):
            beat += 1
            for store in self._held:
                # A location that is away for a while must not end the run; it is asked again at the next beat.
                with suppress(StoreError):
                    seen = _read(store)
                    if seen is not None and seen.run != self._me.run:
                        self._lost = seen
                        return
                    _write(store, Holder(**{**asdict(self._me), "beat": beat}), overwrite=True)


@contextmanager
def locked(
    places: Sequence[Place], *, run: str, wait_seconds: float = 0, rhythm: Rhythm | None = None
) -> Iterator[RunLock]:
    """Hold the lock of every given location.

    Raises:
        RunInProgressError: Another run is at work.
        StoreError: No location takes a lock.
    """
    lock = RunLock(places, run=run, rhythm=rhythm or Rhythm())
    try:
        lock.take(wait_seconds=wait_seconds)
        yield lock
    finally:
        lock.release()


def _process_space() -> str:
    """Return what tells the process numbers of one boot and one container from all others; nothing where none does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _read(store: ObjectStore) -> Holder | None:
    try:
        with store.get(_KEY) as reader:
            return Holder(**orjson.loads(reader.read(_LARGEST)))
    except ObjectNotFoundError:
        return None
    except (orjson.JSONDecodeError, TypeError):
        # Half of another program's writing, or nobody's: like a lock whose holder does not move.
        return Holder(run="unknown", host="unknown", pid=0, born=0)


def _write(store: ObjectStore, holder: Holder, *, overwrite: bool) -> None:
    with store.put(_KEY, overwrite=overwrite) as writer:
        writer.write(orjson.dumps(asdict(holder)))
