"""How long a Velero backup and restore take through VeleroClient, beside `velero … --wait` in the same run.

    python benchmarks/velero.py --objects 1000 --runs 3

An embedded cluster, a Velero server beside it and a throwaway S3 server are started; half of the objects are
ConfigMaps, half Secrets, about 1 KB each. Both ways ask the same server for the same work, in turn, so the ratio
shows what the client adds: how soon it asks, and how soon it sees the end.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clusterguard.clusters import EmbeddedCluster
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.errors import ResourceNotFoundError
from clusterguard.toolchain import from_environment
from clusterguard.velero.client import VeleroClient
from clusterguard.velero.install import InstallOptions, install
from clusterguard.velero.locations import LocationSpec
from clusterguard.velero.options import BackupOptions

NAMESPACE, BUCKET, LOCATION = "shop", "benchmark", "benchmark"
TARGET = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    toolchain = from_environment(os.environ)
    programs = toolchain.ensure("velero", "versitygw")
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedCluster(toolchain=toolchain) as cluster,
        LocalS3Server(program=programs["versitygw"], folder=Path(folder)) as s3,
    ):
        client = prepared(cluster, s3, programs["velero"])
        fill(cluster.api, asked.objects)
        compare(cluster, client, programs["velero"], asked)


def prepared(cluster, s3, velero):
    s3.create_bucket(BUCKET)
    client = VeleroClient(api=cluster.api)
    install(InstallOptions(replicas=0), api=cluster.api, velero=velero)
    cluster.velero_server.start()
    config = {"region": s3.region, "s3ForcePathStyle": "true", "s3Url": s3.endpoint}
    client.locations.create(
        LOCATION, LocationSpec(bucket=BUCKET, config=config, credentials=s3.credentials_file(), default=True)
    )
    return client


def fill(api, objects):
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})

    def create(number):
        text = secrets.token_hex(500)
        kind, data = ("ConfigMap", text) if number % 2 else ("Secret", base64.b64encode(text.encode()).decode())
        metadata = {"name": f"object-{number:06d}", "namespace": NAMESPACE}
        api.create({"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": {"text": data}})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(objects)))


def compare(cluster, client, velero, asked):
    program = [str(velero), "--kubeconfig", str(cluster.kubeconfig)]
    times = {"backup": ([], []), "restore": ([], [])}
    for run in range(asked.runs):
        for ours in (True, False):
            name = f"{'ours' if ours else 'theirs'}-{run}"
            times["backup"][ours].append(timed(back_up, client, program, name, ours))
            lose(cluster.api)
            times["restore"][ours].append(timed(restore, client, program, name, ours))
    print(f"{asked.objects} objects, {asked.runs} runs in turn")
    met = True
    for what, (theirs, ours) in times.items():
        ratio = statistics.median(ours) / statistics.median(theirs)
        met = met and ratio <= TARGET
        print(f"  velero {what} --wait   {told(theirs)}")
        print(f"  VeleroClient {what:9} {told(ours)}   ratio {ratio:.2f} (target {TARGET})")
    rate = asked.objects / statistics.median(times["restore"][True])
    print(f"  restored {rate:.0f} objects a second")
    sys.exit(0 if met else 1)


def back_up(client, program, name, ours):
    if ours:
        client.back_up(name, BackupOptions(included_namespaces=(NAMESPACE,)))
    else:
        call([*program, "backup", "create", name, "--include-namespaces", NAMESPACE, "--wait"])


def restore(client, program, name, ours):
    if ours:
        client.restore(name, name=name)
    else:
        call([*program, "restore", "create", name, "--from-backup", name, "--wait"])


def lose(api):
    resource = api.resource("Namespace")
    api.delete(resource, NAMESPACE)
    while True:
        try:
            api.get(resource, NAMESPACE)
        except ResourceNotFoundError:
            return
        time.sleep(0.1)


def call(argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    if "with status: Completed" not in done.stdout:
        raise SystemExit(done.stdout)


def timed(act, *arguments):
    began = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - began


def told(times):
    return "  ".join(f"{seconds:6.2f}" for seconds in times) + f"  median {statistics.median(times):6.2f} s"


if __name__ == "__main__":
    main()
