"""Drills of a backup that was there before: what may be written, and what is refused with its place."""

from __future__ import annotations

import re

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
    with pytest.raises(InvalidDrillError) as caught:
        load(tmp_path, HEAD + "  backup:\n  - etcdSnapshot: {name: night}\n" + REST)
    assert "`fault`" in caught.value.message


def test_what_a_snapshot_holds_is_the_baseline_where_it_is_asked_for(tmp_path):
    drill = load(tmp_path, HEAD + BACKUP + REST + "  - restored: {identity: uid}\n")
    assert drill.spec.compares_stored
    assert "the baseline is what the backup holds" in plan_text(drill)
    without = load(tmp_path, HEAD + BACKUP + REST)
    assert not without.spec.compares_stored
    assert "baseline" not in plan_text(without)


def test_other_backups_belong_into_another_drill(tmp_path):
    with pytest.raises(InvalidDrillError, match="proven by itself"):
        load(tmp_path, HEAD + BACKUP + "  - etcdSnapshot: {name: other}\n" + REST)


def test_velero_cannot_restore_it(tmp_path):
    with pytest.raises(InvalidDrillError) as caught:
        load(tmp_path, HEAD + BACKUP + REST.replace("etcdRestore", "veleroRestore"))
    assert {"storedBackup,", "veleroRestore"} <= set(caught.value.message.split())


# ---- of Velero

VELERO = BACKUP.replace("policy: policy.yaml, source: etcd", "velero: {WHICH}")
STORAGE = "  storage:\n    company: {s3: {bucket: company}}\n"
COMPARED = """\
  restore:
  - veleroRestore: {from: night}
  verify:
  - restored: {}
"""


def of_velero(which="schedule: nightly", rest=COMPARED, more=STORAGE):
    return HEAD + more + VELERO.replace("WHICH", which) + rest


def test_what_a_velero_backup_holds_is_the_baseline(tmp_path):
    drill = load(tmp_path, of_velero("storage: company, schedule: nightly"))
    assert drill.spec.compares_stored
    text = plan_text(drill, default_cluster="embedded")
    assert "take the newest Velero backup of schedule `nightly` in storage company as `night`" in text
    assert "the baseline is what the backup holds: everything that is not system-owned" in text
    assert "capture the baseline" not in text
    assert "marker" not in text.replace("markers, what setup made", "")


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("", "the newest Velero backup that the cluster knows"),
        ("backup: shop-1, storage: company", "Velero backup shop-1 in storage company"),
    ],
)
def test_it_is_named_or_the_newest(tmp_path, which, words):
    assert words in plan_text(load(tmp_path, of_velero(which)))


def test_a_plan_of_a_stored_snapshot_does_not_speak_of_what_is_not_done(tmp_path):
    text = plan_text(load(tmp_path, HEAD + BACKUP + REST))
    assert "capture the baseline" not in text
    assert "first marker" not in text
    assert "write a marker: the restore must lose it" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (of_velero("backup: a, schedule: b"), "`backup` and `schedule` exclude each other"),
        (of_velero("storage: nowhere"), "there is no `nowhere` in spec.storage"),
        (of_velero().replace("name: night,", "name: night, policy: policy.yaml, source: etcd,"), "exclude each other"),
        (of_velero().replace("name: night,", "name: night, backup: a,"), "belongs into `velero`"),
        (HEAD + BACKUP.replace(", source: etcd", "") + REST, "say which one, with `source`"),
        (of_velero(rest=REST), "made by storedBackup, which etcdRestore cannot restore"),
        (of_velero(rest="  - verifyBackup: {backup: night, contains: scope}\n" + COMPARED), "is the baseline itself"),
        (of_velero(rest="  - storedBackup: {name: two, velero: {}}\n" + COMPARED), "leave the other one"),
        (
            of_velero(
                more=STORAGE + "  clusters: {main: {}, other: {startIn: restore}}\n",
                rest=COMPARED.replace("{from: night}", "{from: night}\n    cluster: other"),
            ),
            "for `other` name the `storage`",
        ),
        (
            of_velero(rest=COMPARED + "  - sameFiles: {path: /data, in: {namespace: shop, pod: web}}\n"),
            "is older than this run",
        ),
    ],
)
def test_what_cannot_work_is_told_at_load(tmp_path, text, said):
    with pytest.raises(InvalidDrillError, match=re.escape(said)):
        load(tmp_path, text)


def test_a_cluster_that_starts_in_the_restore_is_not_needed_before(tmp_path):
    late = STORAGE + "  clusters: {main: {startIn: restore}}\n"
    verified = "  - verifyBackup: {backup: night}\n" + COMPARED
    drill = load(tmp_path, of_velero("storage: company", more=late, rest=verified))
    assert "create cluster main" in plan_text(drill)
    with pytest.raises(InvalidDrillError, match="it is not there yet in backup"):
        load(tmp_path, of_velero("schedule: nightly", more=late))


def test_its_age_is_measured_without_markers(tmp_path):
    text = of_velero().replace("  storage:", "  canary: false\n  objectives: {rpo: 1d}\n  storage:")
    assert load(tmp_path, text).spec.objectives.rpo
