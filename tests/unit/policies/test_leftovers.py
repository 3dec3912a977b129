"""What broke off half-way is found, told, and removed after a day: and never anything that may be somebody's."""

from __future__ import annotations

import io
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_worlds import (
    NOW,
    Killed,
    LostInTheMiddle,
    Mortal,
    Saving,
    add_backup,
    locations_of,
    policy,
    put,
    session_of,
)

from clusterguard.errors import RunInProgressError, StoreError, StoreUnavailableError
from clusterguard.policies.copies.locations import VeleroRecord
from clusterguard.policies.copies.naming import backup_of_key, etcd_name, velero_name
from clusterguard.policies.copies.rotation import reencrypt_copy
from clusterguard.policies.policy import EtcdSource, RetentionPolicy, Source, VeleroSource
from clusterguard.policies.runs import backup
from clusterguard.policies.runs.backup import _Copied, _copy_velero, back_up
from clusterguard.policies.runs.replicate_missing import replicate_missing
from clusterguard.policies.runs.retain import plan_retention_of, retain
from clusterguard.stores import LocalStore, MemoryStore, PrefixedStore, ReplicatedStore
from clusterguard.stores.encryption import EncryptedStore, Encryption
from clusterguard.terminal.console import console_on
from clusterguard.terminal.run_view import show_retention

DAY = timedelta(days=1)
BROKEN = "etcd-20260501T020000Z"
SOUND = "etcd-20260502T020000Z"
SHOP = "shop-20260501t020000z-0a1b2c"
SHOP_SOURCE = VeleroSource(cluster="context:prod", bucket="memory:")


class Clocked(MemoryStore):
    """A store with a clock of its own."""

    def __init__(self, moment=NOW):
        super().__init__(now=lambda: self.moment)
        self.moment = moment


@pytest.fixture
def wanted():
    made = policy("here", "there", retention=RetentionPolicy(last=9))
    shop = Source(name="shop", velero=SHOP_SOURCE)
    return made.model_copy(
        update={"sources": (*made.sources, Source(name="etcd-2", etcd=EtcdSource(endpoints=("http://x",))), shop)}
    )


@pytest.fixture
def locations(wanted):
    return locations_of(wanted, {name: Clocked(NOW - 3 * DAY) for name in ("here", "there")})


def leftovers(location):
    return {(each.source, each.name): each.keys for each in location.catalog().leftovers}


def keys_of(location, folder=""):
    return {info.key for info in location.root.list(folder)}


def removed(session):
    return [(step.source, step.backup, step.outcome) for step in session.steps if step.verb == "delete"]


OURS = [
    f"etcd/{BROKEN}.db.zst.age",
    f"etcd/{BROKEN}.db",
    f"etcd/{BROKEN}.db.age",
    f"etcd/{BROKEN}-0a1b2c.db.zst",
    f"etcd/{BROKEN}~0a1b2c3d.db.zst.age",
    f"etcd-2/etcd-2-{BROKEN[5:]}.db.zst",
    f"shop/backups/{SHOP}/velero-backup.json.zst.age",
    f"shop/backups/{SHOP}/{SHOP}.tar.gz.zst",
]
NOT_OURS = [
    "etcd/notes.txt",
    "etcd/by-hand.db",
    "etcd/etcd-20260501.db",
    f"etcd/{BROKEN}.db.gz",
    f"etcd/{BROKEN}.json.bak",
    f"etcd/old/{BROKEN}.db",
    f"etcd/{BROKEN}-NOTOURS.db",
    f"etcd/{BROKEN}~0a1b.db",
    f"etcd/etcd-2-{BROKEN[5:]}.db.zst",
    f"etcd-2/{BROKEN}.db.zst",
    f"etcd/backups/{SHOP}/velero-backup.json",
    f"shop/backups/{SHOP}",
    "shop/backups/shop-nightly/velero-backup.json",
    f"shop/restores/{SHOP}/restore-{SHOP}-logs.gz",
    f"{BROKEN}.db",
    ".clusterguard/etcd-20260501T020000Z.db",
]


# ---- what is one -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", OURS)
def test_bytes_that_no_record_names_are_found_and_go(wanted, locations, key):
    put(locations[0].root, key, b"half of it")
    [found] = locations[0].catalog().leftovers
    assert [f"{found.source}/{path}" for path in found.keys] == [key]
    assert (found.size, found.modified) == (10, NOW - 3 * DAY)
    session = session_of(wanted, locations)
    retain(session)
    assert removed(session) == [(found.source, found.name, "ok")]
    assert keys_of(locations[0]) == set()


