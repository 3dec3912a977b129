"""What the bundle of a run needs while its clusters and stores are there: inventories, differences, digests.

None of it judges: what cannot be had is told in ``materials.json`` with the reason, and the verdict stays.
"""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from clusterguard.drills.diagnostics import why_silent
from clusterguard.drills.programs import programs_for
from clusterguard.drills.steps.apply import Apply
from clusterguard.errors import ClusterGuardError
from clusterguard.evidence.bundle import COMPARISON, MATERIALS
from clusterguard.stores.transfer import digest_object
from clusterguard.validate.validator import RestoreValidator
from clusterguard.velero.layout import BACKUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clusterguard.drills.backups import TakenBackup
    from clusterguard.drills.journal import Journal
    from clusterguard.drills.run import DrillRun
    from clusterguard.model.inventory import Inventory

__all__ = ["gather"]

_T = TypeVar("_T")


def gather(run: DrillRun, journal: Journal) -> None:
    """Write what was used, what was there before and is there now, and what tells the two apart."""
    gathering = _Gathering(run, journal)
    gathering.inventories()
    if run.judged or run.comparisons:
        journal.add(COMPARISON, list(_comparisons(run)))
    journal.add(MATERIALS, gathering.materials())


@dataclass(slots=True)
class _Gathering:
    run: DrillRun
    journal: Journal
    lacking: list[dict[str, str]] = field(default_factory=list)

    def inventories(self) -> None:
        before = {f"inventory-before-{name}.jsonl.gz": found for name, found in sorted(self.run.baselines.items())}
        if not before:
            self._lacks("inventory before", "the drill ended before it was taken, or compares nothing with it")
        found = {**before, **(self._inventories_after() if before else {})}
        # All of it first: what is a Secret in one stands in no other.
        for step in self.run.drill.steps:
            self.journal.secrets.learn(step.objects)
        for inventory in found.values():
            self.journal.secrets.learn_inventory(inventory)
        for name, inventory in found.items():
            self.journal.add_inventory(name, inventory)

    def _inventories_after(self) -> dict[str, Inventory]:
        run = self.run
        found: dict[str, Inventory] = {}
        for name, step in sorted({step.cluster: step for step in run.drill.phase("verify")}.items()):
            what = f"inventory after, cluster `{name}`"
            if name not in run.clusters:
                self._lacks(what, "the cluster does not run")
            elif silent := why_silent(run.clusters[name].api):
                self._lacks(what, silent)
            else:
                validator = RestoreValidator(api=run.clusters[name].api)
                after = self._try(what, partial(validator.capture, run.baseline_for(step).scope))
                if after is not None:
                    found[f"inventory-after-{name}.jsonl.gz"] = after
        return found

    def materials(self) -> dict[str, Any]:
        from clusterguard import __version__

        run = self.run
        return {
            "format": 1,
            "clusterguard": __version__,
            "python": platform.python_version(),
            "drill": {
                "name": run.drill.id,
                "description": run.drill.spec.description,
                "file": run.drill.path.name,
                "sha256": hashlib.sha256(run.drill.text.encode()).hexdigest(),
                "combination": dict(run.drill.combination),
            },
            "manifests": list(self._manifests()),
            "clusters": [
                {"name": name, "provider": run.clusters[name].provider, "description": told}
                for name, told in run.descriptions.items()
                if name in run.clusters
            ],
            "programs": list(self._programs()),
            "backups": [*self._snapshots(), *self._velero_backups()],
            "notCollected": self.lacking,
        }

    def _manifests(self) -> Iterator[dict[str, Any]]:
        drill = self.run.drill
        applied = (step.action for step in drill.steps if isinstance(step.action, Apply))
        for name in sorted({path for action in applied for path in action.paths}):
            if digest := self._try(f"manifest {name}", partial(_digest_of_file, drill.path.parent / name)):
                yield {"file": name, "sha256": digest}

    def _programs(self) -> Iterator[dict[str, Any]]:
        run = self.run
        if not run.created:
            return
        from clusterguard.toolchain import from_environment

        toolchain = from_environment(os.environ)
        for name in programs_for([run.drill], default_cluster=run.settings.cluster):
            found = self._try(f"program {name}", partial(toolchain.find, name))
            if found is not None:
                yield {"name": name, "version": found.version, "sha256": _digest_of_program(found.path)}

    def _snapshots(self) -> Iterator[dict[str, Any]]:
        for name, taken in self.run.snapshots.items():
            record = taken.record
            yield {
                "name": name,
                "kind": "etcd snapshot",
                "taken": record.taken.isoformat(),
                "revision": record.revision,
                "objects": [{"key": record.key, "size": record.size, "sha256": record.sha256}],
            }

    def _velero_backups(self) -> Iterator[dict[str, Any]]:
        for name, taken in self.run.velero.backups.items():
            what = f"digests of Velero backup {taken.name}"
            objects = self._try(what, partial(_objects, self.run, taken))
            if objects is not None:
                yield {"name": name, "kind": "Velero backup", "backup": taken.name, "objects": objects}
                if taken.repositories:
                    self._lacks(f"digests of volumes in {taken.name}", "kopia's repository checks its own")

    def _try(self, what: str, act: Callable[[], _T]) -> _T | None:
        try:
            return act()
        except (ClusterGuardError, OSError) as error:
            self._lacks(what, str(error))
            return None

    def _lacks(self, what: str, reason: str) -> None:
        self.lacking.append({"what": what, "reason": reason})


def _comparisons(run: DrillRun) -> Iterator[dict[str, Any]]:
    verified = any(phase.name == "verify" for phase in run.phases)
    titles = {step.location: (step.title, step.cluster) for step in run.drill.phase("verify")}
    for location, (profile, report) in (run.judged or run.comparisons).items():
        title, cluster = titles[location]
        yield {
            "check": title,
            "location": location,
            "cluster": cluster,
            "seen": "after the restore" if verified else "after the fault",
            "rules": profile,
            **report.to_dict(),
        }


def _objects(run: DrillRun, taken: TakenBackup) -> list[dict[str, Any]]:
    bucket = run.velero.bucket_of(taken.cluster, taken, None)
    digests = ((info.key, *digest_object(bucket, info.key)) for info in bucket.list(f"{BACKUPS}{taken.name}/"))
    return [{"key": key, "size": size, "sha256": sha256} for key, sha256, size in digests]


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_program(path: Path) -> str:
    status = path.stat()
    return _digest_of_version(path, status.st_mtime_ns, status.st_size)


@cache
def _digest_of_version(path: Path, _modified: int, _size: int) -> str:
    """Read a program of a hundred megabytes once for all drills that use it."""
    return _digest_of_file(path)
