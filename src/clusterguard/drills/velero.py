"""Velero in the clusters of a drill: a client for each cluster, and a location for each storage."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from clusterguard.clusters.capabilities import HasExternalVelero, LoadsImages, OnDockerNetwork
from clusterguard.clusters.velero_settings import FAST_SERVER_ARGS
from clusterguard.drills.events import Note
from clusterguard.drills.markers import RUN_LABEL
from clusterguard.drills.requirements import needs_snapshots
from clusterguard.errors import DrillError, ProvisioningError, ResourceNotFoundError
from clusterguard.model.attempts import try_each
from clusterguard.model.progress import Progress
from clusterguard.stores import open_store
from clusterguard.toolchain import PROGRAMS, from_environment
from clusterguard.velero.bucket import backups_in
from clusterguard.velero.client import VeleroClient
from clusterguard.velero.csi import FEATURE, missing_classes, require_server, require_snapshots
from clusterguard.velero.install import InstallOptions, install
from clusterguard.velero.layout import RESTORES
from clusterguard.velero.resources import Backup, BackupStorageLocation, Restore
from clusterguard.velero.selectors import LabelSelector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterguard.clusters.base import Cluster
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.drills.backups import TakenBackup
    from clusterguard.drills.run import DrillRun
    from clusterguard.stores import ObjectStore
    from clusterguard.velero.claims import ClaimedVolume

__all__ = ["VeleroClients", "install_options", "label_selector", "plurals"]

VELERO_IMAGE = "CLUSTERGUARD_VELERO_IMAGE"
AWS_IMAGE = "CLUSTERGUARD_VELERO_AWS_IMAGE"
_OWN_LOCATION = "clusterguard-drill"
_NAMESPACE_SECONDS = 120
_COLLECTED_WITHIN = timedelta(hours=2)  # a Velero server looks for expired backups once an hour


@dataclass(slots=True)
class VeleroClients:
    """Velero in the clusters of one run: a client for each cluster, a location for each storage."""

    run: DrillRun
    backups: dict[str, TakenBackup] = field(default_factory=dict)
    """What the run backed up, by the name that the drill gives it."""
    _clients: dict[str, VeleroClient] = field(default_factory=dict)
    _locations: dict[tuple[str, str | None], str] = field(default_factory=dict)
    _restores: int = 0
    # Namespaces of clusters that stay, by cluster and name with their uid: those from before the drill, and those that
    # only its restores made. Velero makes one without any label where the backup has none.
    _first: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _made: dict[tuple[str, str], str] = field(default_factory=dict)

    def taken(self, name: str) -> TakenBackup:
        """Return a Velero backup of this run.

        Raises:
            DrillError: There is none of that name.
        """
        try:
            return self.backups[name]
        except KeyError as error:
            raise DrillError(f"no Velero backup `{name}` was made in this run") from error

    def client(self, cluster: str) -> VeleroClient:
        """Return the client of a cluster's Velero; a throwaway cluster gets one first."""
        running = self.run.clusters.get(cluster)
        if running is None:
            raise DrillError(f"cluster `{cluster}` is not running at this point of the drill")
        if cluster not in self._clients:
            self._serve_pods()
            client = VeleroClient(api=running.api)
            if self._gets_velero(running) and not client.installed():
                self._install(client, running)
            client.require_installed()
            self._clients[cluster] = client
            if not self.run.owns(cluster):
                self.run.storages.before_close(partial(self._tidy, cluster))
        if isinstance(running, HasExternalVelero):
            self._start_server(cluster, running)
        return self._clients[cluster]

    def _start_server(self, cluster: str, running: HasExternalVelero) -> None:
        began, waited = time.monotonic(), list[str]()

        def on_wait(text: str) -> None:
            waited.append(text)
            self.run.on_event(Note(text=f"cluster `{cluster}`: {text}"))

        running.velero_server.start(on_wait=on_wait)
        if waited:  # waiting for others does not count as the drill's own time
            self.run.deadline += time.monotonic() - began

    def require_supported(self, cluster: str) -> None:
        """Refuse a Velero of an unsupported version that runs in a cluster already; one that starts later has none.

        Raises:
            UnsupportedVersionError: It is one; nothing was touched.
        """
        running = self.run.clusters.get(cluster)
        if running is None or (isinstance(running, HasExternalVelero) and not running.velero_server.running()):
            return  # it is asked once it has started
        client = VeleroClient(api=running.api)
        if client.installed():
            client.require_supported()

    def _serve_pods(self) -> None:
        """Put throwaway S3 servers where pods reach them, if the nodes of a running cluster are containers."""
        networks = [each.docker_network for each in self.run.clusters.values() if isinstance(each, OnDockerNetwork)]
        if networks:
            self.run.storages.serve_pods(networks[0])

    def _gets_velero(self, cluster: Cluster) -> bool:
        """Return whether a drill may put Velero into a cluster: only if it was created for drills."""
        return isinstance(cluster, HasExternalVelero) or cluster.created_by_us

    def _install(self, client: VeleroClient, cluster: Cluster) -> None:
        if isinstance(cluster, HasExternalVelero):
            velero = cluster.velero_server.program("velero")
            # The server runs beside the cluster; restores take settings from its Deployment all the same.
            options = InstallOptions(replicas=0)
        else:
            velero = from_environment(os.environ, progress=self.run.on_event).ensure("velero")["velero"]
            options = install_options(os.environ, snapshots=needs_snapshots(self.run.drill))
            self._load_images(cluster, (options.image, *options.plugins))
        install(options, api=client.objects.api, velero=velero, progress=self.run.on_event)

    def _load_images(self, cluster: Cluster, images: Sequence[str]) -> None:
        """Copy what this machine has of the images into the nodes, so that they need not be pulled for each cluster."""
        if isinstance(cluster, LoadsImages):
            for image in images:
                try:
                    cluster.load_image(image)
                except ProvisioningError:
                    self.run.on_event(Progress(task="loading images", note=f"the nodes pull {image}: it is not here"))

    def location(self, cluster: str, storage: str | None) -> str:
        """Return the name of a storage as a location of a cluster's Velero, which is made when first used."""
        if self._is_default(cluster, storage):
            return self._clients[cluster].locations.get().name
        # A location of that name may be there: another's, or of a run at the same time.
        name = f"{storage or _OWN_LOCATION}-{self.run.run_id}"
        if (cluster, storage) not in self._locations:
            self._locations[cluster, storage] = name  # known before it is made, to be cleaned up either way
            in_pods = not isinstance(self.run.clusters[cluster], HasExternalVelero)
            spec = self.run.storages.velero_location(storage, in_pods=in_pods)
            if in_pods and spec.credentials is None and self._gets_velero(self.run.clusters[cluster]):
                # In a cluster that was made for this run nobody else gives pods access to a bucket of somebody's.
                spec = replace(spec, credentials=_credentials_of_environment())
            if self.run.drill.spec.stored_in_velero:
                # In somebody's bucket no server of ours may remove what has expired, or maintain what it finds.
                spec = replace(spec, read_only=True)
            elif self._gets_velero(self.run.clusters[cluster]):
                self._require_nothing_to_collect(storage)
            self._clients[cluster].locations.create(name, spec)
        return name

    def _require_nothing_to_collect(self, storage: str | None) -> None:
        """Refuse a bucket with expired backups that nobody collects: a server of ours would, as soon as it knows them.

        Raises:
            DrillError: There are such backups; the server does not know the bucket yet.
        """
        if storage is None or self.run.storages.is_throwaway(storage):
            return
        before = self.run.now() - _COLLECTED_WITHIN
        kept = [each.name for each in backups_in(self.run.storages.for_velero(storage)) if each.expires_by(before)]
        if kept:
            raise DrillError(
                f"storage `{storage}` keeps expired backups, which Velero would remove: {', '.join(kept[:3])}",
                code="expired-in-bucket",
                hint="use a prefix of its own for drills; `storedBackup` only reads a bucket",
            )

    def location_of(self, cluster: str, taken: TakenBackup, storage: str | None) -> str:
        """Return the location that a cluster has a backup in: a storage's, or its own."""
        return (storage is None and taken.location) or self.location(cluster, storage or taken.storages[0])

    def bucket_of(self, cluster: str, taken: TakenBackup, storage: str | None) -> ObjectStore:
        """Return the bucket that a backup is in: a storage's, or its own."""
        if storage is None and taken.location:
            return self.bucket_at(cluster, taken.location)
        return self.bucket(cluster, storage or taken.storages[0])

    def bucket_at(self, cluster: str, location: str) -> ObjectStore:
        """Return the bucket of a location of a cluster, with the credentials of the environment."""
        return open_store(_bucket_location(self._clients[cluster].locations.get(location)))

    def require_not_elsewhere(self, cluster: str, backup: str, location: str) -> None:
        """Refuse a backup of somebody that a cluster knows from another location.

        Raises:
            DrillError: It does. A name means one location to a server: what it knows would have to be deleted.
        """
        known = self._clients[cluster].objects.find(Backup, backup)
        if known is not None and known.storage_location != location:
            raise DrillError(
                f"cluster `{cluster}` knows backup {backup} from its location {known.storage_location} already",
                code="backup-known-elsewhere",
                hint="leave `storage` out, so that it is restored from there",
            )

    def restore_name(self, cluster: str, taken: TakenBackup, bucket: ObjectStore) -> str:
        """Return a name for a restore of a backup that was there before, of which nothing stays; or leave it open."""
        if not taken.existing:
            return ""
        self._restores += 1
        name = f"{taken.name[:200]}-{self.run.run_id}-{self._restores}"
        self.run.storages.before_close(partial(self._remove_restore, cluster, name, bucket))
        return name

    def _remove_restore(self, cluster: str, name: str, bucket: ObjectStore) -> None:
        try_each([
            *([] if self.run.owns(cluster) else [partial(_remove_restore, self.client(cluster), name)]),
            partial(_remove_files, bucket, f"{RESTORES}{name}/"),
        ])  # fmt: skip

    def _is_default(self, cluster: str, storage: str | None) -> bool:
        """Return whether a step means Velero's default location; where a drill put Velero there is none."""
        running = self.run.clusters.get(cluster)
        return storage is None and cluster in self._clients and running is not None and not self._gets_velero(running)

    def require_snapshots(self, cluster: str, claims: Sequence[ClaimedVolume], *, move: bool) -> None:
        """Return when a cluster's claims can be backed up by CSI snapshots; in ours, a driver gets a class.

        Raises:
            VeleroError: They cannot.
        """
        client = self.client(cluster)
        require_server(client.objects, moves_data=move)
        if self._gets_velero(self.run.clusters[cluster]):
            for each in missing_classes(client.objects.api, claims, prefix=f"clusterguard-{self.run.run_id}"):
                client.objects.api.create(each)
        require_snapshots(client.objects, claims, name=f"clusterguard-{self.run.run_id}")

    def bucket(self, cluster: str, storage: str | None) -> ObjectStore:
        """Return where the backups of a storage rest, as a client of the bucket sees it, not the server."""
        if not self._is_default(cluster, storage):
            return self.run.storages.for_velero(storage)
        return open_store(_bucket_location(self._clients[cluster].locations.get()))

    def note_namespaces(self) -> None:
        """Note which namespaces are there before the drill begins, in clusters that stay after it."""
        for name, cluster in self.run.clusters.items():
            if not self.run.owns(name):
                self._first[name] = _namespaces(cluster.api)

    @contextmanager
    def restoring(self, cluster: str) -> Iterator[set[str]]:
        """Note the namespaces that a restore makes, however it ends; the set takes further names that it may make.

        Only names that are the drill's own count, or that the restore itself lists, and only where no such namespace
        was there before the drill: whoever brings back somebody's namespace does not own it.
        """
        names = {*self.run.namespace_mapping.values(), *self._namespaces_of_the_drill()}
        api = self.run.clusters[cluster].api
        noting = cluster in self._first
        before = _namespaces(api) if noting else {}
        try:
            yield names
        finally:
            after = _namespaces(api) if noting else {}
            for name in names - self._first.get(cluster, {}).keys():
                if name in after and after[name] != before.get(name):
                    self._made[cluster, name] = after[name]

    def _namespaces_of_the_drill(self) -> Iterator[str]:
        """Yield the namespaces of the baselines, under their new names."""
        for baseline in self.run.baselines.values():
            for ref in baseline.objects:
                name = ref.name if ref.full_kind == "Namespace" else ref.namespace
                yield self.run.namespace_mapping.get(name, name)

    def _tidy(self, cluster: str) -> None:
        """Leave nothing in a cluster that stays, and in its buckets: backups, restores, locations, namespaces.

        Each is tried, whatever becomes of the others, and most of it needs no server.
        """
        client = self._clients[cluster]
        ours = [each for each in self.backups.values() if each.cluster == cluster and not each.existing]
        locations = [name for (owner, _), name in self._locations.items() if owner == cluster]
        made = {name for owner, name in self._made if owner == cluster} | {*self.run.namespace_mapping.values()}
        try_each([
            partial(self._remove_backups, cluster, [taken.name for taken in ours]),
            *(partial(self._remove_copy, cluster, storage, taken.name) for taken in ours for storage in taken.storages),
            *(partial(_remove_location, client, name) for name in locations),
            *(partial(self._remove_namespace, cluster, name) for name in sorted(made)),
        ])  # fmt: skip

    def _remove_backups(self, cluster: str, names: Sequence[str]) -> None:
        if names:
            client = self.client(cluster)  # starts its server, which may not be possible
            try_each(partial(_remove_backup, client, name) for name in names)

    def _remove_namespace(self, cluster: str, name: str) -> None:
        """Delete a namespace that only a restore made, and wait: the next run may want the same name."""
        api = self.run.clusters[cluster].api
        resource = api.resource("Namespace")
        try:
            found = api.get(resource, name)
        except ResourceNotFoundError:
            return
        uid, labels = found["metadata"]["uid"], found["metadata"].get("labels", {})
        if labels.get(RUN_LABEL) == self.run.run_id or self._made.get((cluster, name)) == uid:
            api.delete(resource, name, uid=uid)
            what = f"namespace {name} goes"
            api.wait_for(resource, name, until=lambda seen: seen is None, what=what, timeout_seconds=_NAMESPACE_SECONDS)

    def _remove_copy(self, cluster: str, storage: str | None, backup: str) -> None:
        _remove_files(self.bucket(cluster, storage), f"backups/{backup}/")


