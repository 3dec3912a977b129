"""The data of volumes in copies of Velero backups: shared blobs, seen as they were with each backup."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import timedelta

import pyrage
import pytest
from policy_worlds import NOW, data_of, locations_of, policy, put, session_of

from clusterguard.errors import ObjectNotFoundError, StoreError
from clusterguard.policies.copies.locations import VeleroRecord, read_record, velero_entry
from clusterguard.policies.copies.stored import opened_velero
from clusterguard.policies.copies.volumes import blobs_in, unnamed
from clusterguard.policies.policy import RetentionPolicy, Source, VeleroSource
from clusterguard.policies.runs.backup import _Copied, _copy_velero, _known_blobs
from clusterguard.policies.runs.replicate_missing import replicate_missing
from clusterguard.policies.runs.retain import retain
from clusterguard.policies.runs.verify import check_stored
from clusterguard.stores.encryption import Encryption, passphrase
from clusterguard.stores.memory import MemoryStore
from clusterguard.stores.replicated import ReplicatedStore

VELERO = VeleroSource(cluster="context:prod", bucket="memory:", volumes="fileSystem")
FIRST, SECOND = "shop-20260530t020000z-aaaaaa", "shop-20260531t020000z-bbbbbb"
PACK, NEWER = "p" + "1" * 32, "p" + "2" * 32
INDEX, REWRITTEN = "xn0_" + "3" * 32, "xn1_" + "4" * 32
FORMAT = "kopia.repository"


@pytest.fixture
def wanted():
    sources = (Source(name="shop", velero=VELERO),)
    return policy("here", "there").model_copy(update={"sources": sources, "retention": RetentionPolicy(last=1)})


@pytest.fixture
def locations(wanted):
    return locations_of(wanted)


def bucket_of(name, blobs):
    """Return a bucket with a backup of one volume, and the repository that its data is in."""
    pod = {"namespace": "shop", "name": "db-0"}
    record = {
        "spec": {"uploaderType": "kopia", "volume": "data", "pod": pod},
        "status": {"phase": "Completed", "snapshotID": "1"},
    }
    bucket = MemoryStore()
    put(bucket, f"backups/{name}/velero-backup.json", b"{}")
    for ending, document in (("podvolumebackups", [record]), ("volumeinfo", [])):
        put(bucket, f"backups/{name}/{name}-{ending}.json.gz", gzip.compress(json.dumps(document).encode()))
    for blob, data in blobs.items():
        put(bucket, f"kopia/shop/{blob}", data)
    return bucket


def copied(session, locations, name, blobs, *, created=NOW, known=None):
    """Copy a backup as a run does, and note it as verified in both locations."""
    known = _known_blobs("shop", session) if known is None else known
    replicas = ReplicatedStore({each.name: each.of_source("shop") for each in locations}, minimum=1)
    about = _Copied(name=name, source="shop", created=created)
    record = _copy_velero(about, VELERO, session, replicas, bucket_of(name, blobs), known)
    for location in locations:
        session.know(location, [replace(velero_entry(record), verified=NOW)])
    return record, known


def view(session, location, name):
    """Return what the copy shows of the repository."""
    entry = session.catalogs[location.name].entries[f"shop/{name}"]
    opened = opened_velero(location.of_source("shop"), entry, session.encryption)
    return {info.key.rpartition("/")[2]: data_of(opened, info.key) for info in opened.list("kopia/")}


BEFORE = {PACK: b"one" * 100, INDEX: b"index", FORMAT: b"format", "_log_1": b"log", "s" + "9" * 32: b"session"}
AFTER = {PACK: b"one" * 100, NEWER: b"two" * 100, REWRITTEN: b"index of both", FORMAT: b"format changed"}
FIRST_VIEW = {name: BEFORE[name] for name in (PACK, INDEX, FORMAT)}


@pytest.fixture
def session(wanted, locations):
    """A session in which two backups were copied, between which maintenance rewrote the index."""
    session = session_of(wanted, locations, now=NOW)
    copied(session, locations, FIRST, BEFORE, created=NOW - timedelta(days=2))
    session.run = "20260601T020000Z-000002"
    copied(session, locations, SECOND, AFTER, created=NOW - timedelta(days=1))
    return session


def test_each_copy_shows_the_repository_as_it_was_with_its_backup(session, locations):
    for location in locations:
        assert view(session, location, FIRST) == FIRST_VIEW
        assert view(session, location, SECOND) == AFTER


def test_what_lies_in_every_location_is_copied_once(session, locations):
    packs = [info.key for info in locations[0].root.list("shop/kopia/") if PACK in info.key]
    assert len(packs) == 1
    records = [read_record(locations[0].root, f"shop/{name}.json") for name in (FIRST, SECOND)]
    assert {key for key in records[0].objects if PACK in key} == {key for key in records[1].objects if PACK in key}
    assert [record.to_json() and json.loads(record.to_json())["format"] for record in records] == [2, 2]


def test_what_one_location_lacks_is_copied_to_all_and_nothing_is_written_over(session, locations):
    before = {info.key: data_of(locations[0].root, info.key) for info in locations[0].root.list()}
    session.forget(locations[1], [f"shop/{FIRST}", f"shop/{SECOND}"])
    session.run = "20260601T020000Z-000003"
    name = "shop-20260601t020000z-cccccc"
    _, known = copied(session, locations, name, AFTER)
    assert known == {}
    assert view(session, locations[1], name) == AFTER
    after = {info.key: data_of(locations[0].root, info.key) for info in locations[0].root.list()}
    assert before.items() <= after.items()


def test_after_a_change_of_keys_a_copy_holds_nothing_of_the_old_ones(wanted, locations):
    old, new = (pyrage.x25519.Identity.generate() for _ in range(2))

    def keys(identity, *others):
        identities = tuple(map(str, (identity, *others)))
        return Encryption(recipients=(str(identity.to_public()),), identities=identities)

    session = session_of(wanted, locations)
    session.encryption = keys(old)
    copied(session, locations, FIRST, BEFORE)
    session.encryption, session.run = keys(new, old), "20260601T020000Z-000002"
    _, known = copied(session, locations, SECOND, BEFORE)
    assert known == {}
    session.encryption = keys(new)
    assert view(session, locations[0], SECOND) == FIRST_VIEW
    session.run = "20260601T020000Z-000003"
    assert copied(session, locations, "shop-20260601t020000z-cccccc", BEFORE)[1]


@pytest.mark.parametrize(("then", "reused"), [("same", True), ("other", False)])
def test_with_another_passphrase_nothing_is_shared(wanted, locations, then, reused, monkeypatch):
    monkeypatch.setattr(passphrase, "_WORK_FACTOR", 4)  # a second of work for each object says nothing here
    session = session_of(wanted, locations)
    session.encryption = Encryption(passphrase="same")
    copied(session, locations, FIRST, {FORMAT: b"f", PACK: b"one"})
    session.encryption = Encryption(passphrase=then)
    assert bool(_known_blobs("shop", session)) == reused


def test_a_flipped_byte_in_a_shared_blob_is_found_in_every_copy_that_names_it(session, locations):
    [key] = [info.key for info in locations[0].root.list("shop/kopia/") if PACK in info.key]
    data = data_of(locations[0].root, key)
    put(locations[0].root, key, data[:-1] + bytes([data[-1] ^ 1]), overwrite=True)
    for name in (FIRST, SECOND):
        entry = session.catalogs["here"].entries[f"shop/{name}"]
        assert check_stored(locations[0], entry).state == "damaged"
        assert check_stored(locations[1], entry).state == "intact"


def test_blobs_that_were_read_before_are_only_asked_for(session, locations):
    entry = session.catalogs["here"].entries[f"shop/{SECOND}"]
    known = {blob.key for blob in _known_blobs("shop", session).values()}
    assert known
    assert check_stored(locations[0], entry, known=known).state == "intact"
    locations[0].root.delete(f"shop/{min(known)}")
    assert check_stored(locations[0], entry, known=known).state == "damaged"


def later(session):
    """Let everything that lies there be older than a run may be at work."""
    session.now = lambda: NOW + timedelta(days=3650)
    session.trust_clock = True
    return session


def test_blobs_go_with_the_last_backup_that_names_them(session, locations):
    retain(later(session))
    for location in locations:
        assert list(session.catalogs[location.name].entries) == [f"shop/{SECOND}"]
        left = {info.key.rpartition("/")[2].partition("~")[0] for info in location.root.list("shop/kopia/")}
        assert left == set(AFTER)
        assert view(session, location, SECOND) == AFTER


def test_young_blobs_stay_since_a_run_may_be_at_work(session, locations):
    put(locations[0].root, f"shop/kopia/shop/{'p' + '7' * 32}~dddddd.zst", b"of a run that broke off")
    session.trust_clock = True
    session.now = lambda: NOW
    retain(session)
    assert any("7777" in info.key for info in locations[0].root.list("shop/kopia/"))
    retain(later(session))
    assert not any("7777" in info.key for info in locations[0].root.list("shop/kopia/"))


def test_while_a_record_cannot_be_read_no_blob_goes(session, locations):
    before = [info.key for info in locations[0].root.list("shop/kopia/")]
    put(locations[0].root, f"shop/{SECOND}.json", b"{}", overwrite=True)
    retain(later(session))
    assert [info.key for info in locations[0].root.list("shop/kopia/")] == before
    assert ("delete", "warning") in {(step.verb, step.outcome) for step in session.steps}


def test_a_location_that_was_away_gets_the_blobs_and_keeps_those_it_has(session, locations, wanted):
    away = session_of(wanted, locations)
    for info in list(locations[1].root.list("shop/")):
        if SECOND in info.key or NEWER in info.key or REWRITTEN in info.key:
            locations[1].root.delete(info.key)
    for name, entry in session.catalogs["here"].entries.items():
        if SECOND in name:
            away.know(locations[0], [entry])
    away.forget(locations[1], [f"shop/{SECOND}"])
    replicate_missing(away)
    assert view(away, locations[1], SECOND) == AFTER
    assert away.catalogs["there"].entries[f"shop/{SECOND}"].sound


def test_a_damaged_blob_is_made_good_from_another_location(session, locations):
    [key] = [info.key for info in locations[1].root.list("shop/kopia/") if NEWER in info.key]
    size = len(data_of(locations[1].root, key))
    put(locations[1].root, key, b"x" * size, overwrite=True)
    entry = session.catalogs["there"].entries[f"shop/{SECOND}"]
    session.know(locations[1], [replace(entry, problem="a byte was changed")])
    replicate_missing(session)
    assert view(session, locations[1], SECOND) == AFTER
    assert session.catalogs["there"].entries[f"shop/{SECOND}"].sound


def test_an_opened_copy_is_only_read(session, locations):
    entry = session.catalogs["here"].entries[f"shop/{FIRST}"]
    opened = opened_velero(locations[0].of_source("shop"), entry, session.encryption)
    assert opened.stat(f"kopia/shop/{PACK}").size == len(BEFORE[PACK])
    with pytest.raises(ObjectNotFoundError):
        opened.stat(f"kopia/shop/{NEWER}")
    with pytest.raises(StoreError):
        opened.delete(f"kopia/shop/{PACK}")
    with pytest.raises(StoreError):
        opened.put("kopia/shop/new")


class Writing(MemoryStore):
    """A bucket that another backup writes into between two listings."""

    def list(self, prefix=""):
        yield from list(super().list(prefix))
        if prefix.endswith("/n") and not any(INDEX in info.key for info in super().list()):
            put(self, f"kopia/shop/{PACK}", b"one")
            put(self, f"kopia/shop/{INDEX}", b"index of it")


def test_an_index_that_came_after_the_listing_began_is_left_for_the_next_copy():
    bucket = Writing()
    put(bucket, f"kopia/shop/{FORMAT}", b"f")
    assert [info.key for info in blobs_in(bucket, "kopia/shop/")] == [f"kopia/shop/{FORMAT}", f"kopia/shop/{PACK}"]


def test_a_record_without_volumes_is_one_that_earlier_releases_read():
    record = VeleroRecord(
        name=FIRST, source="shop", policy="nightly", run="r", created=NOW, encrypted=False, objects={}, plain={}
    )
    assert json.loads(record.to_json())["format"] == 1
    assert unnamed(["kopia/shop/p1~a", "backups/x/y"], [record]) == ["kopia/shop/p1~a"]
