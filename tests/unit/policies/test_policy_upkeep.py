"""Reading copies again, making up for missing ones, and removing what retention removes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from policy_worlds import NOW, LostInTheMiddle, add_backup, data_of, locations_of, policy, put, seen, session_of

from clusterguard.errors import RunInProgressError, StoreError, StoreUnavailableError
from clusterguard.policies.policy import RetentionPolicy, Verification
from clusterguard.policies.runs.replicate_missing import replicate_missing
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
def locations(wanted):
    return locations_of(wanted)


def fill(locations, *ages, **options):
    for location in locations:
        for age in ages:
            add_backup(location, f"etcd-{age:03d}", age=age * DAY, **options)


def verified(session, *names, at=NOW):
    for location in session.locations:
        entries = [
            entry for entry in session.catalogs[location.name].entries.values() if not names or entry.name in names
        ]
        session.know(location, [replace(entry, verified=at, depth="bytes") for entry in entries])
    return session


# ---- reading again -----------------------------------------------------------------------------------------


def test_what_nobody_has_read_is_read_and_known_to_be_whole(wanted, locations):
    fill(locations, 1)
    session = session_of(wanted, locations)
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
def test_damage_is_found_and_stays_known(wanted, locations, damage, told):
    fill(locations, 1)
    session = session_of(wanted, locations)
    damage(locations[0].root)
    verify_due(session)
    [entry] = session.catalogs["here"].entries.values()
    assert told in entry.problem
    assert not entry.sound
    assert ("verify", "etcd-001", "here", "failed") in seen(session)
    assert ("verify", "etcd-001", "there", "ok") in seen(session)


def test_a_record_and_bytes_that_were_changed_together_are_found_by_the_catalog(wanted, locations):
    fill(locations, 1)
    session = session_of(wanted, locations)
    locations[0].root.delete("etcd/etcd-001.db.zst.age")
    locations[0].root.delete("etcd/etcd-001.json")
    add_backup(locations[0], "etcd-001", age=DAY, data=b"other bytes, all of a piece")
    [entry] = session.catalogs["here"].entries.values()
    check = check_stored(locations[0], entry)
    assert (check.state, "catalog" in check.detail) == ("damaged", True)


def test_the_longest_unread_come_first_and_not_all_at_once(wanted, locations):
    fill(locations, *range(1, 9))
    session = session_of(wanted, locations)
    verified(session, at=NOW - 30 * DAY)
    verified(session, "etcd-001", at=NOW - 60 * DAY)
    verified(session, "etcd-002", at=NOW - DAY)
    due = due_for_verification(iter(session.catalogs["here"].entries.values()), session)
    assert [entry.name for entry in due] == ["etcd-001", "etcd-008", "etcd-007", "etcd-006", "etcd-005"]


def test_a_verification_in_the_future_counts_as_none(wanted, locations):
    fill(locations, 1)
    session = verified(session_of(wanted, locations), at=NOW + DAY)
    assert due_for_verification(iter(session.catalogs["here"].entries.values()), session)


def test_a_location_that_cannot_be_read_says_nothing_about_its_copies(wanted, locations):
    fill(locations, 1)
    session = session_of(wanted, locations)
    locations[0].root.get = lambda _key: (_ for _ in ()).throw(StoreUnavailableError("down"))
    verify_due(session)
    [entry] = session.catalogs["here"].entries.values()
    assert entry.problem == ""
    assert ("verify", "etcd-001", "here", "warning") in seen(session)


# ---- making up for what is missing -------------------------------------------------------------------------


def test_a_location_that_was_away_gets_what_it_missed(wanted, locations):
    fill(locations[:1], 1, 2)
    session = session_of(wanted, locations)
    replicate_missing(session)
    assert seen(session) == [("copy", "etcd-001", "there", "ok"), ("copy", "etcd-002", "there", "ok")]
    assert data_of(locations[1].root, "etcd/etcd-001.db.zst.age") == b"bytes of etcd"
    assert all(entry.sound for entry in session.catalogs["there"].entries.values())


def test_what_retention_would_remove_is_not_made_up_for(wanted, locations):
    fill(locations[:1], 1, 2, 3, 4, 5)
    session = verified(session_of(wanted, locations))
    replicate_missing(session)
    assert [name for _, name, _, _ in seen(session)] == ["etcd-001", "etcd-002", "etcd-003"]


def test_a_damaged_copy_is_made_anew_from_a_sound_one(wanted, locations):
    fill(locations, 1)
    put(locations[0].root, "etcd/etcd-001.db.zst.age", b"bytes of etcD", overwrite=True)
    session = session_of(wanted, locations)
    verify_due(session)
    replicate_missing(session)
    assert data_of(locations[0].root, "etcd/etcd-001.db.zst.age") == b"bytes of etcd"
    assert session.catalogs["here"].entries["etcd/etcd-001"].sound


def test_damage_is_never_copied(wanted, locations):
    fill(locations[:1], 1)
    session = session_of(wanted, locations)
    put(locations[0].root, "etcd/etcd-001.db.zst.age", b"bytes of etcD", overwrite=True)
    replicate_missing(session)
    assert seen(session) == [("copy", "etcd-001", "there", "warning")]
    assert [info.key for info in locations[1].root.list("etcd/")] == []


class Lease:
    """Stands in for the run's lock: tells what is asked for, and refuses from then on."""

    def __init__(self, error):
        self.error = error
        self.asked = []

    def require(self, location=""):
        self.asked.append(location)
        raise self.error


