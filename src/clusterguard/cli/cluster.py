"""``clusterguard cluster``: embedded clusters that stay until they are taken down."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(name="cluster", help="Embedded clusters: real control planes, simulated pods.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="The cluster's name.")]


@app.command()
def up(
    name: _Name = "local",
    api_port: Annotated[int | None, typer.Option(help="Port of the API server; by default a free one.")] = None,
) -> None:
    """Start a cluster that stays until `clusterguard cluster down`."""
    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.terminal import out, progress_sink

    with progress_sink() as progress:
        cluster = EmbeddedCluster(name, outlive_us=True, api_port=api_port, progress=progress).start()
    out.print(
        f"{name} is up: Kubernetes {cluster.api.server_version()}\n"
        f"  export KUBECONFIG={cluster.kubeconfig}\n"
        "Its pods are simulated: they are scheduled and get a status, but no container runs.",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def down(name: _Name = "local") -> None:
    """End a cluster and remove everything of it."""
    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.errors import ConfigError
    from clusterguard.terminal import out

    if name not in {record.name for record in EmbeddedCluster.known()}:
        raise ConfigError(f"there is no embedded cluster {name!r}", hint="clusterguard cluster list")
    EmbeddedCluster(name, outlive_us=True).close()
    out.print(f"{name} is gone", markup=False)


@app.command("list")
def list_clusters(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the embedded clusters of this user."""
    from rich.table import Table

    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.terminal import out

    EmbeddedCluster.sweep()
    records = EmbeddedCluster.known()
    if as_json:
        typer.echo(json.dumps([asdict(record) for record in records], indent=2))
        return
    table = Table("name", "since (UTC)", "API server", "running", "owner", box=None, pad_edge=False)
    for record in records:
        table.add_row(
            record.name,
            f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%d %H:%M:%S}",
            f"https://127.0.0.1:{record.ports.api}",
            ", ".join(record.running()) or "nothing",
            f"process {record.owner.pid}" if record.owner else "stays until down",
        )
    out.print(table if records else "no embedded clusters")
