"""Install Velero, remove it, and ask how it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from clusterguard.cli.options import opened, with_options
from clusterguard.cli.velero.options import JsonOption, ServerFlags, Words, YesOption
from clusterguard.cli.velero.shared import pairs, text_of

__all__ = ["app"]

app = typer.Typer()


@app.command("install")
@with_options
def install_velero(
    server: ServerFlags,
    image: Annotated[str, typer.Option(help="Of the server; by default that of the program's version.")] = "",
    plugins: Annotated[Words, typer.Option("--plugin", help="Image of a plugin.")] = None,
    provider: Annotated[str, typer.Option(help="Of the first location, such as aws.")] = "",
    bucket: Annotated[str, typer.Option(help="Of the first location; without it none is made.")] = "",
    prefix: Annotated[str, typer.Option(help="The part of the bucket that is Velero's.")] = "",
    config: Annotated[Words, typer.Option("--config", help="KEY=VALUE of the location, such as region=….")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="Credentials; without it the server has a role.")] = None,
    ca: Annotated[Path | None, typer.Option("--cacert", help="The CA of the object store, as PEM.")] = None,
    use_node_agent: Annotated[bool, typer.Option("--use-node-agent", help="For backups of volumes' files.")] = False,
    volume_snapshots: Annotated[bool, typer.Option("--volume-snapshots", help="Make a snapshot location.")] = False,
    snapshot_config: Annotated[Words, typer.Option(help="KEY=VALUE of the snapshot location.")] = None,
    fs_backup: Annotated[bool, typer.Option("--default-volumes-to-fs-backup")] = False,
    features: Annotated[Words, typer.Option("--feature", help="Such as EnableCSI.")] = None,
    sa_annotations: Annotated[Words, typer.Option("--sa-annotation", help="KEY=VALUE of its ServiceAccount.")] = None,
    server_args: Annotated[Words, typer.Option("--server-arg", help="Further argument of the server.")] = None,
    replicas: Annotated[int, typer.Option(help="0 where the server runs elsewhere.")] = 1,
    definitions_only: Annotated[bool, typer.Option("--crds-only", help="Only the definitions.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the objects as JSON, and do nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until its pods are ready.")] = True,
) -> None:
    """Install Velero, or bring an installed one to this version and these options."""
    import os

    from clusterguard.terminal import out, progress_sink
    from clusterguard.toolchain import from_environment
    from clusterguard.velero.install import InstallOptions, install, render

    options = InstallOptions(
        namespace=server.namespace,
        image=image,
        plugins=tuple(plugins or ()),
        provider=provider,
        bucket=bucket,
        prefix=prefix,
        location_config=pairs(config, "--config"),
        snapshot_location_config=pairs(snapshot_config, "--snapshot-config"),
        volume_snapshots=volume_snapshots,
        credentials=text_of(secret_file) if secret_file else None,
        ca=text_of(ca) if ca else "",
        node_agent=use_node_agent,
        default_volumes_to_fs_backup=fs_backup,
        features=tuple(features or ()),
        service_account_annotations=pairs(sa_annotations, "--sa-annotation"),
        server_args=tuple(server_args or ()),
        replicas=replicas,
        definitions_only=definitions_only,
    )
    with progress_sink() as progress:
        program = from_environment(os.environ, progress=progress).ensure("velero")["velero"]
        if dry_run:
            typer.echo(json.dumps({"kind": "List", "apiVersion": "v1", "items": render(options, velero=program)}))
            return
        with opened(server.cluster, kubeconfig=server.kubeconfig, progress=progress) as target:
            done = install(
                options, api=target.api, velero=program, wait_seconds=300 if wait else None, progress=progress
            )
    out.print(f"Velero is installed in namespace {server.namespace}: {len(done.objects)} objects", markup=False)


@app.command("uninstall")
@with_options
def uninstall_velero(
    server: ServerFlags,
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove Velero and all of its objects from the cluster; the bucket keeps the backups."""
    from clusterguard.terminal import err, out, progress_sink
    from clusterguard.velero.install import uninstall

    with progress_sink() as progress, opened(server.cluster, kubeconfig=server.kubeconfig, progress=progress) as target:
        planned = uninstall(api=target.api, namespace=server.namespace, dry_run=True)
        if dry_run or not planned.objects:
            out.print("\n".join(planned.objects) or f"there is no Velero in namespace {server.namespace}", markup=False)
            return
        if not yes:
            err.print(f"{len(planned.objects)} objects of Velero go; backups stay in their bucket.", style="yellow")
            typer.confirm("Uninstall?", abort=True, err=True)
        done = uninstall(api=target.api, namespace=server.namespace, progress=progress)
    out.print(f"removed {len(done.objects)} objects", markup=False)
    for each in done.finalizers:
        err.print(f"took the finalizer off {each}: its files stay in the bucket", style="yellow", markup=False)
    for each in done.kept:
        err.print(f"left {each}", style="yellow", markup=False, soft_wrap=True)


@app.command()
@with_options
def status(server: ServerFlags, as_json: JsonOption = False) -> None:
    """Ask the server whether it lives, and what it is."""
    from clusterguard.terminal import out

    with server.client() as velero:
        velero.require_installed()
        answer = velero.status()
        locations = velero.locations.list()
    if as_json:
        plugins = [{"name": each.name, "kind": each.kind} for each in answer.plugins]
        document = {"version": answer.version, "plugins": plugins, "locations": [dict(x.manifest) for x in locations]}
        typer.echo(json.dumps(document, indent=2))
        return
    stores = sorted({each.name for each in answer.plugins if each.kind == "ObjectStore"})
    out.print(
        f"Velero {answer.version} answers in namespace {server.namespace}\n"
        f"object stores: {', '.join(stores) or 'none: a plugin is missing'}\n"
        f"locations: {', '.join(f'{each.name} ({each.phase})' for each in locations) or 'none'}",
        markup=False,
        soft_wrap=True,
    )