@pytest.mark.parametrize("key", NOT_OURS)
def test_what_no_run_names_so_is_never_touched(wanted, locations, key):
    put(locations[0].root, key, b"somebody's")
    assert leftovers(locations[0]) == {}
    session = session_of(wanted, locations)
    retain(session)
    assert keys_of(locations[0]) == {key}


def test_what_a_record_names_is_none_whether_it_can_be_read_or_not(wanted, locations):
    add_backup(locations[0], SOUND)
    put(locations[0].root, f"etcd/{BROKEN}.db.zst.age", b"bytes")
    put(locations[0].root, f"etcd/{BROKEN}.json", b"{}")
    record = VeleroRecord(
        name=SHOP, source="shop", policy="nightly", run="r", created=NOW, encrypted=True, objects={}, plain={}
    )
    put(locations[0].root, f"shop/backups/{SHOP}/velero-backup.json.zst.age", b"bytes")
    put(locations[0].root, f"shop/{SHOP}.json", record.to_json())
    before = keys_of(locations[0])
    assert leftovers(locations[0]) == {}
    retain(session_of(wanted, locations))
    assert keys_of(locations[0]) == before


def test_a_second_object_of_a_backup_is_one_and_that_of_the_record_is_none(wanted, locations):
    add_backup(locations[0], SOUND)
    put(locations[0].root, f"etcd/{SOUND}~0a1b2c3d.db.zst.age", b"re-encrypted, and never named")
    retain(session_of(wanted, locations))
    assert keys_of(locations[0]) == {f"etcd/{SOUND}.db.zst.age", f"etcd/{SOUND}.json"}


@pytest.mark.parametrize("trouble", ["the record is damaged", "the record cannot be had", "its own object is gone"])
def test_a_second_object_stays_where_nobody_can_say_which_one_counts(wanted, locations, trouble):
    add_backup(locations[0], SOUND)
    for number in range(2):
        put(locations[0].root, f"etcd/{SOUND}~0a1b2c3{number}.db.zst.age", b"re-encrypted, and never named")
    session = session_of(wanted, locations)
    locations[0].save_catalog(session.catalogs["here"], now=NOW)
    if trouble == "the record is damaged":
        put(locations[0].root, f"etcd/{SOUND}.json", b"{", overwrite=True)
    elif trouble == "its own object is gone":
        locations[0].root.delete(f"etcd/{SOUND}.db.zst.age")
    else:
        get = locations[0].root.get
        locations[0].root.get = lambda key: get(key) if SOUND not in key else raising(StoreUnavailableError("503"))
    before = keys_of(locations[0])
    retain(session_of(wanted, locations))
    assert keys_of(locations[0]) == before


def raising(error):
    raise error


@given(
    source=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    now=st.datetimes(min_value=datetime(2000, 1, 1)),  # noqa: DTZ001 - what hypothesis wants; it draws any
    suffix=st.from_regex(r"[0-9a-f]{6}", fullmatch=True),
    encryption=st.sampled_from(["", ".zst", ".age", ".zst.age"]),
)
def test_every_name_that_a_run_gives_is_known_again(source, now, suffix, encryption):
    for name in (etcd_name(source, now=now), etcd_name(source, now=now, suffix=suffix)):
        assert backup_of_key(source, f"{name}.db{encryption}") == name
        assert backup_of_key(source, f"{name}~{suffix}00.db{encryption}") == name
        assert backup_of_key(source, f"{name}.json") is None
    name = velero_name(source, now=now, suffix=suffix)
    assert backup_of_key(source, f"backups/{name}/velero-backup.json{encryption}") == name
    assert backup_of_key(f"{source}-x", f"{name}.db{encryption}") is None


# ---- when it goes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "ahead", "goes"),
    [
        (NOW - DAY, timedelta(0), True),
        (NOW - timedelta(hours=23, minutes=59), timedelta(0), False),
        (NOW + timedelta(hours=2), timedelta(0), False),
        (NOW - timedelta(hours=23, minutes=58), timedelta(minutes=3), True),
        (NOW - DAY, timedelta(minutes=-3), False),
    ],
    ids=["a day", "younger", "of the future", "a day by the location's clock", "younger by the location's clock"],
)
def test_it_goes_once_it_is_a_day_old_by_the_clock_that_dated_it(wanted, locations, written, ahead, goes):
    locations[0].root.moment = written
    put(locations[0].root, OURS[0], b"half of it")
    session = session_of(wanted, locations)
    session.location_clocks["here"] = ahead
    retain(session)
    assert (keys_of(locations[0]) == set()) is goes


