"""``clusterguard rehearse``: would this backup restore, and is it all in there?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import Opening, source_of, with_options
from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from clusterguard.rehearsal.rehearsal import Rehearsal
    from clusterguard.rehearsal.velero import VeleroRehearsal
    from clusterguard.terminal.rehearsal_view import PhaseLine

__all__ = ["rehearse"]

_NOT_WHOLE = 1


@with_options
def rehearse(
    location: Annotated[
        str,
        typer.Argument(
            help="An etcd snapshot of any program: a file, or a folder or s3:// location, whose newest is taken; "
            "- for standard input. Or the bucket and prefix of Velero's backups.",
            metavar="FILE|URL",
        ),
    ],
    encryption_config: Annotated[
        Path | None,
        typer.Option(
            "--encryption-config", help="The EncryptionConfiguration of the cluster's API server.", metavar="FILE"
        ),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Of etcd's keys; OpenShift has /kubernetes.io.")] = "",
    kubernetes_version: Annotated[
        str,
        typer.Option(
            "--kubernetes-version",
            help="Rehearse on this minor version, such as 1.34, which is obtained if need be; by default on the "
            "cluster's own, or on the nearest one that is here.",
            metavar="MINOR",
        ),
    ] = "",
    backup: Annotated[str, typer.Option("--backup", help="Of Velero's backups this one; by default the newest.")] = "",
    schedule: Annotated[str, typer.Option("--schedule", help="Of Velero's backups the newest of this schedule.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    opening: Opening,
) -> None:
    """Restore a backup into a throwaway control plane, and see whether it is all in there.

    It needs no cluster, and nothing leaves this machine. Exit code 1: it does not restore, or not all of it.
    """
    from clusterguard.terminal import err, out
    from clusterguard.terminal.rehearsal_view import PhaseLine, rehearsal_view

    phases = PhaseLine(err)
    rehearsal: Rehearsal | VeleroRehearsal
    try:
        if backup or schedule or _is_of_velero(location):
            if encryption_config or prefix or kubernetes_version or opening.identity or opening.passphrase_file:
                raise ConfigError(
                    f"{location} has backups of Velero, and --encryption-config, --prefix, --kubernetes-version, "
                    "--identity and --passphrase-file are for etcd snapshots",
                    hint="leave them out",
                )
            rehearsal = _of_velero(location, backup, schedule, opening, phases)
        else:
            rehearsal = _of_snapshot(location, encryption_config, prefix, kubernetes_version, opening, phases)
        report = rehearsal.run()
    finally:
        phases.close()
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        out.print(rehearsal_view(report), soft_wrap=False)
    if not report.ok:
        raise typer.Exit(_NOT_WHOLE)


def _is_of_velero(location: str) -> bool:
    from clusterguard.rehearsal.velero import holds_velero_backups

    is_file = location == "-" or ("://" not in location and not Path(location).expanduser().is_dir())
    return not is_file and holds_velero_backups(location if "://" in location else Path(location))


def _of_snapshot(
    location: str,
    encryption_config: Path | None,
    prefix: str,
    kubernetes_version: str,
    opening: Opening,
    phases: PhaseLine,
) -> Rehearsal:
    from clusterguard.rehearsal.rehearsal import Rehearsal
    from clusterguard.toolchain import from_environment

    return Rehearsal(
        location=source_of(location),
        encryption_config=encryption_config,
        prefix=prefix or "/registry",
        kubernetes_version=kubernetes_version,
        toolchain=from_environment(os.environ, progress=phases.installing),
        on_phase=phases,
        **opening.given(),
    )


def _of_velero(location: str, backup: str, schedule: str, opening: Opening, phases: PhaseLine) -> VeleroRehearsal:
    from clusterguard.rehearsal.velero import VeleroRehearsal
    from clusterguard.toolchain import from_environment

    return VeleroRehearsal(
        location=location if "://" in location else Path(location),
        backup=backup,
        schedule=schedule,
        at=opening.given()["at"],
        toolchain=from_environment(os.environ, progress=phases.installing),
        on_phase=phases,
    )
