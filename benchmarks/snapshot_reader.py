"""Looking into a snapshot: `SnapshotReader` beside ``etcdutl snapshot status`` on the same file, in the same run.

    python benchmarks/snapshot_reader.py [--objects 200000] [--rounds 3] [--file SNAPSHOT]

Pods, Secrets, ConfigMaps and custom resources as a real API server stores them are written to a real etcd under many
names, twice each, a tenth of them is deleted, and the member's snapshot is saved; `--file` keeps it for the next run.
Each command runs in a process of its own; told are the best times, on the clock and of the processors, and the most
memory. Then how many objects of each kind are decoded in a second.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bare_api_server import BareApiServer
from clusterguard import SnapshotReader
from clusterguard.toolchain import from_environment

TARGETS = {"ls": 0.5, "get": 0.2, "history": 0.2, "diff": 1.5}
MEGABYTES = 250
NAME = "object-00000000"
KINDS = {"pods": 4, "secrets": 2, "configmaps": 2, "widgets": 2}  # parts of ten
DECODED = 20_000
PAIRS = 120  # in one transaction: etcd takes 128
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.bench.example.com"},
    "spec": {
        "group": "bench.example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    programs = from_environment(os.environ).ensure("etcd", "etcdutl", "kube-apiserver")
    with tempfile.TemporaryDirectory() as scratch:
        file = options.file or Path(scratch) / "snapshot.db"
        if not file.is_file():
            make(file, programs, Path(scratch), options.objects)
        return measure(file, programs["etcdutl"], options.rounds)


def make(file, programs, folder, objects):
    with BareApiServer(programs, folder / "cluster", etcd_arguments=[f"--quota-backend-bytes={16 << 30}"]) as server:
        templates = stored(server)
        server.stop_api()
        port = int(server.etcd_url.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for change in range(2):
            for first in range(0, objects, PAIRS):
                names = [f"object-{each:08}" for each in range(first, min(objects, first + PAIRS))]
                ask(connection, "kv/txn", {"success": [put(templates, each, change) for each in enumerate(names)]})
        for each in range(0, objects, 10):
            key = put(templates, (each % PAIRS, f"object-{each:08}"), 0)["requestPut"]["key"]
            ask(connection, "kv/deleterange", {"key": key})
        save(connection, file)
    print(f"{file.stat().st_size / 1e6:,.0f} MB, {objects:,} objects")


def stored(server):
    """Return the bytes that the API server stores, and the key, of one object of each kind."""
    post = {"method": "POST"}
    server.ask("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body=DEFINITION, **post)
    server.ask("/api/v1/namespaces", body={"metadata": {"name": "bench"}}, **post)
    env = [{"name": f"SETTING_{each}", "value": "x" * 40} for each in range(3)]
    container = {"name": "app", "image": "registry.example.com/team/app:1.2.3", "env": env}
    pod = {"spec": {"containers": [container, {**container, "name": "proxy"}]}}
    bodies = {
        "pods": ("/api/v1", pod),
        "secrets": ("/api/v1", {"data": {f"k{each}": base64.b64encode(os.urandom(300)).decode() for each in range(2)}}),
        "configmaps": ("/api/v1", {"data": {f"key-{each}": "a line of text\n" * 10 for each in range(4)}}),
        "widgets": ("/apis/bench.example.com/v1", {"kind": "Widget", "apiVersion": "bench.example.com/v1",
                                                   "spec": {f"field{each}": "v" * 30 for each in range(8)}}),
    }  # fmt: skip
    deadline = time.monotonic() + 30
    for resource, (path, body) in bodies.items():
        document = {**body, "metadata": {"name": NAME, "labels": {"app": "bench", "tier": "web"}}}
        while True:
            try:
                server.ask(f"{path}/namespaces/bench/{resource}", body=document, **post)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
    connection = http.client.HTTPConnection("127.0.0.1", int(server.etcd_url.rpartition(":")[2]), timeout=30)
    found = {}
    for resource in bodies:
        prefix = "bench.example.com/" if resource == "widgets" else ""
        key = f"/registry/{prefix}{resource}/bench/{NAME}".encode()
        (pair,) = ask(connection, "kv/range", {"key": base64.b64encode(key).decode()})["kvs"]
        found[resource] = key, base64.b64decode(pair["value"])
    return found


def put(templates, numbered, change):
    index, name = numbered
    resources = [resource for resource, parts in KINDS.items() for _ in range(parts)]
    key, value = templates[resources[index % len(resources)]]
    changed = value.replace(NAME.encode(), name.encode()).replace(b"bench", b"bench" if change else b"BENCH", 1)
    encode = base64.b64encode
    return {
        "requestPut": {
            "key": encode(key.replace(NAME.encode(), name.encode())).decode(),
            "value": encode(changed).decode(),
        }
    }


def ask(connection, path, body):
    connection.request("POST", f"/v3/{path}", json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit(text.decode())
    return json.loads(text)


def save(connection, file):
    connection.request("POST", "/v3/maintenance/snapshot", "{}")
    with file.open("wb") as out:
        for line in connection.getresponse():
            out.write(base64.b64decode(json.loads(line)["result"].get("blob", "")))


def measure(file, etcdutl, rounds):
    ours = [sys.executable, "-m", "clusterguard", "snapshot"]
    last = f"object-{150_004:08}"
    commands = {
        "status": [str(etcdutl), "snapshot", "status", str(file)],
        "ls": [*ours, "ls", str(file)],
        "get": [*ours, "get", str(file), "secrets", last, "-n", "bench", "-o", "json"],
        "history": [*ours, "history", str(file), "secrets", last, "-n", "bench"],
        "diff": [*ours, "diff", str(file), str(file)],  # of one file: every object is compared
        "--version": [sys.executable, "-m", "clusterguard", "--version"],  # what any command costs
    }
    best = dict.fromkeys(commands, (float("inf"), float("inf"), 0.0))
    for _ in range(rounds):
        for name, command in commands.items():
            wall, cpu, megabytes = timed(command)
            best[name] = min(best[name][0], wall), min(best[name][1], cpu), max(best[name][2], megabytes)
    worst = 0.0
    for name, (wall, cpu, megabytes) in best.items():
        ratios = wall / best["status"][0], cpu / best["status"][1]
        target = f", target {TARGETS[name]}" if name in TARGETS else ""
        print(f"{name:10} {wall:5.2f} s, {ratios[0]:4.2f} x status{target}; {cpu:5.2f} s of processors, "
              f"{ratios[1]:4.2f} x; {megabytes:5.0f} MB")  # fmt: skip
        if name in TARGETS:
            worst = max(worst, ratios[0] / TARGETS[name], megabytes / MEGABYTES)
    decode(file)
    return 0 if worst <= 1 else 1


def decode(file):
    """Print how many objects a second are decoded, by kind."""
    with SnapshotReader(path=file) as reader:
        for kind in KINDS:
            keys = reader.keys(kind)[:DECODED]
            began = time.process_time()
            for key in keys:
                reader.read(key)
            print(f"{kind:10} {len(keys) / (time.process_time() - began):7,.0f} objects a second, read and decoded")


def timed(command):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # as when installed
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
