"""``clusterguard velero`` as its user meets it, against Velero's own server."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner
from velero_names import unique

from clusterguard.cli.velero import app

pytestmark = [pytest.mark.programs, pytest.mark.slow]


@pytest.fixture
def cli(velero, cluster):
    """Run `clusterguard velero` with some arguments; return its exit code and what it printed."""

    def cli(*arguments):
        words = [*map(str, arguments), "--cluster", f"kubeconfig:{cluster.kubeconfig}"]
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout

    return cli


def test_backup_and_restore_from_beginning_to_end(cli, shop, api, s3):
    name, other = unique("by-hand"), unique("restored")
    code, said = cli("backup", "create", name, "--include-namespaces", shop, "--ttl", "3h", "--label", "team=shop")
    assert (code, said) == (0, f"{name}: Completed, no findings\n")
    assert name in cli("backup", "list")[1]
    code, said = cli("backup", "list", "--json")
    assert name in {each["metadata"]["name"] for each in json.loads(said)}
    assert f"{shop}/settings-0" in cli("backup", "describe", name)[1]
    assert "Backed up" in cli("backup", "logs", name)[1]
    api.delete(api.resource("ConfigMap"), "settings-3", shop)
    code, said = cli("restore", "create", other, "--from-backup", name, "--json")
    assert code == 0
    assert json.loads(said)["actions"]["created"] == 1
    assert cli("restore", "describe", other)[0] == 0
    assert cli("restore", "logs", other)[0] == 0
    assert other in cli("restore", "list")[1]
    assert cli("restore", "delete", other, "--yes")[0] == 0
    assert cli("backup", "delete", name, "--yes")[0] == 0
    assert name not in cli("backup", "list")[1]


def test_findings_are_exit_code_1(cli, shop):
    name = unique("nothing")
    code, said = cli("backup", "create", name, "--include-namespaces", shop, "--selector", "app=nobody")
    assert code == 0  # the namespace itself has no such label, but belongs to the backup
    code, said = cli("restore", "create", "--from-backup", name)
    assert code == 1
    assert "nothing-restored" in said


def test_status_and_locations(cli):
    code, said = cli("status")
    assert code == 0
    assert "Velero v1.18." in said
    assert "default (Available)" in said
    assert json.loads(cli("status", "--json")[1])["version"].startswith("v1.18.")
    assert "backups/main" in cli("location", "list")[1]
    assert cli("location", "set", "default", "--read-write")[1] == "location default is read-write, the default one\n"


def test_schedules(cli, shop):
    name = unique("nightly")
    words = ("--schedule", "0 3 * * *", "--include-namespaces", shop, "--skip-immediately")
    assert cli("schedule", "create", name, *words) == (0, f"schedule {name} is Enabled\n")
    assert cli("schedule", "pause", name) == (0, f"schedule {name} is paused\n")
    assert name in cli("schedule", "list")[1]
    assert cli("schedule", "unpause", name)[0] == 0
    assert cli("schedule", "delete", name, "--yes")[0] == 0
