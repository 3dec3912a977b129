"""A rehearsal of an etcd snapshot beside the raw steps, in the same run.

    python benchmarks/rehearse.py [--objects 200000] [--rounds 2] [--file SNAPSHOT]

The raw steps prove nothing: ``etcdutl snapshot restore``, start etcd, start the API server, ``kubectl get`` of every
kind as JSON, thrown away. A rehearsal verifies the file, reads every object in it, and compares each with what is
served. The snapshot is that of `snapshot_reader.py`. The memory told is our own process's, without the control plane's.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from snapshot_reader import make

from bare_api_server import BareApiServer
from clusterguard import Rehearsal
from clusterguard.toolchain import from_environment

TARGET, MEGABYTES = 1.3, 400


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    programs = from_environment(os.environ).ensure("etcd", "etcdutl", "kube-apiserver", "kubectl")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        file = options.file or Path(scratch) / "snapshot.db"
        if not file.is_file():
            make(file, programs, Path(scratch), options.objects)
        theirs, ours = [], []
        for number in range(options.rounds):
            theirs.append(raw(file, programs, Path(scratch) / f"raw-{number}"))
            ours.append(rehearsed(file))
            print(f"raw steps {theirs[-1]:.1f} s, rehearsal {ours[-1]:.1f} s")
    ratio = min(ours) / min(theirs)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{ratio:.2f} x the raw steps, target {TARGET}; {megabytes:.0f} MiB, target {MEGABYTES}")
    return 0 if ratio <= TARGET and megabytes <= MEGABYTES else 1


def raw(file, programs, folder):
    began = time.perf_counter()
    folder.mkdir()
    restore = [programs["etcdutl"], "snapshot", "restore", file, "--data-dir", folder / "etcd"]
    subprocess.run(restore, check=True, capture_output=True)
    quota = ["--quota-backend-bytes=8589934592", "--force-new-cluster"]
    with BareApiServer(programs, folder, etcd_arguments=quota, everything=False) as server:
        kinds = [
            f"{each['name']}.{group.split('/')[-2]}" if "/" in group.partition("/")[2] else each["name"]
            for group, each in server.resources()
            if "list" in each["verbs"]
        ]
        get = [programs["kubectl"], "--server", server.url, "--token", server.token, "--insecure-skip-tls-verify"]
        get += ["get", ",".join(kinds), "--all-namespaces", "-o", "json"]
        subprocess.run(get, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    taken = time.perf_counter() - began
    shutil.rmtree(folder)
    return taken


def rehearsed(file):
    began = time.perf_counter()
    report = Rehearsal(location=file).run()
    report.raise_for_findings()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
