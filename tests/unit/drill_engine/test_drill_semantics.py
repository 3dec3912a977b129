"""What decides whether a green drill means anything; each guard is shown by the drill that it turns red."""

import copy
import time
from datetime import UTC, datetime, timedelta

import pytest

from clusterguard.drills import Verdict
from clusterguard.errors import (
    EtcdUnavailableError,
    ObjectCorruptError,
    ObjectNotFoundError,
    RestoreError,
    SnapshotCorruptError,
    SnapshotIncompleteError,
    StoreError,
)

READY_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
    "spec": {"nodeName": "n1"},
    "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
}


def objects(spec):
    return spec["setup"][0]["apply"]["manifest"]


def markers(api):
    return [name for name in api.names("ConfigMap") if name.startswith("clusterguard-marker-")]


def fail(result):
    assert result.verdict is Verdict.FAIL, result.reason
    return result.code


def error(result):
    assert result.verdict is Verdict.ERROR, result.reason
    return result.code


def test_what_a_restore_brings_back_passes(run, spec):
    result = run(spec)
    assert result.verdict is Verdict.PASS, result.reason
    assert result.red_after_fault == (1, 1)
    assert [phase.name for phase in result.phases] == [
        "provision", "setup", "backup", "fault", "red before green", "restore", "verify", "cleanup",
    ]  # fmt: skip
    assert "1 of 1 checks were red after the fault and all hold now" in result.reason


def test_without_its_restore_the_drill_fails(run, spec):
    result = run(spec, omit_restore=True)
    assert (fail(result), result.steps[-3].title) == ("not-recovered", "restored")
    assert (result.rto, result.rpo) == (None, None)  # markers that were never lost measure nothing
    assert "ConfigMap" in result.diff


# ---- markers ---------------------------------------------------------------------------------------------


def test_luck_is_told_from_a_restore(run, spec, cluster):
    def lose_markers(api):
        for name in markers(api):
            del api.objects["ConfigMap", "shop", name]

    cluster.restored = lose_markers
    result = run(spec)
    assert (fail(result), "not back" in result.reason) == ("marker-wrong", True)


def test_what_healed_without_a_restore_proves_nothing(run, spec, api):
    # Nothing is restored, yet by the time of verify somebody has made the object anew, as an operator would.
    web = copy.deepcopy(objects(spec)[1])
    spec["restore"] = [{"apply": {"manifest": web}}]
    result = run(spec)
    assert (fail(result), "not back" in result.reason) == ("marker-wrong", True)


def test_a_marker_that_was_made_anew_is_not_the_one_of_the_snapshot(run, spec, cluster):
    def make_anew(api):
        for name in markers(api):
            api.item("ConfigMap", name)["metadata"]["uid"] = "another"

    cluster.restored = make_anew
    result = run(spec)
    assert (fail(result), "another UID" in result.reason) == ("marker-wrong", True)


def test_a_change_made_after_the_snapshot_must_be_gone(run, spec, cluster, api):
    kept = {}
    api.after["delete", "ConfigMap"] = lambda api: kept.update(api.objects)
    cluster.restored = lambda api: api.objects.update({k: v for k, v in kept.items() if k not in api.objects})
    result = run(spec)
    assert (fail(result), "after the backup" in result.reason) == ("marker-wrong", True)


def test_markers_can_be_left_out(run, spec, api):
    spec["canary"] = False
    assert run(spec).verdict is Verdict.PASS
    assert ("create", "ConfigMap") not in api.calls


# ---- red before green ------------------------------------------------------------------------------------


def test_a_drill_whose_checks_never_were_red_is_vacuous(run, spec):
    spec["verify"] = [{"absent": {"kind": "Pod", "namespace": "shop"}}]
    result = run(spec)
    assert fail(result) == "drill-vacuous"
    assert "restore" not in [phase.name for phase in result.phases]


