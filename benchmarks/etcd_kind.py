"""How long an etcd restore takes on a kind cluster, beside the same steps typed with the raw tools.

    python benchmarks/etcd_kind.py [--rounds 3] [--objects 300] [--keep-grace] [--attach NAME]

One kind cluster, one snapshot; both ways restore it in turns:

raw   `docker cp`, `etcdutl snapshot restore` in the node, `mv` of the manifests, the containers seen gone, two more
      `mv`, etcd's manifest back, `curl` until etcd answers, the API server's manifest back, `kubectl wait` for /readyz
      by polling, the rest back, `systemctl restart kubelet`; the API server is killed after 3 s as ours does it
ours  `EtcdSnapshotter.restore`: the same, and before it the proof that the snapshot is whole and everything that is
      checked on the node, a journal on the way, and after it the search for orphaned pods, alarms and dead leases

With --keep-grace the raw way gives the API server the kubelet's 30 s, as most runbooks do. Both end when the API server
is ready, the controllers' manifests are back and the kubelet was restarted. Needs Docker.
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
from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard.clusters.kind import KindCluster
from clusterguard.clusters.kubeadm import KubeadmControlPlane
from clusterguard.clusters.node_shell import DockerNodeShell
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import LocalStore

if TYPE_CHECKING:
    from clusterguard.clusters.base import EtcdLayout

TARGET_RATIO = 1.15
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
        ["docker", "exec", f"{name}-control-plane", "sh", "-c", GONE + script],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def raw(name: str, snapshot: Path, layout: EtcdLayout, bump: int, timer: Timer, *, grace: bool) -> float:
    began = time.perf_counter()
    member, pki = f"{name}-control-plane", "/etc/kubernetes/pki"
    data, peer = layout.data_dir, layout.peer_url
    with timer.on("build the new data directory"):
        subprocess.run(["docker", "cp", "-q", str(snapshot), f"{member}:{data}/raw.db"], check=True)
        node(name, f"etcdutl snapshot restore {data}/raw.db --data-dir {data}/raw --name {member} "
             f"--initial-cluster {member}={peer} --initial-advertise-peer-urls {peer} --bump-revision {bump} "
             f"--mark-compacted && rm {data}/raw.db")  # fmt: skip
    with timer.on("stop the control plane"):
        node(name, "mkdir -p /etc/kubernetes/raw; cd /etc/kubernetes/manifests; "
             f"for pod in {PODS}; do mv $pod.yaml ../raw/; done")  # fmt: skip
        kill = "" if grace else "KILL=$(( $(date +%s%N) + 3000000000 )); "
        node(name, f"{kill}until_gone {PODS}")
        node(name, "mv /etc/kubernetes/manifests/etcd.yaml /etc/kubernetes/raw/; until_gone etcd")
    with timer.on("swap the data directory"):
        node(name, f"cd {data}; mv member raw.old; mv raw/member member; rm -rf raw")
    with timer.on("start etcd"):
        node(name, "mv /etc/kubernetes/raw/etcd.yaml /etc/kubernetes/manifests/; "
             f"until curl -fs -o /dev/null --cacert {pki}/etcd/ca.crt --cert {pki}/etcd/healthcheck-client.crt "
             f"--key {pki}/etcd/healthcheck-client.key https://127.0.0.1:2379/readyz; do sleep 0.1; done")  # fmt: skip
    with timer.on("start the API server"):
        node(name, "mv /etc/kubernetes/raw/kube-apiserver.yaml /etc/kubernetes/manifests/; "
             "until kubectl --kubeconfig /etc/kubernetes/admin.conf get --raw /readyz; do sleep 0.1; done")  # fmt: skip
    with timer.on("start the controllers"):
        node(name, "mv /etc/kubernetes/raw/*.yaml /etc/kubernetes/manifests/; systemctl restart kubelet")
    seconds = time.perf_counter() - began
    node(name, f"rm -rf {data}/raw.old /etc/kubernetes/raw")
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
            shell=DockerNodeShell(f"{cluster.name}-control-plane"), api=lambda: cluster.api, on_command=on_command
        )

    began = time.perf_counter()
    result = snapshotter.restore(snapshot, Target)
    seconds = time.perf_counter() - began
    for step in result.steps:
        timer.spent[step.name].append(step.seconds)
    timer.spent["keep aside, look for what is left over"].append(seconds - sum(step.seconds for step in result.steps))
    assert not result.warnings, result.warnings
    return seconds


def settle(cluster: KindCluster) -> None:
    """Both begin on the same ground: the API ready, and the load of the restart before over."""
    until = time.monotonic() + 60
    while not cluster.api.ready() and time.monotonic() < until:
        time.sleep(0.5)
    time.sleep(8)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--objects", type=int, default=300)
    options.add_argument("--keep-grace", action="store_true")
    options.add_argument("--attach", metavar="NAME", help="use the kind cluster of that name, by default a new one")
    given = options.parse_args()
    by_raw, by_ours, commands = Timer(), Timer(), Timer()
    totals: dict[str, list[float]] = {"raw": [], "ours": []}
    opened = KindCluster.attach(given.attach) if given.attach else KindCluster().start()
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(opened) as cluster:
        for number in range(given.objects):
            metadata = {"name": f"object-{number}", "namespace": "default"}
            cluster.api.apply(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": "x" * 1000}}
            )
        store = LocalStore(Path(folder))
        snapshotter = EtcdSnapshotter(store=store, access=cluster.etcd)
        snapshot = snapshotter.save("bench")
        layout = cluster.control_plane.layout()
        for round_ in range(given.rounds):
            for way in ("raw", "ours") if round_ % 2 else ("ours", "raw"):
                settle(cluster)
                if way == "raw":
                    file = store.local_path(snapshot.key)
                    bump = MARGIN * 2 * (round_ + 1) * 2
                    totals[way].append(raw(cluster.name, file, layout, bump, by_raw, grace=given.keep_grace))
                else:
                    totals[way].append(ours(cluster, snapshotter, snapshot.name, by_ours, commands))
                print(f"round {round_ + 1}: {way:5} {totals[way][-1]:6.2f} s", flush=True)
    steps = list(dict.fromkeys([*by_ours.spent, *by_raw.spent]))
    print(f"\n{'median seconds':42} {'raw':>7} {'ours':>7}")
    for step in steps:
        cells = [f"{statistics.median(way.spent[step]):7.2f}" if way.spent[step] else "      -"
                 for way in (by_raw, by_ours)]  # fmt: skip
        print(f"{step:42} {cells[0]} {cells[1]}")
    raw_median, our_median = (statistics.median(totals[way]) for way in ("raw", "ours"))
    print(f"{'in all':42} {raw_median:7.2f} {our_median:7.2f}")
    same = our_median - sum(statistics.median(by_ours.spent[step]) for step in by_ours.spent if not by_raw.spent[step])
    print(f"{'in all, what both do':42} {raw_median:7.2f} {same:7.2f}   ratio {same / raw_median:.2f}")
    print("\nours, by command (median):")
    for why, spent in commands.spent.items():
        print(f"  {statistics.median(spent):6.2f}  {why}")
    ratio = our_median / raw_median
    print(f"\nratio {ratio:.2f}, target {TARGET_RATIO}")
    if ratio > TARGET_RATIO:
        sys.exit(1)


if __name__ == "__main__":
    main()
