"""The command line against a cluster that stays between commands."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest

from clusterguard.clusters import EmbeddedCluster

pytestmark = pytest.mark.programs

PASSWORD = "correct-horse-battery"


class Ended(NamedTuple):
    code: int
    output: str


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def cli(home):
    """Run `clusterguard` as a process of its own."""

    def cli(*arguments):
        words = [sys.executable, "-m", "clusterguard", *map(str, arguments)]
        env = {**os.environ, "XDG_STATE_HOME": str(home), "COLUMNS": "160"}
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120, env=env)
        assert "Traceback" not in done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return Ended(done.returncode, done.stdout or done.stderr)

    return cli


@pytest.fixture(scope="module")
def lab(cli, home, toolchain):
    """A cluster called lab, with a shop in it."""
    up = cli("cluster", "up", "lab")
    assert up.code == 0, up.output
    assert "lab is up: Kubernetes v" in up.output
    assert "Its pods are simulated" in up.output
    cluster = EmbeddedCluster.attach("lab", home=home / "clusterguard" / "clusters")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"password": PASSWORD}}
    cluster.api.apply(secret)
    cluster.api.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page"}, "data": {"color": "blue"}}
    )
    yield cluster
    cluster.api.close()
    assert cli("cluster", "down", "lab") == (0, "lab is gone\n")
    assert cli("cluster", "list") == (0, "no clusters\n")


def test_a_cluster_that_stays_is_listed(cli, lab):
    (one,) = json.loads(cli("cluster", "list", "--json").output)
    assert (one["name"], one["owner"]) == ("lab", None)
    assert "stays until down" in cli("cluster", "list").output


def test_a_name_that_is_taken_is_told(cli, lab):
    code, output = cli("cluster", "up", "lab")
    assert (code, "there is an embedded cluster 'lab' already" in output) == (2, True)


def test_snapshots_by_hand(cli, lab, tmp_path):
    store, etcd = tmp_path / "store", lab.etcd
    saved = cli("etcd", "save", "first", "--store", store, "--cluster", "embedded:lab")
    assert saved.code == 0, saved.output
    assert saved.output.startswith("first: revision ")
    tls = ["--cacert", etcd.ca, "--cert", etcd.cert, "--key", etcd.key, "--endpoints", etcd.endpoints[0]]
    record = json.loads(cli("etcd", "save", "second", "--store", store, *tls, "--json").output)
    assert record["name"] == "second"
    listed = json.loads(cli("etcd", "list", "--store", store, "--json").output)
    assert [one["name"] for one in listed] == ["first", "second"]
    assert listed[1] == record
    assert record["sha256"][:12] in cli("etcd", "list", "--store", store).output
    report = json.loads(cli("etcd", "verify", "second", "--store", store, *tls, "--json").output)
    assert report["ok"]
    assert {check["name"] for check in report["checks"]} >= {"bytes", "structure", "record", "live HashKV"}
    assert cli("etcd", "save", "first", "--store", store, "--cluster", "embedded:lab").code == 2  # the name is taken


def test_a_snapshot_that_is_not_intact_is_the_answer_no(cli, lab, tmp_path):
    cli("etcd", "save", "first", "--store", tmp_path, "--cluster", "embedded:lab")
    file = tmp_path / "first.db"
    file.write_bytes(file.read_bytes()[:-100])
    code, output = cli("etcd", "verify", "first", "--store", tmp_path)
    assert (code, "NOT INTACT" in output) == (1, True)
    code, output = cli("etcd", "restore", "first", "--store", tmp_path, "--cluster", "embedded:lab", "--yes")
    assert code == 2
    assert lab.api.ready()


def test_from_inventory_to_restore(cli, lab, tmp_path):
    """Somebody writes down what is there, breaks it, sees what is broken, restores, and sees that it is not."""
    inventory, api = tmp_path / "inventory", lab.api
    at = ["--cluster", "embedded:lab"]
    assert cli("etcd", "save", "before", "--store", tmp_path, *at).code == 0
    captured = cli("inventory", "capture", inventory, *at, "--namespace", "default")
    assert captured.code == 0, captured.output
    assert f"objects in {inventory}" in captured.output
    assert cli("inventory", "compare", inventory, *at).code == 0

    api.patch(api.resource("ConfigMap"), "page", "default", patch={"data": {"color": "red"}})
    api.patch(api.resource("Secret"), "login", "default", patch={"data": {"password": "c3RhcGxl"}})
    broken = cli("inventory", "compare", inventory, *at)
    assert broken.code == 1
    assert "ConfigMap default/page" in broken.output
    assert "c3RhcGxl" not in broken.output
    report = json.loads(cli("inventory", "compare", inventory, *at, "--json").output)
    assert not report["ok"]

    restored = cli("etcd", "restore", "before", "--store", tmp_path, *at, "--yes")
    assert restored.code == 0, restored.output
    assert "✓ start etcd" in restored.output
    assert "the state before it is kept in " in restored.output
    compared = cli("inventory", "compare", inventory, *at, "--profile", "etcd-restore")
    assert compared.code == 0, compared.output
    assert [one["name"] for one in json.loads(cli("cluster", "list", "--json").output)] == ["lab"]
