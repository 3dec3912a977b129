"""`VeleroClient`: backups, restores and schedules of a Velero server, and the outcome of each."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from clusterguard.errors import (
    BackupCorruptError,
    BackupFailedError,
    ClusterError,
    ClusterGuardError,
    ConfigError,
    ConflictError,
    ObjectNotFoundError,
    ResourceNotFoundError,
    RestoreFailedError,
    StoreError,
    VeleroError,
    VeleroNotInstalledError,
    VeleroUnavailableError,
    WaitTimeoutError,
)
from clusterguard.model.progress import ignore_progress
from clusterguard.model.support import require_supported
from clusterguard.retrying import RetryPolicy
from clusterguard.velero.adoption import adopted, read_documents, to_volume_backup
from clusterguard.velero.bucket import objects_in
from clusterguard.velero.checks import require_firing, require_kinds
from clusterguard.velero.describe import Description, describe_backup, describe_restore
from clusterguard.velero.downloads import Downloads
from clusterguard.velero.existing import Comparer
from clusterguard.velero.layout import BackupFile, BackupLayout
from clusterguard.velero.locations import Locations
from clusterguard.velero.objects import VeleroObjects
from clusterguard.velero.options import BackupOptions, RestoreOptions
from clusterguard.velero.outcome import (
    DEFAULT_TOLERATED,
    BackupOutcome,
    RestoreOutcome,
    doubtful,
    judge_backup,
    judge_restore,
    parse_resource_list,
    parse_results,
)
from clusterguard.velero.phases import BackupPhase, RequestPhase, SchedulePhase
from clusterguard.velero.resources import (
    Backup,
    DataDownload,
    DataUpload,
    DeleteBackupRequest,
    DownloadKind,
    PodVolumeBackup,
    PodVolumeRestore,
    Restore,
    Schedule,
    ServerPlugin,
    ServerStatusRequest,
    VolumeTransfer,
    valid_label,
)
from clusterguard.velero.tarball import DEFAULT_LIMITS, read_document
from clusterguard.velero.undiscovered import undiscovered
from clusterguard.velero.volume_infos import volume_records
from clusterguard.velero.waiting import Follower, far, task_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import IO

    from clusterguard.clusters.kube import Json, KubeClient
    from clusterguard.model.inventory import ObjectRef
    from clusterguard.model.progress import ProgressSink
    from clusterguard.stores.base import ByteReader, ObjectStore
    from clusterguard.velero.outcome import Message, OutcomeFinding, RestoredItem, Rule

__all__ = ["ServerStatus", "VeleroClient"]

_Run = TypeVar("_Run", bound=Backup | Restore)

_LONGEST_SECONDS = 4 * 3600.0  # as long as Velero's own limit for the files of one volume
_SILENCE_SECONDS = 30.0
_PROBE_SECONDS = 15.0
_BACKUP_NAME = "velero.io/backup-name"
_BACKUP_UID = "velero.io/backup-uid"
_RESTORE_NAME = "velero.io/restore-name"
_SCHEDULE_NAME = "velero.io/schedule-name"


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """A Velero server that answered.

    Attributes:
        version: Such as ``v1.18.3``.
        plugins: For object stores, snapshots and the like.
        seconds: How long the answer took.
    """

    version: str
    plugins: tuple[ServerPlugin, ...]
    seconds: float

    def has(self, kind: str) -> bool:
        """Return whether there is a plugin of a kind: ``ObjectStore``, ``VolumeSnapshotter``."""
        return any(plugin.kind == kind for plugin in self.plugins)


# As Velero 1.18.3 words it, until it has put away what it keeps of a backup in memory.
_BUSY_REASON = "backup is still in progress"
_WHILE_BUSY = RetryPolicy(attempts=8)


def _is_still_in_progress(error: BaseException) -> bool:
    return isinstance(error, VeleroError) and error.fields.get("reasons") == [_BUSY_REASON]


class VeleroClient:
    """A client of one cluster's Velero server, which is reached through its custom resources.

        velero = VeleroClient(api=cluster.api)
        backup = velero.back_up("nightly", BackupOptions(included_namespaces=("shop",)))
        velero.outcome(backup).raise_for_findings()

    Args:
        api: The cluster.
        namespace: The one that the server works in.
        ca: PEM file that the bucket's server is trusted by when logs and results are read, beside what the
            location says.
        insecure: Trust any certificate of the bucket's server.
        request_seconds: How long the server may take to answer what it answers at once when it lives.
        silence_seconds: How long a backup or restore may not move before the server is asked whether it lives.
        progress: Called with the progress of backups and restores.
        clock: Seconds that only grow.
        now: The time, for names.
    """

    def __init__(
        self,
        *,
        api: KubeClient,
        namespace: str = "velero",
        ca: Path | None = None,
        insecure: bool = False,
        request_seconds: float = 30.0,
        silence_seconds: float = _SILENCE_SECONDS,
        progress: ProgressSink = ignore_progress,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.objects = VeleroObjects(api=api, namespace=namespace)
        self.locations = Locations(objects=self.objects)
        self._downloads = Downloads(objects=self.objects, ca=ca, insecure=insecure, timeout_seconds=request_seconds)
        self._request_seconds = request_seconds
        self._silence_seconds = silence_seconds
        self._progress = progress
        self._clock = clock
        self._now = now
        self._supported = False

    @property
    def namespace(self) -> str:
        """The namespace that the server works in."""
        return self.objects.namespace

    # ---- the server --------------------------------------------------------------------------------------

    def installed(self) -> bool:
        """Return whether the cluster knows all of Velero's kinds; that no server may run is another matter."""
        return not self.objects.missing_definitions()

    def require_installed(self) -> None:
        """Return when the cluster knows all of Velero's kinds.

        Raises:
            VeleroNotInstalledError: It does not; the message names what is missing.
        """
        missing = self.objects.missing_definitions()
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")  # noqa: PLR2004 - enough to know which
            raise VeleroNotInstalledError(
                f"{self.objects.api.server} has no Velero, or an old one: no definition {shown}",
                hint="clusterguard velero install, or velero install",
            )

    def status(self, *, timeout_seconds: float | None = None) -> ServerStatus:
        """Ask the server what it is; also the way to know that it lives.

        Args:
            timeout_seconds: How long it may take; a living one takes a fraction of a second.

        Raises:
            VeleroNotInstalledError: The cluster knows no Velero.
            VeleroUnavailableError: No server answers.
        """
        seconds = self._request_seconds if timeout_seconds is None else timeout_seconds
        began = self._clock()
        try:
            answer = self.objects.ask(
                ServerStatusRequest.new(namespace=self.namespace, generate_name="clusterguard-"),
                answered=lambda seen: seen.phase == RequestPhase.PROCESSED,
                what="Velero's server to answer",
                timeout_seconds=seconds,
            )
        except WaitTimeoutError as error:
            raise VeleroUnavailableError(
                f"no Velero server answers in namespace {self.namespace}: nothing within {seconds:g} s",
                hint=f"kubectl -n {self.namespace} get deploy,pods; kubectl -n {self.namespace} logs deploy/velero",
            ) from error
        return ServerStatus(version=answer.server_version, plugins=answer.plugins, seconds=self._clock() - began)

    def require_supported(self) -> None:
        """Return when the server is of a supported version; it is asked once.

        Raises:
            UnsupportedVersionError: It is not.
            VeleroNotInstalledError: The cluster knows no Velero.
            VeleroUnavailableError: No server answers.
        """
        if not self._supported:
            require_supported("Velero", self.status().version, where=f"namespace {self.namespace}")
            self._supported = True

    # ---- backups -----------------------------------------------------------------------------------------

    def backups(self) -> Sequence[Backup]:
        """Return the backups that the server knows, oldest first."""
        return self.objects.list(Backup)

    def backup(self, name: str) -> Backup:
        """Return a backup that the server knows.

        Raises:
            ResourceNotFoundError: There is no such backup; one in a bucket may not be known yet: see `adopt`.
        """
        return self.objects.get(Backup, name)

    def back_up(
        self,
        name: str,
        options: BackupOptions | None = None,
        *,
        from_schedule: str = "",
        wait: bool = True,
        timeout_seconds: float = _LONGEST_SECONDS,
    ) -> Backup:
        """Make a backup, once its location is available: the server refuses it for good otherwise.

        With ``wait=False`` it has only been asked for: `wait` follows it, and `outcome` judges it.

        Args:
            name: Its name; unique in the server and in the bucket.
            options: What it is asked for.
            from_schedule: A schedule whose options it takes, in place of ``options``.
            wait: Whether to wait until it has completed.
            timeout_seconds: How long to wait.

        Raises:
            ConfigError: The options contradict themselves; nothing was asked of the server.
            UnsupportedVersionError: The server is too old or too new; nothing was created.
            LocationUnavailableError: Its location cannot be used; nothing was created.
            ConflictError: The name is taken.
            BackupFailedError: It ended in another phase than Completed.
            WaitTimeoutError: It did not end in time; it goes on.
            VeleroUnavailableError: The server died meanwhile; when it comes back it calls the backup Failed.
        """
        wanted = self._backup_options(options, from_schedule)
        spec = wanted.to_spec()
        require_kinds(self.objects.api, wanted)
        location = self.locations.require_available(wanted.storage_location, timeout_seconds=self._request_seconds)
        if location.read_only:
            raise ConfigError(
                f"storage location {location.name} is read-only",
                code="location-read-only",
                hint=f"name another one, or: clusterguard velero location set {location.name} --read-write",
            )
        self.require_supported()
        backup = self.objects.create(
            Backup.new(
                namespace=self.namespace,
                name=name,
                # Every server fills this in; a Backup read back before that would not say what it means.
                spec={"includedNamespaces": ["*"], **spec, "storageLocation": location.name},
                labels=wanted.labels,
                annotations=wanted.annotations,
            ),
            strict=True,
        )
        return self._completed(backup, timeout_seconds, BackupFailedError) if wait else backup

    def _completed(
        self, run: _Run, timeout_seconds: float, failed: type[BackupFailedError | RestoreFailedError]
    ) -> _Run:
        done = self.wait(run, timeout_seconds=timeout_seconds)
        if not done.phase.succeeded:
            command = f"clusterguard velero {done.kind.lower()}"
            raise failed(
                f"{task_of(done)} ended as {done.phase}: {_why(done)}",
                phase=str(done.phase),
                hint=f"{command} logs {done.name}; {command} describe {done.name}",
            )
        return done

    def _backup_options(self, options: BackupOptions | None, schedule: str) -> BackupOptions:
        if not schedule:
            return (options or BackupOptions()).with_cluster_scoped()
        if options is not None:
            raise ConfigError("a backup from a schedule takes its options: give either, not both", code="two-sources")
        template = self.schedule(schedule).options
        return replace(template, labels={**template.labels, _SCHEDULE_NAME: schedule})

    def adopt(self, name: str, *, store: ObjectStore, location: str = "") -> Backup:
        """Make the server know a backup in its bucket now, instead of at its next look.

        A server looks into the bucket once a minute, and for the first time before its location is validated, so
        a new one takes a minute to see a backup. This creates the same objects that it would create then:
        the Backup as its ``velero-backup.json`` says, for this location and without hooks, and the
        PodVolumeBackups. It is safe to repeat, and safe when the server comes first.

        Args:
            name: The backup.
            store: The bucket below the location's prefix, as `open_store` opens it.
            location: The location that it is, by default the default one.

        Raises:
            ObjectNotFoundError: The bucket has no such backup.
            VeleroError: What it has is unfinished or damaged, or the server knows another one of this name.
        """
        target = self.locations.get(location)
        document, volumes = read_documents(store, name)
        wanted = adopted(document, name=name, namespace=self.namespace, location=target.name)
        wanted = self._without_stale_owners(wanted)
        made = self.objects.find(Backup, name)
        if made is None:
            try:
                made = self.objects.create(wanted)
            except ConflictError:
                made = self.backup(name)  # the server came first
        _require_same(made, wanted)
        for each in volumes:
            with suppress(ConflictError):  # likewise, or left by a run that was killed here
                self.objects.create(to_volume_backup(each, backup=made, location=target.name))
        return made

    def _without_stale_owners(self, backup: Backup) -> Backup:
        """Drop references to schedules that this cluster does not have: the garbage collector would delete it."""
        metadata = dict(backup.metadata)
        kept = [owner for owner in metadata.pop("ownerReferences", None) or () if self._owner_is_here(owner)]
        metadata |= {"ownerReferences": kept} if kept else {}
        return Backup.model_validate({**backup.manifest, "metadata": metadata})

    def _owner_is_here(self, owner: Json) -> bool:
        if owner.get("kind") != Schedule.kind:
            return False
        schedule = self.objects.find(Schedule, str(owner.get("name", "")))
        return schedule is not None and schedule.uid == owner.get("uid")

    def delete_backup(self, name: str, *, timeout_seconds: float = 600) -> None:
        """Delete a backup with all that the bucket and the providers of snapshots have of it, and its restores.

        Deleting the Backup object (``kubectl delete backup``) does not do that: the server creates it again
        from what the bucket has.

        Raises:
            ResourceNotFoundError: There is no such backup.
            VeleroError: The server could not; the message has its reasons, and what is left is still listed.
            WaitTimeoutError: It did not end in time.
            VeleroUnavailableError: No server answers.
        """
        # A backup is Completed a moment before the server has done with it, and refuses its deletion until then.
        _WHILE_BUSY.run(
            partial(self._delete_backup, name, timeout_seconds=timeout_seconds), retryable=_is_still_in_progress
        )

    def _delete_backup(self, name: str, *, timeout_seconds: float) -> None:
        backup = self.backup(name)
        request = self.objects.create(
            DeleteBackupRequest.new(
                namespace=self.namespace,
                generate_name=f"{name}-",
                spec={"backupName": name},
                labels={_BACKUP_NAME: valid_label(name), _BACKUP_UID: backup.uid},
            )
        )
        last = request

        def answered(seen: DeleteBackupRequest | None) -> bool:
            nonlocal last
            last = seen or last
            return seen is None or seen.phase == RequestPhase.PROCESSED

        self._patiently(
            partial(
                self.objects.wait,
                DeleteBackupRequest,
                request.name,
                until=answered,
                what=f"backup {name} to be deleted",
            ),
            timeout_seconds=timeout_seconds,
            last_seen=lambda: str(last),
        )
        # The request goes with the backup: then it was never seen as processed.
        left = self.objects.find(Backup, name)
        if last.errors or (left is not None and left.uid == backup.uid):
            with suppress(ResourceNotFoundError):
                self.objects.delete(last)
            reasons = "; ".join(last.errors) or "no reason is given"
            raise VeleroError(
                f"backup {name} could not be deleted: {reasons}",
                code="backup-not-deleted",
                fields={"backup": name, "reasons": list(last.errors)},
                hint="put right what it says and delete it again; until then the bucket may hold a part of it",
            )

    # ---- restores ----------------------------------------------------------------------------------------

    def restores(self) -> Sequence[Restore]:
        """Return the restores that the server knows, oldest first."""
        return self.objects.list(Restore)

    def get_restore(self, name: str) -> Restore:
        """Return a restore that the server knows.

        Raises:
            ResourceNotFoundError: It does not exist.
        """
        return self.objects.get(Restore, name)

    def restore(
        self,
        backup: str = "",
        options: RestoreOptions | None = None,
        *,
        schedule: str = "",
        name: str = "",
        wait: bool = True,
        timeout_seconds: float = _LONGEST_SECONDS,
    ) -> Restore:
        """Restore a backup, or the latest one of a schedule, once its location is available.

        That it completes says little: objects that exist are left as they are, and a restore of nothing
        completes, too. `outcome` judges it, `RestoreValidator` compares objects.

        Args:
            backup: The backup.
            options: What is asked for.
            schedule: A schedule whose latest completed backup is restored, in place of ``backup``.
            name: Of the restore; by default that of the backup or schedule, and the time.
            wait: Whether to wait until it has completed.
            timeout_seconds: How long to wait.

        Raises:
            ConfigError: The options contradict themselves, or not exactly one source is named.
            UnsupportedVersionError: The server is too old or too new; nothing was created.
            ResourceNotFoundError: The server does not know the backup; see `adopt`.
            VeleroError: The backup has nothing to restore.
            LocationUnavailableError: The location of the backup cannot be used; nothing was created.
            ConflictError: The name is taken.
            RestoreFailedError: It ended in another phase than Completed.
            WaitTimeoutError: It did not end in time; it goes on.
            VeleroUnavailableError: The server died meanwhile; when it comes back it calls the restore Failed.
        """
        if bool(backup) == bool(schedule):
            raise ConfigError("a restore needs a source: either a backup or a schedule", code="no-single-source")
        wanted = (options or RestoreOptions()).with_cluster_scoped()
        spec = wanted.to_spec()
        source = self._restorable(backup) if backup else self._latest_of(schedule)
        self.locations.require_available(source.storage_location, timeout_seconds=self._request_seconds)
        self.require_supported()
        restore = self.objects.create(
            Restore.new(
                namespace=self.namespace,
                name=name or f"{(backup or schedule)[:200]}-{self._now():%Y%m%d%H%M%S}",
                spec={"includedNamespaces": ["*"], **spec, "backupName": source.name},
                labels=wanted.labels,
                annotations=wanted.annotations,
            ),
            strict=True,
        )
        return self._completed(restore, timeout_seconds, RestoreFailedError) if wait else restore

    def _restorable(self, name: str) -> Backup:
        found = self.backup(name)
        if not found.phase.has_contents:
            # Velero would try, and fail at a file that is not there.
            raise VeleroError(
                f"there is nothing to restore from {found}",
                hint=f"{_why(found)}" if found.phase.final else "wait until it has completed",
            )
        return found

    def _latest_of(self, schedule: str) -> Backup:
        done = [
            each
            for each in self.objects.list(Backup, labels={_SCHEDULE_NAME: schedule})
            if each.phase == BackupPhase.COMPLETED
        ]
        if not done:
            raise ResourceNotFoundError(
                f"schedule {schedule} has no completed backup",
                hint=f"clusterguard velero backup create NAME --from-schedule {schedule}",
            )
        return max(done, key=lambda each: (each.started is not None, each.started))

    def delete_restore(self, name: str, *, timeout_seconds: float = 120) -> None:
        """Delete the record of a restore, and its log and results in the bucket; what it restored stays.

        Raises:
            ResourceNotFoundError: There is no such restore.
            WaitTimeoutError: It did not end in time: the server removes the files before the object may go.
            VeleroUnavailableError: No server answers.
        """
        restore = self.get_restore(name)
        self.objects.delete(restore)
        self._patiently(
            partial(
                self.objects.wait,
                Restore,
                name,
                until=lambda seen: seen is None or seen.uid != restore.uid,
                what=f"restore {name} to be deleted",
            ),
            timeout_seconds=timeout_seconds,
            last_seen=lambda: "it waits for the server to remove its files",
        )

    # ---- schedules ---------------------------------------------------------------------------------------

    def schedules(self) -> Sequence[Schedule]:
        """Return the schedules, oldest first."""
        return self.objects.list(Schedule)

    def schedule(self, name: str) -> Schedule:
        """Return a schedule.

        Raises:
            ResourceNotFoundError: It does not exist.
        """
        return self.objects.get(Schedule, name)

    def create_schedule(
        self,
        name: str,
        cron: str,
        options: BackupOptions | None = None,
        *,
        paused: bool = False,
        skip_immediately: bool | None = None,
        own_backups: bool = False,
    ) -> Schedule:
        """Create a schedule, and return it once the server has accepted it.

        Args:
            name: Its name; its backups are called that and the time.
            cron: When: five fields in UTC, or ``@every 6h``.
            options: What its backups are asked for.
            paused: Make no backups yet.
            skip_immediately: Whether the first backup waits for its time; by default as the server is set.
            own_backups: Delete the Backup objects with the schedule.

        Raises:
            ConfigError: The options contradict themselves, or the server does not accept it; it is deleted again.
            ConflictError: The name is taken.
            VeleroUnavailableError: No server answers; the schedule is there.
        """
        wanted = (options or BackupOptions()).with_cluster_scoped()
        template = wanted.to_spec()
        require_kinds(self.objects.api, wanted)
        require_firing(cron)
        template |= {"metadata": {"labels": dict(wanted.labels)}} if wanted.labels else {}
        spec: Json = {"schedule": cron, "template": template}
        spec |= {"paused": True} if paused else {}
        spec |= {"skipImmediately": skip_immediately} if skip_immediately is not None else {}
        spec |= {"useOwnerReferencesInBackup": True} if own_backups else {}
        made = self.objects.create(
            Schedule.new(
                namespace=self.namespace, name=name, spec=spec, labels=wanted.labels, annotations=wanted.annotations
            ),
            strict=True,
        )
        if paused:
            return made  # the server does not look at a paused one
        return self._accepted(made)

    def _accepted(self, made: Schedule) -> Schedule:
        try:
            seen = self.objects.wait(
                Schedule,
                made.name,
                until=lambda now: now is None or now.phase != SchedulePhase.NEW,
                what=f"Velero to accept schedule {made.name}",
                timeout_seconds=self._request_seconds,
            )
        except WaitTimeoutError as error:
            raise VeleroUnavailableError(
                f"no Velero server has looked at schedule {made.name} within {error.seconds:g} s",
                hint="it is there, and begins to work when a server does: clusterguard velero status",
            ) from error
        if seen is None:
            raise VeleroError(f"schedule {made.name} was deleted while it was waited for")
        if seen.phase == SchedulePhase.FAILED_VALIDATION:
            self.objects.delete(seen)
            raise ConfigError(
                f"Velero does not accept schedule {made.name}: {'; '.join(seen.validation_errors)}",
                hint="write five cron fields in UTC, such as '0 3 * * *', or '@every 6h'",
            )
        return seen

    def pause_schedule(self, name: str) -> Schedule:
        """Stop a schedule from making backups.

        Raises:
            ResourceNotFoundError: There is no such schedule.
        """
        return self.objects.patch(Schedule, name, {"spec": {"paused": True}})

    def unpause_schedule(self, name: str) -> Schedule:
        """Let a schedule make backups again; raises as `pause_schedule` does."""
        return self.objects.patch(Schedule, name, {"spec": {"paused": False}})

    def delete_schedule(self, name: str) -> None:
        """Delete a schedule; its backups stay, unless it was made to own them.

        Raises:
            ResourceNotFoundError: There is no such schedule.
        """
        self.objects.delete(self.schedule(name))

    # ---- waiting -----------------------------------------------------------------------------------------

    def wait(self, run: _Run, *, timeout_seconds: float = _LONGEST_SECONDS) -> _Run:
        """Follow a backup or restore, and return it in its last phase, whichever that is.

        While it does not move, the server is asked now and then whether it lives: one that died leaves the phase
        as it is for ever.

        Args:
            run: As `back_up` or `restore` returned it.
            timeout_seconds: How long to wait.

        Raises:
            WaitTimeoutError: It did not end in time; the error has the last phase and progress.
            VeleroUnavailableError: It does not move, and the server does not answer.
            VeleroError: It was deleted meanwhile.
        """
        follower = Follower(run=run, sink=self._progress)
        try:
            self._patiently(
                partial(
                    self.objects.wait,
                    type(run),
                    run.name,
                    until=follower.ended,
                    what=f"{task_of(run)} to end",
                ),
                timeout_seconds=timeout_seconds,
                moving=lambda: not follower.still(),
                last_seen=lambda: far(follower.run),
            )
        except ClusterGuardError:
            follower.give_up()
            raise
        last = follower.run
        assert isinstance(last, type(run))  # noqa: S101 - for the type checker: it follows one object
        return last

    def _patiently(
        self,
        wait: Callable[..., object],
        *,
        timeout_seconds: float,
        last_seen: Callable[[], str],
        moving: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait in spells; after one in which nothing moved, make sure that the server lives."""
        deadline = self._clock() + timeout_seconds
        while True:
            left = deadline - self._clock()
            try:
                wait(timeout_seconds=max(0.0, min(left, self._silence_seconds)))
            except WaitTimeoutError as error:
                if self._clock() >= deadline:
                    raise WaitTimeoutError(
                        error.what,
                        seconds=timeout_seconds,
                        last_seen=last_seen(),
                        hint="it continues on the server; clusterguard velero status says whether that is running",
                    ) from error
                if not moving():
                    self._require_server(error.what, last_seen())
            else:
                return

    def _require_server(self, what: str, last_seen: str) -> None:
        try:
            self.status(timeout_seconds=min(self._request_seconds, _PROBE_SECONDS))
        except VeleroUnavailableError as error:
            raise VeleroUnavailableError(
                f"waiting for {what}: it does not move ({last_seen}), and {error.message}",
                fields={"what": what, "last_seen": last_seen},
                hint=error.hint,
            ) from error

    # ---- what came of it ---------------------------------------------------------------------------------

    @overload
    def outcome(
        self, run: Backup, *, tolerate: AbstractSet[Rule] = ..., bucket: ObjectStore | None = ...
    ) -> BackupOutcome: ...
    @overload
    def outcome(self, run: Restore, *, tolerate: AbstractSet[Rule] = ...) -> RestoreOutcome: ...
    def outcome(
        self,
        run: Backup | Restore,
        *,
        tolerate: AbstractSet[Rule] = DEFAULT_TOLERATED,
        bucket: ObjectStore | None = None,
    ) -> BackupOutcome | RestoreOutcome:
        """Judge a backup or a restore in its last phase by everything that Velero recorded about it.

        Objects that a restore left as they were are fetched from the backup and from the cluster, and compared. What
        cannot be read is a finding, not an error.

        Args:
            run: As `wait` returned it.
            tolerate: The rules that do not count.
            bucket: The bucket below the location's prefix, to read a backup's files there and not by the server's
                signed URL.
        """
        missing = list[str]()
        if isinstance(run, Backup):
            return self._backup_outcome(run, missing, tolerate=tolerate, bucket=bucket)
        ran = run.phase.has_contents
        counted = run.warnings or run.errors
        messages = parse_results(self._evidence(_kind(run, "Results"), run.name, missing)) if counted and ran else ()
        resources = self._evidence(DownloadKind.RESTORE_RESOURCE_LIST, run.name, missing) if ran else {}
        items = parse_resource_list(resources)
        existing, jobs = self._met(run, messages, items, missing)
        return judge_restore(
            run,
            messages=messages,
            items=items,
            existing=existing,
            jobs=jobs,
            volumes=self._volumes({_RESTORE_NAME: valid_label(run.name)}, PodVolumeRestore, DataDownload),
            missing_evidence=missing,
            tolerate=tolerate,
        )

    def _backup_outcome(
        self, run: Backup, missing: list[str], *, tolerate: AbstractSet[Rule], bucket: ObjectStore | None
    ) -> BackupOutcome:
        counted = run.warnings or run.errors or run.phase == BackupPhase.PARTIALLY_FAILED
        messages = self._evidence(DownloadKind.BACKUP_RESULTS, run.name, missing, bucket) if counted else None
        has_list = run.phase.has_contents and run.progress.done
        contents = self._evidence(DownloadKind.BACKUP_RESOURCE_LIST, run.name, missing, bucket) if has_list else None
        refs = [item.ref for item in parse_resource_list(contents)]
        infos = self._evidence(DownloadKind.BACKUP_VOLUME_INFOS, run.name, missing, bucket) if has_list else None
        return judge_backup(
            run,
            messages=parse_results(messages) if messages is not None else (),
            contents=refs,
            undiscovered=self._undiscovered(run, refs, missing) if contents or not has_list else (),
            volumes=self._volumes({_BACKUP_NAME: valid_label(run.name)}, PodVolumeBackup, DataUpload),
            records=volume_records(infos),
            missing_evidence=missing,
            tolerate=tolerate,
        )

    def _undiscovered(self, run: Backup, contents: Sequence[ObjectRef], missing: list[str]) -> Sequence[OutcomeFinding]:
        if not run.phase.has_contents:
            return ()
        try:
            return tuple(undiscovered(self.objects.api, run, contents))
        except ClusterError as error:
            missing.append(f"kinds that are new could not be looked at: {error.message}")
            return ()

    def _met(
        self, run: Restore, messages: Sequence[Message], items: Sequence[RestoredItem], missing: list[str]
    ) -> tuple[Mapping[ObjectRef, OutcomeFinding], Sequence[OutcomeFinding]]:
        """Return what a restore met that exists already, and which Jobs run again because of it."""
        comparer = Comparer(
            api=self.objects.api,
            started=run.started or self._now(),
            names=run.options.namespace_mapping or {},
            doubtful=doubtful(messages, items),
            created={item.ref for item in items if item.action == "created"},
        )
        if not comparer.needed:
            return {}, ()
        backup = self.objects.find(Backup, run.backup_name)
        comparer = replace(comparer, source_version=backup.source_version if backup else "")
        try:
            with self._downloads.open(DownloadKind.BACKUP_CONTENTS, run.backup_name) as file:
                stored = comparer.wanted(objects_in(cast("ByteReader", file), with_managers=True))
            return comparer.existing(stored), tuple(comparer.jobs(stored))
        except (StoreError, ClusterError, VeleroError, WaitTimeoutError, BackupCorruptError) as error:
            missing.append(f"what exists could not be compared with the backup: {error.message}")
            return {}, ()

    def _evidence(self, kind: DownloadKind, name: str, missing: list[str], bucket: ObjectStore | None = None) -> object:
        """Return a file, or an empty one after noting why there is none: that is a finding, not an error."""
        try:
            return self._downloads.document(kind, name) if bucket is None else _document_in(bucket, kind, name)
        except (StoreError, VeleroError, WaitTimeoutError, ResourceNotFoundError, BackupCorruptError) as error:
            missing.append(error.message)
            return {}

    def _volumes(self, labels: dict[str, str], *kinds: type[VolumeTransfer]) -> Sequence[VolumeTransfer]:
        return [each for kind in kinds for each in self.objects.list(kind, labels=labels)]

    def logs(self, run: Backup | Restore) -> Iterator[str]:
        """Yield the lines of a log.

        Raises:
            ObjectNotFoundError: The bucket has none: Velero writes logs on best effort.
            WaitTimeoutError: The server does not answer.
            StoreUnavailableError: The bucket did not answer, or the file ended early.
        """
        return self._downloads.text(_kind(run, "Log"), run.name)

    def results(self, run: Backup | Restore) -> Any:  # noqa: ANN401 - JSON as Velero wrote it
        """Return the results file: errors and warnings; as `logs` otherwise."""
        return self._downloads.document(_kind(run, "Results"), run.name)

    def resource_list(self, run: Backup | Restore) -> Any:  # noqa: ANN401 - JSON as Velero wrote it
        """Return the resource list: entries by ``apps/v1/Deployment``; as `logs` otherwise."""
        return self._downloads.document(_kind(run, "ResourceList"), run.name)

    def volume_infos(self, run: Backup | Restore) -> Any:  # noqa: ANN401 - JSON as Velero wrote it
        """Return what became of each volume; as `logs` otherwise."""
        return self._downloads.document(_volume_infos(run), run.name)

    def contents(self, backup: str) -> AbstractContextManager[IO[bytes]]:
        """Open the tarball of a backup, as gzip, for reading once; as `logs` otherwise."""
        return self._downloads.open(DownloadKind.BACKUP_CONTENTS, backup)

    def describe(self, run: Backup | Restore, *, tolerate: AbstractSet[Rule] = DEFAULT_TOLERATED) -> Description:
        """Return everything worth knowing about a backup or restore; what cannot be read is said to be so."""
        judged = self.outcome(run, tolerate=tolerate)
        if isinstance(judged, BackupOutcome):
            has_files = run.phase.has_contents
            items = self._described(DownloadKind.BACKUP_RESOURCE_LIST, run) if has_files else None
            infos = self._described(_volume_infos(run), run) if has_files else None
            return describe_backup(judged, resource_list=items, volume_infos=infos)
        infos = self._described(_volume_infos(run), run) if judged.items else None
        return describe_restore(judged, volume_infos=infos)

    def _described(self, kind: DownloadKind, run: Backup | Restore) -> object:
        try:
            return self._downloads.document(kind, run.name)
        except ObjectNotFoundError:
            return None
        except (StoreError, VeleroError, WaitTimeoutError) as error:
            return {"unreadable": error.message}


def _why(run: Backup | Restore) -> str:
    counted = f"{run.errors} errors, {run.warnings} warnings"
    return "; ".join(run.validation_errors) or run.failure_reason or counted


def _kind(run: Backup | Restore, file: str) -> DownloadKind:
    return DownloadKind(f"{run.kind}{file}")


def _document_in(bucket: ObjectStore, kind: DownloadKind, name: str) -> object:
    file = {
        DownloadKind.BACKUP_RESULTS: BackupFile.RESULTS,
        DownloadKind.BACKUP_RESOURCE_LIST: BackupFile.RESOURCE_LIST,
        DownloadKind.BACKUP_VOLUME_INFOS: BackupFile.VOLUME_INFO,
    }[kind]
    with bucket.get(BackupLayout(name).key(file)) as stream:
        return read_document(stream, limits=DEFAULT_LIMITS)


def _volume_infos(run: Backup | Restore) -> DownloadKind:
    return _kind(run, "VolumeInfos" if isinstance(run, Backup) else "VolumeInfo")


def _require_same(there: Backup, wanted: Backup) -> None:
    """Make sure that the backup that the server knows is the one in the bucket."""
    if (there.started, there.storage_location) != (wanted.started, wanted.storage_location):
        raise VeleroError(
            f"the server knows another backup {there.name}: begun {there.started} in {there.storage_location}, "
            f"while that in the bucket was begun {wanted.started}",
            hint="delete or rename one of them",
        )
