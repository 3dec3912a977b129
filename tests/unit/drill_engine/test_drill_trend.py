"""A drill that gets slower than it was."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from signing_keys import KEY, OTHER

from clusterguard.drills.events import Note
from clusterguard.drills.verdict import Verdict
from clusterguard.errors import InvalidDrillError, StoreUnavailableError


@pytest.fixture
def faster(bundle):
    """Make bundles of earlier runs that took no time at all, so that this one is slower, whatever it takes."""

    def faster(number, key=None, seconds=1e-6, **changed):
        for index in range(number):
            path = bundle(key) / "result.json"
            result = json.loads(path.read_text())
            started = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=index)
            recovery = {"total": seconds, "provision": 0, "restore": 0, "verify": seconds}
            path.write_text(json.dumps(result | {"started": started.isoformat(), "rtoSeconds": recovery, **changed}))

    return faster


@pytest.fixture
def again(run, spec, tmp_path):
    """Run the drill once more with a promise."""

    def again(**settings):
        spec["objectives"] = {"slowerThan": "1.4x"}
        return run(spec, **{"evidence": tmp_path / "evidence"} | settings)

    return again


def test_a_drill_that_got_slower_fails(faster, again):
    faster(5)
    result = again()
    assert (result.verdict, result.code) == (Verdict.FAIL, "slower-than-before")
    assert (result.trend.runs, result.trend.slower) == (5, True)
    assert result.to_dict()["trend"]["slower"] is True


def test_a_drill_that_is_as_fast_as_before_passes(faster, again):
    faster(5, seconds=3600)
    result = again()
    assert (result.verdict, result.trend.runs, result.trend.slower) == (Verdict.PASS, 5, False)


def test_too_few_runs_are_told_and_do_not_fail(faster, again, events):
    faster(4)
    result = again()
    assert (result.verdict, result.trend.runs, result.trend.median_seconds) == (Verdict.PASS, 4, None)
    assert any(isinstance(event, Note) and "slowerThan" in event.text for event in events)


def test_without_evidence_nothing_is_judged_and_that_is_told(again, events):
    result = again(evidence=None)
    assert (result.verdict, result.trend.runs) == (Verdict.PASS, 0)
    assert any(isinstance(event, Note) and "slowerThan" in event.text for event in events)


def test_failed_runs_and_those_of_other_providers_do_not_count(faster, again):
    faster(3, verdict="FAIL")
    faster(3, providers={"main": "kind"})
    assert again().trend.runs == 0


def test_with_a_key_only_what_it_signed_counts(bundle, faster, again):
    faster(5)  # nobody signed these
    faster(5, KEY)  # and these are not what was signed
    for key in (KEY, KEY, OTHER):
        bundle(key)
    assert again(evidence_key=KEY).trend.runs == 2
    assert again(evidence_key=OTHER).trend.runs == 1


def test_a_history_that_cannot_be_read_is_an_error(again, monkeypatch):
    def unreachable(*_, **__):
        raise StoreUnavailableError("the bucket does not answer")

    monkeypatch.setattr("clusterguard.drills.phases.earlier_runs", unreachable)
    result = again()
    assert (result.verdict, result.code) == (Verdict.ERROR, "store-unavailable")


@pytest.mark.parametrize("written", ["1.4", 1.4, "1x", "0.5x", "x", "1.4 x", "1e3x", "infx", True])
def test_what_is_no_promise_is_refused(load, spec, written):
    spec["objectives"] = {"slowerThan": written}
    with pytest.raises(InvalidDrillError):
        load(spec)
