"""Policies over stores in memory, with backups that look like those of real runs."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from clusterguard.errors import RunInProgressError
from clusterguard.model.snapshot import Snapshot
from clusterguard.policies.copies.locations import StorageLocation
from clusterguard.policies.policy import EtcdSource, Location, Policy, RetentionPolicy, Source, Verification
from clusterguard.policies.runs.session import Session
from clusterguard.stores.encryption import Encryption
from clusterguard.stores.memory import MemoryStore

NOW = datetime(2026, 6, 1, 2, 0, tzinfo=UTC)


class Gone:
    """A store that fails at everything."""

    url = "memory:"

    def __init__(self, error):
        self.error = error

    def _fail(self, *_, **__):
        raise self.error

    put = get = stat = list = delete = _fail


class LostInTheMiddle:
    """A lease that is held for some looks, and then is another run's."""

    def __init__(self, looks):
        self.looks = looks

    def require(self, location=""):
        self.looks -= 1
        if self.looks < 0:
            raise RunInProgressError("another run took over", code="lease-lost")


def policy(*locations, copies=None, **options):
    names = locations or ("here", "there")
    return Policy(
        name="nightly",
        sources=(Source(name="etcd", etcd=EtcdSource(endpoints=("http://127.0.0.1:2379",))),),
        locations=tuple(Location(name=name, url="memory:") for name in names),
        copies=copies if copies is not None else len(names),
        **{"retention": RetentionPolicy(), "verification": Verification(), **options},
    )


def locations_of(policy, stores=None):
    stores = stores or {}
    return tuple(
        StorageLocation(policy=policy.name, location=each, root=stores.get(each.name) or MemoryStore())
        for each in policy.locations
    )


def put(store, key, data, *, overwrite=False):
    with store.put(key, overwrite=overwrite) as writer:
        writer.write(data)


def data_of(store, key):
    with store.get(key) as reader:
        text = b""
        while piece := reader.read(1 << 20):
            text += piece
    return text


def add_backup(location, name, *, age=timedelta(), data=b"bytes of etcd", source="etcd", run="20260601T020000Z-abcdef"):
    """Put a backup there as a run would: bytes, and a record beside them."""
    key, sha256 = f"{name}.db.zst.age", hashlib.sha256(data).hexdigest()
    extra = {"policy": location.policy, "source": source, "run": run, "sealed": True, "stored_key": key}
    extra |= {"stored_sha256": sha256, "stored_size": len(data)}
    if not run:
        extra = {}
        key = f"{name}.db"
    record = Snapshot(
        name=name, key=f"{name}.db", taken=NOW - age, revision=7, total_keys=3, size=len(data), etcd_version="3.6.0",
        storage_version="3.6.0", cluster_id="1", member_id="2", member_name="one", sha256=sha256, hash_kv=1,
        hash_revision=7, compact_revision=-1, endpoint="http://127.0.0.1:2379", extra=extra,
    )  # fmt: skip
    put(location.root, f"{source}/{key}", data)
    put(location.root, f"{source}/{name}.json", record.to_json().encode())


def session_of(policy, locations, *, now=NOW, **options):
    catalogs = {location.name: location.catalog() for location in locations}
    return Session(
        policy=policy, run="20260601T020000Z-000001", encryption=Encryption(), environ={}, locations=tuple(locations),
        catalogs=catalogs, now=lambda: now, **options,
    )  # fmt: skip


def seen(session):
    """What was done, in short: verb, backup, location, outcome."""
    return [(step.verb, step.backup, step.location, step.outcome) for step in session.steps]


class Killed(BaseException):
    """What nothing catches, as a SIGKILL."""


class Mortal(MemoryStore):
    """Dies before one of its changes, or after it; what is underway then is lost."""

    def __init__(self):
        super().__init__()
        self.moments = []
        self.left = None

    def moment(self, what):
        self.moments.append(what)
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed(what)

    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        self.moment(f"before putting {key[-12:]}")
        with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
            yield writer
            self.moment(f"before {key[-12:]} is seen")
        self.moment(f"after putting {key[-12:]}")

    def get(self, key):
        self.moment(f"before reading {key[-12:]}")
        return super().get(key)

    def delete(self, key):
        self.moment(f"before removing {key[-12:]}")
        super().delete(key)
        self.moment(f"after removing {key[-12:]}")


class Saving:
    """Writes what `EtcdSnapshotter.save` writes, in its order: questions, bytes, record."""

    def __init__(self, *, store, **_):
        self.store = store

    def save(self, name, *, annotate):
        for key in (f"{name}.json", f"{name}.db"):
            assert not [info for info in self.store.list(key) if info.key == key]
        with self.store.put(f"{name}.db") as writer:
            writer.write(b"bytes of etcd")
        record = Snapshot(
            name=name, key=f"{name}.db", taken=NOW, revision=7, total_keys=3, size=13, etcd_version="3.6.0",
            storage_version="3.6.0", cluster_id="1", member_id="2", member_name="one", sha256="0" * 64, hash_kv=1,
            hash_revision=7, compact_revision=-1, endpoint="http://127.0.0.1:2379", extra=annotate(f"{name}.db"),
        )  # fmt: skip
        with self.store.put(f"{name}.json") as writer:
            writer.write(record.to_json().encode())
        return record
