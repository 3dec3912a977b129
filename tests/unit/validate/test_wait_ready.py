"""Waiting: by watch, with fresh status, without a break, and with a reason when in vain."""

from datetime import timedelta

import pytest
from fake_client import KINDS, NOW, FakeClient, kind, thing

from clusterguard.errors import (
    ClusterError,
    ClusterUnreachableError,
    ConfigError,
    ConflictError,
    ForbiddenError,
    WaitTimeoutError,
)
from clusterguard.validate import Selection, wait_ready

PODS = Selection(kind="Pod", namespace="shop")


def pod(name="web-1", *, ready=True, node="n1", **metadata):
    conditions = [{"type": "Ready", "status": str(ready)}]
    return thing(
        "Pod",
        name,
        metadata=metadata,
        spec={"nodeName": node},
        status={"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions},
    )


def lease(name="n1", namespace="kube-node-lease", renewed=NOW):
    return thing("Lease", name, namespace, "coordination.k8s.io/v1", spec={"renewTime": renewed.isoformat()})


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self):
        self.seconds = 0.0
        self.slept = []

    def __call__(self):
        return self.seconds

    def now(self):
        return NOW + timedelta(seconds=self.seconds)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.seconds += seconds

    def passing(self, *events, after=None):
        """A watch that yields these events and lasts its whole time."""

        def step(api, timeout):
            del api
            yield from events
            self.seconds += timeout if after is None else after

        return step


def wait(api, selection=PODS, **options):
    clock = options.pop("clock", None) or Clock()
    endless = [clock.passing()] * 100
    api.script += endless
    options = {"timeout_seconds": 30.0, **options}
    return wait_ready(api, selection, clock=clock, now=clock.now, sleep=clock.sleep, **options)


def test_what_is_ready_needs_no_waiting():
    api = FakeClient(pod())
    evidence = wait(api)
    assert evidence.objects == {"shop/web-1": "Running and Ready"}
    assert api.watched == []


def test_a_change_ends_the_wait_at_once():
    clock = Clock()
    api = FakeClient(pod(ready=False))
    api.script = [clock.passing(("MODIFIED", pod()))]
    assert wait(api, clock=clock).ready_after_seconds == 0
    assert len(api.watched) == 1


def test_readiness_must_hold():
    evidence = wait(FakeClient(pod()), stable_seconds=5)
    assert (evidence.ready_after_seconds, evidence.stable_seconds) == (0, 5)


def test_a_moment_of_not_being_ready_starts_the_stable_time_anew():
    clock = Clock()
    api = FakeClient(pod())
    flicker = [("MODIFIED", pod(ready=False)), ("MODIFIED", pod())]
    api.script = [clock.passing(), clock.passing(), clock.passing(*flicker)]
    evidence = wait(api, clock=clock, stable_seconds=5)
    assert evidence.ready_after_seconds == 2
    assert evidence.stable_seconds == 5


def test_an_api_server_that_does_not_answer_starts_the_stable_time_anew():
    clock = Clock()
    api = FakeClient(pod())
    api.script = [clock.passing(), ClusterUnreachableError("refused")]
    evidence = wait(api, clock=clock, stable_seconds=5)
    assert evidence.ready_after_seconds == pytest.approx(1.2)
    assert clock.slept == [0.2]


def test_after_a_forgotten_moment_the_objects_are_listed_again():
    clock = Clock()
    api = FakeClient(pod(), pod("web-2", ready=False))

    def forgotten(api, _):
        api.items = [pod()]
        return ConflictError("410 Gone")

    api.script = [forgotten]
    assert list(wait(api, clock=clock).objects) == ["shop/web-1"]


@pytest.mark.parametrize(
    ("items", "options", "reason"),
    [
        ([], {}, "no such object"),
        ([pod(ready=False)], {}, "shop/web-1: Running: Ready is False"),
        ([pod()], {"count": 2}, "1 objects, not exactly 2"),
        ([pod(), pod("web-2"), pod("web-3")], {"count": 2}, "3 objects, not exactly 2"),
        ([pod(deletionTimestamp="2026-01-01T00:00:00Z")], {}, "being deleted"),
        ([pod()], {"stable_seconds": 60}, "all ready, but only for 30.0 s of 60 s"),
    ],
)
def test_in_vain_it_says_who_is_not_ready_and_why(items, options, reason):
    with pytest.raises(WaitTimeoutError, match=reason):
        wait(FakeClient(*items), **options)


