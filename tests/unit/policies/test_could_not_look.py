"""Trouble on the way to a copy says nothing about the copy: what is known of it stays, and nothing is made anew."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType, SimpleNamespace

import pyrage
import pytest
from policy_worlds import NOW, Gone, add_backup, data_of, locations_of, policy, put, session_of

from bolt_pages import etcd_image, key_value, revision_key, with_trailer
from clusterguard.errors import (
    ConfigError,
    ObjectNotFoundError,
    StoreError,
    StoreUnavailableError,
    WrongKeyError,
)
from clusterguard.etcd.verification import verify_file
from clusterguard.model.snapshot import Snapshot
from clusterguard.policies.copies import stored
from clusterguard.policies.copies.stored import find_copy
from clusterguard.policies.policy import Location, RetentionPolicy, Verification
from clusterguard.policies.runs.backup import _read_back
from clusterguard.policies.runs.replicate_missing import replicate_missing
from clusterguard.policies.runs.retain import plan_retention_of
from clusterguard.policies.runs.session import Task
from clusterguard.policies.runs.verify import check_contents, verify_due
from clusterguard.stores import LocalStore
from clusterguard.stores.encryption import EncryptedStore, Encryption

DAY = timedelta(days=1)
SNAPSHOT = with_trailer(etcd_image([(revision_key(n), key_value(b"k%d" % n, n, n, 1, b"v")) for n in range(2, 22)]))
TROUBLE = [
    StoreUnavailableError("503", hint="try again"),
    ConfigError("the token file is not there"),
    StoreError("no permission"),
    WrongKeyError("encrypted for others"),
]


def new_encryption():
    identity = pyrage.x25519.Identity.generate()
    return Encryption(recipients=(str(identity.to_public()),), identities=(str(identity),))


ENCRYPTION = new_encryption()


@pytest.fixture
def wanted(tmp_path):
    made = policy("here", "there", retention=RetentionPolicy(last=3), verification=Verification(every=7 * DAY))
    locations = tuple(Location(name=each.name, url=str(tmp_path / each.name)) for each in made.locations)
    return made.model_copy(update={"locations": locations})


@pytest.fixture
def locations(wanted, tmp_path):
    """Two folders, as `open_locations` opens them."""
    return locations_of(wanted, {name: LocalStore(tmp_path / name / "nightly") for name in ("here", "there")})


def failing(location, verb, error, *, when=lambda _: True):
    """Let one verb of a location fail, and count how often."""
    asked, real = [], getattr(location.root, verb)

    def fail(key="", **options):
        if when(key):
            asked.append(key)
            raise error
        return real(key, **options)

    setattr(location.root, verb, fail)
    return asked


def working(location, verb):
    delattr(location.root, verb)


def add_snapshot(location, name, tmp_path, *, encryption=ENCRYPTION, data=SNAPSHOT):
    """Put a real snapshot there, encrypted as a run does it, and return its digest as it is stored."""
    path = tmp_path / "plain.db"
    path.write_bytes(data)
    evidence = verify_file(path)
    structure = evidence.structure
    encrypted = EncryptedStore(location.of_source("etcd"), encryption)
    with encrypted.put(f"{name}.db") as writer:
        writer.write(data)
    stored = encrypted.stored(f"{name}.db")
    extra = {"run": "20260601T020000Z-abcdef", "sealed": encryption.suffix.endswith(".age"), "stored_key": stored.key}
    extra |= {"stored_sha256": stored.sha256, "stored_size": stored.size}
    record = Snapshot(
        name=name, key=f"{name}.db", taken=NOW, revision=structure.revision, total_keys=structure.client_keys,
        size=len(data), etcd_version="3.6.0", storage_version="3.6.0", cluster_id="1", member_id="2",
        member_name="one", sha256=evidence.sha256, hash_kv=structure.hash_kv.hash, hash_revision=structure.revision,
        compact_revision=structure.hash_kv.compact_revision, endpoint="http://127.0.0.1:2379",
        extra=MappingProxyType(extra),
    )  # fmt: skip
    put(location.root, f"etcd/{name}.json", record.to_json().encode())
    return stored.sha256


def entry_of(session, location="here", key="etcd/etcd-001"):
    return session.catalogs[location].entries[key]


def know(session, location="here", key="etcd/etcd-001", **changes):
    [found] = [each for each in session.locations if each.name == location]
    session.know(found, [replace(entry_of(session, location, key), **changes)])


def outcomes(session, verb="verify", location="here"):
    return [step.outcome for step in session.steps if (step.verb, step.location) == (verb, location)]


# ---- copies that lie there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", TROUBLE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("what", ["etcd/etcd-001.json", "etcd/etcd-001.db.zst.age"])
@pytest.mark.parametrize(
    "known",
    [
        {"verified": NOW - 30 * DAY, "depth": "contents"},
        {"verified": NOW - 30 * DAY, "depth": "bytes", "problem": "2 bytes differ"},
        {},
    ],
    ids=["verified", "damaged", "never read"],
)
def test_what_could_not_be_read_changes_nothing_that_is_known(wanted, locations, trouble, what, known):
    for location in locations:
        add_backup(location, "etcd-001", age=DAY)
    session = session_of(wanted, locations)
    know(session, **known)
    before = entry_of(session)
    failing(locations[0], "get", trouble, when=lambda key: key == what)
    verify_due(session)
    assert replace(entry_of(session), unread="") == before
    assert trouble.message in entry_of(session).unread
    assert outcomes(session) == ["warning"]
    assert {step.code for step in session.steps if step.location == "here"} == {"copy-unread"}
    assert entry_of(session, "there").sound


def test_a_look_that_succeeds_forgets_the_one_that_did_not(wanted, locations):
    add_backup(locations[0], "etcd-001", age=DAY)
    session = session_of(wanted, locations)
    failing(locations[0], "get", TROUBLE[0])
    verify_due(session)
    assert entry_of(session).unread
    working(locations[0], "get")
    verify_due(session)
    assert (entry_of(session).unread, entry_of(session).verified) == ("", NOW)


@pytest.mark.parametrize("what", ["etcd/etcd-001.json", "etcd/etcd-001.db.zst.age"])
@pytest.mark.parametrize("times", [1, 2, 9])
def test_bytes_that_changed_on_their_way_are_no_damage(wanted, locations, what, times):
    """A wire that flips bits flips others the next time; a disk gives the same wrong ones."""
    add_backup(locations[0], "etcd-001", age=DAY)
    session = session_of(wanted, locations)
    real, left = locations[0].root.get, [times]

    @contextmanager
    def flipping(key):
        with real(key) as reader:
            if key == what and left[0]:
                left[0] -= 1
                data = bytearray(reader.read())
                data[left[0]] ^= 0x80
                yield io.BytesIO(data)
            else:
                yield reader

    locations[0].root.get = flipping
    verify_due(session)
    assert (entry_of(session).problem, outcomes(session)) == ("", ["warning"])


def test_a_record_of_a_later_release_is_no_damage(wanted, locations):
    add_backup(locations[0], "etcd-001", age=DAY)
    session = session_of(wanted, locations)
    put(locations[0].root, "etcd/etcd-001.json", b'{"format": 2}', overwrite=True)
    verify_due(session)
    assert (entry_of(session).problem, outcomes(session)) == ("", ["warning"])


def test_a_record_of_a_later_release_is_not_written_over(wanted, locations):
    add_backup(locations[1], "etcd-001", age=DAY)
    put(locations[0].root, "etcd/etcd-001.json", b'{"format": 2}')
    session = session_of(wanted, locations)
    replicate_missing(session)
    assert data_of(locations[0].root, "etcd/etcd-001.json") == b'{"format": 2}'
    assert outcomes(session, "copy") == ["warning"]


def test_no_room_to_open_a_copy_is_no_damage(wanted, locations, tmp_path, monkeypatch):
    add_snapshot(locations[0], "etcd-001", tmp_path)
    session = session_of(wanted, locations)
    session.encryption = ENCRYPTION
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    verify_due(session)
    entry = entry_of(session)
    assert (entry.verified, entry.depth, entry.problem) == (NOW, "bytes", "")
    assert entry.unread
    assert outcomes(session) == ["warning"]


def test_another_key_is_no_damage_and_contents_that_were_seen_stay_seen(wanted, locations, tmp_path):
    add_snapshot(locations[0], "etcd-001", tmp_path)
    session = session_of(wanted, locations)
    know(session, verified=NOW - 30 * DAY, depth="contents")
    session.encryption = new_encryption()
    verify_due(session)
    entry = entry_of(session)
    assert (entry.verified, entry.depth, entry.problem) == (NOW, "contents", "")
    assert outcomes(session) == ["warning"]


def test_the_right_key_and_room_are_a_look_at_the_contents(wanted, locations, tmp_path):
    add_snapshot(locations[0], "etcd-001", tmp_path)
    session = session_of(wanted, locations)
    session.encryption = ENCRYPTION
    verify_due(session)
    assert (entry_of(session).sound, entry_of(session).depth, outcomes(session)) == (True, "contents", ["ok"])


def test_broken_contents_are_damage_and_whole_bytes_do_not_mend_them(wanted, locations, tmp_path):
    """Who has no key sees the bytes that were written, and these are broken inside."""
    broken = with_trailer(SNAPSHOT[:-32].replace(b"k7", b"k8"))
    add_snapshot(locations[0], "etcd-001", tmp_path)
    encrypted = EncryptedStore(locations[0].of_source("etcd"), ENCRYPTION)
    with encrypted.put("etcd-001.db", overwrite=True) as writer:
        writer.write(broken)
    stored = encrypted.stored("etcd-001.db")
    record = Snapshot.from_json(data_of(locations[0].root, "etcd/etcd-001.json"))
    changed = replace(record, extra={**record.extra, "stored_sha256": stored.sha256, "stored_size": stored.size})
    put(locations[0].root, "etcd/etcd-001.json", changed.to_json().encode(), overwrite=True)
    session = session_of(wanted, locations)
    session.encryption = ENCRYPTION
    verify_due(session)
    entry = entry_of(session)
    assert (bool(entry.problem), entry.verified, entry.depth, outcomes(session)) == (True, None, "contents", ["failed"])
    assert session.steps[0].code == "copy-damaged"
    session.encryption = Encryption(recipients=ENCRYPTION.recipients)
    verify_due(session)
    assert entry_of(session) == entry


@pytest.mark.parametrize("trouble", TROUBLE, ids=lambda error: type(error).__name__)
def test_the_bucket_of_a_velero_copy_that_cannot_be_read_is_no_damage(wanted, locations, trouble):
    add_backup(locations[0], "etcd-001")
    entry = replace(session_of(wanted, locations).catalogs["here"].entries["etcd/etcd-001"], kind="velero")
    for verb in ("get", "list", "stat"):
        failing(locations[0], verb, trouble)
    check = check_contents(locations[0], entry, session_of(wanted, ()))
    assert (check.state, check.error) == ("unknown", trouble)


# ---- new copies --------------------------------------------------------------------------------------------


def read_back(session, locations, key="etcd/etcd-001"):
    """Read new copies back as a backup does, and return how many count, and what the step ended with."""
    entry = entry_of(session, key=key)
    for location in locations:
        session.forget(location, [key])
    _read_back(task := Task(), entry, session, None)
    return sum(session.catalogs[location.name].entries[key].sound for location in locations), task.outcome, task.code


@pytest.mark.parametrize("trouble", TROUBLE, ids=lambda error: type(error).__name__)
def test_a_new_copy_that_cannot_be_read_back_is_not_verified_yet(wanted, locations, trouble):
    for location in locations:
        add_backup(location, "etcd-001")
    session = session_of(wanted, locations)
    failing(locations[0], "get", trouble)
    assert read_back(session, locations) == (1, "failed", "copy-unread"), "it may be the second that the policy wants"
    assert (entry_of(session).verified, entry_of(session).problem) == (None, "")
    assert entry_of(session, "there").sound
    assert (outcomes(session), outcomes(session, location="there")) == (["warning"], ["ok"])

    working(locations[0], "get")
    replicate_missing(session)
    assert [step for step in session.steps if step.verb == "copy"] == [], "it is there, and is not written again"
    verify_due(session)
    assert entry_of(session).sound, "the next look finds it whole"


def add_one_snapshot(locations, tmp_path):
    """Put the same encrypted bytes and the same record into every location."""
    add_snapshot(locations[0], "etcd-001", tmp_path)
    for key in ("etcd/etcd-001.db.zst.age", "etcd/etcd-001.json"):
        put(locations[1].root, key, data_of(locations[0].root, key))


def test_a_record_that_lies_damages_its_own_copy_alone(wanted, locations, tmp_path):
    add_one_snapshot(locations, tmp_path)
    record = json.loads(data_of(locations[0].root, "etcd/etcd-001.json"))
    lie = json.dumps({**record, "sha256": "0" * 64}).encode()
    put(locations[0].root, "etcd/etcd-001.json", lie, overwrite=True)
    session = session_of(wanted, locations)
    session.encryption = ENCRYPTION
    assert read_back(session, locations)[0] == 1
    assert entry_of(session).problem
    assert (entry_of(session, "there").depth, entry_of(session, "there").problem) == ("contents", "")


def test_a_key_that_does_not_open_what_was_just_encrypted_fails_the_run_and_damages_nothing(
    wanted, locations, tmp_path
):
    add_one_snapshot(locations, tmp_path)
    session = session_of(wanted, locations)
    session.encryption = new_encryption()
    assert read_back(session, locations) == (2, "ok", "")
    for location in ("here", "there"):
        assert (entry_of(session, location).depth, entry_of(session, location).problem) == ("bytes", "")
    assert outcomes(session) == ["ok", "failed"]


def test_no_room_to_open_new_copies_leaves_them_verified_by_their_bytes(wanted, locations, tmp_path, monkeypatch):
    add_snapshot(locations[0], "etcd-001", tmp_path)
    session = session_of(wanted, locations[:1])
    session.encryption = ENCRYPTION
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    assert read_back(session, locations[:1])[0] == 1
    assert (entry_of(session).depth, entry_of(session).problem, outcomes(session)) == ("bytes", "", ["ok", "warning"])


def test_a_copy_that_was_caught_up_and_cannot_be_read_back_is_kept_and_not_made_again(wanted, locations):
    add_backup(locations[0], "etcd-001")
    session = session_of(wanted, locations)
    failing(locations[1], "get", TROUBLE[0], when=lambda key: key.endswith(".age"))
    replicate_missing(session)
    assert outcomes(session, "copy", "there") == ["warning"]
    assert (entry_of(session, "there").verified, entry_of(session, "there").problem) == (None, "")
    replicate_missing(session)
    assert outcomes(session, "copy", "there") == ["warning"], "only once"
    working(locations[1], "get")
    verify_due(session)
    assert entry_of(session, "there").sound


# ---- who asks for a copy -----------------------------------------------------------------------------------


def test_a_backup_that_could_not_be_read_back_is_found(wanted, locations):
    add_backup(locations[0], "etcd-001")
    session = session_of(wanted, locations)
    failing(locations[0], "get", TROUBLE[0], when=lambda key: key.endswith(".age"))
    verify_due(session)
    locations[0].save_catalog(session.catalogs["here"], now=NOW)
    location, entry = find_copy(wanted, "etcd")
    assert (location.name, entry.name, entry.verified) == ("here", "etcd-001", None)


def test_of_two_copies_the_one_that_was_read_back_is_taken(wanted, locations):
    for location in locations:
        add_backup(location, "etcd-001")
    session = session_of(wanted, locations)
    failing(locations[0], "get", TROUBLE[0])
    verify_due(session)
    working(locations[0], "get")
    session.save_catalogs()
    assert find_copy(wanted, "etcd")[0].name == "there"
    assert find_copy(wanted, "etcd", location="here")[0].name == "here"


def test_a_backup_is_not_called_missing_while_a_location_cannot_be_asked(wanted, locations, monkeypatch):
    opened = (locations[0], replace(locations[1], root=Gone(StoreUnavailableError("down"))))
    monkeypatch.setattr(stored, "open_locations", lambda _: opened)
    with pytest.raises(StoreUnavailableError):
        find_copy(wanted, "etcd")
    add_backup(locations[0], "etcd-001")
    assert find_copy(wanted, "etcd")[1].name == "etcd-001"
    with pytest.raises(StoreUnavailableError):
        find_copy(wanted, "etcd", backup="etcd-002")
    with pytest.raises(ObjectNotFoundError):
        find_copy(wanted, "etcd", backup="etcd-002", location="here")


# ---- catalogs ----------------------------------------------------------------------------------------------


def test_a_record_that_cannot_be_had_now_is_no_damaged_record(locations):
    add_backup(locations[0], "etcd-001")
    failing(locations[0], "get", TROUBLE[0], when=lambda key: key.endswith("001.json"))
    with pytest.raises(StoreUnavailableError):
        locations[0].catalog()


@pytest.mark.parametrize("text", [b"{}", b"[]", b'{"format": 1}', b"\xff"])
def test_any_damage_of_a_catalog_is_mended_from_the_records(locations, text):
    add_backup(locations[0], "etcd-001")
    put(locations[0].root, ".clusterguard/catalog.json", text)
    catalog = locations[0].catalog()
    assert list(catalog.entries) == ["etcd/etcd-001"]
    assert len(catalog.notes) == 1


# ---- retention ---------------------------------------------------------------------------------------------


def test_the_guard_goes_on_protecting_what_could_not_be_read_again(locations):
    wanted = policy("here", "there", retention=RetentionPolicy(maximum_age=DAY))
    for age in (2, 3):
        add_backup(locations[0], f"etcd-00{age}", age=age * DAY)
    session = session_of(wanted, locations)
    know(session, key="etcd/etcd-003", verified=NOW - 30 * DAY, depth="bytes")
    failing(locations[0], "get", TROUBLE[0])
    verify_due(session)
    working(locations[0], "get")
    [here] = [each.plan for each in plan_retention_of(session) if each.location.name == "here"]
    assert [each.name for each in here.kept] == ["etcd-003"]


def test_where_nothing_was_verified_the_guard_does_not_keep_the_damaged_one(locations):
    wanted = policy("here", "there", retention=RetentionPolicy(maximum_age=DAY))
    for age in (2, 3):
        add_backup(locations[0], f"etcd-00{age}", age=age * DAY)
    session = session_of(wanted, locations)
    know(session, key="etcd/etcd-002", problem="2 bytes differ")
    [here] = [each.plan for each in plan_retention_of(session) if each.location.name == "here"]
    assert [each.name for each in here.kept] == ["etcd-003"]