def test_the_youngest_part_of_a_copy_tells_its_age(wanted, locations):
    """A copy of many files may have begun long ago, and its run may be at work."""
    put(locations[0].root, f"shop/backups/{SHOP}/velero-backup.json.zst.age", b"x")
    locations[0].root.moment = NOW - timedelta(hours=1)
    put(locations[0].root, f"shop/backups/{SHOP}/{SHOP}.tar.gz.zst.age", b"x")
    retain(session_of(wanted, locations))
    assert len(keys_of(locations[0])) == 2


def test_nothing_goes_by_a_clock_that_cannot_be_trusted(wanted, locations):
    put(locations[0].root, OURS[0], b"half of it")
    session = session_of(wanted, locations)
    session.location_clocks["here"] = 2 * DAY
    retain(session)
    assert keys_of(locations[0]) == {OURS[0]}


def test_nothing_goes_without_the_lock(wanted, locations):
    class Lock:
        def require(self, location):
            raise RunInProgressError(f"another run holds {location}")

    put(locations[0].root, OURS[0], b"half of it")
    session = session_of(wanted, locations)
    session.lock = Lock()
    with pytest.raises(RunInProgressError):
        retain(session)
    assert keys_of(locations[0]) == {OURS[0]}


def test_a_record_that_came_meanwhile_saves_what_it_names(wanted, locations):
    put(locations[0].root, f"etcd/{BROKEN}.db.zst.age", b"bytes of etcd")
    session = session_of(wanted, locations)
    locations[0].root.delete(f"etcd/{BROKEN}.db.zst.age")
    add_backup(locations[0], BROKEN, age=30 * DAY)
    retain(session)
    assert keys_of(locations[0]) == {f"etcd/{BROKEN}.db.zst.age", f"etcd/{BROKEN}.json"}


class Locking(Clocked):
    """Holds everything, or cannot say."""

    def __init__(self, answer):
        super().__init__(NOW - 3 * DAY)
        self.answer = answer

    def locked_until(self, key):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [NOW + DAY, StoreUnavailableError("503"), StoreError("no permission")])
def test_what_a_lock_holds_or_may_hold_stays(answer):
    wanted = policy("here", retention=RetentionPolicy(last=1))
    locations = locations_of(wanted, {"here": Locking(answer)})
    put(locations[0].root, OURS[0], b"half of it")
    for age in (1, 2):
        add_backup(locations[0], f"etcd-{age:03d}", age=age * DAY)
    before = keys_of(locations[0])
    session = session_of(wanted, locations)
    [planned] = plan_retention_of(session)
    assert [each.removed for each in planned.leftovers] == [False]
    assert planned.plan.removed == (), "nor is a backup removed that a lock may hold"
    retain(session)
    assert (keys_of(locations[0]), removed(session)) == (before, [])


def test_a_lock_that_has_ended_holds_nothing():
    wanted = policy("here", retention=RetentionPolicy(last=1))
    locations = locations_of(wanted, {"here": Locking(NOW - DAY)})
    put(locations[0].root, OURS[0], b"half of it")
    retain(session_of(wanted, locations))
    assert keys_of(locations[0]) == set()


# ---- killed at any moment ----------------------------------------------------------------------------------


def new_encryption():
    identity = pyrage.x25519.Identity.generate()
    return Encryption(recipients=(str(identity.to_public()),), identities=(str(identity),))


OLD, NEW = new_encryption(), new_encryption()


def save(session, locations):
    back_up(session.policy.sources[0], session)


def copy_what_is_missing(session, locations):
    replicate_missing(session)


def copy_a_velero_backup(session, locations):
    bucket = MemoryStore()
    for name in ("velero-backup.json", f"{SHOP}.tar.gz"):
        put(bucket, f"backups/{SHOP}/{name}", b"x" * 100)
    replicas = ReplicatedStore({location.name: location.of_source("shop") for location in locations})
    _copy_velero(_Copied(name=SHOP, source="shop", created=NOW), SHOP_SOURCE, session, replicas, bucket, {})


def remove_the_old_ones(session, locations):
    session.policy = session.policy.model_copy(update={"retention": RetentionPolicy(last=1)})
    retain(session)


