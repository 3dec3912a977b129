"""Earlier runs of drills, as a folder of evidence tells of them."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.evidence.history import (
    LEAST_RUNS,
    MOST_RUNS,
    EarlierRun,
    earlier_runs,
    latest_runs,
    results_in,
    trend_of,
)
from clusterguard.stores import MemoryStore

START = datetime(2030, 1, 1, tzinfo=UTC)
EMBEDDED = {"main": "embedded"}


def result(number, **changed):
    return {
        "drill": "small",
        "runId": f"{number:08x}",
        "verdict": "PASS",
        "started": (START + timedelta(days=number)).isoformat(),
        "rtoSeconds": {"total": 10.0 + number, "provision": 0, "restore": 10, "verify": number},
        "rpoSeconds": None,
        "providers": EMBEDDED,
        "reason": "what this reader does not know is no fault",
        **changed,
    }


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def keep(store):
    def keep(document, folder=None):
        key = f"{folder or 'small-' + document['runId']}/result.json"
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        with store.put(key) as writer:
            writer.write(data)

    return keep


def times(store, **options):
    return [run.rto for run in earlier_runs(store, "small", providers=EMBEDDED, **options)]


def test_the_last_ten_count_in_the_order_in_which_they_began(store, keep):
    for number in (*range(5, 12), *range(5)):
        keep(result(number))
    assert times(store) == [10.0 + number for number in range(2, 12)]
    assert len(times(store)) == MOST_RUNS


@pytest.mark.parametrize(
    "changed",
    [
        {"verdict": "FAIL"},
        {"verdict": "ERROR", "rtoSeconds": None},
        {"rtoSeconds": None},
        {"rtoSeconds": {"total": "soon"}},
        {"rtoSeconds": {"total": -1}},
        {"drill": "small[k8s=1.36]"},
        {"providers": {"main": "kind"}},
        {"started": "yesterday"},
        {"started": "2030-01-01T00:00:00"},
    ],
)
def test_what_does_not_compare_is_passed_over(store, keep, changed):
    keep(result(1))
    keep(result(2, **changed))
    assert times(store) == [11.0]


def test_gaps_and_files_of_others_are_passed_over(store, keep):
    keep(result(1))
    for number, data in enumerate((b"", b"{", b"[]", b"null", b"{}", json.dumps(result(9)).encode()[:-1])):
        keep(data, folder=f"small-0000000{number + 2}")
    keep(result(3), folder="small-cat")
    keep(result(4, drill="small-cat"), folder="small-cat-00000004")
    for key in ("notes.txt", "small-0000000a/drill.yaml", "small-0000000b/deep/result.json"):
        with store.put(key) as writer:
            writer.write(b"other people's")
    assert times(store) == [11.0]
    assert sorted(prefix for prefix, _ in results_in(store)) == ["small-00000001/", "small-cat-00000004/"]


def run(seconds):
    return EarlierRun(
        drill="small", run_id="00000000", verdict="PASS", started=START, recovery=type("R", (), {"total": seconds})()
    )


def test_a_drill_that_got_slower_is_told_from_one_that_did_not():
    earlier = [run(seconds) for seconds in (9, 10, 10, 11, 60)]
    assert trend_of(14.0, earlier, slower_than=1.4).slower is False
    assert trend_of(14.1, earlier, slower_than=1.4).slower is True
    assert trend_of(14.1, earlier).slower is False
    assert trend_of(14.1, earlier).to_dict() == {
        "runs": 5, "medianSeconds": 10, "ratio": 1.41, "slowerThan": None, "slower": False,
    }  # fmt: skip


def test_too_few_runs_judge_nothing():
    trend = trend_of(1000.0, [run(1)] * (LEAST_RUNS - 1), slower_than=1.4)
    assert (trend.runs, trend.median_seconds, trend.slower) == (LEAST_RUNS - 1, None, False)


@given(st.lists(st.floats(0.1, 1e6), min_size=LEAST_RUNS, max_size=30), st.floats(1.01, 10))
def test_as_fast_as_ever_is_never_slower_and_slower_than_all_always_is(earlier, factor):
    runs = [run(seconds) for seconds in earlier]
    last = earlier[-MOST_RUNS:]
    assert not trend_of(min(last), runs, slower_than=factor).slower
    assert trend_of(max(last) * factor * 1.001, runs, slower_than=factor).slower


def test_the_last_run_of_each_drill_stands_beside_those_before_it(store, keep):
    for number in range(6):
        keep(result(number))
    keep(result(9, verdict="ERROR", rtoSeconds=None), folder="small-00000009")
    keep(result(8, drill="other"), folder="other-00000008")
    small = latest_runs(store)[1]
    assert [each.drill for each in latest_runs(store)] == ["other", "small"]
    assert (small.verdict, small.rto, small.median) == ("ERROR", None, None)
    store.delete("small-00000009/result.json")
    small = latest_runs(store)[1]
    assert (small.verdict, small.rto, small.median, small.ratio) == ("PASS", 15.0, 12.0, 1.25)
