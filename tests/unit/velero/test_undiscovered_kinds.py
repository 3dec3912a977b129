"""Kinds that a server did not know yet: what was run with Velero 1.18.3 is in tests/integration/velero."""

from datetime import UTC, datetime, timedelta

import pytest

from clusterguard.errors import ForbiddenError
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.findings import Rule
from clusterguard.velero.outcome import judge_backup
from clusterguard.velero.resources import Backup
from clusterguard.velero.undiscovered import undiscovered

STARTED = datetime(2030, 1, 1, 12, tzinfo=UTC)


def at(seconds_before):
    return (STARTED - timedelta(seconds=seconds_before)).isoformat().replace("+00:00", "Z")


def definition(plural="menus", kind="Menu", *, age=60, scope="Namespaced"):
    return {
        "metadata": {"name": f"{plural}.example.com", "creationTimestamp": at(age)},
        "spec": {
            "group": "example.com",
            "scope": scope,
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1alpha1", "served": False}, {"name": "v1", "served": True}],
        },
    }


def thing(namespace="shop", age=30, **labels):
    metadata = {"name": "one", "creationTimestamp": at(age), "labels": labels}
    return {"metadata": metadata | ({"namespace": namespace} if namespace else {})}


class Api:
    """An API server with definitions and objects, by plural."""

    def __init__(self, *definitions, **objects):
        self.definitions, self.objects = definitions, objects
        self.asked = []
        self.error = None

    def list(self, resource, namespace=None, *, label_selector="", metadata_only=False):
        if self.error:
            raise self.error
        if resource.kind == "CustomResourceDefinition":
            return [{"metadata": each["metadata"]} for each in self.definitions]
        assert resource.version == "v1"
        self.asked.append(label_selector)
        return self.objects.get(resource.plural, [])

    def get(self, resource, name):
        return next(each for each in self.definitions if each["metadata"]["name"] == name)


def found(api, contents=(), **spec):
    backup = Backup.new(namespace="velero", name="b", spec=spec)
    status = {"phase": "Completed", "startTimestamp": at(0), "progress": {"itemsBackedUp": 1, "totalItems": 1}}
    backup = Backup.model_validate({**backup.manifest, "status": status})
    return list(undiscovered(api, backup, contents))


def test_objects_of_a_young_kind_that_are_not_in_the_backup_are_a_finding():
    [finding] = found(Api(definition(), menus=[thing()]), includedNamespaces=["shop"])
    assert finding.rule is Rule.KIND_UNDISCOVERED
    assert "Menu.example.com" in finding.detail


@pytest.mark.parametrize(
    ("api", "spec"),
    [
        (Api(definition(age=331), menus=[thing(age=300)]), {}),
        (Api(definition(age=-5), menus=[thing(age=-5)]), {}),
        (Api(definition(), menus=[]), {}),
        (Api(definition(), menus=[thing(age=-1)]), {}),
        (Api(definition(), menus=[thing("other")]), {"includedNamespaces": ["shop"]}),
        (Api(definition(), menus=[thing()]), {"excludedNamespaces": ["sh*"]}),
        (Api(definition(), menus=[thing()]), {"includedResources": ["configmaps"]}),
        (Api(definition(), menus=[thing()]), {"excludedResources": ["menus.example.com"]}),
        (Api(definition(), menus=[thing()]), {"excludedNamespaceScopedResources": ["*"]}),
        (Api(definition("worlds", "World", scope="Cluster"), worlds=[thing("")]), {"includedNamespaces": ["shop"]}),
    ],
    ids=[
        "older", "newer than the backup", "no object", "object newer than the backup", "other namespace",
        "excluded namespace", "other kinds", "excluded kind", "no namespaced kind", "cluster-scoped",
    ],
)  # fmt: skip
def test_what_the_backup_need_not_have_is_none(api, spec):
    assert found(api, **spec) == []


def test_a_kind_that_is_in_the_backup_was_known():
    assert found(Api(definition(), menus=[thing()]), [ObjectRef("Menu", "shop", "one", "example.com")]) == []


def test_cluster_scoped_objects_are_missed_where_all_were_asked_for():
    api = Api(definition("worlds", "World", scope="Cluster"), worlds=[thing("")])
    assert len(found(api, includeClusterResources=True)) == 1


def test_only_objects_that_the_selector_chooses_are_missed():
    api = Api(definition(), menus=[])
    found(api, labelSelector={"matchLabels": {"tier": "data"}})
    assert api.asked == ["tier=data,velero.io/exclude-from-backup!=true"]


def test_whoever_may_not_list_definitions_made_none():
    api = Api(definition(), menus=[thing()])
    api.error = ForbiddenError("no")
    assert found(api) == []


def test_it_counts_unless_it_is_tolerated():
    [finding] = found(Api(definition(), menus=[thing()]))
    backup = Backup.model_validate(
        {
            "metadata": {"name": "b"},
            "status": {"phase": "Completed", "progress": {"itemsBackedUp": 1, "totalItems": 1}},
        }
    )
    assert not judge_backup(backup, undiscovered=[finding]).ok
    assert judge_backup(backup, undiscovered=[finding], tolerate={Rule.KIND_UNDISCOVERED}).ok
