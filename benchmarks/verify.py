"""How long verifying a snapshot takes and how much memory, beside `etcdutl snapshot status` in the same run.

    python benchmarks/verify.py [--megabytes 800] [--rounds 5] [--only 1k 4k changed small]
    python benchmarks/verify.py --snapshot FILE… [--rounds 5]

Builds four databases with a real etcd: values of 1 KiB, of 4 KiB, of 1 KiB of which some were overwritten,
deleted and compacted, then overwritten again, and two million of 200 bytes. The programs run in turn, each as a new
process, so that start-up counts for all. What they do differs: etcdutl checks the pages and computes its own
checksum; we check the sha256 trailer, the pages, every record, and compute the sha256 of the object and HashKV. So
there are two ratios: to status alone, and to status with `sha256sum` of the file after it. Beside the time on the clock
there is that of the processors, user and system, which says more on a machine that has other work.
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
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from clusterguard.process import run, spawn, tail
from clusterguard.toolchain import from_environment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterguard.clusters.base import EtcdAccess

VERIFY = """
import sys
from pathlib import Path
from clusterguard.etcd.verification import verify_file
verify_file(Path(sys.argv[1]))
"""
TARGET_MIB = 100
SMALL_RECORDS, SMALL_BYTES = 2_000_000, 200
TRANSACTION_BYTES = 1_000_000


class Member:
    """A member to fill, through its gateway."""

    def __init__(self, connection: http.client.HTTPConnection, *, prefix: str = "/registry/configmaps") -> None:
        self.connection = connection
        self.prefix = prefix

    @classmethod
    def of(cls, access: EtcdAccess, *, prefix: str) -> Self:
        """Return one that runs already, and wants a client certificate."""
        context = ssl.create_default_context(cafile=access.ca)
        context.load_cert_chain(access.cert, access.key)
        host = access.endpoints[0].removeprefix("https://")
        return cls(http.client.HTTPSConnection(host, timeout=120, context=context), prefix=prefix)

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
        return self.put_all((self.key_of(name), os.urandom(value_size)) for name in names)

    def put_all(self, pairs: Iterable[tuple[bytes, bytes]]) -> int:
        puts = [{"requestPut": {"key": b64(key), "value": b64(value)}} for key, value in pairs]
        return int(self.ask("kv/txn", {"success": puts})["header"]["revision"])

    def key_of(self, name: int) -> bytes:
        return f"{self.prefix}/namespace-{name % 97:03}/object-{name:08}".encode()


class Etcd(Member):
    """A member of its own."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.port = free_port()
        super().__init__(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120))
        url, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{free_port()}"
        argv = [program, "--data-dir", folder / "data", "--unsafe-no-fsync", "--log-level", "error"]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url]
        argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        argv += ["--initial-cluster", f"default={peer}", "--quota-backend-bytes", str(16 << 30)]
        argv += ["--max-txn-ops", "10000", "--max-request-bytes", str(10 * TRANSACTION_BYTES)]
        self.child = spawn([str(word) for word in argv], log=folder / "etcd.log")
        for _ in range(200):
            with contextlib.suppress(OSError):
                self.db_size()
                return
            self.connection.close()
            time.sleep(0.05)
        raise SystemExit(tail(folder / "etcd.log"))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fill(etcd: Member, megabytes: int, value_size: int, *, keys: int = 0) -> int:
    """Write keys after the first ``keys`` until the database is that large; return how many there are."""
    per_transaction = max(1, TRANSACTION_BYTES // value_size)
    while etcd.db_size() < megabytes * 1_000_000:
        for _ in range(5):
            etcd.put(list(range(keys, keys + per_transaction)), value_size)
            keys += per_transaction
    return keys


def fill_with(etcd: Etcd, records: int, value_size: int) -> int:
    for first in range(0, records, 5000):
        etcd.put(list(range(first, min(records, first + 5000))), value_size)
    return records


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
            etcd.ask("kv/deleterange", {"key": b64(etcd.key_of(name))})
        etcd.ask("kv/compaction", {"revision": str(revision), "physical": True})
    overwrite(keys // 20)


@dataclass(frozen=True)
class Kind:
    """A database to build, and what of the time of status alone, and of status and sha256sum, we may take."""

    title: str
    value_size: int
    churned: bool = False
    records: int = 0
    of_status: float | None = 1.0
    of_pair: float = 0.6


KINDS = {
    "1k": Kind("values of 1 KiB", 1024),
    "4k": Kind("values of 4 KiB", 4096),
    "changed": Kind("values of 1 KiB, compacted and changed", 1024, churned=True),
    "small": Kind(f"{SMALL_RECORDS:,} of {SMALL_BYTES} bytes", SMALL_BYTES, records=SMALL_RECORDS, of_status=None,
                  of_pair=0.8),
}  # fmt: skip


def build(programs: dict[str, Path], folder: Path, megabytes: int, kind: Kind) -> Path:
    etcd = Etcd(programs["etcd"], folder)
    try:
        if kind.records:
            keys = fill_with(etcd, kind.records, kind.value_size)
        else:
            keys = fill(etcd, megabytes, kind.value_size)
        if kind.churned:
            churn(etcd, keys, kind.value_size)
        path = folder / "snapshot.db"
        endpoint = f"http://127.0.0.1:{etcd.port}"
        run([programs["etcdctl"], "--endpoints", endpoint, "snapshot", "save", path], timeout_seconds=600)
        return path
    finally:
        etcd.child.stop(grace_seconds=10)


@dataclass
class Cost:
    seconds: float
    processor: float
    peak_mib: float = 0


def measure(argv: list[str]) -> Cost:
    began = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv[0]} failed")
    return Cost(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compare(programs: dict[str, Path], path: Path, rounds: int, kind: Kind) -> bool:
    status_argv = [str(programs["etcdutl"]), "snapshot", "status", str(path), "-w", "json"]
    status = json.loads(run(status_argv, timeout_seconds=600).stdout)
    load = os.getloadavg()[0]
    size = path.stat().st_size / 1e6
    print(f"  {size:.0f} MB, {status['totalKey']} keys, load {load:.1f} on {os.cpu_count()} processors", flush=True)
    argvs = {
        "etcdutl snapshot status": status_argv,
        "sha256sum": ["sha256sum", str(path)],
        "clusterguard verify_file": [sys.executable, "-c", VERIFY, str(path)],
    }
    costs: dict[str, list[Cost]] = {name: [] for name in argvs}
    for _ in range(rounds):
        for name, argv in argvs.items():
            costs[name].append(measure(argv))
    for name, each in costs.items():
        times = " ".join(f"{cost.seconds:.2f}" for cost in each)
        processor = " ".join(f"{cost.processor:.2f}" for cost in each)
        peak = max(cost.peak_mib for cost in each)
        print(f"  {name:<25} {times} s; of processors {processor} s; at most {peak:.0f} MiB")
    theirs, digest, ours = costs.values()
    pairs = [
        Cost(one.seconds + two.seconds, one.processor + two.processor) for one, two in zip(theirs, digest, strict=True)
    ]
    peak = max(cost.peak_mib for cost in ours)
    met = [judge("of the pair", ours, pairs, kind.of_pair), judge("of status alone", ours, theirs, kind.of_status)]
    print(f"  {peak:.0f} MiB (target {TARGET_MIB}): {'met' if peak < TARGET_MIB else 'NOT MET'}", flush=True)
    return all(met) and peak < TARGET_MIB


def judge(what: str, ours: list[Cost], theirs: list[Cost], target: float | None) -> bool:
    """Print and judge the median ratio on the clock; that of processor time stands beside it."""
    pairs = list(zip(ours, theirs, strict=True))
    ratio = statistics.median(mine.seconds / other.seconds for mine, other in pairs)
    processor = statistics.median(mine.processor / other.processor for mine, other in pairs)
    met = target is None or ratio <= target
    verdict = "no target" if target is None else f"target {target}: {'met' if met else 'NOT MET'}"
    print(f"  {ratio:.2f} {what}, {processor:.2f} by processor time ({verdict})")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--megabytes", type=int, default=800, help="size of each (default 800; below a few hundred, start-up decides)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of each program (default 5)")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="which databases (default all)")
    parser.add_argument("--snapshot", type=Path, nargs="+", default=[], help="measure these instead of building any")
    parser.add_argument("--folder", type=Path, help="where the databases are built (default: a temporary folder)")
    options = parser.parse_args()
    programs = from_environment(os.environ).ensure("etcd", "etcdctl", "etcdutl")
    met = []
    for path in options.snapshot:
        print(path)
        met.append(compare(programs, path, options.rounds, KINDS["1k"]))
    for kind in [KINDS[name] for name in options.only] if not options.snapshot else []:
        print(kind.title, flush=True)
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="clusterguard-bench-") as folder:
            path = build(programs, Path(folder), options.megabytes, kind)
            met.append(compare(programs, path, options.rounds, kind))
    raise SystemExit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
