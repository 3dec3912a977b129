"""A policy's schedule for GitHub Actions and GitLab CI: it runs it, keeps what it printed, and holds no secret."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Final

import yaml

from clusterguard.documents.interpolation import references
from clusterguard.documents.reading import walk
from clusterguard.documents.writing import yaml_text
from clusterguard.errors import ConfigError
from clusterguard.policies.deploy.crontab import in_zone
from clusterguard.policies.schedule import due_times

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterguard.policies.policy import Policy, Schedule, Secret

__all__ = ["github_workflow", "gitlab_pipeline", "secret_files", "variables_of"]

_PACKAGE: Final = "clusterguard[policy]"
_PYTHON: Final = "3.13"
_REPORTS: Final = "reports"
_SHORTEST: Final = timedelta(minutes=5)  # GitHub's; it drops what is due more often
_LONGEST_HOURS: Final = 4
_KEPT_DAYS: Final = 30
_S3_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def github_workflow(policy: Policy, *, file: str, runs_on: str = "ubuntu-latest", utc: bool = False) -> str:
    """Return a workflow for GitHub Actions, for ``.github/workflows``.

    Args:
        policy: The policy, with a schedule.
        file: Its path in the repository.
        runs_on: The runner's label; one that reaches the cluster.
        utc: Say the time in UTC, for servers whose workflows have no ``timezone``.

    Raises:
        ConfigError: It has no schedule, is due too often, or at no fixed time of UTC where that is wanted.
    """
    schedule = _schedule_of(policy)
    coming = pairwise(islice(due_times(schedule, after=datetime.now(UTC)), 100))
    if any(later - earlier < _SHORTEST for earlier, later in coming):
        raise ConfigError("GitHub starts workflows every five minutes at most", hint="make runs due less often")
    when = {"cron": in_zone(schedule, "UTC") if utc else schedule.cron}
    if not utc and schedule.time_zone != "UTC":
        when["timezone"] = schedule.time_zone
    environment = {name: f"${{{{ secrets.{name} }}}}" for name in variables_of(policy)}
    workflow = {
        "name": f"backup {policy.name}",
        "on": {"schedule": [when], "workflow_dispatch": {}},
        "permissions": {"contents": "read"},
        "concurrency": {"group": f"clusterguard-{policy.name}", "cancel-in-progress": False},
        "jobs": {
            "backup": {
                "runs-on": runs_on,
                "timeout-minutes": _LONGEST_HOURS * 60,
                **({"env": environment} if environment else {}),
                "steps": [
                    {"uses": "actions/checkout@v4"},
                    {"uses": "actions/setup-python@v5", "with": {"python-version": _PYTHON}},
                    {"run": f"pip install {shlex.quote(_PACKAGE)}"},
                    {"name": "run", "run": _run(file)},
                    {"name": "status", "if": "always()", "run": _status(file)},
                    {
                        "if": "always()",
                        "uses": "actions/upload-artifact@v4",
                        "with": {
                            "name": f"clusterguard-{policy.name}",
                            "path": f"{_REPORTS}/",
                            "retention-days": _KEPT_DAYS,
                        },
                    },
                ],
            }
        },
    }
    return _text(
        [
            f"Policy {policy.name}, due {schedule.cron} in {schedule.time_zone}. Save it as",
            f".github/workflows/backup-{policy.name}.yaml on the default branch: schedules are read from there only.",
            "GitHub may start late, above all at full hours, or leave a run out under load; in public repositories it",
            "stops schedules after 60 days without activity. Let the policy's heartbeat tell you.",
            *_needs(policy, "repository secrets"),
        ],
        workflow,
    )


def gitlab_pipeline(policy: Policy, *, file: str, tag: str = "") -> str:
    """Return a job for ``.gitlab-ci.yml``; the schedule itself is made in GitLab's settings, as its comments say.

    Args:
        policy: The policy, with a schedule.
        file: Its path in the repository.
        tag: Of a runner that reaches the cluster; empty for any.

    Raises:
        ConfigError: It has no schedule.
    """
    schedule = _schedule_of(policy)
    job = {
        "image": f"python:{_PYTHON}-slim",
        "rules": [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}],
        **({"tags": [tag]} if tag else {}),
        "resource_group": f"clusterguard-{policy.name}",
        "interruptible": False,
        "timeout": f"{_LONGEST_HOURS}h",
        "variables": {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        "script": [f"pip install {shlex.quote(_PACKAGE)}", *_run(file).splitlines()],
        "after_script": _status(file).splitlines(),
        "artifacts": {"when": "always", "paths": [f"{_REPORTS}/"], "expire_in": f"{_KEPT_DAYS} days"},
    }
    return _text(
        [
            f"Policy {policy.name}. GitLab keeps schedules outside of this file: make one under Build > Pipeline",
            f"schedules, with the interval pattern {schedule.cron} and the cron time zone {schedule.time_zone}.",
            *_needs(policy, "masked CI/CD variables"),
        ],
        {f"backup-{policy.name}": job},
    )


def variables_of(policy: Policy) -> tuple[str, ...]:
    """Return the variables that a run of the policy reads, by name and in order.

    Those that its file refers to as ``${env.NAME}`` are among them, where it was loaded from a file.
    """
    named = [each.env for each in _secrets(policy) if each.env]
    if any(each.url.startswith("s3:") and "profile=" not in each.url for each in policy.locations):
        named += _S3_VARIABLES
    return tuple(sorted({*named, *_references(policy)}))


def secret_files(policy: Policy) -> tuple[str, ...]:
    """Return the files with secrets that a run reads: they must be on the machine that it runs on."""
    return tuple(sorted({each.file for each in _secrets(policy) if each.file}))


def _secrets(policy: Policy) -> Iterator[Secret]:
    if policy.encryption is not None:
        yield from filter(None, (policy.encryption.passphrase, policy.encryption.identity))
    yield from (each.url for each in policy.notifications)
    if policy.heartbeat is not None:
        yield policy.heartbeat.url


def _references(policy: Policy) -> Iterator[str]:
    if not policy.path:
        return
    with open(policy.path, encoding="utf-8") as file:  # noqa: PTH123 - one read of a path that was loaded already
        document = yaml.safe_load(file)
    for _, value in walk(document):
        for reference in references(value) if isinstance(value, str) else ():
            scope, _, name = reference.partition(".")
            if scope == "env":
                yield name


def _schedule_of(policy: Policy) -> Schedule:
    if policy.schedule is None:
        raise ConfigError(
            f"policy {policy.name} has no schedule", hint='write spec.schedule, such as {cron: "30 2 * * *"}'
        )
    return policy.schedule


def _run(file: str) -> str:
    return f"mkdir -p {_REPORTS}\nclusterguard run --json {shlex.quote(file)} > {_REPORTS}/run.json"


def _status(file: str) -> str:
    return f"mkdir -p {_REPORTS}\nclusterguard status --allow-at-risk --html {_REPORTS}/status.html {shlex.quote(file)}"


def _needs(policy: Policy, kind: str) -> Iterator[str]:
    if names := variables_of(policy):
        yield f"It needs these {kind}: {', '.join(names)}."
    if files := secret_files(policy):
        yield f"These files must be on the runner: {', '.join(files)}; or use variables in their place."


def _text(comments: Iterable[str], document: dict[str, Any]) -> str:
    written = yaml_text([document])
    return "".join(f"# {line}\n" for line in comments) + written