@pytest.mark.parametrize("work", [replicate_missing, retain])
def test_whoever_was_overtaken_neither_replaces_nor_removes(wanted, locations, work):
    fill(locations, 1, 2, 3, 4)
    session = verified(session_of(wanted, locations))
    here = session.catalogs["here"].entries["etcd/etcd-001"]
    session.know(locations[0], [replace(here, problem="damaged")])
    before = [[(info.key, info.version) for info in location.root.list()] for location in locations]
    session.lock = Lease(RunInProgressError("another run took over", code="lease-lost"))
    with pytest.raises(RunInProgressError):
        work(session)
    assert len(session.lock.asked) == 1
    assert [[(info.key, info.version) for info in location.root.list()] for location in locations] == before
    assert [step.code for step in session.steps] == ["lease-lost"]


@pytest.mark.parametrize("work", [replicate_missing, retain])
def test_a_lease_that_cannot_be_confirmed_keeps_what_is_there_and_the_run_goes_on(wanted, locations, work):
    fill(locations, 1, 2, 3, 4)
    session = verified(session_of(wanted, locations))
    here = session.catalogs["here"].entries["etcd/etcd-001"]
    session.know(locations[0], [replace(here, problem="damaged")])
    before = [[(info.key, info.version) for info in location.root.list()] for location in locations]
    session.lock = Lease(StoreError("here: 503", code="lease-unconfirmed"))
    work(session)
    assert [[(info.key, info.version) for info in location.root.list()] for location in locations] == before
    assert {step.code for step in session.steps} == {"lease-unconfirmed"}
    assert "ok" not in {step.outcome for step in session.steps}


def test_whoever_is_overtaken_between_record_and_bytes_leaves_the_bytes(wanted, locations):
    fill(locations, 1, 2, 3, 4)
    session = verified(session_of(wanted, locations))
    session.lock = LostInTheMiddle(looks=1)
    with pytest.raises(RunInProgressError):
        retain(session)
    assert [info.key for info in locations[0].root.list("etcd/etcd-004")] == ["etcd/etcd-004.db.zst.age"]


def test_without_its_record_only_what_runs_write_goes_with_a_backup(wanted, locations):
    names = [f"etcd-202605{day:02d}T020000Z" for day in (1, 2, 3, 4)]
    for age, name in enumerate(reversed(names)):
        add_backup(locations[0], name, age=age * DAY)
    session = verified(session_of(wanted, locations[:1]))
    put(locations[0].root, f"etcd/{names[0]}.json", b"damaged", overwrite=True)
    put(locations[0].root, f"etcd/{names[0]}.md", b"somebody's notes")
    retain(session)
    assert [info.key for info in locations[0].root.list(f"etcd/{names[0]}")] == [f"etcd/{names[0]}.md"]


def test_whoever_is_overtaken_while_it_copies_lists_no_copy(wanted, locations):
    add_backup(locations[0], "etcd-001")
    session = session_of(wanted, locations)
    session.lock = LostInTheMiddle(looks=1)
    with pytest.raises(RunInProgressError):
        replicate_missing(session)
    assert [info.key for info in locations[1].root.list("etcd/")] == ["etcd/etcd-001.db.zst.age"]


def test_whoever_is_overtaken_while_it_reads_a_record_leaves_that(wanted, locations, monkeypatch):
    fill(locations, 1, 2, 3, 4)
    session = verified(session_of(wanted, locations))
    before = [info.key for info in locations[0].root.list()]
    session.lock = LostInTheMiddle(looks=1)

    def overtaken(location, entry):
        session.lock.looks = 0
        return stored_objects(location, entry)

    monkeypatch.setattr("clusterguard.policies.runs.retain.stored_objects", overtaken)
    with pytest.raises(RunInProgressError):
        retain(session)
    assert [info.key for info in locations[0].root.list()] == before


def test_nothing_missing_is_nothing_done(wanted, locations):
    fill(locations, 1, 2, 3)
    session = session_of(wanted, locations)
    replicate_missing(session)
    assert session.steps == []


# ---- retention ---------------------------------------------------------------------------------------------


