"""The running programs of one embedded cluster: start one, stop some, say why one died."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from clusterguard.clusters.embedded.commands import Layout, argv_of
from clusterguard.clusters.embedded.records import ClusterRecord
from clusterguard.clusters.records import read_record, write_record
from clusterguard.errors import ClusterError, ProvisioningError, ended_at_once
from clusterguard.process import spawn, stop_together, tail
from clusterguard.retrying import poll_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from clusterguard.process import ProcessRecord

__all__ = ["Programs"]

_POLL_SECONDS = 0.03
_PORT_TAKEN = "address already in use"


@dataclass(slots=True)
class Programs:
    """Starts and stops the programs of a cluster, and keeps its record true while doing so."""

    layout: Layout
    record: ClusterRecord
    outlive_us: bool
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of each program, beside the usual ones
    log_starts: dict[str, int] = field(default_factory=dict)
    sleep: Callable[[float], None] = field(default=time.sleep)  # noqa: TID251 - the real one; tests pass their own

    def add_program(self, name: str, path: str) -> None:
        """Make a program known that the cluster does not always run."""
        self.record = replace(self.record, programs={**self.record.programs, name: path})
        write_record(self.layout.folder, self.record)

    def start(
        self,
        *names: str,
        env: Mapping[str, str] | None = None,
        outlive_us: bool | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        """Start programs that do not run already; they outlive us as the cluster does, unless told otherwise."""
        for name in names:
            if self.running(name):
                continue
            # What an earlier run of it said would only mislead whoever reads why this one ended.
            self.log_starts[name] = self.log(name).stat().st_size if self.log(name).exists() else 0
            argv = argv_of(name, programs=self.record.programs, layout=self.layout, ports=self.record.ports)
            spawn(
                [*argv, *self.flags.get(name, ()), *flags],
                log=self.log(name),
                outlive_us=self.outlive_us if outlive_us is None else outlive_us,
                cwd=self.layout.folder,
                env=env,
                write_down=partial(self._write_down, name),
            )

    def stop(self, *names: str, grace_seconds: float) -> None:
        """Ask all of them to end, then kill those left after the grace; returns once all are gone."""
        processes = [self.record.processes[name] for name in names if name in self.record.processes]
        stop_together(processes, grace_seconds=grace_seconds)

    def running(self, name: str) -> bool:
        """Return whether a program runs."""
        return name in self.record.processes and self.record.processes[name].alive()

    def refresh(self) -> None:
        """Read again what runs in the cluster: another process may have restarted or removed it since."""
        record = read_record(self.layout.folder, ClusterRecord)
        if record is None:
            raise ClusterError(f"cluster {self.record.name!r} was taken down meanwhile")
        self.record = record

    def give_away(self) -> None:
        """Let the cluster belong to nobody, so that it stays when this process ends."""
        self.record = replace(self.record, owner=None)
        write_record(self.layout.folder, self.record)

    def log(self, name: str) -> Path:
        """Return the log of a program."""
        return self.layout.logs / f"{name}.log"

    def wait(
        self,
        name: str,
        what: str,
        ready: Callable[[], str | None],
        *,
        seconds: float,
        needs: tuple[str, ...] = (),
    ) -> None:
        """Wait until ``ready`` returns None; what it returns before that is why not.

        Raises:
            ProvisioningError: The program, or one that it ``needs``, ended.
            WaitTimeoutError: It is still not ready.
        """

        def missing() -> str | None:
            reason = ready()
            if reason is not None:
                # What it needs first: an API server whose etcd has ended says only that it cannot connect.
                for each in (*needs, name):
                    if not self.running(each):
                        raise self._died(each)
            return reason

        def hint() -> str:
            return f"the end of its log:\n{self.last_words(name)}"

        poll_until(missing, what=what, seconds=seconds, hint=hint, every=_POLL_SECONDS, sleep=self.sleep)

    def port_was_taken(self, name: str) -> bool:
        """Return whether a program ended because somebody else has its port."""
        return not self.running(name) and _PORT_TAKEN in self.last_words(name, lines=50)

    def last_words(self, name: str, *, lines: int = 12) -> str:
        """Return the end of a program's log since we last started it."""
        return tail(self.log(name), lines=lines, start=self.log_starts.get(name, 0))

    def _write_down(self, name: str, process: ProcessRecord) -> None:
        self.record = replace(self.record, processes={**self.record.processes, name: process})
        write_record(self.layout.folder, self.record)

    def _died(self, name: str) -> ProvisioningError:
        hint = None
        if self.port_was_taken(name):
            hint = "another program took its port; name a free one or let clusterguard choose"
        return ended_at_once(name, self.last_words(name), hint=hint)
