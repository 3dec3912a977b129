"""What lies in a location is found by one listing, and the catalog is mended by it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from policy_worlds import NOW, Gone, add_backup, locations_of, policy, put

from clusterguard.errors import ConfigError, StoreError, StoreUnavailableError
from clusterguard.policies.copies.catalog import BackupEntry, Catalog
from clusterguard.policies.copies.locations import read_catalogs
from clusterguard.stores.memory import MemoryStore


class Counting(MemoryStore):
    def __init__(self):
        super().__init__()
        self.lists = self.gets = 0

    def list(self, prefix=""):
        self.lists += 1
        return super().list(prefix)

    def get(self, key):
        self.gets += 1
        return super().get(key)


class Forgetful(MemoryStore):
    forgotten = ""

    def list(self, prefix=""):
        return (info for info in super().list(prefix) if not info.key.endswith(self.forgotten or "\n"))


@pytest.fixture
def location():
    return locations_of(policy("here"))[0]


def test_an_empty_location_has_an_empty_catalog(location):
    assert location.catalog() == Catalog(policy="nightly", location="here")


def test_a_backup_that_the_catalog_does_not_know_is_read_from_its_record(location):
    add_backup(location, "etcd-1")
    entry = location.catalog().entries["etcd/etcd-1"]
    assert (entry.revision, entry.size, entry.encrypted, entry.verified) == (7, 13, True, None)


def test_what_the_catalog_knows_is_not_read_again():
    store = Counting()
    location = locations_of(policy("here"), {"here": store})[0]
    add_backup(location, "etcd-1")
    add_backup(location, "etcd-2", age=timedelta(days=1))
    location.save_catalog(location.catalog(), now=NOW)
    store.gets = store.lists = 0
    assert len(location.catalog().entries) == 2
    assert (store.lists, store.gets) == (1, 1)


def test_what_was_verified_stays_known(location):
    add_backup(location, "etcd-1")
    catalog = location.catalog()
    [entry] = catalog.entries.values()
    location.save_catalog(catalog.with_entries([BackupEntry(**{**_fields(entry), "verified": NOW})]), now=NOW)
    assert location.catalog().entries["etcd/etcd-1"].verified == NOW


def test_a_backup_that_somebody_removed_is_told_of(location):
    add_backup(location, "etcd-1")
    location.save_catalog(location.catalog(), now=NOW)
    location.root.delete("etcd/etcd-1.json")
    catalog = location.catalog()
    assert catalog.entries == {}
    assert catalog.notes == ("etcd/etcd-1: gone, and not removed by any run",)


def test_what_a_listing_lacks_although_it_is_there_is_not_taken_for_gone():
    """Some servers' pages lose keys."""
    store = Forgetful()
    location = locations_of(policy("here"), {"here": store})[0]
    add_backup(location, "etcd-1")
    add_backup(location, "etcd-2", age=timedelta(days=1))
    location.save_catalog(location.catalog(), now=NOW)
    store.forgotten = "etcd/etcd-1.json"
    with pytest.raises(StoreError) as raised:
        location.catalog()
    assert raised.value.code == "listing-incomplete"
    assert raised.value.fields == {"key": "etcd/etcd-1.json"}


def test_many_that_are_gone_are_counted(location):
    for number in range(9):
        add_backup(location, f"etcd-{number}")
    location.save_catalog(location.catalog(), now=NOW)
    for number in range(9):
        location.root.delete(f"etcd/etcd-{number}.json")
    assert location.catalog().notes[-1] == "6 more: gone, and not removed by any run"


def test_a_damaged_catalog_is_made_anew_and_says_so(location):
    add_backup(location, "etcd-1")
    put(location.root, ".clusterguard/catalog.json", b'{"format": 1, "poli')
    catalog = location.catalog()
    assert list(catalog.entries) == ["etcd/etcd-1"]
    assert "is rebuilt" in catalog.notes[0]


def test_a_catalog_of_a_later_release_is_refused(location):
    put(location.root, ".clusterguard/catalog.json", b'{"format": 2}')
    with pytest.raises(ConfigError, match="format 2"):
        location.catalog()


@pytest.mark.parametrize("record", [b"{}", b'{"format": 99}'], ids=["foreign", "of a later release"])
def test_a_record_that_cannot_be_read_is_told_of_and_hides_no_other(location, record):
    add_backup(location, "etcd-1")
    put(location.root, "etcd/etcd-2.json", record)
    catalog = location.catalog()
    assert list(catalog.entries) == ["etcd/etcd-1"]
    assert catalog.notes[0].startswith("etcd/etcd-2: ")


def test_a_location_that_does_not_answer_leaves_the_others():
    wanted = policy("here", "there")
    locations = locations_of(wanted, {"there": Gone(StoreUnavailableError("down"))})
    found = read_catalogs(locations)
    assert isinstance(found["here"], Catalog)
    assert isinstance(found["there"], StoreUnavailableError)


def test_ten_thousand_backups_are_one_listing_and_one_read():
    store = Counting()
    location = locations_of(policy("here"), {"here": store})[0]
    entries = {}
    for number in range(10_000):
        name = f"etcd-{number:05d}"
        put(store, f"etcd/{name}.db.zst.age", b"x")
        put(store, f"etcd/{name}.json", b"{}")
        entries[f"etcd/{name}"] = BackupEntry(
            source="etcd", name=name, created=NOW - timedelta(hours=number), size=1, sha256="0" * 64, kind="etcd",
            encrypted=True, run="r",
        )  # fmt: skip
    location.save_catalog(Catalog(policy="nightly", location="here", entries=entries), now=NOW)
    store.lists = store.gets = 0
    assert len(location.catalog().entries) == 10_000
    assert (store.lists, store.gets) == (1, 1)


def _fields(entry):
    return {name: getattr(entry, name) for name in BackupEntry.__dataclass_fields__}