def _remove_backup(client: VeleroClient, name: str) -> None:
    known = client.objects.find(Backup, name)
    if known is not None:
        client.locations.require_available(known.storage_location, fresh=True)
        client.delete_backup(name)


def _remove_restore(client: VeleroClient, name: str) -> None:
    if client.objects.find(Restore, name) is not None:
        client.delete_restore(name)


def _remove_files(store: ObjectStore, folder: str) -> None:
    try_each(partial(store.delete, key) for key in [info.key for info in store.list(folder)])


def _remove_location(client: VeleroClient, name: str) -> None:
    if client.objects.find(BackupStorageLocation, name) is not None:
        client.locations.delete(name)


def install_options(environ: Mapping[str, str], *, snapshots: bool = False) -> InstallOptions:
    """Return how Velero is installed in a throwaway cluster: with S3 and the node agent, and in a hurry.

    Args:
        environ: Where ``CLUSTERGUARD_VELERO_IMAGE`` and ``CLUSTERGUARD_VELERO_AWS_IMAGE`` may name other images.
        snapshots: Whether it takes CSI snapshots of volumes.
    """
    server, plugin = (f"{name}:v{PROGRAMS[name].modules.version}" for name in ("velero", "velero-plugin-for-aws"))
    return InstallOptions(
        image=environ.get(VELERO_IMAGE) or f"velero/{server}",
        plugins=(environ.get(AWS_IMAGE) or f"velero/{plugin}",),
        node_agent=True,
        features=(FEATURE,) if snapshots else (),
        server_args=FAST_SERVER_ARGS,
        # Its default of half a processor is more than small machines have left beside a control plane.
        resources={"requests": {"cpu": "10m", "memory": "64Mi"}},
    )


