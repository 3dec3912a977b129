"""What drills prove of a cluster: only what their last run restored, compared as a whole, of this cluster's own."""

from datetime import timedelta

import pytest
from coverage_objects import CONFIG, MENU, NOW, TAKEN, thing

from clusterguard.coverage.proofs import DrillFacts, DrillRun, proofs_of, rehearsals_of
from clusterguard.model.inventory import Scope
from clusterguard.policies.policy import EtcdSource, Policy, Source
from clusterguard.policies.policy import Proof as PolicyProof
from clusterguard.policies.watching.verdict import PolicyStatus, ProofStatus

FACTS = {"id": "shop", "sha256": "a", "scope": Scope(namespaces=("shop",)), "compares": True, "of": "velero"}
RUN = {"started": TAKEN, "verdict": "PASS", "sha256": "a", "stored": ("nightly-1",)}


def judged(run=RUN, *, backups=("nightly-1",), **facts):
    runs = {} if run is None else {"shop": DrillRun(**run)}
    proofs, refused = proofs_of(
        [DrillFacts(**{**FACTS, **facts})], runs, backups=dict.fromkeys(backups, "schedule nightly"), now=NOW
    )
    return [each.drill for each in proofs], [each.code for each in refused]


@pytest.mark.parametrize("of", ["velero", "policy", "cluster"])
def test_a_drill_that_passed_proves_its_scope(of):
    assert judged(of=of) == (["shop"], [])


@pytest.mark.parametrize(
    ("run", "facts", "code"),
    [
        (None, {}, "never-run"),
        ({**RUN, "verdict": "FAIL"}, {}, "not-proven"),
        ({**RUN, "verdict": "ERROR"}, {}, "not-proven"),
        ({**RUN, "started": NOW + timedelta(minutes=1)}, {}, "in-the-future"),
        ({**RUN, "sha256": "b"}, {}, "drill-changed"),
        ({**RUN, "sha256": ""}, {}, "drill-changed"),
        (RUN, {"compares": False}, "compares-nothing"),
        (RUN, {"of": "stand-in"}, "stand-in"),
        (RUN, {"backups": ()}, "other-backup"),
        (RUN, {"backups": ("nightly-2",)}, "other-backup"),
        ({**RUN, "stored": ()}, {}, "other-backup"),
    ],
)
def test_anything_less_proves_nothing(run, facts, code):
    assert judged(run, **facts) == ([], [code])


def test_a_proof_is_of_what_its_scope_takes_in():
    scope = Scope(namespaces=("shop",), exclude=("Menu.example.com",), selector="tier=data")
    [proof], _ = proofs_of(
        [DrillFacts(**{**FACTS, "scope": scope})],
        {"shop": DrillRun(**RUN)},
        backups={"nightly-1": "schedule nightly"},
        now=NOW,
    )
    assert proof.of == {"schedule nightly"}
    assert proof.covers(CONFIG, thing(tier="data"))
    assert not proof.covers(CONFIG, thing(tier="web"))
    assert not proof.covers(CONFIG, thing(namespace="other", tier="data"))
    assert not proof.covers(MENU, thing(tier="data"))


def test_a_drill_of_a_policy_proves_its_source_and_one_at_home_whatever_there_is():
    for of, expected in (("policy", {"policy prod/etcd"}), ("cluster", set())):
        facts = DrillFacts(**{**FACTS, "of": of, "sources": frozenset({"policy prod/etcd"})})
        [proof], _ = proofs_of([facts], {"shop": DrillRun(**RUN)}, backups={}, now=NOW)
        assert proof.of == expected


# ---- rehearsals of policies ----------------------------------------------------------------------------------


def rehearsed(source="etcd", **seen):
    etcd = Source(name="etcd", etcd=EtcdSource(cluster="context:prod"))
    weekly = PolicyProof(name="weekly", rehearse={}, source=source, every=timedelta(days=7))
    policy = Policy.model_construct(name="prod", sources=(etcd,), proofs=(weekly,))
    last = {"last_proven": TAKEN, "last_at": TAKEN, "last_outcome": "proven", "overdue": False, **seen}
    proofs = (ProofStatus(name="weekly", source=source, every=timedelta(days=7), **last),)
    status = PolicyStatus(policy="prod", at=NOW, sources=(), locations=(), proofs=proofs, reasons=())
    found, refused = rehearsals_of([(policy, status)], now=NOW)
    return [(each.drill, each.at, set(each.of)) for each in found], [each.code for each in refused]


def test_a_rehearsal_that_is_green_proves_everything_in_the_backup():
    assert rehearsed() == ([("policy prod/weekly", TAKEN, {"policy prod/etcd"})], [])


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        ({"last_proven": None, "last_outcome": None}, "never-run"),
        ({"last_outcome": "not proven"}, "not-proven"),
        ({"last_outcome": "error"}, "not-proven"),
        ({"overdue": True}, "not-proven"),
        ({"last_proven": NOW + timedelta(minutes=1)}, "not-proven"),
    ],
)
def test_one_that_is_not_proves_nothing(seen, code):
    assert rehearsed(**seen) == ([], [code])


def test_a_rehearsal_of_another_cluster_is_none_of_this_one():
    assert rehearsed(source="elsewhere") == ([], [])
