"""Stop an embedded control plane, swap etcd's data directory, start it again, and go back if that fails.

The data directory is only ever renamed, and what its neighbours are called tells how far a restore came:

    etcd                    live
    etcd.prepared           built from a snapshot, not yet live
    etcd.before             what was live before the swap; its presence means "not proven yet"
    etcd.proven             the same once the restored state is proven and stays; only cleaning up is left
    etcd.kept               what was live before the last proven restore
"""

from __future__ import annotations

import shutil
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from clusterguard.clusters.base import EtcdLayout
from clusterguard.clusters.embedded.commands import CONTROLLERS, MEMBER_NAME
from clusterguard.errors import ClusterError, ResourceNotFoundError
from clusterguard.model.support import parse_version, require_restorable
from clusterguard.process import run
from clusterguard.scratch import sync
from clusterguard.sockets import listening, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clusterguard.clusters.embedded.programs import Programs
    from clusterguard.clusters.kube import KubeClient

__all__ = ["MARGIN_BYTES", "EmbeddedControlPlane"]

_ETCD_SECONDS = 120.0
_API_SECONDS = 90.0
_RESTORE_SECONDS = 1800.0
_VERSION_SECONDS = 20.0
# The API server keeps no state of its own: it gets a moment to answer its last requests, then it is killed.
_GRACE_SECONDS = 3.0
_ETCD_GRACE_SECONDS = 10.0
# etcdutl writes the database and a small WAL; the margin is for the WAL, snapshots and rounding.
MARGIN_BYTES = 128 * 1024 * 1024
_IN_ORDER = ("etcd", "kube-apiserver", *CONTROLLERS)
_LEADER_LEASES = ("kube-controller-manager", "kube-scheduler")