def _credentials_of_environment() -> str | None:
    from clusterguard.stores import S3Credentials  # boto3 is slow to load

    identity = S3Credentials.of_environment()
    return identity.as_file() if identity else None


def _bucket_location(location: BackupStorageLocation) -> str:
    """Return a location of Velero's as `open_store` takes it; with the credentials of the environment."""
    if location.provider.removeprefix("velero.io/") != "aws":
        raise DrillError(
            f"Velero's default location {location.name} is of provider {location.provider}, and only S3 can be read",
            hint="name a storage with s3 in the drill",
        )
    settings = {"region": location.config.get("region"), "endpoint": location.config.get("s3Url")}
    settings["pathStyle"] = location.config.get("s3ForcePathStyle")
    query = urlencode({key: value for key, value in settings.items() if value})
    path = f"{location.bucket}/{location.prefix}".rstrip("/")
    return f"s3://{path}" + (f"?{query}" if query else "")


def _namespaces(api: KubeClient) -> Mapping[str, str]:
    found = api.list(api.resource("Namespace"), metadata_only=True)
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in found}


def plurals(client: VeleroClient, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return kinds as Velero writes resources: plural, with their group."""
    found = [client.objects.api.resource(kind) for kind in kinds]
    return tuple(f"{one.plural}.{one.group}".rstrip(".").lower() for one in found)


def label_selector(text: str | None) -> LabelSelector | None:
    """Return a selector as Velero's resources have it, or None for none."""
    return LabelSelector.parse(text) if text else None
