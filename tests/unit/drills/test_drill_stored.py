"""Drills of a backup that was there before: what may be written, and what is refused with its place."""

from __future__ import annotations

import pytest

from clusterguard.drills.load import load_drill
from clusterguard.drills.plan import plan_text
from clusterguard.errors import InvalidDrillError

HEAD = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: last-night}
spec:
"""
BACKUP = """\
  backup:
  - storedBackup: {name: night, policy: policy.yaml, source: etcd}
"""
REST = """\
  restore:
  - etcdRestore: {from: night}
  verify:
  - assert: {resource: {apiVersion: v1, kind: ConfigMap, metadata: {name: web, namespace: shop}}}
"""


def load(tmp_path, text):
    path = tmp_path / "stored.drill.yaml"
    path.write_text(text)
    return load_drill(path)


def test_it_needs_no_fault_since_the_new_cluster_has_nothing_of_it(tmp_path):
    drill = load(tmp_path, HEAD + BACKUP + REST)
    assert drill.spec.proves_stored
    assert drill.phase("fault") == ()
    text = plan_text(drill, default_cluster="embedded")
    assert "take the newest backup of source `etcd` of policy.yaml as `night`" in text


def test_any_other_drill_breaks_something(tmp_path):
    with pytest.raises(InvalidDrillError, match="a drill breaks something"):
        load(tmp_path, HEAD + "  backup:\n  - etcdSnapshot: {name: night}\n" + REST)


def test_there_is_no_baseline_to_compare_with(tmp_path):
    with pytest.raises(InvalidDrillError) as caught:
        load(tmp_path, HEAD + BACKUP + REST + "  - restored: {identity: uid}\n")
    assert [place.rpartition("yaml")[2] for place in caught.value.fields["places"]] == [":11:15"]
    assert "baseline" in caught.value.message


def test_other_backups_belong_into_another_drill(tmp_path):
    with pytest.raises(InvalidDrillError, match="proven by itself"):
        load(tmp_path, HEAD + BACKUP + "  - etcdSnapshot: {name: other}\n" + REST)


def test_velero_cannot_restore_it(tmp_path):
    with pytest.raises(InvalidDrillError) as caught:
        load(tmp_path, HEAD + BACKUP + REST.replace("etcdRestore", "veleroRestore"))
    assert {"storedBackup,", "veleroRestore"} <= set(caught.value.message.split())
