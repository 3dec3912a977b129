"""How long verifying a snapshot takes and how much memory, beside `etcdutl snapshot status` in the same run.

    python benchmarks/verify.py [--megabytes 800] [--rounds 5]

Builds three databases with a real etcd: values of 1 KiB, values of 4 KiB, and values of 1 KiB of which some
were overwritten, deleted and compacted, then overwritten again. Both programs run alternately, each as a new
process, so that start-up counts for both. What they do differs: etcdutl checks the pages and computes its own
checksum; we check the sha256 trailer, the pages, and compute the sha256 of the object and HashKV.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from clusterguard.process import run, spawn, tail
from clusterguard.toolchain import from_environment

VERIFY = """
import sys
from pathlib import Path
from clusterguard.etcd.verification import verify_file
verify_file(Path(sys.argv[1]))
"""
TARGET_RATIO, TARGET_MIB = 1.5, 250
TRANSACTION_BYTES = 1_000_000


class Etcd:
    """A member to fill."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.port = free_port()
        url, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{free_port()}"
        argv = [program, "--data-dir", folder / "data", "--unsafe-no-fsync", "--log-level", "error"]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url]
        argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        argv += ["--initial-cluster", f"default={peer}", "--quota-backend-bytes", str(16 << 30)]
        argv += ["--max-txn-ops", "10000", "--max-request-bytes", str(10 * TRANSACTION_BYTES)]
        self.child = spawn([str(word) for word in argv], log=folder / "etcd.log")
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        for _ in range(200):
            with contextlib.suppress(OSError):
                self.db_size()
                return
            self.connection.close()
            time.sleep(0.05)
        raise SystemExit(tail(folder / "etcd.log"))

    def ask(self, path: str, body: dict[str, object]) -> dict:
        self.connection.request("POST", f"/v3/{path}", json.dumps(body))
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise SystemExit(f"etcd: {answer}")
        return answer

    def db_size(self) -> int:
        return int(self.ask("maintenance/status", {}).get("dbSize", 0))

    def put(self, names: list[int], value_size: int) -> int:
        puts = [
            {"requestPut": {"key": key_of(name), "value": base64.b64encode(os.urandom(value_size)).decode()}}
            for name in names
        ]
        return int(self.ask("kv/txn", {"success": puts})["header"]["revision"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def key_of(name: int) -> str:
    return base64.b64encode(f"/registry/configmaps/namespace-{name % 97:03}/object-{name:08}".encode()).decode()


def fill(etcd: Etcd, megabytes: int, value_size: int) -> int:
    per_transaction, keys = max(1, TRANSACTION_BYTES // value_size), 0
    while etcd.db_size() < megabytes * 1_000_000:
        for _ in range(5):
            etcd.put(list(range(keys, keys + per_transaction)), value_size)
            keys += per_transaction
    return keys


def churn(etcd: Etcd, keys: int, value_size: int) -> None:
    """Leave holes in the file, and records that supersede compacted ones."""
    chance = random.Random(1)  # noqa: S311 - the same holes every time
    per_transaction = max(1, TRANSACTION_BYTES // value_size)

    def overwrite(count: int) -> int:
        names = chance.sample(range(keys), count)
        for at in range(0, count, per_transaction):
            revision = etcd.put(names[at : at + per_transaction], value_size)
        return revision

    for round_ in range(3):
        revision = overwrite(keys // 10)
        for name in range(round_, keys, 100):
            etcd.ask("kv/deleterange", {"key": key_of(name)})
        etcd.ask("kv/compaction", {"revision": str(revision), "physical": True})
    overwrite(keys // 20)


def build(programs: dict[str, Path], folder: Path, megabytes: int, value_size: int, *, churned: bool) -> Path:
    etcd = Etcd(programs["etcd"], folder)
    try:
        keys = fill(etcd, megabytes, value_size)
        if churned:
            churn(etcd, keys, value_size)
        path = folder / "snapshot.db"
        endpoint = f"http://127.0.0.1:{etcd.port}"
        run([programs["etcdctl"], "--endpoints", endpoint, "snapshot", "save", path], timeout_seconds=600)
        return path
    finally:
        etcd.child.stop(grace_seconds=10)


@dataclass
class Cost:
    seconds: float
    peak_mib: float


def measure(argv: list[str]) -> Cost:
    began = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv[0]} failed")
    return Cost(time.monotonic() - began, usage.ru_maxrss / 1024)


def compare(programs: dict[str, Path], path: Path, rounds: int) -> bool:
    theirs_argv = [str(programs["etcdutl"]), "snapshot", "status", str(path), "-w", "json"]
    status = json.loads(run(theirs_argv, timeout_seconds=600).stdout)
    print(f"  {path.stat().st_size / 1e6:.0f} MB, {status['totalKey']} keys", flush=True)
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(measure(theirs_argv))
        ours.append(measure([sys.executable, "-c", VERIFY, str(path)]))
    for name, costs in (("etcdutl snapshot status", theirs), ("clusterguard verify_file", ours)):
        times = " ".join(f"{cost.seconds:.2f}" for cost in costs)
        print(f"  {name:<25} {times} s, at most {max(cost.peak_mib for cost in costs):.0f} MiB")
    ratio = statistics.median(mine.seconds / other.seconds for mine, other in zip(ours, theirs, strict=True))
    peak = max(cost.peak_mib for cost in ours)
    met = ratio <= TARGET_RATIO and peak <= TARGET_MIB
    print(f"  median ratio {ratio:.2f} (target {TARGET_RATIO}), {peak:.0f} MiB (target {TARGET_MIB}): ", end="")
    print("met" if met else "NOT MET", flush=True)
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--megabytes", type=int, default=800, help="size of each (default 800; below a few hundred, start-up decides)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of each program (default 5)")
    parser.add_argument("--folder", type=Path, help="where the databases are built (default: a temporary folder)")
    options = parser.parse_args()
    programs = from_environment(os.environ).ensure("etcd", "etcdctl", "etcdutl")
    met = []
    for value_size, churned in ((1024, False), (4096, False), (1024, True)):
        print(f"values of {value_size} bytes{', compacted and changed' if churned else ''}", flush=True)
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="clusterguard-bench-") as folder:
            path = build(programs, Path(folder), options.megabytes, value_size, churned=churned)
            met.append(compare(programs, path, options.rounds))
    raise SystemExit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
