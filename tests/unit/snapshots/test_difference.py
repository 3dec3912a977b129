"""Two snapshots, compared: what nobody looked at is never "no findings"."""

from __future__ import annotations

import pytest

from clusterguard import SnapshotReader
from clusterguard.model.inventory import Scope
from clusterguard.snapshots.difference import compare_snapshots
from small_snapshot import OBJECTS, file_of, history_of


@pytest.fixture
def report(tmp_path):
    """Return the report of the small snapshot beside one that has changed since."""
    (tmp_path / "later").mkdir()
    changed = dict(OBJECTS)
    changed.pop("/registry/pods/shop/web-1")
    before, after = file_of(tmp_path, history_of(OBJECTS)), file_of(tmp_path / "later", history_of(changed))
    with SnapshotReader(path=before) as older, SnapshotReader(path=after) as newer:
        yield lambda **scope: compare_snapshots(older, newer, Scope(**scope))


def kinds(found):
    return {(str(finding.kind), finding.ref.name) for finding in found.findings}


def test_what_is_gone_is_missing(report):
    assert ("missing", "web-1") in kinds(report())
    assert ("missing", "web-1") in kinds(report(kinds=("Pod",), namespaces=("shop",)))
    assert ("missing", "web-1") not in kinds(report(kinds=("Service",)))


def test_as_many_are_compared_as_the_scope_has(report):
    assert report(kinds=("Pod",), namespaces=("shop",)).compared == 2
    assert report(kinds=("Widget",)).compared == 1


@pytest.mark.parametrize("scope", [{"kinds": ("pods",)}, {"kinds": ("Deploymnet",)}, {"namespaces": ("shopp",)}])
def test_a_scope_without_objects_proves_nothing(report, scope):
    found = report(**scope)
    assert (found.compared, found.ok) == (0, False)
