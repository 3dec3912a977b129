"""What became of a fleet: a missing result is never a pass, and neither is one that says nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ConfigError
from clusterguard.policies.fleet.files import Fleet, FleetCluster, run_cluster
from clusterguard.policies.fleet.results import ClusterResult, Outcome, latest_run, read_report, save_result
from clusterguard.stores import MemoryStore

BEGIN = datetime(2030, 1, 1, 2, tzinfo=UTC)
VERDICTS = st.sampled_from(["PASS", "FAIL", "ERROR", ""])


def drill(verdict="PASS", name="pods", **more):
    return {"drill": name, "verdict": verdict, "reason": f"{name} is {verdict}", "seconds": 12.5, **more}


def result(cluster="berlin", drills=None, **more):
    drills = [drill()] if drills is None else drills
    values = {"fleet": "shops", "run": "run-1", "started": BEGIN, "finished": BEGIN + timedelta(minutes=2), **more}
    return ClusterResult(cluster=cluster, drills=tuple(drills), **values)


@pytest.fixture
def fleet(tmp_path):
    clusters = tuple(FleetCluster(name=name, cluster="embedded") for name in ("berlin", "oslo"))
    return Fleet(name="shops", path=tmp_path / "fleet.yaml", drills=("drills",), clusters=clusters)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, Outcome.PROVEN),
        ({"drills": (drill(), drill("FAIL"))}, Outcome.NOT_PROVEN),
        ({"drills": (drill("FAIL"), drill("ERROR"))}, Outcome.COULD_NOT_TELL),
        ({"drills": ()}, Outcome.COULD_NOT_TELL),
        ({"not_run": {"other": "no containers"}}, Outcome.COULD_NOT_TELL),
        ({"error": "no such drill"}, Outcome.COULD_NOT_TELL),
        ({"drills": (drill("pass"),)}, Outcome.COULD_NOT_TELL),
    ],
)
def test_only_drills_that_all_passed_prove_a_cluster(changes, outcome):
    assert result(**changes).outcome is outcome


@given(verdicts=st.lists(VERDICTS, max_size=5), error=st.sampled_from(["", "x"]), not_run=st.booleans())
def test_proven_means_that_nothing_speaks_against_it(verdicts, error, not_run):
    found = result(drills=map(drill, verdicts), error=error, not_run={"x": "y"} if not_run else {})

    assert (found.outcome is Outcome.PROVEN) == (
        bool(verdicts) and set(verdicts) == {"PASS"} and not error and not not_run
    )


def test_a_cluster_without_a_result_did_not_run(fleet, store):
    save_result(store, result())

    report = read_report(store, fleet, run="run-1")

    assert [each.outcome for each in report.clusters] == [Outcome.PROVEN, Outcome.DID_NOT_RUN]
    assert not report.proven
    assert report.exit_code == 2


@pytest.mark.parametrize(
    ("verdict", "exit_code"),
    [("PASS", 0), ("FAIL", 1), ("ERROR", 2)],
)
def test_the_exit_code_is_that_of_the_worst_cluster(fleet, store, verdict, exit_code):
    save_result(store, result("berlin"))
    save_result(store, result("oslo", [drill(verdict)]))

    report = read_report(store, fleet, run="run-1")

    assert report.exit_code == exit_code
    assert report.proven == (exit_code == 0)


def test_the_results_of_another_run_count_for_nothing(fleet, store):
    for cluster in ("berlin", "oslo"):
        save_result(store, result(cluster, run="run-0"))

    assert {each.outcome for each in read_report(store, fleet, run="run-1").clusters} == {Outcome.DID_NOT_RUN}


def test_a_result_under_another_clusters_name_counts_for_nothing(fleet, store):
    with store.put("shops/run-1/oslo.json") as writer:
        writer.write(result("berlin").to_json())

    (_, oslo) = read_report(store, fleet, run="run-1").clusters

    assert oslo.outcome is Outcome.COULD_NOT_TELL
    assert "shops/run-1/berlin" in oslo.detail


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1}', b"null"])
def test_a_damaged_result_is_told_and_never_green(fleet, store, damage):
    with store.put("shops/run-1/oslo.json") as writer:
        writer.write(damage)

    (_, oslo) = read_report(store, fleet, run="run-1").clusters

    assert oslo.outcome is Outcome.COULD_NOT_TELL
    assert "result" in oslo.detail


def test_a_later_attempt_replaces_the_earlier_one(fleet, store):
    save_result(store, result("berlin", [drill("ERROR")]))
    save_result(store, result("berlin"))

    assert read_report(store, fleet, run="run-1").clusters[0].outcome is Outcome.PROVEN


def test_the_latest_run_is_the_one_that_began_last(fleet, store):
    save_result(store, result(run="run-b"))
    save_result(store, result(run="run-a"))
    save_result(store, result("oslo", run="run-b"))  # a straggler of the earlier one

    assert latest_run(store, fleet) == "run-a"
    with pytest.raises(ConfigError, match="no result of fleet shops"):
        latest_run(MemoryStore(), fleet)


def test_a_foreign_object_is_no_run(fleet, store):
    save_result(store, result(run="run-a"))
    for key in ("shops/notes.json", "shops/archive/notes.json", "shops/archive/2029/berlin.json"):
        with store.put(key) as writer:
            writer.write(b"{}")
    assert latest_run(store, fleet) == "run-a"


def test_a_result_survives_being_stored():
    before = result(not_run={"x": "y"}, error="é\n", drills=[drill("FAIL", diff="- a\n+ b")])

    assert ClusterResult.from_json(before.to_json()) == before


def test_the_longest_recovery_and_the_most_data_lost_stand_for_the_cluster(fleet, store):
    drills = [
        drill(rtoSeconds={"total": 4.0}, rpoSeconds=2.0),
        drill(rtoSeconds={"total": 9.0}, rpoSeconds=None),
        drill(rtoSeconds=None),
    ]
    save_result(store, result(drills=drills))

    berlin = read_report(store, fleet, run="run-1").clusters[0]

    assert (berlin.rto, berlin.rpo) == (9.0, 2.0)
    assert berlin.to_dict()["rtoSeconds"] == 9.0


def test_junit_calls_nothing_green_that_is_not():
    found = result(
        drills=[drill(), drill("FAIL", "red"), drill("ERROR", "unknown")], not_run={"other": "no containers"}, error="x"
    )

    suite = ET.fromstring(found.to_junit())  # noqa: S314 - of our own making

    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "5",
        "failures": "1",
        "errors": "3",
    }


@given(reason=st.text(), diff=st.text())
def test_junit_is_xml_whatever_a_cluster_says(reason, diff):
    found = result(drills=[drill("FAIL", diff=diff) | {"reason": reason}])

    ET.fromstring(found.to_junit())  # noqa: S314 - of our own making


def test_a_drill_that_cannot_be_loaded_is_in_the_result(fleet, tmp_path):
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "x.drill.yaml").write_text("kind: Drill\n")

    found = run_cluster(fleet, 0, run="run-1", environ={}, now=lambda: BEGIN)

    assert found.outcome is Outcome.COULD_NOT_TELL
    assert "x.drill.yaml:1:1" in found.error


@pytest.mark.parametrize("run", ["", "../x", "a/b", "A B"])
def test_a_run_is_a_name_and_no_path(fleet, store, run):
    with pytest.raises(ConfigError, match="invalid name of a run"):
        read_report(store, fleet, run=run)
    with pytest.raises(ConfigError, match="invalid name of a run"):
        run_cluster(fleet, 0, run=run, environ={})


def test_labels_are_in_the_report(fleet, store):
    labelled = tuple(each.model_copy(update={"labels": {"region": "eu"}}) for each in fleet.clusters)

    report = read_report(store, fleet.model_copy(update={"clusters": labelled}), run="run-1")

    assert report.to_dict()["clusters"][0]["labels"] == {"region": "eu"}
