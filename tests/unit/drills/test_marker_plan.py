"""Where markers can be, as a drill's file tells: a false reason for a red drill is worse than none."""

import pytest
import yaml

from clusterguard.documents.values import selects
from clusterguard.drills.load import load_drills
from clusterguard.drills.marker_plan import plan_markers
from clusterguard.drills.plan import plan_text
from clusterguard.errors import InvalidDrillError


@pytest.fixture
def drill(tmp_path):
    def drill(backup=(), restore=(), phases=None, **spec):
        document = {
            "apiVersion": "clusterguard.dev/v1alpha1",
            "kind": "Drill",
            "metadata": {"name": "small"},
            "spec": {
                "storage": {"b": {"s3": {"bucket": "drill-b", "endpoint": "local"}}},
                "backup": [{"veleroBackup": {"name": "shop", "storage": "b", **dict(backup)}}],
                "fault": [{"delete": {"kind": "Namespace", "name": "shop"}}],
                "restore": [{"veleroRestore": {"from": "shop", **dict(restore)}}],
                "verify": [{"restored": {}}],
                **spec,
                **(phases or {}),
            },
        }
        path = tmp_path / "small.drill.yaml"
        path.write_text(yaml.safe_dump(document))
        (loaded,) = load_drills(path)
        return loaded

    return drill


IMPOSSIBLE = [
    ({"kinds": ["Secret"]}, {}, "`kinds` of veleroBackup"),
    ({"excludedKinds": ["ConfigMap"]}, {}, "`excludedKinds` of veleroBackup"),
    ({}, {"kinds": ["Deployment.apps"]}, "`kinds` of veleroRestore"),
    ({}, {"excludedKinds": ["ConfigMap"]}, "`excludedKinds` of veleroRestore"),
    ({"selector": "tier=data"}, {"selector": "tier=front"}, "`selector`"),
    ({"selector": "tier=data"}, {"selector": "!tier"}, "`selector`"),
    ({"selector": "tier in (a,b),tier notin (a,b)"}, {}, "`selector`"),
    ({"selector": "!clusterguard.dev/run"}, {}, "`selector`"),
    ({"extra": {"includedNamespaceScopedResources": ["secrets"]}}, {}, "includedNamespaceScopedResources"),
    ({"extra": {"excludedNamespaceScopedResources": ["configmaps"]}}, {}, "excludedNamespaceScopedResources"),
    ({"extra": {"orLabelSelectors": [{"matchLabels": {"a": "b"}}]}}, {}, "orLabelSelectors"),
]
POSSIBLE = [
    ({}, {}),
    ({"kinds": ["ConfigMap", "Secret"]}, {}),
    ({"excludedKinds": ["Secret"]}, {"kinds": ["ConfigMap"]}),
    ({"selector": "tier=data"}, {"selector": "tier=data,!legacy"}),
    ({"selector": "tier in (data,front)"}, {"selector": "tier!=data"}),
    ({"selector": "app"}, {"selector": "app!=clusterguard"}),
    ({"extra": {"includedNamespaceScopedResources": ["*"]}}, {}),
]


@pytest.mark.parametrize(("backup", "restore", "reason"), IMPOSSIBLE)
def test_a_selection_that_cannot_hold_a_marker_is_told_by_the_plan(drill, backup, restore, reason):
    loaded = drill(backup, restore)
    assert reason in plan_markers(loaded.spec).impossible
    text = plan_text(loaded)
    assert f"no markers: {plan_markers(loaded.spec).impossible}" in text
    assert "first marker" not in text
    assert "second marker" not in text


@pytest.mark.parametrize(("backup", "restore", "_"), IMPOSSIBLE)
@pytest.mark.parametrize("spec", [{"canary": {"every": "5s"}}, {"objectives": {"rpo": "1h"}}])
def test_what_only_markers_can_measure_is_refused_then(drill, backup, restore, _, spec):
    with pytest.raises(InvalidDrillError):
        drill(backup, restore, **spec)


@pytest.mark.parametrize(("backup", "restore"), POSSIBLE)
def test_a_marker_gets_the_labels_that_backup_and_restore_ask_for(drill, backup, restore):
    plan = plan_markers(drill(backup, restore).spec)
    assert plan.impossible == ""
    for asked in (backup, restore):
        assert selects(asked.get("selector", ""), plan.labels)


def test_without_the_canary_nothing_is_told(drill):
    loaded = drill({"kinds": ["Secret"]}, canary=False)
    assert "the file turns the canary off" in plan_text(loaded)


def test_of_several_restores_the_last_that_can_is_taken(drill):
    both = [
        {"veleroRestore": {"from": "shop", "selector": "tier=data"}},
        {"veleroRestore": {"from": "shop", "kinds": ["Secret"]}},
    ]
    plan = plan_markers(drill(phases={"restore": both}).spec)
    assert (plan.impossible, plan.labels) == ("", {"tier": "data"})


def test_markers_are_written_where_the_backup_is_made_and_looked_for_where_it_is_restored(drill):
    loaded = drill(
        clusters={"first": {}, "source": {}, "target": {"startIn": "restore"}},
        phases={
            "backup": [{"veleroBackup": {"name": "shop", "storage": "b"}, "cluster": "source"}],
            "restore": [
                {"veleroRestore": {"from": "shop"}, "cluster": "target"},
                {"startNode": {"name": "a"}, "cluster": "first"},
            ],
        },
    )
    plan = plan_markers(loaded.spec)
    assert (plan.cluster, plan.target) == ("source", "target")