def test_a_drill_may_say_that_it_demands_no_red(run, spec):
    spec["verify"] = [{"absent": {"kind": "Pod", "namespace": "shop"}}]
    spec["prove"] = False
    result = run(spec)
    assert result.verdict is Verdict.PASS
    assert "prove: false" in result.reason


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"delete": {"kind": "Pod", "namespace": "shop", "selector": "app=nothing"}}, "nothing-broken"),
        ({"delete": {"kinds": ["ConfigMap", "Secret"], "namespace": "shop", "name": "web"}}, "nothing-broken"),
        ({"scale": {"kind": "Deployment", "namespace": "shop", "name": "nothing", "replicas": 0}}, "nothing-broken"),
        (
            {"patch": {"kind": "ConfigMap", "namespace": "shop", "name": "nothing", "patch": {"data": {"a": "b"}}}},
            "resource-not-found",
        ),
        (
            {"patch": {"kind": "ConfigMap", "namespace": "shop", "name": "web", "patch": {"data": {"page": "open"}}}},
            "nothing-broken",
        ),
    ],
)
def test_a_fault_that_breaks_nothing_is_an_error(run, spec, api, fault, code):
    spec["fault"] = [fault]
    assert error(run(spec)) == code
    assert "web" not in api.names("ConfigMap")  # what setup made is gone again


def test_an_empty_scope_is_an_error(run, spec):
    spec["scope"] = {"namespaces": ["elsewhere"]}
    assert error(run(spec)) == "scope-empty"


# ---- fresh status ----------------------------------------------------------------------------------------


@pytest.fixture
def pod_drill(spec, api):
    """A Pod comes back with the status that it had; the Lease of its node tells whether that is news."""
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "n1", "namespace": "kube-node-lease"},
        "spec": {"renewTime": "2020-01-01T00:00:00Z"},
    }
    api.create(lease)
    objects(spec).append(READY_POD)
    spec["fault"] = [{"delete": {"kind": "Pod", "namespace": "shop", "name": "web-1"}}]
    spec["verify"] = [{"ready": {"kind": "Pod", "namespace": "shop", "count": 1}}]
    return spec


def renew(api):
    lease = api.item("Lease", "n1", "kube-node-lease")
    lease["spec"]["renewTime"] = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()


def test_a_status_from_before_the_restore_does_not_count(run, pod_drill):
    result = run(pod_drill)
    assert (fail(result), "stale: Lease kube-node-lease/n1" in result.reason) == ("not-recovered", True)


def test_a_status_counts_once_its_node_has_spoken(run, pod_drill, cluster):
    cluster.restored = renew
    result = run(pod_drill)
    assert result.verdict is Verdict.PASS, result.reason


def test_a_restore_that_brings_no_status_asks_for_no_lease(run, pod_drill):
    pod_drill["canary"] = False
    pod_drill["restore"] = [{"apply": {"manifest": READY_POD}}]
    result = run(pod_drill)
    assert result.verdict is Verdict.PASS, result.reason


# ---- objectives ------------------------------------------------------------------------------------------


def test_a_recovery_that_takes_too_long_fails(run, spec, cluster):
    spec["objectives"] = {"rto": "20ms"}
    cluster.restored = lambda _: time.sleep(0.03)
    result = run(spec)
    assert fail(result) == "rto-missed"
    assert result.rto.total >= result.rto.restore >= 0.03


def test_the_time_that_we_take_to_look_at_the_fault_is_no_recovery_time(run, spec):
    result = run(spec)
    phases = {phase.name: phase.seconds for phase in result.phases}
    assert result.rto.total <= phases["restore"] + phases["verify"]


def test_more_lost_data_than_promised_fails(run, spec, cluster):
    spec["objectives"] = {"rpo": "20ms"}
    cluster.saved = lambda: time.sleep(0.03)
    result = run(spec)
    assert fail(result) == "rpo-missed"
    assert result.rpo >= 0.03


