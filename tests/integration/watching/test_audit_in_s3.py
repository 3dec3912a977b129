"""The audit trail on a real S3 server: writers at the same time, and a look at ten thousand backups."""

from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from clusterguard.policies.copies.catalog import BackupEntry, Catalog, RunRecord
from clusterguard.policies.copies.locations import StorageLocation
from clusterguard.policies.policy import EtcdSource, Location, Policy, Schedule, Source
from clusterguard.policies.watching.audit import AuditTrail
from clusterguard.policies.watching.chain import AuditEvent
from clusterguard.policies.watching.watch import PolicyWatch
from clusterguard.process import spawn
from clusterguard.stores.s3 import S3Credentials, S3Store

pytestmark = pytest.mark.programs

BUCKET = "backups"
KEYS = S3Credentials(access_key="test-access", secret_key="test-secret")
NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
def endpoint(toolchain, tmp_path_factory):
    """A running S3 server with one bucket."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "data" / BUCKET).mkdir(parents=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = spawn(
        [
            toolchain.ensure("versitygw")["versitygw"],
            "--port",
            f"127.0.0.1:{port}",
            "--quiet",
            "posix",
            folder / "data",
        ],
        log=folder / "versitygw.log",
        env={"ROOT_ACCESS_KEY": KEYS.access_key, "ROOT_SECRET_KEY": KEYS.secret_key},
    )
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(grace_seconds=10)


def _wait_for(port):
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)
        else:
            return


def store(endpoint, prefix):
    return S3Store(
        bucket=BUCKET, prefix=prefix, endpoint=endpoint, region="us-east-1", path_style=True, credentials=KEYS
    )


def event(run, number):
    return AuditEvent(
        time=NOW + timedelta(seconds=number), actor="root", host="cp-1", run=run, policy="prod", verb="backup",
        outcome="ok", detail=f"number {number}",
    )  # fmt: skip


def test_writers_at_the_same_time_follow_each_other(endpoint):
    failures = []

    def write(writer):
        trail = AuditTrail(store(endpoint, "race"))
        try:
            for number in range(4):
                trail.append([event(f"r{writer}", number), event(f"r{writer}", number + 1)], run=f"r{writer}")
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join(120)
    assert failures == []
    trail = AuditTrail(store(endpoint, "race"))
    found = trail.verify(trail.head())
    assert (found.findings, found.lines, found.segments) == ((), 32, 16)


def test_what_somebody_changes_in_the_bucket_is_found(endpoint):
    bucket = store(endpoint, "changed")
    trail = AuditTrail(bucket)
    for number in range(3):
        trail.append([event("r1", number)], run="r1")
    head = trail.head()
    key = ".clusterguard/audit/000000000002.jsonl"
    with bucket.get(key) as reader:
        data = reader.read()
    with bucket.put(key, overwrite=True) as writer:
        writer.write(data.replace(b'"ok"', b'"no"'))
    (finding,) = trail.verify(head).findings
    assert (finding.problem, finding.key, finding.line) == ("changed", key, 1)
    bucket.delete(key)
    assert "missing segment" in {each.problem for each in trail.verify(head).findings}


def test_a_look_at_ten_thousand_backups_lists_once_and_reads_once(endpoint, monkeypatch):
    """The catalog is what is read; the listing only says whether it still holds."""
    created = [NOW - timedelta(hours=number) for number in range(10_000)]
    entries = [
        BackupEntry(
            source="etcd", name=f"etcd-{each:%Y%m%dT%H}", created=each, size=1000, sha256="ab" * 32, kind="etcd",
            encrypted=True, run="r1", verified=NOW, depth="bytes",
        )
        for each in created
    ]  # fmt: skip
    bucket = store(endpoint, "many")
    known = Catalog(
        policy="prod",
        location="far",
        entries={each.key: each for each in entries},
        runs={"etcd": RunRecord(source="etcd", run="r1", at=NOW, outcome="ok", last_success=NOW)},
        updated=NOW,
    )
    with bucket.put(".clusterguard/catalog.json") as writer:
        writer.write(known.to_json())
    asked = {"list": 0, "get": 0}

    class Counting(S3Store):
        # What lies there is told from memory: putting twenty thousand objects is what would take the time.
        def list(self, prefix=""):
            asked["list"] += 1
            infos = list(super().list(prefix))
            now = infos[0].modified
            extra = [f"etcd/{each.name}{end}" for each in entries for end in (".db", ".json")]
            yield from sorted(
                [*infos, *(type(infos[0])(key=key, size=1000, modified=now) for key in extra)], key=lambda x: x.key
            )

        def get(self, key):
            asked["get"] += 1
            return super().get(key)

    counting = Counting(
        bucket=BUCKET, prefix="many", endpoint=endpoint, region="us-east-1", path_style=True, credentials=KEYS
    )
    location = Location(name="far", url="s3://backups/many")
    policy = Policy(
        name="prod", sources=(Source(name="etcd", etcd=EtcdSource(cluster="kind:a")),), locations=(location,), copies=1,
        schedule=Schedule(cron="0 * * * *"),
    )  # fmt: skip
    found = PolicyWatch(
        policy, [StorageLocation(policy="prod", location=location, root=counting)], now=lambda: NOW
    ).status()
    assert (found.verdict, found.locations[0].backups) == ("protected", 10_000)
    assert asked == {"list": 1, "get": 1}
