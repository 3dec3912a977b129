"""Reading copies again, making up for missing ones, and removing what retention removes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from policy_worlds import NOW, LostInTheMiddle, add_backup, data_of, places_of, policy, put, seen, session_of

from clusterguard.errors import RunInProgressError, StoreError, StoreUnavailableError
from clusterguard.policies.policy import RetentionPolicy, Verification
from clusterguard.policies.runs.catch_up import catch_up
from clusterguard.policies.runs.retain import clock_problem, plan_retention_of, retain
from clusterguard.policies.runs.verify import check_stored, due_for_verification, stored_objects, verify_due
from clusterguard.stores.memory import MemoryStore

DAY = timedelta(days=1)


@pytest.fixture
def wanted():
    return policy(
        "here", "there", retention=RetentionPolicy(last=3), verification=Verification(every=7 * DAY, per_run=5)
    )


@pytest.fixture
def places(wanted):
    return places_of(wanted)


def fill(places, *ages, **options):
    for place in places:
        for age in ages:
            add_backup(place, f"etcd-{age:03d}", age=age * DAY, **options)


def verified(session, *names, at=NOW):
    for place in session.places:
        entries = [entry for entry in session.catalogs[place.name].entries.values() if not names or entry.name in names]
        session.know(place, [replace(entry, verified=at, depth="bytes") for entry in entries])
    return session


# ---- reading again -----------------------------------------------------------------------------------------


def test_what_nobody_has_read_is_read_and_known_to_be_whole(wanted, places):
    fill(places, 1)
    session = session_of(wanted, places)
    verify_due(session)
    for catalog in session.catalogs.values():
        [entry] = catalog.entries.values()
        assert entry.sound
        assert entry.verified == NOW


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda root: put(root, "etcd/etcd-001.db.zst.age", b"bytes of etcD", overwrite=True), "sha256"),
        (lambda root: put(root, "etcd/etcd-001.db.zst.age", b"bytes", overwrite=True), "5 bytes"),
        (lambda root: root.delete("etcd/etcd-001.db.zst.age"), "no such object"),
        (lambda root: put(root, "etcd/etcd-001.json", b"{}", overwrite=True), "record"),
    ],
)
def test_damage_is_found_and_stays_known(wanted, places, damage, told):
    fill(places, 1)
    session = session_of(wanted, places)
    damage(places[0].root)
    verify_due(session)
    [entry] = session.catalogs["here"].entries.values()
    assert told in entry.problem
    assert not entry.sound
    assert ("verify", "etcd-001", "here", "failed") in seen(session)
    assert ("verify", "etcd-001", "there", "ok") in seen(session)


def test_a_record_and_bytes_that_were_changed_together_are_found_by_the_catalog(wanted, places):
    fill(places, 1)
    session = session_of(wanted, places)
    places[0].root.delete("etcd/etcd-001.db.zst.age")
    places[0].root.delete("etcd/etcd-001.json")
    add_backup(places[0], "etcd-001", age=DAY, data=b"other bytes, all of a piece")
    [entry] = session.catalogs["here"].entries.values()
    check = check_stored(places[0], entry)
    assert (check.state, "catalog" in check.detail) == ("damaged", True)


def test_the_longest_unread_come_first_and_not_all_at_once(wanted, places):
    fill(places, *range(1, 9))
    session = session_of(wanted, places)
    verified(session, at=NOW - 30 * DAY)
    verified(session, "etcd-001", at=NOW - 60 * DAY)
    verified(session, "etcd-002", at=NOW - DAY)
    due = due_for_verification(iter(session.catalogs["here"].entries.values()), session)
    assert [entry.name for entry in due] == ["etcd-001", "etcd-008", "etcd-007", "etcd-006", "etcd-005"]


def test_a_verification_in_the_future_counts_as_none(wanted, places):
    fill(places, 1)
    session = verified(session_of(wanted, places), at=NOW + DAY)
    assert due_for_verification(iter(session.catalogs["here"].entries.values()), session)


def test_a_location_that_cannot_be_read_says_nothing_about_its_copies(wanted, places):
    fill(places, 1)
    session = session_of(wanted, places)
    places[0].root.get = lambda _key: (_ for _ in ()).throw(StoreUnavailableError("down"))
    verify_due(session)
    [entry] = session.catalogs["here"].entries.values()
    assert entry.problem == ""
    assert ("verify", "etcd-001", "here", "warning") in seen(session)


# ---- making up for what is missing -------------------------------------------------------------------------


def test_a_location_that_was_away_gets_what_it_missed(wanted, places):
    fill(places[:1], 1, 2)
    session = session_of(wanted, places)
    catch_up(session)
    assert seen(session) == [("copy", "etcd-001", "there", "ok"), ("copy", "etcd-002", "there", "ok")]
    assert data_of(places[1].root, "etcd/etcd-001.db.zst.age") == b"bytes of etcd"
    assert all(entry.sound for entry in session.catalogs["there"].entries.values())


def test_what_retention_would_remove_is_not_made_up_for(wanted, places):
    fill(places[:1], 1, 2, 3, 4, 5)
    session = verified(session_of(wanted, places))
    catch_up(session)
    assert [name for _, name, _, _ in seen(session)] == ["etcd-001", "etcd-002", "etcd-003"]


def test_a_damaged_copy_is_made_anew_from_a_sound_one(wanted, places):
    fill(places, 1)
    put(places[0].root, "etcd/etcd-001.db.zst.age", b"bytes of etcD", overwrite=True)
    session = session_of(wanted, places)
    verify_due(session)
    catch_up(session)
    assert data_of(places[0].root, "etcd/etcd-001.db.zst.age") == b"bytes of etcd"
    assert session.catalogs["here"].entries["etcd/etcd-001"].sound


def test_damage_is_never_copied(wanted, places):
    fill(places[:1], 1)
    session = session_of(wanted, places)
    put(places[0].root, "etcd/etcd-001.db.zst.age", b"bytes of etcD", overwrite=True)
    catch_up(session)
    assert seen(session) == [("copy", "etcd-001", "there", "warning")]
    assert [info.key for info in places[1].root.list("etcd/")] == []


class Lease:
    """Stands in for the run's lock: tells what is asked for, and refuses from then on."""

    def __init__(self, error):
        self.error = error
        self.asked = []

    def require(self, location=""):
        self.asked.append(location)
        raise self.error