def test_every_name_that_was_asked_for_must_be_there():
    selection = Selection(kind="Pod", namespace="shop", names=("web-1", "web-2"))
    with pytest.raises(WaitTimeoutError, match="not there: web-2"):
        wait(FakeClient(pod(), pod("web-3")), selection)
    assert list(wait(FakeClient(pod(), pod("web-2"), pod("web-3", ready=False)), selection).objects) == [
        "shop/web-1",
        "shop/web-2",
    ]


# ---- freshness -------------------------------------------------------------------------------------------


def test_a_status_counts_once_the_node_has_renewed_its_lease():
    fresh = lease(renewed=NOW + timedelta(milliseconds=1))
    evidence = wait(FakeClient(pod(), fresh), fresh_since=NOW)
    assert list(evidence.leases) == ["kube-node-lease/n1"]
    assert "renewed" in evidence.freshness


def test_a_stale_status_is_not_ready_however_good_it_looks():
    with pytest.raises(WaitTimeoutError) as caught:
        wait(FakeClient(pod(), lease()), fresh_since=NOW)
    assert "stale" in caught.value.last_seen
    assert "kube-node-lease/n1" in caught.value.last_seen
    assert "12:00:00" in caught.value.last_seen


def test_a_pod_on_a_node_that_is_gone_is_never_fresh():
    with pytest.raises(WaitTimeoutError) as caught:
        wait(FakeClient(pod()), fresh_since=NOW)
    assert "kube-node-lease/n1" in caught.value.last_seen
    assert "stale" not in caught.value.last_seen


def test_every_node_must_give_a_sign_of_life():
    later = NOW + timedelta(seconds=1)
    api = FakeClient(pod(), pod("web-2", node="n2"), lease(renewed=later), lease("n2"))
    with pytest.raises(WaitTimeoutError) as caught:
        wait(api, fresh_since=NOW)
    assert "stale" in caught.value.last_seen
    assert "kube-node-lease/n2" in caught.value.last_seen


def test_a_renewal_before_our_eyes_counts_whatever_the_clocks_say():
    clock = Clock()
    behind = NOW - timedelta(hours=1)  # the node's clock is an hour slow
    api = FakeClient(pod(), lease(renewed=behind))

    def renewed(api, _):
        clock.seconds += 3
        moved = lease(renewed=behind + timedelta(seconds=3))
        api.items = [pod(), moved]
        return [("MODIFIED", moved)]

    api.script = [renewed]
    evidence = wait(api, clock=clock, fresh_since=NOW)
    assert evidence.ready_after_seconds == 3
    assert api.watched[0][0] == "Lease.coordination.k8s.io"


def test_the_api_servers_clock_and_not_ours_decides():
    api = FakeClient(pod(), lease(renewed=NOW + timedelta(seconds=30)))
    api.now = NOW + timedelta(hours=1)  # the cluster is an hour ahead, so that lease is old
    with pytest.raises(WaitTimeoutError, match="stale"):
        wait(api, fresh_since=NOW)


def test_a_deployment_counts_once_the_controller_manager_lives():
    web = thing("Deployment", "web", api="apps/v1", spec={"replicas": 0}, status={})
    selection = Selection(kind="Deployment", namespace="shop")
    with pytest.raises(WaitTimeoutError) as caught:
        wait(FakeClient(web), selection, fresh_since=NOW)
    assert "kube-system/kube-controller-manager" in caught.value.last_seen
    alive = lease("kube-controller-manager", "kube-system", NOW + timedelta(seconds=1))
    assert wait(FakeClient(web, alive), selection, fresh_since=NOW).leases


