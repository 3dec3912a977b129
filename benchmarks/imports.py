"""What importing clusterguard costs, what its plugin adds to a pytest start that has no drills, and how commands start.

    python benchmarks/imports.py [--rounds 20] [--beside ../other/src]

Each figure is the wall time of a whole process, the fastest of all rounds, since anything else that the machine
does can only add to it; the two of a pair run alternately. An interpreter that does nothing
stands beside `import clusterguard`; `pytest --collect-only` of an empty folder with `-p no:clusterguard` stands
beside the same with the plugin.

With `--beside`, three commands run by this version and by the one in the given `src`, alternately, and what is
measured is the processor time of the whole process, the median of all pairs: `--help`, `etcd list` of a folder
without snapshots, and `run --step retain` of a policy with one empty folder, which reads the policy, takes the
lock, and finds nothing to do.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET_MS, TARGET_RATIO = 50, 0.5
COMMANDS = {
    "--help": ["--help"],
    "etcd list": ["etcd", "list", "--store", "./snapshots"],
    "run": ["run", "--step", "retain", "policy.yaml"],
}
POLICY = """
apiVersion: clusterguard.dev/v1alpha1
kind: BackupPolicy
metadata: {name: start}
spec:
  sources: [{name: etcd, etcd: {endpoints: ["http://127.0.0.1:2379"]}}]
  locations: [{name: near, url: "file://%s/near"}]
  retention: {daily: 2}
"""
PAIRS = {
    "import clusterguard": (["-c", "pass"], ["-c", "import clusterguard"]),
    "the pytest plugin": (
        ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:clusterguard"],
        ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
    ),
}


def seconds(argv: list[str], folder: str) -> float:
    began = time.perf_counter()
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    done = subprocess.run([sys.executable, *argv], cwd=folder, env=environment, capture_output=True, check=False)
    if done.returncode not in (0, 5):  # 5 is pytest's "no tests"
        sys.exit(done.stderr.decode() or done.stdout.decode())
    return time.perf_counter() - began


def processor_seconds(argv: list[str], folder: str, source: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(source)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "clusterguard", *argv], cwd=folder, env=environment, capture_output=True, check=False
    )
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def starts(beside: Path, rounds: int) -> bool:
    here = Path(__file__).parents[1] / "src"
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "snapshots").mkdir()
        Path(folder, "policy.yaml").write_text(POLICY % folder)
        for name, argv in COMMANDS.items():
            for source in (here, beside):
                processor_seconds(argv, folder, source)  # so that everything is compiled and read once
            pairs = [
                (processor_seconds(argv, folder, here), processor_seconds(argv, folder, beside)) for _ in range(rounds)
            ]
            ours, theirs = (statistics.median(column) * 1000 for column in zip(*pairs, strict=True))
            ratios.append(statistics.median(mine / other for mine, other in pairs))
            print(f"{name:<20} {ours:6.0f} ms, {theirs:6.0f} ms beside, ratio {ratios[-1]:.2f}", flush=True)
    met = max(ratios) <= TARGET_RATIO
    print(f"load {os.getloadavg()[0]:.1f}, target {TARGET_RATIO}: {'met' if met else 'NOT MET'}")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--beside", type=Path, help="the src of another version, whose commands start beside ours")
    options = parser.parse_args()
    added = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (without, with_it) in PAIRS.items():
            seconds(with_it, folder)  # so that everything is compiled and read once
            rounds = [(seconds(without, folder), seconds(with_it, folder)) for _ in range(options.rounds)]
            base, whole = (min(column) * 1000 for column in zip(*rounds, strict=True))
            added[name] = whole - base
            print(f"{name:<20} {base:6.0f} ms without, {whole:6.0f} ms with, {added[name]:5.1f} ms added", flush=True)
    met = added["the pytest plugin"] < TARGET_MS
    print(f"the plugin adds {added['the pytest plugin']:.0f} ms (target {TARGET_MS}): {'met' if met else 'NOT MET'}")
    if options.beside:
        met = starts(options.beside.absolute(), options.rounds) and met
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
