"""Stop an embedded control plane, swap etcd's data directory, start it again, and go back if that fails.

The data directory is only ever renamed, and what its neighbours are called tells how far a restore came:

    etcd                    live
    etcd.prepared           built from a snapshot, not yet live
    etcd.before             what was live before the swap; its presence means "not proven yet"
    etcd.proven             the same once the restored state is proven and stays; only cleaning up is left
    etcd.kept               what was live before the last proven restore
    etcd.broken             what a member had that is being replaced (what is live then is not proven yet)
    etcd.replaced           the same, once the new one is proven

Every member has such folders (``etcd-2``, ``etcd-2.before``, ...), and one answer holds for all of them: where any is
proven, the restore was, and is finished; else, where any was swapped, all go back. Nothing is started in between, so
members of the old and of the new state never meet; if they did, their ids would keep them apart.
"""

from __future__ import annotations

import secrets
import shutil
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from clusterguard.clusters.base import EtcdLayout
from clusterguard.clusters.embedded.commands import CONTROLLERS, members_of
from clusterguard.errors import ClusterError, ProvisioningError, ResourceNotFoundError, WaitTimeoutError
from clusterguard.model.support import parse_version, require_restorable
from clusterguard.process import run
from clusterguard.scratch import sync
from clusterguard.sockets import listening, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterguard.clusters.embedded.commands import Member
    from clusterguard.clusters.embedded.programs import Programs
    from clusterguard.clusters.kube import KubeClient

__all__ = ["MARGIN_BYTES", "EmbeddedControlPlane", "EmbeddedMember"]

_ETCD_SECONDS = 120.0
_API_SECONDS = 90.0
_RESTORE_SECONDS = 1800.0
_VERSION_SECONDS = 20.0
# The API server keeps no state of its own: it gets a moment to answer its last requests, then it is killed.
_GRACE_SECONDS = 3.0
_ETCD_GRACE_SECONDS = 10.0
# A leader that ends looks for a follower to take over, for six seconds where they all end. Whatever it has told
# anybody is in its log, so it may as well be killed.
_MEMBERS_GRACE_SECONDS = 1.0
# etcdutl writes the database and a small WAL; the margin is for the WAL, snapshots and rounding.
MARGIN_BYTES = 128 * 1024 * 1024
_LEADER_LEASES = ("kube-controller-manager", "kube-scheduler")
_NODE_LEASES = "kube-node-lease"  # the namespace; kwok holds those of all nodes


