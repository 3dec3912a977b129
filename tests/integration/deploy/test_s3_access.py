"""The access documents on a real S3 server: what writer, reader and keeper can do, and what none of them can."""

from __future__ import annotations

import json

import pytest
from gateway_with_users import DOCUMENTS, USERS, gateway_with_users, statements_of

from clusterguard.errors import (
    ClusterGuardError,
    ObjectNotFoundError,
    RunInProgressError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.policies.copies.locations import StorageLocation
from clusterguard.policies.policy import Location
from clusterguard.policies.runs.lease import LOCK_KEY, Lease, LeaseTiming
from clusterguard.policies.runs.lock import RunLock, locked

pytestmark = pytest.mark.programs

BACKUP = "etcd/etcd-20300101T000000Z.db.zst.age"
AUDIT = ".clusterguard/audit/000000000001-run.jsonl"
LARGE = 6 << 20  # more than one part
QUICK = LeaseTiming(renew_interval=0.1, lease_duration=60)


@pytest.fixture(scope="module")
def gateway(toolchain, tmp_path_factory):
    program = toolchain.ensure("versitygw")["versitygw"]
    with gateway_with_users(program, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def stores(gateway):
    """What each user sees, with a backup and an audit segment in it."""
    root = gateway.store("root")
    for key in [each.key for each in root.list()]:
        root.delete(key)
    write(root, BACKUP)
    write(root, AUDIT)
    return {user: gateway.store(user) for user in USERS}


def write(store, key, data=b"bytes", **how):
    with store.put(key, **how) as writer:
        writer.write(data)


def read(store, key):
    with store.get(key) as reader:
        return reader.read()


def refused(call, *arguments, **how):
    """Return whether the server refuses for good; anything else is an error of the test."""
    with pytest.raises(StoreError) as error:
        call(*arguments, **how)
    assert not isinstance(error.value, (ObjectNotFoundError, StoreUnavailableError)), error.value
    return True


@pytest.mark.parametrize("size", [10, LARGE])
def test_the_writer_writes_and_reads_back(stores, size):
    write(stores["writer"], "etcd/new.db", b"x" * size)

    assert read(stores["writer"], "etcd/new.db") == b"x" * size
    assert "etcd/new.db" in [each.key for each in stores["writer"].list()]


def test_the_writer_gives_up_a_large_object_without_a_trace(stores):
    class GivenUpError(Exception):
        pass

    with pytest.raises(GivenUpError), stores["writer"].put("etcd/given-up.db") as writer:
        writer.write(b"x" * LARGE)
        raise GivenUpError

    assert "etcd/given-up.db" not in [each.key for each in stores["writer"].list()]


def test_the_writer_deletes_nothing(stores, gateway):
    assert refused(stores["writer"].delete, BACKUP)
    assert refused(stores["writer"].delete, AUDIT)
    write(stores["writer"], LOCK_KEY)
    assert refused(stores["writer"].delete, LOCK_KEY)

    assert {each.key for each in gateway.store("root").list()} == {BACKUP, AUDIT, LOCK_KEY}


def test_writer_and_keeper_take_the_lock_in_turn_and_the_reader_never(stores):
    for user in ("writer", "keeper", "writer"):
        with locked([place_of(stores[user])], run=user) as lock:
            lock.require("bucket")
            assert lock.warnings == {}
            with pytest.raises(RunInProgressError):
                RunLock([place_of(stores["keeper"])], run="second", timing=QUICK).take(wait_seconds=0)
    with pytest.raises(StoreUnavailableError) as raised, locked([place_of(stores["reader"])], run="reader"):
        pass
    assert not isinstance(raised.value.__cause__, StoreUnavailableError)
    assert Lease.parse(read(stores["reader"], LOCK_KEY)).generation == 3


def place_of(store):
    return StorageLocation(policy="production", location=Location(name="bucket", url=store.url), root=store)


def test_the_reader_reads_and_does_nothing_else(stores, gateway):
    assert read(stores["reader"], BACKUP) == b"bytes"
    assert [each.key for each in stores["reader"].list("etcd/")] == [BACKUP]
    assert refused(write, stores["reader"], "etcd/new.db")
    assert refused(write, stores["reader"], BACKUP, b"others", overwrite=True)
    assert refused(stores["reader"].delete, BACKUP)
    assert read(gateway.store("root"), BACKUP) == b"bytes"


def test_the_keeper_removes_backups_and_writes_none(stores):
    assert refused(write, stores["keeper"], "etcd/new.db")
    assert refused(write, stores["keeper"], BACKUP, b"others", overwrite=True)
    stores["keeper"].delete(BACKUP)

    assert [each.key for each in stores["keeper"].list("etcd/")] == []


def test_the_keeper_writes_down_what_it_did_and_cannot_take_it_back(stores):
    later = ".clusterguard/audit/000000000002-run.jsonl"
    write(stores["keeper"], later)
    write(stores["keeper"], ".clusterguard/catalog.json", overwrite=True)

    assert refused(stores["keeper"].delete, later)
    assert refused(stores["keeper"].delete, AUDIT)


@pytest.mark.parametrize("user", USERS)
def test_nobody_sees_anything_beside_the_policys_folder(gateway, user):
    root = gateway.store("root", prefix="etcd/staging")
    write(root, "etcd/theirs.db", overwrite=True)
    other = gateway.store(user, prefix="etcd/staging")

    assert refused(read, other, "etcd/theirs.db")
    assert refused(list, other.list())
    assert refused(write, other, "etcd/new.db")
    assert refused(other.delete, "etcd/theirs.db")
    assert read(root, "etcd/theirs.db") == b"bytes"


def test_without_its_document_a_user_may_do_nothing(gateway, stores):
    """The guard's own guard: it is the documents that allow, and not the server."""
    try:
        gateway.allow([statement for user in ("reader", "keeper") for statement in statements_of(user)])
        assert refused(write, stores["writer"], "etcd/new.db")
        assert refused(read, stores["writer"], BACKUP)
    finally:
        gateway.allow([statement for user in USERS for statement in statements_of(user)])


def test_what_is_refused_says_so_and_names_no_key(stores):
    with pytest.raises(ClusterGuardError) as error:
        write(stores["reader"], "etcd/new.db")

    assert "reader-secret" not in f"{error.value} {error.value.hint} {error.value!r}"


@pytest.mark.parametrize("user", USERS)
def test_the_documents_name_a_bucket_and_a_prefix_to_fill_in_and_no_wildcard_action(user):
    document = json.loads((DOCUMENTS / f"s3-{user}-policy.json").read_text())

    for statement in document["Statement"]:
        assert all(action.startswith("s3:") and "*" not in action for action in statement["Action"])
        assert all(resource.startswith("arn:aws:s3:::BUCKET") for resource in statement["Resource"])
