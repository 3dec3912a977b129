"""``clusterguard inventory``: what is in a cluster, and whether it is still what it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from clusterguard.cli.options import ClusterOption, KubeconfigOption, opened

__all__ = ["app"]

_NOT_EQUAL = 1

app = typer.Typer(
    name="inventory",
    help="Inventories: what is in a cluster, to compare a restored one.",
    no_args_is_help=True,
)

_File = Annotated[Path, typer.Argument(help="The inventory file.", metavar="FILE")]


@app.command()
def capture(
    file: _File,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    namespace: Annotated[list[str] | None, typer.Option(help="Only this namespace, or glob of them.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind.")] = None,
    selector: Annotated[str, typer.Option(help="Only objects with these labels.")] = "",
    exclude: Annotated[list[str] | None, typer.Option(help="Not this kind.")] = None,
) -> None:
    """Write down everything in scope. The file holds the objects as they are, Secrets included: keep it safe."""
    from clusterguard.model.inventory import Scope
    from clusterguard.terminal import out, progress_sink
    from clusterguard.validate import RestoreValidator, save_inventory

    scope = Scope(
        namespaces=tuple(namespace or ()),
        kinds=tuple(kind or ()),
        selector=selector,
        exclude=tuple(exclude or ()),
    )
    with (
        progress_sink() as progress,
        opened(cluster, kubeconfig=kubeconfig, progress=progress) as target,
    ):
        inventory = RestoreValidator(api=target.api).capture(scope, progress=progress)
    save_inventory(inventory, file)
    out.print(f"{len(inventory.objects):,} objects in {file}", markup=False)
    for skipped, reason in {**inventory.skipped, **inventory.unanswered}.items():
        out.print(f"not captured: {skipped}: {reason}", style="yellow", markup=False, soft_wrap=True)


@app.command()
def compare(
    file: _File,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    profile: Annotated[
        Literal["etcd-restore", "velero-restore", "same-cluster"],
        typer.Option(help="What may differ, by the way the objects came back."),
    ] = "same-cluster",
    ignore: Annotated[list[str] | None, typer.Option(help="A field path that may differ.")] = None,
    without_rule: Annotated[
        list[str] | None, typer.Option(help="A rule of the profile that explains nothing now, by name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a cluster with an inventory, field by field. Exit code 1: it is not what it was."""
    from clusterguard.terminal import progress_sink
    from clusterguard.validate import RestoreValidator, load_inventory

    inventory = load_inventory(file)
    with (
        progress_sink() as progress,
        opened(cluster, kubeconfig=kubeconfig, progress=progress) as target,
    ):
        report = RestoreValidator(api=target.api).validate(
            inventory,
            profile=profile,
            ignore=tuple(ignore or ()),
            without=tuple(without_rule or ()),
            progress=progress,
        )
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
    if not report.ok:
        raise typer.Exit(_NOT_EQUAL)
