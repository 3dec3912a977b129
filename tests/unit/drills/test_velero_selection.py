"""What `veleroBackup` and `veleroRestore` may ask for: what is refused with its place, and what Velero is told."""

from __future__ import annotations

import pytest

from clusterguard.drills.plan import plan_text
from clusterguard.drills.requirements import Requirement

DRILL = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: selection}
spec:
  backup:
  - veleroBackup: {name: nightly, BACKUP}
  fault:
  - delete: {kind: Namespace, name: shop}
  restore:
  - veleroRestore: {from: nightly, RESTORE}
  verify:
  - restored: {}
"""


def text(backup="namespaces: [shop]", restore="existingResources: none"):
    return DRILL.replace("BACKUP", backup).replace("RESTORE", restore)


def actions(drill):
    return drill.phase("backup")[0].action, drill.phase("restore")[0].action


def test_everything_that_the_library_knows_can_be_written(load):
    hooks = "hooks: [{name: dump, includedNamespaces: [shop], pre: [{exec: {command: [sync]}}]}]"
    backup, restore = actions(
        load(
            text(
                "excludedNamespaces: ['*-test'], excludedKinds: [Event], clusterScoped: true, ttl: 3h, "
                f"orderedResources: {{Pod: [shop/db-0, shop/web-0]}}, resourcePolicy: rules, {hooks}, "
                "extra: {csiSnapshotTimeout: 5m, snapshotMoveData: true, uploaderConfig: {parallelFilesUpload: 2}}",
                "namespaces: ['shop*'], excludedKinds: [Secret], clusterScoped: false, preserveNodePorts: true, "
                "resourceModifier: patches, extra: {restoreStatus: {includedResources: [things.example.com]}}",
            )
        )
    )
    spec = backup.options({}).to_spec()
    assert spec["excludedResources"] == ["Event"]
    assert (spec["ttl"], spec["csiSnapshotTimeout"], spec["snapshotMoveData"]) == ("3h0m0s", "5m", True)
    assert spec["uploaderConfig"] == {"parallelFilesUpload": 2}
    assert spec["resourcePolicy"] == {"kind": "configmap", "name": "rules"}
    assert spec["hooks"]["resources"][0]["pre"] == [{"exec": {"command": ["sync"]}}]
    assert spec["includeClusterResources"] is True
    spec = restore.options({}).to_spec()
    assert spec["includedNamespaces"] == ["shop*"]
    assert (spec["preserveNodePorts"], spec["includeClusterResources"]) == (True, False)
    assert spec["resourceModifier"] == {"kind": "configmap", "name": "patches"}
    assert spec["restoreStatus"] == {"includedResources": ["things.example.com"]}


def test_nothing_is_asked_for_that_was_not_written(load):
    backup, restore = actions(load(text()))
    assert backup.options({}).to_spec() == {"includedNamespaces": ["shop"]}
    assert restore.options({}).to_spec() == {}
    assert restore.takes_all
    assert not backup.options({}).asks_for_volumes


@pytest.mark.parametrize(
    ("backup", "at", "said"),
    [
        ("extra: {ttl: 3h}", "extra", "write `ttl`"),
        ("extra: {includedNamespaces: [shop]}", "extra", "write `namespaces`"),
        ("extra: {storageLocation: x}", "extra", "write `storage`"),
        ("namespaces: [shop, web], excludedNamespaces: ['*']", "excludedNamespaces", "leaves nothing"),
        ("namespaces: ['Shop*']", "'Shop*'", "matches no namespace"),
        ("namespaces: [Shop]", "Shop", "not a DNS label"),
        ("kinds: [Pod], excludedKinds: [Pod]", "{name: nightly", "both included and excluded: Pod"),
        ("hooks: [{name: none}]", "{name: nightly", "neither pre nor post"),
        ("extra: {includedClusterScopedResources: ['*']}, kinds: [Pod]", "{name: nightly", "exclude each other"),
        ("extra: {snapshotMoveData: true, snapshotVolumes: false}", "{name: nightly", "no snapshots to move"),
        ("orderedResources: {Pod: []}", "[]", "at least one"),
        ("ttl: 0s", "0s", "0s"),
    ],
)
def test_what_velero_would_refuse_or_never_do_is_told_at_load(problems, backup, at, said):
    [found] = problems(text(backup))
    assert found.line == 6
    assert text(backup).splitlines()[5][found.column - 1 :].startswith(at)
    assert said in found.message


def test_what_a_restore_has_keys_for_is_not_further(problems):
    [found] = problems(text(restore="extra: {resourceModifier: {kind: configmap, name: patches}}"))
    assert (found.line, "write `resourceModifier`" in found.message) == (10, True)


@pytest.mark.parametrize("where", ["backup", "restore"])
def test_hooks_need_containers_that_run(load, where):
    hooks = "hooks: [{name: a, pre: [{exec: {command: [sync]}}], postHooks: [{exec: {command: [sync]}}]}]"
    assert load(text()).requirements == frozenset()
    assert load(text(**{where: hooks})).requirements == {Requirement.CONTAINERS}


def test_null_in_what_is_handed_on_is_null(load):
    backup, _ = actions(load(text("hooks: [{name: a, labelSelector: null, pre: [{exec: {command: [sync]}}]}]")))
    assert backup.hooks[0]["labelSelector"] is None


def test_the_plan_tells_all_of_it(load):
    plan = plan_text(
        load(
            text(
                "namespaces: ['shop*'], excludedNamespaces: [shop-test], excludedKinds: [Event], ttl: 3h, "
                "orderedResources: {Pod: [shop/db-0]}, extra: {csiSnapshotTimeout: 5m}",
                "preserveNodePorts: true, resourceModifier: patches",
            )
        )
    )
    for words in (
        "of namespaces shop*, without namespaces shop-test, without kinds Event",
        "Pod shop/db-0 first",
        "kept for 3h",
        "csiSnapshotTimeout",
        "keeping node ports",
        "ConfigMap patches",
    ):
        assert words in plan
