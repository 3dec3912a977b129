"""Snapshots that real programs saved and wrapped, and a member's own file: opened, verified, adopted, restored."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.adoption import verify_snapshot
from clusterguard.etcd.opening import open_snapshot
from clusterguard.etcd.verification import verify_file
from clusterguard.process import run
from clusterguard.stores import open_store
from clusterguard.stores.encryption import Encryption, new_key_pair
from etcd_member import member

if TYPE_CHECKING:
    from pathlib import Path

    from clusterguard.toolchain import Toolchain

pytestmark = pytest.mark.programs


@pytest.fixture(scope="module")
def etcdutl(toolchain: Toolchain) -> Path:
    return toolchain.ensure("etcdutl")["etcdutl"]


@pytest.fixture(scope="module")
def data(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A snapshot of etcdctl, and the data directory of the member that it was saved from, stopped since."""
    folder = tmp_path_factory.mktemp("etcd")
    programs = toolchain.ensure("etcd", "etcdctl")
    with member(programs["etcd"], folder) as running:
        for number in range(200):
            running.put(f"/registry/configmaps/default/c{number}", value=b"v" * 500)
        run(
            [programs["etcdctl"], "--endpoints", running.endpoint, "snapshot", "save", folder / "saved.db"],
            timeout_seconds=60,
        )
    return folder / "saved.db", folder / "data" / "member" / "snap" / "db"


def test_what_stock_programs_wrapped_is_opened(data: tuple[Path, Path], tmp_path: Path, toolchain: Toolchain) -> None:
    saved, _ = data
    identity, recipient = new_key_pair()
    wrapped = {"gzip": ["gzip", "-c", saved], "age": [toolchain.ensure("age")["age"], "-r", recipient, saved]}
    if shutil.which("zstd"):
        wrapped["zstd"] = ["zstd", "-qc", saved]
    expected = verify_file(saved)
    for kind, argv in wrapped.items():
        file = tmp_path / kind
        file.write_bytes(subprocess.run([str(word) for word in argv], check=True, capture_output=True).stdout)
        with open_snapshot(file, encryption=Encryption(identities=(identity,))) as opened:
            assert opened.wrappings == (kind,)
            assert verify_file(opened.path) == expected


def test_a_members_own_file_is_adopted_and_etcdutl_restores_it(
    data: tuple[Path, Path], tmp_path: Path, etcdutl: Path
) -> None:
    saved, own = data
    snapshotter = EtcdSnapshotter(store=open_store(tmp_path / "store"))
    snapshot = snapshotter.adopt(own, "from-the-disk")
    assert [remark.code for remark in snapshot.remarks] == ["no-trailer"]
    assert snapshotter.verify("from-the-disk").ok
    file = tmp_path / "store" / "from-the-disk.db"
    status = json.loads(run([etcdutl, "snapshot", "status", file, "-w", "json"], timeout_seconds=60).stdout)
    assert 0 < status["revision"] == snapshot.revision <= verify_file(saved).structure.revision
    run([etcdutl, "snapshot", "restore", file, "--data-dir", tmp_path / "restored"], timeout_seconds=60)


def test_the_command_line_verifies_and_adopts_a_stream(data: tuple[Path, Path], tmp_path: Path) -> None:
    saved, _ = data
    command = [sys.executable, "-m", "clusterguard", "etcd"]
    stream = gzip.compress(saved.read_bytes())
    store = ["--store", str(tmp_path / "store")]
    shown = subprocess.run([*command, "verify", "-", "--json"], input=stream, check=True, capture_output=True).stdout
    assert json.loads(shown)["ok"] is True
    adopted = subprocess.run([*command, "adopt", "-", "nightly", "--json", *store], input=stream, check=True,
                             capture_output=True).stdout  # fmt: skip
    assert json.loads(adopted)["sha256"] == verify_file(saved).sha256
    cut = subprocess.run([*command, "verify", "-", "--json"], input=stream[:-40], check=False, capture_output=True)
    assert (cut.returncode, json.loads(cut.stdout)["checks"][0]["code"]) == (1, "archive-damaged")
    assert verify_snapshot(f"file://{tmp_path}/store/nightly.db").ok
