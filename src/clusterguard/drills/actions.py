"""What each action of a drill does. One function for each; a check of ``verify`` is in `checks`."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial, singledispatch
from itertools import islice
from typing import TYPE_CHECKING, Any

from clusterguard.drills import disasters, in_cluster, schema
from clusterguard.drills.attempts import try_each
from clusterguard.drills.canary import RUN_LABEL
from clusterguard.drills.run import DEFAULT_WAIT, TakenSnapshot
from clusterguard.errors import (
    ClusterError,
    ConflictError,
    DrillError,
    NotAllowedError,
    ResourceNotFoundError,
    SnapshotCorruptError,
    WaitTimeoutError,
)
from clusterguard.stores.transfer import copy_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.clusters.kube import ApiResource, KubeClient
    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.run import Run
    from clusterguard.drills.schema import Action
    from clusterguard.model.snapshot import VerifyReport

__all__ = ["perform", "remove_applied"]

_POLL_SECONDS = 0.1
# Longer than the controllers take to delete what nothing holds.
_STUCK_SECONDS = 8.0
_MOST_TOLD = 5


@singledispatch
def perform(action: Action, run: Run, step: LoadedStep) -> str:
    """Do what a step says; return what was done, in one line.

    Raises:
        ClusterGuardError: It could not be done.
    """
    raise DrillError(f"`{step.verb}` is a check: it belongs into verify")


@perform.register(schema.Apply)
def _apply(action: schema.Apply, run: Run, step: LoadedStep) -> str:
    cluster = run.cluster_of(step)
    for manifest in step.objects:
        # Whatever a later phase makes of an object of setup, it stays one; the objects of others get no label.
        ours = _who(manifest) in _made_by_setup(run, step.cluster)
        cluster.api.await_kind(dict(manifest))
        if not run.owns(step.cluster) and step.phase == "setup":
            _refuse_to_take_over(cluster.api, manifest, run.run_id)
        cluster.api.apply(_bearing(manifest, run.run_id) if ours else dict(manifest))
    return f"{len(step.objects)} object(s) applied"


def _made_by_setup(run: Run, cluster: str) -> set[tuple[str, ...]]:
    steps = (step for step in run.drill.phase("setup") if step.cluster == cluster)
    return {_who(manifest) for step in steps for manifest in step.objects}


def _who(manifest: Any) -> tuple[str, ...]:  # noqa: ANN401 - a manifest from YAML
    metadata = manifest["metadata"]
    group = manifest["apiVersion"].rpartition("/")[0]
    return group, manifest["kind"], metadata.get("namespace") or "default", metadata["name"]


def remove_applied(run: Run, cluster: str) -> str | None:
    """Remove from a cluster what this run's setup applied to it, last first, and nothing that lacks its label.

    Each is tried, whatever becomes of the others. Returns once they are gone, so that the next drill may use the same
    names; None where there was nothing to remove.

    Raises:
        WaitTimeoutError: Something stays, held by a finalizer.
        ClusterGuardError: The cluster refused to remove something.
    """
    api = run.clusters[cluster].api
    doomed: list[tuple[ApiResource, Any]] = []

    def remove(manifest: Any) -> None:  # noqa: ANN401 - a manifest from YAML
        with suppress(ResourceNotFoundError):
            resource = api.resource_of(manifest)
            found = _named(api, resource, manifest)
            if _labels(found).get(RUN_LABEL) == run.run_id:
                metadata = found["metadata"]
                api.delete(resource, metadata["name"], metadata.get("namespace"), uid=metadata["uid"])
                doomed.append((resource, found))

    steps = [step for step in run.drill.phase("setup") if step.cluster == cluster]
    try_each([
        *(partial(remove, manifest) for step in reversed(steps) for manifest in reversed(step.objects)),
        lambda: _wait_until_gone(api, doomed, seconds=DEFAULT_WAIT.total_seconds()),
    ])  # fmt: skip
    return f"{len(doomed)} object(s) removed" if doomed else None


@perform.register(schema.Delete)
def _delete(action: schema.Delete, run: Run, step: LoadedStep) -> str:
    api = run.cluster_of(step).api
    doomed: list[tuple[ApiResource, Any]] = []
    for kind in action.all_kinds:
        resource = api.resource(kind)
        selected = list(_selected(api, resource, action))
        if not selected and step.phase != "cleanup":
            raise DrillError(
                f"`delete` selects no {kind} {_where(action)}: a fault that breaks nothing proves nothing",
                hint="correct the selection, or build what it selects in setup",
            )
        doomed += [(resource, item) for item in selected]
    grace = action.grace_period
    for resource, item in doomed:
        with suppress(ResourceNotFoundError):
            api.delete(
                resource,
                item["metadata"]["name"],
                item["metadata"].get("namespace"),
                grace_seconds=None if grace is None else int(grace.total_seconds()),
                uid=item["metadata"]["uid"],
            )
    if action.until == "stuck":
        return "; ".join(_stuck(api, resource, item) for resource, item in doomed)
    _wait_until_gone(api, doomed, seconds=run.wait_of(step))
    return f"{len(doomed)} object(s) deleted: {_names(item for _, item in doomed)}"


@perform.register(schema.Scale)
def _scale(action: schema.Scale, run: Run, step: LoadedStep) -> str:
    api = run.cluster_of(step).api
    resource = api.resource(action.kind)
    selected = list(_selected(api, resource, action))
    if not selected:
        raise DrillError(f"`scale` selects no {action.kind} {_where(action)}")
    for item in selected:
        metadata = item["metadata"]
        api.scale(resource, metadata["name"], metadata.get("namespace"), replicas=action.replicas)
    return f"{_names(selected)} scaled to {action.replicas}"


@perform.register(schema.Patch)
def _patch(action: schema.Patch, run: Run, step: LoadedStep) -> str:
    api = run.cluster_of(step).api
    resource = api.resource(action.kind)
    try:
        before = api.get(resource, action.name, action.namespace)
    except ResourceNotFoundError:
        if step.phase != "cleanup":
            raise
        return f"there is no {action.kind} {action.name}"
    after = api.patch(resource, action.name, action.namespace, patch=action.patch)
    if not _differ(before, after) and step.phase == "fault":
        raise DrillError(
            f"`patch` changes nothing in {action.kind} {action.name}: a fault that breaks nothing proves nothing",
            hint="it has these values already; patch something else",
        )
    return f"{action.kind} {action.name} changed"


def _differ(before: Any, after: Any) -> bool:  # noqa: ANN401 - objects of any kind
    """Return whether a patch did something; taking the last finalizer off deletes, and gives no new version."""
    one, other = before["metadata"], after["metadata"]
    return bool(one["resourceVersion"] != other["resourceVersion"] or one.get("finalizers") != other.get("finalizers"))


@perform.register(schema.DeleteCluster)
def _delete_cluster(action: schema.DeleteCluster, run: Run, step: LoadedStep) -> str:
    cluster = run.clusters.get(action.name)
    if cluster is None:
        raise DrillError(f"cluster `{action.name}` is not running at this point of the drill")
    if not run.owns(action.name):
        raise NotAllowedError(
            f"cluster `{action.name}` was not created by this run; clusterguard never deletes such a cluster"
        )
    run.close_cluster(action.name)
    return f"cluster `{action.name}` deleted"


@perform.register(schema.Exec)
def _exec(action: schema.Exec, run: Run, step: LoadedStep) -> str:
    return in_cluster.execute(action, run, step)


@perform.register(schema.WriteFile)
def _write_file(action: schema.WriteFile, run: Run, step: LoadedStep) -> str:
    return in_cluster.write(action, run, step)


@perform.register(schema.SameFiles)
def _same_files(action: schema.SameFiles, run: Run, step: LoadedStep) -> str:
    result = in_cluster.compare_once(action, run, step, seconds=run.wait_of(step))
    if not result.ok:
        raise DrillError(f"{action.path}: {result.summary}")
    return result.summary


@perform.register(schema.Http)
def _http(action: schema.Http, run: Run, step: LoadedStep) -> str:
    return in_cluster.ask(action, run, step)


@perform.register(schema.StopNode)
def _stop_node(action: schema.StopNode, run: Run, step: LoadedStep) -> str:
    return disasters.stop_nodes(action, run, step)


@perform.register(schema.StartNode)
def _start_node(action: schema.StartNode, run: Run, step: LoadedStep) -> str:
    return disasters.start_nodes(action, run, step)


@perform.register(schema.LoseEtcd)
def _lose_etcd(action: schema.LoseEtcd, run: Run, step: LoadedStep) -> str:
    return disasters.lose_etcd(run, step)


@perform.register(schema.EtcdSnapshot)
def _snapshot(action: schema.EtcdSnapshot, run: Run, step: LoadedStep) -> str:
    run.cluster_of(step)
    # In a store that others use, too, a drill's snapshots must not collide from run to run.
    name = action.name if action.storage is None else f"{action.name}-{run.run_id}"
    record = run.snapshotter(step.cluster, action.storage).save(name)
    run.snapshots[action.name] = TakenSnapshot(record=record, cluster=step.cluster, storages=(action.storage,))
    remarks = "".join(f"; {remark.detail}" for remark in record.remarks)
    return f"revision {record.revision}, {record.total_keys:,} keys, {record.size:,} bytes{remarks}"


@perform.register(schema.StoredBackup)
def _stored(action: schema.StoredBackup, run: Run, step: LoadedStep) -> str:
    if run.settings.stored is None:
        raise DrillError("nothing was set up to find the backups of policies", hint="pass DrillSettings(stored=…)")
    policy = run.drill.path.parent / action.policy
    found = run.settings.stored(policy, action.source, backup=action.backup or "", location=action.location or "")
    run.snapshots[action.name] = TakenSnapshot(record=found.record, store=found.store)
    record = found.record
    return (
        f"{record.name} of {found.location}, taken {record.taken:%Y-%m-%d %H:%M:%S} UTC: revision {record.revision}, "
        f"{record.total_keys:,} keys, {record.size:,} bytes"
    )


@perform.register(schema.VeleroBackup)
def _velero_backup(action: schema.VeleroBackup, run: Run, step: LoadedStep) -> str:
    run.cluster_of(step)
    return run.velero.back_up(action, step)


@perform.register(schema.VeleroRestore)
def _velero_restore(action: schema.VeleroRestore, run: Run, step: LoadedStep) -> str:
    run.cluster_of(step)
    return run.velero.restore(action, step)


@perform.register(schema.BlockStorage)
def _block(action: schema.BlockStorage, run: Run, step: LoadedStep) -> str:
    run.storages.block(action.name)
    return f"storage `{action.name}` is cut off"


@perform.register(schema.UnblockStorage)
def _unblock(action: schema.UnblockStorage, run: Run, step: LoadedStep) -> str:
    run.storages.unblock(action.name)
    return f"storage `{action.name}` is reachable"


@perform.register(schema.CopyBackup)
def _copy(action: schema.CopyBackup, run: Run, step: LoadedStep) -> str:
    if action.backup not in run.snapshots:
        return run.velero.copy(action)
    taken = _taken(run, action.backup)
    if taken.store is not None:
        raise DrillError("`copyBackup` copies what this drill backed up; a policy copies its backups itself")
    source, target = run.store(action.from_), run.store(action.to)
    digest = copy_object(source, taken.record.key, target)
    if digest != taken.record.sha256:
        raise SnapshotCorruptError(f"the copy in `{action.to}` has sha256 {digest}, {taken.record.sha256} was recorded")
    copy_object(source, f"{taken.record.name}.json", target)
    run.snapshots[action.backup] = TakenSnapshot(
        record=taken.record, cluster=taken.cluster, storages=(*taken.storages, action.to)
    )
    return f"copied to `{action.to}`, sha256 {digest[:16]}…"


@perform.register(schema.VerifyBackup)
def _verify(action: schema.VerifyBackup, run: Run, step: LoadedStep) -> str:
    if action.backup not in run.snapshots:
        return run.velero.verify(action)
    taken = _taken(run, action.backup)
    if action.contains:
        raise DrillError("`contains` is for Velero backups: an etcd snapshot always holds the whole cluster")
    if taken.store is not None:
        report = run.snapshotter_of(taken).verify(taken.record.name)
        report.raise_for_findings()
        return _checks_of(report)
    storage = action.storage if action.storage is not None else taken.storages[0]
    cluster = taken.cluster if taken.cluster in run.clusters else None
    report = run.snapshotter(cluster, storage).verify(taken.record.name)
    report.raise_for_findings()
    if action.same_as is not None:
        twin = run.snapshotter(cluster, action.same_as).verify(taken.record.name)
        twin.raise_for_findings()
    return _checks_of(report)


def _checks_of(report: VerifyReport) -> str:
    return "; ".join(f"{check.name}: {check.detail}" for check in report.checks if check.name != "bytes")


@perform.register(schema.EtcdRestore)
def _restore(action: schema.EtcdRestore, run: Run, step: LoadedStep) -> str:
    taken = _taken(run, action.from_)
    cluster = run.cluster_of(step)
    snapshotter = run.snapshotter_of(taken, access=cluster.etcd)
    run.restored_at[step.cluster] = datetime.now(UTC)
    result = snapshotter.restore(taken.record.name, cluster)
    cluster.api.resources(refresh=True)  # definitions may have come and gone with the data
    longest = max(result.steps, key=lambda one: one.seconds)
    warnings = "".join(f"; {warning}" for warning in result.warnings)
    return (
        f"revision {result.revision_before} → {result.snapshot.revision} raised to {result.revision_after}; "
        f"longest: {longest.name}, {longest.seconds:.1f} s{warnings}"
    )


def _taken(run: Run, name: str) -> TakenSnapshot:
    try:
        return run.snapshots[name]
    except KeyError as error:
        raise DrillError(f"no snapshot `{name}` was saved in this run") from error


def _bearing(manifest: Any, run_id: str) -> dict[str, Any]:  # noqa: ANN401 - a manifest from YAML
    metadata = dict(manifest["metadata"])
    metadata["labels"] = {**_labels(manifest), RUN_LABEL: run_id}
    return {**manifest, "metadata": metadata}


def _refuse_to_take_over(api: KubeClient, manifest: Any, run_id: str) -> None:  # noqa: ANN401 - a manifest from YAML
    """Keep a drill from adopting somebody's object, which its cleanup would then delete."""
    resource = api.resource_of(manifest)
    try:
        existing = _named(api, resource, manifest)
    except ResourceNotFoundError:
        return
    if _labels(existing).get(RUN_LABEL) != run_id:
        raise ConflictError(
            f"{resource.kind} {existing['metadata']['name']} exists already, and not from this run: "
            "setup does not take it over",
            hint="let the drill use names of its own, or leave the object out of setup",
        )


