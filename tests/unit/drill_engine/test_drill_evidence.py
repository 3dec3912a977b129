"""The bundle that a run leaves, and what is found wrong with it afterwards."""

import gzip
import hashlib
import json
import shutil
from types import SimpleNamespace

import pytest
from signing_keys import KEY, OTHER

from clusterguard.drills.backups import TakenBackup
from clusterguard.drills.gathering import _objects as velero_objects
from clusterguard.errors import ConfigError, EtcdUnavailableError, ObjectNotFoundError
from clusterguard.evidence.envelope import Statement, open_envelope, sealed
from clusterguard.evidence.verification import verify_evidence
from clusterguard.stores import MemoryStore
from clusterguard.validate import load_inventory

ENVELOPE = "evidence.intoto.jsonl"
FILES = {
    "drill.yaml",
    "events.jsonl",
    "result.json",
    "materials.json",
    "comparison.json",
    "inventory-before-main.jsonl.gz",
    "inventory-after-main.jsonl.gz",
}


def findings(folder, key=KEY):
    (report,) = verify_evidence(folder, key.public)
    return [(each.code, each.file) for each in report.findings]


def test_a_bundle_has_every_file_and_is_intact(bundle, spec):
    spec["evidence"] = {"controls": ["SOC2 A1.3"]}
    folder = bundle()
    assert {path.name for path in folder.iterdir()} == {*FILES, ENVELOPE}
    (report,) = verify_evidence(folder, KEY.public)
    assert (report.ok, report.files, report.folder) == (True, len(FILES), "")
    assert report.predicate["verdict"] == "PASS"
    assert report.predicate["controls"] == ["SOC2 A1.3"]
    statement = json.loads(open_envelope((folder / ENVELOPE).read_bytes(), KEY.public).to_json())
    assert {each["name"] for each in statement["subject"]} == FILES
    assert folder.stat().st_mode & 0o077 == 0


def test_what_was_used_and_what_there_was_is_in_it(bundle, spec, cluster):
    spec["scope"]["kinds"] = ["ConfigMap"]
    cluster.restored = lambda api: api.item("ConfigMap", "web")["data"].update(page="shut")
    folder = bundle()
    materials = json.loads((folder / "materials.json").read_text())
    (backup,) = materials["backups"]
    assert (backup["name"], backup["objects"][0]["sha256"]) == ("before", "0" * 64)
    assert materials["notCollected"] == []
    assert materials["clusters"][0]["name"] == "main"
    before, after = (
        {ref.name: json.loads(data) for ref, data in load_inventory(folder / name).objects.items()}
        for name in ("inventory-before-main.jsonl.gz", "inventory-after-main.jsonl.gz")
    )
    assert (before["web"]["data"], after["web"]["data"]) == ({"page": "open"}, {"page": "shut"})
    (comparison,) = json.loads((folder / "comparison.json").read_text())
    assert (comparison["seen"], comparison["ok"], comparison["rules"]) == ("after the restore", False, "etcd-restore")
    assert comparison["findings"][0]["changes"][0]["path"] == "data.page"


def test_a_red_run_is_signed_too_and_says_what_is_missing(bundle, cluster):
    cluster.broken["save"] = EtcdUnavailableError("refused")
    folder = bundle()
    (report,) = verify_evidence(folder, KEY.public)
    assert (report.ok, report.predicate["verdict"], report.predicate["code"]) == (True, "ERROR", "etcd-unavailable")


def test_evidence_is_a_phase_of_its_own_and_takes_no_recovery_time(run, spec, tmp_path):
    result = run(spec, evidence=tmp_path)
    names = [phase.name for phase in result.phases]
    assert names.index("verify") < names.index("evidence") < names.index("cleanup")
    assert "evidence" not in [phase.name for phase in run(spec).phases]


def _change(folder):
    (folder / "result.json").write_text((folder / "result.json").read_text().replace('"PASS"', '"FAIL"'))


def _cut(folder):
    path = folder / "inventory-after-main.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-1])


def _cut_envelope(folder):
    (folder / ENVELOPE).write_bytes((folder / ENVELOPE).read_bytes()[:-40])


def _swap_payload(folder):
    forged = json.loads(sealed(Statement(files={}, predicate={"runId": "forged"}), OTHER))
    envelope = json.loads((folder / ENVELOPE).read_text())
    (folder / ENVELOPE).write_text(json.dumps(envelope | {"payload": forged["payload"]}))


def _link(folder):
    (folder / "more.json").symlink_to("/etc/hostname")


def _replace_by_link(folder):
    (folder / "drill.yaml").rename(folder.parent / "drill.yaml")
    (folder / "drill.yaml").symlink_to(folder.parent / "drill.yaml")