@pytest.mark.parametrize("work", [catch_up, retain])
def test_whoever_was_overtaken_neither_replaces_nor_removes(wanted, places, work):
    fill(places, 1, 2, 3, 4)
    session = verified(session_of(wanted, places))
    here = session.catalogs["here"].entries["etcd/etcd-001"]
    session.know(places[0], [replace(here, problem="damaged")])
    before = [[(info.key, info.version) for info in place.root.list()] for place in places]
    session.lock = Lease(RunInProgressError("another run took over", code="lease-lost"))
    with pytest.raises(RunInProgressError):
        work(session)
    assert session.lock.asked == ["here"]
    assert [[(info.key, info.version) for info in place.root.list()] for place in places] == before
    assert [step.code for step in session.steps] == ["lease-lost"]


@pytest.mark.parametrize("work", [catch_up, retain])
def test_a_lease_that_cannot_be_confirmed_keeps_what_is_there_and_the_run_goes_on(wanted, places, work):
    fill(places, 1, 2, 3, 4)
    session = verified(session_of(wanted, places))
    here = session.catalogs["here"].entries["etcd/etcd-001"]
    session.know(places[0], [replace(here, problem="damaged")])
    before = [[(info.key, info.version) for info in place.root.list()] for place in places]
    session.lock = Lease(StoreError("here: 503", code="lease-unconfirmed"))
    work(session)
    assert [[(info.key, info.version) for info in place.root.list()] for place in places] == before
    assert {step.code for step in session.steps} == {"lease-unconfirmed"}
    assert "ok" not in {step.outcome for step in session.steps}


def test_whoever_is_overtaken_between_record_and_bytes_leaves_the_bytes(wanted, places):
    fill(places, 1, 2, 3, 4)
    session = verified(session_of(wanted, places))
    session.lock = LostInTheMiddle(looks=1)
    with pytest.raises(RunInProgressError):
        retain(session)
    assert [info.key for info in places[0].root.list("etcd/etcd-004")] == ["etcd/etcd-004.db.zst.age"]


def test_whoever_is_overtaken_while_it_copies_lists_no_copy(wanted, places):
    add_backup(places[0], "etcd-001")
    session = session_of(wanted, places)
    session.lock = LostInTheMiddle(looks=1)
    with pytest.raises(RunInProgressError):
        catch_up(session)
    assert [info.key for info in places[1].root.list("etcd/")] == ["etcd/etcd-001.db.zst.age"]


def test_whoever_is_overtaken_while_it_reads_a_record_leaves_that(wanted, places, monkeypatch):
    fill(places, 1, 2, 3, 4)
    session = verified(session_of(wanted, places))
    before = [info.key for info in places[0].root.list()]
    session.lock = LostInTheMiddle(looks=1)

    def overtaken(place, entry):
        session.lock.looks = 0
        return stored_objects(place, entry)

    monkeypatch.setattr("clusterguard.policies.runs.retain.stored_objects", overtaken)
    with pytest.raises(RunInProgressError):
        retain(session)
    assert [info.key for info in places[0].root.list()] == before


def test_nothing_missing_is_nothing_done(wanted, places):
    fill(places, 1, 2, 3)
    session = session_of(wanted, places)
    catch_up(session)
    assert session.steps == []


# ---- retention ---------------------------------------------------------------------------------------------


def test_what_no_rule_keeps_goes_with_its_bytes_in_every_location(wanted, places):
    fill(places, *range(1, 6))
    session = verified(session_of(wanted, places))
    retain(session)
    for place in places:
        assert {info.key for info in place.root.list("etcd/")} == {
            f"etcd/etcd-00{age}.{end}" for age in (1, 2, 3) for end in ("json", "db.zst.age")
        }
        assert len(session.catalogs[place.name].entries) == 3
    assert [step[:2] for step in seen(session)[:2]] == [("delete", "etcd-005"), ("delete", "etcd-004")]