def without_lease(*, looks):
    """A cluster without leader election, whose controller manager looks at new ReplicaSets, or is dead."""
    web = thing("Deployment", "web", api="apps/v1", spec={"replicas": 0}, status={})
    api = FakeClient(web, kinds=(*KINDS, kind("ReplicaSet", "apps")))
    made = api.create

    def create(manifest, **where):
        item = made(manifest, **where)
        item["status"] = {"observedGeneration": 1} if looks else {}
        return item

    api.create = create
    return api


def test_a_controller_manager_without_a_lease_shows_itself_by_a_replica_set():
    api = without_lease(looks=True)
    clock = Clock()
    evidence = wait(api, Selection(kind="Deployment", namespace="shop"), fresh_since=NOW, clock=clock)
    assert evidence.leases == {}
    assert "has no Lease" in evidence.freshness
    assert [item["spec"]["replicas"] for item in api.made] == [0]
    assert api.removed == api.made
    assert clock() >= 10, "a leader that was just restarted has its time to take its Lease again"


def test_a_dead_controller_manager_without_a_lease_is_not_taken_for_a_live_one():
    api = without_lease(looks=False)
    with pytest.raises(WaitTimeoutError, match="has not looked at"):
        wait(api, Selection(kind="Deployment", namespace="shop"), fresh_since=NOW, stable_seconds=20)
    assert api.removed == api.made != []


def test_who_may_not_ask_for_the_sign_is_told_so():
    api = without_lease(looks=True)

    def forbidden(*_, **__):
        raise ForbiddenError("403 Forbidden")

    api.create = forbidden
    with pytest.raises(WaitTimeoutError, match="refused: 403"):
        wait(api, Selection(kind="Deployment", namespace="shop"), fresh_since=NOW)


def test_a_pod_that_failed_and_was_replaced_is_passed_over():
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": True}
    evicted = pod("web-0", ownerReferences=[owner]) | {"status": {"phase": "Failed", "reason": "Evicted"}}
    alive = lease(renewed=NOW + timedelta(seconds=1))
    evidence = wait(FakeClient(evicted, pod("web-1"), alive), count=1, fresh_since=NOW)
    assert list(evidence.objects) == ["shop/web-1"]
    with pytest.raises(WaitTimeoutError, match="no such object"):
        wait(FakeClient(evicted))
    bare = pod("once") | {"status": {"phase": "Failed"}}
    with pytest.raises(WaitTimeoutError, match="Failed"):
        wait(FakeClient(bare, pod("web-1")))


def test_a_kind_without_a_sign_of_life_needs_a_stable_time():
    api = FakeClient(thing("ConfigMap", "a"))
    selection = Selection(kind="ConfigMap")
    with pytest.raises(ConfigError, match="sign of life"):
        wait(api, selection, fresh_since=NOW)
    assert "stable time alone" in wait(api, selection, fresh_since=NOW, stable_seconds=1).freshness


def test_a_moment_without_a_time_zone_is_refused():
    with pytest.raises(ConfigError, match="time zone"):
        wait(FakeClient(pod()), fresh_since=NOW.replace(tzinfo=None))


def test_a_service_is_looked_at_through_its_slices():
    web = thing("Service", "web", spec={"type": "ClusterIP"})
    part = thing(
        "EndpointSlice",
        "web-1",
        api="discovery.k8s.io/v1",
        metadata={"labels": {"kubernetes.io/service-name": "web"}},
        endpoints=[{"conditions": {"ready": True}}],
    )
    selection = Selection(kind="Service", namespace="shop")
    assert wait(FakeClient(web, part), selection).objects == {"shop/web": "1 of 1 endpoints ready"}
    with pytest.raises(WaitTimeoutError, match="no endpoints"):
        wait(FakeClient(web), selection)


# ---- asking the kubelet ------------------------------------------------------------------------------------


def on_the_node(name="web-1", *, created="2026-01-02T11:00:00Z", uid=None, namespace="shop"):
    return {"namespace": namespace, "name": name, "uid": uid or f"uid-{name}", "containers": {"web": created}}


def started(at, name="web-1"):
    found = pod(name)
    found["status"]["containerStatuses"] = [{"name": "web", "state": {"running": {"startedAt": at}}}]
    return found


