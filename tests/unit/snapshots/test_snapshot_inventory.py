"""What a snapshot holds of a scope, as an inventory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from clusterguard import SnapshotReader
from clusterguard.model.inventory import Scope
from clusterguard.snapshots.inventory import snapshot_inventory
from small_snapshot import OBJECTS, file_of, history_of

TAKEN = datetime(2026, 6, 1, 2, tzinfo=UTC)


@pytest.fixture
def held(tmp_path):
    """Return what the small snapshot holds of a scope."""
    with SnapshotReader(path=file_of(tmp_path, history_of(OBJECTS))) as reader:
        yield lambda **scope: snapshot_inventory(reader, Scope(**scope), taken=TAKEN)


def names(inventory):
    return {str(ref) for ref in inventory.objects}


def test_system_owned_objects_are_left_out_and_counted(held):
    found = held()
    assert {"Pod shop/web-1", "Secret shop/db", "Widget.example.com shop/a"} <= names(found)
    assert not any(name.startswith("Node ") for name in names(found))
    assert sum(found.left_out.values()) > 0
    assert found.taken == TAKEN


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"namespaces": ("other",)}, {"Pod other/web-9"}),
        ({"kinds": ("Pod",), "selector": "app=web"}, {"Pod shop/web-1", "Pod other/web-9"}),
        ({"kinds": ("Node",)}, {"Node node-1"}),
        ({"namespaces": ("shop",), "exclude": ("Pod", "Secret", "*.example.com", "Endpoints")}, {"Service shop/web"}),
    ],
)
def test_a_scope_chooses(held, scope, expected):
    assert names(held(**scope)) == expected


def test_a_custom_resource_that_cannot_be_read_is_never_left_out_of_a_scope(tmp_path):
    objects = {**OBJECTS, "/registry/example.com/widgets/shop/sealed": b"k8s:enc:kms:v2:p:x"}
    with SnapshotReader(path=file_of(tmp_path, history_of(objects))) as reader:
        for kinds in (("Widget",), ("Widget.example.com",), ()):
            found = snapshot_inventory(reader, Scope(kinds=kinds), taken=TAKEN)
            assert any(kind.lower().startswith("widget") for kind in found.skipped), kinds


def test_a_kind_with_a_value_that_cannot_be_read_is_unknown(held):
    assert held().skipped.keys() == {"Secret"}
    assert held(exclude=("Secret",)).skipped == {}
    assert held(namespaces=("other",)).skipped == {}
