"""Where the time of a Velero restore goes: requests for each object, and processor time of each program.

    python benchmarks/velero_requests.py --objects 1000
    python benchmarks/velero_requests.py --objects 1000 --qps 100      # the server's own default
    python benchmarks/velero_requests.py --objects 1000 --settle 0     # restore right after the deletion

No comparison and no target: it says what bounds the rate that `velero.py` measures. The counts come from the API
server's own metrics, the processor times from the kernel.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import velero as benchmark

from clusterguard.clusters import EmbeddedCluster
from clusterguard.clusters.embedded import commands
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.toolchain import from_environment

REQUESTS = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
MOST_SHOWN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--qps", type=int, help="of the Velero server; by default what embedded clusters use")
    parser.add_argument("--settle", type=float, default=32, help="seconds between the deletion and the restore")
    asked = parser.parse_args()
    if asked.qps is not None:
        use_qps(asked.qps)
    toolchain = from_environment(os.environ)
    programs = toolchain.ensure("velero", "versitygw")
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedCluster(toolchain=toolchain) as cluster,
        LocalS3Server(program=programs["versitygw"], folder=Path(folder)) as s3,
    ):
        client = benchmark.prepared(cluster, s3, programs["velero"])
        benchmark.fill(cluster.api, asked.objects)
        benchmark.back_up(client, [], "measured", ours=True)
        benchmark.lose(cluster.api)
        # For half a minute after a namespace was deleted the API server looks it up anew for every write in it.
        time.sleep(asked.settle)
        measure(cluster, client, asked.objects)


def use_qps(qps):
    usual = commands._velero  # noqa: SLF001 - to measure settings that the product does not offer

    def changed(layout, ports):
        kept = [each for each in usual(layout, ports) if not each.startswith(("--client-qps", "--client-burst"))]
        return [*kept, f"--client-qps={qps}", f"--client-burst={qps}"]

    commands._velero = changed  # noqa: SLF001 - likewise


def measure(cluster, client, objects):
    requests, processor = requests_so_far(cluster.api), processor_so_far()
    seconds = benchmark.timed(benchmark.restore, client, [], "measured", True)
    processor_after, requests_after = processor_so_far(), requests_so_far(cluster.api)
    print(f"restored {objects} objects in {seconds:.1f} s: {objects / seconds:.0f} a second, ", end="")
    print(f"{seconds / objects * 1000:.1f} ms each")
    print("processor time for each object")
    for name, spent in (processor_after - processor).most_common():
        print(f"  {name:26} {spent / objects * 1000:6.2f} ms")
    print("requests for each object")
    for (verb, resource), number in (requests_after - requests).most_common(MOST_SHOWN):
        print(f"  {verb:8} {resource:18} {number / objects:6.2f}")


def requests_so_far(api):
    found = Counter()
    for labels, number in REQUESTS.findall(api.request("GET", "/metrics").body.decode()):
        named = dict(LABEL.findall(labels))
        found[named["verb"], named["resource"]] += float(number)
    return found


def processor_so_far():
    found = Counter()
    for child in psutil.Process().children(recursive=True):
        spent = child.cpu_times()
        found[child.name()] += spent.user + spent.system
    return found


if __name__ == "__main__":
    main()
