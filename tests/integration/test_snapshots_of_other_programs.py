"""Files as the programs make them that people have: found, adopted, read and rehearsed.

etcdctl, age, zstd and tar are the real ones. k3s, gardener's etcdbrctl and talos-backup cannot be compiled from public
modules, so their last step is retold: k3s and gardener wrap by packages of Go itself, talos-backup by zstd and age.
What they lay beside a snapshot lies here, too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from clusterguard import Rehearsal, SnapshotReader
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.etcd.opening import open_snapshot
from clusterguard.stores import open_store
from clusterguard.stores.encryption import Encryption, new_key_pair
from etcd_member import member
from other_versions import etcd_programs, go_run, newest_etcd_programs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterguard.toolchain import Toolchain

# The first run compiles three versions of etcd, for minutes.
pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(3600)]

NEWEST = "newest"
EARLIER, LATER = 1_700_000_000, 1_700_000_060
K3S = f"etcd-snapshot-server-1-{EARLIER}"
GARDENER = f"Full-00000000-00000005-{EARLIER}"
# As k3s calls archive/zip, and gardener the others.
WRAP = """package main

import (
	"archive/zip"
	"compress/gzip"
	"compress/lzw"
	"compress/zlib"
	"io"
	"os"
	"path/filepath"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	kind, from, to := os.Args[1], os.Args[2], os.Args[3]
	in, err := os.Open(from)
	must(err)
	out, err := os.Create(to)
	must(err)
	var w io.Writer
	var end io.Closer
	switch kind {
	case "zip":
		info, err := in.Stat()
		must(err)
		header, err := zip.FileInfoHeader(info)
		must(err)
		header.Name, header.Method = filepath.Base(from), zip.Deflate
		archive := zip.NewWriter(out)
		w, err = archive.CreateHeader(header)
		must(err)
		end = archive
	case "gzip":
		g := gzip.NewWriter(out)
		w, end = g, g
	case "zlib":
		z := zlib.NewWriter(out)
		w, end = z, z
	case "lzw":
		l := lzw.NewWriter(out, lzw.LSB, 8)
		w, end = l, l
	}
	_, err = io.Copy(w, in)
	must(err)
	must(end.Close())
	must(out.Close())
}
"""


def stored(kind: str, name: str, namespace: str = "", **fields: Any) -> bytes:
    metadata = {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": "2026-01-02T03:04:05Z"}
    if namespace:
        metadata["namespace"] = namespace
    labels = {"labels": {"kubernetes.io/metadata.name": name}} if kind == "Namespace" else {}
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata | labels, **fields}).encode()


OBJECTS = {
    "namespaces/shop": stored("Namespace", "shop", spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"}),
    "configmaps/shop/a": stored("ConfigMap", "a", "shop", data={"greeting": "hello"}),
    "secrets/shop/s": stored("Secret", "s", "shop", data={"password": "aGlkZGVu"}, type="Opaque"),
}


@dataclass(frozen=True)
class Backup:
    """Where a backup lies, and what it takes to look into it."""

    location: Path
    prefix: str = "/registry"
    encryption: Encryption | None = None


def saved(folder: Path, name: str, *, version: str = NEWEST, prefix: str = "/registry") -> Path:
    """Let etcdctl of a version save what a member of the same version holds."""
    programs = newest_etcd_programs() if version == NEWEST else etcd_programs(version)
    with member(programs["etcd"], folder.parent / "member") as running:
        for key, value in OBJECTS.items():
            running.put(f"{prefix}/{key}", value=value)
        file = folder / name
        command = [programs["etcdctl"], f"--endpoints={running.endpoint}", "snapshot", "save", file]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"ETCDCTL_API": "3"})
    os.utime(file, (EARLIER, EARLIER))
    return file


def beside(file: Path, content: bytes) -> None:
    """Write what the program writes after the snapshot."""
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (LATER, LATER))


def wrapped(kind: str, source: Path, target: Path) -> None:
    """Wrap a snapshot, and remove it, as k3s and gardener do."""
    go_run(WRAP, kind, source, target, folder=source.parent.parent)
    source.unlink()
    os.utime(target, (EARLIER, EARLIER))


def of_k3s(folder: Path, _: Toolchain) -> Backup:
    wrapped("zip", saved(folder, K3S), folder / f"{K3S}.zip")
    beside(folder / ".metadata" / f"{K3S}.zip", b'{"cluster": "{}"}')
    return Backup(folder)


def of_gardener(kind: str, ending: str) -> Callable[[Path, Toolchain], Backup]:
    def made(folder: Path, _: Toolchain) -> Backup:
        wrapped(kind, saved(folder, GARDENER), folder / f"{GARDENER}{ending}")
        events = folder / "events"
        events.write_bytes(b'[{"etcdEvent":{"type":0},"time":"2026-01-02T03:04:05Z"}]' + bytes(32))
        incremental = folder / f"Incr-00000006-00000007-{LATER}{ending}"
        go_run(WRAP, kind, events, incremental, folder=folder.parent)
        events.unlink()
        os.utime(incremental, (LATER, LATER))
        return Backup(folder)

    return made


def of_talos_backup(folder: Path, toolchain: Toolchain) -> Backup:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    private, public = new_key_pair()
    snapshot = saved(folder, "shop-2023-11-14T22:13:20Z.snap")
    subprocess.run(["zstd", "-q", "--rm", snapshot], check=True)
    packed = snapshot.with_name(f"{snapshot.name}.zst")
    age = toolchain.ensure("age")["age"]
    subprocess.run([age, "-r", public, "-o", f"{packed}.age", packed], check=True)
    packed.unlink()
    return Backup(folder, encryption=Encryption(identities=(private,), compression_level=None))


def of_openshift(folder: Path, _: Toolchain) -> Backup:
    saved(folder, "snapshot_2023-11-14_221320.db", prefix="/kubernetes.io")
    resources = folder.parent / "static-pod-resources"
    resources.mkdir()
    (resources / "kube-apiserver-pod.yaml").write_text("kind: Pod\n" * 1000)
    tar = folder / "static_kuberesources_2023-11-14_221320.tar.gz"
    subprocess.run(["tar", "-czf", tar, "-C", resources.parent, resources.name], check=True)
    os.utime(tar, (LATER, LATER))
    return Backup(folder, prefix="/kubernetes.io")


def of_a_copy(folder: Path, _: Toolchain) -> Backup:
    saved(folder, "saved.db").unlink()
    return Backup(folder.parent / "member" / "data" / "member" / "snap" / "db")


def of_etcdctl(version: str) -> Callable[[Path, Toolchain], Backup]:
    return lambda folder, _: Backup(saved(folder, "snapshot.db", version=version))


PROGRAMS = {
    "etcdctl 3.4": of_etcdctl("3.4.13"),
    "etcdctl 3.5": of_etcdctl("3.5.35"),
    "etcdctl 3.6": of_etcdctl("3.6.16"),
    "etcdctl 3.7": of_etcdctl(NEWEST),
    "k3s and RKE2": of_k3s,
    "gardener": of_gardener("gzip", ".gz"),
    "gardener with zlib": of_gardener("zlib", ".zlib"),
    "gardener with lzw": of_gardener("lzw", ".Z"),
    "talos-backup": of_talos_backup,
    "OpenShift": of_openshift,
    "a copied db": of_a_copy,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_found_adopted_read_and_rehearsed(program: str, toolchain: Toolchain, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    backup = PROGRAMS[program](folder, toolchain)
    opening = {"encryption": backup.encryption}

    snapshotter = EtcdSnapshotter(store=open_store(tmp_path / "store"))
    adopted = snapshotter.adopt(backup.location, "adopted", **opening)
    assert snapshotter.verify("adopted").ok
    assert adopted.total_keys == len(OBJECTS)

    with (
        open_snapshot(backup.location, **opening) as opened,
        SnapshotReader(path=opened.path, prefix=backup.prefix) as reader,
    ):
        counts = {each.resource: each.objects for each in reader.contents().kinds}
        assert counts == {"configmaps": 1, "namespaces": 1, "secrets": 1}
        assert reader.get("configmap", "a", namespace="shop")["data"] == {"greeting": "hello"}

    report = Rehearsal(location=backup.location, prefix=backup.prefix, home=tmp_path / "home", **opening).run()
    assert report.ok, report.to_text()
    assert {kind.kind: kind.equal for kind in report.kinds}.items() >= {"configmaps": 1, "secrets": 1}.items()
