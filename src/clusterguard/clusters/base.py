"""The port to a Kubernetes cluster, whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from clusterguard.clusters.kube import KubeClient

__all__ = ["Cluster", "ControlPlane", "EtcdAccess", "EtcdLayout", "RunbookLine", "RunbookStep", "WithRunbook"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAccess:
    """How to connect to etcd: client URLs, one for each member; PEM files, none for plain HTTP; etcd's own user."""

    endpoints: tuple[str, ...]
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdLayout:
    """What ``etcdutl snapshot restore`` must be told, exactly as the member is started with it.

    Attributes:
        name: ``--name``.
        peer_url: ``--initial-advertise-peer-urls``.
        token: ``--initial-cluster-token``.
        data_dir: The live data directory, a path where etcd runs.
        cluster: Name and peer URL of every member that the restored cluster begins with, this one among them; empty
            if this is the only one.
    """

    name: str
    peer_url: str
    token: str
    data_dir: str
    cluster: tuple[tuple[str, str], ...] = ()

    @property
    def initial_cluster(self) -> str:
        """``--initial-cluster`` of the restored cluster."""
        return ",".join(f"{name}={peer_url}" for name, peer_url in self.cluster or ((self.name, self.peer_url),))

    def restore_words(self, snapshot: str, *, data_dir: str, bump_revision: int) -> tuple[str, ...]:
        """Return what follows ``etcdutl`` to build a new data directory from a snapshot, with its revision raised."""
        return (
            "snapshot",
            "restore",
            snapshot,
            f"--data-dir={data_dir}",
            f"--name={self.name}",
            f"--initial-cluster={self.initial_cluster}",
            f"--initial-cluster-token={self.token}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--bump-revision={bump_revision}",
            "--mark-compacted",  # what watches from before the restore must list again
        )


class ControlPlane(Protocol):
    """What a restore does to a control plane: small steps, each safe to repeat.

    A restore prepares the new data directory while the old one still serves, so a bad snapshot is found
    before anything is touched; then it stops, swaps, starts and proves. Until `commit`, `roll_back` brings
    the old state back. After it the restored state stays: what is missing is finished, and nothing is undone.
    `recover` does the one or the other for a restore that was interrupted.
    """

    def layout(self) -> EtcdLayout:
        """Return how the member is started."""

    def exclusive(self) -> AbstractContextManager[object]:
        """Keep other restores of this control plane out while the ``with`` block runs, or raise a ClusterError."""

    def recover(self) -> str | None:
        """Undo an interrupted restore, or finish it if it was committed; return what was done, or None."""

    def check(self, *, needed_bytes: int, etcd_version: str = "", storage_version: str | None = None) -> None:
        """Look at everything a restore needs: programs, permissions, free space. Touches nothing.

        Args:
            needed_bytes: Size of the snapshot.
            etcd_version: The version of etcd that it was saved from, or ``""`` if unknown.
            storage_version: That of the storage in its file, or None.

        Raises:
            UnsupportedVersionError: This etcd would not start on the snapshot.
            ClusterError: Something is missing; the message says what.
        """

    def prepare(self, snapshot: Path, *, bump_revision: int) -> str:
        """Build a new data directory from a verified snapshot, beside the live one; return the command used.

        Raises:
            ProgramError: etcdutl refused the snapshot; the live state is untouched.
        """

    def discard(self) -> None:
        """Remove what `prepare` built, or began to build: the rollback while nothing was stopped."""

    def stop(self) -> None:
        """Stop controllers, API server and etcd; return once their processes are gone."""

    def swap_in(self) -> None:
        """Put the prepared directory in place; the old one is kept beside it."""

    def start_etcd(self) -> None:
        """Start etcd and wait until it serves; a WaitTimeoutError has the end of its log."""

    def start_api(self) -> None:
        """Start the API server and wait until it is ready; a WaitTimeoutError has the end of its log."""

    def commit(self) -> None:
        """Write down, durably, that the restored state is proven and stays: from here on there is no rollback.

        Raises:
            ClusterGuardError: It may or may not be written down; the hint says what to do about it by hand.
        """

    def start_controllers(self) -> None:
        """Start the controllers, without waiting out the leader leases of those we stopped."""

    def clean_up(self) -> None:
        """Put the old data directory under the name that it is kept by, and remove what the restore needed.

        Also after a `commit` that failed: once this succeeded there is nothing left that could be undone.
        """

    @property
    def previous(self) -> str:
        """Where the old data directory is after `clean_up`."""

    def roll_back(self) -> None:
        """Bring back the data directory and the programs as they were before `stop`, and wait until ready."""

    def warnings(self) -> tuple[str, ...]:
        """Return what somebody should look at after a restore, such as containers that nobody knows any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunbookLine:
    """One command line, as a person would type it at this machine, and why."""

    why: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunbookStep:
    """The command lines of one step, in order."""

    name: str
    lines: tuple[RunbookLine, ...]


@runtime_checkable
class WithRunbook(Protocol):
    """A control plane whose restore is made of commands alone, which can be shown before they run."""

    def runbook(self, snapshot: Path, *, bump_revision: int) -> tuple[RunbookStep, ...]:
        """Return every command of a restore, in order; nothing is touched."""

    def notes(self) -> tuple[str, ...]:
        """Return what whoever restores should know before, such as what else goes back with the cluster's state."""

    def rollback_lines(self) -> tuple[RunbookLine, ...]:
        """Return the commands that undo a restore at any point before its `commit`."""


@runtime_checkable
class Cluster(Protocol):
    """A Kubernetes cluster: a context manager that deletes what it created, and nothing else."""

    @property
    def name(self) -> str:
        """How the user calls it."""

    @property
    def provider(self) -> str:
        """``embedded``, ``kind`` or ``existing``."""

    @property
    def kubeconfig(self) -> Path:
        """A file that reaches it."""

    @property
    def context(self) -> str | None:
        """The context to use in that file, or None for its current one."""

    @property
    def created_by_us(self) -> bool:
        """Whether this run created it: only then may drills destroy without being allowed to."""

    @property
    def simulated_pods(self) -> bool:
        """Whether pods are simulated: they get a status, but no process runs."""

    @property
    def etcd(self) -> EtcdAccess | None:
        """How to reach etcd, or None where the provider hides it."""

    @property
    def control_plane(self) -> ControlPlane | None:
        """How to restart it, or None where the provider hides it."""

    @property
    def api(self) -> KubeClient:
        """The client of its API server."""

    def close(self) -> None:
        """Close it; a cluster that we created is deleted."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
