"""How long saving a snapshot takes and how much memory, beside `etcdctl snapshot save` in the same run.

    python benchmarks/save.py [--megabytes 800] [--runs 5]

Fills a member that wants client certificates through its gateway. Then both programs run alternately, each a new
process that writes a new file and flushes it to the disk; the time is that of the whole process, so that start-up
counts for both. What they do differs: etcdctl writes what comes; we also compute the sha256 and compare it with
etcd's trailer, read the revision from the file, ask etcd for the number of keys and HashKV at that revision, and
write a record. Further lines tell how much of our time is Python's start and imports, and that of the save itself,
and how long it takes to receive the same stream and throw it away, which is the limit.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from clusterguard.clusters.certificates import Authority
from clusterguard.process import run, spawn, tail
from clusterguard.toolchain import from_environment

OURS = """
import sys, time
from pathlib import Path
from clusterguard.clusters.base import EtcdAccess
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd import member, mvcc, verification
from clusterguard.stores import LocalStore
endpoint, ca, cert, key, store = sys.argv[1:6]
access = EtcdAccess(endpoints=(endpoint,), ca=Path(ca), cert=Path(cert), key=Path(key))
snapshotter = EtcdSnapshotter(store=LocalStore(store), access=access)
if sys.argv[6:] != ["only-start"]:
    began = time.perf_counter()
    snapshotter.save("snapshot")
    print(time.perf_counter() - began)
