"""`Rehearsal`: restore an etcd snapshot into a throwaway control plane, and compare everything that it then serves."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from clusterguard.clusters.embedded.snapshot_server import SERVING_PROGRAMS, SnapshotServer
from clusterguard.errors import (
    ClusterGuardError,
    ProvisioningError,
    ResourceNotFoundError,
    SnapshotError,
    StoredObjectError,
    WaitTimeoutError,
)
from clusterguard.etcd import remarks
from clusterguard.etcd.opening import open_snapshot
from clusterguard.etcd.verification import file_facts, verify_file
from clusterguard.model.progress import Progress, ignore_progress
from clusterguard.model.support import require_restorable
from clusterguard.rehearsal.changes import changes_between
from clusterguard.rehearsal.clock import PhaseClock
from clusterguard.rehearsal.comparison import Comparison, StoredObjects
from clusterguard.rehearsal.hazards import Hazards
from clusterguard.rehearsal.report import FIND_PROGRAMS, Level, RehearsalFinding, RehearsalReport, worst_first
from clusterguard.rehearsal.versions import choose_api_server, other_version, requested_api_server
from clusterguard.retrying import poll_until
from clusterguard.snapshots.encryption import EncryptionKeys
from clusterguard.snapshots.reader import SnapshotReader
from clusterguard.snapshots.resources import BUILT_IN
from clusterguard.threads import Worker
from clusterguard.toolchain import from_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.etcd.opening import Location, OpenedSnapshot
    from clusterguard.etcd.verification import FileEvidence
    from clusterguard.model.inventory import Inventory
    from clusterguard.model.progress import ProgressSink
    from clusterguard.model.snapshot import Remark
    from clusterguard.rehearsal.changes import Changes
    from clusterguard.snapshots.reader import SnapshotObject
    from clusterguard.stores.encryption import Encryption
    from clusterguard.toolchain import Toolchain

__all__ = ["Rehearsal"]

_DEFINITIONS: Final = "customresourcedefinitions.apiextensions.k8s.io"
_SERVED_SECONDS: Final = 30.0
_CUSTOM_UNLESS: Final = frozenset(str(resource) for resource in BUILT_IN)


class Rehearsal:
    """Restores any etcd snapshot into a throwaway control plane on this machine, and says whether it is all in there.

        report = Rehearsal(location="s3://backups/etcd").run()
        report.raise_for_findings()

    The snapshot is verified, restored by etcdutl, and served by a real etcd and API server; nothing else runs, and
    nothing leaves the machine. Then every object that is read from the file is compared with what is served at the
    snapshot's revision, field by field.

    Args:
        location: What `open_snapshot` takes: a file, a folder, a location of a store, or a binary stream.
        at: Take the newest of a folder that is not newer than this.
        encryption: Opens a snapshot that is encrypted as a whole, with age.
        encryption_config: The ``EncryptionConfiguration`` that the cluster had, for values encrypted at rest.
        prefix: Of all keys: the API server's ``--etcd-prefix``. OpenShift has ``/kubernetes.io``.
        kubernetes_version: The minor version to rehearse on, such as ``1.34``. By default it is that of the snapshot's
            own cluster, or of those that are installed the nearest to it.
        compare: What the backup is to be compared with, by name: an inventory, or the API of a cluster as it is now.
            What has changed is told beside the verdict.
        toolchain: Where the programs come from, by default found or built as needed.
        home: Folder that the throwaway control plane lives under.
        scratch: The folder for what has to be copied or unpacked.
        on_phase: Called with the name of each phase as it begins.
        progress: Told of the bytes, and of programs as they are installed.
        now: The time, UTC.

    Raises:
        ConfigError: There is no API server of the version that was asked for.
    """

    def __init__(
        self,
        *,
        location: Location,
        at: datetime | None = None,
        encryption: Encryption | None = None,
        encryption_config: Path | None = None,
        prefix: str = "/registry",
        kubernetes_version: str = "",
        compare: Mapping[str, Inventory | KubeClient] = MappingProxyType({}),
        toolchain: Toolchain | None = None,
        home: Path | None = None,
        scratch: Path | None = None,
        on_phase: Callable[[str], object] = lambda _: None,
        progress: ProgressSink = ignore_progress,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._location = location
        self._opening = {"at": at, "encryption": encryption, "scratch": scratch}
        self._encryption_config = encryption_config
        self._prefix = prefix
        self._compare = compare
        self._changes: dict[str, Changes] = {}
        self._requested = requested_api_server(kubernetes_version) if kubernetes_version else ""
        self._api_server = self._requested
        self._toolchain = toolchain or from_environment(os.environ, progress=progress)
        self._home = home
        self._on_phase = on_phase
        self._progress = progress
        self._now = now
        self._server_version = ""

    def run(self) -> RehearsalReport:
        """Rehearse, and return what was found; the throwaway control plane is gone again afterwards.

        Raises:
            ObjectNotFoundError: There is no such snapshot.
            WrongKeyError: The snapshot is encrypted, and nothing at hand opens it.
            ConfigError: The location, the prefix or the encryption configuration is not valid.
            UnsupportedVersionError: The snapshot is of a newer etcd than the one that is here.
            ToolchainError: A program is missing and cannot be installed.
            ScratchError: The scratch folder has no room.
            StoreError: The snapshot could not be read.
        """
        clock = PhaseClock(self._on_phase)
        keys = EncryptionKeys.load(self._encryption_config) if self._encryption_config else None
        clock.begin("open")
        self._changes = {}
        try:
            with open_snapshot(self._location, **self._opening) as opened:  # type: ignore[arg-type]
                report = self._rehearsed(opened, keys, clock)
        except SnapshotError as error:
            report = _report(str(self._location), {}, StoredObjects(), [_refused(error)], clock)
        return replace(report, changes=tuple(self._all_changes()))

    def _all_changes(self) -> Iterator[Changes]:
        """Yield what was asked for, also where nothing was served that could be compared."""
        for name, other in self._compare.items():
            yield self._changes.get(name) or changes_between(None, other, name=name)

    def _rehearsed(self, opened: OpenedSnapshot, keys: EncryptionKeys | None, clock: PhaseClock) -> RehearsalReport:
        with SnapshotReader(path=opened.path, prefix=self._prefix, encryption=keys) as reader:
            clock.begin(FIND_PROGRAMS)
            self._find_programs(opened, reader)
            reading = _Reading(
                opened,
                reader,
                prefix=self._prefix,
                hazards=Hazards(now=self._now(), claimed=opened.modified),
                progress=self._progress,
            )
            findings: list[RehearsalFinding] = []
            with reading.in_background():
                try:
                    findings += self._served(opened, reader, reading, clock)
                except SnapshotError as error:
                    findings.append(_refused(error))
                except (ProvisioningError, WaitTimeoutError) as error:
                    clock.begin("start an empty control plane")
                    self._require_that_an_empty_one_starts(error)
                    findings.append(_does_not_start(error))
                clock.begin("finish")
                reading.join()
            ran = reader.cluster_kubernetes
            findings += reading.findings()
            findings += other_version(ran, self._server_version, requested=bool(self._requested))
            facts = reading.facts() | {"Kubernetes of the snapshot": ran or "unknown"}
            if self._server_version:
                facts["rehearsed on"] = f"Kubernetes {self._server_version}"
        return _report(opened.origin, facts, reading.stored, findings, clock, namespaces=reading.namespaces)

    def _find_programs(self, opened: OpenedSnapshot, reader: SnapshotReader) -> None:
        """Choose the API server and get all programs; the file is read as that API server writes objects."""
        self._api_server = self._requested or choose_api_server(self._toolchain, reader.cluster_kubernetes)
        self._toolchain.ensure(*SERVING_PROGRAMS, self._api_server)
        etcd, api_server = (self._toolchain.find(name) for name in ("etcd", self._api_server))
        live = (etcd and etcd.version) or ""
        require_restorable("", file_facts(opened.path).storage_version, live=live, where="this machine")
        # Which empty fields are written depends on the version of the API server that is compared with.
        reader.write_as((api_server and api_server.version) or "")

    def _served(
        self, opened: OpenedSnapshot, reader: SnapshotReader, reading: _Reading, clock: PhaseClock
    ) -> list[RehearsalFinding]:
        """Serve the snapshot and compare; reading the file goes on meanwhile."""
        with self._server(
            opened.path,
            skip_hash=not opened.has_trailer,
            encryption_config=self._encryption_config,
            etcd_prefix=self._prefix,
            on_phase=clock.begin,
        ) as server:
            clock.begin("read the file")
            reading.join()
            reading.require_whole()
            clock.begin("compare")
            self._server_version = server.api.server_version()
            _await_definitions(server, reading.stored)
            comparison = Comparison(server.api, revision=reading.revision, stored=reading.stored, read=_reads(reader))
            findings = comparison.run()
            for name, other in self._compare.items():
                clock.begin(f"compare with {name}")
                self._changes[name] = changes_between(server.api, other, name=name)
            return findings

    def _require_that_an_empty_one_starts(self, error: ClusterGuardError) -> None:
        """Raise the error unless the snapshot is to blame for it: then only an empty control plane comes up here."""
        try:
            with self._server(None, encryption_config=self._encryption_config, etcd_prefix=self._prefix):
                pass
        except ClusterGuardError:
            raise error from None

    def _server(self, file: Path | None, **options: Any) -> SnapshotServer:  # noqa: ANN401 - as the class types them
        options |= {"toolchain": self._toolchain, "home": self._home, "progress": self._progress}
        return SnapshotServer(file, api_server=self._api_server, **options)


class _StoppedError(Exception):
    """Nobody waits for the reading any more."""


class _Reading:
    """Verifies the file and reads every object in it, in a thread of its own while the control plane comes up."""

    def __init__(
        self, opened: OpenedSnapshot, reader: SnapshotReader, *, prefix: str, hazards: Hazards, progress: ProgressSink
    ) -> None:
        self._opened = opened
        self._reader = reader
        self._prefix = prefix
        self._hazards = hazards
        self._progress = progress
        self._stop = Event()
        self._failure: BaseException | None = None
        self._evidence: FileEvidence | None = None
        self._codes: dict[str, list[StoredObjectError]] = {}
        self._worker = Worker(self._work, name="clusterguard-reading")
        self.stored = StoredObjects()
        self.namespaces: dict[str, dict[str, int]] = {}

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Read while the block runs; no thread outlives it."""
        self._worker.start()
        try:
            yield
        finally:
            self._stop.set()
            self._worker.join()

    def join(self) -> None:
        """Wait until everything was read."""
        self._worker.join()

    def require_whole(self) -> None:
        """Raise what kept the file from being read to its end."""
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            self._evidence = verify_file(
                self._opened.path, name=self._opened.origin, require_trailer=False, progress=self._told
            )
            for found in self._reader.objects():
                self._told(None)
                self._take(found)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._failure = error

    def _told(self, progress: Progress | None) -> None:
        if self._stop.is_set():
            raise _StoppedError
        if progress is not None:
            self._progress(progress)

    def _take(self, found: SnapshotObject) -> None:
        key = found.key
        kinds = self.namespaces.setdefault(key.namespace, {})
        kinds[key.resource] = kinds.get(key.resource, 0) + 1
        name = f"{key.namespace}/{key.name}"
        if found.data is None or found.error is not None:
            assert found.error is not None  # noqa: S101 - one of the two
            self.stored.add_unreadable(key.resource, name, found.error.code)
            self._codes.setdefault(found.error.code, []).append(found.error)
            return
        self.stored.add(key.resource, name, found.data, custom=key.resource not in _CUSTOM_UNLESS)
        self._hazards.see(found.data)

    @property
    def revision(self) -> int:
        """The revision a member started from the file is at; a compaction may have left no record of it."""
        assert self._evidence is not None  # noqa: S101 - require_whole comes first
        return self._evidence.structure.hash_kv.hash_revision

    def facts(self) -> dict[str, str]:
        """Return what is known of the file, for people."""
        if self._evidence is None:
            return {}
        structure = self._evidence.structure
        wrapped = f", in {' in '.join(reversed(self._opened.wrappings))}" if self._opened.wrappings else ""
        return {
            "snapshot": f"revision {structure.revision}, {structure.client_keys:,} keys, "
            f"{self._evidence.size:,} bytes{wrapped}",
            "etcd of the snapshot": structure.facts.cluster_version or "unknown",
        }

    def findings(self) -> Iterator[RehearsalFinding]:
        """Yield what the file itself tells."""
        if isinstance(self._failure, SnapshotError):
            yield _refused(self._failure)
        elif self._failure is not None and not isinstance(self._failure, _StoppedError):
            raise self._failure
        for code, errors in self._codes.items():
            yield _unreadable(code, errors)
        if self._evidence is not None:
            yield from map(_of_remark, self._remarks(self._evidence))
        if self._failure is None:
            contents = self._reader.contents()
            yield from _unknown_keys(contents.unknown, prefix=self._prefix)
            yield from _elsewhere(contents.elsewhere, found=bool(self.stored.kinds), prefix=self._prefix)
        yield from self._hazards.findings()
        if self._reader.encrypted:
            yield _needs_keys(self._reader.encrypted)
        if self._reader.unknown_fields:
            yield _unknown_fields(self._reader.unknown_fields)

    def _remarks(self, evidence: FileEvidence) -> Iterator[Remark]:
        yield from remarks.of_database(evidence.structure.facts, keys=evidence.structure.client_keys)
        yield from remarks.of_file(trailer=evidence.trailer, passed_over=self._opened.passed_over)


