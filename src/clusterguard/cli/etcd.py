"""``clusterguard etcd``: save, list, verify and restore snapshots."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from clusterguard.cli.options import (
    CaOption,
    CertOption,
    ClusterOption,
    EndpointsOption,
    KeyOption,
    KubeconfigOption,
    LockTimeoutOption,
    Opening,
    PasswordFileOption,
    ScratchOption,
    StoreOption,
    UserOption,
    duration_of,
    etcd_access,
    opened,
    source_of,
    with_options,
)
from clusterguard.errors import ClusterError, ConfigError, SnapshotError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusterguard.clusters.base import Cluster, EtcdAccess
    from clusterguard.clusters.existing import ExistingCluster
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.etcd.restore import RestoreStep
    from clusterguard.model.snapshot import Snapshot, VerifyReport

__all__ = ["app"]

_NOT_INTACT = 1

app = typer.Typer(name="etcd", help="etcd snapshots.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="The snapshot's name.")]
_OptionalStore = Annotated[
    str, typer.Option("--store", help="The store that has the name.", envvar="CLUSTERGUARD_STORE")
]
_Location = Annotated[
    str,
    typer.Argument(
        help="A file, a folder or an s3:// location, of which the newest snapshot is taken, or - for standard input.",
        metavar="FILE|URL",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_NodeShell = Annotated[
    list[str] | None,
    typer.Option(
        "--node-shell",
        help="How to become root on a node of kubeadm: local, docker:NAME or ssh:[USER@]HOST. Repeated, or "
        "'ssh:root@{cp-1,cp-2,cp-3}', for all control-plane nodes, hosts of etcd, and workers.",
        envvar="CLUSTERGUARD_NODE_SHELL",
    ),
]
_Gone = Annotated[
    list[str] | None,
    typer.Option(
        help="A control-plane node that is dead for good, by its name: the restored cluster begins without it. "
        "Repeated for several.",
        metavar="NAME",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """The options that reach etcd: by its endpoints and certificates, or by the node that has both."""

    endpoints: EndpointsOption = ""
    ca: CaOption = None
    cert: CertOption = None
    key: KeyOption = None
    user: UserOption = None
    password_file: PasswordFileOption = None
    node_shell: _NodeShell = None

    def cluster(self, named: Cluster | None = None) -> ExistingCluster:
        """Return a cluster whose etcd and control plane are those of the options, then those of the one named."""
        from clusterguard.clusters.existing import ExistingCluster
        from clusterguard.clusters.node_shell import open_node_shells

        etcd = self._etcd()
        if etcd is None and named is not None and not self.node_shell:
            etcd = named.etcd
        cluster = ExistingCluster(
            kubeconfig=named.kubeconfig if named else None,
            context=named.context if named else None,
            etcd=etcd,
            nodes=open_node_shells(" ".join(self.node_shell or ())),
            endpoints=tuple(each for each in self.endpoints.split(",") if each),
        )
        if named is not None:
            cluster.name = named.name
            cluster.control_plane = cluster.control_plane or named.control_plane
        return cluster

    def access(self, stack: ExitStack) -> EtcdAccess | None:
        """Return how to reach etcd; what is copied from the node goes with the stack."""
        return stack.enter_context(self.cluster()).etcd if self.node_shell else self._etcd()

    def _etcd(self) -> EtcdAccess | None:
        """Return how to reach etcd, or None where the options leave that to the node or to the cluster."""
        identity = bool(self.ca or self.cert or self.user)
        if self.node_shell and identity and not self.endpoints:
            raise ConfigError(
                "--cacert, --cert and --user say who we are, but nothing says where etcd is",
                hint="add --endpoints, or leave them out: the node has both",
            )
        if self.node_shell and not identity:
            return None
        return etcd_access(
            endpoints=self.endpoints,
            ca=self.ca,
            cert=self.cert,
            key=self.key,
            user=self.user,
            password_file=self.password_file,
            environ=dict(os.environ),
        )


@app.command()
@with_options
def save(
    store: StoreOption,
    name: Annotated[str | None, typer.Argument(help="What to call it; by default etcd- and the time.")] = None,
    cluster: ClusterOption = "",
    scratch: ScratchOption = None,
    as_json: _Json = False,
    *,
    reach: _Reach,
) -> None:
    """Save a snapshot of one member into the store, checked while it is written."""
    with ExitStack() as stack, _snapshotter(store, reach.access(stack), cluster, scratch) as snapshotter:
        snapshot = snapshotter.save(name)
    _show_saved(snapshot, as_json=as_json)


def _show_saved(snapshot: Snapshot, *, as_json: bool) -> None:
    from clusterguard.terminal import out

    if as_json:
        typer.echo(snapshot.to_json(), nl=False)
        return
    source = snapshot.member_name or snapshot.endpoint
    out.print(
        f"{snapshot.name}: revision {snapshot.revision}, {snapshot.total_keys:,} keys, {snapshot.size:,} bytes, "
        f"sha256 {snapshot.sha256[:16]}…" + (f", from {source}" if source else ""),
        markup=False,
        soft_wrap=True,
    )
    for remark in snapshot.remarks:
        kind = "warning" if remark.warning else "note"
        out.print(f"  {kind}: {remark.detail} ({remark.code})", markup=False, soft_wrap=True)


@app.command("list")
def list_snapshots(store: StoreOption, as_json: _Json = False) -> None:
    """Show the snapshots in the store, oldest first."""
    from rich.table import Table

    from clusterguard.terminal import err, out

    with _snapshotter(store, None, "") as snapshotter:
        snapshots = snapshotter.list()
    for error in snapshots.unreadable.values():
        err.print(f"warning: not listed: {error.message}", style="yellow", markup=False, soft_wrap=True)
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
@with_options
def adopt(
    location: _Location,
    store: StoreOption,
    name: Annotated[str | None, typer.Argument(help="What to call it; by default as it is called already.")] = None,
    as_json: _Json = False,
    *,
    opening: Opening,
) -> None:
    """Verify a snapshot that any program saved, and make it one of the store's own."""
    with _snapshotter(store, None, "", opening.scratch) as snapshotter:
        given = opening.given()
        snapshot = snapshotter.adopt(source_of(location), name, at=given["at"], encryption=given["encryption"])
    _show_saved(snapshot, as_json=as_json)


