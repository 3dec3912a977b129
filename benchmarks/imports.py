"""What importing clusterguard costs, and what its plugin adds to a pytest start that has no drills.

    python benchmarks/imports.py [--rounds 20]

Each figure is the wall time of a whole process, the fastest of all rounds, since anything else that the machine
does can only add to it; the two of a pair run alternately. An interpreter that does nothing
stands beside `import clusterguard`; `pytest --collect-only` of an empty folder with `-p no:clusterguard` stands
beside the same with the plugin.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

TARGET_MS = 50
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
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
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
