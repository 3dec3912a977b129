"""A drill holds the lock of every cluster that it changes and did not create, from before setup to the very end."""

import pytest

from clusterguard.clusters.lock import NAME, NAMESPACE
from clusterguard.drills import Verdict
from clusterguard.drills.clusters import changed_clusters
from clusterguard.drills.events import Note
from clusterguard.errors import ForbiddenError

KEY = ("Lease", NAMESPACE, NAME)


def lease(holder):
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 40}
    metadata = {"name": NAME, "namespace": NAMESPACE}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


@pytest.fixture
def another(api):
    """Another run, which renews its lock whenever somebody looks."""

    class Another:
        def takes_it(self):
            get = api.get

            def renewed(resource, name, namespace=None):
                if resource.kind == "Lease":
                    api._store(KEY, lease("drill other"))
                return get(resource, name, namespace)

            api.get = renewed

    return Another()


def holders(api):
    return [item["spec"]["holderIdentity"] for key, item in api.objects.items() if key == KEY]


def test_it_is_held_from_before_setup_until_nothing_is_left(run, spec, cluster, api):
    seen = []
    create, delete = api.create, api.delete
    api.create = lambda manifest: seen.append((manifest["kind"], holders(api))) or create(manifest)
    api.delete = lambda *args, **options: seen.append((args[0].kind, holders(api))) or delete(*args, **options)
    cluster.restored = lambda api: seen.append(("restored", []))
    assert run(spec).verdict is Verdict.PASS
    (first, *rest) = seen
    assert first == ("Lease", [])  # before anything else
    assert all(held and held[0].startswith("drill small, run ") for kind, held in rest if kind != "restored")
    assert rest[-1][0] == "Lease"
    assert holders(api) == []


def test_a_restore_does_not_lose_it(run, spec, cluster, api):
    """The snapshot is of a moment at which the same run held it, or, in a real drill of a stored backup, nobody."""
    cluster.restored = lambda api: api.objects.pop(KEY)
    assert run(spec).verdict is Verdict.PASS
    assert holders(api) == []


def test_a_cluster_that_another_run_works_in_is_left_alone(run, spec, api, another):
    another.takes_it()
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert "drill other" in result.reason
    assert api.touched() == []
    assert holders(api) == ["drill other"]


def test_a_lock_that_is_lost_ends_the_drill_before_its_next_step(run, spec, cluster, api, another):
    cluster.saved = another.takes_it  # such as somebody who restored the cluster's etcd
    result = run(spec)
    assert (result.verdict, result.rto) == (Verdict.ERROR, None)
    assert "drill other" in result.reason
    assert [phase.name for phase in result.phases][-2:] == ["fault", "cleanup"]
    assert [(step.title, step.verdict) for step in result.steps if step.phase == "fault"] == [("delete", Verdict.ERROR)]
    assert holders(api) == ["drill other"]


def test_one_that_is_lost_while_it_is_verified_proves_nothing(run, spec, cluster, another, api):
    cluster.restored = lambda _: None
    listed = api.list_pages

    def list_pages(resource, *args, **options):
        if ("restored", True) in marks:
            another.takes_it()
        yield from listed(resource, *args, **options)

    marks = []
    cluster.restored = lambda _: marks.append(("restored", True))
    api.list_pages = list_pages
    result = run(spec)
    assert result.verdict is Verdict.ERROR
    assert "drill other" in result.reason


def test_without_the_right_to_write_leases_nothing_is_touched(run, spec, api):
    api.errors["create", "Lease"] = ForbiddenError("leases is forbidden")
    result = run(spec)
    assert (result.verdict, "leases is forbidden" in result.reason) == (Verdict.ERROR, True)
    assert api.names("Namespace") == []


def test_what_is_waited_for_is_told(run, spec, api, another, events):
    another.takes_it()
    run(spec)
    assert [event for event in events if isinstance(event, Note) and "drill other" in event.text]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({}, {"main"}),
        ({"clusters": {"main": {}, "other": {"context": "x"}}}, {"main"}),
        ({"verify": [{"restored": {}}, {"ready": {"kind": "Pod", "namespace": "shop"}, "cluster": "other"}]}, {"main"}),
        ({"restore": [{"etcdRestore": {"from": "before"}, "cluster": "other"}]}, {"main", "other"}),
    ],
)
def test_a_cluster_that_a_drill_only_looks_at_is_not_locked(load, spec, change, changed):
    spec["clusters"] = {"main": {}, "other": {"context": "x"}}
    assert changed_clusters(load(spec | change)) == changed
