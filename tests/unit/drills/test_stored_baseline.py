"""What `storedBackup` reads from a snapshot: the baseline, decrypted, under the cluster's own prefix."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from nacl.secret import SecretBox

from clusterguard.drills.load import load_drill
from clusterguard.drills.stored import StoredSnapshot
from clusterguard.errors import ConfigError, InvalidDrillError
from clusterguard.stores.local import LocalStore
from small_snapshot import file_of, history_of, stored

DRILL = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: last-night}
spec:
  scope: {namespaces: [shop]}
  backup:
  - storedBackup: {name: night, policy: policy.yaml, source: etcd, WHICH}
  restore:
  - etcdRestore: {from: night}
  verify:
  - restored: {}
"""
KEY = bytes(range(32))
CONFIG = f"""\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers: [{{secretbox: {{keys: [{{name: key1, secret: "{base64.b64encode(KEY).decode()}"}}]}}}}]
"""
SEALED = b"k8s:enc:secretbox:v1:key1:" + bytes(SecretBox(KEY).encrypt(stored("Secret", "db", "shop"), bytes(24)))


@pytest.fixture
def step(tmp_path):
    """Return what gives the action of a drill, and the run that it works for."""

    def make(which, objects):
        path = tmp_path / "stored.drill.yaml"
        path.write_text(DRILL.replace("WHICH", which))
        drill = load_drill(path)
        (tmp_path / "store").mkdir()
        file_of(tmp_path / "store", history_of(objects))
        record = SimpleNamespace(
            name="n", key="snapshot.db", taken=datetime(2030, 1, 1, tzinfo=UTC), revision=3, total_keys=2, size=1
        )
        found = StoredSnapshot(record=record, store=LocalStore(tmp_path / "store"), location="here")
        run = SimpleNamespace(
            drill=drill,
            scope=drill.spec.scope.scope(),
            snapshots={},
            baselines={},
            settings=SimpleNamespace(stored=lambda *_, **__: found, scratch=None),
        )
        (only,) = drill.phase("backup")
        return only.action, SimpleNamespace(run=run, step=only)

    return make


def config(folder, mode=0o600):
    path = folder / "encryption.yaml"
    path.write_text(CONFIG)
    path.chmod(mode)


def test_values_that_are_encrypted_at_rest_are_in_the_baseline_under_another_prefix(tmp_path, step):
    config(tmp_path)
    objects = {"/kubernetes.io/secrets/shop/db": SEALED, "/registry/pods/shop/web": stored("Pod", "web", "shop")}
    action, here = step("prefix: /kubernetes.io, encryptionConfig: encryption.yaml", objects)
    action.require(here)
    action.perform(here)
    (baseline,) = here.run.baselines.values()
    assert [(ref.kind, ref.name) for ref in baseline.objects] == [("Secret", "db")]
    assert baseline.skipped == {}


def test_without_the_configuration_they_are_unknown(step):
    objects = {"secrets/shop/db": SEALED, "pods/shop/web": stored("Pod", "web", "shop")}
    action, here = step("prefix: /kubernetes.io", {f"/kubernetes.io/{key}": value for key, value in objects.items()})
    action.require(here)
    action.perform(here)
    (baseline,) = here.run.baselines.values()
    assert [ref.kind for ref in baseline.objects] == ["Pod"]
    assert baseline.skipped.keys() == {"Secret"}


def test_a_configuration_that_cannot_be_read_is_told_before_anything_is_touched(tmp_path, step):
    action, here = step("encryptionConfig: encryption.yaml", {})
    with pytest.raises(ConfigError):
        action.require(here)
    config(tmp_path, mode=0o644)
    with pytest.raises(ConfigError):
        action.require(here)


def test_neither_is_for_a_backup_of_velero(tmp_path):
    path = tmp_path / "stored.drill.yaml"
    velero = DRILL.replace("policy: policy.yaml, source: etcd, WHICH", "prefix: /kubernetes.io, velero: {}")
    path.write_text(velero.replace("etcdRestore", "veleroRestore"))
    with pytest.raises(InvalidDrillError, match="`prefix` is of a policy"):
        load_drill(path)
