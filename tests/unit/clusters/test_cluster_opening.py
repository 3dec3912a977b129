"""Which cluster a reference or a name means, and what is refused before anything starts."""

from __future__ import annotations

import os
import socket

import pytest

from clusterguard.clusters import EmbeddedCluster, EtcdAccess, ExistingCluster, KindCluster, open_cluster
from clusterguard.clusters.base import Cluster
from clusterguard.clusters.embedded.records import ClusterRecord, Ports
from clusterguard.clusters.opening import context_of, require_allowed
from clusterguard.clusters.records import write_record
from clusterguard.errors import ClusterError, ConfigError, NotAllowedError, ProvisioningError
from clusterguard.process import ProcessRecord
from clusterguard.toolchain import Toolchain

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: here}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: here, user: {}}]
"""


def test_an_invalid_cluster_reference_is_refused():
    for cluster_ref in ("", "kinds", "kind:", "embedded:", "context", "context:", "kubeconfig:", "docker:x", ":x"):
        with pytest.raises(ConfigError) as raised:
            open_cluster(cluster_ref)
        assert repr(cluster_ref) in raised.value.message
        assert "embedded:NAME" in raised.value.hint


def test_references_name_clusters(tmp_path):
    file = tmp_path / "kubeconfig"
    etcd = EtcdAccess(endpoints=("https://127.0.0.1:2379",))
    context = open_cluster("context:prod", kubeconfig=file, etcd=etcd)
    assert (context.provider, context.name, context.context) == ("existing", "prod", "prod")
    assert (context.kubeconfig, context.etcd, context.control_plane) == (file, etcd, None)
    assert open_cluster(f"kubeconfig:{file}").kubeconfig == file
    assert open_cluster("embedded").provider == "embedded"
    assert open_cluster("kind").provider == "kind"


@pytest.mark.parametrize(
    "cluster", [EmbeddedCluster(), ExistingCluster(), KindCluster()], ids=["embedded", "existing", "kind"]
)
def test_every_provider_is_a_cluster(cluster):
    # isinstance() would ask for the properties, and those of a cluster that does not run raise.
    wanted = {name for name in vars(Cluster) if not name.startswith("_")}
    assert wanted <= {*dir(type(cluster)), *vars(cluster)}


def test_an_existing_cluster_is_never_ours(tmp_path):
    cluster = ExistingCluster(kubeconfig=tmp_path / "none")
    assert not cluster.created_by_us
    with pytest.raises(ConfigError, match="no such file"):
        cluster.api  # noqa: B018 - looking is the test


def test_an_existing_cluster_opens_its_client_once_and_closes_it(tmp_path):
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG)
    with ExistingCluster(kubeconfig=file) as cluster:
        assert cluster.api is cluster.api
    cluster.close()
    assert file.exists()


def test_names_that_are_no_folder_and_no_context_are_refused(tmp_path):
    for name in ("", "-x", "Upper", "under_score", "a/b", "..", "a" * 41, "ä", "a b"):
        for open_it in (EmbeddedCluster, EmbeddedCluster.attach):
            with pytest.raises(ConfigError) as raised:
                open_it(name, home=tmp_path)
            assert repr(name) in raised.value.message


def test_names_are_random_and_different_by_default():
    assert EmbeddedCluster().name != EmbeddedCluster().name


def test_nothing_can_be_asked_of_a_cluster_that_does_not_run(tmp_path):
    cluster = EmbeddedCluster("idle", home=tmp_path)
    for name in ("record", "etcd", "control_plane"):
        with pytest.raises(ClusterError) as raised:
            getattr(cluster, name)
        assert raised.value.code == "cluster-not-running"
    cluster.close()
    assert not list(tmp_path.iterdir())


def test_what_was_never_started_cannot_be_attached_to(tmp_path):
    with pytest.raises(ClusterError) as raised:
        EmbeddedCluster.attach("x", home=tmp_path)
    assert (raised.value.code, raised.value.fields["cluster"]) == ("cluster-not-found", "x")
    assert raised.value.hint == "clusterguard cluster up x"


def test_a_cluster_whose_owner_is_gone_cannot_be_attached_to(tmp_path):
    owner = ProcessRecord(pid=os.getpid(), started=-1.0)
    ports = Ports(etcd_client=1, etcd_peer=2, api=3)
    (tmp_path / "x").mkdir()
    write_record(tmp_path / "x", ClusterRecord(name="x", created=0, owner=owner, ports=ports, programs={}))
    with pytest.raises(ClusterError) as caught:
        EmbeddedCluster.attach("x", home=tmp_path)
    assert (caught.value.code, caught.value.fields) == ("cluster-not-running", {"cluster": "x"})


class NoPrograms(Toolchain):
    def ensure(self, *names):
        raise AssertionError("the toolchain was asked before the cheap checks")


def test_a_taken_api_port_is_told_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ProvisioningError) as caught:
            EmbeddedCluster(api_port=port, home=tmp_path, toolchain=NoPrograms()).start()
        assert (caught.value.code, caught.value.fields) == ("port-taken", {"port": port})
    assert not list(tmp_path.iterdir())


def test_a_number_beyond_all_ports_is_told(tmp_path):
    with pytest.raises(ConfigError, match="70000"):
        EmbeddedCluster(api_port=70_000, home=tmp_path, toolchain=NoPrograms()).start()


ALLOWED = [
    ("embedded", (), True),  # created by whoever opens them
    ("kind", (), True),
    ("embedded:mine", (), False),
    ("embedded:mine", ("mine",), False),
    ("embedded:mine", ("clusterguard-mine",), True),
    ("kind:mine", (), False),
    ("kind:mine", ("mine",), False),
    ("kind:mine", ("kind-*",), True),
    ("context:staging", ("prod",), False),
    ("context:staging", ("prod", "stag*"), True),
    ("context:Staging", ("staging",), False),
    ("context:arn:aws:eks:eu-central-1:1:cluster/a", ("arn:aws:eks:*:cluster/a",), True),
    ("kubeconfig:/etc/kube", ("/etc/*",), True),
    ("kubeconfig:/etc/kube", ("kube",), False),
    ("embedded:", (), False),
    ("kinds", (), False),
]


def test_only_what_was_created_or_allowed_by_name_may_be_destroyed_in():
    for cluster_ref, globs, allowed in ALLOWED:
        if allowed:
            require_allowed(cluster_ref, globs)
            continue
        with pytest.raises(NotAllowedError) as raised:
            require_allowed(cluster_ref, globs)
        assert raised.value.fields == {"cluster": cluster_ref, "context": context_of(cluster_ref)}
        assert f"'{context_of(cluster_ref)}'" in raised.value.hint
