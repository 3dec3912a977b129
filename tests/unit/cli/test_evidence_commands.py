"""What `clusterguard evidence` and `clusterguard report` end with."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from clusterguard.evidence.envelope import Statement, sealed
from clusterguard.evidence.keys import SigningKey

KEY = ed25519.Ed25519PrivateKey.generate()
RESULT = {"drill": "menu", "runId": "0000abcd", "verdict": "PASS", "started": "2030-01-01T02:00:00+00:00"}


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "evidence.pub"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(KEY.public_key().public_bytes(serialization.Encoding.PEM, form))
    path.chmod(0o644)
    return path


@pytest.fixture
def evidence(tmp_path):
    import hashlib

    folder = tmp_path / "evidence" / "menu-0000abcd"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(RESULT))
    digest = hashlib.sha256((folder / "result.json").read_bytes()).hexdigest()
    statement = Statement(files={"result.json": digest}, predicate=RESULT)
    (folder / "evidence.intoto.jsonl").write_bytes(sealed(statement, SigningKey(KEY)))
    return folder.parent


def test_evidence_that_is_what_was_signed(cli, evidence, key):
    assert cli("evidence", "verify", evidence, "--key", key).code == 0
    ended = cli("evidence", "verify", evidence, "--key", key, "--json")
    (told,) = json.loads(ended.out)
    assert (told["ok"], told["folder"], told["predicate"]["drill"]) == (True, "menu-0000abcd", "menu")


def test_evidence_that_was_changed(cli, evidence, key):
    (evidence / "menu-0000abcd" / "result.json").write_text("{}")
    assert cli("evidence", "verify", evidence, "--key", key).code == 1
    (told,) = json.loads(cli("evidence", "verify", evidence, "--key", key, "--json").out)
    assert {each["code"] for each in told["findings"]} == {"evidence-file-changed", "evidence-of-another-run"}


def test_nothing_to_check_is_no_answer(cli, tmp_path, key):
    assert cli("evidence", "verify", tmp_path, "--key", key).code == 2
    assert cli("evidence", "verify", tmp_path, "--key", tmp_path / "none.pub").code == 2


def test_a_report_is_one_file(cli, evidence, key, tmp_path):
    page = tmp_path / "page.html"
    assert cli("report", evidence, "-o", page, "--key", key).code == 0
    assert "menu" in page.read_text()
    assert cli("report", tmp_path / "nowhere", "-o", page).code == 2
