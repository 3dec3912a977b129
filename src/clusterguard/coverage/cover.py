"""Looks at a cluster, at what may protect it and at what may prove that, and puts the table together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterguard.coverage.found import Unread
from clusterguard.coverage.gathering import drill_facts, runs_in, seen_of_policies, velero_seen
from clusterguard.coverage.look import look_at
from clusterguard.coverage.proofs import proofs_of, rehearsals_of
from clusterguard.coverage.sources import VeleroSeen, etcd_sources, makers_of, velero_sources
from clusterguard.coverage.table import DEFAULT_IGNORED, coverage_of
from clusterguard.errors import ClusterError, StoreError
from clusterguard.model.progress import ProgressSink, ignore_progress
from clusterguard.velero.objects import VeleroObjects

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime, timedelta

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.coverage.proofs import Proof
    from clusterguard.coverage.sources import NotCounted
    from clusterguard.coverage.table import Coverage
    from clusterguard.drills.load import Drill
    from clusterguard.policies.policy import Policy
    from clusterguard.policies.watching.verdict import PolicyStatus
    from clusterguard.stores.base import ObjectStore

__all__ = ["cover"]


def cover(
    api: KubeClient,
    cluster: str,
    *,
    policies: Sequence[tuple[Policy, PolicyStatus]] = (),
    drills: Sequence[Drill] = (),
    evidence: ObjectStore | None = None,
    ignore: Collection[str] = (),
    max_age: timedelta | None = None,
    velero_namespace: str = "velero",
    progress: ProgressSink = ignore_progress,
) -> Coverage:
    """Return what of a cluster is protected, what is proven, and what is neither. Nothing is written anywhere.

    Args:
        api: The cluster.
        cluster: Its reference, such as ``context:prod``.
        policies: Policies that are named for it, and what is known of them now.
        drills: Drills whose scopes it has.
        evidence: Where these leave their evidence; without it nothing is proven.
        ignore: Namespaces that need not be covered, beside the cluster's own.
        max_age: How old a backup may be, whatever its schedule says.
        velero_namespace: The one that Velero's server works in.
        progress: Who is told how far it got.

    Raises:
        ForbiddenError: The namespaces of the cluster may not be listed, so that nothing can be told.
        ClusterUnreachableError: The API server does not answer.
    """
    found = look_at(api, cluster, progress=progress)
    ours, not_counted, unread = seen_of_policies(policies, cluster)
    velero = VeleroSeen()
    try:
        velero = velero_seen(VeleroObjects(api=api, namespace=velero_namespace)) or velero
    except ClusterError as error:
        unread.append(Unread(f"Velero in namespace {velero_namespace}", error.message))
    by_velero, refused = velero_sources(velero, [each for each, _ in ours], now=found.at, max_age=max_age)
    by_etcd, too = etcd_sources(ours, now=found.at, max_age=max_age)
    makers = makers_of(velero, [each for each, _ in ours])
    proofs, unproven, missed = _proofs(drills, evidence, cluster, ours, makers, now=found.at)
    rehearsed, not_rehearsed = rehearsals_of(ours, now=found.at)
    return coverage_of(
        found,
        [*by_velero, *by_etcd],
        [*proofs, *rehearsed],
        ignore=frozenset((*DEFAULT_IGNORED, *ignore)),
        not_counted=[*not_counted, *refused, *too, *unproven, *not_rehearsed],
        unread=[*unread, *missed],
    )


def _proofs(
    drills: Sequence[Drill],
    evidence: ObjectStore | None,
    cluster: str,
    policies: Sequence[tuple[Policy, PolicyStatus]],
    makers: Mapping[str, str],
    *,
    now: datetime,
) -> tuple[list[Proof], list[NotCounted], list[Unread]]:
    facts = [drill_facts(each, cluster=cluster, policies=[each for each, _ in policies]) for each in drills]
    unread: list[Unread] = []
    runs = {}
    if evidence is not None and facts:
        try:
            runs = dict(runs_in(evidence, {each.id for each in facts}))
        except StoreError as error:
            unread.append(Unread(f"evidence in {evidence.url}", error.message))
    return (*proofs_of(facts, runs, backups=makers, now=now), unread)
