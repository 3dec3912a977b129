"""Which backups stay: rules keep, limits remove, and guards have the last word."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.policies.policy import RetentionPolicy
from clusterguard.policies.retention import StoredBackup, plan_retention

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def backup(name, created, **more):
    return StoredBackup(name=name, created=created, **more)


def hours_ago(number, **more):
    return backup(f"h{number:04d}", NOW - timedelta(hours=number), **more)


def days_ago(number, **more):
    return backup(f"d{number:04d}", NOW - timedelta(days=number), **more)


def plan(backups, zone=UTC, **policy):
    return plan_retention(backups, RetentionPolicy(**policy), now=NOW, zone=zone)


def kept(backups, zone=UTC, **policy):
    return [each.name for each in plan(backups, zone, **policy).kept]


def reasons(decided):
    return {each.backup.name: each.reasons for each in decided.decisions}


# ---- rules -------------------------------------------------------------------------------------------------


def test_without_a_rule_everything_stays():
    assert len(kept([days_ago(number) for number in range(9)])) == 9


def test_the_last_ones_stay():
    assert kept([hours_ago(number) for number in (3, 1, 2, 0)], last=2) == ["h0000", "h0001"]


def test_the_newest_of_each_day_stays():
    backups = [hours_ago(number) for number in (0, 6, 13, 20, 30, 40, 60)]
    assert kept(backups, daily=3) == ["h0000", "h0013", "h0040"]


def test_a_day_without_a_backup_uses_up_none():
    assert kept([days_ago(number) for number in (0, 1, 9, 30)], daily=3) == ["d0000", "d0001", "d0009"]


def test_rules_add_up_and_each_is_told():
    backups = [days_ago(number) for number in range(90)]
    decided = plan(backups, last=1, daily=3, weekly=2, monthly=3, yearly=2)
    assert [each.name for each in decided.kept] == ["d0000", "d0001", "d0002", "d0031", "d0059"]
    assert reasons(decided)["d0000"][1:] == (
        "last 1 of 1",
        "daily 1 of 3",
        "weekly 1 of 2",
        "monthly 1 of 3",
        "yearly 1 of 2",
    )
    assert reasons(decided)["d0031"] == ("monthly 2 of 3",)
    assert reasons(decided)["d0003"] == ("no rule keeps it",)


def test_weeks_begin_on_monday_and_belong_to_the_year_of_their_thursday():
    new_year = [backup(f"jan{day}", datetime(2027, 1, day, tzinfo=UTC)) for day in (1, 3, 4)]  # Friday, Sunday, Monday
    december = backup("dec31", datetime(2026, 12, 31, tzinfo=UTC))
    names = [each.name for each in plan_retention([*new_year, december], RetentionPolicy(weekly=5), now=NOW).kept]
    assert names == ["jan4", "jan3"]


def test_days_are_those_of_the_zone():
    late, early = (backup(f"at{hour}", datetime(2026, 3, 30, hour, tzinfo=UTC)) for hour in (21, 23))
    assert kept([late, early], daily=5) == ["at23"]
    assert kept([late, early], BERLIN, daily=5) == ["at23", "at21"]  # 23:00 on the 30th, and 01:00 on the 31st


def test_the_hour_that_comes_twice_when_clocks_go_back_is_two_hours():
    summer, winter = (backup(f"utc{hour}", datetime(2026, 10, 25, hour, 30, tzinfo=UTC)) for hour in (0, 1))
    assert summer.created.astimezone(BERLIN).hour == winter.created.astimezone(BERLIN).hour == 2
    assert kept([summer, winter], BERLIN, hourly=9) == ["utc1", "utc0"]


# ---- limits ------------------------------------------------------------------------------------------------


def test_what_is_too_old_goes_whatever_keeps_it():
    backups = [days_ago(number) for number in (0, 5, 20)]
    decided = plan(backups, monthly=12, last=9, maximum_age=timedelta(days=10))
    assert [each.name for each in decided.kept] == ["d0000", "d0005"]
    assert "older than 10 days" in reasons(decided)["d0020"][0]


def test_the_oldest_go_until_the_rest_fits():
    backups = [days_ago(number, size=40) for number in range(5)]
    decided = plan(backups, maximum_bytes=100)
    assert [each.name for each in decided.kept] == ["d0000", "d0001"]
    assert decided.freed_bytes == 120
    assert [each.name for each in decided.removed] == ["d0004", "d0003", "d0002"]  # oldest first


def test_a_small_old_one_does_not_outlive_a_newer_one():
    backups = [days_ago(0, size=50), days_ago(1, size=80), days_ago(2, size=1)]
    assert kept(backups, maximum_bytes=100) == ["d0000"]


# ---- guards ------------------------------------------------------------------------------------------------


def test_the_newest_verified_one_stays_though_it_is_old():
    backups = [days_ago(0), days_ago(1), days_ago(50, verified=True), days_ago(60, verified=True)]
    decided = plan(backups, last=1, maximum_age=timedelta(days=10), maximum_bytes=1)
    assert [each.name for each in decided.kept] == ["d0000", "d0050"]
    assert reasons(decided)["d0050"][0] == "it is the newest verified one"


def test_where_none_is_verified_the_newest_stays():
    decided = plan([days_ago(number, size=9) for number in (40, 50)], maximum_age=timedelta(days=1), maximum_bytes=1)
    assert [each.name for each in decided.kept] == ["d0040"]
    assert reasons(decided)["d0040"][0] == "it is the newest one, and none is verified"


def test_what_may_be_locked_stays_until_somebody_can_tell():
    decided = plan([days_ago(1), days_ago(2, lock_unknown=True), days_ago(3)], last=1)
    assert [each.name for each in decided.kept] == ["d0001", "d0002"]
    assert "could not be asked" in reasons(decided)["d0002"][0]


def test_what_is_damaged_uses_up_no_rule_and_stays_while_it_may_be_mended():
    damaged = days_ago(1, damaged=True)
    assert kept([damaged, days_ago(2), days_ago(3), days_ago(4)], last=2) == ["d0001", "d0002", "d0003"]
    assert kept([days_ago(0), damaged, days_ago(2), days_ago(3)], last=1) == ["d0000"]


def test_what_is_known_to_be_damaged_is_guarded_only_where_nothing_else_is_left():
    damaged = days_ago(40, damaged=True)
    assert kept([damaged, days_ago(50), days_ago(60)], maximum_age=timedelta(days=1)) == ["d0050"]
    assert kept([damaged, days_ago(50, damaged=True)], maximum_age=timedelta(days=1)) == ["d0040"]


def test_what_others_wrote_stays_and_uses_up_no_rule():
    backups = [days_ago(0, ours=False, verified=True), days_ago(1), days_ago(2), days_ago(99, ours=False)]
    decided = plan(backups, last=1, maximum_age=timedelta(days=30))
    assert [each.name for each in decided.kept] == ["d0000", "d0001", "d0099"]
    assert reasons(decided)["d0099"] == ("clusterguard did not write it",)


def test_what_is_locked_stays_until_it_is_not():
    locked = days_ago(50, locked_until=NOW + timedelta(seconds=1))
    backups = [days_ago(0), locked, days_ago(51, locked_until=NOW)]
    decided = plan(backups, last=1)
    assert [each.name for each in decided.kept] == ["d0000", "d0050"]
    assert "object lock" in reasons(decided)["d0050"][0]


# ---- what cannot be meant ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ({"daily": 0}, "every backup would be removed"),
        ({"last": 0, "weekly": 0}, "every backup would be removed"),
        ({"last": -1}, "greater than or equal to 0"),
        ({"maximum_age": timedelta(0)}, "would remove every backup"),
        ({"maximum_bytes": 0}, "must be at least 1"),
    ],
)
def test_a_policy_that_would_remove_everything_is_refused(policy, problem):
    with pytest.raises(ValueError, match=problem):
        RetentionPolicy(**policy)


def test_a_time_without_zone_and_a_name_that_comes_twice_are_refused():
    with pytest.raises(ValueError, match="no time zone"):
        plan([backup("a", datetime(2026, 1, 1))])  # noqa: DTZ001 - the point of the test
    with pytest.raises(ValueError, match="same name"):
        plan([days_ago(1), replace(days_ago(2), name="d0001")])


# ---- laws --------------------------------------------------------------------------------------------------

moments = st.datetimes(datetime(2023, 1, 1), datetime(2026, 3, 31), timezones=st.just(UTC))  # noqa: DTZ001 - has one
stored = st.builds(
    StoredBackup,
    name=st.uuids().map(str),
    created=moments,
    size=st.integers(0, 1000),
    verified=st.booleans(),
    ours=st.booleans(),
    locked_until=st.none() | moments.map(lambda moment: moment + timedelta(days=400)),
)
backups_of_a_store = st.lists(stored, max_size=40, unique_by=lambda each: each.name)
counts = st.none() | st.integers(1, 6)
policies = st.builds(
    RetentionPolicy,
    last=counts,
    hourly=counts,
    daily=counts,
    weekly=counts,
    monthly=counts,
    yearly=counts,
    maximum_age=st.none() | st.timedeltas(timedelta(hours=1), timedelta(days=900)),
    maximum_bytes=st.none() | st.integers(1, 20_000),
)


@given(backups_of_a_store, policies)
def test_every_backup_is_decided_once_and_with_a_reason(backups, policy):
    decided = plan_retention(backups, policy, now=NOW, zone=BERLIN).decisions
    assert sorted(each.backup.name for each in decided) == sorted(each.name for each in backups)
    assert all(each.reasons and all(each.reasons) for each in decided)


@given(backups_of_a_store, policies)
def test_guards_hold_whatever_the_policy_says(backups, policy):
    removed = plan_retention(backups, policy, now=NOW, zone=BERLIN).removed
    assert all(each.ours for each in removed)
    assert not any(each.locked_until and each.locked_until > NOW for each in removed)
    ours = [each for each in backups if each.ours]
    verified = [each for each in ours if each.verified]
    if ours:
        newest = max(each.created for each in verified or ours)
        assert any(each.created == newest for each in (verified or ours) if each not in removed)


@given(backups_of_a_store, policies)
def test_planning_again_removes_nothing_more(backups, policy):
    once = plan_retention(backups, policy, now=NOW, zone=BERLIN)
    assert plan_retention(once.kept, policy, now=NOW, zone=BERLIN).removed == ()


@given(backups_of_a_store, policies, st.randoms(use_true_random=False))
def test_the_order_in_which_a_store_lists_does_not_matter(backups, policy, chance):
    shuffled = list(backups)
    chance.shuffle(shuffled)
    assert plan_retention(shuffled, policy, now=NOW) == plan_retention(backups, policy, now=NOW)


@given(backups_of_a_store, st.integers(1, 50))
def test_the_last_n_are_kept_whatever_else(backups, number):
    ours = sorted((each for each in backups if each.ours), key=lambda each: (-each.created.timestamp(), each.name))
    names = {each.name for each in plan_retention(backups, RetentionPolicy(last=number), now=NOW).kept}
    assert {each.name for each in ours[:number]} <= names


def test_a_hundred_thousand_backups_are_planned():
    backups = [backup(f"b{number}", NOW - timedelta(minutes=number), size=10) for number in range(100_000)]
    policy = RetentionPolicy(last=10, hourly=48, daily=30, weekly=20, monthly=24, yearly=10, maximum_bytes=10_000)
    decided = plan_retention(backups, policy, now=NOW, zone=BERLIN)
    assert len(decided.decisions) == 100_000