def test_what_no_rule_keeps_goes_with_its_bytes_in_every_location(wanted, locations):
    fill(locations, *range(1, 6))
    session = verified(session_of(wanted, locations))
    retain(session)
    for location in locations:
        assert {info.key for info in location.root.list("etcd/")} == {
            f"etcd/etcd-00{age}.{end}" for age in (1, 2, 3) for end in ("json", "db.zst.age")
        }
        assert len(session.catalogs[location.name].entries) == 3
    assert [step[:2] for step in seen(session)[:2]] == [("delete", "etcd-005"), ("delete", "etcd-004")]


def test_the_newest_verified_copy_stays_whatever_the_rules_say(wanted, locations):
    fill(locations, *range(1, 8))
    session = verified(session_of(wanted, locations), "etcd-006")
    retain(session)
    kept = {entry.name for entry in session.catalogs["here"].entries.values()}
    assert kept == {"etcd-001", "etcd-002", "etcd-003", "etcd-006"}


def test_a_policy_that_would_remove_everything_keeps_one(locations):
    wanted = policy("here", "there", retention=RetentionPolicy(maximum_age=timedelta(seconds=1)))
    fill(locations, 1, 2, 3)
    session = session_of(wanted, locations)
    retain(session)
    assert [entry.name for entry in session.catalogs["here"].entries.values()] == ["etcd-001"]


def test_what_no_run_wrote_is_never_touched(wanted, locations):
    fill(locations, *range(1, 6))
    add_backup(locations[0], "by-hand", age=400 * DAY, run="")
    put(locations[0].root, "etcd/notes.txt", b"mine")
    put(locations[0].root, "elsewhere/old.db", b"mine")
    session = verified(session_of(wanted, locations))
    retain(session)
    left = {info.key for info in locations[0].root.list()}
    assert {"etcd/by-hand.db", "etcd/by-hand.json", "etcd/notes.txt", "elsewhere/old.db"} <= left


def test_one_that_cannot_be_removed_does_not_keep_the_others(wanted, locations):
    fill(locations, *range(1, 7))
    session = verified(session_of(wanted, locations))
    root, delete = locations[0].root, locations[0].root.delete

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


def test_bytes_stay_as_long_as_their_record_does(wanted, locations):
    fill(locations, *range(1, 5))
    session = verified(session_of(wanted, locations))
    root, delete = locations[0].root, locations[0].root.delete
    root.delete = lambda key: None if key.endswith(".json") else delete(key)
    retain(session)
    assert [step.code for step in session.steps] == ["record-not-deleted", ""]
    assert len(list(root.list("etcd/etcd-004"))) == 2
    assert "etcd/etcd-004" in session.catalogs["here"].entries


class Locking(MemoryStore):
    def locked_until(self, key):
        return NOW + DAY if "etcd-004" in key else None


def test_an_object_lock_is_respected_and_named(wanted):
    locations = locations_of(wanted, {"here": Locking()})
    fill(locations, *range(1, 7))
    session = verified(session_of(wanted, locations))
    [here] = [each for each in plan_retention_of(session) if each.location.name == "here"]
    reasons = {each.backup.name: each.reasons[0] for each in here.plan.decisions}
    assert reasons["etcd-004"].startswith("an object lock holds it until 2026-06-02")
    retain(session)
    assert "etcd-004" in {entry.name for entry in session.catalogs["here"].entries.values()}
    assert "etcd-005" not in {entry.name for entry in session.catalogs["here"].entries.values()}


# ---- a clock that jumps ------------------------------------------------------------------------------------


def test_a_clock_that_went_back_removes_nothing(wanted, locations):
    fill(locations, *range(1, 7))
    session = verified(session_of(wanted, locations, now=NOW - 10 * DAY))
    retain(session)
    assert {step.outcome for step in session.steps} == {"failed"}
    assert all("this machine says it is earlier" in step.detail for step in session.steps)
    assert len(session.catalogs["here"].entries) == 6


def test_a_clock_that_jumped_ahead_removes_nothing_until_somebody_vouches_for_it(wanted, locations):
    fill(locations, *range(1, 7))
    for location in locations:
        location.save_catalog(location.catalog(), now=NOW)
    session = verified(session_of(wanted, locations, now=datetime(2036, 1, 1, tzinfo=UTC)))
    retain(session)
    assert len(session.catalogs["here"].entries) == 6
    assert "the clock may have jumped" in session.steps[0].detail
    assert "--trust-clock" in session.steps[0].hint
    vouched = verified(session_of(wanted, locations, now=datetime(2036, 1, 1, tzinfo=UTC), trust_clock=True))
    retain(vouched)
    assert len(vouched.catalogs["here"].entries) == 3


def test_a_location_with_another_time_is_believed(wanted, locations):
    session = session_of(wanted, locations)
    session.location_clocks["here"] = -3 * DAY
    assert "3 days" in clock_problem(session, locations[0])
    assert clock_problem(session, locations[1]) == ""