@app.command()
@with_options
def verify(
    name: Annotated[
        str,
        typer.Argument(
            help="The snapshot's name in the store; or, without a store, the file, folder or URL of any snapshot.",
            metavar="NAME|FILE|URL",
        ),
    ],
    store: _OptionalStore = "",
    cluster: ClusterOption = "",
    as_json: _Json = False,
    *,
    opening: Opening,
    reach: _Reach,
) -> None:
    """Read a snapshot back and prove it. Exit code 1: it is not intact."""
    if not store or _is_location(name):
        report = _verified(name, opening, as_json=as_json)
    else:
        scratch = opening.scratch
        with ExitStack() as stack, _snapshotter(store, reach.access(stack), cluster, scratch) as snapshotter:
            report = snapshotter.verify(name)
    if as_json:
        checks = [{"name": c.name, "ok": c.ok, "detail": c.detail, "unasked": list(c.unasked)} for c in report.checks]
        remarks = [{"code": each.code, "detail": each.detail} for each in report.remarks]
        document = {"snapshot": name, "ok": report.ok, "checks": checks, "remarks": remarks}
        typer.echo(json.dumps(document, indent=2))
    else:
        typer.echo(report.to_text())
    if not report.ok:
        raise typer.Exit(_NOT_INTACT)


def _is_location(text: str) -> bool:
    """Whether it is where a snapshot lies: no name of one has a slash in it."""
    return "/" in text or text == "-"


