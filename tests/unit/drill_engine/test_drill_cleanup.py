"""Nothing is touched that nobody allowed, and nothing stays that a drill made, however it ends."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from fake_cluster import FakeCluster, FakeSnapshotter

from clusterguard.drills import DrillRunner, DrillSettings, Verdict
from clusterguard.drills.events import DrillFinished, Note
from clusterguard.drills.markers import RUN_LABEL, Markers
from clusterguard.errors import ClusterError, ClusterUnreachableError, EtcdUnavailableError


def steps(result, phase="cleanup"):
    return [(step.title, step.verdict) for step in result.steps if step.phase == phase]


def applied(name, **more):
    return {
        "name": f"make {name}",
        "apply": {
            "manifest": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}}
        },
        **more,
    }


# ---- before anything is touched --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clusters": {"main": {"context": "prod"}}}, "is not allowed by name; nothing was touched"),
        ({"fault": [{"deleteCluster": {"name": "main"}}]}, "never deletes such a cluster"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_touched(run, spec, api, opened, change, reason):
    result = run(spec | change)
    assert (result.verdict, reason in result.reason) == (Verdict.ERROR, True), result.reason
    assert opened == []
    assert api.calls == []
    assert result.phases == ()


@pytest.mark.parametrize("hidden", ["etcd", "control_plane"])
def test_a_cluster_that_hides_what_the_drill_needs_is_left_alone(run, spec, cluster, hidden):
    setattr(cluster, hidden, None)
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert (result.code, "cluster `main`" in result.reason) == ("drill", True)
    assert cluster.api.touched() == []


@pytest.mark.parametrize(("globs", "allowed"), [((), False), (("prod",), False), (("staging-*",), True)])
def test_a_drill_cannot_allow_itself_an_existing_cluster(run, spec, opened, globs, allowed):
    spec["clusters"] = {"main": {"context": "staging-west"}}
    result = run(spec, allowed_contexts=globs)
    assert result.verdict is (Verdict.PASS if allowed else Verdict.ERROR)
    assert opened == (["context:staging-west"] if allowed else [])
    if not allowed:
        assert "--drill-allow-context 'staging-west'" in result.hint


def test_setup_does_not_take_over_what_is_somebody_elses(run, spec, api):
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}}
    api.create(theirs | {"data": {"page": "theirs"}})
    spec["setup"] = [applied("first"), {"apply": {"manifest": spec["setup"][0]["apply"]["manifest"][1]}}]
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert (result.code, "ConfigMap web" in result.reason) == ("object-of-others", True)
    assert api.item("ConfigMap", "web")["data"] == {"page": "theirs"}
    assert api.names("ConfigMap") == ["web"]  # what setup had made before is gone


def test_objects_of_others_that_a_fault_changes_are_not_marked_as_ours(run, spec, api):
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": "shop"}}
    api.create(theirs)
    spec["setup"][0]["apply"]["manifest"].pop(0)  # the namespace is theirs, too
    spec["fault"].append({"apply": {"manifest": theirs | {"data": {"page": "changed"}}}})
    spec["prove"] = False
    run(spec, omit_restore=True)
    assert api.item("ConfigMap", "theirs")["data"] == {"page": "changed"}
    assert api.item("ConfigMap", "theirs")["metadata"].get("labels") is None


# ---- afterwards ------------------------------------------------------------------------------------------


def broken_setup(spec, cluster):
    spec["setup"].append({"ready": {"kind": "Pod", "namespace": "shop"}, "timeout": "100ms"})


def broken_backup(spec, cluster):
    cluster.broken["save"] = EtcdUnavailableError("refused")


def broken_fault(spec, cluster):
    spec["fault"][0]["delete"]["name"] = "nothing"


def broken_restore(spec, cluster):
    cluster.broken["restore"] = EtcdUnavailableError("refused")


def nothing_broken(spec, cluster):
    pass


@pytest.mark.parametrize("breaking", [broken_setup, broken_backup, broken_fault, broken_restore, nothing_broken])
def test_cleanup_runs_however_the_drill_ends(run, spec, cluster, breaking):
    spec["cleanup"] = [applied("first"), applied("second")]
    breaking(spec, cluster)
    result = run(spec)
    assert (result.verdict is Verdict.PASS) == (breaking is nothing_broken)
    assert [title for title, _ in steps(result)][:2] == ["make second", "make first"]
    assert cluster.api.names("Namespace") == []


def test_a_removal_that_fails_keeps_no_other_from_being_tried(run, spec, api):
    """Each failure is told, and the drill is no pass."""
    spec["setup"] += [applied("first"), applied("second")]
    refused = ClusterError("an admission webhook refuses it")
    delete = api.delete

    def picky(resource, name, namespace=None, **options):
        if name in {"second", "first"}:
            raise refused
        delete(resource, name, namespace, **options)

    api.delete = picky
    result = run(spec)
    assert (result.verdict, dict(steps(result))["remove what setup made"]) == (Verdict.ERROR, Verdict.ERROR)
    (told,) = [step.detail for step in result.steps if step.title == "remove what setup made"]
    assert told.count(refused.message) == 2
    assert api.names("Namespace") == []


def test_a_marker_that_stays_keeps_no_other_from_going(api):
    markers = Markers(namespace="shop", run_id="ab12", now=lambda: datetime(2030, 1, 1, tzinfo=UTC))
    markers.write_before_backup(api)
    markers.write_after_backup(api)
    delete = api.delete

    def picky(resource, name, namespace=None, **options):
        if name.endswith("before-backup"):
            raise ClusterError("an admission webhook refuses it")
        delete(resource, name, namespace, **options)

    api.delete = picky
    with pytest.raises(ClusterError):
        markers.remove_all(api)
    assert api.names("ConfigMap") == ["clusterguard-marker-ab12-before-backup"]


def test_after_ctrl_c_cleanup_runs_and_ctrl_c_goes_on(run, spec, cluster, events):
    cluster.broken["restore"] = KeyboardInterrupt()
    spec["cleanup"] = [applied("first")]
    with pytest.raises(KeyboardInterrupt):
        run(spec)
    (result,) = [event.result for event in events if isinstance(event, DrillFinished)]
    assert (result.verdict, result.code) == (Verdict.ERROR, "interrupted")
    assert steps(result)[0] == ("make first", Verdict.PASS)
    assert cluster.api.names("Namespace") == []


def test_a_second_ctrl_c_skips_one_step_of_the_cleanup_and_no_more(run, spec, cluster, api):
    spec["cleanup"] = [
        applied("first"),
        {"scale": {"kind": "Deployment", "namespace": "shop", "name": "a", "replicas": 1}},
    ]
    api.errors["get", "Deployment"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(spec)
    assert api.names("Namespace") == []


def test_what_nobody_expected_is_cleaned_up_after_and_not_hidden(run, spec, cluster, events):
    cluster.broken["restore"] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        run(spec)
    assert cluster.api.names("Namespace") == []
    assert (events[-1].result.code, "ZeroDivisionError: a bug" in events[-1].result.reason) == (
        "unexpected-error",
        True,
    )


def test_a_drill_that_cannot_explain_itself_still_cleans_up(run, spec, cluster, monkeypatch):
    def collect(_):
        raise ZeroDivisionError

    monkeypatch.setattr("clusterguard.drills.cleanup.collect", collect)
    with pytest.raises(ZeroDivisionError):
        run(spec, omit_restore=True)
    assert cluster.api.names("Namespace") == []


def test_a_cleanup_that_fails_turns_a_pass_into_an_error(run, spec, cluster):
    spec["cleanup"] = [
        applied("first"),
        {"scale": {"kind": "Deployment", "namespace": "shop", "name": "a", "replicas": 1}},
    ]
    result = run(spec)
    assert (result.verdict, result.phases[-1].verdict) == (Verdict.ERROR, Verdict.ERROR)
    assert result.reason.startswith("cleanup: scale:")
    assert ("make first", Verdict.PASS) in steps(result)  # the others follow all the same


def test_cleanup_has_time_of_its_own_when_the_drills_is_over(run, spec, api):
    metadata = {"name": "slow", "namespace": "elsewhere", "finalizers": ["example.com/hold"]}
    slow = api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    waited = []
    api.after["delete", "ConfigMap"] = lambda _: (
        waited.append(
            threading.Timer(0.15, lambda: api.objects.pop(("ConfigMap", "elsewhere", slow["metadata"]["name"]), None))
        )
        or waited[-1].start()
    )
    spec["timeout"] = "1ms"
    spec["cleanup"] = [{"delete": {"kind": "ConfigMap", "namespace": "elsewhere", "name": "slow"}}]
    result = run(spec)
    assert result.code == "drill-timed-out"
    assert ("delete", Verdict.PASS) in steps(result)
    for timer in waited:
        timer.join()


def test_cleanup_has_nothing_to_delete_where_nothing_is(run, spec):
    spec["cleanup"] = [{"delete": {"kind": "Pod", "namespace": "shop", "selector": "app=web"}}]
    assert run(spec).verdict is Verdict.PASS


def test_cleanup_removes_only_what_bears_this_runs_label(run, spec, cluster):
    def somebody_takes_it(api):
        api.item("ConfigMap", "web")["metadata"]["labels"][RUN_LABEL] = "another-run"

    cluster.restored = somebody_takes_it
    spec["verify"] = [{"restored": {"ignore": ["metadata.labels"]}}]
    spec["setup"][0]["apply"]["manifest"].pop(0)  # no namespace, which would take everything with it
    assert run(spec).verdict is Verdict.PASS
    assert cluster.api.names("ConfigMap") == ["web"]


def test_markers_are_removed(run, spec, cluster):
    spec["canary"] = {"every": "5ms"}
    spec["setup"][0]["apply"]["manifest"].pop(0)
    assert run(spec).verdict is Verdict.PASS
    assert cluster.api.names("ConfigMap") == []


def test_markers_end_with_the_drill(run, spec, cluster):
    spec["canary"] = {"every": "5ms"}
    cluster.broken["save"] = EtcdUnavailableError("refused")
    run(spec)
    number = len(cluster.api.calls)
    time.sleep(0.03)
    assert len(cluster.api.calls) == number


def test_what_is_held_by_a_finalizer_is_named(run, spec, cluster, api):
    held = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": "shop", "finalizers": ["example.com/hold"]},
    }
    spec["setup"][0]["apply"]["manifest"].append(held)
    spec["fault"] = [{"delete": {"kind": "ConfigMap", "namespace": "shop", "name": "held"}, "timeout": "100ms"}]
    api.after["delete", "ConfigMap"] = lambda _: None
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert result.code == "wait-timeout"
    assert "ConfigMap held" in result.reason
    assert "example.com/hold" in result.reason


# ---- whose cluster it is ---------------------------------------------------------------------------------


@pytest.fixture
def our_run(load, cluster, monkeypatch, events):
    """Run a drill that opens its clusters by itself."""
    refs = []

    def open_cluster(cluster_ref, **_):
        refs.append(cluster_ref)
        return cluster

    monkeypatch.setattr("clusterguard.drills.clusters.open_cluster", open_cluster)
    monkeypatch.setattr("clusterguard.clusters.embedded.EmbeddedCluster", lambda **_: cluster)

    def our_run(spec, **settings):
        settings = {"longest_wait": timedelta(milliseconds=100)} | settings
        return DrillRunner(settings=DrillSettings(**settings), on_event=events.append).run(load(spec))

    our_run.refs = refs
    return our_run


def test_a_cluster_that_the_run_created_goes_as_a_whole(our_run, spec, cluster):
    assert our_run(spec).verdict is Verdict.PASS
    assert our_run.refs == ["embedded"]
    assert not cluster.running
    assert cluster.api.names("Namespace") == ["shop"]  # nobody tidies up what is thrown away


@pytest.mark.parametrize("cluster_ref", ["embedded:mine", "context:staging"])
def test_a_cluster_that_was_there_stays(our_run, spec, cluster, cluster_ref):
    cluster.running = True
    refused = our_run(spec, cluster=cluster_ref)
    assert (refused.verdict, our_run.refs, cluster.api.calls) == (Verdict.ERROR, [], [])
    result = our_run(spec, cluster=cluster_ref, allowed_contexts=("staging", "clusterguard-mine"))
    assert result.verdict is Verdict.PASS, result.reason
    assert cluster.running
    assert cluster.api.closed
    assert cluster.api.names("Namespace") == []


@pytest.mark.parametrize(
    ("keep", "green", "kept"),
    [("never", False, False), ("on-failure", True, False), ("on-failure", False, True), ("always", True, True)],
)
def test_a_cluster_is_kept_for_a_look_when_asked_for(our_run, spec, cluster, events, keep, green, kept):
    cluster.broken = {} if green else {"restore": EtcdUnavailableError("refused")}
    result = our_run(spec, keep=keep)
    assert cluster.running is kept
    assert ("kept: one" in result.phases[-1].detail) is kept
    assert any(isinstance(event, Note) and "/nowhere/kubeconfig" in event.text for event in events) is kept


def test_a_cluster_that_the_drill_deleted_is_gone(our_run, spec, cluster):
    spec["clusters"] = {"main": {}, "other": {"startIn": "restore"}}
    spec["fault"] = [{"deleteCluster": {"name": "main"}}]
    spec["restore"] = [applied("web", cluster="other")]
    web = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}}
    spec["verify"] = [{"assert": {"resource": web}, "cluster": "other"}]
    spec["cleanup"] = [applied("first")]
    result = our_run(spec, omit_restore=True)
    assert result.verdict is Verdict.FAIL
    assert (result.code, "`other`" in result.reason) == ("not-recovered", True)
    assert {step.title for step in result.steps if step.verdict is Verdict.FAIL} == {"assert", "markers"}


def test_an_api_server_that_is_gone_is_an_error_and_cleanup_says_so(run, spec, cluster, api):
    def gone(_):
        for verb in ("get", "list", "create", "delete"):
            for kind in ("ConfigMap", "Namespace"):
                api.errors[verb, kind] = ClusterUnreachableError("connection refused")

    cluster.saved = lambda: gone(None)
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert "connection refused" in result.reason
    assert ("remove what setup made", Verdict.ERROR) in steps(result)


def test_two_clusters_are_both_given_back_although_one_fails(load, spec, cluster, monkeypatch):
    other = FakeCluster("two")
    monkeypatch.setattr("clusterguard.drills.clusters.open_cluster", lambda *_, **__: given.pop())
    given = [other, cluster]

    def cannot_close():
        raise ClusterError("cannot be removed")

    other.close = cannot_close
    spec["clusters"] = {"main": {}, "other": {}}
    result = DrillRunner().run(load(spec))
    assert result.verdict is Verdict.ERROR
    assert "cleanup: close everything: cannot be removed" in result.reason
    assert not cluster.running


def test_databases_on_their_way_lie_where_the_settings_say(our_run, spec, monkeypatch, tmp_path):
    seen = set()

    class Snapshotter(FakeSnapshotter):
        def __init__(self, *, scratch, **options):
            seen.add(scratch)
            super().__init__(**options)

    monkeypatch.setattr("clusterguard.drills.run.EtcdSnapshotter", Snapshotter)
    assert our_run(spec, scratch=tmp_path).verdict is Verdict.PASS
    assert seen == {tmp_path}
