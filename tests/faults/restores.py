"""A real control plane that is restored again and again, and the two states that it may be in."""

from __future__ import annotations

import contextlib
import itertools
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grpc_proxy import grpc_proxy
from injector import Plan
from worlds import CANARY, bucket_url, environment

from clusterguard.clusters import EmbeddedCluster, lock
from clusterguard.clusters.kube import KubeClient
from clusterguard.errors import ResourceNotFoundError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import LocalStore

NAME, SNAPSHOT, PREFIX = "kept", "before-the-fault", "restores"


@dataclass
class Restorable:
    """A cluster with a snapshot, in which ``lost`` is only in the snapshot and ``late`` only in the live state."""

    services: object
    folder: Path
    cluster: EmbeddedCluster
    etcd: object

    def __post_init__(self):
        self.api = KubeClient.from_kubeconfig(self.cluster.kubeconfig)
        self.maps = self.api.resource("ConfigMap")
        self.numbers = itertools.count()

    def make(self, name):
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
        self.api.create({**manifest, "data": {"secret": CANARY.decode()}})

    def has(self, name):
        with contextlib.suppress(ResourceNotFoundError):
            return bool(self.api.get(self.maps, name, "default"))
        return False

    def state(self):
        """Return which of the two states is live; anything else is neither."""
        self.make(f"write-{next(self.numbers)}-{os.getpid()}")
        states = {(True, False): "restored", (False, True): "old"}
        return states.get((self.has("lost"), self.has("late")), "mixed")

    def make_old(self):
        """Go back to the old state, in a cluster that nobody has locked: a killed restore leaves its Lease."""
        with contextlib.suppress(ResourceNotFoundError):
            self.api.delete(lock.LEASE, lock.NAME, lock.NAMESPACE)
        if self.has("lost"):
            self.api.delete(self.maps, "lost", "default")
        if not self.has("late"):
            self.make("late")

    def store(self, where):
        return bucket_url(self.services.s3.endpoint, PREFIX) if where == "s3" else str(self.folder / "disk")

    def start(self, *words, plan=None, **environ):
        own = environment(self.folder) | environ
        folder = self.folder / f"command-{next(self.numbers)}"
        return self.services.zygote.start(words, folder=folder, cwd=self.folder, env=own, plan=plan or Plan())

    def restore(self, where="disk", **options):
        words = ("etcd", "restore", SNAPSHOT, "--store", self.store(where), "--cluster", f"embedded:{NAME}", "--yes")
        return self.start(*words, **options)

    def recover(self):
        command = self.start("etcd", "recover", "--cluster", f"embedded:{NAME}")
        assert command.wait() == 0, command.printed()


@contextmanager
def restorable_cluster(services, toolchain, folder):
    """Run a cluster that outlives its processes, with a snapshot of it in a folder and in a bucket."""
    home = Path(environment(folder)["XDG_STATE_HOME"]) / "clusterguard" / "clusters"
    cluster = EmbeddedCluster(NAME, toolchain=toolchain, home=home, outlive_us=True).start()
    try:
        with grpc_proxy(cluster.record.ports.etcd_client, tls=True) as proxy:
            made = Restorable(services, folder, cluster, proxy)
            made.make("lost")
            for store in (LocalStore(folder / "disk"), services.gateway.store(prefix=PREFIX)):
                EtcdSnapshotter(store=store, access=cluster.etcd).save(SNAPSHOT)
            yield made
            made.api.close()
    finally:
        cluster.delete()


def nothing_in_plain(restorable):
    """No byte of the database lies where temporary files do; what the cluster itself keeps is its own."""
    for folder in ("tmpdir", "home", "xdg_state_home"):
        for path in (restorable.folder / folder).rglob("*"):
            if path.is_file() and "clusters" not in path.parts and CANARY in path.read_bytes():
                yield f"{path} holds the database in plain"