def test_less_lost_data_than_promised_passes(run, spec):
    spec["objectives"] = {"rpo": "1h"}
    assert run(spec).verdict is Verdict.PASS


def test_ticking_markers_narrow_down_what_was_lost(run, spec, cluster):
    """With one marker the loss is "at most since the backup began"; with many it is known better."""
    began = restored = None

    def ticks():
        return sum("tick-" in name for _, _, name in list(cluster.api.objects))

    def save():
        nonlocal began
        time.sleep(0.3)
        began, before = datetime.now(UTC), ticks()
        while "canary" in spec and ticks() < before + 2:
            time.sleep(0.01)

    def restore(_):
        nonlocal restored
        restored = datetime.now(UTC)

    cluster.saving, cluster.restored = save, restore
    one = run(spec).rpo
    spec["canary"] = {"every": "10ms"}
    many = run(spec).rpo
    assert one >= 0.3
    assert many < (restored - began).total_seconds()


def test_a_drill_that_takes_longer_than_it_may_is_an_error(run, spec, cluster):
    spec["timeout"] = "700ms"
    cluster.restored = lambda _: time.sleep(0.75)
    result = run(spec)
    assert (error(result), "after 700ms" in result.reason) == ("drill-timed-out", True)
    assert result.phases[-1].name == "cleanup"
    assert result.phases[-1].verdict is Verdict.PASS


def test_a_check_that_the_drills_own_time_cuts_short_could_not_tell(run, spec):
    spec["timeout"] = "1s"
    result = run(spec, omit_restore=True, longest_wait=None)
    assert error(result) == "drill-timed-out"


def test_a_check_whose_own_time_is_over_fails(run, spec):
    spec["verify"][0]["timeout"] = "50ms"
    assert fail(run(spec, omit_restore=True, longest_wait=None)) == "not-recovered"


# ---- PASS, FAIL, ERROR -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "raised", "verdict"),
    [
        ("save", EtcdUnavailableError("refused"), Verdict.ERROR),
        ("save", SnapshotIncompleteError("the stream ended early"), Verdict.ERROR),
        ("verify", SnapshotCorruptError("a bit is flipped"), Verdict.FAIL),
        ("verify", ObjectNotFoundError("before.db is gone"), Verdict.FAIL),
        ("verify", ObjectCorruptError("the encrypted bytes are cut"), Verdict.FAIL),
        ("verify", StoreError("no room in the scratch folder"), Verdict.ERROR),
        ("verify", EtcdUnavailableError("refused"), Verdict.ERROR),
        ("restore", RestoreError("etcd did not start", rolled_back=True), Verdict.FAIL),
        ("restore", SnapshotCorruptError("a bit is flipped"), Verdict.FAIL),
        ("restore", EtcdUnavailableError("refused"), Verdict.ERROR),
    ],
)
def test_a_backup_or_restore_proven_bad_fails_and_what_could_not_be_tried_is_an_error(
    run, spec, cluster, verb, raised, verdict
):
    spec["backup"].append({"verifyBackup": {"backup": "before"}})
    cluster.broken[verb] = raised
    result = run(spec)
    assert (result.verdict, result.code) == (verdict, raised.code)
    assert "small.drill.yaml:" in result.reason


def test_no_verdict_is_hidden_by_a_later_one(run, spec, cluster, api):
    cluster.broken["restore"] = RestoreError("etcd did not start", rolled_back=True)
    spec["cleanup"] = [{"scale": {"kind": "Deployment", "namespace": "shop", "name": "nothing", "replicas": 1}}]
    assert fail(run(spec)) == RestoreError.code


def test_the_phase_that_went_wrong_bears_the_verdict(run, spec, cluster):
    cluster.broken["restore"] = RestoreError("etcd did not start", rolled_back=True)
    verdicts = {phase.name: phase.verdict for phase in run(spec).phases}
    assert verdicts.pop("restore") is Verdict.FAIL
    assert set(verdicts.values()) == {Verdict.PASS}
