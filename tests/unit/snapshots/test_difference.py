"""Two snapshots, compared: what nobody looked at is never "no findings"."""

from __future__ import annotations

import pytest

from bolt_pages import History, etcd_image
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


def many(*, changed=(), page_size=4096):
    """Return a database of pods; those that are changed have other bytes, as many as before, at the same place."""
    history = History()
    for number in range(60):
        key = b"/registry/pods/shop/%d" % number
        history.transaction([key], value=(b"w" if number in changed else b"v") * (9_000 if number == 30 else 700))
    return etcd_image([change.row for change in history.changes], page_size=page_size, fan_out=40)


@pytest.mark.parametrize(
    ("image", "differing"),
    [
        (many(), set()),
        (many(changed={7}), {7}),
        (many(changed={30, 59}), {30, 59}),  # one of them in several pages
        (many(page_size=8192), set()),  # nothing lies where it did
        (many(changed={7}, page_size=8192), {7}),
    ],
    ids=["alike", "one", "a long one", "other pages", "one in other pages"],
)
def test_only_what_is_stored_otherwise_is_looked_at(tmp_path, image, differing):
    (tmp_path / "before.db").write_bytes(many())
    (tmp_path / "after.db").write_bytes(image)
    with SnapshotReader(path=tmp_path / "before.db") as one, SnapshotReader(path=tmp_path / "after.db") as other:
        expected = {b"/registry/pods/shop/%d" % number for number in differing}
        assert one.differing_keys(other) == other.differing_keys(one) == expected
