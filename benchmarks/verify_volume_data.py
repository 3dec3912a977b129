"""How long verifying the data of a volume in the bucket takes, beside `kopia snapshot verify` of the same.

    python benchmarks/verify_volume_data.py [--megabytes 1024] [--rounds 5]

A volume of large and small files is saved by kopia into a real S3 server, as Velero would: in its folder of the bucket
and under its password. Then both read every byte of it alternately, each with an empty cache: kopia with credentials of
its own, straight from the server (connect, and `snapshot verify --verify-files-percent=100`); and ours, through the
gateway, which also lists the snapshots and walks the tree to count what is in it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clusterguard.process import spawn
from clusterguard.sockets import free_ports, listening
from clusterguard.stores.s3 import S3Credentials, S3Store
from clusterguard.toolchain import from_environment
from clusterguard.velero.repository import DEFAULT_PASSWORD
from clusterguard.velero.stored_volumes import StoredVolume
from clusterguard.velero.volume_data import DataCheck, check_volume_data

TARGET_RATIO = 1.2
FOLDER, BUCKET = "kopia/shop/", "velero"
KEYS = S3Credentials(access_key="bench", secret_key="bench-secret")  # noqa: S106 - of a server that goes with this
LARGE, SMALL = 64 << 20, 64 << 10


def write_volume(folder: Path, size: int) -> None:
    """Three quarters in files of 64 MiB, as databases have them, the rest in files of 64 KiB."""
    folder.mkdir()
    for number in range(size * 3 // 4 // LARGE):
        (folder / f"table-{number}").write_bytes(os.urandom(LARGE))
    for number in range(size // 4 // SMALL):
        part = folder / f"part-{number % 64}"
        part.mkdir(exist_ok=True)
        (part / f"file-{number}").write_bytes(os.urandom(SMALL))


class Bench:
    """A server with a repository in it."""

    def __init__(self, kopia: Path, endpoint: str, folder: Path) -> None:
        self.kopia, self.endpoint, self.folder = kopia, endpoint, folder

    def run(self, name: str, *words: str) -> str:
        own = self.folder / name
        env = os.environ | {
            "KOPIA_PASSWORD": DEFAULT_PASSWORD,
            "KOPIA_CONFIG_PATH": str(own / "config"),
            "KOPIA_CACHE_DIRECTORY": str(own / "cache"),
            "KOPIA_LOG_DIR": str(own / "logs"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
            "AWS_ACCESS_KEY_ID": KEYS.access_key,
            "AWS_SECRET_ACCESS_KEY": KEYS.secret_key,
        }
        return subprocess.run(
            [self.kopia, *words], env=env, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ).stdout

    def repository(self, name: str, verb: str, *more: str) -> None:
        host = self.endpoint.removeprefix("http://")
        where = (
            f"--bucket={BUCKET}",
            f"--endpoint={host}",
            f"--prefix={FOLDER}",
            "--region=us-east-1",
            "--disable-tls",
        )
        self.run(name, "repository", verb, "s3", *where, *more)

    def theirs(self, snapshot: str, number: int) -> float:
        began = time.monotonic()
        self.repository(f"theirs-{number}", "connect", "--readonly")
        self.run(f"theirs-{number}", "snapshot", "verify", "--verify-files-percent=100", snapshot)
        return time.monotonic() - began

    def ours(self, volume: StoredVolume) -> float:
        store = S3Store(bucket=BUCKET, endpoint=self.endpoint, region="us-east-1", path_style=True, credentials=KEYS)
        began = time.monotonic()
        found = check_volume_data(store, [volume], DataCheck(program=lambda: self.kopia))
        seconds = time.monotonic() - began
        assert not found.flaws, found.flaws
        assert found.read == volume.size, found
        return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    programs = from_environment(os.environ).ensure("kopia", "versitygw")
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data" / BUCKET).mkdir(parents=True)
        server = spawn(
            [programs["versitygw"], "--port", f"127.0.0.1:{port}", "--quiet", "posix", folder / "data"],
            log=folder / "versitygw.log",
            env={"ROOT_ACCESS_KEY": KEYS.access_key, "ROOT_SECRET_KEY": KEYS.secret_key},
        )
        try:
            while listening(port):
                time.sleep(0.05)
            return measure(Bench(programs["kopia"], f"http://127.0.0.1:{port}", folder), options)
        finally:
            server.stop(grace_seconds=10)


def measure(bench: Bench, options: argparse.Namespace) -> int:
    write_volume(bench.folder / "volume", options.megabytes << 20)
    bench.repository("writer", "create", "--override-hostname=default", "--override-username=default")
    told = json.loads(bench.run("writer", "snapshot", "create", str(bench.folder / "volume"), "--json"))
    size = told["rootEntry"]["summ"]["size"]
    volume = StoredVolume(name="shop/data", repository=FOLDER, uploader="kopia", snapshot=told["id"], size=size)
    print(f"{size >> 20} MiB in {told['rootEntry']['summ']['files']} files, {os.cpu_count()} cores")
    times: dict[str, list[float]] = {"kopia snapshot verify": [], "check_volume_data": []}
    for number in range(options.rounds):
        times["kopia snapshot verify"].append(bench.theirs(told["id"], number))
        times["check_volume_data"].append(bench.ours(volume))
    for what, seconds in times.items():
        print(f"{what:24} {statistics.median(seconds):7.2f} s   {' '.join(f'{each:.2f}' for each in seconds)}")
    ratio = statistics.median(times["check_volume_data"]) / statistics.median(times["kopia snapshot verify"])
    print(f"ratio {ratio:.2f}, target {TARGET_RATIO}")
    return int(ratio > TARGET_RATIO)


if __name__ == "__main__":
    sys.exit(main())
