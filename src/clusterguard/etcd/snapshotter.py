"""`EtcdSnapshotter`: save, list, verify and restore etcd snapshots in a store."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    ConfigError,
    EtcdError,
    EtcdUnavailableError,
    ObjectCorruptError,
    ObjectExistsError,
    ObjectNotFoundError,
    SnapshotCorruptError,
    SnapshotError,
)
from clusterguard.etcd import remarks
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.model.snapshot import CheckOutcome, Remark, Snapshot, SnapshotList, VerifyReport
from clusterguard.model.support import require_supported
from clusterguard.stores.transfer import files_of, local_copy, read_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from clusterguard.clusters.base import Cluster, ControlPlane, EtcdAccess
    from clusterguard.etcd.hashkv import HashKV
    from clusterguard.etcd.integrity import Integrity
    from clusterguard.etcd.member import EtcdMember, LiveHash, MemberStatus
    from clusterguard.etcd.mvcc import StoreFacts
    from clusterguard.etcd.opening import Location
    from clusterguard.etcd.restore import RestorePlan, RestoreResult, RestoreStep
    from clusterguard.etcd.verification import FileEvidence
    from clusterguard.etcd.wire import SnapshotFrames
    from clusterguard.stores.base import ObjectStore, ObjectWriter
    from clusterguard.stores.encryption import Encryption

__all__ = ["EtcdSnapshotter"]

_DATABASE, _RECORD = ".db", ".json"
_NOT_OURS = (
    "another program may have saved it, or a save or a deletion broke off; if nobody needs it, remove it by hand"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
_PROGRESS_SECONDS = 0.2
# A record is a few hundred bytes; a larger object under that name is not one of ours.
_LARGEST_RECORD = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The member to save from, what it says about itself, and what the others said."""

    member: EtcdMember
    status: MemberStatus
    others: tuple[MemberStatus, ...]
    unasked: tuple[str, ...]
    unreached: tuple[str, ...]  # names of members that no endpoint leads to
    why: str  # it was chosen among several, or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    revision: int
    current_revision: int  # the one a member started from the file is at: a compaction may have left no record of it
    facts: StoreFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    total_keys: int
    hashed: HashKV | LiveHash
    refusal: str = ""  # why etcd did not say, so that the file was walked


@dataclass(frozen=True, slots=True, kw_only=True)
class _Received:
    integrity: Integrity
    contents: _Contents
    measured: _Measured


