"""The evidence of a drill with a real Velero backup, in a real bucket: whole, checked offline, not to be changed."""

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clusterguard.drills import Verdict, load_drill
from clusterguard.evidence.history import latest_runs
from clusterguard.evidence.keys import SigningKey
from clusterguard.evidence.verification import verify_evidence
from clusterguard.stores import open_store
from clusterguard.stores.transfer import read_object
from s3_gateway import BUCKET, CREDENTIALS, gateway

pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]

DRILL = Path(__file__).parents[3] / "drills" / "velero-deleted-namespace.drill.yaml"
ENVELOPE = "evidence.intoto.jsonl"
FILES = {
    *("drill.yaml", "events.jsonl", "result.json", "materials.json", "comparison.json"),
    *("inventory-before-main.jsonl.gz", "inventory-after-main.jsonl.gz", ENVELOPE),
}


def read(store, key):
    return read_object(store, key, most_bytes=64 << 20)


def write(store, key, data):
    with store.put(key, overwrite=True) as writer:
        writer.write(data)


def codes(location, key):
    return [(each.code, each.file) for report in verify_evidence(location, key) for each in report.findings]


def test_a_bucket_keeps_the_evidence_of_a_velero_backup(run, around, toolchain, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS.secret_key)
    key, other = (SigningKey(Ed25519PrivateKey.generate()) for _ in range(2))
    stored = {}

    def note(drill_run, _action):
        (taken,) = drill_run.velero.backups.values()
        bucket = drill_run.velero.bucket_of(taken.cluster, taken, None)
        for info in bucket.list(f"backups/{taken.name}/"):
            stored[info.key] = hashlib.sha256(read(bucket, info.key)).hexdigest()

    around("veleroRestore", before=note)
    with gateway(toolchain.ensure("versitygw")["versitygw"], tmp_path / "s3") as s3:
        location = f"s3://{BUCKET}/night?endpoint={s3.endpoint}&region=us-east-1&pathStyle=true"
        result = run(load_drill(DRILL), evidence=location, evidence_key=key)
        assert result.verdict is Verdict.PASS, result
        (report,) = verify_evidence(location, key.public)
        assert (report.ok, report.folder) == (True, f"velero-deleted-namespace-{result.run_id}")
        assert [(each.drill, each.verdict) for each in latest_runs(open_store(location))] == [
            ("velero-deleted-namespace", "PASS")
        ]

        store = open_store(f"s3://{BUCKET}/night/{report.folder}?{location.partition('?')[2]}")
        bundle = {info.key: read(store, info.key) for info in store.list()}
        assert bundle.keys() == FILES
        assert codes(location, other.public) == [("evidence-key-mismatch", ENVELOPE)]
        for name, data in bundle.items():
            changed = bytearray(data)
            changed[len(data) // 2] ^= 1
            write(store, name, bytes(changed))
            (found, *_) = codes(location, key.public)
            assert found[1] == name
            write(store, name, data)
        store.delete("events.jsonl")
        assert codes(location, key.public) == [("evidence-file-missing", "events.jsonl")]

    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in bundle.items():
        (copy / name).write_bytes(data)
    assert codes(copy, key.public) == []
    materials = json.loads(bundle["materials.json"])
    (backup,) = materials["backups"]
    assert backup["kind"] == "Velero backup"
    assert {each["key"]: each["sha256"] for each in backup["objects"]} == stored
    assert {key.rpartition("/")[2] for key in stored} >= {"velero-backup.json", f"{backup['backup']}.tar.gz"}
    assert materials["notCollected"] == []
    (comparison,) = json.loads(bundle["comparison.json"])
    assert (comparison["rules"], comparison["seen"]) == ("velero-restore", "after the restore")
    assert comparison["suppressed"]
