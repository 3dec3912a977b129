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
import base64
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verify import Member, b64

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
NUMBER = "99999999"  # of the object whose bytes the others are made of
PAIRS = 120  # in one transaction: etcd takes 128


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


def fill(cluster: EmbeddedCluster, count: int, *, there: int = 0) -> None:
    """Make ConfigMaps and Secrets, half of each, in several namespaces; so many are there already.

    One of each goes through the API server. The others are what it stored of them, with other names, values and uids
    of the same length, written to etcd: a hundred thousand requests would take longer than what is measured.
    """
    for number in range(NAMESPACES):
        cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"bench-{number}"}})
    etcd = Member.of(cluster.etcd, prefix="/registry")
    templates = [stored(cluster.api, etcd, kind) for kind in ("ConfigMap", "Secret")]
    for first in range(there, count, PAIRS):
        etcd.put_all(
            tuple(renamed(text, number, uid) for text in (key, value))
            for number in range(first, min(count, first + PAIRS))
            for key, value, uid in (templates[number % 2],)
        )


def stored(api: KubeClient, etcd: Member, kind: str) -> tuple[bytes, bytes, bytes]:
    """Return the key and the bytes that the API server makes of an object, which is removed again, and its uid."""
    name, namespace, plural = f"object-{NUMBER}", "bench-0", f"{kind.lower()}s"
    field = "data" if kind == "ConfigMap" else "stringData"
    values = {f"key-{part}": NUMBER * 24 for part in range(4)}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": "bench", "number": NUMBER}}
    uid = api.create({"apiVersion": "v1", "kind": kind, "metadata": metadata, field: values})["metadata"]["uid"]
    key = f"/registry/{plural}/{namespace}/{name}".encode()
    (pair,) = etcd.ask("kv/range", {"key": b64(key)})["kvs"]
    api.delete(api.resource(kind), name, namespace)
    return key, base64.b64decode(pair["value"]), uid.encode()


def renamed(text: bytes, number: int, uid: bytes) -> bytes:
    other = f"bench-{number % NAMESPACES}".encode()
    return (
        text.replace(NUMBER.encode(), f"{number:08}".encode())
        .replace(b"bench-0", other)
        .replace(uid, str(uuid.UUID(int=number)).encode())
    )


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
        fill(cluster, options.objects)
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
