"""Restores made by Velero's own server, and what is told of them."""

from __future__ import annotations

import pytest
from velero_names import unique

from clusterguard.errors import ConfigError, ResourceNotFoundError, RestoreFailedError
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.options import BackupOptions, RestoreOptions
from clusterguard.velero.outcome import Rule
from clusterguard.velero.phases import RestorePhase

pytestmark = pytest.mark.programs


@pytest.fixture
def backup(velero, shop):
    return velero.back_up(unique("of-shop"), BackupOptions(included_namespaces=(shop,)))


def read(api, namespace, name):
    return api.get(api.resource("ConfigMap"), name, namespace)["data"]


def change(api, namespace, name, number):
    api.patch(api.resource("ConfigMap"), name, namespace, patch={"data": {"number": number}})


def test_a_deleted_object_comes_back(velero, shop, api, backup):
    api.delete(api.resource("ConfigMap"), "settings-2", shop)
    restore = velero.restore(backup.name, name=unique("one"))
    assert read(api, shop, "settings-2") == {"number": "2"}
    outcome = velero.outcome(restore)
    outcome.raise_for_findings()
    assert outcome.actions["created"] == 1
    velero.delete_restore(restore.name)
    assert restore.name not in {each.name for each in velero.restores()}


def test_a_restore_that_changed_nothing_is_a_finding(velero, backup):
    restore = velero.restore(backup.name)
    assert restore.phase == RestorePhase.COMPLETED  # as Velero sees it
    outcome = velero.outcome(restore)
    assert [finding.rule for finding in outcome.findings] == [Rule.NOTHING_RESTORED]
    with pytest.raises(RestoreFailedError, match="nothing-restored"):
        outcome.raise_for_findings()


def test_a_restore_whose_filters_match_nothing_is_a_finding(velero, backup):
    restore = velero.restore(backup.name, RestoreOptions(included_namespaces=("nobody",)))
    assert Rule.NOTHING_RESTORED in {finding.rule for finding in velero.outcome(restore).findings}


def test_an_object_that_exists_and_differs_is_named(velero, shop, api, backup):
    change(api, shop, "settings-1", "changed")
    api.delete(api.resource("ConfigMap"), "settings-2", shop)
    outcome = velero.outcome(velero.restore(backup.name))
    different = ObjectRef(kind="ConfigMap", namespace=shop, name="settings-1")
    assert [(finding.rule, finding.ref) for finding in outcome.findings] == [(Rule.EXISTS_DIFFERENT, different)]
    assert read(api, shop, "settings-1") == {"number": "changed"}


def test_an_existing_object_is_updated_when_asked(velero, shop, api, backup):
    change(api, shop, "settings-1", "changed")
    restore = velero.restore(backup.name, RestoreOptions(existing_resource_policy="update"))
    velero.outcome(restore).raise_for_findings()
    assert read(api, shop, "settings-1") == {"number": "1"}


def test_a_namespace_can_be_restored_under_another_name(velero, shop, api, backup):
    copy = unique("copy")
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": copy}})
    api.wait_for(
        api.resource("ConfigMap"),
        "kube-root-ca.crt",
        copy,
        until=lambda seen: seen is not None,
        what="the namespace's own certificate",
        timeout_seconds=30,
    )
    # Its data is put right by a controller; a label is what makes it surely another one than that of the backup.
    certificate = api.resource("ConfigMap")
    api.patch(certificate, "kube-root-ca.crt", copy, patch={"metadata": {"labels": {"of": "the-copy"}}})
    outcome = velero.outcome(velero.restore(backup.name, RestoreOptions(namespace_mapping={shop: copy})))
    outcome.raise_for_findings()
    assert read(api, copy, "settings-4") == {"number": "4"}
    assert [each.rule for each in outcome.tolerated] == [Rule.ROOT_CA_EXISTS]
    strict = velero.outcome(outcome.restore, tolerate=frozenset())
    assert [each.ref.name for each in strict.findings] == ["kube-root-ca.crt"]


def test_a_restore_with_errors_raises_and_names_the_objects(velero, shop, api, backup):
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": unique("refuse")},
        "webhooks": [
            {
                "name": "refuse.example.com",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 1,
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": shop}},
                "rules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
                ],
            }
        ],
    }
    api.delete(api.resource("ConfigMap"), "settings-2", shop)
    api.apply(hook)
    try:
        started = velero.restore(backup.name, wait=False)
        restore = velero.wait(started)
    finally:
        api.delete(api.resource("ValidatingWebhookConfiguration"), hook["metadata"]["name"])
    assert restore.phase == RestorePhase.PARTIALLY_FAILED
    outcome = velero.outcome(restore)
    rules = {finding.rule for finding in outcome.findings}
    assert {Rule.PARTIALLY_FAILED, Rule.ERROR} <= rules
    assert any(finding.ref and finding.ref.name == "settings-2" for finding in outcome.findings)
    with pytest.raises(RestoreFailedError) as caught:
        outcome.raise_for_findings()
    assert caught.value.phase == "PartiallyFailed"


def test_a_restore_needs_exactly_one_source_that_exists(velero, backup):
    with pytest.raises(ConfigError) as caught:
        velero.restore()
    assert caught.value.code == "no-single-source"
    with pytest.raises(ConfigError) as caught:
        velero.restore(backup.name, schedule="daily")
    assert caught.value.code == "no-single-source"
    with pytest.raises(ResourceNotFoundError, match="no Backup 'nobody'"):
        velero.restore("nobody")
    with pytest.raises(ResourceNotFoundError, match="no completed backup"):
        velero.restore(schedule="nobody")
