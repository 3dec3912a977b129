from __future__ import annotations

import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from clusterguard.cli.toolchain import _table, app, embedded
from clusterguard.toolchain import Source, Toolchain

from .conftest import script


def test_list_prints_json_for_scripts(tmp_path, monkeypatch):
    etcd = script(tmp_path / "bin" / "etcd", "echo etcd Version: 3.7.3")
    monkeypatch.setenv("PATH", str(etcd.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    printed = CliRunner().invoke(app, ["list", "--json"])
    assert printed.exit_code == 0
    status = json.loads(printed.stdout)[0]
    assert status["name"] == "etcd"
    assert status["found"]["path"] == str(etcd)
    assert status["found"]["source"] == "path"


def test_the_table_says_where_each_program_is_or_how_it_would_be_had(tmp_path):
    etcd = script(tmp_path / "etcd", "echo etcd Version: 3.7.3")
    toolchain = Toolchain(cache=tmp_path / "cache", path=str(tmp_path), sources=(Source.PATH, Source.BUILD))
    console = Console(width=300)
    with console.capture() as captured:
        console.print(_table(toolchain.list()))
    lines = {line.split()[0]: line.split() for line in captured.get().splitlines()}
    assert lines["etcd"] == ["etcd", "3.7.3", "path", str(etcd)]
    assert " ".join(lines["kwok"]).startswith("kwok >=0.8,<0.9 missing compile 0.8.0 from source")


@pytest.mark.parametrize("name", ["etcd", "etcdutl", "kube-apiserver", "kube-scheduler", "kwok"])
def test_install_brings_what_an_embedded_cluster_needs_by_default(name):
    assert name in embedded()
    assert "velero" not in embedded()
    assert not [each for each in embedded() if "@" in each]
