"""A whole run over real folders, without etcd: what is written down, and what is noticed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from policy_worlds import add_backup, policy

from clusterguard.errors import ConfigError, RunInProgressError, StoreUnavailableError
from clusterguard.model.catalog import RunRecord
from clusterguard.model.policy import Encryption, Location
from clusterguard.model.retention import RetentionPolicy
from clusterguard.policies.copies.places import open_places
from clusterguard.policies.runs.lock import Rhythm, locked
from clusterguard.policies.runs.run import PolicyRunner
from clusterguard.policies.watching.audit import AuditTrail

NOW = datetime(2026, 6, 1, 2, 0, tzinfo=UTC)


@pytest.fixture
def wanted(tmp_path):
    made = policy("here", "there", retention=RetentionPolicy(last=2))
    locations = tuple(Location(name=name, url=str(tmp_path / name)) for name in ("here", "there"))
    return type(made)(**{name: getattr(made, name) for name in made.__dataclass_fields__} | {"locations": locations})


@pytest.fixture
def runner(wanted):
    return PolicyRunner(policy=wanted, environ={"CLUSTERGUARD_ACTOR": "tester"}, now=lambda: NOW)


def fill(wanted, *ages):
    for place in open_places(wanted):
        for age in ages:
            add_backup(place, f"etcd-{age:03d}", age=timedelta(days=age))


def test_what_was_done_is_in_the_trail_and_the_catalog_of_every_location(wanted, runner):
    fill(wanted, 1)
    report = runner.run(["verify"])
    assert [step.verb for step in report.steps] == ["verify", "verify", "audit", "audit"]
    heads = set()
    for place in open_places(wanted):
        catalog = place.catalog()
        assert catalog.updated == NOW
        assert catalog.entries["etcd/etcd-001"].sound
        trail = AuditTrail(place.root)
        assert trail.verify(catalog.audit_head).ok
        heads.add(trail.head())
    assert len(heads) == 1, "the same was done, so the same is written"


def test_a_trail_that_was_cut_is_noticed_and_not_papered_over(wanted, runner, tmp_path):
    fill(wanted, 1, 2)
    runner.run(["verify"])
    known = open_places(wanted)[0].catalog().audit_head
    for segment in (tmp_path / "here" / "nightly" / ".clusterguard" / "audit").iterdir():
        segment.unlink()
    fill(wanted, 3)
    report = runner.run(["verify"])
    told = [step for step in report.steps if step.verb == "audit" and step.location == "here"]
    assert [step.outcome for step in told] == ["failed"]
    assert "lacks its last known line" in told[0].detail
    assert open_places(wanted)[0].catalog().audit_head == known, "the evidence stays"
    assert report.outcome == "failed"


def test_a_run_in_which_nothing_is_due_writes_no_trail(wanted, runner, tmp_path):
    report = runner.run(["verify", "prove"])
    assert report.steps == ()
    assert report.outcome == "ok"
    assert not (tmp_path / "here" / "nightly" / ".clusterguard" / "audit").exists()


def test_retention_is_planned_without_a_change(wanted, runner):
    fill(wanted, 1, 2, 3)
    plans = runner.planned_retention()
    assert [(each.place.name, [gone.name for gone in each.plan.removed]) for each in plans] == [
        ("here", ["etcd-003"]),
        ("there", ["etcd-003"]),
    ]
    assert len(open_places(wanted)[0].catalog().entries) == 3


def test_who_only_removes_needs_no_key(wanted, runner):
    fill(wanted, 1, 2, 3)
    sealed = replace(wanted, encryption=Encryption(recipients_file="/nowhere/recipients.txt"))
    keyless = replace(runner, policy=sealed, trust_clock=True)
    assert len(keyless.planned_retention()) == 2
    assert [step.outcome for step in keyless.run(["retain"]).steps if step.verb == "delete"] == ["ok", "ok"]
    with pytest.raises(ConfigError, match="recipients"):
        keyless.run(["verify", "retain"])


def test_a_run_beside_another_one_does_nothing(wanted, runner, monkeypatch):
    told = []
    monkeypatch.setattr("clusterguard.policies.runs.run.notify", lambda *_, **__: told.append("failed") or ())
    fill(wanted, 1)
    other = locked(open_places(wanted), run="other", rhythm=Rhythm(beat_seconds=0.05))
    with other, pytest.raises(RunInProgressError, match="run other"):
        runner.run(["verify"])
    assert told == [], "the other run tells what comes of it"
    assert not open_places(wanted)[0].catalog().entries["etcd/etcd-001"].sound


def test_a_failure_that_nobody_expected_is_told_before_it_is_raised(wanted, runner, monkeypatch):
    told = []
    monkeypatch.setattr("clusterguard.policies.runs.run.verify_due", lambda _: 1 / 0)
    monkeypatch.setattr("clusterguard.policies.runs.run.notify", lambda _, report, **__: told.append(report) or ())
    with pytest.raises(ZeroDivisionError):
        runner.run(["verify"])
    assert told[0].outcome == "failed"
    assert "ZeroDivisionError" in told[0].steps[-1].detail
    with locked(open_places(wanted), run="next"):
        pass


def test_a_source_that_failed_and_is_backed_up_again_has_recovered(wanted, runner, monkeypatch):
    for place in open_places(wanted):
        catalog = place.catalog()
        failed = RunRecord(source="etcd", run="earlier", at=NOW - timedelta(days=1), outcome="failed")
        place.save_catalog(type(catalog)(policy="nightly", location=place.name, runs={"etcd": failed}), now=NOW)

    def back_up(source, session):
        with session.step("backup", source=source.name, backup="etcd-new") as task:
            task.detail = "made"

    monkeypatch.setattr("clusterguard.policies.runs.run.back_up", back_up)
    report = runner.run(["backup"])
    assert report.recovered == ("etcd",)
    assert open_places(wanted)[0].catalog().runs["etcd"].last_success == NOW
    assert runner.run(["backup"]).recovered == ()


def test_no_location_that_answers_is_an_error(wanted, runner, tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).write_text("a file where a folder should be")
    with pytest.raises(StoreUnavailableError, match="no location"):
        runner.run(["verify"])
