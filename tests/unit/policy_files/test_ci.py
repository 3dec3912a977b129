"""Schedules for GitHub Actions and GitLab CI, against the shapes that both document."""

from __future__ import annotations

import re

import pytest
import yaml

from clusterguard.errors import ConfigError
from clusterguard.policies.deploy.ci import github_workflow, gitlab_pipeline, secret_files, variables_of

# https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax
GITHUB = {
    "": {"name", "on", "permissions", "concurrency", "jobs", "env", "defaults", "run-name"},
    "schedule": {"cron", "timezone"},
    "job": {"runs-on", "timeout-minutes", "env", "steps", "needs", "if", "permissions", "container", "name"},
    "step": {"name", "id", "if", "uses", "with", "run", "shell", "env", "working-directory", "timeout-minutes"},
}
# https://docs.gitlab.com/ci/yaml/
GITLAB = {
    "image", "rules", "tags", "resource_group", "interruptible", "timeout", "variables", "script", "after_script",
    "before_script", "artifacts", "stage", "needs", "retry", "allow_failure", "cache", "services", "environment",
}  # fmt: skip


@pytest.fixture
def policy(load, minimal):
    return load(minimal.replace("./backups", "'s3://${env.BUCKET}/x'"), BUCKET="mine")


def workflow(policy, **settings):
    return yaml.safe_load(github_workflow(policy, file="backups/policy.yaml", **settings))


def job(policy, **settings):
    return yaml.safe_load(gitlab_pipeline(policy, file="backups/policy.yaml", **settings))["backup-production"]


def test_a_workflow_has_the_shape_that_github_documents(policy):
    found = workflow(policy)
    (backup,) = found["jobs"].values()

    assert found.keys() <= GITHUB[""]
    assert found["on"]["schedule"] == [{"cron": "30 3 * * *", "timezone": "Europe/Berlin"}]
    assert found["concurrency"] == {"group": "clusterguard-production", "cancel-in-progress": False}
    assert found["permissions"] == {"contents": "read"}
    assert backup.keys() <= GITHUB["job"]
    assert all(step.keys() <= GITHUB["step"] for step in backup["steps"])
    assert all(("uses" in step) != ("run" in step) for step in backup["steps"])


def test_a_workflow_runs_the_policy_and_keeps_reports_whatever_became_of_it(policy):
    steps = workflow(policy)["jobs"]["backup"]["steps"]
    names = [step.get("name") or step.get("uses") or step["run"] for step in steps]

    assert "clusterguard run --json backups/policy.yaml > reports/run.json" in steps[names.index("run")]["run"]
    assert [step.get("if") for step in steps[-2:]] == ["always()", "always()"]
    assert steps[-1]["with"]["path"] == "reports/"
    assert "pip install 'clusterguard[policy]'" in names


def test_secrets_are_named_and_never_written(policy):
    expected = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "BUCKET", "OPS_URL"]

    assert list(variables_of(policy)) == expected
    assert workflow(policy)["jobs"]["backup"]["env"] == {name: f"${{{{ secrets.{name} }}}}" for name in expected}
    assert [path.rpartition("/")[2] for path in secret_files(policy)] == ["heartbeat.url"]
    comments = github_workflow(policy, file="p.yaml").partition("name:")[0]
    assert "These files must be on the runner" in comments


def test_the_keys_of_what_is_encrypted_at_rest_are_files_of_the_runner(load, minimal, tmp_path):
    (tmp_path / "etcd.drill.yaml").write_text("spec: {backup: [storedBackup: {encryptionConfig: keys/drill.yaml}]}\n")
    proofs = f"""\
  proofs:
  - {{name: rehearsed, source: etcd, every: 7d, rehearse: {{encryptionConfig: {tmp_path}/rehearsal.yaml}}}}
  - {{name: drilled, source: etcd, every: 7d, drill: {tmp_path}/etcd.drill.yaml}}
"""
    files = set(secret_files(load(minimal + proofs)))
    assert files >= {f"{tmp_path}/rehearsal.yaml", f"{tmp_path}/keys/drill.yaml"}


def test_a_schedule_in_utc_says_nothing_of_zones(load, minimal):
    found = workflow(load(minimal.replace("Europe/Berlin", "UTC")))

    assert found["on"]["schedule"] == [{"cron": "30 3 * * *"}]


def test_for_old_servers_the_time_is_put_into_utc(load, minimal):
    found = workflow(load(minimal.replace("Europe/Berlin", "Asia/Tokyo")), utc=True)

    assert found["on"]["schedule"] == [{"cron": "30 18 * * *"}]


def test_a_zone_with_daylight_saving_has_no_time_in_utc(policy):
    with pytest.raises(ConfigError) as caught:
        github_workflow(policy, file="p.yaml", utc=True)
    assert (caught.value.code, caught.value.fields) == (
        "schedule-not-possible",
        {"zone": "UTC", "reason": "clock-changes"},
    )


def test_github_does_not_start_runs_every_minute(load, minimal):
    with pytest.raises(ConfigError) as caught:
        github_workflow(load(minimal.replace("30 3 * * *", "*/2 * * * *")), file="p.yaml")
    assert (caught.value.code, caught.value.fields) == ("schedule-not-possible", {"reason": "too-often"})


def test_a_job_has_the_shape_that_gitlab_documents(policy):
    found = job(policy, tag="inside")

    assert found.keys() <= GITLAB
    assert found["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}]
    assert found["artifacts"] == {"when": "always", "paths": ["reports/"], "expire_in": "30 days"}
    assert found["tags"] == ["inside"]
    assert found["script"][-1] == "clusterguard run --json backups/policy.yaml > reports/run.json"
    assert "interval pattern 30 3 * * * and the cron time zone Europe/Berlin" in gitlab_pipeline(policy, file="p.yaml")


@pytest.mark.parametrize("write_it", [github_workflow, gitlab_pipeline])
def test_a_path_is_safe_from_the_shell(policy, write_it):
    text = write_it(policy, file="a b; rm -rf x.yaml")

    assert re.search(r"run --json 'a b; rm -rf x.yaml' >", text)


@pytest.mark.parametrize("write_it", [github_workflow, gitlab_pipeline])
def test_a_policy_without_a_schedule_is_refused(load, minimal, write_it):
    policy = load("\n".join(line for line in minimal.splitlines() if "schedule:" not in line))

    with pytest.raises(ConfigError, match="has no schedule"):
        write_it(policy, file="p.yaml")