class EmbeddedControlPlane:
    """The `ControlPlane` of an embedded cluster."""

    def __init__(self, *, programs: Programs, api: Callable[[], KubeClient]) -> None:
        self._programs = programs
        self._api = api
        members = members_of(programs.layout, programs.record.ports)
        self._places = tuple(_Place(member) for member in members)
        self._folder = programs.layout.folder

    def layout(self) -> EtcdLayout:
        """Return how the first member is started."""
        return self._layouts("etcd-cluster")[0]  # etcd's default; it names a cluster and protects nothing

    def _layouts(self, token: str) -> tuple[EtcdLayout, ...]:
        members = [place.member for place in self._places]
        return tuple(
            EtcdLayout(
                name=member.name,
                peer_url=member.peer_url,
                token=token,
                data_dir=str(member.data),
                cluster=tuple((each.name, each.peer_url) for each in members),
            )
            for member in members
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
        # The names are the journal: `before` lies there from the swap until the commit, `proven` from then on. The
        # first member that is proven decides for all of them.
        if any(place.proven.exists() for place in self._places):
            # Before anything is started, which may fail: the next restore must find nothing of this one.
            self.clean_up()
            self.discard()
            self._start_what_stopped()
            return "a proven restore that was interrupted was finished: the restored state stays"
        if any(place.before.exists() for place in self._places):
            self.roll_back()
            return "an interrupted restore was rolled back: the state before it is live again"
        self.discard()
        return self._start_what_stopped()

    def check(self, *, needed_bytes: int, etcd_version: str = "", storage_version: str | None = None) -> None:
        """Check that there is a data directory to replace, however broken, and room for another one beside it."""
        if etcd_version or storage_version:
            live = run([self._programs.record.programs["etcd"], "--version"], timeout_seconds=_VERSION_SECONDS).stdout
            version = ".".join(map(str, parse_version(live) or ()))
            require_restorable(etcd_version, storage_version, live=version, where=self._programs.record.name)
        for place in self._places:
            if not (place.live / "member").exists() and not place.lost:
                raise ClusterError(
                    f"{place.live} is not an etcd data directory: it has no member",
                    code="no-data-directory",
                    fields={"path": str(place.live)},
                )
        _require_room(len(self._places) * (needed_bytes + MARGIN_BYTES), self._folder)

    def prepare(self, snapshot: Path, *, bump_revision: int) -> str:
        """Build the new data directory of every member with etcdutl; return its command lines."""
        self.discard()
        layouts: tuple[EtcdLayout, ...] = (self.layout(),)
        if len(self._places) > 1:
            # A token of its own gives the cluster and its members other ids than before: one of the old state that
            # comes up late, or one of another restore, is refused by the others instead of being one of them.
            layouts = self._layouts(f"clusterguard-{secrets.token_hex(8)}")
        commands = [
            [
                self._programs.record.programs["etcdutl"],
                *layout.restore_words(str(snapshot), data_dir=str(place.prepared), bump_revision=bump_revision),
            ]
            for place, layout in zip(self._places, layouts, strict=True)
        ]
        with ThreadPoolExecutor(max_workers=len(commands), thread_name_prefix="clusterguard-etcdutl") as pool:
            list(pool.map(_build, commands))
        return "\n".join(map(" ".join, commands))

    def discard(self) -> None:
        """Remove what `prepare` built, whole or not."""
        for place in self._places:
            if place.prepared.exists():
                shutil.rmtree(place.prepared)

    def stop(self) -> None:
        """Stop controllers and API server, then etcd: an API server without etcd would linger on its port."""
        self._programs.stop(*CONTROLLERS, "kube-apiserver", grace_seconds=_GRACE_SECONDS)
        grace = _ETCD_GRACE_SECONDS if len(self._places) == 1 else _MEMBERS_GRACE_SECONDS
        self._programs.stop(*self._members(), grace_seconds=grace)

    def swap_in(self) -> None:
        """Rename each live directory aside and the prepared one into its place."""
        for place in self._places:
            if place.lost:
                place.mark_lost()
            # In this order: killed between the two, there is no live one, and `recover` puts the old one back.
            place.live.rename(place.before)
            place.prepared.rename(place.live)
        sync(self._folder)

    def start_etcd(self) -> None:
        """Start etcd and wait until every member accepts clients."""
        self._start_members(needed=len(self._places))

    def start_member(self, name: str, *, flags: Sequence[str] = ()) -> None:
        """Start one member, as the cluster's programs call it, and wait until it accepts clients."""
        self._programs.start(name, flags=flags)
        self._wait_for_member(next(place.member for place in self._places if place.member.program == name), needed=1)

    @contextmanager
    def member_places(self) -> Iterator[Mapping[str, EmbeddedMember]]:
        """Keep restores and other replacements out, and give every member, by its name."""
        with self.exclusive():
            yield {place.member.name: EmbeddedMember(self, self._programs, place) for place in self._places}

    def start_api(self) -> None:
        """Start the API server and wait until it is ready."""
        self._programs.start("kube-apiserver")
        self.wait_until_api_is_ready()

    def start_controllers(self) -> None:
        """Start the controllers; restored leases of leaders and nodes name holders that we stopped, so they go first.

        Otherwise each controller, and kwok for each node, would wait until the lease of its predecessor, just brought
        back from the snapshot, has run out before its eyes.
        """
        leases = self._api().resource("Lease.coordination.k8s.io")
        for name in _LEADER_LEASES:
            try:
                self._api().delete(leases, name, "kube-system")
            except ResourceNotFoundError:
                continue  # the snapshot is older than the first election
        self._api().delete_all(leases, _NODE_LEASES)
        self._programs.start(*CONTROLLERS)

    def roll_back(self) -> None:
        """Bring the old data directory and the programs back."""
        self.stop()
        for place in self._places:
            if place.before.exists():
                # As long as `before` is there, what is live is the restored one that nobody has proven.
                if place.live.exists():
                    shutil.rmtree(place.live)
                place.before.rename(place.live)
        self.discard()
        self._start_all()

    def commit(self) -> None:
        """Give the old data directories names that no longer mean "not proven"; safe to repeat."""
        for place in self._places:
            try:
                if place.before.exists():
                    place.before.rename(place.proven)
                sync(self._folder)
            except OSError as error:
                raise ClusterError(
                    f"{place.before} could not be renamed: {error}", hint=f"mv {place.before} {place.proven}"
                ) from error

    def clean_up(self) -> None:
        """Keep the old data directories, and only the newest; safe to repeat."""
        self.commit()  # it may have failed before: what is cleaned up must not be undone by whoever comes next
        for place in self._places:
            if not place.proven.exists():
                continue
            try:
                # Only now: up to here the one before the last and the last lie there both.
                if place.previous.exists():
                    shutil.rmtree(place.previous)
                place.proven.rename(place.previous)
                sync(self._folder)
            except OSError as error:
                raise ClusterError(
                    f"{place.previous} could not be replaced: {error}", hint=f"remove {place.previous}"
                ) from error

    @property
    def previous(self) -> str:
        """Where the old data directories are after `clean_up`."""
        return ", ".join(str(place.previous) for place in self._places)

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

        # A member that was lost on purpose keeps the others from nothing.
        needs = tuple(filter(self._programs.running, self._members())) or self._members()
        self._programs.wait("kube-apiserver", what, reason, seconds=_API_SECONDS, needs=needs)

    def _start_what_stopped(self) -> str | None:
        programs = (*self._members(), "kube-apiserver", *CONTROLLERS)
        lost = {place.member.program for place in self._places if place.lost} if len(self._places) > 1 else set()
        stopped = [name for name in programs if name not in lost and not self._programs.running(name)]
        there = [place for place in self._places if place.live.exists() and place.member.program not in lost]
        if not stopped or len(there) < self._majority:  # too few could start, and only a restore helps
            return None
        self.stop()  # whoever was interrupted may have told the others to end, and they would end under our hands
        self._start_all()
        return f"{', '.join(stopped)} did not run (a restore was interrupted, or the machine restarted): started"

    def _start_all(self) -> None:
        # The state before a restore may lack a member, which is no reason not to bring it back.
        self._start_members(needed=self._majority)
        self.start_api()
        self.start_controllers()

    def _start_members(self, *, needed: int) -> None:
        self._programs.start(*self._members())
        serving_not = 0
        for place in self._places:
            try:
                self._wait_for_member(place.member, needed=needed)
            except (ProvisioningError, WaitTimeoutError):
                serving_not += 1
                if len(self._places) - serving_not < needed:
                    raise

    def _wait_for_member(self, member: Member, *, needed: int) -> None:
        """Wait until a member serves, unless fewer than are ``needed`` run: it would wait for the others in vain."""
        pki, port = self._programs.layout.pki, member.client_port
        context = ssl.create_default_context(cafile=pki / "etcd-ca.crt")
        context.load_cert_chain(pki / "clusterguard-etcd-client.crt", pki / "clusterguard-etcd-client.key")
        what = f"{member.program} starts"

        def reason() -> str | None:
            missing = serving(port, context=context)
            ended = [name for name in self._members() if not self._programs.running(name)]
            if missing and len(self._places) - len(ended) < needed:
                self._programs.wait(ended[0], what, lambda: missing, seconds=0)  # raises that it has ended
            return missing

        self._programs.wait(member.program, what, reason, seconds=_ETCD_SECONDS)

    @property
    def _majority(self) -> int:
        return len(self._places) // 2 + 1

    def _members(self) -> tuple[str, ...]:
        return tuple(place.member.program for place in self._places)


@dataclass(frozen=True, slots=True)
class _Place:
    """The folders of one member."""

    member: Member

    @property
    def live(self) -> Path:
        return self.member.data

    @property
    def prepared(self) -> Path:
        return self._beside("prepared")

    @property
    def before(self) -> Path:
        return self._beside("before")

    @property
    def proven(self) -> Path:
        return self._beside("proven")

    @property
    def previous(self) -> Path:
        return self._beside("kept")

    @property
    def broken(self) -> Path:
        return self._beside("broken")

    @property
    def replaced(self) -> Path:
        return self._beside("replaced")

    @property
    def lost(self) -> bool:
        """Whether its data was thrown away on purpose, or is aside, so that it does not start."""
        member = self.live / "member"
        return member.is_file() or (self.broken.exists() and not member.exists())

    def mark_lost(self) -> None:
        """Let it not come up by itself, and a restore begin there: an empty one might begin a cluster of its own."""
        self.live.mkdir(exist_ok=True)
        (self.live / "member").touch()

    def _beside(self, state: str) -> Path:
        return self.live.with_name(f"{self.live.name}.{state}")


class EmbeddedMember:
    """The `MemberPlace` of a member of an embedded cluster."""

    def __init__(self, control_plane: EmbeddedControlPlane, programs: Programs, place: _Place) -> None:
        self._control_plane = control_plane
        self._programs = programs
        self._place = place
        self.name = place.member.name
        self.peer_url = place.member.peer_url
        self.client_url = place.member.client_url

    @property
    def begun(self) -> bool:
        """Whether a replacement was begun and did not end."""
        return self._place.broken.exists()

    def serves(self) -> bool:
        """Return whether it runs; whoever asked its client URL has asked from right beside it."""
        return False

    def check(self, *, needed_bytes: int) -> None:
        """Check that there is room for another data directory."""
        _require_room(needed_bytes + MARGIN_BYTES, self._place.live.parent)

    def set_aside(self) -> None:
        """Stop it, and rename its data directory; another one in its place goes."""
        self._programs.stop(self._place.member.program, grace_seconds=_MEMBERS_GRACE_SECONDS)
        live, broken = self._place.live, self._place.broken
        if broken.exists():
            shutil.rmtree(live, ignore_errors=True)
        elif live.exists():
            live.rename(broken)
        else:
            broken.mkdir()
        self._place.mark_lost()
        sync(live.parent)

    def start_empty(self, members: Mapping[str, str]) -> None:
        """Start it without data, as one that joins members, and wait until it accepts clients."""
        joined = ",".join(f"{name}={url}" for name, url in members.items())
        shutil.rmtree(self._place.live, ignore_errors=True)
        self._control_plane.start_member(self._place.member.program, flags=(f"--initial-cluster={joined}",))

    def finish(self) -> str:
        """Give the old data directory the name that means done."""
        if self._place.broken.exists():
            shutil.rmtree(self._place.replaced, ignore_errors=True)
            self._place.broken.rename(self._place.replaced)
            sync(self._place.live.parent)
        return str(self._place.replaced)


def _require_room(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ClusterError(
            f"the new database needs {needed:,} bytes in {folder}, and {free:,} are free",
            code="no-room",
            fields={"needed": needed, "free": free},
            hint="make room on that file system; the old data directory stays until the new one is proven",
        )


def _build(argv: list[str]) -> None:
    # If we are killed it must not go on writing where the next restore writes.
    run(argv, timeout_seconds=_RESTORE_SECONDS, dies_with_us=True)


def _refusal(api: KubeClient, path: str) -> str | None:
    try:
        api.request("GET", path, timeout_seconds=5, retry_throttled=False)
    except ClusterError as error:
        return error.message
    return None
