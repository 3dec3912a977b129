"""``clusterguard policy`` and ``clusterguard schedule``, as their user meets them."""

from __future__ import annotations

import json

import pytest
import typer
import yaml
from typer.testing import CliRunner

from clusterguard.cli import policy, schedule
from clusterguard.errors import ConfigError
from clusterguard.policies.policy import policy_schema_text

DRILL = """\
apiVersion: clusterguard.dev/v1alpha1
kind: Drill
metadata: {name: prove-etcd}
spec:
  backup:
  - storedBackup: {name: last, policy: policy.yaml, source: etcd}
  restore:
  - etcdRestore: {from: last}
  verify:
  - ready: {kind: Node}
"""
PROOFS = "  proofs: [{name: weekly, drill: etcd.drill.yaml, source: etcd, every: 7d}]\n"


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run a command beside the policy file."""
    app = typer.Typer()
    app.add_typer(policy.app)
    app.add_typer(schedule.app)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words):
        result = CliRunner().invoke(app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return command


def test_check_tells_everything_that_is_wrong(command, write, minimal):
    write(minimal.replace("30 3 * * *", "30 3 31 2 *").replace("daily: 14", "daily: 0"))

    result = command("policy", "check", "policy.yaml")

    assert result.exit_code == 1
    assert "policy.yaml:6:20: spec.schedule.cron" in result.output
    assert "policy.yaml:15:14: spec.retention" in result.output


def test_check_tells_what_is_risky_and_that_the_policy_is_valid(command, write, minimal):
    write(minimal)

    result = command("policy", "check", "policy.yaml")

    assert result.exit_code == 0
    assert "warning: spec.proofs: nothing ever restores a backup of `etcd`" in result.output
    assert "policy.yaml: policy production is valid, with 4 warnings" in result.output


def test_check_can_be_strict(command, write, minimal):
    write(minimal)

    assert command("policy", "check", "--strict", "policy.yaml").exit_code == 1


def test_check_looks_at_all_files(command, write, minimal):
    write("[]")
    write(minimal, "other.yaml")

    result = command("policy", "check", "policy.yaml", "other.yaml")

    assert result.exit_code == 1
    assert "policy.yaml:1:1" in result.output
    assert "other.yaml: policy production is valid" in result.output


def test_check_loads_the_drills_that_prove_it(command, write, minimal):
    write(minimal.replace("  retention:", f"{PROOFS}  retention:"))

    missing = command("policy", "check", "policy.yaml")
    write(DRILL.replace("source: etcd", "source: shop"), "etcd.drill.yaml")
    other = command("policy", "check", "policy.yaml")
    write(DRILL, "etcd.drill.yaml")
    right = command("policy", "check", "policy.yaml")

    assert (missing.exit_code, other.exit_code, right.exit_code) == (1, 1, 0), right.output
    assert "proof `weekly`" in missing.output
    assert "no such file" in missing.output
    assert "restores no backup of `etcd`; it needs a storedBackup step" in other.output


def test_plan_is_text_or_json(command, write, minimal):
    write(minimal)

    assert "policy production" in command("policy", "plan", "policy.yaml").output
    assert len(json.loads(command("policy", "plan", "--json", "policy.yaml").output)["due"]) == 5


def test_schema_is_printed_as_it_is_published(command):
    assert command("policy", "schema").output == policy_schema_text()


def test_a_crontab_names_the_program_and_the_policy_by_their_whole_paths(command, write, minimal, tmp_path):
    write(minimal)

    output = command("schedule", "cron", "policy.yaml", "--program", "/bin/x", "--system-time-zone", "UTC").output

    assert output.splitlines()[-2:] == [
        "CRON_TZ=Europe/Berlin",
        f"30 3 * * * /bin/x run --quiet {tmp_path}/policy.yaml",
    ]


def test_ci_needs_a_path_in_the_repository(command, write, minimal, tmp_path):
    write(minimal)

    with pytest.raises(ConfigError) as caught:
        command("schedule", "github", f"{tmp_path}/policy.yaml")
    assert caught.value.code == "not-in-repository"
    assert "clusterguard run --json policy.yaml" in command("schedule", "gitlab", "policy.yaml").output


def test_a_schedule_in_the_hour_of_the_change_is_told_beside_the_output(command, write, minimal):
    write(minimal.replace("30 3", "30 2"))

    result = command("schedule", "github", "policy.yaml")

    assert "schedulers do not agree on what happens then" in result.stderr
    assert yaml.safe_load(result.stdout)["on"]["schedule"]


def test_cronjobs_are_printed_as_documents_that_kubectl_reads(command, write, minimal):
    certificates = "caFile: pki/ca.crt, certFile: pki/client.crt, keyFile: pki/client.key"
    inside = certificates.replace("pki", "/etc/clusterguard/etcd")
    velero = "".join(line for line in minimal.splitlines(keepends=True) if "shop" in line)
    text = (
        minimal.replace(certificates, inside)
        .replace(velero, "")
        .replace("heartbeat.url", "/etc/clusterguard/secrets/h")
    )
    text = text.replace("- {name: near, url: ./backups}\n  ", "").replace(
        "readers.txt", "readers.txt\n    recipients: []"
    )
    write(text)
    write("age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq\n", "readers.txt")

    result = command("schedule", "cronjob", "policy.yaml", "--schedule", "verify=0 6 * * *", "--namespace", "backups")

    documents = list(yaml.safe_load_all(result.stdout))
    cronjobs = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "CronJob"}
    assert {each["timeZone"] for each in cronjobs.values()} == {"Europe/Berlin"}
    assert {"30 3 * * *", "0 6 * * *"} <= {each["schedule"] for each in cronjobs.values()}
    assert result.stdout.startswith("---\n")


@pytest.mark.parametrize("written", ["verify", "=0 6 * * *", "verify="])
def test_half_an_option_is_refused(command, write, minimal, written):
    write(minimal)

    with pytest.raises(ConfigError, match="--schedule"):
        command("schedule", "cronjob", "policy.yaml", "--schedule", written)
