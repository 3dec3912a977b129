"""What a backup takes, object by object: each reason for leaving one out, red and green."""

import pytest
from coverage_objects import (
    ACCOUNT,
    BINDING,
    CLAIM,
    CONFIG,
    DEFINITION,
    MENU,
    NAMESPACE,
    OLD,
    ROLE,
    VOLUME,
    WORLD,
    YOUNG,
    claimed,
    etcd,
    found,
    taking,
    thing,
    velero,
)

from clusterguard.coverage.found import Binding, Kind
from clusterguard.coverage.takes import NEVER_RESTORED, Reason

EXCLUDED = {"velero.io/exclude-from-backup": "true"}


def why(kind, item, cluster=None, **spec):
    return taking(velero(**spec), cluster or found()).left_out(kind, item)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({}, None),
        ({"includedNamespaces": ["*"]}, None),
        ({"includedNamespaces": ["shop"]}, None),
        ({"includedNamespaces": ["sh*"]}, None),
        ({"includedNamespaces": ["other"]}, Reason.NAMESPACE_LEFT_OUT),
        ({"excludedNamespaces": ["shop"]}, Reason.NAMESPACE_LEFT_OUT),
        ({"includedResources": ["configmaps"]}, None),
        ({"includedResources": ["secrets"]}, Reason.KIND_LEFT_OUT),
        ({"excludedResources": ["configmaps"]}, Reason.KIND_LEFT_OUT),
        ({"includedNamespaceScopedResources": ["configmaps"]}, None),
        ({"includedNamespaceScopedResources": ["secrets"]}, Reason.KIND_LEFT_OUT),
        ({"excludedNamespaceScopedResources": ["*"]}, Reason.KIND_LEFT_OUT),
        ({"labelSelector": {"matchLabels": {"tier": "data"}}}, None),
        ({"labelSelector": {"matchLabels": {"tier": "web"}}}, Reason.OTHER_LABELS),
        ({"orLabelSelectors": [{"matchLabels": {"tier": "web"}}, {"matchLabels": {"tier": "data"}}]}, None),
        ({"orLabelSelectors": [{"matchLabels": {"tier": "web"}}]}, Reason.OTHER_LABELS),
    ],
)
def test_an_object_of_a_namespace(spec, reason):
    assert why(CONFIG, thing(tier="data"), **spec) is reason


def test_the_excluding_label_of_an_object_or_of_its_namespace():
    assert why(CONFIG, thing(**EXCLUDED)) is Reason.EXCLUDED_BY_LABEL
    assert why(CONFIG, thing(**{"velero.io/exclude-from-backup": "false"})) is None
    cluster = found({NAMESPACE: [thing("shop", "", **EXCLUDED)]})
    assert why(CONFIG, thing(), cluster) is Reason.EXCLUDED_BY_LABEL
    assert why(NAMESPACE, thing("shop", "", **EXCLUDED), cluster) is Reason.EXCLUDED_BY_LABEL


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"includedNamespaces": ["shop"]}, None),
        ({"includedNamespaces": ["other"]}, Reason.NAMESPACE_LEFT_OUT),
        ({"includeClusterResources": False}, Reason.KIND_LEFT_OUT),
        ({"includedResources": ["configmaps"]}, Reason.KIND_LEFT_OUT),
        ({"includedResources": ["configmaps", "namespaces"]}, None),
        ({"includedNamespaceScopedResources": ["configmaps"]}, None),
        ({"excludedClusterScopedResources": ["namespaces"]}, Reason.KIND_LEFT_OUT),
    ],
)
def test_the_namespace_itself(spec, reason):
    assert why(NAMESPACE, thing("shop", ""), **spec) is reason


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({}, Reason.CLUSTER_SCOPED),
        ({"includedNamespaces": ["shop"]}, Reason.CLUSTER_SCOPED),
        ({"includeClusterResources": True}, None),
        ({"includedClusterScopedResources": ["*"]}, None),
        ({"includedClusterScopedResources": ["worlds.example.com"]}, None),
        ({"includedClusterScopedResources": ["storageclasses"]}, Reason.CLUSTER_SCOPED),
        ({"includeClusterResources": False}, Reason.KIND_LEFT_OUT),
        ({"excludedClusterScopedResources": ["worlds"]}, Reason.KIND_LEFT_OUT),
        ({"includeClusterResources": True, "includedResources": ["configmaps"]}, Reason.KIND_LEFT_OUT),
        ({"includeClusterResources": True, "labelSelector": {"matchLabels": {"a": "b"}}}, Reason.OTHER_LABELS),
    ],
)
def test_a_cluster_scoped_object(spec, reason):
    assert why(WORLD, thing("one", ""), **spec) is reason


