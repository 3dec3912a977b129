"""Which backups count: nothing that failed, is partial, expired, too old, or out of reach protects anything."""

import pytest
from coverage_objects import NOW, TAKEN, backup, files, hours, location, schedule

from clusterguard.coverage.sources import VeleroSeen, etcd_sources, read_cron, too_old, velero_sources
from clusterguard.policies.policy import EtcdSource, Location, Policy, Schedule, Source, VeleroSource
from clusterguard.policies.watching.verdict import PolicyStatus, SourceStatus

NIGHTLY_BY_VELERO, AVAILABLE = schedule(), location()


def judged(*backups, schedules=(NIGHTLY_BY_VELERO,), locations=(AVAILABLE,), policies=(), max_age=None, **more):
    seen = VeleroSeen(backups=backups, schedules=schedules, locations=locations, **more)
    sources, refused = velero_sources(seen, policies, now=NOW, max_age=max_age)
    return [(each.name, each.backup) for each in sources], {each.name: each.code for each in refused}


def test_the_newest_completed_backup_of_a_schedule_counts():
    counted, refused = judged(backup("nightly-0", started=TAKEN - hours(24)), backup("nightly-1"))
    assert (counted, refused) == ([("schedule nightly", "nightly-1")], {})


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"phase": "Failed"}, "backup-failed"),
        ({"phase": "PartiallyFailed"}, "backup-partial"),
        ({"phase": "FailedValidation"}, "backup-invalid"),
        ({"phase": "Deleting"}, "backup-deleting"),
        ({"phase": "InProgress"}, "backup-unfinished"),
        ({"phase": "SomethingNew"}, "backup-unfinished"),
        ({"errors": 1}, "backup-partial"),
        ({"backupItemOperationsFailed": 1}, "backup-partial"),
        ({"expiration": "2030-01-02T11:59:00Z"}, "backup-expired"),
        ({"started": TAKEN - hours(24)}, "too-old"),
        ({"started": NOW + hours(1)}, "too-old"),
        ({"spec": {"storageLocation": "gone"}}, "location-unavailable"),
        ({"spec": {"includedNewThings": ["x"]}}, "filters-unknown"),
        ({"spec": {"labelSelector": {"matchLabels": "not a mapping"}}}, "filters-unknown"),
        ({"spec": {"resourcePolicy": {"kind": "configmap", "name": "rules"}}}, "filters-unknown"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_backup_that_is_not_whole_protects_nothing(wrong, code):
    counted, refused = judged(backup(**wrong))
    assert (counted, list(refused.values())) == ([], [code])


@pytest.mark.parametrize("phase", ["Unavailable", "New"])
def test_a_location_that_cannot_be_used_gives_nothing_back(phase):
    assert judged(backup(), locations=[location(phase=phase)])[0] == []


def test_rules_for_volumes_alone_leave_no_object_out():
    made = backup(spec={"resourcePolicy": {"kind": "configmap", "name": "rules"}})
    assert judged(made, rules={"rules": ["version", "volumePolicies"]})[0]
    assert not judged(made, rules={"rules": ["version", "includeExcludePolicy"]})[0]
    assert not judged(made, rules={"rules": None})[0]


def test_a_schedule_without_backups_is_told():
    assert judged() == ([], {"schedule nightly": "schedule-without-backups"})


def test_the_night_before_is_not_taken_for_a_failed_last_night():
    counted, refused = judged(backup("nightly-0", started=TAKEN - hours(24)), backup(phase="Failed"))
    assert counted == []
    assert set(refused.values()) == {"backup-failed", "too-old"}


def test_a_greater_age_that_is_allowed_takes_it_and_still_tells_the_failure():
    failed = backup(phase="Failed")
    counted, refused = judged(backup("nightly-0", started=TAKEN - hours(24)), failed, max_age=hours(48))
    assert counted == [("schedule nightly", "nightly-0")]
    assert list(refused.values()) == ["backup-failed"]


def test_a_smaller_age_that_is_allowed_refuses_what_the_schedule_allows():
    assert judged(backup(), max_age=hours(10))[0]
    assert not judged(backup(), max_age=hours(9))[0]


def test_while_the_next_one_is_being_made_the_one_before_counts():
    last = backup("nightly-0", started=TAKEN - hours(24))
    assert judged(last, backup(phase="InProgress"))[0] == [("schedule nightly", "nightly-0")]


def test_one_that_is_being_made_since_yesterday_is_no_excuse():
    last = backup("nightly-0", started=TAKEN - hours(48))
    assert judged(last, backup(phase="InProgress", started=TAKEN - hours(24)))[0] == []


def test_a_schedule_that_cannot_be_read_needs_an_age():
    odd = schedule(cron="every now and then")
    assert judged(backup(), schedules=[odd]) == ([], {"schedule nightly: nightly-1": "schedule-unreadable"})
    assert judged(backup(), schedules=[odd], max_age=hours(24))[0]


@pytest.mark.parametrize(("age", "counts"), [(23, True), (25, False)])
def test_a_backup_of_no_schedule_counts_for_a_day(age, counts):
    made = backup("by-hand", schedule="", started=NOW - hours(age))
    assert bool(judged(made, schedules=[])[0]) is counts


def test_backups_of_a_schedule_that_is_gone_are_of_none():
    counted, _ = judged(backup(), schedules=[])
    assert counted == [("backup nightly-1", "nightly-1")]


def test_what_was_copied_and_counted_goes_with_the_backup():
    made = backup(csiVolumeSnapshotsAttempted=2, csiVolumeSnapshotsCompleted=1)
    seen = VeleroSeen(
        backups=[made], schedules=[schedule()], locations=[location()], transfers={"nightly-1": (files(),)}
    )
    [source] = velero_sources(seen, now=NOW)[0]
    assert (source.snapshots, len(source.transfers), source.engine) == ((1 + 1, 1), 1, "velero")


# ---- how old is too old --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "fresh", "old"),
    [
        ("0 2 * * *", 10, 34),
        ("CRON_TZ=Europe/Berlin 0 2 * * *", 11, 35),
        ("@daily", 12, 36),
        ("@midnight", 12, 36),
        ("@hourly", 1, 3),
        ("@weekly", 84, 252),
        ("@every 6h", 6, 8),
        ("@every 1h30m", 2, 3),
    ],
)
def test_a_schedule_says_how_old_is_too_old(cron, fresh, old):
    when = read_cron(cron)
    assert not too_old(NOW - hours(fresh), when, now=NOW, max_age=None)
    assert too_old(NOW - hours(old), when, now=NOW, max_age=None)


