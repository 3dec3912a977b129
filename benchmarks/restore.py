"""How long a whole restore takes, beside the same steps done one after the other with the raw programs.

    python benchmarks/restore.py [--objects 500] [--rounds 5]

Starts two embedded clusters with the same objects and saves a snapshot of each. Then both restores run alternately,
each on its own cluster, while the other one idles:

raw   ask etcd for its revision, `etcdutl snapshot restore --bump-revision --mark-compacted`, SIGTERM to the
      controllers and the API server and wait, the same for etcd, two renames, start etcd with the same arguments,
      wait for its port, start the API server, poll /readyz every 50 ms, start the controllers
ours  `EtcdSnapshotter.restore`: the same, and before it the proof that the snapshot is whole, and after it the
      proof that the revision grew; the leader leases in the snapshot are removed, so that controllers need not
      wait for them to run out

Both end when the API server is ready and the controllers were started.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clusterguard.clusters import EmbeddedCluster
from clusterguard.clusters.embedded.commands import CONTROLLERS, Layout, argv_of
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.sockets import listening
from clusterguard.stores import LocalStore
from clusterguard.toolchain import from_environment

TARGET_RATIO = 1.2
MARGIN = 1_000_000


def fill(cluster: EmbeddedCluster, objects: int) -> None:
    for number in range(objects):
        metadata = {"name": f"object-{number}", "namespace": "default"}
        data = {"text": "x" * 1000}
        cluster.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


class Raw:
    """What a person would type, as a script."""

    def __init__(self, cluster: EmbeddedCluster, snapshot: Path, etcdctl: Path) -> None:
        self.record = cluster.record
        self.layout = Layout(folder=cluster.folder)
        self.snapshot = snapshot
        self.etcdctl = etcdctl
        self.pids = {name: process.pid for name, process in self.record.processes.items()}
        self.children: dict[str, subprocess.Popen] = {}
        pki = self.layout.pki
        self.context = ssl.create_default_context(cafile=pki / "ca.crt")
        self.context.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def restore(self) -> float:
        began = time.perf_counter()
        prepared, before = self.layout.data.with_name("raw.new"), self.layout.data.with_name("raw.old")
        peer = f"https://127.0.0.1:{self.record.ports.etcd_peer}"
        argv = [self.record.programs["etcdutl"], "snapshot", "restore", self.snapshot, f"--data-dir={prepared}"]
        argv += ["--name=clusterguard", f"--initial-cluster=clusterguard={peer}"]
        argv += [f"--initial-advertise-peer-urls={peer}", "--mark-compacted"]
        argv += [f"--bump-revision={self.revision() + MARGIN}"]
        subprocess.run(argv, check=True, capture_output=True)
        self.end(*CONTROLLERS, "kube-apiserver")
        self.end("etcd")
        self.layout.data.rename(before)
        prepared.rename(self.layout.data)
        self.start("etcd")
        while listening(self.record.ports.etcd_client) is not None:
            time.sleep(0.05)
        self.start("kube-apiserver")
        while not self.ready():
            time.sleep(0.05)
        for name in CONTROLLERS:
            self.start(name)
        seconds = time.perf_counter() - began
        shutil.rmtree(before)
        return seconds

    def revision(self) -> int:
        pki = self.layout.pki
        argv = [self.etcdctl, f"--endpoints=https://127.0.0.1:{self.record.ports.etcd_client}"]
        argv += [f"--cacert={pki / 'etcd-ca.crt'}", f"--cert={pki / 'clusterguard-etcd-client.crt'}"]
        argv += [f"--key={pki / 'clusterguard-etcd-client.key'}", "endpoint", "status", "-w", "json"]
        answer = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
        return int(answer[0]["Status"]["header"]["revision"])

    def ready(self) -> bool:
        connection = http.client.HTTPSConnection("127.0.0.1", self.record.ports.api, timeout=5, context=self.context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def start(self, name: str) -> None:
        argv = argv_of(name, programs=self.record.programs, layout=self.layout, ports=self.record.ports)
        with (self.layout.logs / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self.layout.folder)

    def end(self, *names: str) -> None:
        own = [self.children[name] for name in names if name in self.children]
        others = [self.record.processes[name] for name in names if name not in self.children]
        for child in own:
            child.terminate()
        for process in others:
            os.kill(process.pid, signal.SIGTERM)
        for child in own:
            child.wait()
        for process in others:
            while process.alive():
                time.sleep(0.01)

    def close(self) -> None:
        for child in self.children.values():
            child.kill()
            child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=500, help="ConfigMaps of 1 kB in each cluster (default 500)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where everything is written (default: a temporary folder)")
    options = parser.parse_args()
    etcdctl = from_environment(os.environ).ensure("etcdctl")["etcdctl"]
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="clusterguard-bench-") as scratch:
        home, store = Path(scratch) / "home", LocalStore(Path(scratch) / "store")
        with EmbeddedCluster("ours", home=home) as ours, EmbeddedCluster("raw", home=home) as other:
            for cluster in (ours, other):
                fill(cluster, options.objects)
            snapshotter = EtcdSnapshotter(store=store, access=ours.etcd)
            snapshotter.save("ours")
            snapshot = EtcdSnapshotter(store=store, access=other.etcd).save("raw")
            raw = Raw(other, store.local_path(snapshot.key), etcdctl)
            seconds: dict[str, list[float]] = {"ours": [], "raw": []}
            try:
                for _ in range(options.rounds):
                    began = time.perf_counter()
                    result = snapshotter.restore("ours", ours)
                    seconds["ours"].append(time.perf_counter() - began)
                    seconds["raw"].append(raw.restore())
            finally:
                raw.close()
    print(f"a snapshot of {snapshot.size / 1e6:.1f} MB, {options.rounds} rounds")
    for name, each in seconds.items():
        print(f"  {name:<5} {' '.join(f'{one:5.2f}' for one in each)}  median {statistics.median(each):.2f} s")
    for step in result.steps:
        print(f"        {step.seconds:5.2f}  {step.name}")
    ratio = statistics.median(ours / raw for ours, raw in zip(seconds["ours"], seconds["raw"], strict=True))
    print(f"  ratio {ratio:.2f} (target {TARGET_RATIO}): {'met' if ratio <= TARGET_RATIO else 'NOT MET'}")
    sys.exit(0 if ratio <= TARGET_RATIO else 1)


if __name__ == "__main__":
    main()