def _verified(location: str, opening: Opening, *, as_json: bool) -> VerifyReport:
    from clusterguard.etcd.adoption import verify_snapshot
    from clusterguard.terminal import progress_sink

    try:
        with progress_sink() as progress:
            return verify_snapshot(source_of(location), progress=progress, **opening.given())
    except SnapshotError as error:
        if as_json:
            checks = [{"name": "bytes", "ok": False, "code": error.code, "detail": error.message}]
            typer.echo(json.dumps({"snapshot": location, "ok": False, "checks": checks, "remarks": []}, indent=2))
        else:
            typer.echo(f"{location}: NOT INTACT\n  {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
        raise typer.Exit(_NOT_INTACT) from error


@app.command()
@with_options
def restore(
    name: _Name,
    store: StoreOption,
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    data_dir: Annotated[
        str, typer.Option(help="Restore into this directory of the node instead of the live one.", metavar="PATH")
    ] = "",
    gone: _Gone = None,
    scratch: ScratchOption = None,
    lock_timeout: LockTimeoutOption = "",
    disarm_alarms: Annotated[
        bool, typer.Option("--disarm-alarms", help="Disarm the alarms that the snapshot brings back.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print every command in order, and touch nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    *,
    reach: _Reach,
) -> None:
    """Put a snapshot in the place of a cluster's state; until that is proven, any failure brings the old state back."""
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.model.progress import ignore_progress
    from clusterguard.stores import open_store
    from clusterguard.terminal import err, out

    wait = duration_of(lock_timeout, "--lock-timeout") or timedelta(0)
    # No bars here: they and the steps would write over each other.
    with ExitStack() as stack, opened(cluster, kubeconfig=kubeconfig, progress=ignore_progress) as named:
        target = _reached(named, reach, stack, data_dir=data_dir, gone=gone)
        snapshotter = EtcdSnapshotter(store=open_store(store), access=target.etcd, scratch=scratch)
        snapshot = snapshotter.find(name)
        if plan:
            typer.echo(snapshotter.plan_restore(name, target, disarm_alarms=disarm_alarms).to_text())
            return
        for remark in snapshot.remarks:
            err.print(f"{'warning' if remark.warning else 'note'}: {remark.detail}", markup=False, soft_wrap=True)
        if not yes:
            err.print(
                f"Everything in {cluster} goes back to {snapshot.taken:%Y-%m-%d %H:%M:%S} UTC; later changes are lost.",
                style="yellow",
                markup=False,
            )
            typer.confirm("Restore?", abort=True, err=True)
        stack.enter_context(_locked(target, wait))
        try:
            result = snapshotter.restore(name, target, disarm_alarms=disarm_alarms, watch=_tell)
        except KeyboardInterrupt:
            err.print(
                "run `clusterguard etcd recover`: it undoes or finishes what is left of the restore", style="yellow"
            )
            raise
    out.print(
        f"restored {name}: revision {result.snapshot.revision}, raised to {result.revision_after}\n"
        f"the state before it is kept in {result.previous}",
        markup=False,
        soft_wrap=True,
    )
    for warning in result.warnings:
        err.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


@app.command()
@with_options
def recover(cluster: ClusterOption, kubeconfig: KubeconfigOption = None, gone: _Gone = None, *, reach: _Reach) -> None:
    """Undo a restore that was interrupted, or finish it if it was proven; every restore does so first, too."""
    from clusterguard.model.progress import ignore_progress
    from clusterguard.terminal import out

    with ExitStack() as stack, opened(cluster, kubeconfig=kubeconfig, progress=ignore_progress) as named:
        control_plane = _reached(named, reach, stack, gone=gone).control_plane
        if control_plane is None:
            raise ConfigError(
                f"no shell given for the control-plane node of {cluster}", hint="name it: --node-shell ssh:HOST"
            )
        with control_plane.exclusive():
            done = control_plane.recover()
    out.print(done or "no restore was interrupted: nothing to do", markup=False, soft_wrap=True)


@app.command("replace-member")
@with_options
def replace_member(
    name: Annotated[str, typer.Argument(help="The member's name, which is its node's where kubeadm made it.")],
    cluster: ClusterOption,
    kubeconfig: KubeconfigOption = None,
    remove_only: Annotated[
        bool,
        typer.Option(
            "--remove-only", help="Its node is gone for good: remove it from etcd, and the node from the API."
        ),
    ] = False,
    timeout: Annotated[
        str, typer.Option(help="How long it may take until all members hold the same.", metavar="DURATION")
    ] = "10m",
    lock_timeout: LockTimeoutOption = "",
    plan: Annotated[bool, typer.Option("--plan", help="Print every command in order, and touch nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    *,
    reach: _Reach,
) -> None:
    """Replace a lost or broken member of a cluster that has its majority by an empty one; no snapshot is needed."""
    from clusterguard.clusters.capabilities import ReplacesMembers
    from clusterguard.etcd import membership
    from clusterguard.model.durations import format_duration
    from clusterguard.model.progress import ignore_progress
    from clusterguard.terminal import err, out

    if plan and remove_only:
        raise ConfigError(
            "--plan and --remove-only do not go together: a removal is no commands on nodes",
            hint="leave --plan away; without --yes you are asked before anything is removed",
        )
    wait = duration_of(lock_timeout, "--lock-timeout") or timedelta(0)
    seconds = (duration_of(timeout, "--timeout") or timedelta(0)).total_seconds()
    with ExitStack() as stack, opened(cluster, kubeconfig=kubeconfig, progress=ignore_progress) as named:
        target = _reached(named, reach, stack)
        access = target.etcd
        if not isinstance(target, ReplacesMembers) or access is None:
            raise ConfigError(f"nothing is known of the nodes of {cluster}", hint="name them: --node-shell ssh:HOST")
        if plan:
            with target.member_places() as places:
                typer.echo(membership.plan_replacement(access, places, name))
            return
        if not yes:
            what = "is removed for good, and its node from the API" if remove_only else "is replaced by an empty one"
            err.print(f"Member {name} of {cluster} {what}.", style="yellow", markup=False)
            typer.confirm("Go on?", abort=True, err=True)
        stack.enter_context(_locked(target, wait, what="clusterguard etcd replace-member"))
        places = stack.enter_context(target.member_places())
        if remove_only:
            done = membership.remove_member(access, places, name, api=lambda: target.api)
            out.print(f"removed {name}: {done.reason}", markup=False, soft_wrap=True)
            return
        done = membership.replace_member(access, places, name, seconds=seconds, watch=_tell)
    took = format_duration(sum(step.seconds for step in done.steps))
    out.print(
        f"replaced {name} in {took}: {done.reason or 'an earlier run had begun it'}\n"
        f"what it had is kept in {done.kept}",
        markup=False,
        soft_wrap=True,
    )


def _tell(step: RestoreStep) -> None:
    from clusterguard.model.durations import format_duration
    from clusterguard.terminal import out

    out.print(f"  ✓ {step.name}  {format_duration(step.seconds)}", markup=False)


def _reached(
    cluster: Cluster, reach: _Reach, stack: ExitStack, *, data_dir: str = "", gone: list[str] | None = None
) -> Cluster:
    """Return the cluster as the options say that its etcd and its control plane are reached."""
    from clusterguard.clusters.kubeadm import KubeadmControlPlane

    if not (reach.node_shell or data_dir or gone):
        return cluster
    reached = stack.enter_context(reach.cluster(cluster))
    if data_dir or gone:
        if not isinstance(reached.control_plane, KubeadmControlPlane):
            raise ConfigError(
                "--data-dir and --gone are for control planes of kubeadm",
                hint="name the node, too: --node-shell ssh:HOST",
            )
        reached.control_plane = reached.control_plane.into(data_dir) if data_dir else reached.control_plane
        reached.control_plane = reached.control_plane.without(gone) if gone else reached.control_plane
    return reached


@contextmanager
def _locked(cluster: Cluster, wait: timedelta, *, what: str = "clusterguard etcd restore") -> Iterator[None]:
    """Hold the cluster's lock, where it can be had at all: what is broken must stay restorable."""
    from clusterguard.clusters.lock import lock_cluster
    from clusterguard.errors import ClusterUnreachableError, ForbiddenError
    from clusterguard.terminal import err

    def warn(text: str) -> None:
        err.print(text, style="yellow", markup=False, soft_wrap=True)

    try:
        lock = lock_cluster(cluster.api, what=what, wait_seconds=wait.total_seconds(), on_wait=warn)
    except (ClusterUnreachableError, ForbiddenError) as error:
        warn(f"warning: other runs are not kept out of the cluster: {error.message}")
        yield
        return
    try:
        yield
    finally:
        try:
            lock.release()
        except ClusterError as error:
            warn(f"warning: {error.message}")


@contextmanager
def _snapshotter(
    store: str, access: EtcdAccess | None, cluster: str, scratch: Path | None = None
) -> Iterator[EtcdSnapshotter]:
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.stores import open_store
    from clusterguard.terminal import progress_sink

    with ExitStack() as stack:
        progress = stack.enter_context(progress_sink())
        if access is None and cluster:
            access = stack.enter_context(opened(cluster, kubeconfig=None, progress=progress)).etcd
        yield EtcdSnapshotter(store=open_store(store), access=access, progress=progress, scratch=scratch)
