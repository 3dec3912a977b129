"""What a backup lacks of what it seems to hold; specs and lists as Velero 1.18.3 made them."""

import pytest

from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.completeness import shortcomings
from clusterguard.velero.options import BackupOptions
from clusterguard.velero.outcome import Rule, judge_backup
from clusterguard.velero.resources import Backup

SHOP = ["Namespace shop", "ConfigMap shop/settings", "ConfigMap shop/kube-root-ca.crt", "ServiceAccount shop/default"]
BARE = ["Namespace shop"]
EMPTY = ["Namespace shop", "ConfigMap shop/kube-root-ca.crt", "ServiceAccount shop/default", "Event shop/started"]
THING = "Thing.example.com shop/t"
DEFINITION = "CustomResourceDefinition.apiextensions.k8s.io things.example.com"


def refs(texts):
    for text in texts:
        full_kind, _, full_name = text.partition(" ")
        kind, _, group = full_kind.partition(".")
        namespace, _, name = full_name.rpartition("/")
        yield ObjectRef(kind=kind, namespace=namespace, name=name, group=group)


def rules(contents, said="", **spec):
    return [each.rule for each in shortcomings(BackupOptions.from_spec(spec), refs(contents), said=said)]


SELECTOR = {"labelSelector": {"matchLabels": {"app": "nothing"}}}


@pytest.mark.parametrize(
    ("contents", "spec", "expected"),
    [
        (SHOP, {"includedNamespaces": ["shop"]}, []),
        (BARE, {"includedNamespaces": ["shop"], **SELECTOR}, [Rule.NOTHING_BACKED_UP]),
        (EMPTY, {"includedNamespaces": ["shop"]}, [Rule.NOTHING_BACKED_UP]),
        (BARE, {"includedNamespaces": ["shop"], "includedResources": ["namespaces"]}, []),
        (BARE, {"includedNamespaceScopedResources": ["nosuch"], "includedNamespaces": ["shop"]},
         [Rule.NOTHING_BACKED_UP]),
        ([*EMPTY, "Secret shop/login"], {"includedNamespaces": ["shop"]}, []),
        # a namespace, by name or glob
        (SHOP, {"includedNamespaces": ["shop", "nobody"]}, [Rule.FILTER_MATCHES_NOTHING]),
        (SHOP, {"includedNamespaces": ["sh*", "bank-*"]}, [Rule.FILTER_MATCHES_NOTHING]),
        (SHOP, {"includedNamespaces": ["sh*", "shop"]}, []),
        # the Namespace itself
        ([*SHOP, "ConfigMap dying/held"], {"includedNamespaces": ["shop", "dying"]}, [Rule.NAMESPACE_LEFT_OUT]),
        ([*SHOP, "Secret bank/key"], {"includedNamespaces": ["shop"]}, []),
        ([*SHOP, "DataUpload.velero.io velero/x", "VolumeSnapshot.snapshot.storage.k8s.io shop/x"],
         {"includedNamespaces": ["shop"]}, []),
        (SHOP[1:], {"includedNamespaces": ["shop"], "includeClusterResources": False}, []),
        (SHOP[1:], {"includedNamespaces": ["shop"], "excludedClusterScopedResources": ["*"]}, []),
        (SHOP[1:], {"includedNamespaces": ["shop"], "includedResources": ["configmaps"]}, []),
        (SHOP[1:], {"includedNamespaces": ["shop"], "excludedResources": ["Namespaces"]}, []),
        # custom resources
        ([*SHOP, THING, DEFINITION], {"includedNamespaces": ["shop"]}, []),
        ([*SHOP, THING], {"includedNamespaces": ["shop"]}, [Rule.DEFINITION_LEFT_OUT]),
        ([THING], {"includedNamespaces": ["shop"], "includedResources": ["things.example.com"]},
         [Rule.DEFINITION_LEFT_OUT]),
        ([*SHOP[1:], THING], {"includedNamespaces": ["shop"], "includeClusterResources": False},
         [Rule.LEFT_OUT_BY_FILTER]),
        ([*SHOP, "Mouse.example.com shop/jerry", DEFINITION.replace("things", "mice")],
         {"includedNamespaces": ["shop"]}, []),
        ([*SHOP, THING, "Mouse.example.com shop/jerry", DEFINITION], {"includedNamespaces": ["shop"]},
         [Rule.DEFINITION_LEFT_OUT]),
        ([*SHOP, "Deployment.apps shop/web", "Ingress.networking.k8s.io shop/web", "Route.route.openshift.io shop/web"],
         {"includedNamespaces": ["shop"]}, []),
        # what the filters say without a word
        (SHOP, {}, [Rule.LEFT_OUT_BY_FILTER]),
        (SHOP, {"includedNamespaces": ["*"]}, [Rule.LEFT_OUT_BY_FILTER]),
        (SHOP, {"excludedNamespaces": ["bank"]}, [Rule.LEFT_OUT_BY_FILTER]),
        (SHOP, {"excludedNamespaces": ["bank"], "excludedResources": ["events"]}, [Rule.LEFT_OUT_BY_FILTER]),
        (SHOP, {"excludedNamespaces": ["bank"], "includedClusterScopedResources": ["*"]}, []),
        (SHOP, {"excludedResources": ["events"]}, []),
        (SHOP, {"includedClusterScopedResources": ["storageclasses"]}, []),
    ],
)  # fmt: skip
def test_what_a_backup_lacks_is_told_by_name(contents, spec, expected):
    assert rules(contents, **spec) == expected


def test_a_namespace_that_velero_itself_names_is_not_told_twice():
    said = "/fail to get the namespace nobody specified in backup.Spec.IncludedNamespaces"
    assert rules(SHOP, said, includedNamespaces=["shop", "nobody"]) == []


def judged(contents, **spec):
    status = {"phase": "Completed", "progress": {"itemsBackedUp": 1, "totalItems": 1}}
    run = Backup.model_validate({"metadata": {"name": "b"}, "spec": spec, "status": status})
    return judge_backup(run, contents=list(refs(contents)))


def test_a_backup_of_a_bare_namespace_is_not_ok():
    assert not judged(BARE, includedNamespaces=["shop"], **SELECTOR).ok


def test_what_a_filter_leaves_out_is_told_and_does_not_count():
    outcome = judged(SHOP, excludedNamespaces=["bank"])
    assert outcome.ok
    assert [each.rule for each in outcome.tolerated] == [Rule.LEFT_OUT_BY_FILTER]
