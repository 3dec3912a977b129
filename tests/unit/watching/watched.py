"""A policy and what its locations hold, all well; tests spoil one thing each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from clusterguard.policies.copies.catalog import BackupEntry, Catalog, ProofRecord, RunRecord
from clusterguard.policies.policy import EtcdSource, Location, Policy, Proof, Schedule, Source
from clusterguard.policies.report import RunReport, StepReport
from clusterguard.policies.watching.status import policy_status

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
DUE = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def a_policy(**changes):
    settings = {
        "name": "prod",
        "path": "policy.yaml",
        "sources": (Source(name="etcd", etcd=EtcdSource(cluster="context:prod")),),
        "locations": (Location(name="near", url="/backups"), Location(name="far", url="s3://far/backups")),
        "copies": 2,
        "schedule": Schedule(cron="0 2 * * *"),
        "proofs": (Proof(name="weekly", drill="drill.yaml", source="etcd", every=7 * DAY),),
    }
    # Not validated: some of the names are hostile on purpose.
    return Policy.model_construct(**{**settings, **changes})


def entry(created=DUE, *, source="etcd", name=None, **changes):
    settings = {
        "size": 1000,
        "sha256": "ab" * 32,
        "kind": "etcd",
        "encrypted": True,
        "run": "r1",
        "verified": max(created + timedelta(minutes=1), NOW - 3 * DAY),  # old ones were read again since
        "depth": "bytes",
    }
    return BackupEntry(
        source=source, name=name or f"etcd-{created:%Y%m%dT%H%M%SZ}", created=created, **{**settings, **changes}
    )


def run_of(source="etcd", *, at=DUE + timedelta(minutes=2), **changes):
    settings = {"run": "r1", "outcome": "ok", "seconds": 12.5, "last_success": at}
    return RunRecord(source=source, at=at, **{**settings, **changes})


def proof_of(name="weekly", *, at=NOW - 2 * DAY, **changes):
    settings = {
        "source": "etcd",
        "backup": "etcd-20261120T020000Z",
        "outcome": "proven",
        "rto_seconds": 93.0,
        "rpo_seconds": 3600.0,
        "last_proven": at,
    }
    return ProofRecord(proof=name, at=at, **{**settings, **changes})


def catalog(location, *entries, runs=None, proofs=None, **changes):
    settings = {"policy": "prod", "updated": DUE + timedelta(minutes=3)}
    return Catalog(
        location=location,
        entries={each.key: each for each in entries},
        runs={each.source: each for each in (runs if runs is not None else (run_of(),))},
        proofs={each.proof: each for each in (proofs if proofs is not None else (proof_of(),))},
        **{**settings, **changes},
    )


def nightly(days=30, **changes):
    return [entry(DUE - number * DAY, **changes) for number in range(days)]


def all_well(**changes):
    return {name: catalog(name, *nightly(**changes)) for name in ("near", "far")}


def status(catalogs=None, policy=None, now=NOW):
    return policy_status(policy or a_policy(), all_well() if catalogs is None else catalogs, now=now)


def texts(found, severity=None):
    return [str(each) for each in found.reasons if severity in (None, each.severity)]


def step(verb="backup", outcome="ok", **changes):
    return StepReport(verb=verb, outcome=outcome, at=NOW, **changes)


def report(*steps, **changes):
    settings = {
        "policy": "prod",
        "run": "20261122T020000Z-abc123",
        "started": DUE,
        "finished": DUE + 90 * (HOUR / 3600),
    }
    return RunReport(steps=steps, **{**settings, **changes})
