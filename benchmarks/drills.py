"""How long an embedded cluster takes to be ready, and the drills that both versions have, beside another version.

    python benchmarks/drills.py --beside ../other [--rounds 3] [-k EXPRESSION] [--workers N] [--ready-only]

`--beside` is another checkout, whose drills run one after the other; ours do so, too, or N at once. The two run
alternately, each with its own drills, and only files that both have are run. What is measured is the time on the
clock, since much of it is waiting; the processor time of all that the run started stands beside it, which other work
on the machine changes less.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

TARGET_RATIO = 0.5
HERE = Path(__file__).parents[1]
READY = """
import os, time
from clusterguard.clusters import EmbeddedCluster
from clusterguard.toolchain import from_environment
tools = from_environment(os.environ)
tools.ensure("etcd", "etcdctl", "etcdutl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
began = time.perf_counter()
with EmbeddedCluster(toolchain=tools):
    print("ready", time.perf_counter() - began)
"""


def measured(argv: list[str], checkout: Path) -> tuple[float, float, str]:
    """Return the seconds on the clock and of the processor that `argv` took in `checkout`, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "PYTEST_ADDOPTS": ""}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *argv], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    elapsed, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(done.stdout[-5000:] + done.stderr[-5000:])
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def ready(checkout: Path) -> tuple[float, float]:
    _, processor, said = measured(["-c", READY], checkout)
    return float(said.split("ready")[-1]), processor


def drills(checkout: Path, files: list[str], chosen: str, workers: int) -> tuple[float, float]:
    options = ["-k", chosen] if chosen else []
    if checkout == HERE and workers > 1:
        options += ["-n", str(workers)]
    elapsed, processor, said = measured(["-m", "pytest", "-q", *options, *files], checkout)
    print(f"  {checkout.name}: {said.strip().splitlines()[-1]}", flush=True)
    return elapsed, processor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-k", dest="chosen", default="", help="which drills, as pytest's")
    parser.add_argument("--workers", type=int, default=1, help="how many drills of ours at once (default 1)")
    parser.add_argument("--ready-only", action="store_true", help="no drills, only a cluster to ready")
    options = parser.parse_args()
    beside = options.beside.resolve()
    ours = {file.name for file in (HERE / "drills").glob("*.yaml")}
    files = sorted(f"drills/{file.name}" for file in (beside / "drills").glob("*.yaml") if file.name in ours)
    measures = {"cluster to ready": ready}
    if not options.ready_only:
        measures["drills"] = lambda checkout: drills(checkout, files, options.chosen, options.workers)
    met = True
    for name, measure in measures.items():
        pairs = [(measure(HERE), measure(beside)) for _ in range(options.rounds)]
        for n, what in enumerate(("on the clock", "of the processor")):
            mine, other = ([each[n] for each in column] for column in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
            print(
                f"{name}, seconds {what}: {statistics.median(mine):.1f}, {statistics.median(other):.1f} beside, "
                f"ratio {ratio:.2f}",
                flush=True,
            )
            met &= n > 0 or ratio <= TARGET_RATIO
    print(f"load {os.getloadavg()[0]:.1f}, target {TARGET_RATIO}: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
