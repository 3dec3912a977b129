"""How long comparing two inventories of 100,000 objects takes, beside another version of clusterguard in the same run.

    python benchmarks/compare.py [--objects 100000] [--rounds 5] [--beside OTHER/src]

The inventories are made in memory; no cluster is needed. After an etcd restore one object in ten differs, by its
status and resource version; after a Velero restore every object is another one under its name. Each round runs in a
process of its own, versions alternately, and times the comparison alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

TARGET_RATIO = 1.0
PROFILES = ("etcd-restore", "velero-restore")
SOURCE = Path(__file__).parents[1] / "src"

WORK = """
import resource, sys, time
from datetime import UTC, datetime
from clusterguard.model.inventory import Inventory, ObjectRef, Scope, canonical
from clusterguard.validate.rules import PROFILES
from clusterguard.validate.validator import Tolerance, judge

count, profile = int(sys.argv[1]), PROFILES[sys.argv[2]]
APIS = {"ConfigMap": "v1", "Secret": "v1", "Service": "v1", "Pod": "v1", "Deployment": "apps/v1"}

def body(kind, number):
    if kind in ("ConfigMap", "Secret"):
        return {"data": {f"key-{part}": f"{number:08d}" * 24 for part in range(4)}}
    if kind == "Service":
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        ports = [{"port": 80, "protocol": "TCP", "targetPort": 80}]
        return {"spec": {"clusterIP": address, "clusterIPs": [address], "ports": ports, "type": "ClusterIP"}}
    container = {"name": "web", "image": "busybox:1.37", "env": [{"name": f"E{n}", "value": "x"} for n in range(8)]}
    pod = {"containers": [container], "nodeName": f"node-{number % 7}", "serviceAccountName": "default"}
    if kind == "Pod":
        return {"spec": pod, "status": {"phase": "Running", "podIP": "10.0.0.1"}}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    return {"spec": {"replicas": 3, "template": template}, "status": {"readyReplicas": 3}}

def item(kind, number, again):
    metadata = {
        "name": f"object-{number}", "namespace": f"bench-{number % 50}", "labels": {"app": "bench"},
        "annotations": {"example.com/owner": "me"}, "uid": f"uid-{number}-{again}",
        "resourceVersion": str(number + 1000 * again), "creationTimestamp": f"2026-01-0{1 + again}T00:00:00Z",
    }
    return {"apiVersion": APIS[kind], "kind": kind, "metadata": metadata, **body(kind, number)}

def inventory(after):
    objects = {}
    for number in range(count):
        made = item(list(APIS)[number % 5], number, int(after and profile.identity == "name"))
        if after and profile.identity == "uid" and number % 10 in (3, 4):
            made["metadata"]["resourceVersion"] += "0"
            made["status"]["observedGeneration"] = 2
        objects[ObjectRef.of(made)] = canonical(made)
    return Inventory(
        taken=datetime(2026, 1, 2, tzinfo=UTC), server_version="v1.36.3", scope=Scope(), objects=objects
    )

before, after = inventory(False), inventory(True)
held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
report = judge(before, after, profile=profile, tolerate=Tolerance(), digest_key=b"k")
seconds = time.process_time() - began
assert report.ok, report.to_text()[:2000]
assert report.compared == count and report.suppressed
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024)
"""


def measure(source: Path, objects: int, profile: str) -> tuple[float, float]:
    """Return seconds of processor time and MiB that a comparison took in a process of its own."""
    argv = [sys.executable, "-c", WORK, str(objects), profile]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(source)}, check=True, stdout=subprocess.PIPE)
    seconds, mib = done.stdout.split()
    return float(seconds), float(mib)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", type=Path, help="the src folder of another version")
    options = parser.parse_args()
    missed = False
    for profile in PROFILES:
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(measure(SOURCE, options.objects, profile))
            if options.beside:
                theirs.append(measure(options.beside, options.objects, profile))
        line = f"{profile:15} {statistics.median(seconds for seconds, _ in ours):6.2f} s"
        line += f", {max(mib for _, mib in ours):4.0f} MiB more than the inventories"
        if theirs:
            ratio = statistics.median(mine[0] / other[0] for mine, other in zip(ours, theirs, strict=True))
            missed |= ratio > TARGET_RATIO
            line += f"; beside {statistics.median(seconds for seconds, _ in theirs):6.2f} s"
            line += f", {max(mib for _, mib in theirs):4.0f} MiB: {ratio:.2f} (wanted: at most {TARGET_RATIO})"
        print(line)
    sys.exit(missed)


if __name__ == "__main__":
    main()
