"""``clusterguard policy``: check policies, show what they come to, print their schema, work with their copies."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import PolicyArgument, PolicyArguments, read_policy
from clusterguard.cli.run import fetch, rotate

if TYPE_CHECKING:
    from clusterguard.policies.policy import Policy

__all__ = ["app"]

_NOT_RIGHT = 1

app = typer.Typer(name="policy", help="Policies: what is backed up, when, where to.", no_args_is_help=True)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    location: Annotated[
        list[str] | None,
        typer.Option(
            "--location", help="Where copies lie: a folder, or s3://BUCKET/PREFIX. May be given several times."
        ),
    ] = None,
    cluster: Annotated[
        str,
        typer.Option("--cluster", help="The cluster whose etcd is backed up; by default this kubeadm node's."),
    ] = "",
    expect: Annotated[
        str,
        typer.Option("--expect", help="A namespace that a restore must bring back: writes a drill that proves it."),
    ] = "",
) -> None:
    """Write a first policy and a new key pair, to be read and changed."""
    from clusterguard.policies.files.starter import starter_files, write_starter
    from clusterguard.terminal import out

    name = folder.resolve().name.lower()
    files = starter_files(name=name, cluster=cluster, locations=location or (), expect=expect)
    for path in write_starter(folder, files):
        note = ": who has this can read the backups; keep a copy far from here" if path.name == "identity.txt" else ""
        out.print(f"{path}{note}", markup=False, soft_wrap=True)


@app.command()
def check(
    policies: PolicyArguments,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for what is only risky, too.")] = False,
) -> None:
    """Tell everything that is wrong in policies, and what is risky though valid. Exit code 1: one is wrong."""
    from clusterguard.errors import InvalidDocumentError
    from clusterguard.terminal import err, out

    wrong = False
    for file in policies:
        try:
            policy = read_policy(file)
        except InvalidDocumentError as error:
            wrong = True
            err.print(error.message, style="red", markup=False, soft_wrap=True)
            if error.hint:
                err.print(f"  → {error.hint}", style="yellow", markup=False, soft_wrap=True)
            continue
        problems = _wrong_drills(policy)
        risky = _tell_risks(policy, file)
        for problem in problems:
            err.print(problem, style="red", markup=False, soft_wrap=True)
        if not problems:
            words = f", with {risky} warning{'s' * (risky != 1)}" if risky else ""
            out.print(f"{file}: policy {policy.name} is valid{words}", style="green", markup=False, soft_wrap=True)
        wrong = wrong or bool(problems) or (strict and risky > 0)
    if wrong:
        raise typer.Exit(_NOT_RIGHT)


@app.command()
def plan(
    policy: PolicyArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a run would do, and when the next ones are due; do nothing of it."""
    from clusterguard.policies.files.planning import plan_policy

    found = plan_policy(read_policy(policy), now=datetime.now(UTC))
    typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else found.to_text())


@app.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    from clusterguard.policies.policy import policy_schema_text

    typer.echo(policy_schema_text(), nl=False)


app.command()(fetch)
app.command()(rotate)


def _wrong_drills(policy: Policy) -> list[str]:
    """Return what is wrong with the drills that prove the policy; each is loaded, and none is run."""
    from clusterguard.drills import load_drills
    from clusterguard.drills.steps.stored_backup import StoredBackup
    from clusterguard.errors import InvalidDrillError

    problems = []
    for proof in (each for each in policy.proofs if each.drill):
        path = Path(proof.drill)
        try:
            drills = load_drills(path, environ=os.environ, root=path.parent)
        except InvalidDrillError as error:
            problems.append(f"proof `{proof.name}`: {error.message}")
            continue
        actions = (step.action for drill in drills for step in drill.steps)
        restored = {action.source for action in actions if isinstance(action, StoredBackup)}
        if proof.source not in restored:
            problems.append(
                f"proof `{proof.name}`: {path} restores no backup of `{proof.source}`; it needs a storedBackup step"
            )
    return problems


def _tell_risks(policy: Policy, file: Path) -> int:
    from clusterguard.policies.files.risks import risks
    from clusterguard.terminal import err

    found = risks(policy, now=datetime.now(UTC))
    for risk in found:
        err.print(f"{file}: warning: {risk}", style="yellow", markup=False, soft_wrap=True)
        err.print(f"  → {risk.hint}", markup=False, soft_wrap=True)
    return len(found)
