"""How long an etcd restore takes on a kind cluster, beside the same steps typed with the raw tools.

    python benchmarks/etcd_kind.py [--control-planes 1] [--workers 0] [--rounds 3] [--objects 300] [--keep-grace]
        [--attach NAME]

One kind cluster, one snapshot; all ways restore it in turns:

raw    `docker cp`, `etcdutl snapshot restore` in the node, `mv` of the manifests, the containers seen gone, two more
       `mv`, etcd's manifest back, `curl` until etcd answers, the API server's manifest back, `kubectl wait` for /readyz
       by polling, the rest back, `systemctl restart kubelet`; the API server is killed after 3 s as ours does it. Each
       step on all nodes at once, and the workers' kubelets restarted
serial with several control planes: the same, each step on one node after the other. Of etcd, which waits for the
       others, all members are started before one is waited for, and so are API servers
ours   `EtcdSnapshotter.restore`: the same as raw, and before it the proof that the snapshot is whole and everything
       that is checked on the nodes, journals on the way, and after it the search for orphaned pods, alarms and dead
       leases

With --keep-grace the raw ways give the API server the kubelet's 30 s, as most runbooks do. All end when the API servers
are ready, the controllers' manifests are back and the kubelets were restarted. Needs Docker.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard.clusters.kind import KindCluster
from clusterguard.clusters.kubeadm import KubeadmControlPlane
from clusterguard.clusters.node_shell import DockerNodeShell
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import LocalStore

if TYPE_CHECKING:
    from clusterguard.clusters.base import EtcdLayout

TARGETS = {"raw": 1.15, "serial": 0.6}
PODS = "kube-apiserver kube-controller-manager kube-scheduler"
MARGIN = 1_000_000

GONE = r"""
until_gone() {
  until
    ids=$(for pod in "$@"; do
      if command -v crictl >/dev/null; then crictl ps -q --state Running --name "^$pod$"
      else
        known=$(ctr -n k8s.io containers ls -q "labels.\"io.kubernetes.container.name\"==$pod" 2>/dev/null)
        tasks=$(ctr -n k8s.io tasks ls 2>/dev/null)
        for id in $known; do echo "$tasks" | grep "^$id .*RUNNING" | cut -d " " -f 1; done
      fi; done)
    test -z "$ids"
  do
    test -n "$KILL" && test "$(date +%s%N)" -gt "$KILL" && for id in $ids; do
      if command -v crictl >/dev/null; then crictl stop --timeout 0 $id
      else ctr -n k8s.io tasks kill -s SIGKILL $id; fi; done >/dev/null 2>&1
    sleep 0.1
  done
}
"""


class Timer:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def on(self, what: str):
        began = time.perf_counter()
        yield
        self.spent[what].append(time.perf_counter() - began)


def node(name: str, script: str) -> str:
    return subprocess.run(
        ["docker", "exec", name, "sh", "-c", GONE + script], check=True, capture_output=True, text=True
    ).stdout


class Raw:
    """The steps on every control plane, by a shell in each node."""

    def __init__(self, layouts: list[EtcdLayout], workers: list[str], *, at_once: bool) -> None:
        self.layouts, self.workers, self.at_once = layouts, workers, at_once
        self.names = [layout.name for layout in layouts]

    def each(self, act) -> None:
        with ThreadPoolExecutor(max_workers=len(self.names) + len(self.workers) if self.at_once else 1) as pool:
            list(pool.map(act, self.layouts))

    def everywhere(self, script: str) -> None:
        self.each(lambda layout: node(layout.name, script))

    def build(self, snapshot: Path, bump: int) -> None:
        initial = ",".join(f"{each.name}={each.peer_url}" for each in self.layouts)

        def build(layout: EtcdLayout) -> None:
            data = layout.data_dir
            subprocess.run(["docker", "cp", "-q", str(snapshot), f"{layout.name}:{data}/raw.db"], check=True)
            words = f"--data-dir {data}/raw --name {layout.name} --initial-cluster {initial} --mark-compacted"
            words += f" --initial-advertise-peer-urls {layout.peer_url} --initial-cluster-token raw-{bump}"
            restore = f"etcdutl snapshot restore {data}/raw.db {words} --bump-revision {bump}"
            node(layout.name, f"{restore} && rm {data}/raw.db")

        self.each(build)

    def restore(self, snapshot: Path, bump: int, timer: Timer, *, grace: bool) -> float:
        began = time.perf_counter()
        pki, data = "/etc/kubernetes/pki/etcd", self.layouts[0].data_dir
        identity = f"--cacert {pki}/ca.crt --cert {pki}/healthcheck-client.crt --key {pki}/healthcheck-client.key"
        with timer.on("build the new data directory"):
            self.build(snapshot, bump)
        with timer.on("stop the control plane"):
            aside = f"mkdir -p ../raw; for pod in {PODS}; do mv $pod.yaml ../raw/; done"
            kill = "" if grace else "KILL=$(( $(date +%s%N) + 3000000000 )); "
            self.everywhere(f"cd /etc/kubernetes/manifests; {aside}; {kill}until_gone {PODS}")
            self.everywhere("mv /etc/kubernetes/manifests/etcd.yaml /etc/kubernetes/raw/; until_gone etcd")
        with timer.on("swap the data directory"):
            self.everywhere(f"cd {data}; mv member raw.old; mv raw/member member; rm -rf raw")
        with timer.on("start etcd"):
            self.everywhere("mv /etc/kubernetes/raw/etcd.yaml /etc/kubernetes/manifests/")
            self.everywhere(f"until curl -fs -o /dev/null {identity} https://127.0.0.1:2379/readyz; do sleep 0.1; done")
        with timer.on("start the API server"):
            self.everywhere("mv /etc/kubernetes/raw/kube-apiserver.yaml /etc/kubernetes/manifests/")
            ready = "kubectl --kubeconfig /etc/kubernetes/admin.conf --server https://127.0.0.1:6443 get --raw /readyz"
            self.everywhere(f"until {ready}; do sleep 0.1; done")
        with timer.on("start the controllers"):
            self.everywhere("mv /etc/kubernetes/raw/*.yaml /etc/kubernetes/manifests/; systemctl restart kubelet")
            for name in self.workers:
                node(name, "systemctl restart kubelet")
        seconds = time.perf_counter() - began
        self.everywhere(f"rm -rf {data}/raw.old /etc/kubernetes/raw")
        return seconds


def ours(cluster: KindCluster, snapshotter: EtcdSnapshotter, snapshot: str, timer: Timer, commands: Timer) -> float:
    open_command: list[tuple[str, float]] = []

    def on_command(command) -> None:
        moment = time.perf_counter()
        if open_command:
            what, since = open_command.pop()
            commands.spent[what].append(moment - since)
        open_command.append((command.why, moment))

    class Target:
        name, etcd, api = cluster.name, cluster.etcd, cluster.api
        control_plane = KubeadmControlPlane(
            leaders(cluster), workers=workers(cluster), api=lambda: cluster.api, on_command=on_command
        )

    began = time.perf_counter()
    result = snapshotter.restore(snapshot, Target)
    seconds = time.perf_counter() - began
    for step in result.steps:
        timer.spent[step.name].append(step.seconds)
    timer.spent["keep aside, look for what is left over"].append(seconds - sum(step.seconds for step in result.steps))
    assert not result.warnings, result.warnings
    return seconds


def leaders(cluster: KindCluster) -> list[DockerNodeShell]:
    return [DockerNodeShell(each.name) for each in cluster.nodes if each.is_leader]


def workers(cluster: KindCluster) -> list[DockerNodeShell]:
    return [DockerNodeShell(each.name) for each in cluster.nodes if not each.is_leader]


def settle(cluster: KindCluster) -> None:
    """Both begin on the same ground: the API ready, and the load of the restart before over."""
    until = time.monotonic() + 60
    while not cluster.api.ready() and time.monotonic() < until:
        time.sleep(0.5)
    time.sleep(8)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--control-planes", type=int, default=1)
    options.add_argument("--workers", type=int, default=0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--objects", type=int, default=300)
    options.add_argument("--keep-grace", action="store_true")
    options.add_argument("--attach", metavar="NAME", help="use the kind cluster of that name, by default a new one")
    given = options.parse_args()
    new = KindCluster(control_planes=given.control_planes, workers=given.workers)
    opened = KindCluster.attach(given.attach) if given.attach else new.start()
    timers: dict[str, Timer] = {"raw": Timer(), "serial": Timer(), "ours": Timer()}
    totals: dict[str, list[float]] = {way: [] for way in timers}
    commands = Timer()
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(opened) as cluster:
        for number in range(given.objects):
            metadata = {"name": f"object-{number}", "namespace": "default"}
            cluster.api.apply(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": "x" * 1000}}
            )
        store = LocalStore(Path(folder))
        snapshotter = EtcdSnapshotter(store=store, access=cluster.etcd)
        snapshot = snapshotter.save("bench")
        layouts = [KubeadmControlPlane([each], api=lambda: cluster.api).layout() for each in leaders(cluster)]
        idle = [each.name for each in workers(cluster)]
        by_hand = {way: Raw(layouts, idle, at_once=way == "raw") for way in ("raw", "serial")}
        ways = ["ours", "raw", "serial"] if len(layouts) > 1 else ["ours", "raw"]
        for number in range(given.rounds * len(ways)):
            way = ways[(number + number // len(ways)) % len(ways)]  # each begins a round as often as the others
            settle(cluster)
            if way == "ours":
                seconds = ours(cluster, snapshotter, snapshot.name, timers[way], commands)
            else:
                bump, file = MARGIN * 2 * (number + 1) * 2, store.local_path(snapshot.key)
                seconds = by_hand[way].restore(file, bump, timers[way], grace=given.keep_grace)
            totals[way].append(seconds)
            print(f"round {number // len(ways) + 1}: {way:6} {seconds:6.2f} s", flush=True)
    report(timers, totals, commands)


def report(timers: dict[str, Timer], totals: dict[str, list[float]], commands: Timer) -> None:
    ways = [way for way in timers if totals[way]]
    print(f"\n{'median seconds':42}" + "".join(f" {way:>7}" for way in ways))
    for step in dict.fromkeys(step for way in reversed(ways) for step in timers[way].spent):
        cells = [timers[way].spent[step] for way in ways]
        print(f"{step:42}" + "".join(f" {statistics.median(cell):7.2f}" if cell else "       -" for cell in cells))
    medians = {way: statistics.median(totals[way]) for way in ways}
    print(f"{'in all':42}" + "".join(f" {medians[way]:7.2f}" for way in ways))
    mine = timers["ours"].spent
    same = medians["ours"] - sum(statistics.median(mine[step]) for step in mine if not timers["raw"].spent[step])
    print(f"{'in all, what both do':42} {medians['raw']:7.2f} {same:7.2f}   ratio {same / medians['raw']:.2f}")
    if "serial" not in ways:  # of several nodes at once, the next command says nothing of the one before
        print("\nours, by command (median):")
        for why, spent in commands.spent.items():
            print(f"  {statistics.median(spent):6.2f}  {why}")
    for way, target in TARGETS.items():
        if way in medians:
            print(f"\nours to {way}: ratio {medians['ours'] / medians[way]:.2f}, target {target}")
    if any(medians["ours"] / medians[way] > target for way, target in TARGETS.items() if way in medians):
        sys.exit(1)


if __name__ == "__main__":
    main()
