"""What a restore met, and what it set going again: the backup's objects beside those of the cluster.

Velero calls an object different because of times in ``managedFields``, and says nothing of a Job that runs again. So
both versions are fetched and compared by the rules of `clusterguard.validate`, and then judged. Source of the facts:
Velero 1.18.3, run.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from clusterguard.errors import ResourceNotFoundError
from clusterguard.model.inventory import Inventory, ObjectRef, Scope, canonical
from clusterguard.validate.compare import compare
from clusterguard.validate.renaming import in_other_namespaces
from clusterguard.validate.rules import VELERO_RESTORE
from clusterguard.validate.system import kind_rule, system_rules
from clusterguard.velero.findings import OutcomeFinding, Rule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from clusterguard.clusters.kube import ApiResource, Json, KubeClient
    from clusterguard.model.report import FieldChange

__all__ = ["Comparer"]

_Object: TypeAlias = "Mapping[str, Any]"
_JOB: Final = "Job.batch"
_DEFINITION: Final = "CustomResourceDefinition.apiextensions.k8s.io"
_MOST_CHANGES: Final = 3
_MOST_GETS: Final = 10  # of one kind in one namespace; of more, one list is quicker
_LONGEST_VALUE: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparer:
    """Compares what a backup holds with what is in the cluster after its restore.

    Attributes:
        api: The cluster.
        started: When the restore began.
        source_version: Of the API server that the backup is of; empty where that is unknown.
        names: Old and new names of namespaces.
        doubtful: Objects that Velero says it left as they were, under their names in the cluster.
        created: Those that it created, likewise.
    """

    api: KubeClient = field(repr=False)
    started: datetime
    source_version: str = ""
    names: Mapping[str, str]
    doubtful: Collection[ObjectRef]
    created: Collection[ObjectRef]

    @property
    def needed(self) -> bool:
        """Whether there is anything to look at in the backup."""
        return bool(self.doubtful) or any(ref.full_kind == _JOB for ref in self.created)

    def wanted(self, objects: Iterable[tuple[ObjectRef, bytes]]) -> Mapping[ObjectRef, bytes]:
        """Return those of a backup's objects that matter, under their names in the cluster.

        Args:
            objects: All of it, with ``managedFields``.
        """
        jobs = {ref.namespace for ref in self.created if ref.full_kind == _JOB}
        found: dict[ObjectRef, bytes] = {}
        for old, data in objects:
            ref = self._renamed(old)
            of_job = ref.full_kind in {_JOB, "Pod"} and ref.namespace in jobs and ref in self.created
            if of_job or ref in self.doubtful:
                found[old] = data
        inventory = Inventory(taken=self.started, server_version="", scope=Scope(), objects=found)
        return in_other_namespaces(inventory, self.names).objects

    def _renamed(self, ref: ObjectRef) -> ObjectRef:
        if ref.full_kind == "Namespace":
            return replace(ref, name=self.names.get(ref.name, ref.name))
        return replace(ref, namespace=self.names.get(ref.namespace, ref.namespace))

    # ---- what exists -------------------------------------------------------------------------------------

    def existing(self, stored: Mapping[ObjectRef, bytes]) -> Mapping[ObjectRef, OutcomeFinding]:
        """Return what the comparison says of each doubtful object that both have.

        Raises:
            ClusterError: An object cannot be read.
        """
        items = {ref: orjson.loads(data) for ref, data in stored.items() if ref in self.doubtful}
        # Who wrote to an object decides whether it is the system's, and is no part of the object itself.
        system = {ref: name for ref, item in items.items() if (name := _system_rule(ref, item))}
        before = {ref: canonical(item) for ref, item in items.items()}
        found = {ref: _finding(Rule.SYSTEM_OWNED, ref, name) for ref, name in system.items()}
        live = self._live({ref: data for ref, data in before.items() if ref not in system})
        compared = compare(
            {ref: before[ref] for ref in live},
            live,
            profile=VELERO_RESTORE,
            digest_key=secrets.token_bytes(32),
            same_version=not self.source_version or self.source_version == self.api.server_version(),
        )
        changed = {finding.ref: finding.changes for finding in compared.findings}
        for ref in live:
            if ref not in changed:
                found[ref] = _finding(Rule.EXISTS_SAME, ref, "it exists, and is as it is in the backup")
            else:
                detail = f"it exists, and was left as it is: {_told(changed[ref])}"
                found[ref] = _finding(Rule.EXISTS_DIFFERENT, ref, detail)
        return found

    def _live(self, stored: Mapping[ObjectRef, bytes]) -> Mapping[ObjectRef, bytes]:
        """Return those that are in the cluster, in the version that the backup has; many of a kind by one list."""
        groups: dict[tuple[str, str, str], list[ObjectRef]] = defaultdict(list)
        for ref, data in stored.items():
            groups[ref.kind, str(orjson.loads(data)["apiVersion"]), ref.namespace].append(ref)
        found: dict[ObjectRef, bytes] = {}
        for (kind, version, namespace), refs in groups.items():
            with suppress(ResourceNotFoundError):  # the kind is gone since, so Velero's word is all there is
                resource = self.api.resource(kind, api_version=version)
                for item in self._items(resource, namespace or None, refs):
                    found[ObjectRef.of(item)] = canonical(item)
        return {ref: data for ref, data in found.items() if ref in stored}

    def _items(self, resource: ApiResource, namespace: str | None, refs: Sequence[ObjectRef]) -> Iterator[Json]:
        if len(refs) > _MOST_GETS:
            yield from self.api.list(resource, namespace)
            return
        for ref in refs:
            with suppress(ResourceNotFoundError):
                yield self.api.get(resource, ref.name, namespace)

    # ---- what runs again ---------------------------------------------------------------------------------

    def jobs(self, stored: Mapping[ObjectRef, bytes]) -> Iterator[OutcomeFinding]:
        """Yield the Jobs that were restored and do their work once more.

        Raises:
            ClusterError: A Job cannot be read.
        """
        items = {ref: orjson.loads(data) for ref, data in stored.items() if ref in self.created}
        pods = {ref: item for ref, item in items.items() if ref.full_kind == "Pod"}
        for ref in sorted(ref for ref in items if ref.full_kind == _JOB):
            job = items[ref]
            yield from self._without_owner(ref, job, stored[ref])
            if (job.get("spec") or {}).get("suspend"):
                continue
            if reason := _failure(job):
                yield _finding(Rule.JOB_RUNS_AGAIN, ref, f"it had failed ({reason}), and runs again from its beginning")
                continue
            for pod in sorted(pods):
                if pod.namespace == ref.namespace and _owner(pods[pod], "Job") == ref.name:
                    detail = f"its pod {pod.name} came back beside the one that it starts: the work is done twice"
                    yield _finding(Rule.JOB_RUNS_TWICE, ref, detail)

    def _without_owner(self, ref: ObjectRef, job: _Object, stored: bytes) -> Iterator[OutcomeFinding]:
        cron = _owner(job, "CronJob")
        live = self._live({ref: stored}).get(ref) if cron else None
        if live is not None and not _owner(orjson.loads(live), "CronJob"):
            detail = (
                f"CronJob {cron} does not own it any more: neither its history nor its concurrency policy counts it"
            )
            yield _finding(Rule.JOB_WITHOUT_OWNER, ref, detail)


def _finding(rule: Rule, ref: ObjectRef, detail: str) -> OutcomeFinding:
    return OutcomeFinding(rule=rule, detail=detail, ref=ref)


def _system_rule(ref: ObjectRef, item: _Object) -> str:
    """Return the rule that says that something in the cluster makes an object by itself, or nothing."""
    if ref.full_kind == _DEFINITION and ref.name.endswith(".velero.io"):
        return "Velero's own definitions: whoever installed it decides their version"
    kind = kind_rule(ref.full_kind, frozenset({"create"}))
    return kind.name if kind else next((rule.name for rule in system_rules(ref.full_kind, item)), "")


def _told(changes: Iterable[FieldChange]) -> str:
    every = tuple(changes)
    parts = [
        f"{each.path}: {_short(each.before)} in the backup, {_short(each.after)} in the cluster"
        for each in every[:_MOST_CHANGES]
    ]
    more = len(every) - _MOST_CHANGES
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"


def _failure(job: _Object) -> str:
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            return str(condition.get("reason") or "no reason is given")
    return ""


def _owner(item: _Object, kind: str) -> str:
    for owner in (item.get("metadata") or {}).get("ownerReferences") or ():
        if owner.get("kind") == kind:
            return str(owner.get("name", ""))
    return ""
