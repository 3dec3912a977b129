"""When a schedule is due, through all that clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.policies.policy import Schedule
from clusterguard.policies.schedule import changes_around, check_cron, due_times, next_due, previous_due

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def due_on(day, cron, zone):
    """Return the local times, with their offsets, that a schedule is due at on one local day."""
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    before = start.astimezone(UTC) - timedelta(seconds=1)
    found = []
    for moment in due_times(Schedule(cron=cron, time_zone=zone), after=before):
        local = moment.astimezone(ZoneInfo(zone))
        if local.date() != start.date():
            return found
        found.append(f"{local:%H:%M%z}")
    return found


@pytest.mark.parametrize(
    ("day", "zone", "expected"),
    [
        ("2026-03-28", BERLIN, ["02:30+0100"]),
        ("2026-03-29", BERLIN, ["03:00+0200"]),  # there is no 02:30: right after the gap
        ("2026-03-30", BERLIN, ["02:30+0200"]),
        ("2026-10-24", BERLIN, ["02:30+0200"]),
        ("2026-10-25", BERLIN, ["02:30+0200"]),  # 02:30 comes twice: the first time
        ("2026-10-26", BERLIN, ["02:30+0100"]),
        ("2026-03-08", NEW_YORK, ["03:00-0400"]),
        ("2026-11-01", NEW_YORK, ["02:30-0500"]),  # 01:00 to 02:00 comes twice there
        ("2026-10-04", LORD_HOWE, ["02:30+1100"]),  # clocks go forward by half an hour, to this very time
        ("2026-04-05", LORD_HOWE, ["02:30+1030"]),
        ("2026-03-29", "UTC", ["02:30+0000"]),
    ],
)
def test_a_nightly_job_runs_once_every_night(day, zone, expected):
    assert due_on(day, "30 2 * * *", zone) == expected


@pytest.mark.parametrize(
    ("day", "zone", "cron", "expected"),
    [
        ("2026-11-01", NEW_YORK, "30 1 * * *", ["01:30-0400"]),
        ("2026-04-05", LORD_HOWE, "45 1 * * *", ["01:45+1100"]),
        ("2026-10-04", LORD_HOWE, "15 2 * * *", ["02:30+1100"]),
        ("2026-03-29", BERLIN, "0,30 2,3 * * *", ["03:00+0200", "03:30+0200"]),  # four times in two
    ],
)
def test_a_job_in_the_hour_of_the_change_runs_once(day, zone, cron, expected):
    assert due_on(day, cron, zone) == expected


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
@pytest.mark.parametrize("minute", [0, 30])
def test_an_hourly_job_runs_once_an_hour_of_real_time(day, hours, minute):
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)
    schedule = Schedule(cron=f"{minute} * * * *", time_zone=BERLIN)

    found = list(islice(due_times(schedule, after=start - timedelta(seconds=1)), hours))

    assert len(due_on(day, schedule.cron, BERLIN)) == hours
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}


def test_a_job_every_two_hours_goes_by_the_wall_clock_where_clocks_move_by_half_an_hour():
    assert due_on("2026-04-05", "0 */2 * * *", LORD_HOWE)[:3] == ["00:00+1100", "02:00+1030", "04:00+1030"]


def test_both_passes_of_a_repeated_hour_are_told_in_their_order():
    assert due_on("2026-10-25", "*/30 2 * * *", BERLIN) == ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]


def test_a_moment_in_the_second_pass_is_followed_by_what_comes_after_it():
    second_pass = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time

    assert next_due(Schedule(cron="30 2 * * *", time_zone=BERLIN), after=second_pass) == datetime(
        2026, 10, 26, 1, 30, tzinfo=UTC
    )
    assert next_due(Schedule(cron="*/30 * * * *", time_zone=BERLIN), after=second_pass) == datetime(
        2026, 10, 25, 1, 30, tzinfo=UTC
    )


def test_a_day_that_there_never_was_moves_its_job_to_the_next_one():
    assert due_on("2011-12-31", "0 12 * * *", "Pacific/Apia") == ["00:00+1400", "12:00+1400"]


def test_the_29th_of_february_is_found_across_a_century():
    schedule = Schedule(cron="0 0 29 2 *")

    assert next_due(schedule, after=datetime(2096, 3, 1, tzinfo=UTC)) == datetime(2104, 2, 29, tzinfo=UTC)
    assert previous_due(schedule, at=datetime(2104, 2, 28, tzinfo=UTC)) == datetime(2096, 2, 29, tzinfo=UTC)


def test_due_is_strictly_after_and_at_most_at():
    schedule, moment = Schedule(cron="0 * * * *"), datetime(2026, 1, 1, tzinfo=UTC)

    assert next_due(schedule, after=moment) == moment + timedelta(hours=1)
    assert previous_due(schedule, at=moment) == moment
    assert previous_due(schedule, at=moment - timedelta(microseconds=1)) == moment - timedelta(hours=1)
    assert next_due(schedule, after=moment - timedelta(microseconds=1)) == moment


def test_a_moment_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="has no time zone"):
        next_due(Schedule(cron="0 * * * *"), after=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


CRONS = st.sampled_from([
    "0 * * * *", "30 * * * *", "*/15 * * * *", "30 2 * * *", "0 */2 * * *", "15,45 1-3 * * *", "*/20 2 * * *",
    "0 0 1 * *", "59 23 * * SUN", "30 2 * 3,10 0",
])  # fmt: skip
ZONES = st.sampled_from(["UTC", BERLIN, NEW_YORK, LORD_HOWE, "Asia/Kathmandu", "Africa/Casablanca", "Pacific/Apia"])
MOMENTS = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is beside it
NEAR_CHANGES = st.sampled_from(
    [datetime(2026, 3, 29, 1), datetime(2026, 10, 25, 1), datetime(2026, 4, 4, 15), datetime(2026, 10, 3, 15, 30)]  # noqa: DTZ001 - replaced below
).flatmap(lambda change: st.integers(-10_800, 10_800).map(lambda s: change.replace(tzinfo=UTC) + timedelta(seconds=s)))


@given(CRONS, ZONES, MOMENTS | NEAR_CHANGES)
def test_due_times_increase_and_looking_back_finds_the_same(cron, zone, moment):
    schedule = Schedule(cron=cron, time_zone=zone)

    found = list(islice(due_times(schedule, after=moment), 12))

    assert all(earlier < later for earlier, later in pairwise([moment, *found]))
    assert [previous_due(schedule, at=each) for each in found] == found
    assert [next_due(schedule, after=each) for each in found[:-1]] == found[1:]
    assert previous_due(schedule, at=moment) <= moment


@given(CRONS, ZONES, NEAR_CHANGES, st.integers(0, 7200))
def test_due_times_do_not_depend_on_where_one_begins_to_look(cron, zone, moment, seconds):
    schedule = Schedule(cron=cron, time_zone=zone)
    later = moment + timedelta(seconds=seconds)

    from_earlier = list(islice((each for each in due_times(schedule, after=moment) if each > later), 4))

    assert from_earlier == list(islice(due_times(schedule, after=later), 4))


TAKEN = [
    *("30 2 * * *", "*/5 0-6 1,15 JAN-MAR MON", "0 0 29 2 *", "0 0 31 * *", "0 0 31 2 1"),
    *("0 3 */2 * *", "0 3 * * */2", "0 3 */1 * 1", "0 3 1,15 * 0"),
]


def test_what_every_scheduler_takes_is_taken():
    assert [check_cron(cron) for cron in TAKEN] == TAKEN


REFUSED = [
    ("0 0 30 2 *", "is never due"),
    ("0 0 31 4,6,9,11 *", "is never due"),
    ("0 0 0 * *", "invalid day-of-month"),
    ("60 * * * *", "invalid minute"),
    ("0 6-2 * * *", "invalid hour"),
    ("0 0 * 13 *", "invalid month"),
    ("0 0 * * MOO", "invalid day-of-week"),
    ("0 0 * * 5L", "not a day-of-week that both cron and Kubernetes take"),
    ("0 0 * * 1#2", "not a day-of-week that both"),
    ("0 0 * * 5-7", "Sunday is 0 or SUN"),
    ("*/0 * * * *", "invalid minute"),
    ("0 3 */2 * 1", "different days"),
    ("0 3 1 * */2", "different days"),
    ("0 3 */2 * */2", "different days"),
    ("0 0 0 * * *", "five fields"),
    ("@daily", "five fields"),
]


def test_what_only_some_schedulers_take_is_refused():
    for cron, said in REFUSED:
        with pytest.raises(ValueError, match=said):
            check_cron(cron)


def test_times_in_the_hour_of_the_change_are_told():
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def changes(cron, zone):
        return [f"{each:%m-%d %H:%M}" for each in changes_around(Schedule(cron=cron, time_zone=zone), after=now)]

    assert changes("30 2 * * *", BERLIN) == ["03-29 02:30", "10-25 02:30"]
    assert changes("30 1 * * *", NEW_YORK) == ["11-01 01:30"]
    assert changes("30 3 * * *", BERLIN) == []
    assert changes("30 2 * * *", "UTC") == []
    assert changes("30 * * * *", BERLIN) == []
