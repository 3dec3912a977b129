"""The plan: everything that would happen, in order, and what of it destroys."""

# ruff: noqa: E501 - the expected text has long lines

from __future__ import annotations

import pytest

from clusterguard.drills.load import load_drill
from clusterguard.drills.plan import plan_lines, plan_text
from clusterguard.drills.steps.base import Action
from clusterguard.drills.steps.registry import verbs


def texts(drill, phase):
    return [line.text for line in plan_lines(drill) if line.phase == phase]


def test_every_verb_has_a_line():
    for verb in verbs().values():
        assert verb.plan is not Action.plan, verb


@pytest.mark.parametrize("name", ["etcd-pods", "velero-new-cluster", "gameday-namespace-loss"])
def test_every_step_of_the_file_is_in_the_plan_once(examples, name):
    drill = load_drill(examples[name])

    written = [line.location for line in plan_lines(drill) if not line.implied]

    assert sorted(written) == sorted(step.location for step in drill.steps)


def test_what_the_file_does_not_write_down_is_in_the_plan(examples):
    drill = load_drill(examples["etcd-pods"])

    assert [line.text for line in plan_lines(drill) if line.implied] == [
        "capture the baseline: namespaces shop",
        "write the first marker: the restore must bring it back",
        "write the second marker: the restore must lose it",
        "delete the first marker",
        "look at verify once: with nothing red the drill is vacuous, and fails",
        "the recovery clock runs from here",
        "count a status only once a node or controller Lease was renewed after the restore",
        "the first marker is back, the second is gone",
        "stop the recovery clock when all of this holds, and compare it with the objectives",
        "delete what bears this run's id, and nothing else: markers, what setup made",
        "delete cluster main if this run created it",
    ]


def test_what_destroys_is_marked_and_nothing_else(examples):
    drill = load_drill(examples["etcd-pods"])

    assert [(line.phase, line.text, line.cluster) for line in plan_lines(drill) if line.destructive] == [
        ("fault", "delete the first marker", "main"),
        ("fault", "delete Pod with labels app=web in namespace shop; selecting none is an error", "main"),
        ("restore", "replace the cluster's whole etcd data by snapshot `before`", "main"),
    ]


def test_an_etcd_restore_tells_its_operations_in_order(examples):
    drill = load_drill(examples["etcd-pods"])
    (restore,) = [line for line in plan_lines(drill) if line.text.startswith("replace")]

    check, command, stop, swap, start, rollback, controllers = restore.details

    assert check.startswith("check `before`")
    assert command.startswith("etcdutl snapshot restore SNAPSHOT --data-dir NEW-DATA-DIR --name MEMBER ")
    assert " --bump-revision N --mark-compacted " in command
    assert stop.startswith("stop kube-scheduler")
    assert swap.startswith("move the live data directory aside")
    assert start.startswith("start etcd")
    assert controllers.startswith("start kube-controller-manager")
    assert rollback.startswith("if anything fails")


def test_cleanup_runs_the_last_step_first(examples):
    drill = load_drill(examples["gameday-namespace-loss"])

    assert texts(drill, "cleanup")[:2] == [
        "restore Velero backup `gameday` from storage west, and wait until it is complete",
        "make storage west reachable again",
    ]


def test_a_drill_without_canary_or_proof_says_so(minimal, load):
    drill = load(minimal.replace("  clusters:", "  canary: false\n  prove: false\n  clusters:"))

    assert texts(drill, "backup")[1] == "no markers: the file turns the canary off"
    assert texts(drill, "fault")[1:] == ["verify need not be red now: the file says prove: false, and the report will"]
    assert not any("marker" in text for text in texts(drill, "verify"))


def test_a_cluster_that_starts_late_starts_in_the_restore_phase(examples):
    drill = load_drill(examples["velero-new-cluster"])

    assert texts(drill, "restore")[:2] == ["the recovery clock runs from here", "create cluster target: kind"]


def test_the_text_says_what_is_touched_and_what_must_be_allowed(examples):
    text = plan_text(load_drill(examples["gameday-namespace-loss"]))

    assert (
        "west: context staging-west, which exists; it is touched only with --drill-allow-context staging-west" in text
    )
    assert "recovery: within 15m, or the drill fails" in text
    assert "  ! delete Namespace payments; selecting none is an error  [west]\n" in text


@pytest.mark.parametrize(
    ("default", "said"),
    [
        ("embedded", "main: embedded (by --drill-cluster), created for this run, deleted at its end"),
        ("context:lab", "main: context:lab (by --drill-cluster), which exists"),
    ],
)
def test_a_cluster_without_a_provider_is_what_the_run_says(minimal, load, default, said):
    assert said in plan_text(load(minimal), default_cluster=default)


@pytest.mark.parametrize(
    ("said", "nodes"),
    [
        ("{}", ""),
        ("{workers: 1}", " (workers: 1)"),
        ("{controlPlanes: 3, workers: 2}", " (control planes: 3, workers: 2)"),
    ],
)
def test_the_text_says_how_many_nodes_a_kind_cluster_has(minimal, load, said, nodes):
    text = minimal.replace("other: {startIn: restore}", f"other: {{startIn: restore, kind: {said}}}")

    assert f"other: kind{nodes}, created when the restore begins, deleted at its end" in plan_text(load(text))


def test_the_text_of_a_small_drill(minimal, load, tmp_path):
    text = minimal.replace("    other: {startIn: restore}\n", "").replace("  - veleroBackup: {name: nightly}\n", "")

    assert (
        plan_text(load(text)).replace(str(tmp_path), "")
        == """\
drill small  (/test.drill.yaml:4:9)

clusters
    main: embedded (by --drill-cluster), created for this run, deleted at its end

setup
    wait until every Pod in namespace shop is ready

backup
  · capture the baseline: everything that is not system-owned
  · write the first marker: the restore must bring it back
    save an etcd snapshot as `before` in the run's own store, checked while it is written
  · write the second marker: the restore must lose it

fault
  ! delete the first marker
  ! delete Pod with labels app=web in namespace shop; selecting none is an error
  · look at verify once: with nothing red the drill is vacuous, and fails

restore
  · the recovery clock runs from here
  ! replace the cluster's whole etcd data by snapshot `before`
      1. check `before` (digest, trailer, structure), and programs, rights and free space
      2. etcdutl snapshot restore SNAPSHOT --data-dir NEW-DATA-DIR --name MEMBER --initial-cluster MEMBER=PEER-URL --initial-cluster-token TOKEN --initial-advertise-peer-urls PEER-URL --bump-revision N --mark-compacted   (N: beyond every revision served so far)
      3. stop kube-scheduler, kube-controller-manager, kube-apiserver, then etcd
      4. move the live data directory aside, put the new one in its place
      5. start etcd and wait until it serves, then kube-apiserver until it is ready
      6. if anything fails up to here: roll back to the old data directory; afterwards nothing is rolled back
      7. start kube-controller-manager and kube-scheduler

verify
    compare everything in scope with the baseline, field by field: missing exactly 0, changed exactly 0, extra shown only
  · count a status only once a node or controller Lease was renewed after the restore
  · the first marker is back, the second is gone
  · stop the recovery clock when all of this holds

cleanup
  · delete what bears this run's id, and nothing else: markers, what setup made
  · delete cluster main if this run created it

! destroys, overwrites or cuts off   · not in the file, always done
"""
    )
