"""Programs in versions that the toolchain does not bring: compiled from their Go modules, once.

They rest in the toolchain's cache. The versions fix what is compiled: Go takes the smallest versions of everything else
that these modules ask for, and compares each with its public checksum database.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import resources

import platformdirs

from clusterguard import process
from clusterguard.toolchain import from_environment
from clusterguard.toolchain.cache import Cache
from clusterguard.toolchain.golang import fetch_go, find_go
from clusterguard.toolchain.programs import PROGRAMS

_OLDEST_GO = (1, 26, 0)
_SECONDS = 4 * 3600


@dataclass
class Source:
    """What programs are compiled from: their packages, what stands in go.mod, and flags of the linker and compiler."""

    packages: dict
    modules: str
    ldflags: str = ""
    flags: tuple = ()


def etcd_programs(version):
    """Return where etcd, etcdctl and, from 3.5 on, etcdutl of a version are, compiling them if need be."""
    if version == "3.4.13":  # of 3.4 the module proxy has no tag; its own go.mod replaces gRPC, too
        commit = "v0.5.0-alpha.5.0.20200910180754-dd1b699fc489"
        grpc = "replace google.golang.org/grpc => google.golang.org/grpc v1.26.0\n"
        packages = {"etcd": "go.etcd.io/etcd", "etcdctl": "go.etcd.io/etcd/etcdctl"}
        return _programs("etcd", version, Source(packages, f"require go.etcd.io/etcd {commit}\n{grpc}"))
    packages = {name: PROGRAMS[name].package for name in ("etcd", "etcdctl", "etcdutl")}
    modules = "".join(f"require {package} v{version}\n" for package in packages.values())
    return _programs("etcd", version, Source(packages, modules))


def kine_program(version="0.17.5"):
    """Return where kine is, which puts etcd's API in front of a SQL database, compiling it if need be."""
    source = Source({"kine": "github.com/k3s-io/kine"}, f"require github.com/k3s-io/kine v{version}\n")
    return _programs("kine", version, source)["kine"]


def kubernetes_programs(version):
    """Return where API server, controller manager and scheduler of a version are, compiling them if need be."""
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    _, minor, patch = version.split(".")
    pinned = (resources.files("clusterguard.toolchain") / "modules/kubernetes/go.mod").read_text()
    staging = re.sub(r" v0\.\d+\.\d+$", f" v0.{minor}.{patch}", pinned, flags=re.MULTILINE)
    replaced = "\n".join(line for line in staging.splitlines() if line.startswith("replace k8s.io/"))
    ldflags = re.sub(r"v1\.\d+\.\d+", f"v{version}", PROGRAMS["kube-apiserver"].modules.ldflags)
    source = Source(
        {name: PROGRAMS[name].package for name in names},
        f"{replaced}\n\nrequire k8s.io/kubernetes v{version}\n",
        re.sub(r"gitMinor=\d+", f"gitMinor={minor}", ldflags),
        ("-tags", "providerless"),  # before 1.31 there were cloud providers, whose module the proxy does not have
    )
    return _programs("kubernetes", version, source)


def velero_program(version):
    """Return where Velero of a version is, compiling it if need be."""
    kopia = {"1.14.0": "v0.0.0-20240417031915-e07d5b7de567"}[version]  # as its own go.mod replaces it
    modules = (
        f"require github.com/vmware-tanzu/velero v{version}\n"
        f"replace github.com/kopia/kopia => github.com/project-velero/kopia {kopia}\n"
    )
    ldflags = re.sub(r"v1\.\d+\.\d+", f"v{version}", PROGRAMS["velero"].modules.ldflags)
    return _programs("velero", version, Source({"velero": PROGRAMS["velero"].package}, modules, ldflags))


def minio_program():
    """Return where MinIO is, an S3 server, compiling it if need be: of the last commit that the module proxy has."""
    version = "0.0.0-20260212201848-7aac2a2c5b7c"
    source = Source({"minio": "github.com/minio/minio"}, f"require github.com/minio/minio v{version}\n")
    return _programs("minio", version, source)["minio"]


class OtherToolchain:
    """The toolchain, but for programs that are given."""

    def __init__(self, given):
        self.given = given

    def ensure(self, *names):
        paths = from_environment(os.environ).ensure(*[name for name in names if name not in self.given])
        return {name: self.given.get(name) or paths[name] for name in names}


def newest_etcd_programs():
    """Return those that the toolchain brings."""
    return from_environment(os.environ).ensure("etcd", "etcdctl", "etcdutl")


def go_run(text, *arguments, folder):
    """Compile and run a Go program that needs nothing but Go itself."""
    (folder / "main.go").write_text(text)
    process.run([_go().path, "run", folder / "main.go", *arguments], env=_go().env, timeout_seconds=_SECONDS)


def _go():
    cache = Cache(platformdirs.user_cache_path("clusterguard") / "toolchain")
    return find_go(needed=_OLDEST_GO, path=os.environ.get("PATH")) or fetch_go(cache=cache, progress=lambda _: None)


def _programs(what, version, source):
    cache = Cache(platformdirs.user_cache_path("clusterguard") / "toolchain")
    paths = {name: cache.program(name, f"{version}-tests") for name in source.packages}
    with cache.lock(f"{what}-{version}", when_waiting=lambda: None):
        missing = {name: source.packages[name] for name, path in paths.items() if not path.is_file()}
        if missing:
            with cache.scratch(f"{what}-{version}") as scratch:
                for name, made in _compiled(source, missing, scratch).items():
                    cache.place(made, paths[name])
    return paths


def _compiled(source, packages, scratch):
    go = _go()
    (scratch / "go.mod").write_text(f"module clusterguard.dev/tests\n\ngo 1.24\n\n{source.modules}")
    env = {**go.env, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    made = {}
    for name, package in packages.items():
        made[name] = scratch / "bin" / name
        options = ["-buildvcs=false", f"-ldflags=-s -w {source.ldflags}".rstrip(), *source.flags]
        command = [go.path, "build", *options, "-o", made[name], package]
        process.run(command, env=env, cwd=scratch, timeout_seconds=_SECONDS)
    return made
