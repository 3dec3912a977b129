"""`VeleroRehearsal`: restore a Velero backup from its bucket into a throwaway cluster, and compare every object."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from clusterguard.clusters.embedded.isolation import IsolatedCluster
from clusterguard.documents.values import selects
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.errors import BackupCorruptError, BackupFailedError
from clusterguard.model.inventory import Inventory, Scope
from clusterguard.model.progress import ignore_progress
from clusterguard.model.report import FindingKind
from clusterguard.rehearsal.changes import Changes, changes_between, changes_since
from clusterguard.rehearsal.clock import PhaseClock
from clusterguard.rehearsal.hazards import Hazards
from clusterguard.rehearsal.report import Examples, KindCount, Level, RehearsalFinding, RehearsalReport, worst_first
from clusterguard.rehearsal.versions import other_version, requested_api_server
from clusterguard.scratch import private_folder
from clusterguard.snapshots.resources import BUILT_IN
from clusterguard.stores import open_store
from clusterguard.stores.transfer import copy_object
from clusterguard.toolchain import from_environment
from clusterguard.validate import RestoreValidator
from clusterguard.validate.capture import rule_leaving_out
from clusterguard.validate.rules import FILLED_IN, VELERO_RESTORE
from clusterguard.velero.bucket import as_inventory, backups_in, verify_backup
from clusterguard.velero.client import VeleroClient
from clusterguard.velero.existing_backups import choose_backup, require_restorable
from clusterguard.velero.install import InstallOptions, install
from clusterguard.velero.layout import BACKUPS, BackupFile, BackupLayout
from clusterguard.velero.locations import LocationSpec
from clusterguard.velero.options import RestoreOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.model.inventory import ObjectRef
    from clusterguard.model.progress import ProgressSink
    from clusterguard.model.report import Finding, ValidationReport
    from clusterguard.stores.base import ObjectStore
    from clusterguard.toolchain import Toolchain
    from clusterguard.velero.outcome import RestoreOutcome
    from clusterguard.velero.resources import Backup

__all__ = ["VeleroRehearsal", "holds_velero_backups"]

_BUCKET: Final = "rehearsal"
_SCOPE: Final = Scope()
_RESTORE_SECONDS: Final = 3600.0
_EXAMPLES: Final = 5
_ASK_VELERO: Final = "what Velero said of them is told, too; a drill may restore with other options"
_WORDS: Final = {
    "no-longer-served": (
        "objects of kinds that this version of Kubernetes does not serve: {n}",
        "restore to the version that the cluster ran, or move them to another API before the next upgrade",
    ),
    "definition-missing": (
        "custom resources whose definition was not restored: {n}",
        "have the CustomResourceDefinition backed up, too, or apply it before the restore",
    ),
    "not-restored": ("objects of the backup that were not restored: {n}", _ASK_VELERO),
    "restored-otherwise": ("objects that were restored otherwise than they were backed up: {n}", _ASK_VELERO),
    "not-comparable": ("objects that could not be looked at: {n}", _ASK_VELERO),
    "not-ready": ("objects that are not ready: {n}", _ASK_VELERO),
}
_CODES: Final = {
    FindingKind.MISSING: "not-restored",
    FindingKind.CHANGED: "restored-otherwise",
    FindingKind.UNKNOWN: "not-comparable",
    FindingKind.NOT_READY: "not-ready",
}
_THROWAWAY: Final = replace(VELERO_RESTORE, rules=(*VELERO_RESTORE.rules, FILLED_IN))
_BUILT_IN_GROUPS: Final = frozenset(resource.group for resource in BUILT_IN)


class VeleroRehearsal:
    """Restores a Velero backup from its bucket alone into a throwaway cluster, and says whether it is all in there.

        report = VeleroRehearsal(location="s3://backups/velero").run()

    The backup's files are copied into a bucket of a server on this machine, so nothing is written where they lie. A
    real Velero restores them into an embedded cluster, and each object of the backup is compared with what is there
    then by the rules of ``velero-restore``. Nothing leaves the machine. Volumes are not restored.

    Args:
        location: The prefix of Velero's storage location, as `open_store` takes it: ``s3://BUCKET/PREFIX``, or a folder
            with a copy of it, or a store. It has ``backups/NAME/velero-backup.json``.
        backup: The backup's name; by default the newest.
        schedule: The schedule whose newest backup is taken.
        at: Take the newest that began no later than this.
        kubernetes_version: The minor version of the API server to rehearse on, such as ``1.37``; by default the
            toolchain's own, of which the controllers are in any case.
        compare: What the backup is to be compared with, by name: an inventory, or the API of a cluster as it is now.
            What has changed is told beside the verdict.
        toolchain: Where the programs come from, by default found or built as needed.
        home: Folder that the throwaway cluster lives under.
        on_phase: Called with the name of each phase as it begins.
        progress: Told of programs as they are installed.
        now: The time, UTC.

    Raises:
        ConfigError: The location is not valid, or there is no API server of the version that was asked for.
    """

    def __init__(
        self,
        *,
        location: str | os.PathLike[str] | ObjectStore,
        backup: str = "",
        schedule: str = "",
        at: datetime | None = None,
        kubernetes_version: str = "",
        compare: Mapping[str, Inventory | KubeClient] = MappingProxyType({}),
        toolchain: Toolchain | None = None,
        home: Path | None = None,
        on_phase: Callable[[str], object] = lambda _: None,
        progress: ProgressSink = ignore_progress,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = open_store(location) if isinstance(location, (str, os.PathLike)) else location
        self._backup = backup
        self._schedule = schedule
        self._at = at
        self._requested = requested_api_server(kubernetes_version) if kubernetes_version else ""
        self._compare = compare
        self._changes: dict[str, Changes] = {}
        self._toolchain = toolchain or from_environment(os.environ, progress=progress)
        self._home = home
        self._clock = PhaseClock(on_phase)
        self._progress = progress
        self._now = now

    def run(self) -> RehearsalReport:
        """Rehearse, and return what was found; the throwaway cluster is gone again afterwards.

        Raises:
            ObjectNotFoundError: There is no such backup.
            VeleroError: It has not ended yet.
            ConfigError: The location or the name is not valid.
            ToolchainError: A program is missing and cannot be installed.
            StoreError: The bucket could not be read.
        """
        report = self._rehearsed()
        changes = (
            self._changes.get(name) or changes_between(None, other, name=name) for name, other in self._compare.items()
        )
        return replace(report, changes=tuple(changes))

    def _rehearsed(self) -> RehearsalReport:
        self._clock.begin("find the backup")
        backup = self._chosen()
        origin = f"{self._source.url}: Velero backup {backup.name}"
        findings: list[RehearsalFinding] = []
        try:
            require_restorable(backup, now=self._now())
        except BackupFailedError as error:
            findings.append(_of_backup(error))
            if error.code not in _RESTORABLE_ALL_THE_SAME:
                return self._report(origin, backup, None, findings)
        self._clock.begin("verify the bucket")
        try:
            verify_backup(self._source, backup.name, now=self._now()).raise_for_findings()
            inventory = self._held(backup, _SCOPE)
        except BackupCorruptError as error:
            findings.append(_of_backup(error))
            return self._report(origin, backup, None, findings)
        return self._restored(origin, backup, inventory, findings)

    def _chosen(self) -> Backup:
        known = backups_in(self._source, self._backup)
        if self._at is not None:
            known = [each for each in known if each.started is not None and each.started <= self._at]
        return choose_backup(known, name=self._backup, schedule=self._schedule, where=self._source.url)

    def _restored(
        self, origin: str, backup: Backup, inventory: Inventory, findings: list[RehearsalFinding]
    ) -> RehearsalReport:
        with ExitStack() as stack:
            self._clock.begin("copy the backup")
            server = self._copied(stack, backup.name)
            self._clock.begin("start a cluster")
            cluster = stack.enter_context(
                IsolatedCluster(
                    api_server=self._requested or "kube-apiserver",
                    toolchain=self._toolchain,
                    home=self._home,
                    progress=self._progress,
                )
            )
            self._clock.begin("start Velero")
            client = self._velero(cluster, server)
            client.adopt(backup.name, store=server.store(_BUCKET), location=_BUCKET)
            self._clock.begin("restore")
            options = RestoreOptions(restore_volumes=False)
            done = client.wait(client.restore(backup.name, options, wait=False), timeout_seconds=_RESTORE_SECONDS)
            outcome = client.outcome(done)
            self._clock.begin("compare")
            validator = RestoreValidator(api=cluster.api)
            compared = validator.validate(inventory, profile=_THROWAWAY, progress=self._progress)
            version = cluster.api.server_version()
            served = frozenset(map(str, cluster.api.resources()))
        findings += [*_of_comparison(compared, served), *_of_velero(outcome)]
        for name, other in self._compare.items():
            self._clock.begin(f"compare with {name}")
            self._changes[name] = self._compared(backup, inventory, other, name)
        return self._report(origin, backup, inventory, findings, compared=compared, version=version)

    def _held(self, backup: Backup, scope: Scope) -> Inventory:
        """Return what the backup holds of a scope, as a capture of a cluster would."""

        def leave_out(ref: ObjectRef, item: Mapping[str, Any]) -> str | None:
            if _is_of_velero(ref, backup):
                return "Velero's own"  # its backups and locations are of the server that made it
            if not selects(scope.selector, item["metadata"].get("labels") or {}):
                return "other labels"
            return rule_leaving_out(ref, dict(item), scope)

        return as_inventory(self._source, backup.name, scope, leave_out=leave_out)

    def _compared(self, backup: Backup, held: Inventory, other: Inventory | KubeClient, name: str) -> Changes:
        if isinstance(other, Inventory):
            return changes_since(self._held(backup, other.scope), other, name=name)
        return changes_since(held, other, name=name, asked_for=_asked_for(backup, other))

    def _copied(self, stack: ExitStack, name: str) -> LocalS3Server:
        """Copy one backup into a bucket of our own: a restore writes its results beside it."""
        folder = stack.enter_context(private_folder())
        program = self._toolchain.ensure("versitygw")["versitygw"]
        server = stack.enter_context(LocalS3Server(program=program, folder=folder))
        server.create_bucket(_BUCKET)
        target = server.store(_BUCKET)
        for info in self._source.list(BackupLayout(name).folder):
            copy_object(self._source, info.key, target)
        return server

    def _velero(self, cluster: IsolatedCluster, server: LocalS3Server) -> VeleroClient:
        client = VeleroClient(api=cluster.api)
        velero = cluster.velero_server.program("velero")
        # The server runs beside the cluster; restores take settings from its Deployment all the same.
        install(InstallOptions(replicas=0), api=cluster.api, velero=velero, progress=self._progress)
        cluster.velero_server.start(on_wait=self._clock.begin)
        config = {"region": server.region, "s3ForcePathStyle": "true", "s3Url": server.endpoint}
        spec = LocationSpec(bucket=_BUCKET, config=config, credentials=server.credentials_file(), default=True)
        client.locations.create(_BUCKET, spec)
        client.locations.require_available(_BUCKET, fresh=True)
        return client

    def _report(
        self,
        origin: str,
        backup: Backup,
        inventory: Inventory | None,
        findings: list[RehearsalFinding],
        *,
        compared: ValidationReport | None = None,
        version: str = "",
    ) -> RehearsalReport:
        objects: Mapping[ObjectRef, bytes] = inventory.objects if inventory else {}
        hazards = Hazards(now=self._now(), claimed=None, users=False)
        for data in objects.values():
            hazards.see(orjson.loads(data))
        return RehearsalReport(
            source=origin,
            facts=_facts(backup, objects, compared, version),
            kinds=_kinds(objects, compared),
            namespaces=_namespaces(objects),
            findings=worst_first(
                [
                    *findings,
                    *hazards.findings(),
                    *other_version(backup.source_version, version, requested=bool(self._requested)),
                ]
            ),
            phases=self._clock.phases(),
        )


def holds_velero_backups(location: str | os.PathLike[str]) -> bool:
    """Return whether a location is laid out as a storage location of Velero; a file or a stream is not.

    Raises:
        ConfigError: It is not a valid location.
        StoreError: It cannot be read.
    """
    text = os.fspath(location)
    folder = None if "://" in text else Path(text).expanduser()
    if folder is not None and not folder.is_dir():
        return False
    return any(info.key.endswith(f"/{BackupFile.METADATA}") for info in open_store(folder or text).list(BACKUPS))


_RESTORABLE_ALL_THE_SAME: Final = frozenset({"backup-partial", "backup-expired"})


def _is_of_velero(ref: ObjectRef, backup: Backup) -> bool:
    where = ref.name if ref.full_kind == "Namespace" else ref.namespace
    return ref.group == "velero.io" or ref.name.endswith(".velero.io") or (where != "" and where == backup.namespace)


def _asked_for(backup: Backup, api: KubeClient) -> Callable[[ObjectRef], bool]:
    """Return what tells whether a backup was to have an object of a cluster."""
    options = backup.options
    by_labels = options.label_selector is not None or bool(options.or_label_selectors)

    def asked_for(ref: ObjectRef) -> bool:
        if by_labels or _is_of_velero(ref, backup):
            return False
        if ref.full_kind == "Namespace":
            return options.wants_namespace(ref.name)
        resource = api.resource(ref.full_kind)
        plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        wanted = options.wants_kind(plural, namespaced=resource.namespaced)
        return wanted and (not resource.namespaced or options.wants_namespace(ref.namespace))

    return asked_for


def _facts(
    backup: Backup, objects: Mapping[ObjectRef, bytes], compared: ValidationReport | None, version: str
) -> dict[str, str]:
    begun = f"begun {backup.started:%Y-%m-%d %H:%M:%S} UTC, " if backup.started else ""
    facts = {
        "backup": f"{begun}{backup.progress.done:,} objects",
        "Kubernetes of the backup": backup.source_version or "unknown",
    }
    if version:
        facts["rehearsed on"] = f"Kubernetes {version}"
        facts["compared"] = f"{len(objects):,} objects; what every cluster makes by itself was left out"
    if compared is not None and compared.suppressed:
        rules = ", ".join(f"{rule} {count:,}" for rule, count in compared.suppressed_by_rule.items())
        facts["differences that rules explain"] = rules
    return facts


def _kinds(objects: Mapping[ObjectRef, bytes], compared: ValidationReport | None) -> Sequence[KindCount]:
    rows: dict[str, KindCount] = {}
    for ref in objects:
        rows.setdefault(ref.full_kind, KindCount(kind=ref.full_kind)).backed_up += 1
    if compared is None:
        return [rows[name] for name in sorted(rows)]
    wrong: Counter[tuple[str, FindingKind]] = Counter(
        (finding.ref.full_kind, finding.kind) for finding in compared.findings if finding.ref in objects
    )
    for name, row in rows.items():
        row.missing = wrong[name, FindingKind.MISSING]
        row.different = wrong[name, FindingKind.CHANGED]
        row.unreadable = wrong[name, FindingKind.UNKNOWN]
        row.equal = row.backed_up - row.missing - row.different - row.unreadable
    return [rows[name] for name in sorted(rows)]


def _namespaces(objects: Mapping[ObjectRef, bytes]) -> Mapping[str, Mapping[str, int]]:
    found: dict[str, Counter[str]] = {}
    for ref in objects:
        found.setdefault(ref.namespace, Counter())[ref.full_kind] += 1
    return dict(sorted(found.items()))


def _of_comparison(compared: ValidationReport, served: Collection[str]) -> Iterator[RehearsalFinding]:
    examples: dict[str, Examples] = {}
    for each in compared.findings:
        if code := _code_of(each, served):
            examples.setdefault(code, Examples()).add(_described(each))
    for code, words in _WORDS.items():
        yield from examples.get(code, Examples()).finding(code, Level.ERROR, *words)


def _code_of(finding: Finding, served: Collection[str]) -> str | None:
    if finding.kind is FindingKind.MISSING and finding.ref.full_kind not in served:
        return "no-longer-served" if finding.ref.group in _BUILT_IN_GROUPS else "definition-missing"
    return _CODES.get(finding.kind)


def _described(finding: Finding) -> str:
    paths = ", ".join(change.path for change in finding.changes[:3])
    return ": ".join(filter(None, (str(finding.ref), paths or finding.detail)))


def _of_velero(outcome: RestoreOutcome) -> Iterator[RehearsalFinding]:
    """Yield what speaks against the restore itself, in Velero's words: by rule, worst first."""
    by_rule: dict[str, list[Any]] = {}
    for each in outcome.findings:
        by_rule.setdefault(str(each.rule), []).append(each)
    for rule, found in by_rule.items():
        count = sum(each.count for each in found)
        yield RehearsalFinding(
            code=f"velero-{rule}",
            level=Level.ERROR if rule in _FAILING else Level.WARNING,
            message=f"Velero's restore: {rule}: {count:,}",
            hint="docs/reference/velero.md says what each means",
            count=count,
            examples=tuple(f"{each.ref}: {each.detail}" if each.ref else each.detail for each in found[:_EXAMPLES]),
        )


_FAILING: Final = frozenset(
    {"failed", "partially-failed", "error", "item-failed", "nothing-restored", "validation", "evidence-missing"}
)


def _of_backup(error: BackupFailedError | BackupCorruptError) -> RehearsalFinding:
    return RehearsalFinding(
        code=error.code,
        level=Level.WARNING if error.code == "backup-expired" else Level.ERROR,
        message=error.message,
        hint=error.hint or "use another backup",
    )