@pytest.mark.parametrize("cron", ["", "@never", "@every x", "@every 0s", "1 2 3", "TZ=Nowhere/At 0 2 * * *"])
def test_a_schedule_that_cannot_be_read_is_none(cron):
    assert read_cron(cron) is None


# ---- policies ------------------------------------------------------------------------------------------------


def policy(schedule=None):
    etcd = Source(name="etcd", etcd=EtcdSource(cluster="context:prod"))
    velero = Source(name="shop", velero=VeleroSource(cluster="context:prod", bucket="s3://b/p"))
    where = (Location(name="a", url="file:///backups"),)
    return Policy(name="prod", sources=(etcd, velero), locations=where, schedule=schedule)


def snapshots(restorable_at, schedule=None, max_age=None):
    status = SourceStatus(
        name="etcd", required_copies=1, restorable="etcd-1" if restorable_at else "", restorable_at=restorable_at
    )
    found = PolicyStatus(policy="prod", at=NOW, sources=(status,), locations=(), proofs=(), reasons=())
    sources, refused = etcd_sources([(policy(schedule), found)], now=NOW, max_age=max_age)
    return [each.backup for each in sources], [each.code for each in refused]


NIGHTLY = Schedule(cron="0 2 * * *")


def test_a_snapshot_that_was_read_back_and_is_recent_counts():
    assert snapshots(TAKEN, NIGHTLY) == (["etcd-1"], [])


@pytest.mark.parametrize(
    ("at", "code"), [(None, "no-backups"), (TAKEN - hours(24), "too-old"), (NOW + hours(1), "too-old")]
)
def test_a_snapshot_that_is_not_there_or_too_old_does_not(at, code):
    assert snapshots(at, NIGHTLY) == ([], [code])


def test_without_a_schedule_a_snapshot_counts_for_a_day_or_as_long_as_is_said():
    assert snapshots(NOW - hours(23))[0]
    assert not snapshots(NOW - hours(25))[0]
    assert snapshots(NOW - hours(25), max_age=hours(26))[0]


def test_backups_that_a_policy_has_velero_make_go_by_its_schedule():
    made = backup("shop-20300101t020000z-0a1b2c", schedule="", started=NOW - hours(34))
    assert judged(made, schedules=[], policies=[policy(NIGHTLY)])[1] == {
        "policy prod/shop: shop-20300101t020000z-0a1b2c": "too-old"
    }
    fresh = backup("shop-20300102t020000z-0a1b2c", schedule="")
    counted, _ = judged(fresh, schedules=[], policies=[policy(NIGHTLY)])
    assert counted == [("policy prod/shop", "shop-20300102t020000z-0a1b2c")]
