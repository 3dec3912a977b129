"""``clusterguard coverage``: what of a live cluster is protected, proven, or neither."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import ClusterOption, KubeconfigOption, duration_of, opened, read_policy

if TYPE_CHECKING:
    from clusterguard.drills.load import Drill
    from clusterguard.stores.base import ObjectStore

__all__ = ["coverage"]

_NOT_COVERED, _COULD_NOT_TELL = 1, 2


def coverage(
    cluster: ClusterOption,
    policy: Annotated[
        list[Path] | None, typer.Option("--policy", help="A policy whose backups are of this cluster.", metavar="FILE")
    ] = None,
    drills: Annotated[
        list[Path] | None, typer.Option("--drills", help="A drill, or a folder of them.", metavar="FILE|FOLDER")
    ] = None,
    evidence: Annotated[
        str,
        typer.Option(
            "--evidence",
            help="Where drills leave their evidence: a folder, or s3://BUCKET/PREFIX.",
            envvar="CLUSTERGUARD_DRILL_EVIDENCE",
            metavar="DIR",
        ),
    ] = "",
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="A namespace that need not be covered, beside the cluster's own.", metavar="NAMESPACE"),
    ] = None,
    max_age: Annotated[
        str, typer.Option("--max-age", help="How old a backup may be, whatever its schedule says.", metavar="DURATION")
    ] = "",
    velero_namespace: Annotated[str, typer.Option("--velero-namespace", help="Velero's own namespace.")] = "velero",
    within: Annotated[float, typer.Option(help="Seconds that locations get to answer in.", min=0.1)] = 30,
    kubeconfig: KubeconfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what no backup and no proof covers. Exit code 1: something is not covered; 2: not all could be seen."""
    from clusterguard.coverage.cover import cover
    from clusterguard.policies.copies.locations import open_locations
    from clusterguard.policies.watching.watch import PolicyWatch
    from clusterguard.terminal import progress_sink

    oldest = duration_of(max_age, "--max-age")
    policies = [read_policy(file) for file in policy or ()]
    loaded = _drills(drills or [])
    store = _evidence(evidence)
    with progress_sink() as progress, opened(cluster, kubeconfig=kubeconfig, progress=progress) as target:
        result = cover(
            target.api,
            cluster,
            policies=[
                (each, PolicyWatch(each, open_locations(each), within_seconds=within).status()) for each in policies
            ],
            drills=loaded,
            evidence=store,
            ignore=ignore or (),
            max_age=oldest,
            velero_namespace=velero_namespace,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
    else:
        from clusterguard.terminal import out
        from clusterguard.terminal.coverage_view import coverage_view

        out.print(coverage_view(result))
    if result.unread:
        raise typer.Exit(_COULD_NOT_TELL)
    if result.uncovered:
        raise typer.Exit(_NOT_COVERED)


def _drills(files: list[Path]) -> list[Drill]:
    from clusterguard.cli.drill import drill_files
    from clusterguard.drills import load_drills

    found = [path for file in files for path in drill_files(file)]
    return [each for path in found for each in load_drills(path, environ=os.environ, root=Path.cwd())]


def _evidence(location: str) -> ObjectStore | None:
    from clusterguard.evidence.bundle import evidence_store

    return evidence_store(location) if location else None
