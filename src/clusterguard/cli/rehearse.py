"""``clusterguard rehearse``: would this backup restore, and is it all in there?"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import KubeconfigOption, Opening, opened, source_of, with_options
from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.model.inventory import Inventory
    from clusterguard.rehearsal.rehearsal import Rehearsal
    from clusterguard.rehearsal.velero import VeleroRehearsal
    from clusterguard.terminal.rehearsal_view import PhaseLine

__all__ = ["rehearse"]

_NOT_WHOLE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Serving:
    """The options of how a backup is served."""

    encryption_config: Annotated[
        Path | None,
        typer.Option(
            "--encryption-config", help="The EncryptionConfiguration of the cluster's API server.", metavar="FILE"
        ),
    ] = None
    prefix: Annotated[str, typer.Option("--prefix", help="Of etcd's keys; OpenShift has /kubernetes.io.")] = ""
    kubernetes_version: Annotated[
        str,
        typer.Option(
            "--kubernetes-version",
            help="Rehearse on this minor version, such as 1.34, which is obtained if need be; by default on the "
            "cluster's own, or on the nearest one that is here; Velero backups on the toolchain's.",
            metavar="MINOR",
        ),
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The options that choose one of Velero's backups."""

    backup: Annotated[str, typer.Option("--backup", help="Of Velero's backups this one; by default the newest.")] = ""
    schedule: Annotated[str, typer.Option("--schedule", help="Of Velero's backups the newest of this schedule.")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Since:
    """The options that ask what has changed since the backup."""

    compare: Annotated[
        list[Path] | None,
        typer.Option("--compare", help="Also tell what differs from this inventory.", metavar="INVENTORY"),
    ] = None
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster",
            help="Also tell what has changed since in this cluster: context:NAME, kubeconfig:PATH, kind:NAME or "
            "embedded:NAME.",
        ),
    ] = ""
    kubeconfig: KubeconfigOption = None
    require_unchanged: Annotated[
        bool, typer.Option("--require-unchanged", help="Exit code 1 where something differs from these, too.")
    ] = False

    def others(self, stack: ExitStack) -> Mapping[str, Inventory | KubeClient]:
        """Return what to compare with, by the name that it was given by; clusters are closed with the stack."""
        from clusterguard.model.progress import ignore_progress
        from clusterguard.validate import load_inventory

        if self.require_unchanged and not self.compare and not self.cluster:
            raise ConfigError(
                "--require-unchanged: there is nothing to compare with", hint="give --compare or --cluster"
            )
        found: dict[str, Inventory | KubeClient] = {str(file): load_inventory(file) for file in self.compare or ()}
        if self.cluster:
            target = opened(self.cluster, kubeconfig=self.kubeconfig, progress=ignore_progress)
            found[self.cluster] = stack.enter_context(target).api
        return found


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    *,
    serving: _Serving,
    chosen: _Chosen,
    since: _Since,
    opening: Opening,
) -> None:
    """Restore a backup into a throwaway cluster, and compare it.

    It needs no cluster, and nothing leaves this machine. Exit code 1: it does not restore, or not all of it.
    """
    from clusterguard.rehearsal.velero import holds_velero_backups
    from clusterguard.terminal import err, out
    from clusterguard.terminal.rehearsal_view import PhaseLine, rehearsal_view

    rehearsal: Rehearsal | VeleroRehearsal
    with ExitStack() as stack:
        phases = stack.enter_context(closing(PhaseLine(err)))
        others = since.others(stack)
        if chosen.backup or chosen.schedule or holds_velero_backups(location):
            _require_no_snapshot_options(location, serving, opening)
            rehearsal = _of_velero(location, serving, chosen, others, opening, phases)
        else:
            rehearsal = _of_snapshot(location, serving, others, opening, phases)
        report = rehearsal.run()
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        out.print(rehearsal_view(report), soft_wrap=False)
    if not report.ok or (since.require_unchanged and not report.unchanged):
        raise typer.Exit(_NOT_WHOLE)


def _require_no_snapshot_options(location: str, serving: _Serving, opening: Opening) -> None:
    options = {
        "encryption_config": serving.encryption_config,
        "prefix": serving.prefix,
        "identity": opening.identity,
        "passphrase_file": opening.passphrase_file,
    }
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise ConfigError(
            f"{location} has backups of Velero, and {', '.join(given)} is for etcd snapshots", hint="leave it out"
        )


def _of_snapshot(
    location: str,
    serving: _Serving,
    others: Mapping[str, Inventory | KubeClient],
    opening: Opening,
    phases: PhaseLine,
) -> Rehearsal:
    from clusterguard.rehearsal.rehearsal import Rehearsal
    from clusterguard.toolchain import from_environment

    return Rehearsal(
        location=source_of(location),
        encryption_config=serving.encryption_config,
        prefix=serving.prefix or "/registry",
        kubernetes_version=serving.kubernetes_version,
        compare=others,
        toolchain=from_environment(os.environ, progress=phases.installing),
        on_phase=phases,
        **opening.given(),
    )


def _of_velero(
    location: str,
    serving: _Serving,
    chosen: _Chosen,
    others: Mapping[str, Inventory | KubeClient],
    opening: Opening,
    phases: PhaseLine,
) -> VeleroRehearsal:
    from clusterguard.rehearsal.velero import VeleroRehearsal
    from clusterguard.toolchain import from_environment

    return VeleroRehearsal(
        location=location if "://" in location else Path(location),
        backup=chosen.backup,
        schedule=chosen.schedule,
        at=opening.given()["at"],
        kubernetes_version=serving.kubernetes_version,
        compare=others,
        toolchain=from_environment(os.environ, progress=phases.installing),
        on_phase=phases,
    )