def _named(api: KubeClient, resource: ApiResource, manifest: Any) -> Any:  # noqa: ANN401 - an object of any kind
    """Return the object that a manifest names, as it is in the cluster."""
    metadata = manifest["metadata"]
    return api.get(
        resource, metadata["name"], (metadata.get("namespace") or "default") if resource.namespaced else None
    )


def _labels(item: Any) -> dict[str, str]:  # noqa: ANN401 - an object of any kind
    labels: dict[str, str] = item["metadata"].get("labels") or {}
    return labels


def _selected(api: KubeClient, resource: ApiResource, action: Any) -> Iterator[Any]:  # noqa: ANN401 - Delete or Scale
    names = action.all_names if isinstance(action, schema.Delete) else ((action.name,) if action.name else ())
    if not names:
        yield from api.list(resource, action.namespace, label_selector=action.selector or "")
        return
    for name in names:
        with suppress(ResourceNotFoundError):
            yield api.get(resource, name, action.namespace)


def _wait_until_gone(
    api: KubeClient,
    doomed: list[tuple[ApiResource, Any]],
    *,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
) -> None:
    """Wait until each object is gone, or another one bears its name."""
    deadline = time.monotonic() + seconds
    for resource, item in doomed:
        metadata = item["metadata"]
        while True:
            try:
                now = api.get(resource, metadata["name"], metadata.get("namespace"))
            except ResourceNotFoundError:
                break
            if now["metadata"]["uid"] != metadata["uid"]:
                break
            if time.monotonic() > deadline:
                raise WaitTimeoutError(
                    f"{resource.kind} {metadata['name']} goes",
                    seconds=seconds,
                    last_seen=_what_holds_it(api, now),
                    hint="see who owns the finalizer; kubectl get -o yaml shows all of it",
                )
            sleep(_POLL_SECONDS)