class EmbeddedControlPlane:
    """The `ControlPlane` of an embedded cluster."""

    def __init__(self, *, programs: Programs, api: Callable[[], KubeClient]) -> None:
        self._programs = programs
        self._api = api
        self._live = programs.layout.data
        self._prepared = self._live.with_name("etcd.prepared")
        self._before = self._live.with_name("etcd.before")
        self._proven = self._live.with_name("etcd.proven")
        self._previous = self._live.with_name("etcd.kept")

    def layout(self) -> EtcdLayout:
        """Return how the member is started."""
        return EtcdLayout(
            name=MEMBER_NAME,
            peer_url=f"https://127.0.0.1:{self._programs.record.ports.etcd_peer}",
            token="etcd-cluster",  # noqa: S106 - etcd's default; it names a cluster and protects nothing
            data_dir=str(self._live),
        )

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other restores out; the lock goes with the process that holds it, however that ends."""
        lock = FileLock(self._programs.layout.folder / "restore.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ClusterError(
                f"another process is restoring cluster {self._programs.record.name!r} right now",
                code="restore-running",
                hint="wait for it to end",
            ) from error
        try:
            # Whoever had the lock before may have started programs again; the record on disk has their numbers.
            self._programs.refresh()
            yield
        finally:
            lock.release()

    def recover(self) -> str | None:
        """Undo a restore that was interrupted, or finish it once it was proven; return what was done, or None."""
        # The names are the journal: `before` lies there from the swap until the commit, `proven` from then on.
        if self._before.exists():
            self.roll_back()
            return "an interrupted restore was rolled back: the state before it is live again"
        self.discard()
        started = self._start_what_stopped()
        if self._proven.exists():
            self.clean_up()
            return "a proven restore that was interrupted was finished: the restored state stays"
        return started

    def check(self, *, needed_bytes: int, etcd_version: str = "", storage_version: str | None = None) -> None:
        """Check that there is a data directory to replace, however broken, and room for another one beside it."""
        if etcd_version or storage_version:
            live = run([self._programs.record.programs["etcd"], "--version"], timeout_seconds=_VERSION_SECONDS).stdout
            version = ".".join(map(str, parse_version(live) or ()))
            require_restorable(etcd_version, storage_version, live=version, where=self._programs.record.name)
        if not (self._live / "member").exists():
            raise ClusterError(
                f"{self._live} is not an etcd data directory: it has no member",
                code="no-data-directory",
                fields={"path": str(self._live)},
            )
        free = shutil.disk_usage(self._live).free
        if free < needed_bytes + MARGIN_BYTES:
            raise ClusterError(
                f"the restored database needs {needed_bytes + MARGIN_BYTES:,} bytes beside {self._live}, "
                f"and {free:,} are free",
                code="no-room",
                fields={"needed": needed_bytes + MARGIN_BYTES, "free": free},
                hint="make room on that file system; the old data directory stays until the new one is proven",
            )

    def prepare(self, snapshot: Path, *, bump_revision: int) -> str:
        """Build the new data directory with etcdutl; return its command line."""
        self.discard()
        layout = self.layout()
        argv = [
            self._programs.record.programs["etcdutl"],
            *layout.restore_words(str(snapshot), data_dir=str(self._prepared), bump_revision=bump_revision),
        ]
        # If we are killed it must not go on writing where the next restore writes.
        run(argv, timeout_seconds=_RESTORE_SECONDS, dies_with_us=True)
        return " ".join(argv)

    def discard(self) -> None:
        """Remove what `prepare` built, whole or not."""
        if self._prepared.exists():
            shutil.rmtree(self._prepared)

    def stop(self) -> None:
        """Stop controllers and API server, then etcd: an API server without etcd would linger on its port."""
        self._programs.stop(*CONTROLLERS, "kube-apiserver", grace_seconds=_GRACE_SECONDS)
        self._programs.stop("etcd", grace_seconds=_ETCD_GRACE_SECONDS)

    def swap_in(self) -> None:
        """Rename the live directory aside and the prepared one into its place."""
        # In this order: killed between the two, there is no live directory, and `recover` puts the old one back.
        self._live.rename(self._before)
        self._prepared.rename(self._live)
        sync(self._live.parent)

    def start_etcd(self) -> None:
        """Start etcd and wait until it accepts clients."""
        self._programs.start("etcd")
        pki = self._programs.layout.pki
        context = ssl.create_default_context(cafile=pki / "etcd-ca.crt")
        context.load_cert_chain(pki / "clusterguard-etcd-client.crt", pki / "clusterguard-etcd-client.key")
        port = self._programs.record.ports.etcd_client
        self._programs.wait("etcd", "etcd starts", lambda: serving(port, context=context), seconds=_ETCD_SECONDS)

    def start_api(self) -> None:
        """Start the API server and wait until it is ready."""
        self._programs.start("kube-apiserver")
        self.wait_until_api_is_ready()

    def start_controllers(self) -> None:
        """Start the controllers; their restored leader leases name holders that we stopped, so they go first.

        Otherwise each controller would wait until the lease of its predecessor, just brought back from the
        snapshot, has run out before its eyes.
        """
        leases = self._api().resource("Lease.coordination.k8s.io")
        for name in _LEADER_LEASES:
            try:
                self._api().delete(leases, name, "kube-system")
            except ResourceNotFoundError:
                continue  # the snapshot is older than the first election
        self._programs.start(*CONTROLLERS)

    def roll_back(self) -> None:
        """Bring the old data directory and the programs back."""
        self.stop()
        if self._before.exists():
            # As long as `before` is there, what is live is the restored one that nobody has proven.
            if self._live.exists():
                shutil.rmtree(self._live)
            self._before.rename(self._live)
        self.discard()
        self._start_all()

    def commit(self) -> None:
        """Give the old data directory a name that no longer means "not proven"; safe to repeat."""
        try:
            if self._before.exists():
                self._before.rename(self._proven)
            sync(self._live.parent)
        except OSError as error:
            raise ClusterError(
                f"{self._before} could not be renamed: {error}", hint=f"mv {self._before} {self._proven}"
            ) from error

    def clean_up(self) -> None:
        """Keep the old data directory, and only the newest; safe to repeat."""
        self.commit()  # it may have failed before: what is cleaned up must not be undone by whoever comes next
        if not self._proven.exists():
            return
        try:
            # Only now: up to here the one before the last and the last lie there both.
            if self._previous.exists():
                shutil.rmtree(self._previous)
            self._proven.rename(self._previous)
            sync(self._live.parent)
        except OSError as error:
            raise ClusterError(
                f"{self._previous} could not be replaced: {error}", hint=f"remove {self._previous}"
            ) from error

    @property
    def previous(self) -> str:
        """Where the old data directory is after `clean_up`."""
        return str(self._previous)

    def warnings(self) -> tuple[str, ...]:
        """Return nothing: no container outlives the state that knew it, and there is one API server."""
        return ()

    def wait_until_api_answers(self) -> None:
        """Wait until the API server accepts requests, which is a little before it calls itself ready."""
        self._wait_for_api("the API server answers", "/livez?exclude=poststarthook/rbac/bootstrap-roles")

    def wait_until_api_is_ready(self) -> None:
        """Wait until the API server calls itself ready."""
        self._wait_for_api("the API server is ready", "/readyz")

    def wait_for_checks(self, *paths: str) -> None:
        """Wait until these health checks of the API server pass, in this order."""
        self._wait_for_api("the API server serves", *paths)

    def _wait_for_api(self, what: str, *paths: str) -> None:
        port = self._programs.record.ports.api

        def reason() -> str | None:
            # A closed port is the usual answer at first; asking the socket costs far less than a refused request.
            return listening(port) or next(filter(None, (_refusal(self._api(), path) for path in paths)), None)

        self._programs.wait("kube-apiserver", what, reason, seconds=_API_SECONDS, needs=("etcd",))

    def _start_what_stopped(self) -> str | None:
        stopped = [name for name in _IN_ORDER if not self._programs.running(name)]
        if not stopped or not self._live.exists():
            return None
        self.stop()  # whoever was interrupted may have told the others to end, and they would end under our hands
        self._start_all()
        return f"{', '.join(stopped)} did not run (a restore was interrupted, or the machine restarted): started"

    def _start_all(self) -> None:
        self.start_etcd()
        self.start_api()
        self.start_controllers()


def _refusal(api: KubeClient, path: str) -> str | None:
    try:
        api.request("GET", path, timeout_seconds=5, retry_throttled=False)
    except ClusterError as error:
        return error.message
    return None
