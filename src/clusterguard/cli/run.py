"""``clusterguard run``, ``retain`` and what else is done with a policy's backups: fetch and rotate."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import PolicyArgument, ScratchOption, duration_of, read_policy
from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from clusterguard.policies.runs.run import Part

__all__ = ["fetch", "retain", "rotate", "run"]

_Wait = Annotated[
    str, typer.Option("--wait", help="Wait so long for another run of the policy, such as 1h.", metavar="DURATION")
]
_TrustClock = Annotated[
    bool, typer.Option("--trust-clock", help="Remove by age although something speaks against this machine's clock.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Location = Annotated[str, typer.Option("--location", help="The location to read; by default the first that has it.")]
_Backup = Annotated[str, typer.Argument(help="The backup's name; by default the newest.")]


def run(
    policy: PolicyArgument,
    step: Annotated[
        list[str] | None,
        typer.Option("--step", help="Only this part: backup, verify, retain or prove. May be given several times."),
    ] = None,
    wait: _Wait = "",
    trust_clock: _TrustClock = False,
    scratch: ScratchOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only what is not well, as cron likes it.")] = False,
    as_json: _Json = False,
) -> None:
    """Do what a policy says, once: back up, verify, remove, prove.

    Exit code 1: a backup or a copy is not intact, too few copies are, or a drill did not restore. 2: something
    could not be done, or a proof could not be tried to its end.
    """
    from clusterguard.policies.runs.run import PARTS, PolicyRunner
    from clusterguard.terminal import err, out
    from clusterguard.terminal.run_view import RunView

    parts = _parts(step, PARTS)
    view = RunView(err if as_json else out, quiet=quiet)
    read = read_policy(policy)
    runner = PolicyRunner(
        policy=read.model_copy(update={"scratch": str(scratch.absolute())}) if scratch else read,
        environ=os.environ,
        on_step=view,
        wait_seconds=_seconds(wait),
        trust_clock=trust_clock,
    )
    report = runner.run(parts)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    elif not quiet or report.outcome != "ok":
        view.finish(report)
    raise typer.Exit(report.exit_code)


def retain(
    policy: PolicyArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would become of every backup.")] = False,
    wait: _Wait = "",
    trust_clock: _TrustClock = False,
) -> None:
    """Remove what a policy's retention removes; do nothing else."""
    from clusterguard.policies.runs.run import PolicyRunner
    from clusterguard.terminal import out
    from clusterguard.terminal.run_view import RunView, show_retention

    view = RunView(out)
    runner = PolicyRunner(
        policy=read_policy(policy),
        environ=os.environ,
        on_step=view,
        wait_seconds=_seconds(wait),
        trust_clock=trust_clock,
    )
    if dry_run:
        show_retention(out, runner.planned_retention())
        return
    report = runner.run(["retain"])
    view.finish(report)
    raise typer.Exit(report.exit_code)


def fetch(
    policy: PolicyArgument,
    source: Annotated[str, typer.Argument(help="A source of the policy.")],
    to: Annotated[str, typer.Option("--to", help="Where to: a folder, or s3://BUCKET/PREFIX.", metavar="STORE")],
    backup: _Backup = "",
    location: _Location = "",
) -> None:
    """Put a backup somewhere else in plain: a snapshot that etcdutl reads, or a Velero backup as its bucket had it."""
    from clusterguard.policies.copies.encryption import encryption_of
    from clusterguard.policies.copies.stored import fetch as fetch_backup
    from clusterguard.stores import open_store
    from clusterguard.terminal import out

    read = read_policy(policy)
    name = fetch_backup(
        read, source, open_store(to), encryption=encryption_of(read, os.environ), backup=backup, location=location
    )
    out.print(f"{name} is in {to}, in plain", markup=False, soft_wrap=True)


def rotate(
    policy: PolicyArgument,
    old: Annotated[Path, typer.Option("--old", help="The policy as it was, with the key that opens what lies there.")],
    wait: _Wait = "",
) -> None:
    """Re-encrypt every copy for the policy's present recipients; the old copy goes once the new one is proven."""
    from clusterguard.policies.runs.run import PolicyRunner
    from clusterguard.terminal import out
    from clusterguard.terminal.run_view import RunView

    view = RunView(out)
    runner = PolicyRunner(policy=read_policy(policy), environ=os.environ, on_step=view, wait_seconds=_seconds(wait))
    report = runner.rotate(read_policy(old))
    view.finish(report)
    raise typer.Exit(report.exit_code)


def _seconds(text: str) -> float:
    wait = duration_of(text, "--wait")
    return wait.total_seconds() if wait else 0


def _parts(wanted: list[str] | None, known: tuple[Part, ...]) -> list[Part]:
    from clusterguard.documents.values import did_you_mean

    for each in wanted or ():
        if each not in known:
            raise ConfigError(f"--step {each}: unknown part{did_you_mean(each, known)}",
                              hint=f"there are {', '.join(known)}")  # fmt: skip
    return [part for part in known if not wanted or part in wanted]