def test_the_newest_verified_copy_stays_whatever_the_rules_say(wanted, places):
    fill(places, *range(1, 8))
    session = verified(session_of(wanted, places), "etcd-006")
    retain(session)
    kept = {entry.name for entry in session.catalogs["here"].entries.values()}
    assert kept == {"etcd-001", "etcd-002", "etcd-003", "etcd-006"}


def test_a_policy_that_would_remove_everything_keeps_one(places):
    wanted = policy("here", "there", retention=RetentionPolicy(maximum_age=timedelta(seconds=1)))
    fill(places, 1, 2, 3)
    session = session_of(wanted, places)
    retain(session)
    assert [entry.name for entry in session.catalogs["here"].entries.values()] == ["etcd-001"]


def test_what_no_run_wrote_is_never_touched(wanted, places):
    fill(places, *range(1, 6))
    add_backup(places[0], "by-hand", age=400 * DAY, run="")
    put(places[0].root, "etcd/notes.txt", b"mine")
    put(places[0].root, "elsewhere/old.db", b"mine")
    session = verified(session_of(wanted, places))
    retain(session)
    left = {info.key for info in places[0].root.list()}
    assert {"etcd/by-hand.db", "etcd/by-hand.json", "etcd/notes.txt", "elsewhere/old.db"} <= left


def test_one_that_cannot_be_removed_does_not_keep_the_others(wanted, places):
    fill(places, *range(1, 7))
    session = verified(session_of(wanted, places))
    root, delete = places[0].root, places[0].root.delete

    def refusing(key):
        if "etcd-005" in key:
            raise StoreError("it is locked", hint="wait")
        delete(key)

    root.delete = refusing
    retain(session)
    assert seen(session)[:3] == [
        ("delete", "etcd-006", "here", "ok"),
        ("delete", "etcd-005", "here", "failed"),
        ("delete", "etcd-004", "here", "ok"),
    ]
    assert {entry.name for entry in session.catalogs["here"].entries.values()} >= {"etcd-005"}


def test_bytes_stay_as_long_as_their_record_does(wanted, places):
    fill(places, *range(1, 5))
    session = verified(session_of(wanted, places))
    root, delete = places[0].root, places[0].root.delete
    root.delete = lambda key: None if key.endswith(".json") else delete(key)
    retain(session)
    assert [step.code for step in session.steps] == ["record-not-deleted", ""]
    assert len(list(root.list("etcd/etcd-004"))) == 2
    assert "etcd/etcd-004" in session.catalogs["here"].entries


class Locking(MemoryStore):
    def locked_until(self, key):
        return NOW + DAY if "etcd-004" in key else None


def test_an_object_lock_is_respected_and_named(wanted):
    places = places_of(wanted, {"here": Locking()})
    fill(places, *range(1, 7))
    session = verified(session_of(wanted, places))
    [here] = [each for each in plan_retention_of(session) if each.place.name == "here"]
    reasons = {each.backup.name: each.reasons[0] for each in here.plan.decisions}
    assert reasons["etcd-004"].startswith("an object lock holds it until 2026-06-02")
    retain(session)
    assert "etcd-004" in {entry.name for entry in session.catalogs["here"].entries.values()}
    assert "etcd-005" not in {entry.name for entry in session.catalogs["here"].entries.values()}


# ---- a clock that jumps ------------------------------------------------------------------------------------


def test_a_clock_that_went_back_removes_nothing(wanted, places):
    fill(places, *range(1, 7))
    session = verified(session_of(wanted, places, now=NOW - 10 * DAY))
    retain(session)
    assert {step.outcome for step in session.steps} == {"failed"}
    assert all("this machine says it is earlier" in step.detail for step in session.steps)
    assert len(session.catalogs["here"].entries) == 6


def test_a_clock_that_jumped_ahead_removes_nothing_until_somebody_vouches_for_it(wanted, places):
    fill(places, *range(1, 7))
    for place in places:
        place.save_catalog(place.catalog(), now=NOW)
    session = verified(session_of(wanted, places, now=datetime(2036, 1, 1, tzinfo=UTC)))
    retain(session)
    assert len(session.catalogs["here"].entries) == 6
    assert "the clock may have jumped" in session.steps[0].detail
    assert "--trust-clock" in session.steps[0].hint
    vouched = verified(session_of(wanted, places, now=datetime(2036, 1, 1, tzinfo=UTC), trust_clock=True))
    retain(vouched)
    assert len(vouched.catalogs["here"].entries) == 3


def test_a_location_with_another_time_is_believed(wanted, places):
    session = session_of(wanted, places)
    session.location_clocks["here"] = -3 * DAY
    assert "3 days" in clock_problem(session, places[0])
    assert clock_problem(session, places[1]) == ""
