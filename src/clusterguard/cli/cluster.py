"""``clusterguard cluster``: clusters that stay until they are taken down."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterguard.clusters.embedded import ClusterRecord
    from clusterguard.clusters.kind import KindCluster, KindRecord
    from clusterguard.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(
    name="cluster",
    help="Clusters: embedded ones with simulated pods, and kind's.",
    no_args_is_help=True,
)

_Name = Annotated[str, typer.Argument(help="The cluster's name.")]
_Provider = Annotated[
    Literal["embedded", "kind"],
    typer.Option(help="embedded needs nothing installed; kind needs Docker, and runs real pods."),
]

_Config = Annotated[Path | None, typer.Option(help="Configuration file of kind, kind only.")]


@app.command()
def up(
    name: _Name = "local",
    provider: _Provider = "embedded",
    api_port: Annotated[
        int | None, typer.Option(help="Port of the API server, embedded only; by default a free one.")
    ] = None,
    members: Annotated[int, typer.Option(help="Members of etcd: 1, 3 or 5, embedded only.")] = 1,
    image: Annotated[
        str | None, typer.Option(help="Node image, kind only.", envvar="CLUSTERGUARD_KIND_IMAGE", show_envvar=True)
    ] = None,
    version: Annotated[str | None, typer.Option(help="Kubernetes version it must have, kind only.")] = None,
    control_planes: Annotated[int, typer.Option(min=1, max=7, help="Control-plane nodes, kind only.")] = 1,
    workers: Annotated[int, typer.Option(min=0, max=20, help="Worker nodes, kind only.")] = 0,
    config: _Config = None,
    load_image: Annotated[
        list[str] | None, typer.Option(help="Image of Docker to copy into the nodes, kind only; may be repeated.")
    ] = None,
) -> None:
    """Start a cluster that stays until `clusterguard cluster down`."""
    if provider == "kind":
        _refuse(api_port is not None or members != 1, "--api-port and --members", "embedded")
        from clusterguard.clusters import KindCluster

        make = partial(
            KindCluster,
            name,
            image=image,
            version=version,
            control_planes=control_planes,
            workers=workers,
            config=config,
        )
        _kind_up(make, images=load_image or [])
        return
    theirs = bool(version or control_planes > 1 or workers or config or load_image)
    _refuse(theirs, "--version, --control-planes, --workers, --config and --load-image", "kind")
    _embedded_up(name, api_port=api_port, members=members)


def _embedded_up(name: str, *, api_port: int | None, members: int) -> None:
    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.clusters.opening import context_of
    from clusterguard.terminal import out, progress_sink

    with progress_sink() as progress:
        cluster = EmbeddedCluster(name, outlive_us=True, members=members, api_port=api_port, progress=progress).start()
    out.print(
        f"{name} is up: Kubernetes {cluster.api.server_version()}\n"
        f"  export KUBECONFIG={cluster.kubeconfig}\n"
        f"Drills on it: --drill-cluster embedded:{name} --drill-allow-context {context_of(f'embedded:{name}')}\n"
        "Its pods are simulated: they are scheduled and get a status, but no container runs.",
        markup=False,
        soft_wrap=True,
    )


def _kind_up(make: Callable[..., KindCluster], *, images: list[str]) -> None:
    from clusterguard.terminal import out, progress_sink

    with progress_sink() as progress:
        cluster = make(progress=progress).start()
        try:
            for each in images:
                cluster.load_image(each)
            cluster.keep()  # not before: until now it goes with this process, however that ends
        except BaseException:
            cluster.delete()
            raise
    out.print(
        f"{cluster.name} is up: Kubernetes {cluster.api.server_version()}, in Docker\n"
        f"  export KUBECONFIG={cluster.kubeconfig}\n"
        f"Drills on it: --drill-cluster kind:{cluster.name} --drill-allow-context {cluster.context}",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def down(name: _Name = "local", provider: _Provider = "embedded") -> None:
    """End a cluster that `clusterguard` started, and remove everything of it."""
    from clusterguard.clusters import EmbeddedCluster, KindCluster
    from clusterguard.errors import ConfigError
    from clusterguard.terminal import out

    known: list[ClusterRecord] | list[KindRecord]
    known = KindCluster.known() if provider == "kind" else EmbeddedCluster.known()
    if name not in {record.name for record in known}:
        started = " that clusterguard created" if provider == "kind" else ""
        raise ConfigError(f"there is no {provider} cluster {name!r}{started}", hint="clusterguard cluster list")
    if provider == "kind":
        KindCluster(name).delete()
    else:
        EmbeddedCluster(name, outlive_us=True).close()
    out.print(f"{name} is gone", markup=False)


@app.command("list")
def list_clusters(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the clusters of this user. Changes nothing: `clusterguard cluster sweep` removes what dead runs left."""
    from rich.table import Table

    from clusterguard.clusters import EmbeddedCluster, KindCluster
    from clusterguard.terminal import out

    embedded, kind = EmbeddedCluster.survey(), KindCluster.survey()
    _tell_what_is_not_listed([*embedded.left_behind, *kind.left_behind], [*embedded.unreadable, *kind.unreadable])
    if as_json:
        shown = [{"provider": "embedded", **asdict(record)} for record in embedded.known]
        typer.echo(json.dumps([*shown, *({"provider": "kind", **asdict(record)} for record in kind.known)], indent=2))
        return
    table = Table("name", "provider", "since (UTC)", "running", "owner", box=None, pad_edge=False)
    for record in embedded.known:
        running = ", ".join(record.running()) or "nothing"
        where = f"https://127.0.0.1:{record.ports.api}: {running}"
        table.add_row(record.name, "embedded", _since(record), where, _owner(record))
    for each in kind.known:
        table.add_row(each.name, "kind", _since(each), _running_nodes(each.name), _owner(each))
    out.print(table if embedded.known or kind.known else "no clusters")


def _tell_what_is_not_listed(left_behind: list[str], unreadable: list[ConfigError]) -> None:
    from clusterguard.terminal import err

    told = [f"not listed: {error.message}; {error.hint}" for error in unreadable]
    if left_behind:
        told.append(f"dead runs left behind {', '.join(left_behind)}; `clusterguard cluster sweep` removes that")
    for each in told:
        err.print(f"warning: {each}", style="yellow", markup=False, soft_wrap=True)


def _running_nodes(name: str) -> str:
    from clusterguard.clusters import KindCluster
    from clusterguard.errors import ProvisioningError

    try:
        return ", ".join(node.name for node in KindCluster(name).nodes if node.running) or "nothing"
    except ProvisioningError as error:
        return f"unknown: {error.message}"


@app.command()
def sweep() -> None:
    """Remove what dead runs left behind; starting a cluster does that, too."""
    from clusterguard.clusters import EmbeddedCluster, KindCluster
    from clusterguard.terminal import out

    swept = [*EmbeddedCluster.sweep(), *KindCluster.sweep()]
    out.print("\n".join(f"{name} is gone" for name in swept) or "nothing was left behind", markup=False)


def _refuse(given: bool, options: str, provider: str) -> None:
    from clusterguard.errors import ConfigError

    if given:
        raise ConfigError(f"{options}: only for {provider} clusters", hint=f"--provider {provider}, or leave it out")


def _since(record: ClusterRecord | KindRecord) -> str:
    return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%d %H:%M:%S}"


def _owner(record: ClusterRecord | KindRecord) -> str:
    return f"process {record.owner.pid}" if record.owner else "stays until down"
