"""Install Velero, remove it, and ask for its status."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from clusterguard.cli.options import opened, with_options
from clusterguard.cli.velero.options import Flags, JsonOption, ServerFlags, Words, YesOption, file_contents, key_value
from clusterguard.cli.velero.output import confirm, print_json

__all__ = ["app"]

app = typer.Typer()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallFlags(Flags):
    """The fields of `InstallOptions`."""

    image: Annotated[str, typer.Option(help="Of the server; by default that of the program's version.")] = ""
    plugins: Annotated[Words, typer.Option("--plugin", help="Image of a plugin.")] = None
    provider: Annotated[str, typer.Option(help="Of the first location, such as aws.")] = ""
    bucket: Annotated[str, typer.Option(help="Of the first location; without it none is made.")] = ""
    prefix: Annotated[str, typer.Option(help="The part of the bucket that is Velero's.")] = ""
    location_config: Annotated[
        Words, typer.Option("--config", parser=key_value, metavar="KEY=VALUE", help="Of the location: region=….")
    ] = None
    credentials: Annotated[
        Any,
        typer.Option("--secret-file", parser=file_contents, metavar="FILE", help="Without it the server has a role."),
    ] = None
    ca: Annotated[
        Any,
        typer.Option("--cacert", parser=file_contents, metavar="FILE", help="The CA of the object store, as PEM."),
    ] = None
    node_agent: Annotated[bool, typer.Option("--use-node-agent", help="For backups of volumes' files.")] = False
    volume_snapshots: Annotated[bool, typer.Option("--volume-snapshots", help="Make a snapshot location.")] = False
    snapshot_location_config: Annotated[
        Words,
        typer.Option("--snapshot-config", parser=key_value, metavar="KEY=VALUE", help="Of the snapshot location."),
    ] = None
    default_volumes_to_fs_backup: Annotated[bool, typer.Option("--default-volumes-to-fs-backup")] = False
    features: Annotated[Words, typer.Option("--feature", help="Such as EnableCSI.")] = None
    service_account_annotations: Annotated[
        Words, typer.Option("--sa-annotation", parser=key_value, metavar="KEY=VALUE", help="Of its ServiceAccount.")
    ] = None
    server_args: Annotated[Words, typer.Option("--server-arg", help="Further argument of the server.")] = None
    replicas: Annotated[int, typer.Option(help="0 where the server runs elsewhere.")] = 1
    definitions_only: Annotated[bool, typer.Option("--crds-only", help="Only the definitions.")] = False


@app.command("install")
@with_options
def install_velero(
    server: ServerFlags,
    flags: InstallFlags,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the objects as JSON, and do nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until its pods are ready.")] = True,
) -> None:
    """Install Velero, or bring an installed one to this version and these options."""
    import os

    from clusterguard.terminal import progress_sink
    from clusterguard.toolchain import from_environment
    from clusterguard.velero.install import InstallOptions, install, render

    options = InstallOptions(namespace=server.namespace, **flags.given())
    with progress_sink() as progress:
        program = from_environment(os.environ, progress=progress).ensure("velero")["velero"]
        if dry_run:
            typer.echo(json.dumps({"kind": "List", "apiVersion": "v1", "items": render(options, velero=program)}))
            return
        with opened(server.cluster, kubeconfig=server.kubeconfig, progress=progress) as target:
            done = install(
                options, api=target.api, velero=program, wait_seconds=300 if wait else None, progress=progress
            )
    typer.echo(f"Velero is installed in namespace {server.namespace}: {len(done.objects)} objects")


@app.command("uninstall")
@with_options
def uninstall_velero(
    server: ServerFlags,
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove Velero and all of its objects from the cluster; the bucket keeps the backups."""
    from clusterguard.terminal import err, progress_sink
    from clusterguard.velero.install import uninstall

    with progress_sink() as progress, opened(server.cluster, kubeconfig=server.kubeconfig, progress=progress) as target:
        planned = uninstall(api=target.api, namespace=server.namespace, dry_run=True)
        if dry_run or not planned.objects:
            typer.echo("\n".join(planned.objects) or f"no Velero in namespace {server.namespace}")
            return
        confirm(f"Removes {len(planned.objects)} objects of Velero; the bucket keeps the backups.", yes=yes)
        done = uninstall(api=target.api, namespace=server.namespace, progress=progress)
    typer.echo(f"removed {len(done.objects)} objects")
    for each in done.finalizers:
        err.print(f"removed the finalizer of {each}: its files stay in the bucket", style="yellow", markup=False)
    for each in done.kept:
        err.print(f"left {each}", style="yellow", markup=False, soft_wrap=True)


@app.command()
@with_options
def status(server: ServerFlags, as_json: JsonOption = False) -> None:
    """Ask the server for its version, plugins and locations."""
    with server.client() as velero:
        velero.require_installed()
        answer = velero.status()
        locations = velero.locations.list()
    if as_json:
        plugins = [each._asdict() for each in answer.plugins]
        manifests = [dict(each.manifest) for each in locations]
        print_json({"version": answer.version, "plugins": plugins, "locations": manifests})
        return
    stores = sorted({each.name for each in answer.plugins if each.kind == "ObjectStore"})
    typer.echo(
        f"Velero {answer.version} answers in namespace {server.namespace}\n"
        f"object stores: {', '.join(stores) or 'none: a plugin is missing'}\n"
        f"locations: {', '.join(f'{each.name} ({each.phase})' for each in locations) or 'none'}"
    )
