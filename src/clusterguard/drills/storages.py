"""The storages of a run: opened when first used, throwaway servers among them, and cut off when a drill says so."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from clusterguard.drills.schema import LOCAL
from clusterguard.errors import DrillError
from clusterguard.stores import open_store
from clusterguard.velero.locations import LocationSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterguard.drills.load import Drill
    from clusterguard.drills.schema import S3Storage
    from clusterguard.drills.servers.throwaway_s3 import ThrowawayS3Server
    from clusterguard.model.progress import ProgressSink
    from clusterguard.stores import ObjectStore

__all__ = ["Storages"]

_OWN_BUCKET = "clusterguard-drill"


class Storages:
    """Gives each storage of a drill as a store, and as a location for Velero; throwaway ones lie in ``folder``."""

    def __init__(self, drill: Drill, folder: Path, progress: ProgressSink) -> None:
        self._drill = drill
        self._folder = folder
        self._progress = progress
        self._stores: dict[str | None, ObjectStore] = {}
        self._servers: dict[str | None, ThrowawayS3Server] = {}
        self._network: str | None = None
        self._stack = ExitStack()
        self._first = ExitStack()

    def serve_pods(self, network: str) -> None:
        """Start further throwaway servers on a docker network, where the pods of its nodes can connect to them."""
        self._network = network

    def store(self, name: str | None) -> ObjectStore:
        """Return a storage by its name; None is the run's own folder, for etcd snapshots."""
        if name not in self._stores:
            self._stores[name] = self._open(name)
        return self._stores[name]

    def for_velero(self, name: str | None) -> ObjectStore:
        """Return the bucket of a Velero location; None is a throwaway one of this run."""
        if name is not None:
            return self.store(name)
        server = self._server(None, _OWN_BUCKET)
        return server.store(_OWN_BUCKET)

    def is_throwaway(self, name: str) -> bool:
        """Return whether a storage is a server of this run, which has nothing of anybody else."""
        spec = self._drill.spec.storage[name].s3
        return spec is not None and spec.endpoint == LOCAL

    def velero_location(self, name: str | None, *, in_pods: bool = False) -> LocationSpec:
        """Return a storage as a location of Velero.

        Args:
            name: The storage, or None for a throwaway one of this run.
            in_pods: Whether Velero works in pods, and not as a process of this machine.

        Raises:
            DrillError: It is not a bucket, or pods cannot connect to it.
        """
        if name is None:
            return self._local_location(None, bucket=_OWN_BUCKET, prefix="", in_pods=in_pods)
        spec = self._drill.spec.storage[name].s3
        if spec is None:
            raise DrillError(
                f"storage `{name}` is a directory, and Velero needs a bucket", code="not-a-bucket", hint="use s3"
            )
        if spec.endpoint == LOCAL:
            return self._local_location(name, bucket=spec.bucket, prefix=spec.prefix or "", in_pods=in_pods)
        config = {"region": spec.region or "us-east-1"}
        if spec.endpoint:
            config |= {"s3Url": spec.endpoint, "s3ForcePathStyle": "true"}
        return LocationSpec(bucket=spec.bucket, prefix=spec.prefix or "", config=config)

    def block(self, name: str) -> None:
        """Make a storage unreachable for everybody.

        Raises:
            DrillError: It is not one of this run's own servers.
        """
        self._own_server(name).stop()

    def unblock(self, name: str) -> None:
        """Make a blocked storage reachable again."""
        self._own_server(name).start()

    def before_close(self, act: Callable[[], object]) -> None:
        """Do something at the end, while the throwaway servers still serve; what was asked last comes first."""
        self._first.callback(act)

    def close(self) -> None:
        """Do what was to be done before, whatever comes of it, and stop the throwaway servers."""
        with self._stack:
            self._first.close()

    def _open(self, name: str | None) -> ObjectStore:
        if name is None:
            return open_store(str(self._folder / "snapshots"))
        spec = self._drill.spec.storage[name]
        if spec.directory is not None:
            return open_store(str((self._drill.path.parent / spec.directory.path).resolve()))
        assert spec.s3 is not None  # noqa: S101 - the schema lets one of the two through
        if spec.s3.endpoint == LOCAL:
            return self._server(name, spec.s3.bucket).store(spec.s3.bucket, spec.s3.prefix or "")
        return open_store(_s3_location(spec.s3))

    def _local_location(self, name: str | None, *, bucket: str, prefix: str, in_pods: bool) -> LocationSpec:
        server = self._server(name, bucket)
        config = {"region": server.region, "s3ForcePathStyle": "true", "s3Url": server.endpoint}
        if in_pods:
            if server.endpoint_for_pods is None:
                raise DrillError(
                    f"storage `{name or 'of this run'}` is on this machine's loopback, which pods cannot reach",
                    code="storage-not-reachable",
                    fields={"storage": name},
                    hint="name an S3 endpoint that the cluster reaches, or run the drill on embedded or kind clusters",
                )
            # Velero signs the addresses of logs and results with publicUrl: that is the one that we can reach.
            config |= {"s3Url": server.endpoint_for_pods, "publicUrl": server.endpoint}
        return LocationSpec(bucket=bucket, prefix=prefix, config=config, credentials=server.credentials_file())

    def _server(self, name: str | None, bucket: str) -> ThrowawayS3Server:
        """Return the throwaway server of a storage: each has its own, so that one can be cut off alone."""
        if name not in self._servers:
            self._servers[name] = self._stack.enter_context(self._new_server(name))
            self._servers[name].create_bucket(bucket)
        return self._servers[name]

    def _new_server(self, name: str | None) -> ThrowawayS3Server:
        if self._network is not None:
            from clusterguard.drills.servers.container_s3 import ContainerS3Server

            return ContainerS3Server(network=self._network)
        from clusterguard.drills.servers.local_s3 import LocalS3Server
        from clusterguard.toolchain import from_environment

        program = from_environment(os.environ, progress=self._progress).ensure("versitygw")["versitygw"]
        return LocalS3Server(program=program, folder=self._folder / f"s3-{name or 'own'}")

    def _own_server(self, name: str) -> ThrowawayS3Server:
        self.store(name)
        if name not in self._servers:
            raise DrillError(
                f"storage `{name}` cannot be cut off: only throwaway servers (`endpoint: local`) can",
                code="storage-not-throwaway",
                fields={"storage": name},
                hint="cut it off by hand around the drill, or use a local one",
            )
        return self._servers[name]


def _s3_location(spec: S3Storage) -> str:
    query = [f"{key}={value}" for key, value in (("region", spec.region), ("endpoint", spec.endpoint)) if value]
    prefix = f"/{spec.prefix}" if spec.prefix else ""
    return f"s3://{spec.bucket}{prefix}" + (f"?{'&'.join(query)}" if query else "")