"""
# The limit: whoever wants the bytes must receive them. The curl program takes as long as this.
DISCARD = """
import sys
import pycurl
endpoint, ca, cert, key = sys.argv[1:5]
curl = pycurl.Curl()
curl.setopt(pycurl.URL, endpoint + "/etcdserverpb.Maintenance/Snapshot")
curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
curl.setopt(pycurl.POSTFIELDS, bytes(5))
curl.setopt(pycurl.POSTFIELDSIZE, 5)
curl.setopt(pycurl.HTTPHEADER, ["content-type: application/grpc", "te: trailers"])
curl.setopt(pycurl.BUFFERSIZE, 512 * 1024)
curl.setopt(pycurl.CAINFO, ca)
curl.setopt(pycurl.SSLCERT, cert)
curl.setopt(pycurl.SSLKEY, key)
curl.setopt(pycurl.WRITEFUNCTION, len)
curl.perform()
"""
TARGET_RATIO, TARGET_MIB = 1.1, 100
LIMIT = "stream thrown away"
TRANSACTION_BYTES = 1_000_000


@dataclass
class Run:
    seconds: float
    mib: float
    inner: float
    cpu: float  # seconds of processor time of the client alone, not of the member


class Etcd:
    """A member with TLS, filled through its gateway."""

    def __init__(self, program: Path, folder: Path) -> None:
        authority = Authority("etcd-ca", folder=folder)
        server_cert, server_key = authority.issue("server", common_name="etcd")
        self.ca = authority.file
        self.cert, self.key = authority.issue("client", common_name="benchmark")
        self.port, peer = free_port(), f"http://127.0.0.1:{free_port()}"
        self.endpoint = f"https://127.0.0.1:{self.port}"
        argv = [program, f"--data-dir={folder / 'data'}", "--unsafe-no-fsync", "--log-level=error"]
        argv += [f"--listen-client-urls={self.endpoint}", f"--advertise-client-urls={self.endpoint}"]
        argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        argv += [f"--initial-cluster=default={peer}", f"--quota-backend-bytes={16 << 30}"]
        argv += [f"--cert-file={server_cert}", f"--key-file={server_key}"]
        argv += [f"--trusted-ca-file={self.ca}", "--client-cert-auth", f"--max-request-bytes={10 * TRANSACTION_BYTES}"]
        self.log = folder / "etcd.log"
        self.process = spawn(argv, log=self.log)
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.cert, self.key)
        self.connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=120, context=context)
        for _ in range(200):
            with contextlib.suppress(OSError):
                self.db_size()
                return
            self.connection.close()
            time.sleep(0.05)
        sys.exit(tail(self.log))

    def ask(self, path: str, body: dict) -> dict:
        self.connection.request("POST", f"/v3/{path}", json.dumps(body))
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            sys.exit(f"etcd: {answer}")
        return answer

    def db_size(self) -> int:
        return int(self.ask("maintenance/status", {}).get("dbSize", 0))

    def fill(self, megabytes: int, value_size: int) -> int:
        """Write keys of random bytes until the database is that large; return how many."""
        keys, per_transaction = 0, max(1, min(100, TRANSACTION_BYTES // value_size))
        while (size := self.db_size()) < megabytes * 1_000_000:
            for _ in range(5):
                names = [f"/registry/configmaps/default/object-{keys + each:08}" for each in range(per_transaction)]
                puts = [
                    {"requestPut": {"key": b64(name.encode()), "value": b64(os.urandom(value_size))}} for name in names
                ]
                self.ask("kv/txn", {"success": puts})
                keys += per_transaction
            if sys.stdout.isatty():
                print(f"\rfilling: {size / 1e6:.0f} of {megabytes} MB", end="", flush=True)
        if sys.stdout.isatty():
            print()
        return keys


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(argv: list[str]) -> Run:
    os.sync()  # what others wrote before it would be flushed beside it
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{argv[0]} failed with exit code {process.returncode}")
    inner = float(said) if said.replace(".", "").strip().isdigit() else 0.0
    return Run(seconds=seconds, mib=usage.ru_maxrss / 1024, inner=inner, cpu=usage.ru_utime + usage.ru_stime)


def show(name: str, runs: list[Run]) -> None:
    times = " ".join(f"{each.seconds:5.2f}" for each in runs)
    median = statistics.median(each.seconds for each in runs)
    cpu = statistics.median(each.cpu for each in runs)
    print(
        f"  {name:<24} {times}  median {median:.2f} s, {cpu:.2f} s of processor,"
        f" at most {max(each.mib for each in runs):.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=800, help="size of the database (default 800)")
    parser.add_argument("--value-bytes", type=int, default=4096, help="size of each value (default 4096)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each program (default 5)")
    parser.add_argument("--folder", type=Path, help="where everything is written (default: a temporary folder)")
    options = parser.parse_args()
    programs = from_environment(os.environ).ensure("etcd", "etcdctl")
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="clusterguard-bench-") as scratch:
        folder = Path(scratch)
        etcd = Etcd(programs["etcd"], folder)
        try:
            keys = etcd.fill(options.megabytes, options.value_bytes)
            flags = [f"--endpoints={etcd.endpoint}", f"--cacert={etcd.ca}", f"--cert={etcd.cert}", f"--key={etcd.key}"]
            target, store = folder / "etcdctl.db", folder / "store"
            theirs = [str(programs["etcdctl"]), *flags, "snapshot", "save", str(target)]
            ours = [sys.executable, "-c", OURS, etcd.endpoint, *map(str, (etcd.ca, etcd.cert, etcd.key, store))]
            discard = [sys.executable, "-c", DISCARD, *ours[3:7]]
            run(theirs, timeout_seconds=600)  # so that neither is the first to read the file
            size = target.stat().st_size
            runs: dict[str, list[Run]] = {
                "etcdctl snapshot save": [],
                "EtcdSnapshotter.save": [],
                "Python's start": [],
                LIMIT: [],
            }
            for _ in range(options.runs):
                target.unlink()
                runs["etcdctl snapshot save"].append(measure(theirs))
                shutil.rmtree(store, ignore_errors=True)
                runs["EtcdSnapshotter.save"].append(measure(ours))
                runs["Python's start"].append(measure([*ours, "only-start"]))
                runs[LIMIT].append(measure(discard))
        finally:
            etcd.process.stop(grace_seconds=0)
    print(
        f"{size / 1e6:.0f} MB, {keys:,} keys of {options.value_bytes} bytes, {options.runs} runs, whole processes,"
        f" load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    for name, each in runs.items():
        show(name, each)
    pairs = list(zip(runs["EtcdSnapshotter.save"], runs["etcdctl snapshot save"], strict=True))
    ratio = statistics.median(mine.seconds / other.seconds for mine, other in pairs)
    inner = statistics.median(mine.inner / other.seconds for mine, other in pairs)
    limit = statistics.median(
        mine.seconds / other.seconds for mine, other in zip(runs["EtcdSnapshotter.save"], runs[LIMIT], strict=True)
    )
    print(f"  ratio {limit:.2f} to the stream thrown away (target {TARGET_RATIO})")
    peak = max(mine.mib for mine, _ in pairs)
    met = max(ratio, limit) <= TARGET_RATIO and peak < TARGET_MIB
    print(f"  ratio {ratio:.2f} with Python's start (target {TARGET_RATIO}), {inner:.2f} without")
    print(f"  peak {peak:.0f} MiB (target {TARGET_MIB})")
    print("  every target is met" if met else "  a target is NOT MET")
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
