"""When a proof is due, and what a drill's result is worth as one."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from policy_worlds import NOW, add_backup, locations_of, policy, session_of

from clusterguard.drills import Verdict
from clusterguard.errors import StoreUnavailableError, ToolchainError, WrongKeyError
from clusterguard.policies.copies.catalog import ProofRecord
from clusterguard.policies.policy import Proof, RehearsalOptions
from clusterguard.policies.runs import proofs
from clusterguard.policies.runs.proofs import due_proofs, prove
from clusterguard.rehearsal.report import FIND_PROGRAMS, KindCount, Level, Phase, RehearsalFinding, RehearsalReport

WEEK = timedelta(days=7)
PROOF = Proof(name="weekly", drill="prove.drill.yaml", source="etcd", every=WEEK)


@pytest.fixture
def session():
    wanted = policy("here", "there").model_copy(update={"proofs": (PROOF,)})
    return session_of(wanted, locations_of(wanted))


def known(session, *, age=timedelta(), outcome="proven", ever=True):
    at = NOW - age
    record = ProofRecord(
        proof="weekly", source="etcd", backup="etcd-1", at=at, outcome=outcome, last_proven=at if ever else None
    )
    session.update(session.locations[0], proofs={"weekly": record})
    return session


@pytest.mark.parametrize(
    ("age", "outcome", "due"),
    [
        (timedelta(days=1), "proven", False),
        (WEEK, "proven", True),
        (timedelta(days=1), "not proven", True),
        (timedelta(days=1), "error", True),
        (timedelta(days=-1), "proven", True),
    ],
    ids=["young", "old", "red", "could not tell", "of the future"],
)
def test_a_proof_is_due_when_it_is_old_or_none(session, age, outcome, due):
    assert bool(due_proofs(known(session, age=age, outcome=outcome))) is due


def test_a_proof_that_never_was_is_due(session):
    assert due_proofs(session) == (PROOF,)


def drilled(monkeypatch, *verdicts, source="etcd", reason="", stored=()):
    """Let each drill end with a verdict, after it asked for a backup of a source; return the settings of each."""
    given = []

    class Runner:
        def __init__(self, *, settings):
            given.append(settings)
            self.stored = settings.stored

        def run(self, drill):
            if source:
                self.stored("policy.yaml", source)
            return SimpleNamespace(
                drill=drill.id,
                verdict=drill.verdict,
                reason=reason,
                hint="",
                rto=SimpleNamespace(total=4.0),
                rpo=60.0,
                stored=stored,
            )

    found = SimpleNamespace(record=SimpleNamespace(name="etcd-1"))
    drills = [SimpleNamespace(id="prove", verdict=each) for each in verdicts or (Verdict.PASS,)]
    monkeypatch.setattr(proofs, "load_drills", lambda *_, **__: drills)
    monkeypatch.setattr(proofs, "skip_reason", lambda *_, **__: None)
    monkeypatch.setattr(proofs, "DrillRunner", Runner)
    monkeypatch.setattr(proofs, "PolicyBackups", lambda **_: lambda *_, **__: found)
    return given


def test_a_green_drill_of_the_sources_backup_is_a_proof_in_every_location(session, monkeypatch):
    drilled(monkeypatch)
    prove(session)
    for catalog in session.catalogs.values():
        record = catalog.proofs["weekly"]
        assert (record.outcome, record.backup, record.rto_seconds, record.rpo_seconds) == (
            "proven",
            "etcd-1",
            4.0,
            60.0,
        )
        assert record.last_proven == NOW
    assert [step.outcome for step in session.steps] == ["ok"]


@pytest.mark.parametrize(
    ("stored", "backup"), [(("shop-1",), "shop-1"), (("other", "shop-1"), "shop-1"), (("other",), ""), ((), "")]
)
def test_a_velero_backup_is_the_sources_if_the_policy_made_it(session, monkeypatch, stored, backup):
    for name, source in (("shop-1", "etcd"), ("other", "another")):
        add_backup(session.locations[0], name, source=source)
    session = session_of(session.policy, session.locations)
    drilled(monkeypatch, source="", stored=stored)
    prove(session)
    record = session.catalogs["here"].proofs["weekly"]
    assert (record.outcome, record.backup) == ("proven" if backup else "not proven", backup)


@pytest.mark.parametrize("source", ["", "another"])
def test_a_green_drill_that_restored_nothing_of_the_source_proves_nothing(session, monkeypatch, source):
    drilled(monkeypatch, source=source)
    prove(session)
    assert session.catalogs["here"].proofs["weekly"].outcome == "not proven"
    assert "restored no backup of source etcd" in session.steps[0].detail


@pytest.mark.parametrize(
    ("verdicts", "outcome", "told"),
    [
        ([Verdict.FAIL], "not proven", ("failed", "not-proven")),
        ([Verdict.ERROR], "error", ("warning", "proof-undecided")),
        ([Verdict.PASS, Verdict.ERROR], "error", ("warning", "proof-undecided")),
        ([Verdict.ERROR, Verdict.FAIL], "not proven", ("failed", "not-proven")),
    ],
)
def test_only_a_drill_that_failed_is_a_no_and_the_last_proof_stays_known(session, monkeypatch, verdicts, outcome, told):
    known(session, age=WEEK)
    drilled(monkeypatch, *verdicts, reason="the marker is missing")
    prove(session)
    record = session.catalogs["here"].proofs["weekly"]
    assert (record.outcome, record.last_proven) == (outcome, NOW - WEEK)
    assert [(step.outcome, step.code) for step in session.steps] == [told]
    assert "the marker is missing" in session.steps[0].detail


def test_a_drill_that_cannot_be_run_here_is_no_proof(session, monkeypatch):
    drilled(monkeypatch)
    monkeypatch.setattr(proofs, "skip_reason", lambda *_, **__: "it needs containers")
    prove(session)
    assert session.catalogs["here"].proofs["weekly"].outcome == "error"
    assert "it needs containers" in session.steps[0].detail


def test_a_drill_has_the_scratch_folder_of_the_policy(session, monkeypatch, tmp_path):
    session.policy = session.policy.model_copy(update={"scratch": str(tmp_path)})
    given = drilled(monkeypatch)
    prove(session)
    assert [each.scratch for each in given] == [tmp_path]


# ---- by a rehearsal

OPTIONS = RehearsalOptions(prefix="/kubernetes.io", kubernetes_version="v1.34")
REHEARSED = Proof(name="weekly", rehearse=OPTIONS, source="etcd", every=WEEK)
COMPARED = KindCount(kind="configmaps", backed_up=2, equal=2)


def rehearsed(session, monkeypatch, *findings, kinds=(COMPARED,), error=None, kind="etcd"):
    """Let the rehearsal end with findings, or with an error; return what it was asked for."""
    given = {}

    class Rehearsed:
        def __init__(self, **options):
            given.update(options)

        def run(self):
            if error is not None:
                raise error
            # Compiling programs is no part of the time that a restore takes.
            phases = [Phase(name=FIND_PROGRAMS, seconds=600.0), Phase(name="restore", seconds=4.0)]
            return RehearsalReport(source="s", kinds=kinds, findings=findings, phases=phases)

    entry = SimpleNamespace(name="etcd-1", kind=kind, created=NOW - timedelta(minutes=1))
    snapshotter = SimpleNamespace(find=lambda name: SimpleNamespace(key=f"{name}.db"))
    session.policy = session.policy.model_copy(update={"proofs": (REHEARSED,)})
    monkeypatch.setattr(proofs, {"etcd": "Rehearsal", "velero": "VeleroRehearsal"}[kind], Rehearsed)
    monkeypatch.setattr(proofs, "opened_copy", lambda *_, **__: (entry, "the store"))
    monkeypatch.setattr(proofs, "EtcdSnapshotter", lambda **_: snapshotter)
    monkeypatch.setattr(proofs, "from_environment", lambda *_, **__: SimpleNamespace(ensure=lambda *_: None))
    return given


def finding(code, level):
    return RehearsalFinding(code=code, level=level, message="seen", hint="do it", count=1, examples=("shop/a",))


def test_a_rehearsal_without_errors_is_a_proof(session, monkeypatch):
    given = rehearsed(session, monkeypatch, finding("certificate-expired", Level.WARNING))
    prove(session)
    record = session.catalogs["there"].proofs["weekly"]
    assert (record.outcome, record.backup, record.rto_seconds, record.rpo_seconds, record.last_proven) == (
        "proven",
        "etcd-1",
        4.0,
        60.0,
        NOW,
    )
    assert (given["location"], given["prefix"]) == (("the store", "etcd-1.db"), "/kubernetes.io")
    assert given["kubernetes_version"] == "v1.34"
    assert [step.outcome for step in session.steps] == ["ok"]
    assert "certificate-expired" in session.steps[0].detail


def test_a_velero_backup_is_rehearsed_on_the_version_that_is_wanted(session, monkeypatch):
    given = rehearsed(session, monkeypatch, kind="velero")
    prove(session)
    assert (given["backup"], given["kubernetes_version"]) == ("etcd-1", "v1.34")


def test_a_rehearsal_with_an_error_is_a_no(session, monkeypatch):
    rehearsed(session, monkeypatch, finding("definition-missing", Level.ERROR))
    prove(session)
    record = session.catalogs["here"].proofs["weekly"]
    assert (record.outcome, record.rto_seconds, record.last_proven) == ("not proven", None, None)
    assert "definition-missing" in record.detail
    assert [(step.outcome, step.code, step.hint) for step in session.steps] == [("failed", "not-proven", "do it")]


def test_a_snapshot_of_nothing_proves_nothing(session, monkeypatch):
    rehearsed(session, monkeypatch, kinds=())
    prove(session)
    record = session.catalogs["here"].proofs["weekly"]
    assert (record.outcome, bool(record.detail)) == ("not proven", True)


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), WrongKeyError("no key"), ToolchainError("no etcd")])
def test_a_rehearsal_that_could_not_tell_says_nothing_about_the_backup(session, monkeypatch, error):
    rehearsed(known(session, age=WEEK), monkeypatch, error=error)
    prove(session)
    record = session.catalogs["here"].proofs["weekly"]
    assert (record.outcome, record.detail, record.last_proven) == ("error", error.message, NOW - WEEK)
    assert [(step.outcome, step.code) for step in session.steps] == [("warning", "proof-undecided")]


def test_a_copy_of_a_velero_backup_is_rehearsed_by_velero(session, monkeypatch):
    given = rehearsed(session, monkeypatch, kind="velero")
    prove(session)
    assert session.catalogs["here"].proofs["weekly"].outcome == "proven"
    assert (given["location"], given["backup"]) == ("the store", "etcd-1")
