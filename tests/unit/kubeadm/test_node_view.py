"""What kubelets say they run, beside what the API knows."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.clusters.node_view import NodeView, RunningPod, orphaned_pods, settled_orphaned_pods
from clusterguard.errors import ClusterError, ClusterUnreachableError


def running(uid, node="n1"):
    pod = RunningPod(key=f"shop/{uid}", uid=uid, containers=frozenset({"web"}))
    return NodeView(node=node, pods={uid: pod}, created={})


def known(uid, **annotations):
    return {"metadata": {"uid": uid, "annotations": annotations}}


class Api:
    def __init__(self, *answers):
        self.answers = list(answers)

    def resource(self, kind):
        return kind

    def list(self, kind):
        return [{"metadata": {"name": "n1"}}] if kind == "Node" else [known("a")]

    def request(self, method, path, **_):
        if "stats" in path:
            return SimpleNamespace(json=dict)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        items = [{"metadata": {"namespace": "shop", "name": uid, "uid": uid}, "spec": {"containers": [{"name": "web"}]}}
                 for uid in answer]  # fmt: skip
        return SimpleNamespace(json=lambda: {"items": items})


def settled(api, seconds=3):
    time = SimpleNamespace(now=0.0)

    def sleep(duration):
        time.now += duration

    return settled_orphaned_pods(api, settle_seconds=seconds, clock=lambda: time.now, sleep=sleep), time.now


def test_a_pod_that_only_its_node_knows_is_named():
    assert orphaned_pods([running("a"), running("b")], [known("a")]) == ("shop/b on n1",)


def test_a_static_pod_is_known_by_its_mirror():
    mirror = known("api-uid", **{"kubernetes.io/config.mirror": "hash"})
    assert orphaned_pods([running("hash")], [mirror]) == ()


@given(st.sets(st.text("ab", min_size=1)), st.sets(st.text("ab", min_size=1)))
def test_orphaned_pods_are_exactly_what_runs_and_is_not_known(on_nodes, in_api):
    found = orphaned_pods([running(uid) for uid in on_nodes], [known(uid) for uid in in_api])
    assert set(found) == {f"shop/{uid} on n1" for uid in on_nodes - in_api}


def test_where_there_are_none_no_time_is_spent():
    assert settled(Api(["a"])) == ([], 0.0)


def test_the_kubelet_gets_time_to_end_them():
    warnings, seconds = settled(Api(["a", "b"], ["a", "b"], ["a"]))
    assert warnings == []
    assert seconds == pytest.approx(0.4)


def test_one_that_stays_is_a_warning_by_name():
    warnings, _ = settled(Api(["a", "b"]))
    assert warnings == ["shop/b on n1 runs, but the restored state does not know it: crictl stopp it there"]


@pytest.mark.parametrize("error", [ClusterError("403 Forbidden"), ClusterUnreachableError("502 Bad Gateway")])
def test_what_could_not_be_looked_at_is_no_all_clear(error):
    (warning,), _ = settled(Api(error))
    assert "were not looked for: " + error.message in warning


def test_a_kubelet_that_restarts_is_waited_for():
    assert settled(Api(ClusterUnreachableError("502"), ["a"]))[0] == []


def test_a_sandbox_without_a_container_is_no_running_pod():
    view = NodeView(node="n1", pods={}, created={})
    pod = {"metadata": {"uid": "a"}, "status": {"phase": "Running"}}
    assert "no container of it runs on node n1" in view.trouble(pod)