def test_a_definition_comes_with_its_custom_resources():
    name = thing("menus.example.com", "")
    with_some = found({DEFINITION: [name], MENU: [thing()]})
    assert why(DEFINITION, name, with_some) is None
    assert why(DEFINITION, name, found({DEFINITION: [name]})) is Reason.CLUSTER_SCOPED
    assert why(DEFINITION, name, with_some, includedNamespaces=["other"]) is Reason.CLUSTER_SCOPED
    assert why(DEFINITION, name, with_some, includeClusterResources=False) is Reason.KIND_LEFT_OUT


def test_a_volume_comes_with_its_claim():
    cluster = found({CLAIM: [thing("data")], VOLUME: [thing("pv", "")]}, claims=(claimed(),))
    assert why(VOLUME, thing("pv", ""), cluster) is None
    assert why(VOLUME, thing("other", ""), cluster) is Reason.CLUSTER_SCOPED
    assert why(VOLUME, thing("pv", ""), cluster, includedNamespaces=["other"]) is Reason.CLUSTER_SCOPED


def test_roles_and_bindings_come_with_the_accounts_in_them():
    bindings = (Binding("web", "reader", frozenset({"shop"})), Binding("far", "writer", frozenset({"other"})))
    cluster = found({ACCOUNT: [thing("web")]}, bindings=bindings)
    assert why(BINDING, thing("web", ""), cluster) is None
    assert why(ROLE, thing("reader", ""), cluster) is None
    assert why(BINDING, thing("far", ""), cluster) is Reason.CLUSTER_SCOPED
    assert why(ROLE, thing("writer", ""), cluster) is Reason.CLUSTER_SCOPED
    assert why(ROLE, thing("unbound", ""), cluster) is Reason.CLUSTER_SCOPED


def test_an_account_that_is_left_out_brings_nothing():
    cluster = found(
        {ACCOUNT: [thing("web"), thing("kept-out", **EXCLUDED)]},
        bindings=(Binding("web", "reader", frozenset({"shop"})),),
    )
    assert why(ROLE, thing("reader", ""), cluster) is Reason.CLUSTER_SCOPED


@pytest.mark.parametrize("name", sorted(NEVER_RESTORED))
def test_kinds_that_velero_never_restores_are_in_no_backup(name):
    kind = Kind(name, name.lower(), namespaced=False)
    assert why(kind, thing("one", ""), includeClusterResources=True) is Reason.NEVER_RESTORED
    assert taking(etcd(), found()).left_out(kind, thing("one", "")) is None


@pytest.mark.parametrize("source", [velero(), etcd()], ids=["velero", "etcd"])
def test_a_namespace_that_is_newer_than_the_backup_is_not_in_it(source):
    cluster = found({NAMESPACE: [thing("shop", "", created=YOUNG)]})
    assert taking(source, cluster).left_out(CONFIG, thing(created=YOUNG)) is Reason.NEWER
    assert taking(source, cluster).left_out(NAMESPACE, thing("shop", "")) is Reason.NEWER
    assert taking(source, found()).left_out(CONFIG, thing(created=YOUNG)) is None


def test_a_kind_that_is_newer_than_the_backup_is_not_in_it():
    young = found({DEFINITION: [thing("menus.example.com", "", created=YOUNG)], MENU: [thing()]})
    assert why(MENU, thing(), young) is Reason.NEWER
    assert why(DEFINITION, thing("menus.example.com", ""), young) is Reason.NEWER
    assert why(MENU, thing(), found({DEFINITION: [thing("menus.example.com", "", created=OLD)]})) is None


def test_velero_does_not_know_a_kind_at_once_and_etcd_does():
    cluster = found({DEFINITION: [thing("menus.example.com", "", created="2030-01-02T01:56:00Z")]})
    assert why(MENU, thing(), cluster) is Reason.NEWER
    assert taking(etcd(), cluster).left_out(MENU, thing()) is None


def test_velero_knows_its_own_kinds_from_its_start():
    schedules = Kind("Schedule.velero.io", "schedules.velero.io", namespaced=True)
    for created, reason in (("2030-01-02T01:56:00Z", None), (YOUNG, Reason.NEWER)):
        cluster = found({DEFINITION: [thing("schedules.velero.io", "", created=created)]})
        assert why(schedules, thing(), cluster) is reason


def test_etcd_has_everything_but_what_another_server_keeps():
    assert taking(etcd(), found()).left_out(WORLD, thing("one", "", **EXCLUDED)) is None
    elsewhere = found(aggregated=frozenset({"example.com"}))
    assert taking(etcd(), elsewhere).left_out(WORLD, thing("one", "")) is Reason.OTHER_SERVER
    assert taking(etcd(), elsewhere).left_out(CONFIG, thing()) is None


def test_every_reason_has_words():
    assert all(each.words for each in Reason)
