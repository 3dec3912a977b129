"""``clusterguard schedule``: a policy's schedule, written for cron, CI or Kubernetes."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clusterguard.cli.options import PolicyArgument, read_policy, require_duration
from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterguard.policies.policy import Policy

__all__ = ["app"]

app = typer.Typer(name="schedule", help="Schedules: print a policy's for cron, CronJobs and CI.", no_args_is_help=True)


@app.command()
def cron(
    policy: PolicyArgument,
    dialect: Annotated[
        Literal["cronie", "debian"],
        typer.Option(help="Whose cron: cronie takes time zones, Debian's and Ubuntu's has the machine's own only."),
    ] = "cronie",
    program: Annotated[str, typer.Option(help="Path of clusterguard; by default this one's.")] = "",
    mail_to: Annotated[str, typer.Option("--mailto", help="Who gets what runs print.")] = "",
    system_time_zone: Annotated[str, typer.Option(help="The machine's time zone; by default this one's.")] = "",
) -> None:
    """Print lines for a crontab: `(crontab -l; clusterguard schedule cron POLICY) | crontab -`."""
    from clusterguard.policies.deploy.crontab import crontab

    loaded = _with_schedule(policy)
    assert loaded.schedule is not None  # noqa: S101 - for the type checker: it was looked at
    text = crontab(
        loaded.schedule,
        [program or _this_program(), "run", "--quiet", loaded.path],
        policy=loaded.name,
        dialect=dialect,
        system_zone=system_time_zone or _system_zone(),
        mail_to=mail_to,
    )
    typer.echo(text, nl=False)


@app.command()
def github(
    policy: PolicyArgument,
    runs_on: Annotated[
        str, typer.Option(help="Label of the runner; it must reach the cluster and the locations.")
    ] = "ubuntu-latest",
    utc: Annotated[bool, typer.Option("--utc", help="Say the time in UTC, for servers without time zones.")] = False,
) -> None:
    """Print a workflow for GitHub Actions; POLICY is its path in the repository."""
    from clusterguard.policies.deploy.ci import github_workflow

    typer.echo(github_workflow(_with_schedule(policy), file=_in_repository(policy), runs_on=runs_on, utc=utc), nl=False)


@app.command()
def gitlab(
    policy: PolicyArgument,
    tag: Annotated[str, typer.Option(help="Tag of a runner that reaches the cluster and the locations.")] = "",
) -> None:
    """Print a job for GitLab CI; POLICY is its path in the repository."""
    from clusterguard.policies.deploy.ci import gitlab_pipeline

    typer.echo(gitlab_pipeline(_with_schedule(policy), file=_in_repository(policy), tag=tag), nl=False)


@app.command()
def cronjob(
    policy: PolicyArgument,
    image: Annotated[
        str, typer.Option(help="The image of clusterguard, in a registry that the nodes reach.")
    ] = "clusterguard:latest",
    namespace: Annotated[str, typer.Option(help="Namespace of everything but a Role in Velero's.")] = "clusterguard",
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            "--schedule",
            help="When another part than the backup runs, such as `verify=0 5 * * *`; retain and prove likewise.",
            metavar="PART=CRON",
        ),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            "--claim", help="A PersistentVolumeClaim for a location that is a folder.", metavar="FOLDER=CLAIM"
        ),
    ] = None,
    writer_secret: Annotated[
        str, typer.Option(help="Secret with `credentials` of who writes; empty where pods have an identity.")
    ] = "clusterguard-writer",  # noqa: S107 - a name
    keeper_secret: Annotated[
        str, typer.Option(help="Secret with `credentials` of who may delete, too; empty likewise.")
    ] = "clusterguard-keeper",  # noqa: S107 - a name
    secrets: Annotated[
        str, typer.Option(help="Secret with the variables and the secret files of the policy.")
    ] = "clusterguard-secrets",
    etcd_secret: Annotated[str, typer.Option(help="Secret with etcd's client certificate.")] = "clusterguard-etcd",  # noqa: S107 - a name
    longest: Annotated[str, typer.Option(help="How long one run may take.", metavar="DURATION")] = "4h",
    scratch: Annotated[str, typer.Option(help="The most that a run may write to its own disk.")] = "10Gi",
) -> None:
    """Print what runs the policy in Kubernetes: CronJobs, and what they need but for Secrets; for `kubectl apply`."""
    from clusterguard.documents.writing import yaml_text
    from clusterguard.policies.deploy.kubernetes import CronJobOptions, cronjob_manifests

    options = CronJobOptions(
        image=image,
        namespace=namespace,
        writer_secret=writer_secret,
        keeper_secret=keeper_secret,
        secrets=secrets,
        etcd_secret=etcd_secret,
        claims=_pairs("--claim", claim),
        longest=require_duration(longest, "--longest"),
        scratch=scratch,
    )
    if schedule:
        options = replace(options, schedules={**options.schedules, **_pairs("--schedule", schedule)})
    typer.echo(yaml_text(cronjob_manifests(_with_schedule(policy), options=options)), nl=False)


def _pairs(option: str, written: Iterable[str] | None) -> dict[str, str]:

    pairs = [each.partition("=")[::2] for each in written or ()]
    for name, value in pairs:
        if not name or not value.strip():
            raise ConfigError(f"{option}: {name!r} has nothing behind a =", hint=f"write {option} NAME=VALUE")
    return dict(pairs)


def _with_schedule(file: Path) -> Policy:
    from clusterguard.policies.schedule import changes_around
    from clusterguard.terminal import err

    policy = read_policy(file)
    if policy.schedule is None:
        raise ConfigError(f"{file}: the policy has no schedule", hint='spec: {schedule: {cron: "30 2 * * *"}}')
    if changes := changes_around(policy.schedule, after=datetime.now(UTC)):
        err.print(
            f"warning: {changes[0]:%Y-%m-%d %H:%M} is skipped, or comes twice, in {policy.schedule.time_zone}:"
            " schedulers do not agree on what happens then (docs/how-to/schedule.md)",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    return policy


def _in_repository(file: Path) -> str:

    if file.is_absolute() or ".." in file.parts:
        raise ConfigError(
            f"{file} is not a path inside a repository",
            code="not-in-repository",
            hint="run this in the repository's folder, with its path there",
        )
    return str(file)


def _this_program() -> str:
    beside = Path(sys.executable).with_name("clusterguard")
    return str(beside) if beside.is_file() else shutil.which("clusterguard") or "clusterguard"


def _system_zone() -> str:
    """Return this machine's time zone by its IANA name, or an empty text where it has none."""
    if zone := os.environ.get("TZ", "").removeprefix(":"):
        return zone
    _, found, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    if found:
        return name
    written = Path("/etc/timezone")
    return written.read_text().strip() if written.is_file() else ""
