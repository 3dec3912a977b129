"""Reads what may protect and prove a cluster: Velero's objects, policies, drill files and their evidence."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from clusterguard.coverage.found import Unread
from clusterguard.coverage.proofs import DrillFacts, DrillRun
from clusterguard.coverage.sources import NotCounted, VeleroSeen
from clusterguard.errors import ObjectCorruptError, ObjectNotFoundError, ResourceNotFoundError
from clusterguard.evidence.bundle import MATERIALS
from clusterguard.evidence.history import as_run, results_in
from clusterguard.stores.transfer import read_object
from clusterguard.velero.objects import definition_of
from clusterguard.velero.resources import (
    Backup,
    BackupStorageLocation,
    DataUpload,
    PodVolumeBackup,
    Schedule,
    VolumeTransfer,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from clusterguard.drills.load import Drill
    from clusterguard.drills.steps.base import Action
    from clusterguard.drills.steps.stored_backup import StoredBackup
    from clusterguard.policies.policy import Policy, Source
    from clusterguard.policies.watching.verdict import PolicyStatus
    from clusterguard.stores.base import ObjectStore
    from clusterguard.velero.objects import VeleroObjects

__all__ = ["drill_facts", "of_this_cluster", "runs_in", "seen_of_policies", "velero_seen"]

_BACKUP_NAME: Final = "velero.io/backup-name"
_LARGEST: Final = 16 << 20  # bytes of a bundle's materials


# ---- Velero --------------------------------------------------------------------------------------------------


def velero_seen(objects: VeleroObjects) -> VeleroSeen | None:
    """Return what a Velero server has; None where the cluster has no Velero. Nothing is asked of the server itself.

    Raises:
        ClusterError: It cannot be read.
    """
    missing = set(objects.missing_definitions())
    if definition_of(Backup) in missing:
        return None
    transfers: dict[str, list[VolumeTransfer]] = defaultdict(list)
    for kind in (PodVolumeBackup, DataUpload):
        for each in () if definition_of(kind) in missing else objects.list(kind):
            transfers[each.labels.get(_BACKUP_NAME, "")].append(each)
    backups = objects.list(Backup)
    named = {name for each in backups if (name := each.options.resource_policy)}
    return VeleroSeen(
        backups=backups,
        schedules=objects.list(Schedule),
        locations=objects.list(BackupStorageLocation),
        transfers={name: tuple(found) for name, found in transfers.items()},
        rules={name: _rules(objects, name) for name in named},
    )


def _rules(objects: VeleroObjects, name: str) -> Collection[str] | None:
    """Return the keys of the document in a ConfigMap of rules; None where it cannot be read."""
    import yaml

    api = objects.api
    try:
        data = api.get(api.resource("ConfigMap", api_version="v1"), name, objects.namespace).get("data") or {}
        (text,) = data.values()
        document = yaml.safe_load(text)
    except (ResourceNotFoundError, ValueError, yaml.YAMLError):
        return None
    return list(document) if isinstance(document, dict) else None


# ---- policies ------------------------------------------------------------------------------------------------


def seen_of_policies(
    looks: Sequence[tuple[Policy, PolicyStatus]], cluster: str
) -> tuple[list[tuple[Policy, PolicyStatus]], list[NotCounted], list[Unread]]:
    """Return policies with the sources of this cluster alone, which of the others do not count, and what is unknown.

    Args:
        looks: The policies, and their status.
        cluster: The reference of this cluster.
    """
    ours: list[tuple[Policy, PolicyStatus]] = []
    refused: list[NotCounted] = []
    unread: list[Unread] = []
    for policy, status in looks:
        kept = [each for each in policy.sources if of_this_cluster(each, policy, cluster)]
        for source in policy.sources:
            if source not in kept:
                detail = f"it is of {source.engine.cluster}, not of {cluster}"
                refused.append(NotCounted(f"policy {policy.name}/{source.name}", "other-cluster", detail))
        if any(each.etcd for each in kept) and not any(each.reachable for each in status.locations):
            unread.append(Unread(f"policy {policy.name}", "none of its locations can be read"))
        ours.append((policy.model_copy(update={"sources": tuple(kept)}), status))
    return ours, refused, unread


def of_this_cluster(source: Source, policy: Policy, cluster: str) -> bool:
    """Return whether a source is of a cluster: by its reference, or where that cannot tell, by being named for it.

    A policy often runs where the cluster has another name (a kubeconfig on the control plane); it counts as long as all
    of its sources mean one cluster. Two contexts, or two kind clusters, of different names are never the same.
    """
    written = source.engine.cluster
    if written == cluster:
        return True
    if written and written.partition(":")[0] == cluster.partition(":")[0]:
        return False
    return len({each.engine.cluster or "endpoints" for each in policy.sources}) == 1


# ---- drills --------------------------------------------------------------------------------------------------


def drill_facts(drill: Drill, *, cluster: str, policies: Sequence[Policy]) -> DrillFacts:
    """Return what a drill file says that decides what it proves.

    Args:
        drill: The drill.
        cluster: The reference of this cluster.
        policies: Policies, with the sources of this cluster alone.
    """
    from clusterguard.drills.steps.stored_backup import StoredBackup

    stored = [step.action for step in drill.phase("backup") if isinstance(step.action, StoredBackup)]
    sources = {_source_of(each, drill, policies) for each in stored if not each.velero}
    of: Literal["cluster", "velero", "policy", "stand-in"] = "stand-in"
    if any(each.velero for each in stored):
        of = "velero"
    elif stored and "" not in sources:
        of = "policy"
    elif not stored and _is_at_home(drill, cluster):
        of = "cluster"
    return DrillFacts(
        id=drill.id,
        sha256=hashlib.sha256(drill.text.encode()).hexdigest(),
        scope=drill.spec.scope.scope(),
        compares=any(_compares_all(step.action) for step in drill.phase("verify")),
        of=of,
        sources=frozenset(sources),
    )


def _compares_all(check: Action) -> bool:
    """Return whether a check compares everything in scope, and lets nothing be missing or changed."""
    from clusterguard.drills.steps.restored import Restored

    if not isinstance(check, Restored):
        return False
    return all(getattr(check, name) == Restored.model_fields[name].default for name in ("missing", "changed"))


def _source_of(stored: StoredBackup, drill: Drill, policies: Sequence[Policy]) -> str:
    """Return the source of this cluster whose snapshot a drill takes; empty where it is of no such source."""
    file = (drill.path.parent / str(stored.policy)).resolve()
    return next(
        (
            f"policy {policy.name}/{source.name}"
            for policy in policies
            for source in policy.sources
            if source.name == stored.source and policy.path and Path(policy.path).resolve() == file
        ),
        "",
    )


def _is_at_home(drill: Drill, cluster: str) -> bool:
    """Return whether everything that a drill backs up is this cluster's own."""
    named = {name: f"context:{each.context}" for name, each in drill.spec.effective_clusters.items() if each.context}
    return {named.get(step.cluster, "") for step in drill.phase("backup")} == {cluster}


