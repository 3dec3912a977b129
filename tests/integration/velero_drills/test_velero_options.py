"""What Velero's steps of a drill may ask for, done by a real server: red where that loses something of the scope."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drill
from clusterguard.drills.steps.registry import verbs
from clusterguard.velero.resources import Backup, Restore

# The machine has one Velero server; waiting for other users of it takes longer than any test.
pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]

MANIFEST = Path(__file__).parents[3] / "drills/manifests/shop.yaml"
MODIFIER = """\
version: v1
resourceModifierRules:
- conditions: {groupResource: configmaps, resourceNameRegex: "^web$"}
  mergePatches:
  - patchData: '{"data": {"index.html": "patched"}}'
"""
LOSE = [{"delete": {"kind": "Namespace", "names": ["shop", "shop-north"]}, "timeout": "2m"}]


def plain(kind, name, namespace=None, **fields):
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


SETUP = [
    *yaml.safe_load_all(MANIFEST.read_text()),
    plain("Service", "open", "shop", spec={"type": "NodePort", "ports": [{"port": 80}]}),
    *(plain("Namespace", name) for name in ("shop-north", "shop-test")),
    *(plain("ConfigMap", "page", name, data={"page": name}) for name in ("shop-north", "shop-test")),
    plain("ConfigMap", "patches", "velero", data={"rules.yaml": MODIFIER}),
]


@pytest.fixture
def made(monkeypatch):
    """What the server was asked for, as it has it: backups, then restores."""
    specs = []
    for verb, kind in (("veleroBackup", Backup), ("veleroRestore", Restore)):
        real = verbs()[verb].perform

        def patched(action, here, real=real, kind=kind):
            said = real(action, here)
            client = here.run.velero.client(here.step.cluster)
            specs.extend(each.spec for each in client.objects.list(kind) if here.run.run_id in each.name)
            return said

        monkeypatch.setattr(verbs()[verb], "perform", patched)
    return specs


@pytest.fixture
def run(velero_cluster, tmp_path):
    def run(*, backup=None, restore=None, fault=LOSE, longest_wait=30, **spec):
        document = {
            "apiVersion": "clusterguard.dev/v1alpha1",
            "kind": "Drill",
            "metadata": {"name": "options"},
            "spec": {
                "storage": {"backups": {"s3": {"bucket": "drill-backups", "endpoint": "local"}}},
                "scope": {"namespaces": ["shop"]},
                "setup": [{"apply": {"manifest": SETUP}}, {"ready": {"kind": "Deployment", "namespace": "shop"}}],
                "backup": [
                    {"veleroBackup": {"name": "b", "storage": "backups", **(backup or {})}, "timeout": "2m"},
                    {"verifyBackup": {"backup": "b", "contains": "scope"}},
                ],
                "fault": fault,
                "restore": [{"veleroRestore": {"from": "b", **(restore or {})}, "timeout": "2m"}],
                "verify": [{"restored": {}}],
                **spec,
            },
        }
        file = tmp_path / "options.drill.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        settings = DrillSettings(open=lambda _: velero_cluster, longest_wait=timedelta(seconds=longest_wait))
        result = DrillRunner(settings=settings).run(load_drill(file))
        assert [step for step in result.steps if step.phase == "cleanup" and step.verdict is not Verdict.PASS] == []
        return result

    return run


def test_globs_exclusions_and_further_fields_reach_the_server(run, made):
    result = run(
        backup={
            "namespaces": ["shop*"],
            "excludedNamespaces": ["*-test"],
            "excludedKinds": ["Event"],
            "ttl": "2h",
            "orderedResources": {"ConfigMap": ["shop/web"]},
            "extra": {"itemOperationTimeout": "1h0m0s"},
        },
        restore={"excludedNamespaces": ["shop-n*"], "preserveNodePorts": True},
    )
    assert result.verdict is Verdict.PASS, result
    backup, restore = made
    assert backup["includedNamespaces"] == ["shop", "shop-north"]
    assert "events" in backup["excludedResources"]
    assert (backup["ttl"], backup["itemOperationTimeout"]) == ("2h0m0s", "1h0m0s")
    assert backup["orderedResources"] == {"configmaps": "shop/web"}
    assert restore["excludedNamespaces"] == ["shop-north"]
    assert restore["preserveNodePorts"] is True


@pytest.mark.parametrize(
    ("backup", "restore", "lost"),
    [
        ({"excludedKinds": ["Secret"]}, {}, "Secret shop/web"),
        ({"excludedNamespaces": ["sh?p"]}, {}, "Namespace shop"),
        ({}, {"excludedKinds": ["Secret"]}, "Secret shop/web"),
        # The namespace itself comes back, empty: a restore takes what is cluster-scoped along.
        ({}, {"excludedNamespaces": ["sh?p"]}, "ConfigMap shop/web"),
    ],
    ids=["kind of backup", "namespace of backup", "kind of restore", "namespace of restore"],
)
def test_what_is_left_out_of_what_must_come_back_is_red(run, backup, restore, lost):
    both = {"namespaces": ["shop*"]} if restore else {}
    # What was left out never comes, however long a check waits.
    result = run(backup=both | backup, restore=restore, longest_wait=1)
    assert result.verdict is Verdict.FAIL, result
    assert lost in (result.diff or result.reason)
    assert ("fault" in {phase.name for phase in result.phases}) == bool(restore)


@pytest.mark.parametrize(
    ("ignore", "verdict"), [([], Verdict.FAIL), (["ConfigMap:data[index.html]"], Verdict.PASS)], ids=["told", "ignored"]
)
def test_what_a_modifier_patches_is_changed_unless_it_is_ignored(run, ignore, verdict):
    page = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}}
    result = run(
        backup={"namespaces": ["shop"]},
        restore={"resourceModifier": "patches"},
        longest_wait=30 if ignore else 1,
        verify=[
            {"restored": {"ignore": ignore}},
            {"assert": {"resource": {**page, "data": {"index.html": "patched"}}}},
        ],
    )
    assert result.verdict is verdict, result
    if verdict is Verdict.FAIL:
        assert "changed: ConfigMap shop/web" in result.diff
