"""``clusterguard etcd``: save, list, verify and restore snapshots."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import (
    CaOption,
    CertOption,
    ClusterOption,
    EndpointsOption,
    KeyOption,
    KubeconfigOption,
    PasswordFileOption,
    StoreOption,
    UserOption,
    etcd_access,
    opened,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.etcd.restore import RestoreStep

__all__ = ["app"]

_NOT_INTACT = 1

app = typer.Typer(name="etcd", help="etcd snapshots.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="The snapshot's name.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def save(
    store: StoreOption,
    name: Annotated[str | None, typer.Argument(help="What to call it; by default etcd- and the time.")] = None,
    endpoints: EndpointsOption = "",
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    password_file: PasswordFileOption = None,
    cluster: ClusterOption = "",
    as_json: _Json = False,
) -> None:
    """Save a snapshot of one member into the store, checked while it is written."""
    from clusterguard.terminal import out

    access = _access(endpoints, ca, cert, key, user, password_file)
    with _snapshotter(store, access, cluster) as snapshotter:
        snapshot = snapshotter.save(name)
    if as_json:
        typer.echo(snapshot.to_json(), nl=False)
        return
    out.print(
        f"{snapshot.name}: revision {snapshot.revision}, {snapshot.total_keys:,} keys, {snapshot.size:,} bytes, "
        f"sha256 {snapshot.sha256[:16]}…, from {snapshot.member_name or snapshot.endpoint}",
        markup=False,
        soft_wrap=True,
    )


@app.command("list")
def list_snapshots(store: StoreOption, as_json: _Json = False) -> None:
    """Show the snapshots in the store, oldest first."""
    from rich.table import Table

    from clusterguard.terminal import out

    with _snapshotter(store, None, "") as snapshotter:
        snapshots = snapshotter.list()
    if as_json:
        typer.echo(json.dumps([json.loads(snapshot.to_json()) for snapshot in snapshots], indent=2))
        return
    if not snapshots:
        out.print(f"no snapshots in {store}", markup=False, soft_wrap=True)
        return
    table = Table("name", "taken (UTC)", "revision", "keys", "bytes", "etcd", "sha256", box=None, pad_edge=False)
    for snapshot in snapshots:
        table.add_row(
            snapshot.name,
            f"{snapshot.taken:%Y-%m-%d %H:%M:%S}",
            str(snapshot.revision),
            f"{snapshot.total_keys:,}",
            f"{snapshot.size:,}",
            snapshot.etcd_version,
            snapshot.sha256[:12],
        )
    out.print(table)


@app.command()
def verify(
    name: _Name,
    store: StoreOption,
    endpoints: EndpointsOption = "",
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    password_file: PasswordFileOption = None,
    cluster: ClusterOption = "",
    as_json: _Json = False,
) -> None:
    """Read a snapshot back and prove it. Exit code 1: it is not intact."""
    access = _access(endpoints, ca, cert, key, user, password_file)
    with _snapshotter(store, access, cluster) as snapshotter:
        report = snapshotter.verify(name)
    if as_json:
        checks = [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in report.checks]
        typer.echo(json.dumps({"snapshot": name, "ok": report.ok, "checks": checks}, indent=2))
    else:
        typer.echo(report.to_text())
    if not report.ok:
        raise typer.Exit(_NOT_INTACT)


@app.command()
def restore(
    name: _Name,
    store: StoreOption,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put a snapshot in the place of a cluster's state; on any failure the old state comes back."""
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.model.durations import format_duration
    from clusterguard.model.progress import ignore_progress
    from clusterguard.stores import open_store
    from clusterguard.terminal import err, out

    def told(step: RestoreStep) -> None:
        out.print(f"  ✓ {step.name}  {format_duration(step.seconds)}", markup=False)

    # No bars here: they and the steps would write over each other.
    with opened(cluster, kubeconfig=kubeconfig, progress=ignore_progress) as target:
        snapshotter = EtcdSnapshotter(store=open_store(store), access=target.etcd)
        snapshot = snapshotter.find(name)
        if not yes:
            err.print(
                f"Everything in {cluster} goes back to {snapshot.taken:%Y-%m-%d %H:%M:%S} UTC; later changes are lost.",
                style="yellow",
                markup=False,
            )
            typer.confirm("Restore?", abort=True, err=True)
        result = snapshotter.restore(name, target, watch=told)
    out.print(
        f"restored {name}: revision {result.snapshot.revision}, raised to {result.revision_after}\n"
        f"the state before it is kept in {result.kept}",
        markup=False,
        soft_wrap=True,
    )
    for warning in result.warnings:
        err.print(f"warning: {warning}", style="yellow", markup=False)


def _access(
    endpoints: str,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    user: str | None,
    password: Path | None,
) -> EtcdAccess | None:
    return etcd_access(
        endpoints=endpoints,
        ca=ca,
        cert=cert,
        key=key,
        user=user,
        password_file=password,
        environ=dict(os.environ),
    )


@contextmanager
def _snapshotter(store: str, access: EtcdAccess | None, cluster: str) -> Iterator[EtcdSnapshotter]:
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.stores import open_store
    from clusterguard.terminal import progress_sink

    with progress_sink() as progress:
        if access is None and cluster:
            with opened(cluster, kubeconfig=None, progress=progress) as target:
                access = target.etcd
        yield EtcdSnapshotter(store=open_store(store), access=access, progress=progress)
