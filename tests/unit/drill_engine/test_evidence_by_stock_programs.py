"""The checks of docs/how-to/evidence.md, as they stand there: programs that know nothing of clusterguard."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from signing_keys import KEY, OTHER, P_256

from clusterguard.evidence.envelope import PREDICATE_TYPE

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "evidence.md").read_text()


def documented(name):
    """Return the block of the page that begins with its own name."""
    return re.search(rf"^```\w+\n(# {re.escape(name)}: .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]


def lacking(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not on this machine: {', '.join(missing)}")


@pytest.fixture
def check(tmp_path):
    """Run a command in the folder of a bundle with a public key for its last word; return whether it was content."""

    def check(folder, key, *command):
        public = tmp_path / "public.pem"
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(key._key.public_key().public_bytes(serialization.Encoding.PEM, form))
        words = [str(word).replace("PUBLIC-KEY", str(public)) for word in command]
        ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        return ended.returncode == 0, ended.stdout + ended.stderr

    return check


def check_all_ways_of_tampering(bundle, key, content):
    folder = bundle(key)
    result = folder / "result.json"
    intact = result.read_bytes()
    fine, told = content(folder, key)
    assert fine, told
    assert not content(folder, OTHER)[0]
    result.write_bytes(intact.replace(b"PASS", b"FAIL"))
    assert not content(folder, key)[0]
    result.write_bytes(intact)
    assert content(folder, key)[0]
    return folder


@lacking("openssl", "jq", "sha256sum")
@pytest.mark.parametrize("key", [KEY, P_256], ids=["ed25519", "p-256"])
def test_openssl_and_jq(bundle, check, key, tmp_path):
    script = tmp_path / "check.sh"
    script.write_text(documented("check.sh"))

    def content(folder, key):
        return check(folder, key, "sh", script, "PUBLIC-KEY")

    folder = check_all_ways_of_tampering(bundle, key, content)
    (folder / "more.json").write_text("{}")
    assert not content(folder, key)[0]
    (folder / "more.json").unlink()
    (folder / "events.jsonl").unlink()
    assert not content(folder, key)[0]


@pytest.mark.parametrize("key", [KEY, P_256], ids=["ed25519", "p-256"])
def test_securesystemslib(bundle, check, key, tmp_path):
    pytest.importorskip("securesystemslib")
    script = tmp_path / "check.py"
    script.write_text(documented("check.py"))
    folder = bundle(key)
    fine, told = check(folder, key, sys.executable, script, "PUBLIC-KEY")
    assert fine, told
    assert not check(folder, OTHER, sys.executable, script, "PUBLIC-KEY")[0]


COSIGN = os.environ.get("CLUSTERGUARD_TEST_COSIGN") or shutil.which("cosign")


@pytest.mark.skipif(not COSIGN, reason="no cosign on PATH, and CLUSTERGUARD_TEST_COSIGN names none")
@pytest.mark.parametrize("key", [KEY, P_256], ids=["ed25519", "p-256"])
def test_cosign(bundle, check, key):
    line = re.search(r"^\$ (cosign verify-blob-attestation .*?result\.json)$", PAGE, re.MULTILINE | re.DOTALL)[1]
    words = line.replace("\\\n", " ").replace("evidence.pub", "PUBLIC-KEY").split()
    assert PREDICATE_TYPE in words
    check_all_ways_of_tampering(bundle, key, lambda folder, key: check(folder, key, COSIGN, *words[1:]))
