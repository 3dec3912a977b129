"""Trouble on the way to a copy says nothing about the copy: what is known of it stays, and nothing is made anew."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType, SimpleNamespace

import pyrage
import pytest
from policy_worlds import NOW, Gone, add_backup, data_of, places_of, policy, put, session_of

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
from clusterguard.policies.runs.catch_up import catch_up
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
def places(wanted, tmp_path):
    """Two folders, as `open_places` opens them."""
    return places_of(wanted, {name: LocalStore(tmp_path / name / "nightly") for name in ("here", "there")})


def failing(place, verb, error, *, when=lambda _: True):
    """Let one verb of a location fail, and count how often."""
    asked, real = [], getattr(place.root, verb)

    def fail(key="", **options):
        if when(key):
            asked.append(key)
            raise error
        return real(key, **options)

    setattr(place.root, verb, fail)
    return asked


def working(place, verb):
    delattr(place.root, verb)


def add_snapshot(place, name, tmp_path, *, encryption=ENCRYPTION, data=SNAPSHOT):
    """Put a real snapshot there, encrypted as a run does it, and return its digest as it is stored."""
    path = tmp_path / "plain.db"
    path.write_bytes(data)
    evidence = verify_file(path)
    structure = evidence.structure
    encrypted = EncryptedStore(place.of_source("etcd"), encryption)
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
    put(place.root, f"etcd/{name}.json", record.to_json().encode())
    return stored.sha256


def entry_of(session, location="here", key="etcd/etcd-001"):
    return session.catalogs[location].entries[key]


def know(session, location="here", key="etcd/etcd-001", **changes):
    [place] = [each for each in session.places if each.name == location]
    session.know(place, [replace(entry_of(session, location, key), **changes)])


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
def test_what_could_not_be_read_changes_nothing_that_is_known(wanted, places, trouble, what, known):
    for place in places:
        add_backup(place, "etcd-001", age=DAY)
    session = session_of(wanted, places)
    know(session, **known)
    before = entry_of(session)
    failing(places[0], "get", trouble, when=lambda key: key == what)
    verify_due(session)
    assert replace(entry_of(session), unread="") == before
    assert trouble.message in entry_of(session).unread
    assert outcomes(session) == ["warning"]
    assert {step.code for step in session.steps if step.location == "here"} == {"copy-unread"}
    assert entry_of(session, "there").sound


def test_a_look_that_succeeds_forgets_the_one_that_did_not(wanted, places):
    add_backup(places[0], "etcd-001", age=DAY)
    session = session_of(wanted, places)
    failing(places[0], "get", TROUBLE[0])
    verify_due(session)
    assert entry_of(session).unread
    working(places[0], "get")
    verify_due(session)
    assert (entry_of(session).unread, entry_of(session).verified) == ("", NOW)


@pytest.mark.parametrize("what", ["etcd/etcd-001.json", "etcd/etcd-001.db.zst.age"])
@pytest.mark.parametrize("times", [1, 2, 9])
def test_bytes_that_changed_on_their_way_are_no_damage(wanted, places, what, times):
    """A wire that flips bits flips others the next time; a disk gives the same wrong ones."""
    add_backup(places[0], "etcd-001", age=DAY)
    session = session_of(wanted, places)
    real, left = places[0].root.get, [times]

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

    places[0].root.get = flipping
    verify_due(session)
    assert (entry_of(session).problem, outcomes(session)) == ("", ["warning"])


def test_a_record_of_a_later_release_is_no_damage(wanted, places):
    add_backup(places[0], "etcd-001", age=DAY)
    session = session_of(wanted, places)
    put(places[0].root, "etcd/etcd-001.json", b'{"format": 2}', overwrite=True)
    verify_due(session)
    assert (entry_of(session).problem, outcomes(session)) == ("", ["warning"])


def test_a_record_of_a_later_release_is_not_written_over(wanted, places):
    add_backup(places[1], "etcd-001", age=DAY)
    put(places[0].root, "etcd/etcd-001.json", b'{"format": 2}')
    session = session_of(wanted, places)
    catch_up(session)
    assert data_of(places[0].root, "etcd/etcd-001.json") == b'{"format": 2}'
    assert outcomes(session, "copy") == ["warning"]


def test_no_room_to_open_a_copy_is_no_damage(wanted, places, tmp_path, monkeypatch):
    add_snapshot(places[0], "etcd-001", tmp_path)
    session = session_of(wanted, places)
    session.encryption = ENCRYPTION
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    verify_due(session)
    entry = entry_of(session)
    assert (entry.verified, entry.depth, entry.problem) == (NOW, "bytes", "")
    assert entry.unread
    assert outcomes(session) == ["warning"]


def test_another_key_is_no_damage_and_contents_that_were_seen_stay_seen(wanted, places, tmp_path):
    add_snapshot(places[0], "etcd-001", tmp_path)
    session = session_of(wanted, places)
    know(session, verified=NOW - 30 * DAY, depth="contents")
    session.encryption = new_encryption()
    verify_due(session)
    entry = entry_of(session)
    assert (entry.verified, entry.depth, entry.problem) == (NOW, "contents", "")
    assert outcomes(session) == ["warning"]


def test_the_right_key_and_room_are_a_look_at_the_contents(wanted, places, tmp_path):
    add_snapshot(places[0], "etcd-001", tmp_path)
    session = session_of(wanted, places)
    session.encryption = ENCRYPTION
    verify_due(session)
    assert (entry_of(session).sound, entry_of(session).depth, outcomes(session)) == (True, "contents", ["ok"])


def test_broken_contents_are_damage_and_whole_bytes_do_not_mend_them(wanted, places, tmp_path):
    """Who has no key sees the bytes that were written, and these are broken inside."""
    broken = with_trailer(SNAPSHOT[:-32].replace(b"k7", b"k8"))
    add_snapshot(places[0], "etcd-001", tmp_path)
    encrypted = EncryptedStore(places[0].of_source("etcd"), ENCRYPTION)
    with encrypted.put("etcd-001.db", overwrite=True) as writer:
        writer.write(broken)
    stored = encrypted.stored("etcd-001.db")
    record = Snapshot.from_json(data_of(places[0].root, "etcd/etcd-001.json"))
    changed = replace(record, extra={**record.extra, "stored_sha256": stored.sha256, "stored_size": stored.size})
    put(places[0].root, "etcd/etcd-001.json", changed.to_json().encode(), overwrite=True)
    session = session_of(wanted, places)
    session.encryption = ENCRYPTION
    verify_due(session)
    entry = entry_of(session)
    assert (bool(entry.problem), entry.verified, entry.depth, outcomes(session)) == (True, None, "contents", ["failed"])
    assert session.steps[0].code == "copy-damaged"
    session.encryption = Encryption(recipients=ENCRYPTION.recipients)
    verify_due(session)
    assert entry_of(session) == entry


@pytest.mark.parametrize("trouble", TROUBLE, ids=lambda error: type(error).__name__)
def test_the_bucket_of_a_velero_copy_that_cannot_be_read_is_no_damage(wanted, places, trouble):
    add_backup(places[0], "etcd-001")
    entry = replace(session_of(wanted, places).catalogs["here"].entries["etcd/etcd-001"], kind="velero")
    for verb in ("get", "list", "stat"):
        failing(places[0], verb, trouble)
    check = check_contents(places[0], entry, session_of(wanted, ()))
    assert (check.state, check.error) == ("unknown", trouble)


# ---- new copies --------------------------------------------------------------------------------------------


def read_back(session, places, key="etcd/etcd-001"):
    """Read new copies back as a backup does, and return how many count, and what the step ended with."""
    entry = entry_of(session, key=key)
    for place in places:
        session.forget(place, [key])
    _read_back(task := Task(), entry, session, None)
    return sum(session.catalogs[place.name].entries[key].sound for place in places), task.outcome, task.code


@pytest.mark.parametrize("trouble", TROUBLE, ids=lambda error: type(error).__name__)
def test_a_new_copy_that_cannot_be_read_back_is_not_verified_yet(wanted, places, trouble):
    for place in places:
        add_backup(place, "etcd-001")
    session = session_of(wanted, places)
    failing(places[0], "get", trouble)
    assert read_back(session, places) == (1, "failed", "copy-unread"), "it may be the second that the policy wants"
    assert (entry_of(session).verified, entry_of(session).problem) == (None, "")
    assert entry_of(session, "there").sound
    assert (outcomes(session), outcomes(session, location="there")) == (["warning"], ["ok"])

    working(places[0], "get")
    catch_up(session)
    assert [step for step in session.steps if step.verb == "copy"] == [], "it is there, and is not written again"
    verify_due(session)
    assert entry_of(session).sound, "the next look finds it whole"


def test_a_key_that_does_not_open_what_was_just_encrypted_fails_the_run_and_damages_nothing(wanted, places, tmp_path):
    for place in places:
        add_snapshot(place, "etcd-001", tmp_path)
    put(places[1].root, "etcd/etcd-001.db.zst.age", data_of(places[0].root, "etcd/etcd-001.db.zst.age"), overwrite=True)
    put(places[1].root, "etcd/etcd-001.json", data_of(places[0].root, "etcd/etcd-001.json"), overwrite=True)
    session = session_of(wanted, places)
    session.encryption = new_encryption()
    assert read_back(session, places) == (2, "ok", "")
    for location in ("here", "there"):
        assert (entry_of(session, location).depth, entry_of(session, location).problem) == ("bytes", "")
    assert outcomes(session) == ["ok", "failed"]


def test_no_room_to_open_new_copies_leaves_them_verified_by_their_bytes(wanted, places, tmp_path, monkeypatch):
    add_snapshot(places[0], "etcd-001", tmp_path)
    session = session_of(wanted, places[:1])
    session.encryption = ENCRYPTION
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    assert read_back(session, places[:1])[0] == 1
    assert (entry_of(session).depth, entry_of(session).problem, outcomes(session)) == ("bytes", "", ["ok", "warning"])


def test_a_copy_that_was_caught_up_and_cannot_be_read_back_is_kept_and_not_made_again(wanted, places):
    add_backup(places[0], "etcd-001")
    session = session_of(wanted, places)
    failing(places[1], "get", TROUBLE[0], when=lambda key: key.endswith(".age"))
    catch_up(session)
    assert outcomes(session, "copy", "there") == ["warning"]
    assert (entry_of(session, "there").verified, entry_of(session, "there").problem) == (None, "")
    catch_up(session)
    assert outcomes(session, "copy", "there") == ["warning"], "only once"
    working(places[1], "get")
    verify_due(session)
    assert entry_of(session, "there").sound


# ---- who asks for a copy -----------------------------------------------------------------------------------


def test_a_backup_that_could_not_be_read_back_is_found(wanted, places):
    add_backup(places[0], "etcd-001")
    session = session_of(wanted, places)
    failing(places[0], "get", TROUBLE[0], when=lambda key: key.endswith(".age"))
    verify_due(session)
    places[0].save_catalog(session.catalogs["here"], now=NOW)
    place, entry = find_copy(wanted, "etcd")
    assert (place.name, entry.name, entry.verified) == ("here", "etcd-001", None)


def test_of_two_copies_the_one_that_was_read_back_is_taken(wanted, places):
    for place in places:
        add_backup(place, "etcd-001")
    session = session_of(wanted, places)
    failing(places[0], "get", TROUBLE[0])
    verify_due(session)
    working(places[0], "get")
    session.save_catalogs()
    assert find_copy(wanted, "etcd")[0].name == "there"
    assert find_copy(wanted, "etcd", location="here")[0].name == "here"


def test_a_backup_is_not_called_missing_while_a_location_cannot_be_asked(wanted, places, monkeypatch):
    opened = (places[0], replace(places[1], root=Gone(StoreUnavailableError("down"))))
    monkeypatch.setattr(stored, "open_places", lambda _: opened)
    with pytest.raises(StoreUnavailableError):
        find_copy(wanted, "etcd")
    add_backup(places[0], "etcd-001")
    assert find_copy(wanted, "etcd")[1].name == "etcd-001"
    with pytest.raises(StoreUnavailableError):
        find_copy(wanted, "etcd", backup="etcd-002")
    with pytest.raises(ObjectNotFoundError):
        find_copy(wanted, "etcd", backup="etcd-002", location="here")


# ---- catalogs ----------------------------------------------------------------------------------------------


def test_a_record_that_cannot_be_had_now_is_no_damaged_record(places):
    add_backup(places[0], "etcd-001")
    failing(places[0], "get", TROUBLE[0], when=lambda key: key.endswith("001.json"))
    with pytest.raises(StoreUnavailableError):
        places[0].catalog()


@pytest.mark.parametrize("text", [b"{}", b"[]", b'{"format": 1}', b"\xff"])
def test_any_damage_of_a_catalog_is_mended_from_the_records(places, text):
    add_backup(places[0], "etcd-001")
    put(places[0].root, ".clusterguard/catalog.json", text)
    catalog = places[0].catalog()
    assert list(catalog.entries) == ["etcd/etcd-001"]
    assert len(catalog.notes) == 1


# ---- retention ---------------------------------------------------------------------------------------------


def test_the_guard_goes_on_protecting_what_could_not_be_read_again(places):
    wanted = policy("here", "there", retention=RetentionPolicy(maximum_age=DAY))
    for age in (2, 3):
        add_backup(places[0], f"etcd-00{age}", age=age * DAY)
    session = session_of(wanted, places)
    know(session, key="etcd/etcd-003", verified=NOW - 30 * DAY, depth="bytes")
    failing(places[0], "get", TROUBLE[0])
    verify_due(session)
    working(places[0], "get")
    [here] = [each.plan for each in plan_retention_of(session) if each.place.name == "here"]
    assert [each.name for each in here.kept] == ["etcd-003"]


def test_where_nothing_was_verified_the_guard_does_not_keep_the_damaged_one(places):
    wanted = policy("here", "there", retention=RetentionPolicy(maximum_age=DAY))
    for age in (2, 3):
        add_backup(places[0], f"etcd-00{age}", age=age * DAY)
    session = session_of(wanted, places)
    know(session, key="etcd/etcd-002", problem="2 bytes differ")
    [here] = [each.plan for each in plan_retention_of(session) if each.place.name == "here"]
    assert [each.name for each in here.kept] == ["etcd-003"]