@pytest.mark.parametrize("work", [save, copy_what_is_missing, copy_a_velero_backup, remove_the_old_ones])
@pytest.mark.parametrize("moment", range(12))
def test_a_day_after_a_kill_there_is_nothing_that_no_record_names(wanted, monkeypatch, work, moment):
    monkeypatch.setattr(backup, "EtcdSnapshotter", Saving)
    monkeypatch.setattr(backup, "connect_etcd", lambda *_, **__: nullcontext())
    monkeypatch.setattr(backup, "can_decrypt", lambda *_: False)
    locations = locations_of(wanted, {name: Mortal() for name in ("here", "there")})
    for location in locations if work is remove_the_old_ones else locations[:1]:
        for days in (2, 3):
            add_backup(location, f"etcd-202605{30 - days}T020000Z", age=days * DAY)
    foreign = {"etcd/notes.txt", "shop/backups/mine/velero-backup.json"}
    for key in foreign:
        put(locations[1].root, key, b"somebody's")
    session = session_of(wanted, locations)
    locations[1].root.left = moment
    with suppress(Killed):
        work(session, locations)
    locations[1].root.left = None

    later = session_of(wanted, locations, now=max(NOW, locations[1].root._now()) + 2 * DAY, trust_clock=True)
    retain(later)
    for location in locations:
        catalog = location.catalog()
        assert catalog.leftovers == ()
        named = {f"{entry.source}/{entry.name}.json" for entry in catalog.entries.values()}
        bytes_of = {key for key in keys_of(location) if key not in named | foreign and not key.startswith(".")}
        assert {backup_of_key(key.partition("/")[0], key.partition("/")[2]) for key in bytes_of} == {
            entry.name for entry in catalog.entries.values()
        }
    assert foreign <= keys_of(locations[1])


@pytest.mark.parametrize("moment", range(10))
def test_a_day_after_a_killed_rotation_each_backup_has_one_object(moment):
    root = Mortal()
    data, encrypted = b"bytes of etcd", EncryptedStore(PrefixedStore(root, "etcd"), OLD)
    for name in (SOUND, f"{SOUND}-0a1b2c"):
        add_backup(locations_of(policy("here"), {"here": root})[0], name, data=data)
        root.delete(f"etcd/{name}.db.zst.age")
        put(encrypted, f"{name}.db", data)
    root.moments.clear()
    root.left = moment
    with suppress(Killed):
        reencrypt_copy(root, "etcd", SOUND, old=OLD, new=NEW)
    root.left = None
    [location] = locations = locations_of(policy("here"), {"here": root})
    retain(session_of(policy("here"), locations, now=root._now() + 2 * DAY, trust_clock=True))
    assert len([key for key in keys_of(location) if key.startswith(f"etcd/{SOUND}.db") or "~" in key]) == 1
    assert f"etcd/{SOUND}-0a1b2c.db.zst.age" in keys_of(location)


# ---- who is told -------------------------------------------------------------------------------------------


def test_a_dry_run_lists_what_goes_and_what_is_too_young(wanted, locations):
    put(locations[0].root, OURS[0], b"half of it")
    locations[0].root.moment = NOW
    put(locations[0].root, OURS[3], b"half of it")
    [planned] = [
        each
        for each in plan_retention_of(session_of(wanted, locations))
        if (each.source, each.location.name) == ("etcd", "here")
    ]
    assert [(each.leftover.name, each.removed) for each in planned.leftovers] == [
        (f"{BROKEN}-0a1b2c", False),
        (BROKEN, True),
    ]
    console = console_on(io.StringIO())
    show_retention(console, [planned])
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["keep", f"{BROKEN}-0a1b2c"] in [line[:2] for line in lines]
    assert ["remove", BROKEN] in [line[:2] for line in lines]


def test_a_save_that_fails_and_cannot_be_undone_tells_why_it_failed(tmp_path):
    """What is left of it is found by a later run."""
    from clusterguard.etcd import EtcdSnapshotter

    store = LocalStore(tmp_path)
    store.delete = lambda _: raising(StoreError("no permission to delete"))
    with pytest.raises(StoreUnavailableError, match="503"), EtcdSnapshotter(store=store)._removed_on_failure("a.db"):
        raise StoreUnavailableError("503")


def test_whoever_is_overtaken_removes_no_further_object_of_one(wanted, locations):
    for suffix in (".db.zst", ".db.zst.age"):
        put(locations[0].root, f"etcd/{BROKEN}{suffix}", b"half")
    session = session_of(wanted, locations)
    session.lock = LostInTheMiddle(looks=1)
    with pytest.raises(RunInProgressError):
        retain(session)
    assert len(keys_of(locations[0], "etcd/")) == 1
