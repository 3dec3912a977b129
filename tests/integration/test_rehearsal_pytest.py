"""``pytest --rehearse`` on real snapshots: a whole one passes, and one that misses something fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from bolt_pages import etcd_image, key_value, revision_key, with_trailer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.programs, pytest.mark.timeout(300)]

METADATA = {"uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z"}
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default", **METADATA}}
THING = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "default", **METADATA}}


def snapshot(path: Path, objects: dict[str, dict[str, object]]) -> str:
    rows = [
        (revision_key(revision), key_value(key.encode(), revision, revision, 1, json.dumps(value).encode()))
        for revision, (key, value) in enumerate(objects.items(), start=2)
    ]
    path.write_bytes(with_trailer(etcd_image(rows)))
    return f"--rehearse={path}"


def test_a_backup_gates_a_pipeline(tmp_path: Path) -> None:
    whole = {"/registry/configmaps/default/a": CONFIG}
    options = [
        snapshot(tmp_path / "whole.db", whole),
        snapshot(tmp_path / "lost.db", whole | {"/registry/example.com/things/default/t": THING}),
        f"--rehearse={tmp_path / 'none.db'}",
    ]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "--junitxml=r.xml"]
    done = subprocess.run([*command, *options], cwd=tmp_path, env=os.environ, check=False, capture_output=True)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout.decode()
    told = {
        case.get("name"): {each.get("name"): each.get("value") for each in case.iter("property")}
        for case in ET.parse(tmp_path / "r.xml").iter("testcase")  # noqa: S314 - our own report
    }
    verdicts = {str(name).rpartition("/")[2]: each["clusterguard.verdict"] for name, each in told.items()}
    assert verdicts == {"whole.db": "PASS", "lost.db": "FAIL", "none.db": "ERROR"}
    assert "definition-missing" in told[str(tmp_path / "lost.db")]["clusterguard.findings"]
