"""A whole run over real folders, without etcd: what is written down, and what is noticed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from policy_worlds import add_backup, data_of, policy, put

from clusterguard.errors import (
    ConfigError,
    ObjectNotFoundError,
    RunInProgressError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.policies.copies.catalog import RunRecord
from clusterguard.policies.copies.locations import open_locations
from clusterguard.policies.policy import Encryption, Heartbeat, Location, RetentionPolicy
from clusterguard.policies.report import StepReport
from clusterguard.policies.runs import retain
from clusterguard.policies.runs.lease import LOCK_KEY, Lease, LeaseTiming, LocationLease
from clusterguard.policies.runs.lock import locked
from clusterguard.policies.runs.run import PolicyRunner
from clusterguard.policies.watching.audit import AuditTrail
from clusterguard.stores import local

NOW = datetime(2026, 6, 1, 2, 0, tzinfo=UTC)


@pytest.fixture
def wanted(tmp_path):
    made = policy("here", "there", retention=RetentionPolicy(last=2))
    locations = tuple(Location(name=name, url=str(tmp_path / name)) for name in ("here", "there"))
    return made.model_copy(update={"locations": locations})


@pytest.fixture
def runner(wanted):
    return PolicyRunner(policy=wanted, environ={"CLUSTERGUARD_ACTOR": "tester"}, now=lambda: NOW)


def fill(wanted, *ages):
    for location in open_locations(wanted):
        for age in ages:
            add_backup(location, f"etcd-{age:03d}", age=timedelta(days=age))


def test_what_was_done_is_in_the_trail_and_the_catalog_of_every_location(wanted, runner):
    fill(wanted, 1)
    report = runner.run(["verify"])
    assert [step.verb for step in report.steps] == ["verify", "verify", "audit", "audit"]
    heads = set()
    for location in open_locations(wanted):
        catalog = location.catalog()
        assert catalog.updated == NOW
        assert catalog.entries["etcd/etcd-001"].sound
        trail = AuditTrail(location.root)
        assert trail.verify(catalog.audit_head).ok
        heads.add(trail.head())
    assert len(heads) == 1, "the same was done, so the same is written"


def test_a_trail_that_was_cut_is_noticed_and_not_papered_over(wanted, runner, tmp_path):
    fill(wanted, 1, 2)
    runner.run(["verify"])
    known = open_locations(wanted)[0].catalog().audit_head
    for segment in (tmp_path / "here" / "nightly" / ".clusterguard" / "audit").iterdir():
        segment.unlink()
    fill(wanted, 3)
    report = runner.run(["verify"])
    told = [step for step in report.steps if step.verb == "audit" and step.location == "here"]
    assert [step.outcome for step in told] == ["failed"]
    assert "lacks its last known line" in told[0].detail
    assert open_locations(wanted)[0].catalog().audit_head == known, "the evidence stays"
    assert report.outcome == "failed"


def test_a_run_in_which_nothing_is_due_writes_no_trail(wanted, runner, tmp_path):
    report = runner.run(["verify", "prove"])
    assert report.steps == ()
    assert report.outcome == "ok"
    assert not (tmp_path / "here" / "nightly" / ".clusterguard" / "audit").exists()


def test_retention_is_planned_without_a_change(wanted, runner):
    fill(wanted, 1, 2, 3)
    plans = runner.planned_retention()
    assert [(each.location.name, [gone.name for gone in each.plan.removed]) for each in plans] == [
        ("here", ["etcd-003"]),
        ("there", ["etcd-003"]),
    ]
    assert len(open_locations(wanted)[0].catalog().entries) == 3


def test_what_broke_off_is_told_by_every_run_and_is_no_trouble(wanted, runner, tmp_path):
    fill(wanted, 1)
    (tmp_path / "here" / "nightly" / "etcd" / "etcd-20260501T020000Z.db.zst").write_bytes(b"half of it")
    report = runner.run(["verify"])
    assert report.outcome == "ok"
    assert [(step.location, step.size) for step in report.steps if step.code == "leftovers"] == [("here", 10)]
    assert runner.planned_retention()[0].leftovers[0].leftover.name == "etcd-20260501T020000Z"


def test_who_only_removes_needs_no_key(wanted, runner):
    fill(wanted, 1, 2, 3)
    sealed = wanted.model_copy(update={"encryption": Encryption(recipients_file="/nowhere/recipients.txt")})
    keyless = replace(runner, policy=sealed, trust_clock=True)
    assert len(keyless.planned_retention()) == 2
    assert [step.outcome for step in keyless.run(["retain"]).steps if step.verb == "delete"] == ["ok", "ok"]
    with pytest.raises(ConfigError, match="recipients"):
        keyless.run(["verify", "retain"])


def test_a_run_beside_another_one_does_nothing(wanted, runner, monkeypatch):
    told = []
    monkeypatch.setattr("clusterguard.policies.runs.run.notify", lambda *_, **__: told.append("failed") or ())
    fill(wanted, 1)
    other = locked(open_locations(wanted), run="other", timing=LeaseTiming(renew_interval=0.05))
    with other, pytest.raises(RunInProgressError, match="run other"):
        runner.run(["verify"])
    assert told == [], "the other run tells what comes of it"
    assert not open_locations(wanted)[0].catalog().entries["etcd/etcd-001"].sound


class Beats(list):
    """The heartbeat's moments, each with the run that held the lock then."""

    def __init__(self, monkeypatch, wanted):
        super().__init__()
        monkeypatch.setattr("clusterguard.policies.runs.run.beat", self.beat)
        self.locations = open_locations(wanted)

    def beat(self, _, moment, **__):
        holders = [lease_in(location).holder for location in self.locations]
        self.append((moment, holders[0] if holders[0] == holders[1] else holders))
        return StepReport(verb="heartbeat", outcome="ok", at=NOW, detail=moment)