def asked(api, *answers, **options):
    """Wait on a cluster whose kubelet gives one answer after the other, the last one for good."""
    clock = Clock()
    api.items.append(thing("Node", "n1", namespace=""))
    api.kubelets["n1"] = answers[0]
    rest = list(answers[1:])

    def later(api, _):
        if rest:
            api.kubelets["n1"] = rest.pop(0)
        clock.seconds += 0.3
        yield from ()

    api.script += [later] * 100
    return wait_ready(api, PODS, timeout_seconds=10, clock=clock, now=clock.now, sleep=clock.sleep,
                      fresh_since=NOW, **options)  # fmt: skip


def test_a_pod_counts_when_its_kubelet_runs_it_whatever_the_leases_say():
    evidence = asked(FakeClient(started("2026-01-02T11:00:01Z"), lease()), [on_the_node()])
    assert evidence.freshness == "the kubelet of each pod's node runs its containers now"
    assert evidence.leases == {}


def test_a_restored_status_without_a_container_is_stale():
    api = FakeClient(started("2026-01-02T11:00:01Z"), lease(renewed=NOW + timedelta(seconds=5)))
    with pytest.raises(WaitTimeoutError) as caught:
        asked(api, [])
    assert caught.value.last_seen.startswith("shop/web-1: stale")


def test_a_container_younger_than_its_status_is_stale_until_the_status_is_written():
    api = FakeClient(started("2026-01-02T11:00:01Z"))
    with pytest.raises(WaitTimeoutError) as caught:
        asked(api, [on_the_node(created="2026-01-02T12:00:05Z")])
    assert "web is younger" in caught.value.last_seen


def test_a_container_of_the_status_that_does_not_run_is_named():
    found = on_the_node()
    found["containers"] = {"sidecar": "2026-01-02T11:00:00Z"}
    with pytest.raises(WaitTimeoutError) as caught:
        asked(FakeClient(started("2026-01-02T11:00:01Z")), [found])
    assert "web" in caught.value.last_seen
    assert "node n1" in caught.value.last_seen


def test_the_wait_ends_when_the_container_runs():
    evidence = asked(FakeClient(started("2026-01-02T11:00:01Z")), [], [], [on_the_node()])
    assert evidence.ready_after_seconds == pytest.approx(0.6)


def test_a_static_pod_is_known_by_the_hash_of_its_configuration():
    mirror = started("2026-01-02T11:00:01Z")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "0123abcd"}
    assert asked(FakeClient(mirror), [on_the_node(uid="0123abcd")])


def test_a_kubelet_that_does_not_answer_is_waited_for():
    gone = ClusterUnreachableError("502 Bad Gateway: dial tcp: refused")
    assert asked(FakeClient(started("2026-01-02T11:00:01Z")), gone, [on_the_node()])
    with pytest.raises(WaitTimeoutError) as caught:
        asked(FakeClient(started("2026-01-02T11:00:01Z")), gone)
    assert "node n1" in caught.value.last_seen
    assert "502" in caught.value.last_seen


def test_where_nobody_may_ask_a_kubelet_its_lease_must_do_and_that_is_said():
    fresh = lease(renewed=NOW + timedelta(milliseconds=1))
    evidence = asked(FakeClient(pod(), fresh), ClusterError("403 Forbidden: cannot get nodes/proxy"))
    assert evidence.freshness == (
        "each pod's node has renewed its Lease since (its kubelet was not asked: 403 Forbidden: cannot get nodes/proxy)"
    )
    with pytest.raises(WaitTimeoutError) as caught:
        asked(FakeClient(pod(), lease()), ClusterError("403 Forbidden: cannot get nodes/proxy"))
    assert "stale" in caught.value.last_seen
    assert "kube-node-lease/n1" in caught.value.last_seen


def test_simulated_nodes_have_no_kubelet_and_nothing_is_said_of_it():
    node = thing("Node", "n1", namespace="", metadata={"annotations": {"clusterguard.dev/simulated": "yes"}})
    api = FakeClient(pod(), node, lease(renewed=NOW + timedelta(milliseconds=1)))
    api.kubelets["n1"] = AssertionError("it was asked")
    assert wait(api, fresh_since=NOW).freshness == "each pod's node has renewed its Lease since"
