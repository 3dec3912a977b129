"""Policies that run in pods."""

from __future__ import annotations

from datetime import timedelta

from clusterguard.policies.deploy.kubernetes import IN_CLUSTER
from clusterguard.policies.policy import Location, Policy, Proof, Schedule, Source, VeleroSource

SHOP = Source(name="shop", velero=VeleroSource(cluster=IN_CLUSTER, bucket="s3://velero", included_namespaces=("shop",)))
PROVEN = Proof(name="etcd", drill="prove.drill.yaml", source="etcd", every=timedelta(days=7))


def policy_in(folder, *sources, proofs=()):
    """Return a policy whose file is there."""
    file = folder / "policy.yaml"
    file.write_text("kind: BackupPolicy\n")
    return Policy(
        name="production",
        path=str(file),
        sources=sources,
        schedule=Schedule(cron="0 2 * * *"),
        locations=(Location(name="north", url="s3://backups-north/etcd"),),
        copies=1,
        proofs=proofs,
    )