# ---- findings ----------------------------------------------------------------------------------------------


def _reads(reader: SnapshotReader) -> Callable[[str, str, str], Mapping[str, Any] | None]:
    def read(plural: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        try:
            return reader.get(plural, name, namespace=namespace)
        except (ResourceNotFoundError, StoredObjectError):
            return None

    return read


def _await_definitions(server: SnapshotServer, stored: StoredObjects) -> None:
    """Wait until the custom resources are served whose definitions the snapshot has: it takes a moment."""
    defined = {
        name.lstrip("/") for (plural, _), names in stored.digests.items() if plural == _DEFINITIONS for name in names
    }
    wanted = stored.custom & defined

    def missing() -> str | None:
        served = {
            f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            for resource in server.api.resources(refresh=True)
        }
        return ", ".join(sorted(wanted - served)) or None

    try:
        poll_until(missing, what="custom resources are served", seconds=_SERVED_SECONDS, every=0.2)
    except WaitTimeoutError:
        return  # the comparison finds them missing


def _refused(error: SnapshotError) -> RehearsalFinding:
    return RehearsalFinding(
        code=error.code,
        level=Level.ERROR,
        message=error.message,
        hint=error.hint or "use another snapshot",
    )


def _does_not_start(error: ClusterGuardError) -> RehearsalFinding:
    return RehearsalFinding(
        code="control-plane-not-up",
        level=Level.ERROR,
        message=f"etcd and the API server come up empty, but not on it: {error.message}",
        hint=error.hint or "a cluster restored from it would not come up either: use another snapshot",
    )


def _unreadable(code: str, errors: list[StoredObjectError]) -> RehearsalFinding:
    return RehearsalFinding(
        code=code,
        level=Level.ERROR,
        message=f"objects that cannot be read from the file: {len(errors):,}",
        hint=errors[0].hint or "look at an older snapshot for them",
        count=len(errors),
        examples=tuple(error.message for error in errors[:5]),
    )


def _of_remark(remark: Remark) -> RehearsalFinding:
    return RehearsalFinding(
        code=remark.code,
        level=Level.WARNING if remark.warning else Level.NOTE,
        message=remark.detail,
        hint=_REMARK_HINTS.get(remark.code, "keep it in mind for a restore"),
    )


def _needs_keys(encrypted: Mapping[str, int]) -> RehearsalFinding:
    return RehearsalFinding(
        code="needs-encryption-config",
        level=Level.NOTE,
        message=f"values that are encrypted at rest: {sum(encrypted.values()):,}",
        hint="a restore needs the EncryptionConfiguration, and no snapshot has it: keep it with the backups",
        count=sum(encrypted.values()),
        examples=tuple(f"{provider}: {count:,}" for provider, count in sorted(encrypted.items())),
    )


def _unknown_keys(keys: Mapping[str, int], *, prefix: str) -> Iterator[RehearsalFinding]:
    """Yield that there are keys where objects lie, which neither the reader nor the API server takes for one."""
    if keys:
        yield RehearsalFinding(
            code="unknown-keys",
            level=Level.WARNING,
            message=f"keys under {prefix} that belong to nothing this release knows: {sum(keys.values()):,}",
            hint="they come back with a restore, yet nothing here could compare them: find out what writes them, such "
            "as an aggregated API server, and look at what it serves after a restore",
            count=sum(keys.values()),
            examples=tuple(f"{place}: {count:,} keys" for place, count in keys.items())[:5],
        )


def _elsewhere(keys: Mapping[str, int], *, found: bool, prefix: str) -> Iterator[RehearsalFinding]:
    """Yield what to know about keys under other prefixes: those of other programs, or of the cluster itself."""
    examples = tuple(f"{name}: {count:,} keys" for name, count in keys.items())
    if not found:
        yield RehearsalFinding(
            code="no-objects",
            level=Level.ERROR,
            message=f"no object is stored under {prefix}",
            hint="name the prefix that the API server had: --prefix; or this is not a snapshot of Kubernetes",
            count=sum(keys.values()),
            examples=examples[:5],
        )
    elif keys:
        yield RehearsalFinding(
            code="other-keys",
            level=Level.NOTE,
            message=f"keys that are not under {prefix}, and were not compared: {sum(keys.values()):,}",
            hint="they come back with a restore; whose they are, their prefixes say",
            count=sum(keys.values()),
            examples=examples[:5],
        )


def _unknown_fields(fields: Mapping[str, int]) -> RehearsalFinding:
    return RehearsalFinding(
        code="unknown-fields",
        level=Level.ERROR,  # neither the reader nor an older API server would miss what they do not know
        message=f"stored fields that this release does not know: {len(fields):,}",
        hint="a newer Kubernetes wrote them; upgrade clusterguard, and rehearse again",
        count=sum(fields.values()),
        examples=tuple(list(fields)[:5]),
    )


_REMARK_HINTS: Final = {
    "alarm-nospace": "restore with --disarm-alarms, or etcd refuses every write",
    "alarm-corrupt": "find out which member is sound; restore with --disarm-alarms, or etcd refuses every write",
    "authentication-on": "have etcd's users and passwords at hand",
    "no-keys": "make sure that it is a snapshot of the cluster you mean",
    "no-trailer": "save snapshots through etcd's API: etcdctl snapshot save, or clusterguard etcd save",
    "newer-objects": "look at what else is written there",
}


def _report(
    source: str,
    facts: Mapping[str, str],
    stored: StoredObjects,
    findings: list[RehearsalFinding],
    clock: PhaseClock,
    *,
    namespaces: Mapping[str, Mapping[str, int]] | None = None,
) -> RehearsalReport:
    return RehearsalReport(
        source=source,
        facts=facts,
        kinds=tuple(stored.kinds[name] for name in sorted(stored.kinds)),
        namespaces=dict(sorted((namespaces or {}).items())),
        findings=worst_first(findings),
        phases=clock.phases(),
    )