def lease_in(location):
    try:
        return Lease.parse(data_of(location.root, LOCK_KEY))
    except ObjectNotFoundError:
        return Lease(holder="")


def take_over(location):
    """Let another run hold a location's lease, as one does that found it standing still."""
    put(location.root, LOCK_KEY, Lease(holder="other", generation=99).dump(), overwrite=True)


@pytest.fixture
def beating(runner, wanted):
    return replace(runner, policy=wanted.model_copy(update={"heartbeat": Heartbeat(url_env="BEAT")}))


def test_the_start_is_sent_by_whoever_holds_the_lock(wanted, beating, monkeypatch):
    beats = Beats(monkeypatch, wanted)
    monkeypatch.setattr("clusterguard.policies.runs.run.back_up", lambda *_: None)
    report = beating.run(["backup"])
    assert beats == [("start", report.run), ("success", "")]


def test_a_run_that_steps_aside_sends_nothing(wanted, beating, monkeypatch):
    beats = Beats(monkeypatch, wanted)
    other = locked(open_locations(wanted), run="other", timing=LeaseTiming(renew_interval=0.05))
    with other, pytest.raises(RunInProgressError):
        beating.run(["backup"])
    assert beats == []


def test_a_run_without_any_location_sends_its_failure_alone(wanted, beating, monkeypatch, tmp_path):
    sent = []
    monkeypatch.setattr(
        "clusterguard.policies.runs.run.beat",
        lambda _, moment, **__: (
            sent.append(moment) or StepReport(verb="heartbeat", outcome="ok", at=NOW, detail=moment)
        ),
    )
    for name in ("here", "there"):
        (tmp_path / name).write_text("a file where a folder should be")
    with pytest.raises(StoreUnavailableError):
        beating.run(["backup"])
    assert sent == ["failure"]


def test_a_location_whose_configuration_is_wrong_is_left_out_and_named(wanted, runner):
    fill(wanted, 1)
    broken = Location(name="there", url="s3://bucket?ca=/nowhere/ca.pem")
    report = replace(runner, policy=wanted.model_copy(update={"locations": (wanted.locations[0], broken)})).run(
        ["verify"]
    )
    seen = [(step.verb, step.location, step.outcome, step.code) for step in report.steps if step.outcome != "ok"]
    assert seen == [("copy", "there", "warning", "config")]
    assert open_locations(wanted)[0].catalog().entries["etcd/etcd-001"].sound


def test_a_location_that_lets_two_writers_win_is_reported_by_its_code(wanted, runner, monkeypatch):
    fill(wanted, 1)
    replacing = local._replace_version
    monkeypatch.setattr(local, "_replace_version", lambda partial, target, _: partial.replace(target))
    quickly = partial(locked, timing=LeaseTiming(renew_interval=0.01))
    monkeypatch.setattr("clusterguard.policies.runs.run.locked", quickly)
    report = runner.run(["verify"])
    monkeypatch.setattr(local, "_replace_version", replacing)
    warned = [(step.verb, step.location, step.outcome, step.code) for step in report.steps if step.outcome != "ok"]
    assert warned == [("lock", name, "warning", "lock-not-exclusive") for name in ("here", "there")]


