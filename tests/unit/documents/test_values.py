"""The small languages that documents share."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.documents import values


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=30)))
def test_a_duration_reads_what_it_writes(duration):
    assert values.read_duration(values.duration_text(duration)) == duration


def test_what_is_no_duration_is_refused():
    for written, said in [
        (90, "`90` has no unit; write it like 90s"),
        ("90", "is not a duration"),
        ("0s", "is not longer than zero"),
        ("0.0001ms", "is not longer than zero"),
        ("9" * 400 + "h", "longer than can be waited for"),
        (True, "a duration is expected"),
        (None, "a duration is expected"),
    ]:
        with pytest.raises(ValueError, match=said):
            values.read_duration(written)
            pytest.fail(f"{written!r} is taken")


def test_no_time_is_a_duration_only_where_it_makes_sense():
    assert values.read_duration("0s", zero=True) == timedelta()


def test_label_selectors_are_taken():
    for selector in [
        "app=web",
        "app==web,tier!=cache",
        "env in (test, live),!canary",
        "app",
        "example.com/part = x",
        "a notin ()",
        "a=",
    ]:
        assert values.check_selector(selector) == selector


def test_slips_in_label_selectors_are_refused():
    for selector in ["", "app=web,", "app = a b", "env in test", "-a=b", "app=>1", "a=" + "b" * 64]:
        with pytest.raises(ValueError, match="invalid label selector"):
            values.check_selector(selector)
            pytest.fail(f"{selector!r} is taken")


def test_cron_schedules_are_taken():
    for schedule in ["0 4 * * 1", "*/5 0-6 1,15 JAN-MAR MON"]:
        assert values.check_cron(schedule) == schedule


def test_what_is_no_cron_schedule_is_refused():
    for schedule in ["0 4 * *", "daily", "0 4 * * 1 2", "0 4 * * ,"]:
        with pytest.raises(ValueError, match="invalid schedule"):
            values.check_cron(schedule)
            pytest.fail(f"{schedule!r} is taken")