def runs_in(store: ObjectStore, drills: Collection[str]) -> Mapping[str, DrillRun]:
    """Return the last run of each drill of which a store has evidence.

    Args:
        store: The evidence.
        drills: The ids of drills that matter.

    Raises:
        StoreError: It cannot be read.
    """
    latest: dict[str, tuple[str, DrillRun]] = {}
    for folder, document in results_in(store):
        run = as_run(document)
        if run is None or run.drill not in drills:
            continue
        if run.drill not in latest or latest[run.drill][1].started < run.started:
            stored = tuple(str(each) for each in document.get("stored") or ())
            latest[run.drill] = folder, DrillRun(started=run.started, verdict=run.verdict, stored=stored)
    return {
        drill: DrillRun(started=run.started, verdict=run.verdict, stored=run.stored, sha256=_drill_file(store, folder))
        for drill, (folder, run) in latest.items()
    }


def _drill_file(store: ObjectStore, folder: str) -> str:
    """Return the digest of the drill file that ran; empty where the bundle does not say."""
    try:
        document: Any = orjson.loads(read_object(store, f"{folder}{MATERIALS}", most_bytes=_LARGEST))
        return str(document["drill"]["sha256"])
    except (ObjectNotFoundError, ObjectCorruptError, orjson.JSONDecodeError, KeyError, TypeError):
        return ""