class EtcdSnapshotter:
    """Saves etcd snapshots into a store, and proves and restores them from there.

        snapshotter = EtcdSnapshotter(store=open_store("s3://backups/etcd"), access=cluster.etcd)
        snapshot = snapshotter.save()
        snapshotter.verify(snapshot.name).raise_for_findings()
        snapshotter.restore(snapshot.name, cluster)

    A snapshot is two objects: ``NAME.db``, the bytes exactly as etcd sent them, so that ``etcdutl`` reads them
    too, and ``NAME.json``, the record of what they are. It exists once its record does. Bytes without a record are
    not a snapshot. They may be anybody's, so they are never removed, and their name counts as taken.

    Args:
        store: Where snapshots rest.
        access: How to reach etcd; without it only what the store alone can answer is possible.
        endpoint: The one member to save from; by default a follower that has everything, of all that etcd lists and
            that can be reached, whether they were named or not.
        now: The time, UTC.
        progress: Told of the bytes.
        scratch: Folder for databases on their way: of a store that has no files, a whole one lies there, without a
            name, while it is saved, verified or restored. By default that of ``TMPDIR``, or ``/var/tmp``.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        access: EtcdAccess | None = None,
        endpoint: str | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        progress: ProgressSink = ignore_progress,
        scratch: Path | None = None,
    ) -> None:
        self._store = store
        self._access = access
        self._endpoint = endpoint
        self._now = now
        self._progress = progress
        self._scratch = scratch

    def save(self, name: str | None = None, *, annotate: Callable[[str], Mapping[str, Any]] = lambda _: {}) -> Snapshot:
        """Stream a snapshot of one member into the store and return its record.

        The bytes are hashed on their way and appear in the store only once etcd's SHA-256 trailer matches.
        Memory is constant; a slow store does not slow the stream, because the database goes through the scratch folder
        unless the store has files.

        Args:
            name: What to call it, by default ``etcd-`` and the time.
            annotate: Asked, with the key of the bytes once the store has them, for further fields of the record.

        Raises:
            EtcdUnavailableError: No member answers.
            EtcdAuthError: The member refuses us.
            ObjectExistsError: The name is taken.
            SnapshotIncompleteError: The stream was cut; nothing was stored.
            ScratchError: The scratch folder has no room for the database; nothing was stored.
            SnapshotCorruptError: The bytes are not what etcd hashed; nothing was stored.
            StoreError: The store cannot take them; nothing was stored.
        """
        taken = self._now()
        name = name or f"etcd-{taken:%Y%m%dT%H%M%SZ}"
        key = self._free_key(name)
        with self._chosen() as chosen:
            received = self._receive(key, chosen)
            return self._record(name, key, lambda: _describe(name, key, taken, chosen, received, annotate(key)))

    def adopt(
        self,
        location: Location,
        name: str | None = None,
        *,
        at: datetime | None = None,
        encryption: Encryption | None = None,
    ) -> Snapshot:
        """Verify a snapshot that any program saved, and make it one of this store's, with its record.

        It is unpacked and decrypted first. A copy of a member's own file gets the trailer that it lacks, and a remark.

        Args:
            location: What `open_snapshot` takes: a file, a folder, a location of a store, or a binary stream.
            name: What to call it, by default as it is called already.
            at: Take the newest of a folder that is not newer than this.
            encryption: Its identities or its passphrase open what is encrypted.

        Raises:
            ObjectExistsError: The name is taken.
            SnapshotError: It is not a whole, intact snapshot; nothing was stored.
            ClusterGuardError: It cannot be opened, as `open_snapshot` says; nothing was stored.
        """
        from clusterguard.etcd.adoption import copy_verified, name_for, record_of
        from clusterguard.etcd.opening import open_snapshot
        from clusterguard.etcd.verification import verify_file

        with open_snapshot(location, at=at, encryption=encryption, scratch=self._scratch) as opened:
            name = name or name_for(opened)
            key = self._free_key(name)
            evidence = verify_file(opened.path, name=opened.origin, require_trailer=False, progress=self._progress)
            with self._store.put(key) as writer:
                stored = copy_verified(opened, evidence, writer)
            now = self._now()
            return self._record(
                name, key, lambda: record_of(name, key, opened=opened, evidence=evidence, stored=stored, now=now)
            )

    def _free_key(self, name: str) -> str:
        """Return where the bytes of a new snapshot go."""
        key = _checked(name) + _DATABASE
        if self._has(name + _RECORD):
            raise ObjectExistsError(f"{self._store.url} has a snapshot {name!r} already", hint="choose another name")
        if self._has(key):
            raise ObjectExistsError(f"{self._store.url} has {key} already, without a record", hint=_NOT_OURS)
        return key

    def _record(self, name: str, key: str, describe: Callable[[], Snapshot]) -> Snapshot:
        """Write the record of stored bytes, which go again where that fails."""
        with self._removed_on_failure(key, unless_recorded_as=name):
            record = describe()
            with self._store.put(name + _RECORD) as writer:
                writer.write(record.to_json().encode())
        return record

    def list(self) -> SnapshotList:
        """Return the snapshots in the store, oldest first.

        Other people's objects are passed over; those that are named like a record of ours are in ``unreadable``.

        Raises:
            StoreError: The store cannot be read.
        """
        keys = [info.key for info in self._store.list() if info.key.endswith(_RECORD)]
        snapshots: list[Snapshot] = []
        unreadable: dict[str, ClusterGuardError] = {}
        for key in keys:
            name = key.removesuffix(_RECORD)
            with suppress(ObjectNotFoundError):  # it was deleted since
                found = self._read(name) if _NAME.fullmatch(name) else None
                if isinstance(found, Snapshot):
                    snapshots.append(found)
                elif found is not None:
                    unreadable[key] = found
        return SnapshotList(snapshots, unreadable=unreadable)

    def find(self, name: str) -> Snapshot:
        """Return the record of one snapshot.

        Raises:
            ObjectNotFoundError: There is none of that name.
            SnapshotCorruptError: Its record is damaged, or is none.
            ConfigError: A later release wrote its record.
        """
        try:
            found = self._read(_checked(name))
        except ObjectNotFoundError as error:
            raise ObjectNotFoundError(
                f"{self._store.url} has no snapshot {name!r}", hint="clusterguard etcd list shows what it has"
            ) from error
        if isinstance(found, Snapshot):
            return found
        raise found

    def _read(self, name: str) -> Snapshot | ClusterGuardError:
        """Return a snapshot or what is wrong with its record; that the store cannot be read is raised."""
        key = name + _RECORD
        try:
            text = read_object(self._store, key, most_bytes=_LARGEST_RECORD)
        except ObjectCorruptError as error:
            return _caused(SnapshotCorruptError(f"{key} is larger than any record of a snapshot"), error)
        try:
            return Snapshot.from_json(text.decode(errors="replace"))
        except (SnapshotCorruptError, ConfigError) as error:
            wrapped = type(error)(f"{key}: {error.message}", hint=error.hint, code=error.code, fields=error.fields)
            return _caused(wrapped, error)

    def delete(self, name: str) -> None:
        """Remove a snapshot, its record first, so that a deletion that breaks off lists no snapshot without bytes.

        Only what a record of ours names is removed; that there is nothing of this name is not an error.

        Raises:
            ObjectExistsError: There are bytes of this name, but no record; nothing was removed.
            SnapshotCorruptError: The record is damaged, or is none of ours; nothing was removed.
            ConfigError: A later release wrote the record; nothing was removed.
        """
        try:
            key = self.find(name).key
        except ObjectNotFoundError as error:
            if self._has(name + _DATABASE):
                message = f"{self._store.url} has {name + _DATABASE} without a record"
                raise ObjectExistsError(message, hint=_NOT_OURS) from error
            return
        # In this order: a record without its bytes would be listed as a snapshot, and bytes without a record are none.
        self._store.delete(name + _RECORD)
        self._store.delete(key)

    def verify(self, name: str) -> VerifyReport:
        """Read a snapshot back and prove it: digest, trailer, database structure, record, and the live HashKV.

        A check that cannot be asked (etcd is down, or has compacted past the snapshot) is told as such.

        Raises:
            ObjectNotFoundError: There is no such snapshot.
            SnapshotCorruptError: Its record cannot be read.
            ScratchError: The scratch folder has no room for the bytes: whether they are intact is not known.
            StoreError: The bytes could not be read or opened: likewise.
        """
        from clusterguard.etcd.verification import checks_of

        snapshot = self.find(name)
        checks: list[CheckOutcome] = []
        try:
            with self._local(snapshot) as path:
                evidence = self._evidence(path, snapshot)
                live = self._live_check(evidence, path)
        except (SnapshotError, ObjectCorruptError, ObjectNotFoundError) as error:
            checks.append(CheckOutcome(name="bytes", ok=False, detail=error.message))
            return VerifyReport(snapshot=snapshot, checks=tuple(checks))
        checks += checks_of(evidence, recorded=True)
        checks.append(_record_check(snapshot, evidence))
        checks.append(live)
        found = list(remarks.of_database(evidence.structure.facts, keys=evidence.structure.client_keys))
        known = {remark.code for remark in found}
        found += [remark for remark in snapshot.remarks if remark.code not in known]
        return VerifyReport(snapshot=snapshot, checks=tuple(checks), remarks=tuple(found))

    def restore(
        self,
        name: str,
        cluster: Cluster,
        *,
        disarm_alarms: bool = False,
        watch: Callable[[RestoreStep], object] = lambda _: None,
    ) -> RestoreResult:
        """Put a snapshot in the place of a cluster's etcd data and bring the control plane back up on it.

        The bytes are verified and the new data directory is built while the cluster still serves; from then
        on any failure brings the old state back. etcd's revision is raised beyond every one that a watcher
        may have seen, and marked compacted (etcd issue 16028).

        Args:
            name: The snapshot.
            cluster: What to restore; it must give access to its etcd and its control plane.
            disarm_alarms: Disarm the alarms that the snapshot brings back, before the API server starts. Without it a
                snapshot with a NOSPACE or CORRUPT alarm is refused: etcd would refuse every write.
            watch: Told of each step when it is done.

        Raises:
            ClusterError: The provider hides etcd or the control plane.
            SnapshotError: The snapshot is not intact; nothing was touched.
            RestoreError: It failed; ``rolled_back`` tells whether the old state serves again.
        """
        from clusterguard.clusters.lock import restored_under_lock
        from clusterguard.etcd.restore import RestoreStep, require_usable, restore_control_plane

        control_plane, access = _restorable(cluster)
        snapshot = self.find(name)
        with self._local(snapshot) as path:
            began = time.monotonic()
            facts = self._evidence(path, snapshot).structure.facts
            verified = RestoreStep(name="verify the snapshot", seconds=time.monotonic() - began)
            watch(verified)
            require_usable(facts, access, disarm_alarms=disarm_alarms)
            # The Lease that keeps other runs out of the cluster is in the very etcd that goes back in time.
            with restored_under_lock(lambda: cluster.api.server):
                result = restore_control_plane(
                    control_plane, access, snapshot=snapshot, file=path, disarm_alarms=disarm_alarms, watch=watch
                )
            return replace(result, steps=(verified, *result.steps))

    def plan_restore(self, name: str, cluster: Cluster, *, disarm_alarms: bool = False) -> RestorePlan:
        """Return every command that `restore` would run, after the same checks; nothing is touched.

        Args:
            name: The snapshot.
            cluster: What would be restored.
            disarm_alarms: As `restore` has it.

        Raises:
            ClusterError: The provider hides etcd or the control plane, or a restore is not possible.
            SnapshotError: The snapshot is not intact.
            RestoreError: A cluster could not use what is in it.
        """
        from clusterguard.etcd.restore import plan_restore, require_usable

        control_plane, access = _restorable(cluster)
        snapshot = self.find(name)
        with self._local(snapshot) as path:
            facts = self._evidence(path, snapshot).structure.facts
        require_usable(facts, access, disarm_alarms=disarm_alarms)
        if files_of(self._store) is not None:
            return plan_restore(control_plane, access, snapshot=snapshot, file=path)
        fetched = PurePath(snapshot.key).name
        plan = plan_restore(control_plane, access, snapshot=snapshot, file=Path(fetched))
        return replace(plan, fetch=f"object {snapshot.key} of {self._store.url}, as {fetched} in this folder")

    @contextmanager
    def _removed_on_failure(self, key: str, *, unless_recorded_as: str = "") -> Iterator[None]:
        """Remove bytes that got no record: they are no snapshot, and nobody else would ever remove them.

        A record may have been stored although no answer came. Where that cannot be looked at, the bytes stay: bytes
        without a record are no snapshot, but a record without its bytes would be a broken one.
        """
        try:
            yield
        except BaseException:
            with suppress(ClusterGuardError):  # the error that made us give up is the one to raise
                if not unless_recorded_as or not self._is_recorded(unless_recorded_as, key):
                    self._store.delete(key)
            raise

    def _is_recorded(self, name: str, key: str) -> bool:
        try:
            return self.find(name).key == key
        except ObjectNotFoundError:
            return False

    def _has(self, key: str) -> bool:
        try:
            self._store.stat(key)
        except ObjectNotFoundError:
            return False
        return True

    @contextmanager
    def _chosen(self) -> Iterator[_Chosen]:
        from clusterguard.etcd.agreement import Further, further_members
        from clusterguard.etcd.choosing import Choice, choose
        from clusterguard.etcd.member import EtcdMember

        access = self._reachable()
        endpoints = (self._endpoint,) if self._endpoint else access.endpoints
        if not endpoints:
            raise ConfigError(
                "no etcd to save from: the list of endpoints is empty", code="no-endpoints", hint="name at least one"
            )
        with ExitStack() as stack:
            candidates: list[Choice] = []
            failures: list[EtcdError] = []
            for endpoint in endpoints:
                member = stack.enter_context(EtcdMember(access, endpoint))
                try:
                    candidates.append(Choice(member, member.status()))
                except EtcdError as error:
                    failures.append(error)
            if not candidates:
                raise _none_answered(failures)
            said = [each.status for each in candidates]
            further = Further() if self._endpoint else further_members(access, said)
            candidates += [
                Choice(stack.enter_context(EtcdMember(access, each.endpoint)), each) for each in further.statuses
            ]
            member, status, why = choose(candidates)
            require_supported("etcd", status.version, where=status.endpoint, reads_only=True)
            others = tuple(other.status for other in candidates if other.member is not member)
            unasked = tuple(error.message for error in failures)
            yield _Chosen(
                member=member, status=status, others=others, unasked=unasked, unreached=further.unreached, why=why
            )

    def _receive(self, key: str, chosen: _Chosen) -> _Received:
        """Stream the snapshot into the store; return what its bytes are and what it holds."""
        from clusterguard.etcd.spool import Spool

        member = chosen.member
        own_file = files_of(self._store)
        if own_file is not None:
            with self._store.put(key) as file:
                integrity = self._stream(member, file, task=f"saving {key}")
            with self._removed_on_failure(key):
                return self._look_into(own_file(key), key, member, integrity)
        with (
            self._store.put(key) as writer,
            Spool(writer, scratch=self._scratch, needed=chosen.status.db_size) as spool,
        ):
            integrity = self._stream(member, spool, task=f"saving {key}")
            # While the file is at hand: what the store has of it may be encrypted, and the key to it elsewhere.
            received = self._look_into(spool.path, key, member, integrity)
            spool.finish()
            return received

    def _look_into(self, path: Path, key: str, member: EtcdMember, integrity: Integrity) -> _Received:
        contents = _contents(path)
        measured = self._measure(path, key, member, contents.current_revision)
        return _Received(integrity=integrity, contents=contents, measured=measured)

    def _stream(self, member: EtcdMember, sink: ObjectWriter, *, task: str) -> Integrity:
        from clusterguard.etcd.behind import WorkBehind
        from clusterguard.etcd.integrity import TrailerChecker

        checker = TrailerChecker()
        told = time.monotonic()

        def keep(piece: memoryview) -> None:
            checker.update(piece)
            sink.write(piece)

        def watch(frames: SnapshotFrames) -> None:
            nonlocal told
            if time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                total = frames.received + (frames.remaining or 0)
                self._progress(Progress(task=task, done=frames.received, total=total, unit="bytes"))

        with WorkBehind(keep, name="clusterguard-save") as behind:
            frames = member.stream_snapshot(behind.write, watch=watch)
            behind.finish()
        done = frames.received
        self._progress(Progress(task=task, done=done, total=done, unit="bytes", finished=True))
        return checker.finish()

    def _measure(self, path: Path, key: str, member: EtcdMember, revision: int) -> _Measured:
        """Count and hash the live keys: etcd does both in a moment; walking the file is the slow way."""
        try:
            return _Measured(total_keys=member.count_keys(revision), hashed=member.hash_kv(revision))
        except EtcdError as error:  # compacted already, a learner, or a user who may save but not read
            from clusterguard.etcd.verification import verify_file

            structure = verify_file(path, name=key, progress=self._progress).structure
            return _Measured(total_keys=structure.client_keys, hashed=structure.hash_kv, refusal=error.message)

    def _evidence(self, path: Path, snapshot: Snapshot) -> FileEvidence:
        from clusterguard.etcd.verification import verify_file

        # A copy has a path that tells nobody anything.
        name = "" if files_of(self._store) else snapshot.key
        return verify_file(path, name=name, expected_sha256=snapshot.sha256, progress=self._progress)

    def _local(self, snapshot: Snapshot) -> AbstractContextManager[Path]:
        return local_copy(self._store, snapshot.key, scratch=self._scratch, size=snapshot.size)

    def _live_check(self, evidence: FileEvidence, path: Path) -> CheckOutcome:
        """Compare the file's HashKV with that of every member that can still compute it at the same revision.

        Members are those that etcd lists, as far as they can be reached, whether they were named or not.
        """
        from clusterguard.etcd.agreement import further_members
        from clusterguard.etcd.member import EtcdMember

        if (access := self._access) is None:
            return CheckOutcome(name="live HashKV", ok=None, detail="not asked: no etcd was named")
        file = evidence.structure.hash_kv
        statuses: list[MemberStatus] = []
        unasked: list[str] = []
        equal = 0

        def differs(endpoint: str) -> str:
            nonlocal equal
            try:
                with EtcdMember(access, endpoint) as member:
                    statuses.append(member.status())
                    live = member.hash_kv(file.hash_revision)
            except EtcdError as error:
                unasked.append(error.message)
                return ""
            ours = _hash_to_compare(file, live, path)
            if ours is None:
                unasked.append(
                    f"{endpoint}: its hash is of compaction {live.compact_revision}, which the file cannot match"
                )
            elif ours != live.hash:
                return (
                    f"{endpoint} has {live.hash} at revision {file.hash_revision}, the file {ours}: not the same data"
                )
            else:
                equal += 1
            return ""

        found = next(filter(None, map(differs, access.endpoints)), "")
        if not found:
            further = further_members(access, statuses)
            found = next(filter(None, (differs(each.endpoint) for each in further.statuses)), "")
            if further.unreached:
                unasked.append(
                    f"no endpoint was named for {', '.join(further.unreached)}, and none is reached from here"
                )
        if found:
            return _live(ok=False, detail=found, unasked=unasked)
        if not equal:
            return _live(ok=None, detail="", unasked=unasked)
        detail = f"equal at revision {file.hash_revision} on {equal} member(s)"
        return _live(ok=True, detail=detail, unasked=unasked)

    def _reachable(self) -> EtcdAccess:
        if self._access is None:
            raise ConfigError("no etcd to save from", hint="name its endpoint and certificates")
        return self._access


def _none_answered(failures: list[EtcdError]) -> EtcdError:
    """Return one error for all members: a refusal says more than no answer does."""
    error = next((each for each in failures if not isinstance(each, EtcdUnavailableError)), failures[0])
    if len(failures) == 1:
        return error
    message = "; ".join(each.message for each in failures)
    return type(error)(message, hint=error.hint, code=error.code, fields=error.fields)


def _describe(
    name: str, key: str, taken: datetime, chosen: _Chosen, received: _Received, notes: Mapping[str, Any]
) -> Snapshot:
    status, facts, hashed = chosen.status, received.contents.facts, received.measured.hashed
    names = {member.id: member.name for member in facts.members}
    return Snapshot(
        name=name,
        key=key,
        taken=taken,
        revision=received.contents.revision,
        total_keys=received.measured.total_keys,
        size=received.integrity.size,
        sha256=received.integrity.sha256,
        etcd_version=status.version,
        storage_version=facts.storage_version,
        cluster_id=status.cluster_id,
        member_id=status.member_id,
        member_name=names.get(status.member_id, ""),
        endpoint=status.endpoint,
        hash_kv=hashed.hash,
        hash_revision=hashed.hash_revision,
        compact_revision=hashed.compact_revision,
        remarks=tuple(_remarks(chosen, received)),
        extra=MappingProxyType(dict(notes)),
    )


def _remarks(chosen: _Chosen, received: _Received) -> Iterator[Remark]:
    yield from remarks.of_database(received.contents.facts, keys=received.measured.total_keys)
    yield from remarks.of_members(chosen.status, chosen.others, chosen.unasked, chosen.unreached)
    if chosen.why:
        yield Remark(code="saved-from", detail=f"saved from {chosen.status.endpoint}: {chosen.why}")
    if received.measured.refusal:
        yield Remark(code="hash-of-file", detail=f"HashKV is the file's own: {received.measured.refusal}")


def _live(*, ok: bool | None, detail: str, unasked: list[str]) -> CheckOutcome:
    not_asked = "could not be asked: " + "; ".join(unasked) if unasked else ""
    detail = "; ".join(part for part in (detail, not_asked) if part)
    return CheckOutcome(name="live HashKV", ok=ok, detail=detail, unasked=tuple(unasked))


def _restorable(cluster: Cluster) -> tuple[ControlPlane, EtcdAccess]:
    control_plane, access = cluster.control_plane, cluster.etcd
    if control_plane is None or access is None:
        code, seen, hint = _why_hidden(cluster)
        raise ClusterError(
            f"cluster {cluster.name!r} gives no access to its etcd and control plane{seen}",
            code=code,
            fields={"cluster": cluster.name},
            hint=hint,
        )
    return control_plane, access


def _why_hidden(cluster: Cluster) -> tuple[str, str, str]:
    """Tell a managed control plane, which nobody can restore, from one whose node was not named."""
    velero = "back up and restore it with Velero"
    ssh = "name its control-plane node: clusterguard etcd restore --node-shell ssh:HOST"
    try:
        nodes = list(cluster.api.list(cluster.api.resource("Node"), label_selector=_CONTROL_PLANE_LABEL))
        version = cluster.api.server_version()
    except ClusterGuardError as error:
        hint = f"{ssh}; or, if it is managed (EKS), {velero}"
        return "etcd-hidden", f", and its API cannot be asked ({error.message})", hint
    if not nodes:
        seen = f": it shows no control-plane node ({version}), so its provider runs etcd and hides it"
        return "etcd-managed", seen, velero
    names = ", ".join(node["metadata"]["name"] for node in nodes)
    return "no-node-shell", f": no shell given for its control-plane node {names}", ssh


def _contents(path: Path) -> _Contents:
    """Read the revision and the small buckets of a snapshot: a few pages, whatever its size."""
    from clusterguard.etcd import mvcc
    from clusterguard.etcd.hashkv import current_revision
    from clusterguard.etcd.verification import open_database

    with open_database(path) as database:
        buckets = database.buckets(database.ledger())
        facts = mvcc.read_facts(database, buckets, database.ledger())
        revision = mvcc.last_revision(database, buckets)
        return _Contents(
            revision=revision,
            current_revision=current_revision(revision, facts.compacted),
            facts=facts,
        )


def _hash_to_compare(file: HashKV, live: LiveHash, path: Path) -> int | None:
    """Return the file's HashKV under the member's compaction, or None where there is none.

    Kubernetes compacts every five minutes: a member that has done so since the snapshot still answers for its
    revision, with a hash that leaves out what the compaction did.
    """
    if live.compact_revision == file.compact_revision:
        return file.hash
    if not file.compact_revision < live.compact_revision <= file.hash_revision:
        return None
    from clusterguard.etcd.hashkv import hash_kv
    from clusterguard.etcd.verification import open_database

    with open_database(path) as database:
        return hash_kv(database, revision=file.hash_revision, compacted=live.compact_revision).hash


def _record_check(snapshot: Snapshot, evidence: FileEvidence) -> CheckOutcome:
    """Compare what the file holds with what etcd said about that revision when the snapshot was saved."""
    structure = evidence.structure
    found = {"revision": structure.revision, "live keys": structure.client_keys}
    recorded = {"revision": snapshot.revision, "live keys": snapshot.total_keys}
    if structure.hash_kv.compact_revision == snapshot.compact_revision:
        found["HashKV"], recorded["HashKV"] = structure.hash_kv.hash, snapshot.hash_kv
    wrong = [f"{what} {recorded[what]} was recorded, {found[what]} is there" for what in found
             if found[what] != recorded[what]]  # fmt: skip
    seen = ", ".join(f"{what} {value}" for what, value in found.items())
    return CheckOutcome(name="record", ok=not wrong, detail="; ".join(wrong) or seen)


def _caused(error: ClusterGuardError, cause: ClusterGuardError) -> ClusterGuardError:
    error.__cause__ = cause
    return error


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a snapshot",
            hint="use letters, digits, dots, dashes and underscores, beginning with a letter or digit",
        )
    return name
