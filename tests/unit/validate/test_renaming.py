"""Inventories under other namespace names: what a restore with a mapping must come to."""

from datetime import UTC, datetime

import orjson
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.model.inventory import Inventory, ObjectRef, Scope, canonical
from clusterguard.validate.renaming import in_other_namespaces

NAMES = st.sampled_from(["shop", "bank", "zoo"])


def item(kind, name, namespace=None, api="v1", **fields):
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata | fields.pop("metadata", {}), **fields}


def inventory(*items, namespaces=("shop",)):
    objects = {ObjectRef.of(each): canonical(each) for each in items}
    scope = Scope(namespaces=namespaces)
    return Inventory(taken=datetime(2026, 1, 2, tzinfo=UTC), server_version="v1.36.3", scope=scope, objects=objects)


def renamed(*items, **names):
    moved = in_other_namespaces(inventory(*items), names or {"shop": "shop-restored"})
    return [orjson.loads(data) for data in moved.objects.values()]


def test_objects_move_with_their_references_and_the_scope():
    moved = in_other_namespaces(inventory(item("ConfigMap", "web", "shop")), {"shop": "new"})
    ((ref, data),) = moved.objects.items()
    assert (ref.namespace, ref.name) == ("new", "web")
    assert orjson.loads(data)["metadata"]["namespace"] == "new"
    assert moved.scope.namespaces == ("new",)


def test_a_namespace_moves_with_the_label_that_names_it_and_no_other():
    labels = {"kubernetes.io/metadata.name": "shop", "team": "shop"}
    (namespace,) = renamed(item("Namespace", "shop", metadata={"labels": labels}))
    assert namespace["metadata"]["name"] == "shop-restored"
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop-restored", "team": "shop"}


def test_subjects_of_a_role_binding_move_and_those_elsewhere_stay():
    subjects = [
        {"kind": "ServiceAccount", "name": "web", "namespace": "shop"},
        {"kind": "ServiceAccount", "name": "web", "namespace": "bank"},
        {"kind": "User", "name": "shop"},
    ]
    api = "rbac.authorization.k8s.io/v1"
    (binding,) = renamed(item("RoleBinding", "web", "shop", api, subjects=subjects))
    assert [each.get("namespace") for each in binding["subjects"]] == ["shop-restored", "bank", None]


def test_a_cluster_scoped_object_of_the_name_of_a_namespace_stays():
    (role,) = renamed(item("ClusterRole", "shop", api="rbac.authorization.k8s.io/v1", rules=[]))
    assert role["metadata"]["name"] == "shop"


def test_values_that_only_look_like_the_name_stay():
    (settings,) = renamed(item("ConfigMap", "shop", "shop", data={"namespace": "shop"}))
    assert settings["metadata"]["name"] == "shop"
    assert settings["data"] == {"namespace": "shop"}


def test_two_namespaces_may_trade_names():
    moved = renamed(item("ConfigMap", "one", "shop"), item("ConfigMap", "two", "bank"), shop="bank", bank="shop")
    assert {each["metadata"]["name"]: each["metadata"]["namespace"] for each in moved} == {"one": "bank", "two": "shop"}


@given(st.lists(st.tuples(NAMES, NAMES), max_size=6, unique=True))
def test_no_mapping_changes_nothing(pairs):
    before = inventory(*(item("ConfigMap", name, namespace) for namespace, name in pairs))
    assert in_other_namespaces(before, {}) is before
    assert in_other_namespaces(before, {"elsewhere": "nowhere"}).objects == before.objects


@given(st.lists(st.tuples(NAMES, NAMES), max_size=6, unique=True), st.permutations(["shop", "bank", "zoo"]))
def test_there_and_back_is_where_it_was(pairs, others):
    mapping = dict(zip(["shop", "bank", "zoo"], others, strict=True))
    before = inventory(*(item("ConfigMap", name, namespace) for namespace, name in pairs), namespaces=("shop", "zoo"))
    there = in_other_namespaces(before, mapping)
    assert len(there) == len(before)
    back = in_other_namespaces(there, {new: old for old, new in mapping.items()})
    assert back.objects == before.objects
    assert back.scope == before.scope
