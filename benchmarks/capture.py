"""How long capturing 10,000 objects takes and how much memory, beside `kubectl get` in the same run.

    python benchmarks/capture.py [--objects 10000] [--rounds 5]

Starts an embedded cluster and fills it with ConfigMaps and Secrets of about 1 KiB. Then both programs run
alternately, each a new process, so that start-up counts for both. What they do differs: kubectl prints all
objects of the two kinds as one JSON list; we list them too, normalise them, and sort out what is system-owned.
Further lines tell what capturing all kinds of the cluster takes, and comparing it with what was captured; and what
`clusterguard coverage` takes of the same cluster, alternately with the capture of all kinds.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterguard.clusters import EmbeddedCluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterguard.clusters import KubeClient

OURS = """
import sys
from clusterguard.clusters.kube import KubeClient
from clusterguard.model.inventory import Scope
from clusterguard.validate import RestoreValidator
kinds = tuple(kind for kind in sys.argv[2].split(",") if kind)
with KubeClient.from_kubeconfig(sys.argv[1]) as api:
    validator = RestoreValidator(api=api)
    inventory = validator.capture(Scope(kinds=kinds))
    assert len(inventory.objects) >= int(sys.argv[3]), len(inventory.objects)
    assert not inventory.skipped, inventory.skipped
    if sys.argv[4:] == ["validate"]:
        validator.validate(inventory).raise_for_findings()
"""
COVERAGE = """
import sys
from clusterguard.clusters.kube import KubeClient
from clusterguard.coverage.cover import cover
with KubeClient.from_kubeconfig(sys.argv[1]) as api:
    table = cover(api, "context:bench")
    assert sum(each.objects for each in table.kinds) >= int(sys.argv[2]), table.kinds
    assert not table.unread, table.unread
"""
TARGET_RATIO, TARGET_COVERAGE, TARGET_MIB = 1.0, 1.2, 200
NAMESPACES = 10


@dataclass
class Measured:
    seconds: float
    mib: float


def measure(argv: Sequence[str]) -> Measured:
    """Run a program to its end and return how long it took and the most memory it held."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{argv[0]} failed with exit code {process.returncode}")
    return Measured(seconds=seconds, mib=usage.ru_maxrss / 1024)


def fill(api: KubeClient, count: int) -> None:
    """Make ConfigMaps and Secrets, half of each, in several namespaces."""
    for number in range(NAMESPACES):
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"bench-{number}"}})

    def create(number: int) -> None:
        kind = ("ConfigMap", "Secret")[number % 2]
        field = "data" if kind == "ConfigMap" else "stringData"
        labels = {"app": "bench", "number": str(number)}
        values = {f"key-{part}": f"{number:08d}" * 24 for part in range(4)}
        metadata = {"name": f"object-{number}", "namespace": f"bench-{number % NAMESPACES}", "labels": labels}
        api.create({"apiVersion": "v1", "kind": kind, "metadata": metadata, field: values})

    with ThreadPoolExecutor(8) as threads:
        for done, _ in enumerate(threads.map(create, range(count)), 1):
            if done % 1000 == 0 and sys.stdout.isatty():
                print(f"\r{done} of {count} objects made", end="", flush=True)


def median(runs: Sequence[Measured]) -> str:
    seconds, mib = (statistics.median(getattr(run, name) for run in runs) for name in ("seconds", "mib"))
    spread = f"{min(run.seconds for run in runs):.2f} to {max(run.seconds for run in runs):.2f} s"
    return f"{seconds:.2f} s ({spread}), {mib:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        sys.exit("kubectl is not on PATH; it is what we measure against")
    with EmbeddedCluster() as cluster:
        fill(cluster.api, options.objects)
        config = str(cluster.kubeconfig)
        ours = [sys.executable, "-c", OURS, config]
        minimum = str(options.objects)
        same_kinds = [*ours, "ConfigMap,Secret", minimum]
        theirs = [kubectl, "--kubeconfig", config, "get", "configmaps,secrets", "-A", "-o", "json"]
        runs: dict[str, list[Measured]] = {"clusterguard": [], "kubectl": []}
        for _ in range(options.rounds):
            runs["clusterguard"].append(measure(same_kinds))
            runs["kubectl"].append(measure(theirs))
        everything: list[Measured] = []
        covered: list[Measured] = []
        for _ in range(options.rounds):
            everything.append(measure([*ours, "", minimum]))
            covered.append(measure([sys.executable, "-c", COVERAGE, config, minimum]))
        validated = [measure([*ours, "", minimum, "validate"]) for _ in range(options.rounds)]
    ratios = sorted(ours.seconds / theirs.seconds for ours, theirs in zip(*runs.values(), strict=True))
    peak = max(run.mib for run in itertools.chain(runs["clusterguard"], everything))
    print(f"{options.objects} ConfigMaps and Secrets, {options.rounds} rounds, medians")
    print(f"  clusterguard capture       {median(runs['clusterguard'])}")
    print(f"  kubectl get -o json        {median(runs['kubectl'])}")
    print(f"  ratio                      {statistics.median(ratios):.2f} (wanted: at most {TARGET_RATIO})")
    print(f"  capture of all kinds       {median(everything)}")
    by_capture = statistics.median(one.seconds / other.seconds for one, other in zip(covered, everything, strict=True))
    print(f"  coverage                   {median(covered)}")
    print(f"  ratio to that capture      {by_capture:.2f} (wanted: at most {TARGET_COVERAGE})")
    print(f"  capture and validate       {median(validated)}")
    print(f"  most memory of a capture   {peak:.0f} MiB (wanted: under {TARGET_MIB})")


if __name__ == "__main__":
    main()