def _stuck(
    api: KubeClient,
    resource: ApiResource,
    item: Any,  # noqa: ANN401 - an object of any kind
    *,
    seconds: float = _STUCK_SECONDS,
    sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
) -> str:
    """Return what holds an object that is being deleted, once that has been so for a while.

    Raises:
        DrillError: It goes, so nothing is stuck.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            _wait_until_gone(api, [(resource, item)], seconds=0)
        except WaitTimeoutError:
            sleep(_POLL_SECONDS)
        else:
            raise DrillError(
                f"{resource.kind} {item['metadata']['name']} is gone, and nothing holds it: this is no stuck deletion",
                hint="let setup make something with a finalizer, or leave `until` out",
            )
    now = api.get(resource, item["metadata"]["name"], item["metadata"].get("namespace"))
    return _what_holds_it(api, now)


def _what_holds_it(api: KubeClient, item: Any) -> str:  # noqa: ANN401 - an object of any kind
    conditions = [
        condition.get("message", "")
        for condition in item.get("status", {}).get("conditions", ())
        if condition.get("status") == "True" and condition.get("message")
    ]
    finalizers = item["metadata"].get("finalizers", []) + item.get("spec", {}).get("finalizers", [])
    held = f"finalizers {', '.join(finalizers)}" if finalizers else "no finalizers"
    inside = _held_inside(api, item["metadata"]["name"]) if item.get("kind") == "Namespace" else ()
    return "; ".join([f"{item.get('kind')} is being deleted, with {held}", *conditions, *islice(inside, _MOST_TOLD)])


def _held_inside(api: KubeClient, namespace: str) -> Iterator[str]:
    """Yield what in a namespace has finalizers; the namespace itself tells of it only after five seconds or more."""
    for resource in api.resources():
        if not resource.namespaced or "list" not in resource.verbs:
            continue
        with suppress(ClusterError):  # an aggregated API that is down must not hide what the others know
            for item in api.list(resource, namespace, metadata_only=True):
                metadata = item["metadata"]
                if metadata.get("finalizers"):
                    yield f"{resource.kind} {metadata['name']} in it has finalizers {', '.join(metadata['finalizers'])}"


def _where(action: Any) -> str:  # noqa: ANN401 - Delete or Scale
    chosen = action.selector or ", ".join(getattr(action, "all_names", ()) or filter(None, [action.name])) or "at all"
    return f"({chosen})" + (f" in namespace {action.namespace}" if action.namespace else "")


def _names(items: Any) -> str:  # noqa: ANN401 - objects of any kind
    names = sorted(item["metadata"]["name"] for item in items)
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown  # noqa: PLR2004 - shown above
