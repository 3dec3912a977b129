"""How long verifying a Velero backup takes and how much memory, beside `tar -tzf` of its tarball in the same run.

    python benchmarks/verify_backup.py [--objects 10000] [--rounds 7]

Builds a backup in a directory, as Velero lays it out: ConfigMaps and Secrets of about 1.5 KB each, every one
stored twice. Both programs run alternately, each as a new process. What they do differs: tar lists the names; we also
compare both copies of each object, decode it, compare it with its path and with the resource list, and ask everything
else that there is to ask. Starting Python and importing takes about as long as half of it, so both times are told:
that of the verification, which the target is about, and that of the whole process.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

NAME = "bench"
VERIFY = """
import sys, time
from datetime import UTC, datetime
from clusterguard.stores.local import LocalStore
from clusterguard.velero.bucket import verify_backup
from pathlib import Path
began = time.monotonic()
report = verify_backup(LocalStore(Path(sys.argv[1])), sys.argv[2], now=datetime.now(UTC))
print(time.monotonic() - began)
assert report.ok and report.objects == int(sys.argv[3]), report.to_text()
"""
TARGET_RATIO, TARGET_MIB = 2.0, 150


def build(folder: Path, count: int) -> Path:
    chance = random.Random(1)  # noqa: S311 - the same backup every time
    target = folder / "backups" / NAME
    target.mkdir(parents=True)
    listed: dict[str, list[str]] = {"v1/ConfigMap": [], "v1/Secret": []}
    with tarfile.open(target / f"{NAME}.tar.gz", "w:gz", compresslevel=6) as archive:
        add(archive, "metadata/version", b"1.1.0\n")
        for number in range(count):
            kind, item = one_object(chance, number)
            namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
            listed[f"v1/{kind}"].append(f"{namespace}/{name}")
            data = json.dumps(item, separators=(",", ":")).encode()
            for version in ("", "v1-preferredversion/"):
                add(archive, f"resources/{kind.lower()}s/{version}namespaces/{namespace}/{name}.json", data)
    documents = {
        "resource-list.json": listed,
        "results": {"errors": {}, "warnings": {}},
        "volumeinfo.json": [],
        "podvolumebackups.json": None,
        "volumesnapshots.json": None,
        "itemoperations.json": [],
    }
    for ending, document in documents.items():
        (target / f"{NAME}-{ending}.gz").write_bytes(gzip.compress(json.dumps(document).encode()))
    (target / "velero-backup.json").write_text(json.dumps(backup(count)))
    return target / f"{NAME}.tar.gz"


def one_object(chance: random.Random, number: int) -> tuple[str, dict]:
    kind = "ConfigMap" if number % 2 else "Secret"
    letters = "abcdefghijklmnopqrstuvwxyz "
    data = {f"key-{key}": "".join(chance.choices(letters, k=200)) for key in range(3)}
    if kind == "Secret":
        data = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    fields = {"f:data": {".": {}, **{f"f:{key}": {} for key in data}}, "f:metadata": {"f:labels": {"f:app": {}}}}
    metadata = {
        "name": f"object-{number:06}",
        "namespace": f"namespace-{number % 20}",
        "uid": f"{chance.getrandbits(128):032x}",
        "resourceVersion": str(number),
        "creationTimestamp": "2030-01-01T00:00:00Z",
        "labels": {"app": f"app-{number % 7}"},
        "managedFields": [{"manager": "bench", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields}],
    }
    return kind, {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}


def add(archive: tarfile.TarFile, path: str, data: bytes) -> None:
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.mtime = len(data), 0o755, 1893456000
    archive.addfile(info, io.BytesIO(data))


def backup(count: int) -> dict:
    status = {
        "phase": "Completed",
        "formatVersion": "1.1.0",
        "startTimestamp": "2030-01-01T00:00:00Z",
        "expiration": "2130-01-01T00:00:00Z",
        "progress": {"totalItems": count, "itemsBackedUp": count},
    }
    return {"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": NAME}, "status": status}


@dataclass
class Cost:
    seconds: float
    peak_mib: float
    printed: str


def measure(argv: list[str]) -> Cost:
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen(argv, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{argv[0]} failed")
        output.seek(0)
        return Cost(seconds, usage.ru_maxrss / 1024, output.read())


def ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each program (default 7)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clusterguard-bench-") as folder:
        tarball = build(Path(folder), options.objects)
        print(f"{options.objects} objects, {tarball.stat().st_size / 1e6:.1f} MB packed", flush=True)
        theirs, ours = [], []
        for _ in range(options.rounds):
            theirs.append(measure(["tar", "-tzf", str(tarball)]))
            ours.append(measure([sys.executable, "-c", VERIFY, folder, NAME, str(options.objects)]))
    listing, whole = [cost.seconds for cost in theirs], [cost.seconds for cost in ours]
    verifying = [float(cost.printed) for cost in ours]
    for name, times in (("tar -tzf", listing), ("verify_backup", verifying), ("  its whole process", whole)):
        print(f"  {name:<20} {' '.join(f'{seconds:.2f}' for seconds in times)} s")
    peak = max(cost.peak_mib for cost in ours)
    met = ratio(verifying, listing) < TARGET_RATIO and peak < TARGET_MIB
    print(f"  median ratio {ratio(verifying, listing):.2f} (target {TARGET_RATIO}), ", end="")
    print(f"{ratio(whole, listing):.2f} with the start of Python; ", end="")
    print(f"{peak:.0f} MiB (target {TARGET_MIB}): {'met' if met else 'NOT MET'}", flush=True)
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
