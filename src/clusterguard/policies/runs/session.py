"""What the parts of one run share: the locations that can be reached, what is known of them, and what was done."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard.errors import ClusterGuardError, RunInProgressError
from clusterguard.model.progress import ProgressSink, ignore_progress
from clusterguard.policies.copies.locations import OWN_FOLDER
from clusterguard.policies.report import StepReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from clusterguard.policies.copies.catalog import BackupEntry, Catalog
    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.policy import Policy
    from clusterguard.policies.report import Outcome, Verb
    from clusterguard.policies.runs.lock import RunLock
    from clusterguard.stores.encryption import Encryption

__all__ = ["Session", "Task", "new_run_id"]


def new_run_id(now: datetime) -> str:
    """Return an identifier that no other run has, and that sorts by time."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass(slots=True)
class Task:
    """A step while it is done: the code that does it sets its outcome."""

    detail: str = ""
    digest: str = ""  # SHA-256 of the stored bytes
    size: int | None = None
    outcome: Outcome = "ok"  # ``ok`` unless it is said otherwise
    code: str = ""  # stable name of what is wrong; see `StepReport`
    hint: str = ""


@dataclass(slots=True, kw_only=True)
class Session:
    """One run of a policy, shared by its parts: first what it was given, then what is known and done so far."""

    policy: Policy
    run: str
    encryption: Encryption  # of the copies; decrypts them where the key is to hand
    environ: Mapping[str, str]  # where secrets and drills find variables
    on_step: Callable[[StepReport], object] = lambda _: None  # called with each step as it ends
    progress: ProgressSink = ignore_progress
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    trust_clock: bool = False  # remove by age whatever speaks against this machine's clock

    lock: RunLock | None = None  # the leases of this run, see `require_lease`; None for a session that only looks
    locations: tuple[StorageLocation, ...] = ()  # that answered
    catalogs: dict[str, Catalog] = field(default_factory=dict)  # what is known of each of them, by its name
    steps: list[StepReport] = field(default_factory=list)
    failed_before: set[str] = field(default_factory=set)  # sources whose last run had failed when this one began
    # How far each location's clock is ahead of this machine's, where it has one of its own.
    location_clocks: dict[str, timedelta] = field(default_factory=dict)
    # Locations that answer, and to which nothing more is copied in this run: their disk is full, say.
    takes_no_more: set[str] = field(default_factory=set)
    _guard: threading.RLock = field(default_factory=threading.RLock)

    @property
    def scratch(self) -> Path | None:
        """The folder for databases on their way, where the policy names one."""
        return Path(self.policy.scratch) if self.policy.scratch else None

    @property
    def suffix(self) -> str:
        """The part of the run's identifier that is its own alone: a few letters and digits."""
        return self.run.rpartition("-")[2]

    @contextmanager
    def step(
        self, verb: Verb, *, source: str = "", location: str = "", backup: str = "", on_error: Outcome = "failed"
    ) -> Iterator[Task]:
        """Do one thing, and report it; an error is its outcome, and the run goes on with the next thing.

        Raises:
            RunInProgressError: Another run took over, which is reported, too: this one must not go on.
        """
        began, task, lost = time.monotonic(), Task(), None
        try:
            yield task
        except ClusterGuardError as error:
            task.outcome, task.detail, task.code, task.hint = on_error, error.message, error.code, error.hint or ""
            lost = error if isinstance(error, RunInProgressError) else None
        seconds = round(time.monotonic() - began, 3)
        report = StepReport(
            verb=verb,
            at=self.now(),
            source=source,
            location=location,
            backup=backup,
            seconds=seconds,
            **asdict(task),
        )
        self.add(report)
        if lost is not None:
            raise lost

    def require_lease(self, location: StorageLocation) -> None:
        """Look whether this run still holds its lease in a location, before anything there is replaced or removed.

        Raises:
            RunInProgressError: Another run has taken over.
            StoreError: The lease ran out, or could not be looked at.
        """
        if self.lock is not None:
            self.lock.require(location.name)

    def add(self, report: StepReport) -> None:
        """Take down what was done."""
        with self._guard:
            self.steps.append(report)
            self.on_step(report)

    def know(self, location: StorageLocation, entries: Iterable[BackupEntry]) -> None:
        """Put backups into a location's catalog, in the place of what it said of them."""
        with self._guard:
            self.catalogs[location.name] = self.catalogs[location.name].with_entries(entries)

    def forget(self, location: StorageLocation, keys: Iterable[str]) -> None:
        """Take backups out of a location's catalog."""
        with self._guard:
            self.catalogs[location.name] = self.catalogs[location.name].without(keys)

    def update(self, location: StorageLocation, **changes: object) -> None:
        """Change other fields of a location's catalog."""
        with self._guard:
            self.catalogs[location.name] = replace(self.catalogs[location.name], **changes)  # type: ignore[arg-type]  # as replace has it

    def leave_out(self, name: str, error: ClusterGuardError) -> None:
        """Do without a location for the rest of the run, and say so once."""
        with self._guard:
            self.locations = tuple(location for location in self.locations if location.name != name)
            with self.step("copy", location=name) as task:
                task.outcome, task.detail, task.code = "warning", f"left out of this run: {error.message}", error.code
                task.hint = error.hint or "the next run makes the missing copies"

    def answers(self, location: StorageLocation) -> bool:
        """Return whether a location that failed at something still answers; one that does not is left out."""
        if location not in self.locations:
            return False
        try:
            next(location.root.list(f"{OWN_FOLDER}/"), None)
        except ClusterGuardError as error:
            self.leave_out(location.name, error)
            return False
        return True

    def save_catalogs(self) -> None:
        """Write every catalog to its location; a failure is a warning, as catalogs are rebuilt from the records."""
        for location in self.locations:
            try:
                self.require_lease(location)
                location.save_catalog(self.catalogs[location.name], now=self.now())
            except ClusterGuardError as error:
                with self.step("catalog", location=location.name) as task:
                    task.outcome, task.code, task.hint = "warning", error.code, error.hint or ""
                    task.detail = f"{error.message}; the next run reads the backups' records instead"