def test_nothing_is_removed_once_another_run_has_taken_over(wanted, runner, monkeypatch):
    fill(wanted, 1, 2, 3, 4)
    delete, deleted = retain._delete, []

    def taken_over_after_the_first(location, entry, session):
        delete(location, entry, session)
        deleted.append((location.name, entry.name))
        take_over(location)

    monkeypatch.setattr(retain, "_delete", taken_over_after_the_first)
    told = []
    monkeypatch.setattr("clusterguard.policies.runs.run.notify", lambda _, report, **__: told.append(report) or ())
    with pytest.raises(RunInProgressError) as raised:
        replace(runner, trust_clock=True).run(["retain"])
    assert raised.value.code == "lease-lost"
    assert deleted == [("here", "etcd-004")]
    assert [step.code for step in told[0].steps if step.verb == "delete"] == ["", "lease-lost"]
    assert lease_in(open_locations(wanted)[0]).holder == "other", "what is not ours is not given back"
    assert AuditTrail(open_locations(wanted)[0].root).head(), "what was done is written down all the same"


def test_the_catalog_of_whoever_took_over_is_not_replaced(wanted, runner, monkeypatch):
    fill(wanted, 1)
    here = open_locations(wanted)[0]

    def overtaken(session):
        with session.step("verify", location="here"):
            take_over(here)
            here.save_catalog(replace(here.catalog(), audit_head="the other run's"), now=NOW)

    monkeypatch.setattr("clusterguard.policies.runs.run.verify_due", overtaken)
    report = runner.run(["verify"])
    assert here.catalog().audit_head == "the other run's"
    assert open_locations(wanted)[1].catalog().audit_head
    seen = [(step.verb, step.location, step.code) for step in report.steps if step.outcome != "ok"]
    assert seen == [("catalog", "here", "lease-lost")]


def test_a_location_whose_lease_cannot_be_looked_at_keeps_everything_and_the_others_go_on(wanted, runner, monkeypatch):
    fill(wanted, 1, 2, 3)
    require = LocationLease.require

    def away(self):
        if self._name == "here":
            raise StoreError("here: 503", code="lease-unconfirmed")
        require(self)

    monkeypatch.setattr(LocationLease, "require", away)
    report = replace(runner, trust_clock=True).run(["retain"])
    assert [(step.location, step.outcome, step.code) for step in report.steps if step.verb == "delete"] == [
        ("here", "failed", "lease-unconfirmed"),
        ("there", "ok", ""),
    ]
    assert [len(location.catalog().entries) for location in open_locations(wanted)] == [3, 2]


def test_a_failure_that_nobody_expected_is_told_before_it_is_raised(wanted, runner, monkeypatch):
    told = []
    monkeypatch.setattr("clusterguard.policies.runs.run.verify_due", lambda _: 1 / 0)
    monkeypatch.setattr("clusterguard.policies.runs.run.notify", lambda _, report, **__: told.append(report) or ())
    with pytest.raises(ZeroDivisionError):
        runner.run(["verify"])
    assert told[0].outcome == "failed"
    assert "ZeroDivisionError" in told[0].steps[-1].detail
    with locked(open_locations(wanted), run="next"):
        pass


def test_a_source_that_failed_and_is_backed_up_again_has_recovered(wanted, runner, monkeypatch):
    for location in open_locations(wanted):
        catalog = location.catalog()
        failed = RunRecord(source="etcd", run="earlier", at=NOW - timedelta(days=1), outcome="failed")
        location.save_catalog(type(catalog)(policy="nightly", location=location.name, runs={"etcd": failed}), now=NOW)

    def back_up(source, session):
        with session.step("backup", source=source.name, backup="etcd-new") as task:
            task.detail = "made"

    monkeypatch.setattr("clusterguard.policies.runs.run.back_up", back_up)
    report = runner.run(["backup"])
    assert report.recovered == ("etcd",)
    assert open_locations(wanted)[0].catalog().runs["etcd"].last_success == NOW
    assert runner.run(["backup"]).recovered == ()


def test_no_location_that_answers_is_an_error(wanted, runner, tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).write_text("a file where a folder should be")
    with pytest.raises(StoreUnavailableError, match="no location"):
        runner.run(["verify"])
