"""A cluster that was kept for a look can be used again: what the earlier run made goes first, and nothing else."""

import pytest

from clusterguard.drills import Verdict
from clusterguard.drills.events import Note
from clusterguard.drills.markers import RUN_LABEL

EARLIER = {"clusterguard.dev/run": "0000dead"}


@pytest.fixture
def kept(cluster):
    cluster.kept = True
    cluster.keep = lambda: None
    return cluster


def left(api, labels):
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": dict(labels)}}
    page = {"name": "web", "namespace": "shop", "labels": dict(labels)}
    api.create(namespace)
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": page, "data": {"page": "old"}})


def notes(events):
    return [event.text for event in events if isinstance(event, Note)]


def test_the_label_is_the_one_of_runs():
    assert set(EARLIER) == {RUN_LABEL}


def test_what_an_earlier_run_left_goes_before_setup(run, spec, kept, events):
    left(kept.api, EARLIER)
    result = run(spec)
    assert result.verdict is Verdict.PASS, result.reason
    assert "removed 2 object(s) of an earlier run from the kept cluster `main`" in notes(events)


def test_what_bears_no_label_of_a_run_is_still_refused(run, spec, kept):
    left(kept.api, {})
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert result.code == "object-of-others"
    assert kept.api.item("ConfigMap", "web")["data"] == {"page": "old"}


@pytest.mark.parametrize("is_kept", [None, False])
def test_in_a_cluster_that_clusterguard_did_not_keep_nothing_is_removed(run, spec, cluster, is_kept):
    if is_kept is not None:
        cluster.kept, cluster.keep = is_kept, lambda: None
    left(cluster.api, EARLIER)
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert result.code == "object-of-others"
    assert cluster.api.item("ConfigMap", "web")["data"] == {"page": "old"}


def test_a_new_cluster_has_no_leftovers(run, spec, kept, events):
    assert run(spec).verdict is Verdict.PASS
    assert not [text for text in notes(events) if "earlier run" in text]
