"""How long it takes to save a snapshot compressed, encrypted and in two places, beside the stock programs in a row.

    python benchmarks/encrypted_save.py [--megabytes 100 800] [--runs 5]

Fills a member that wants client certificates with what looks like Kubernetes objects (JSON of names, labels and text,
with random bytes in each for what does not compress, such as keys and certificates; zstd makes half of it). Then, in
turn, each time as new processes:

- `etcdctl snapshot save FILE`, and `zstd < FILE | age -r RECIPIENT > FILE.zst.age` after it: one encrypted copy, and
  a plain one beside it;
- `EtcdSnapshotter.save` into `EncryptedStore(ReplicatedStore(…))` of two directories: two encrypted copies and
  their records;
- the same into two buckets of a versitygw on this machine, which takes its share of the same processors.

Both start-ups count. At the end a copy is opened by `age -d | zstd -d` and must have the digest that etcd's stream had.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from save import TRANSACTION_BYTES, Etcd, b64

from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.process import run
from clusterguard.toolchain import from_environment

OURS = """
import json, os, sys, time
from pathlib import Path
from clusterguard.clusters.base import EtcdAccess
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import ReplicatedStore, open_store
from clusterguard.stores.encryption import Encryption, EncryptedStore
endpoint, ca, cert, key, scratch, recipient, *places = sys.argv[1:]
access = EtcdAccess(endpoints=(endpoint,), ca=Path(ca), cert=Path(cert), key=Path(key))
copies = ReplicatedStore({place: open_store(place) for place in places}, minimum=len(places))
store = EncryptedStore(copies, Encryption(recipients=(recipient,)))
began = time.perf_counter()
EtcdSnapshotter(store=store, access=access, scratch=Path(scratch)).save("snapshot")
seconds = time.perf_counter() - began
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"inner": seconds, "mib": peak / 1024}))
"""
TARGET_RATIO, TARGET_MIB = 1.3, 150


@dataclass(frozen=True)
class Run:
    seconds: float
    mib: float = 0
    inner: float = 0
    cpu: float = 0


def fill(etcd: Etcd, megabytes: int) -> int:
    """Write what looks like Kubernetes objects until the database is that large; return how many."""
    chance = random.Random(6)  # noqa: S311 - the same objects every time, nothing secret
    words = [f"{chance.choice(['web', 'db', 'job', 'cache', 'api'])}-{chance.getrandbits(20):x}" for _ in range(3000)]
    count = 0
    while etcd.db_size() < megabytes * 1_000_000:
        for _ in range(5):
            puts, size = [], 0
            while size < TRANSACTION_BYTES // 4:
                key, value = f"/registry/configmaps/ns/{count:08}", json.dumps(kubernetes_object(chance, words, count))
                puts.append({"requestPut": {"key": b64(key.encode()), "value": b64(value.encode())}})
                size += len(value)
                count += 1
            etcd.ask("kv/txn", {"success": puts})
    return count


def kubernetes_object(chance: random.Random, words: list[str], number: int) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"{chance.choice(words)}-{number}",
            "namespace": chance.choice(words),
            "uid": f"{chance.getrandbits(128):032x}",
            "labels": {"app": chance.choice(words), "tier": chance.choice(words)},
        },
        "data": {"text": " ".join(chance.choices(words, k=200)), "certificate": b64(chance.randbytes(1200))},
    }


def reference(programs: dict[str, Path], etcd: Etcd, recipient: str, target: Path) -> Run:
    """Save, compress and encrypt by the stock programs."""
    os.sync()  # what others wrote before it would be flushed beside it, here and below
    began, busy = time.perf_counter(), processor_seconds()
    flags = [f"--endpoints={etcd.endpoint}", f"--cacert={etcd.ca}", f"--cert={etcd.cert}", f"--key={etcd.key}"]
    subprocess.run([programs["etcdctl"], *flags, "snapshot", "save", target], check=True, capture_output=True)
    with target.open("rb") as plain, Path(f"{target}.zst.age").open("wb") as encrypted:
        zstd = subprocess.Popen(["zstd", "-q", "-c"], stdin=plain, stdout=subprocess.PIPE)
        subprocess.run([programs["age"], "-r", recipient], stdin=zstd.stdout, stdout=encrypted, check=True)
        assert zstd.wait() == 0
    return Run(seconds=time.perf_counter() - began, cpu=processor_seconds() - busy)


def processor_seconds() -> float:
    """Return what the processes that this one waited for have used; what servers did for them is not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ours(etcd: Etcd, scratch: Path, recipient: str, places: list[str], environment: dict[str, str]) -> Run:
    argv = [sys.executable, "-c", OURS, etcd.endpoint, *map(str, (etcd.ca, etcd.cert, etcd.key, scratch)), recipient]
    os.sync()
    began, busy = time.perf_counter(), processor_seconds()
    done = subprocess.run(
        [*argv, *places], check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    seconds, cpu = time.perf_counter() - began, processor_seconds() - busy
    return Run(seconds=seconds, cpu=cpu, **json.loads(done.stdout))


def opened(programs: dict[str, Path], encrypted: Path, identity: Path) -> str:
    """Return the digest of what the stock programs make of one of our copies."""
    age = subprocess.Popen([programs["age"], "-d", "-i", identity, encrypted], stdout=subprocess.PIPE)
    zstd = subprocess.Popen(["zstd", "-q", "-d", "-c"], stdin=age.stdout, stdout=subprocess.PIPE)
    assert zstd.stdout is not None
    digest = hashlib.sha256()
    while piece := zstd.stdout.read(1 << 20):
        digest.update(piece)
    assert age.wait() == zstd.wait() == 0
    return digest.hexdigest()


def show(name: str, runs: list[Run]) -> None:
    times = " ".join(f"{each.seconds:6.2f}" for each in runs)
    median = statistics.median(each.seconds for each in runs)
    processor = statistics.median(each.cpu for each in runs)
    print(f"  {name:<26} {times}  median {median:.2f} s, {processor:.1f} s of processor")


def compare(megabytes: int, runs: int, programs: dict[str, Path], folder: Path) -> bool:
    identity = folder / "identity"
    run([programs["age-keygen"], "-o", identity], timeout_seconds=10)
    recipient = run([programs["age-keygen"], "-y", identity], timeout_seconds=10).stdout.strip()
    theirs, to_directories, to_buckets = [], [], []
    etcd = Etcd(programs["etcd"], folder)
    try:
        keys = fill(etcd, megabytes)
        with LocalS3Server(program=programs["versitygw"], folder=folder / "s3") as server:
            environment = {
                "AWS_ACCESS_KEY_ID": server.credentials.access_key,
                "AWS_SECRET_ACCESS_KEY": server.credentials.secret_key,
            }
            reference(programs, etcd, recipient, folder / "warm-up.db")
            size, encrypted_size = (
                (folder / "warm-up.db").stat().st_size,
                (folder / "warm-up.db.zst.age").stat().st_size,
            )
            for number in range(runs):
                target, stores = folder / "theirs.db", folder / "stores"
                shutil.rmtree(stores, ignore_errors=True)
                places = [str(stores / "near"), str(stores / "far")]
                buckets = [f"near-{number}", f"far-{number}"]
                for bucket in buckets:
                    server.create_bucket(bucket)
                theirs.append(reference(programs, etcd, recipient, target))
                to_directories.append(ours(etcd, folder, recipient, places, {}))
                urls = [server.store(bucket).url for bucket in buckets]
                to_buckets.append(ours(etcd, folder, recipient, urls, environment))
                target.unlink()
            record = json.loads((stores / "far" / "snapshot.json").read_text())
            if opened(programs, stores / "far" / "snapshot.db.zst.age", identity) != record["sha256"]:
                sys.exit("what the stock programs open is not what etcd sent")
    finally:
        etcd.process.stop(grace_seconds=0)
    load = os.getloadavg()[0]
    print(
        f"{size / 1e6:.0f} MB, {keys:,} keys, encrypted {encrypted_size / 1e6:.0f} MB, {runs} rounds, whole processes,"
        f" load {load:.1f} on {os.cpu_count()} processors"
    )
    show("etcdctl, then zstd | age", theirs)
    return all(
        [
            judge("to two directories", to_directories, theirs),
            judge("to two buckets", to_buckets, theirs),
        ]
    )


def judge(name: str, mine: list[Run], theirs: list[Run]) -> bool:
    show(name, mine)
    ratio = statistics.median(own.seconds / other.seconds for own, other in zip(mine, theirs, strict=True))
    inner = statistics.median(own.inner / other.seconds for own, other in zip(mine, theirs, strict=True))
    peak = max(each.mib for each in mine)
    met = ratio <= TARGET_RATIO and peak < TARGET_MIB
    print(f"    ratio {ratio:.2f} (target {TARGET_RATIO}), {inner:.2f} without start-up")
    print(f"    peak {peak:.0f} MiB (target {TARGET_MIB}): {'met' if met else 'NOT MET'}")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 800], help="sizes of the database")
    parser.add_argument("--runs", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--folder", type=Path, help="where everything is written (default: a temporary folder)")
    options = parser.parse_args()
    if shutil.which("zstd") is None:
        sys.exit("zstd is not on PATH: the reference needs it (Debian: apt-get install zstd)")
    programs = from_environment(os.environ).ensure("etcd", "etcdctl", "age", "age-keygen", "versitygw")
    met = []
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="clusterguard-bench-") as scratch:
            met.append(compare(megabytes, options.runs, programs, Path(scratch)))
    raise SystemExit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
