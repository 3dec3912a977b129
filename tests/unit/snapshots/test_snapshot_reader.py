"""`SnapshotReader` on small databases: what it lists, gets and finds, and that it decodes no more than it must."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bolt_pages import History, etcd_image, with_trailer
from clusterguard import SnapshotReader
from clusterguard.errors import ConfigError, ResourceNotFoundError, SnapshotCorruptError, StoredObjectError
from clusterguard.etcd.protobuf import length_delimited as text
from clusterguard.snapshots.resources import BUILT_IN, find_resource, place_of
from clusterguard.snapshots.values import ValueDecoder
from small_snapshot import OBJECTS, file_of, history_of, stored, widget


@pytest.fixture
def reader(tmp_path):
    with SnapshotReader(path=file_of(tmp_path, history_of(OBJECTS))) as opened:
        yield opened


def test_contents_are_counted_without_decoding(reader, monkeypatch):
    monkeypatch.setattr(ValueDecoder, "decode", lambda *_, **__: pytest.fail("a value was decoded"))
    found = reader.contents()
    assert {kind.resource: (kind.objects, kind.namespaces) for kind in found.kinds} == {
        "endpoints": (1, 1),
        "nodes": (1, 0),
        "pods": (3, 2),
        "secrets": (2, 1),
        "services": (1, 1),
        "widgets.example.com": (1, 1),
    }
    assert (found.bookkeeping, found.elsewhere) == (2, {"/kubernetes.io": 1, "compact_rev_key": 1})
    assert found.unknown == {}
    assert found.revision == len(OBJECTS) + 1
    assert [str(key) for key in reader.keys("po", namespace="shop")] == ["pods shop/db-1", "pods shop/web-1"]


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("/registry/metrics.example.com/samples/shop/web/cpu", "/registry/metrics.example.com/samples"),
        ("/registry/pods/nowhere", "/registry/pods"),
        ("/registry/nodes/a/b/c", "/registry/nodes"),
        ("/registry/services/other/shop/web/x", "/registry/services"),
        ("/registry/alone", "/registry/"),
        ("/registry/caf\xff/a/b/c", "/registry/caf\xff"),
    ],
)
def test_keys_that_belong_to_nothing_known_are_counted_by_where_they_lie(tmp_path, key, place):
    others = dict.fromkeys([key, "/registry/ranges/deep/er/still"], b"x")
    with SnapshotReader(path=file_of(tmp_path, history_of(OBJECTS | others))) as reader:
        found = reader.contents()
    assert (found.unknown, found.bookkeeping) == ({place: 1}, 3)
    assert sum(kind.objects for kind in found.kinds) == 9


def test_a_selector_decodes_only_the_kind(reader):
    found = reader.objects("pods", selector="app=web,app!=db")
    assert [str(each.key) for each in found] == ["pods other/web-9", "pods shop/web-1"]
    assert [each.data["metadata"]["name"] for each in reader.objects("Pod", namespace="other")] == ["web-9"]


def test_what_cannot_be_read_is_listed_with_the_reason(reader):
    found = {each.key.name: each for each in reader.objects("secrets", selector="app=web")}
    assert found.keys() == {"sealed"}
    assert found["sealed"].data is None
    assert found["sealed"].error.code == "stored-object-kms"


@pytest.mark.parametrize("kind", ["node", "nodes", "no", "Node", "nodes.v1."])
def test_get_takes_kinds_as_kubectl_does(reader, kind):
    found = reader.get(kind, "node-1")
    assert (found["kind"], found["metadata"]["name"]) == ("Node", "node-1")


@pytest.mark.parametrize("kind", ["widgets", "widget", "widgets.example.com", "widgets.v1.example.com"])
def test_get_finds_custom_resources_by_the_keys_alone(reader, kind):
    assert reader.get(kind, "a", namespace="shop")["spec"] == {"note": "a <b> & c"}


@pytest.mark.parametrize("kind", ["po", "widgets.example.com"])
def test_once_all_keys_are_known_get_does_not_search_the_file(reader, monkeypatch, kind):
    name = "web-1" if kind == "po" else "a"
    searched = reader.get(kind, name, namespace="shop")
    reader.contents()
    monkeypatch.setattr(reader._keyspace, "history", lambda _: pytest.fail("the file was searched"))
    assert reader.get(kind, name, namespace="shop") == searched


def test_services_and_their_endpoints_are_told_apart(reader):
    assert reader.get("svc", "web", namespace="shop")["kind"] == "Service"
    assert reader.get("ep", "web", namespace="shop")["kind"] == "Endpoints"


def test_what_is_not_there_is_said(reader):
    with pytest.raises(ResourceNotFoundError):
        reader.get("pods", "web-2", namespace="shop")
    with pytest.raises(ResourceNotFoundError) as caught:
        reader.get("widgits.example.com", "a", namespace="shop")
    assert "widgets.example.com" in caught.value.hint
    for arguments in ({"namespace": ""}, {"namespace": "shop"}):
        with pytest.raises(ConfigError):
            reader.get("pods" if not arguments["namespace"] else "nodes", "node-1", **arguments)


def test_an_object_that_cannot_be_read_is_named(reader):
    with pytest.raises(StoredObjectError) as caught:
        reader.get("secrets", "sealed", namespace="shop")
    assert caught.value.code == "stored-object-kms"
    assert "secrets shop/sealed" in caught.value.message


def test_history_has_what_the_file_still_holds(tmp_path):
    key = b"/registry/example.com/widgets/shop/a"
    history = History()
    for size in (1, 2):
        history.transaction([key], value=widget("a", size=size))
    history.transaction([], [key])
    history.transaction([key], value=widget("a", size=3))
    with SnapshotReader(path=file_of(tmp_path, history)) as reader:
        changes = reader.history("widgets", "a", namespace="shop")
        assert [(each.revision, each.is_deletion) for each in changes] == [
            (2, False),
            (3, False),
            (4, True),
            (5, False),
        ]
        sizes = {at: reader.get("widgets", "a", namespace="shop", revision=at)["spec"] for at in (2, 3, 5, None)}
        assert sizes == {2: {"size": 1}, 3: {"size": 2}, 5: {"size": 3}, None: {"size": 3}}
        for revision in (1, 4):
            with pytest.raises(ResourceNotFoundError):
                reader.get("widgets", "a", namespace="shop", revision=revision)
        with pytest.raises(ConfigError):
            reader.read(changes[2])


def test_search_finds_values_names_and_what_secrets_hold(reader):
    assert [str(each.key) for each in reader.search("s3cret", kind="secrets") if each.data] == ["secrets shop/db"]
    assert [str(each.key) for each in reader.search("a <b> & c") if each.data] == ["widgets.example.com shop/a"]
    assert [str(each.key) for each in reader.search("web-9")] == ["pods other/web-9", "secrets shop/sealed"]


def test_another_prefix(tmp_path):
    with SnapshotReader(path=file_of(tmp_path, history_of(OBJECTS)), prefix="kubernetes.io") as reader:
        assert [str(each) for each in reader.keys()] == ["pods shop/web-1"]  # noqa: SIM118 - no mapping
        assert reader.contents().elsewhere["/registry"] == len(OBJECTS) - 2


def test_what_is_no_database_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(SnapshotCorruptError):
        SnapshotReader(path=path)


def test_a_version_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        SnapshotReader(path=file_of(tmp_path, history_of(OBJECTS)), kubernetes="latest")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("pods/shop/web", ("pods", "shop", "web")),
        ("controllers/shop/web", ("replicationcontrollers", "shop", "web")),
        ("ingress/shop/web", ("ingresses.networking.k8s.io", "shop", "web")),
        ("clusterroles/system:node", ("clusterroles.rbac.authorization.k8s.io", "", "system:node")),
        ("apiregistration.k8s.io/apiservices/v1.apps", ("apiservices.apiregistration.k8s.io", "", "v1.apps")),
        ("example.com/things/a", ("things.example.com", "", "a")),
        ("routes/shop/web", ("routes", "shop", "web")),
        ("pods/web", None),
        ("minions/shop/web", None),
        ("health", None),
        ("a/b/c/d", None),
        ("ranges/serviceips", None),
    ],
)
def test_keys_say_what_they_name(key, place):
    found = place_of(key)
    assert (found and (str(found.resource), found.namespace, found.name)) == place


def test_every_kind_is_found_by_each_of_its_names():
    for resource in BUILT_IN:
        for name in (resource.plural, resource.kind, str(resource), *resource.aliases):
            assert find_resource(name, ()) == resource


TEMPLATE = stored("PodTemplate", "t", "shop", rest=text(2, b""))
WRITTEN = b"kind: ClusterConfiguration\nkubernetesVersion: v1.33.4\n"
KUBEADM = {
    "/registry/configmaps/kube-system/kubeadm-config": stored(
        "ConfigMap",
        "kubeadm-config",
        "kube-system",
        rest=text(2, text(1, b"ClusterConfiguration") + text(2, WRITTEN)),
    )
}


def node(version):
    return {"/registry/minions/node-1": stored("Node", "node-1", rest=text(3, text(7, text(7, version))))}


@pytest.mark.parametrize(
    ("objects", "kubernetes", "written"),
    [
        pytest.param({}, "", False, id="nothing tells"),
        pytest.param({}, "1.33", True, id="said"),
        pytest.param(KUBEADM, "", True, id="by kubeadm"),
        pytest.param(KUBEADM, "v1.36.3", False, id="said otherwise"),
        pytest.param(node(b"v1.33.1+k3s1"), "", True, id="by a node"),
        pytest.param(node(b"v1.36.1"), "", False, id="by a new node"),
    ],
)
def test_empty_fields_are_written_as_the_version_does_that_the_snapshot_tells(tmp_path, objects, kubernetes, written):
    path = file_of(tmp_path, history_of({"/registry/podtemplates/shop/t": TEMPLATE, **objects}))
    with SnapshotReader(path=path, kubernetes=kubernetes) as reader:
        found = reader.get("podtemplates", "t", namespace="shop")
        assert ("creationTimestamp" in found["template"]["metadata"]) is written


def test_a_reader_tells_the_version_and_may_be_told_another(tmp_path):
    path = file_of(tmp_path, history_of({"/registry/podtemplates/shop/t": TEMPLATE, **node(b"v1.33.1+k3s1")}))
    with SnapshotReader(path=path) as reader:
        assert reader.cluster_kubernetes == "v1.33.1+k3s1"
        for version, written in (("", True), ("1.36.3", False), ("1.30", True), ("", True)):
            reader.write_as(version)
            found = reader.get("podtemplates", "t", namespace="shop")
            assert ("creationTimestamp" in found["template"]["metadata"]) is written
        with pytest.raises(ConfigError):
            reader.write_as("latest")
    with SnapshotReader(path=file_of(tmp_path, history_of(OBJECTS))) as reader:
        assert reader.cluster_kubernetes == ""


def test_several_threads_read_at_once(tmp_path):
    path = file_of(tmp_path, history_of({f"/registry/pods/shop/{n}": stored("Pod", str(n), "shop") for n in range(99)}))
    with SnapshotReader(path=path) as reader, ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda n: reader.get("pods", str(n), namespace="shop"), range(99))
        listed = [threads.submit(lambda: [each.data for each in reader.objects()]) for _ in range(4)]
        assert [each["metadata"]["name"] for each in found] == [str(n) for n in range(99)]
        assert {len(each.result()) for each in listed} == {99}


IMAGE = with_trailer(etcd_image([change.row for change in history_of(OBJECTS).changes], page_size=1024))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(2048, len(IMAGE) - 33), byte=st.integers(0, 255))
def test_a_damaged_page_is_one_error_or_harmless(tmp_path, at, byte):
    path = tmp_path / "damaged.db"
    path.write_bytes(IMAGE[:at] + bytes([byte]) + IMAGE[at + 1 :])
    try:
        with SnapshotReader(path=path) as reader:
            reader.contents()
            reader.history("pods", "web-1", namespace="shop")
            for found in reader.objects():
                assert found.error is None or found.error.code.startswith("stored-object-")
    except SnapshotCorruptError:
        return


def test_keys_of_more_than_127_bytes(tmp_path):
    name = "x" * 200
    objects = {f"/registry/pods/shop/{name}": stored("Pod", name, "shop")}
    with SnapshotReader(path=file_of(tmp_path, history_of(objects))) as reader:
        assert [key.name for key in reader.keys("pods")] == [name]
        assert reader.get("pods", name, namespace="shop")["metadata"]["name"] == name


def test_a_custom_resource_is_found_without_a_walk_by_its_whole_name(tmp_path, monkeypatch):
    with SnapshotReader(path=file_of(tmp_path, history_of(OBJECTS))) as reader:
        monkeypatch.setattr(reader, "_places", lambda: pytest.fail("all keys were walked"))
        assert reader.get("widgets.example.com", "a", namespace="shop")["kind"] == "Widget"
