"""Installing, upgrading and removing Velero.

What to install is what ``velero install`` of the toolchain's own Velero renders, so it is never behind or ahead of
it; only how it is applied is our own: definitions first, server-side apply (an upgrade is the same again), and
removal of exactly what was made.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from clusterguard.clusters.applying import WORKLOADS, apply_all, named
from clusterguard.errors import (
    ClusterError,
    ConfigError,
    ConflictError,
    NotAllowedError,
    ResourceNotFoundError,
    ToolchainError,
    VeleroUnavailableError,
    WaitTimeoutError,
)
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.process import run
from clusterguard.retrying import RetryPolicy
from clusterguard.scratch import in_memory
from clusterguard.velero.client import VeleroClient
from clusterguard.velero.objects import DEFINITIONS, KINDS, definition_of, resource_of
from clusterguard.velero.resources import (
    BackupStorageLocation,
    DataDownload,
    DataUpload,
    PodVolumeBackup,
    PodVolumeRestore,
    Restore,
    VeleroObject,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterguard.clusters.kube import ApiResource, Json, KubeClient

__all__ = ["InstallOptions", "Installed", "Uninstalled", "install", "render", "uninstall"]

_RENDER_SECONDS = 60.0
_PROBE_SECONDS = 5.0
_FINALIZERS: Mapping[type[VeleroObject], str] = {
    Restore: "restores.velero.io/external-resources-finalizer",
    PodVolumeBackup: "velero.io/pod-volume-finalizer",
    PodVolumeRestore: "velero.io/pod-volume-finalizer",
    DataUpload: "velero.io/data-upload-download-finalizer",
    DataDownload: "velero.io/data-upload-download-finalizer",
}
_COMPONENT = {"component": "velero"}  # what `velero install` puts on everything it makes


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallOptions:
    """What to install.

    Attributes:
        namespace: Where the server works.
        image: Of the server; by default the one of the rendering program's own version.
        plugins: Images of plugins, such as ``velero/velero-plugin-for-aws:v1.14.3``.
        provider: Of the first location: ``aws``.
        bucket: Of the first location; empty for none.
        prefix: Of the first location.
        location_config: Settings of the first location.
        snapshot_location_config: Settings of the first place for native volume snapshots.
        volume_snapshots: Whether to make such a place.
        credentials: Text of a credentials file, for the server as a whole; None where it has a role of its own.
        ca: PEM certificates that the object store is trusted by.
        node_agent: Run the node agent, which file-system backups and data movers need.
        default_volumes_to_fs_backup: Back pod volumes up by their files unless a pod says otherwise.
        features: Such as ``EnableCSI``.
        service_account_annotations: Such as ``eks.amazonaws.com/role-arn``.
        server_args: Further arguments of the server, such as ``--client-qps=500``.
        replicas: 1, or 0 where the server runs elsewhere (its Deployment must exist all the same: restores take
            settings from it).
        resources: Requests and limits of the server's container; by default Velero's own.
        definitions_only: Only the CustomResourceDefinitions.
    """

    namespace: str = "velero"
    image: str = ""
    plugins: tuple[str, ...] = ()
    provider: str = ""
    bucket: str = ""
    prefix: str = ""
    location_config: Mapping[str, str] = field(default_factory=dict)
    snapshot_location_config: Mapping[str, str] = field(default_factory=dict)
    volume_snapshots: bool = False
    credentials: str | None = field(default=None, repr=False)
    ca: str = ""
    node_agent: bool = False
    default_volumes_to_fs_backup: bool = False
    features: tuple[str, ...] = ()
    service_account_annotations: Mapping[str, str] = field(default_factory=dict)
    server_args: tuple[str, ...] = ()
    replicas: int = 1
    resources: Mapping[str, Any] | None = None
    definitions_only: bool = False

    def problems(self) -> Iterator[str]:
        """Yield what contradicts itself."""
        if self.bucket and not self.provider:
            yield "a bucket needs its provider"
        if self.volume_snapshots and not self.provider:
            yield "volume snapshots need their provider"
        if self.bucket and not self.plugins and self.replicas:
            yield "a location needs its plugin: Velero has none built in"
        if self.replicas not in {0, 1}:
            yield f"{self.replicas} replicas: two servers in one namespace disturb each other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What was applied.

    Attributes:
        objects: Kind and name, in order.
    """

    objects: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uninstalled:
    """What was removed.

    Attributes:
        objects: Kind and name, in order.
        finalizers: Objects whose finalizer was taken off because no server did what it waits for: their files are
            still in the bucket.
        kept: What was left, with the reason.
    """

    objects: Sequence[str]
    finalizers: Sequence[str] = ()
    kept: Sequence[str] = ()


