"""``verifyBackup``: read a backup back from where it is stored."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from clusterguard.documents.model import Label, Omitted, Text
from clusterguard.drills.steps.base import Action, StepContext
from clusterguard.errors import DrillError, ResourceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.documents.yamlfile import DataPath
    from clusterguard.drills.run import DrillRun
    from clusterguard.drills.schema import DrillSpec, Step
    from clusterguard.velero.volume_data import DataCheck


def _share(text: str) -> str:
    from clusterguard.velero.volume_data import parse_share

    parse_share(text)
    return text


class VerifyBackup(Action):
    """Read a backup back from where it is stored: digest, structure, revision and key count, or contents."""

    phases = ("backup",)
    judges = True
    storage_fields = ("storage", "same_as")
    backup_field = "backup"

    backup: Label
    """The backup's name."""
    storage: Label | Omitted = None
    """The storage to read; the one that it was made in when left out."""
    contains: Literal["scope"] | Omitted = None
    """`scope`: every object of spec.scope must be in it."""
    same_as: Label | Omitted = None
    """A storage whose copy must be equal, byte for byte."""
    data: Annotated[Text, AfterValidator(_share)] | Omitted = None
    """How much of the data of volumes is read, too, and compared with its hashes: `5%`, or `all`."""

    def needs_cluster(self) -> bool:
        return False  # it reads where the backup is stored

    def plan(self) -> str:
        where = f" in storage {self.storage}" if self.storage else ""
        contents = ", and find everything in scope in it" if self.contains else ""
        same = f", and compare it byte for byte with {self.same_as}" if self.same_as else ""
        data = f", and the data of its volumes with it, {self.data} of it byte by byte" if self.data else ""
        return f"read backup `{self.backup}`{where} back: digest, structure, revision{contents}{same}{data}"

    def programs(self) -> tuple[str, ...]:
        return ("kopia",) if self.data else ()

    def problems(self, spec: DrillSpec, step: Step) -> Iterator[tuple[DataPath, str]]:
        if self.contains and spec.proves_stored:
            yield ("contains",), "a `storedBackup` is the baseline itself, and so always contains the scope"

    def perform(self, here: StepContext) -> str:
        return (
            self._verify_snapshot(here.run)
            if self.backup in here.run.snapshots
            else self._verify_velero_backup(here.run)
        )

    def _verify_snapshot(self, run: DrillRun) -> str:
        taken = run.snapshot(self.backup)
        if self.contains:
            raise DrillError("`contains` is for Velero backups: an etcd snapshot always holds the whole cluster")
        if self.data:
            raise DrillError("`data` is for Velero backups: an etcd snapshot holds no data of volumes")
        storages = [self.storage or taken.storages[0], *filter(None, [self.same_as])] if taken.storages else []
        stores = [run.store(storage) for storage in storages] or [run.store_of(taken)]
        access = run.clusters[taken.cluster].etcd if taken.cluster in run.clusters else None
        said = []
        for store in stores:
            report = run.snapshotter(store, access=access).verify(taken.record.name)
            report.raise_for_findings()
            said.append("; ".join(f"{check.name}: {check.detail}" for check in report.checks if check.name != "bytes"))
        return said[0]

    def _verify_velero_backup(self, run: DrillRun) -> str:
        """Read it in its bucket, without asking the server."""
        from clusterguard.velero.bucket import verify_backup
        from clusterguard.velero.bucket_report import BucketPolicy
        from clusterguard.velero.manifest import load_manifest

        taken = run.velero.taken(self.backup)
        storages = [self.storage, *filter(None, [self.same_as])]
        manifest = load_manifest(run.store(None), taken.name)
        inventory = run.baselines.get(taken.cluster) if self.contains else None
        said = []
        for storage in storages:
            # Each copy is compared with the digests of the original, and so they are equal to each other.
            report = verify_backup(
                run.velero.bucket_of(taken.cluster, taken, storage),
                taken.name,
                now=datetime.now(UTC),
                policy=BucketPolicy(
                    skipped_volumes_ok=not taken.volumes,
                    tolerate_phases=(taken.expect,) if taken.expect else (),
                    tolerate_rules=frozenset(taken.tolerated),
                ),
                inventory=inventory,
                manifest=manifest,
                volume_data=self._data_check(run, taken.cluster) if self.data else None,
                progress=run.on_event,
            )
            report.raise_for_findings()
            data = [
                f"; volume data: {check.detail}" for check in report.checks if check.name == "volume data" and self.data
            ]
            said.append(f"{report.objects} object(s), {len(report.checks)} checks hold{''.join(data)}")
        return said[0] + (f", `{self.same_as}` holds the same" if self.same_as is not None else "")

    def _data_check(self, run: DrillRun, cluster: str) -> DataCheck:
        from clusterguard.toolchain import from_environment
        from clusterguard.velero.repository import DEFAULT_PASSWORD, password_in
        from clusterguard.velero.volume_data import DataCheck, parse_share

        password = DEFAULT_PASSWORD
        if cluster in run.clusters:  # and not only created in the restore, with a Velero that knows no other
            client = run.velero.client(cluster)
            with suppress(ResourceNotFoundError):  # this Velero has never opened a repository
                password = password_in(client.objects.api, client.namespace)
        toolchain = from_environment(os.environ, progress=run.on_event)
        share = parse_share(self.data or "all")
        return DataCheck(program=lambda: toolchain.ensure("kopia")["kopia"], share=share, password=password)
