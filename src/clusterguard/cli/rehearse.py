"""``clusterguard rehearse``: would this backup restore, and is it all in there?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from clusterguard.cli.options import Opening, source_of, with_options

__all__ = ["rehearse"]

_NOT_WHOLE = 1


@with_options
def rehearse(
    location: Annotated[
        str,
        typer.Argument(
            help="An etcd snapshot of any program: a file, or a folder or s3:// location, whose newest is taken; "
            "- for standard input.",
            metavar="FILE|URL",
        ),
    ],
    encryption_config: Annotated[
        Path | None,
        typer.Option(
            "--encryption-config", help="The EncryptionConfiguration of the cluster's API server.", metavar="FILE"
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option("--prefix", help="Of etcd's keys; OpenShift has /kubernetes.io.")
    ] = "/registry",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    opening: Opening,
) -> None:
    """Restore an etcd snapshot into a throwaway control plane, and see whether it is all in there.

    It needs no cluster, and nothing leaves this machine. Exit code 1: it does not restore, or not all of it.
    """
    from clusterguard.rehearsal.rehearsal import Rehearsal
    from clusterguard.terminal import err, out
    from clusterguard.terminal.rehearsal_view import PhaseLine, rehearsal_view

    phases = PhaseLine(err)
    try:
        report = Rehearsal(
            location=source_of(location),
            encryption_config=encryption_config,
            prefix=prefix,
            on_phase=phases,
            **opening.given(),
        ).run()
    finally:
        phases.close()
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        out.print(rehearsal_view(report), soft_wrap=False)
    if not report.ok:
        raise typer.Exit(_NOT_WHOLE)