def render(options: InstallOptions, *, velero: Path) -> Sequence[Json]:
    """Return the objects to apply, in order.

    Args:
        options: What to install.
        velero: The program.

    Raises:
        ConfigError: The options contradict themselves.
        ProgramError: The program refused them.
    """
    problems = tuple(options.problems())
    if problems:
        raise ConfigError("; ".join(problems))
    with ExitStack() as files:
        # Keys are never a file on the disk: the program reads them from our memory.
        argv = _argv(options, lambda text: files.enter_context(in_memory(text.encode())).path)
        said = run([velero, *argv], timeout_seconds=_RENDER_SECONDS)
    try:
        items = orjson.loads(said.stdout)["items"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ToolchainError(
            f"{velero.name} install --dry-run did not print a list of objects", hint="is this Velero's program?"
        ) from error
    return [_adjusted(_cleaned(item), options) for item in items]


def _argv(options: InstallOptions, file: Callable[[str], Path]) -> Iterator[str]:
    # It renders without a cluster, but not without a kubeconfig.
    yield from ("--kubeconfig", str(file(json.dumps(_NOWHERE))), "--namespace", options.namespace)
    yield from ("install", "--dry-run", "--output", "json")
    if options.definitions_only:
        yield "--crds-only"
        return
    yield from (f"--image={options.image}",) if options.image else ()
    yield from (f"--plugins={image}" for image in options.plugins)
    yield from (f"--provider={options.provider}",) if options.provider else ()
    yield from _location_argv(options, file)
    yield f"--use-volume-snapshots={str(options.volume_snapshots).lower()}"
    if options.volume_snapshots and options.snapshot_location_config:
        yield f"--snapshot-location-config={_pairs(options.snapshot_location_config)}"
    yield from _credentials_argv(options, file)
    yield from ("--use-node-agent",) if options.node_agent else ()
    yield from ("--default-volumes-to-fs-backup",) if options.default_volumes_to_fs_backup else ()
    yield from (f"--features={','.join(options.features)}",) if options.features else ()
    if options.service_account_annotations:
        yield f"--sa-annotations={_pairs(options.service_account_annotations)}"


def _location_argv(options: InstallOptions, file: Callable[[str], Path]) -> Iterator[str]:
    if not options.bucket:
        yield "--no-default-backup-location"
        return
    yield f"--bucket={options.bucket}"
    yield from (f"--prefix={options.prefix}",) if options.prefix else ()
    if options.location_config:
        yield f"--backup-location-config={_pairs(options.location_config)}"
    if options.ca:
        yield f"--cacert={file(options.ca)}"


def _credentials_argv(options: InstallOptions, file: Callable[[str], Path]) -> Iterator[str]:
    if options.credentials is None:
        yield "--no-secret"
        return
    yield f"--secret-file={file(options.credentials)}"


def _pairs(values: Mapping[str, str]) -> str:
    wrong = [key for key, value in values.items() if "," in f"{key}{value}" or "=" in key]
    if wrong:
        raise ConfigError(
            f"{wrong[0]}: velero install takes no comma in a setting, nor = in its name",
            hint="install without it, then change the object",
        )
    return ",".join(f"{key}={value}" for key, value in values.items())


_NOWHERE = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "nowhere",
    "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
    "clusters": [{"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "nobody", "user": {}}],
}


def _cleaned(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Drop the fields that Go writes because it has no way to leave them out."""
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items() if not (key == "creationTimestamp" and item is None)}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return value


def _adjusted(item: Json, options: InstallOptions) -> Json:
    if item.get("kind") != "Deployment":
        return item
    item["spec"]["replicas"] = options.replicas
    container = item["spec"]["template"]["spec"]["containers"][0]
    container["args"] = [*container["args"], *options.server_args]
    if options.resources is not None:
        container["resources"] = dict(options.resources)
    return item


# ---- to the cluster ----------------------------------------------------------------------------------------


def install(
    options: InstallOptions,
    *,
    api: KubeClient,
    velero: Path,
    wait_seconds: float | None = 300,
    progress: ProgressSink = ignore_progress,
) -> Installed:
    """Install Velero, or bring an installed one to this version and these options.

    Args:
        options: What to install.
        api: The cluster.
        velero: The program that renders it, of the version to install.
        wait_seconds: How long its pods may take to be ready; None not to wait for them.
        progress: Told of each object.

    Raises:
        ConfigError: The options contradict themselves; nothing was touched.
        ProgramError: The program refused them; nothing was touched.
        WaitTimeoutError: A definition was not accepted, or the pods did not become ready, in time.
    """
    manifests = render(options, velero=velero)
    waits = wait_seconds if options.replicas else None
    apply_all(manifests, api=api, task="installing Velero", wait_seconds=waits, progress=progress)
    return Installed(objects=[named(each) for each in manifests])


# ---- and out of it -----------------------------------------------------------------------------------------


def uninstall(
    *,
    api: KubeClient,
    namespace: str = "velero",
    grace_seconds: float = 30,
    timeout_seconds: float = 300,
    dry_run: bool = False,
    progress: ProgressSink = ignore_progress,
) -> Uninstalled:
    """Remove what `install` (or ``velero install``) made, with all of Velero's objects; buckets keep the backups.

    Restores and volume transfers hold finalizers, which only a running server takes off; it removes the logs and
    results of restores from the bucket then. Where none answers, or it takes longer than the grace, the finalizers
    of these objects are taken off here, and listed in the result.

    Args:
        api: The cluster.
        namespace: Where the server works.
        grace_seconds: How long a running server may take for its finalizers.
        timeout_seconds: How long the API server may take to delete everything.
        dry_run: Only list what would be removed.
        progress: Told of what is being removed.

    Raises:
        NotAllowedError: The definitions serve another Velero, too; nothing was touched.
        WaitTimeoutError: The API server did not delete everything in time; calling again goes on.
        ConflictError: Something kept changing an object whose finalizer had to go; calling again goes on.
    """
    removal = _Removal(api=api, namespace=namespace, progress=progress)
    removal.refuse_when_shared()
    if dry_run:
        return Uninstalled(objects=removal.planned())
    removal.delete_guarded(grace_seconds=grace_seconds)
    removal.delete_workloads(timeout_seconds=timeout_seconds)
    removal.free_guarded()
    removal.delete_namespace(timeout_seconds=timeout_seconds)
    removal.delete_cluster_objects(timeout_seconds=timeout_seconds)
    progress(Progress(task="removing Velero", finished=True))
    return Uninstalled(objects=removal.removed, finalizers=removal.finalizers, kept=removal.kept)


# An object whose finalizer goes may be changed by somebody at the same moment, but hardly for as long as this.
_WHILE_CHANGED = RetryPolicy(attempts=10, first_wait_seconds=0.05, longest_wait_seconds=1)


@dataclass(slots=True, kw_only=True)
class _Removal:
    api: KubeClient
    namespace: str
    progress: ProgressSink
    removed: list[str] = field(default_factory=list)
    finalizers: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def refuse_when_shared(self) -> None:
        """Definitions belong to the whole cluster: without them every Velero in it loses its objects."""
        with suppress(ResourceNotFoundError):
            others = {
                item["metadata"]["namespace"]
                for item in self.api.list(resource_of(BackupStorageLocation), metadata_only=True)
            } - {self.namespace}
            if others:
                raise NotAllowedError(
                    f"another Velero works in namespace {', '.join(sorted(others))}, with the same definitions",
                    hint="uninstall that one first, or delete only this namespace",
                )

    def planned(self) -> Sequence[str]:
        """Return what would be removed."""
        namespace = self._namespace_object()
        ours = namespace is not None and _made_by_installer(namespace)
        inside = [f"Namespace {self.namespace}"] if ours else [str(each) for each in self._labelled_inside()]
        return [*map(str, self._guarded()), *inside, *map(str, self._cluster_objects())]

    def delete_guarded(self, *, grace_seconds: float) -> None:
        """Delete what has finalizers while there may still be a server to take them off."""
        guarded = self._guarded()
        if not guarded or not self._server_answers(within=min(grace_seconds, _PROBE_SECONDS)):
            return
        self._report(f"{len(guarded)} objects with finalizers")
        found = [_Target(resource_of(type(each)), each.name, self.namespace) for each in guarded]
        for target in found:
            self._delete(target)
        for target in found:
            with suppress(WaitTimeoutError):
                self._wait_gone(target, seconds=grace_seconds)

    def delete_workloads(self, *, timeout_seconds: float) -> None:
        """Delete the server before finalizers are taken off: it would put them back."""
        if self._namespace_object() is not None:
            found = [each for each in self._labelled_inside() if each.resource.kind in WORKLOADS]
            self._delete_all(found, seconds=timeout_seconds, foreground=True)  # its pods first

    def free_guarded(self) -> None:
        """Take the finalizers off what is left; nobody else will."""
        for each in self._guarded():
            self._delete(_Target(resource_of(type(each)), each.name, self.namespace))
            self._take_finalizer_off(each)
            self.removed.append(f"{each.kind} {each.name}")

    def delete_namespace(self, *, timeout_seconds: float) -> None:
        """Delete the namespace, or only what is Velero's in it where its installer did not create the namespace."""
        namespace = self._namespace_object()
        if namespace is None:
            return
        if _made_by_installer(namespace):
            target = _Target(self.api.resource_of(namespace), self.namespace, None)
            self._delete_all([target], seconds=timeout_seconds)
            return
        for target in self._labelled_inside():
            self._delete(target)
            self.removed.append(str(target))
        self.kept.append(f"Namespace {self.namespace}: Velero's installer did not make it")

    def delete_cluster_objects(self, *, timeout_seconds: float) -> None:
        """Delete the definitions and the role binding."""
        self._delete_all(list(self._cluster_objects()), seconds=timeout_seconds)

    def _guarded(self) -> Sequence[VeleroObject]:
        found: list[VeleroObject] = []
        for kind in _FINALIZERS:
            with suppress(ResourceNotFoundError):
                found += map(kind.model_validate, self.api.list(resource_of(kind), self.namespace))
        return found

    def _namespace_object(self) -> Json | None:
        try:
            return self.api.get(self.api.resource("Namespace", api_version="v1"), self.namespace)
        except ResourceNotFoundError:
            return None

    def _labelled_inside(self) -> Iterator[_Target]:
        for kind in ("apps/v1/Deployment", "apps/v1/DaemonSet", "v1/ServiceAccount", "v1/Secret"):
            version, _, name = kind.rpartition("/")
            resource = self.api.resource(name, api_version=version)
            for item in self.api.list(resource, self.namespace, label_selector=_LABELLED, metadata_only=True):
                yield _Target(resource, item["metadata"]["name"], self.namespace)

    def _cluster_objects(self) -> Iterator[_Target]:
        bindings = self.api.resource("ClusterRoleBinding", api_version="rbac.authorization.k8s.io/v1")
        for item in self.api.list(bindings, label_selector=_LABELLED):
            if any(subject.get("namespace") == self.namespace for subject in item.get("subjects") or ()):
                yield _Target(bindings, item["metadata"]["name"], None)
        known = {definition_of(kind) for kind in KINDS}
        for item in self.api.list(DEFINITIONS, metadata_only=True):
            if (name := item["metadata"]["name"]) in known:
                yield _Target(DEFINITIONS, name, None)

    def _server_answers(self, *, within: float) -> bool:
        try:
            VeleroClient(api=self.api, namespace=self.namespace).status(timeout_seconds=within)
        except (VeleroUnavailableError, ClusterError):
            return False
        return True

    def _take_finalizer_off(self, guarded: VeleroObject) -> None:
        """Take Velero's own finalizer off one of Velero's own objects; anybody else's stays."""
        resource = resource_of(type(guarded))

        def take_off() -> None:
            now = self.api.get(resource, guarded.name, self.namespace)
            found = now["metadata"].get("finalizers") or []
            left = [each for each in found if each != _FINALIZERS[type(guarded)]]
            if left != found:
                patch = {"metadata": {"finalizers": left, "resourceVersion": now["metadata"]["resourceVersion"]}}
                self.api.patch(resource, guarded.name, self.namespace, patch=patch)
                self.finalizers.append(f"{guarded.kind} {guarded.name}")

        with suppress(ResourceNotFoundError):
            _WHILE_CHANGED.run(take_off, retryable=lambda error: isinstance(error, ConflictError))

    def _delete_all(self, found: Sequence[_Target], *, seconds: float, foreground: bool = False) -> None:
        for target in found:
            self._report(str(target))
            self._delete(target, foreground=foreground)
        for target in found:
            self._wait_gone(target, seconds=seconds)

    def _delete(self, target: _Target, *, foreground: bool = False) -> None:
        with suppress(ResourceNotFoundError):
            self.api.delete(*target, propagation="Foreground" if foreground else "Background")

    def _wait_gone(self, target: _Target, *, seconds: float) -> None:
        self.api.wait_for(
            *target, until=lambda seen: seen is None, what=f"{target} to be gone", timeout_seconds=seconds
        )
        self.removed.append(str(target))

    def _report(self, note: str) -> None:
        self.progress(Progress(task="removing Velero", note=note))


class _Target(NamedTuple):
    """Where an object to remove is; without a namespace, in the cluster itself."""

    resource: ApiResource
    name: str
    namespace: str | None

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.name}"


_LABELLED = ",".join(f"{key}={value}" for key, value in _COMPONENT.items())


def _made_by_installer(manifest: Json) -> bool:
    labels = manifest["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in _COMPONENT.items())
