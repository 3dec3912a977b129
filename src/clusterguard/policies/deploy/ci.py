"""A policy's schedule for GitHub Actions and GitLab CI: it runs it, keeps what it printed, and holds no secret."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from clusterguard.documents.interpolation import references
from clusterguard.documents.reading import walk
from clusterguard.documents.writing import yaml_text
from clusterguard.errors import ConfigError
from clusterguard.policies.deploy.crontab import in_zone
from clusterguard.policies.deploy.pods import drill_secrets
from clusterguard.policies.deploy.templates import fill
from clusterguard.policies.schedule import due_times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.policies.policy import Policy, Schedule, Secret

__all__ = ["github_workflow", "gitlab_pipeline", "secret_files", "variables_of"]

_SHORTEST: Final = timedelta(minutes=5)  # GitHub's; it drops what is due more often
_RUN: Final = "mkdir -p reports\nclusterguard run --json {0} > reports/run.json"
_STATUS: Final = "mkdir -p reports\nclusterguard status --allow-at-risk --html reports/status.html {0}"
_S3_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def github_workflow(policy: Policy, *, file: str, runs_on: str = "ubuntu-latest", utc: bool = False) -> str:
    """Return a workflow for GitHub Actions, for ``.github/workflows``.

    - ``runs_on``: the runner's label; one that reaches the cluster.
    - ``utc``: say the time in UTC, for servers whose workflows have no ``timezone``.

    Raises:
        ConfigError: It has no schedule, is due too often, or at no fixed time of UTC where that is wanted.
    """
    schedule = _schedule_of(policy)
    coming = pairwise(islice(due_times(schedule, after=datetime.now(UTC)), 100))
    if any(later - earlier < _SHORTEST for earlier, later in coming):
        raise ConfigError(
            "GitHub runs scheduled workflows every five minutes at most",
            code="schedule-not-possible",
            fields={"reason": "too-often"},
            hint="schedule runs less often",
        )
    workflow = fill(
        "github",
        name=f"backup {policy.name}",
        cron=in_zone(schedule, "UTC") if utc else schedule.cron,
        time_zone=None if utc or schedule.time_zone == "UTC" else schedule.time_zone,
        group=f"clusterguard-{policy.name}",
        runs_on=runs_on,
        env={name: f"${{{{ secrets.{name} }}}}" for name in variables_of(policy)} or None,
        run=_RUN.format(shlex.quote(file)),
        status=_STATUS.format(shlex.quote(file)),
    )
    return _text(
        workflow,
        f"Policy {policy.name}, due {schedule.cron} in {schedule.time_zone}. Save it as",
        f".github/workflows/backup-{policy.name}.yaml on the default branch: schedules are read from there only.",
        "GitHub may start late, above all at full hours, or leave a run out under load; in public repositories it",
        "stops schedules after 60 days without activity. Let the policy's heartbeat tell you.",
        *_needs(policy, "repository secrets"),
    )


def gitlab_pipeline(policy: Policy, *, file: str, tag: str = "") -> str:
    """Return a job for ``.gitlab-ci.yml``; the schedule itself is made in GitLab's settings, as its comments say.

    - ``tag``: of a runner that reaches the cluster; empty for any.

    Raises:
        ConfigError: It has no schedule.
    """
    schedule = _schedule_of(policy)
    job = fill(
        "gitlab",
        tags=[tag] if tag else None,
        group=f"clusterguard-{policy.name}",
        script=["pip install 'clusterguard[policy]'", *_RUN.format(shlex.quote(file)).splitlines()],
        after_script=_STATUS.format(shlex.quote(file)).splitlines(),
    )
    return _text(
        {f"backup-{policy.name}": job},
        f"Policy {policy.name}. GitLab keeps schedules outside of this file: make one under Build > Pipeline",
        f"schedules, with the interval pattern {schedule.cron} and the cron time zone {schedule.time_zone}.",
        *_needs(policy, "masked CI/CD variables"),
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
    named = {each.file for each in _secrets(policy) if each.file}
    named |= {each.rehearse.encryption_config for each in policy.proofs if each.rehearse} - {""}
    drills = (Path(policy.path).absolute().parent / each.drill for each in policy.proofs if each.drill)
    return tuple(sorted(named | {str(file) for file in drill_secrets(drills)}))


def _secrets(policy: Policy) -> Iterator[Secret]:
    if policy.encryption is not None:
        yield from filter(None, (policy.encryption.passphrase, policy.encryption.identity))
    yield from filter(None, (each.velero.repository_password for each in policy.sources if each.velero))
    yield from policy.addresses


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


def _needs(policy: Policy, kind: str) -> Iterator[str]:
    if names := variables_of(policy):
        yield f"It needs these {kind}: {', '.join(names)}."
    if files := secret_files(policy):
        yield f"These files must be on the runner: {', '.join(files)}; or use variables in their place."


def _text(document: dict[str, Any], *comments: str) -> str:
    return "".join(f"# {line}\n" for line in comments) + yaml_text([document])
