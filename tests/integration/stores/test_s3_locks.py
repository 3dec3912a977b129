"""Object locks of a real S3 server: told before anything is removed, and told for what they are when it is tried."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from clusterguard.errors import ObjectNotFoundError, StoreError
from clusterguard.stores import PrefixedStore
from clusterguard.stores.encryption import EncryptedStore, Encryption

pytestmark = pytest.mark.programs

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)


@pytest.fixture
def bucket(s3):
    """A bucket of its own that has object lock."""
    name = f"locked-{uuid.uuid4().hex[:12]}"
    s3.store()._client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def store(s3, bucket):
    return s3.store(bucket=bucket, prefix="nightly")


def put(store, key, data=b"bytes"):
    with store.put(key) as writer:
        writer.write(data)


def retain(store, bucket, key, until=SOON):
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
    store._client.put_object_retention(Bucket=bucket, Key=f"nightly/{key}", Retention=retention)


def hold(store, bucket, key, status="ON"):
    store._client.put_object_legal_hold(Bucket=bucket, Key=f"nightly/{key}", LegalHold={"Status": status})


def test_nothing_is_locked_in_a_bucket_without_locks(s3, prefix):
    store = s3.store(prefix=prefix)
    put(store, "a.db")
    assert store.locked_until("a.db") is None


def test_an_object_without_lock_in_a_bucket_that_has_them(store):
    put(store, "a.db")
    assert store.locked_until("a.db") is None
    store.delete("a.db")
    assert list(store.list()) == []


def test_a_retention_is_told_and_so_is_why_the_object_cannot_be_removed(store, bucket):
    put(store, "a.db")
    retain(store, bucket, "a.db")
    assert store.locked_until("a.db") == SOON
    with pytest.raises(StoreError, match=re.escape(f"object lock holds it until {SOON.isoformat()}")) as raised:
        store.delete("a.db")
    assert "after that" in raised.value.hint
    assert store.stat("a.db").size == 5


def test_a_legal_hold_has_no_end_until_it_is_lifted(store, bucket):
    put(store, "a.db")
    hold(store, bucket, "a.db")
    assert store.locked_until("a.db") == datetime.max.replace(tzinfo=UTC)
    with pytest.raises(StoreError) as caught:
        store.delete("a.db")
    assert (caught.value.code, caught.value.fields["until"]) == ("object-locked", datetime.max.replace(tzinfo=UTC))
    hold(store, bucket, "a.db", "OFF")
    assert store.locked_until("a.db") is None
    store.delete("a.db")


def test_the_default_retention_of_a_bucket_counts_where_an_object_has_no_lock_of_its_own(store, bucket):
    put(store, "a.db")
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 3}}
    store._client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    put(store, "b.db")
    until = store.locked_until("b.db")
    assert timedelta(days=2, hours=23) < until - datetime.now(UTC) <= timedelta(days=3)
    with pytest.raises(StoreError) as caught:
        store.delete("b.db")
    assert caught.value.code == "object-locked"


def test_a_missing_object_has_no_lock(store):
    with pytest.raises(ObjectNotFoundError):
        store.locked_until("none.db")


def test_it_is_asked_through_the_stores_around_it(s3, bucket):
    store = s3.store(bucket=bucket)
    encrypted = EncryptedStore(PrefixedStore(store, "nightly"), Encryption())
    put(encrypted, "a.db")
    retain(store, bucket, "a.db.zst")
    assert encrypted.locked_until("a.db") == SOON
