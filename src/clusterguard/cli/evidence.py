"""``clusterguard evidence``: whether the bundles of drills are what was signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.evidence.verification import BundleReport

__all__ = ["app"]

_NOT_INTACT = 1

app = typer.Typer(
    name="evidence", help="The evidence of drills: signed bundles, checked offline.", no_args_is_help=True
)


@app.callback()
def _noun() -> None:
    """Keep `verify` a verb of its own, although there is no other one."""


@app.command()
def verify(
    location: Annotated[
        str, typer.Argument(help="A bundle, or what holds some: a folder, or s3://BUCKET/PREFIX.", metavar="DIR")
    ],
    key: Annotated[Path, typer.Option(help="The public key that must have signed them, in PEM.", metavar="FILE")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the signature and every file of each bundle. Exit code 1: one is not what was signed; 2: could not tell."""
    from clusterguard.evidence.keys import load_verifying_key
    from clusterguard.evidence.verification import verify_evidence
    from clusterguard.terminal import out

    reports = verify_evidence(location, load_verifying_key(key))
    if as_json:
        typer.echo(json.dumps([report.to_dict() for report in reports], indent=2))
    else:
        for report in reports:
            for line, style in _lines(report):
                out.print(line, style=style, markup=False, soft_wrap=True)
    if not all(report.ok for report in reports):
        raise typer.Exit(_NOT_INTACT)


def _lines(report: BundleReport) -> Iterator[tuple[str, str]]:
    told = report.predicate
    what = (
        f"{told['drill']}, run {told['runId']}, {told['verdict']}, {told['started']}" if told else "nothing is proven"
    )
    state = f"intact, {report.files} files" if report.ok else "NOT INTACT"
    folder = f"{report.folder}: " if report.folder else ""
    yield f"{folder}{state}: {what}", "green" if report.ok else "red"
    yield from ((f"  {finding}", "red") for finding in report.findings)
