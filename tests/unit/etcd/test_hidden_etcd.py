"""Clusters whose etcd nobody reaches: a managed one is told apart from one whose node was not named."""

from types import SimpleNamespace

import pytest

from clusterguard.errors import ClusterError, ClusterUnreachableError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores.memory import MemoryStore


class Api:
    def __init__(self, *nodes, version="v1.33.1-eks-1b3c5d7", error=None):
        self.nodes, self.version, self.error = nodes, version, error

    def resource(self, kind):
        return kind

    def list(self, kind, *, label_selector):
        if self.error:
            raise self.error
        assert (kind, label_selector) == ("Node", "node-role.kubernetes.io/control-plane")
        return iter([{"metadata": {"name": name}} for name in self.nodes])

    def server_version(self):
        return self.version


def refusal(api, verb="restore"):
    cluster = SimpleNamespace(name="prod", api=api, etcd=None, control_plane=None)
    snapshotter = EtcdSnapshotter(store=MemoryStore())
    with pytest.raises(ClusterError) as caught:
        getattr(snapshotter, verb)("any", cluster)
    return caught.value


@pytest.mark.parametrize("verb", ["restore", "plan_restore"])
def test_a_managed_control_plane_is_sent_to_velero(verb):
    error = refusal(Api(), verb)
    assert (error.code, "v1.33.1-eks-1b3c5d7" in error.message) == ("etcd-managed", True)
    assert error.hint == "back up and restore it with Velero"


def test_a_node_that_nobody_named_is_asked_for():
    error = refusal(Api("cp-1"))
    assert (error.code, "cp-1" in error.message) == ("no-node-shell", True)
    assert "--node-shell ssh:HOST" in error.hint
    assert "Velero" not in error.hint


def test_a_cluster_that_does_not_answer_may_be_either():
    error = refusal(Api(error=ClusterUnreachableError("refused")))
    assert (error.code, "refused" in error.message) == ("etcd-hidden", True)
    assert "--node-shell" in error.hint
    assert "EKS" in error.hint