def _add_below(folder):
    (folder / "more").mkdir()
    (folder / "more" / "result.json").write_text("{}")


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (_change, [("evidence-file-changed", "result.json")]),
        (_cut, [("evidence-file-changed", "inventory-after-main.jsonl.gz")]),
        (lambda folder: (folder / "events.jsonl").unlink(), [("evidence-file-missing", "events.jsonl")]),
        (lambda folder: (folder / "result.json").unlink(), [("evidence-file-missing", "result.json")]),
        (lambda folder: (folder / "more.json").write_text("{}"), [("evidence-file-added", "more.json")]),
        (_add_below, [("evidence-file-added", "more/result.json")]),
        (_link, [("evidence-file-added", "more.json")]),
        (_replace_by_link, [("evidence-file-missing", "drill.yaml"), ("evidence-file-added", "drill.yaml")]),
        (lambda folder: (folder / ENVELOPE).unlink(), [("evidence-not-signed", "")]),
        (_cut_envelope, [("evidence-damaged", ENVELOPE)]),
        (_swap_payload, [("evidence-signature-wrong", ENVELOPE)]),
    ],
)  # fmt: skip
def test_tampering_with_any_file_is_found(bundle, tamper, found):
    folder = bundle()
    assert findings(folder) == []
    tamper(folder)
    assert findings(folder) == found


@pytest.mark.parametrize("name", sorted(FILES))
def test_one_byte_of_any_file_is_found(bundle, name):
    folder = bundle()
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert ("evidence-file-changed", name) in findings(folder)


def test_a_key_that_does_not_fit_is_told(bundle):
    assert findings(bundle(), OTHER) == [("evidence-key-mismatch", ENVELOPE)]


def test_files_of_another_run_are_told_as_such(bundle):
    first, second = bundle(), bundle()
    shutil.copy(first / "result.json", second)
    assert ("evidence-of-another-run", "result.json") in findings(second)
    shutil.copy(first / ENVELOPE, second)
    shutil.copy(second / "events.jsonl", first)
    assert ("evidence-file-changed", "events.jsonl") in findings(second)
    assert findings(first) == [("evidence-file-changed", "events.jsonl")]


def test_a_folder_of_bundles_is_checked_whole_and_a_copy_of_a_run_is_found(bundle, tmp_path):
    folders = [bundle(), bundle(None)]
    (tmp_path / "evidence" / "notes.txt").write_text("other people's")
    (tmp_path / "evidence" / "photos").mkdir()
    (tmp_path / "evidence" / "photos" / "cat.jpg").write_text("other people's")
    shutil.copytree(folders[0], tmp_path / "evidence" / "zz-copy")
    reports = {report.folder: report for report in verify_evidence(tmp_path / "evidence", KEY.public)}
    assert reports.keys() == {folders[0].name, folders[1].name, "zz-copy"}
    assert reports[folders[0].name].ok
    assert [each.code for each in reports[folders[1].name].findings] == ["evidence-not-signed"]
    assert [each.code for each in reports["zz-copy"].findings] == ["evidence-twice"]


def test_a_folder_without_evidence_is_no_answer(tmp_path):
    with pytest.raises(ObjectNotFoundError):
        verify_evidence(tmp_path, KEY.public)


def test_evidence_goes_to_a_store_and_is_checked_there(run, spec, tmp_path, monkeypatch):
    """As a bucket would have it: written whole at the end, the signature last."""
    monkeypatch.setattr("clusterguard.evidence.bundle.is_remote", lambda location: isinstance(location, str))
    location = f"file://{tmp_path}/bucket"
    result = run(spec, evidence=location, evidence_key=KEY)
    (report,) = verify_evidence(location, KEY.public)
    assert (report.ok, report.predicate["runId"]) == (True, result.run_id)
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "bucket").glob("small-*/*")}
    assert max(times, key=times.get) == ENVELOPE


def test_where_evidence_cannot_be_kept_is_told_before_anything_runs():
    from clusterguard.evidence.options import evidence_settings

    for location, key in (("s3://UPPER CASE/x", None), ("", "some.key")):
        with pytest.raises(ConfigError):
            evidence_settings(location, key=key, passphrase_file=None, environ={})


def test_an_inventory_is_readable_by_zcat(bundle):
    lines = gzip.decompress((bundle() / "inventory-before-main.jsonl.gz").read_bytes()).splitlines()
    assert json.loads(lines[0])["format"] == "clusterguard-inventory"


def test_every_file_of_a_velero_backup_has_its_digest():
    bucket = MemoryStore()
    for key in ("backups/nightly/velero-backup.json", "backups/nightly/nightly.tar.gz", "backups/nightly-2/other"):
        with bucket.put(key) as writer:
            writer.write(key.encode())
    taken = TakenBackup(name="nightly", cluster="main", storages=("near",))
    run = SimpleNamespace(velero=SimpleNamespace(bucket_of=lambda cluster, taken, storage: bucket))
    found = {each["key"]: (each["size"], each["sha256"]) for each in velero_objects(run, taken)}
    assert found == {
        key: (len(key), hashlib.sha256(key.encode()).hexdigest())
        for key in ("backups/nightly/nightly.tar.gz", "backups/nightly/velero-backup.json")
    }


def test_what_cannot_be_had_is_told_and_judges_nothing(bundle, monkeypatch):
    def silent(*_):
        return "the API server is not ready"

    monkeypatch.setattr("clusterguard.drills.gathering.why_silent", silent)
    folder = bundle()
    (lacking,) = json.loads((folder / "materials.json").read_text())["notCollected"]
    assert lacking == {"what": "inventory after, cluster `main`", "reason": "the API server is not ready"}
    assert verify_evidence(folder, KEY.public)[0].predicate["verdict"] == "PASS"
