"""etcd and etcdutl in versions that the toolchain does not bring, and kine: compiled from their Go modules, once.

They rest in the toolchain's cache. The versions fix what is compiled: Go takes the smallest versions of everything else
that these modules ask for, and compares each with its public checksum database.
"""

from __future__ import annotations

import os

import platformdirs

from clusterguard import process
from clusterguard.toolchain import from_environment
from clusterguard.toolchain.cache import Cache
from clusterguard.toolchain.golang import fetch_go, find_go

_OLDEST_GO = (1, 24, 0)
_KEY = "tests"
# The packages of each version, and what its go.mod needs beside them. Of 3.4 the module proxy has no tag: this is the
# commit of v3.4.13, which has no etcdutl, and whose own go.mod replaces gRPC.
_PACKAGES = {"etcd": "go.etcd.io/etcd/server/v3", "etcdutl": "go.etcd.io/etcd/etcdutl/v3"}
_3_4_13 = (
    "require go.etcd.io/etcd v0.5.0-alpha.5.0.20200910180754-dd1b699fc489\n"
    "replace google.golang.org/grpc => google.golang.org/grpc v1.26.0\n"
)


def etcd_programs(version):
    """Return where etcd and, from 3.5 on, etcdutl of a version are, compiling them if need be."""
    packages = {"etcd": "go.etcd.io/etcd"} if version == "3.4.13" else _PACKAGES
    return _programs(version, packages)


def kine_program(version="0.17.5"):
    """Return where kine is, which puts etcd's API in front of a SQL database."""
    return _programs(version, {"kine": "github.com/k3s-io/kine"})["kine"]


def _programs(version, packages):
    cache = Cache(platformdirs.user_cache_path("clusterguard") / "toolchain")
    paths = {name: cache.program(name, f"{version}-{_KEY}") for name in packages}
    with cache.lock(f"etcd-{version}", when_waiting=lambda: None):
        missing = {name: packages[name] for name, path in paths.items() if not path.is_file()}
        if missing:
            with cache.scratch(f"etcd-{version}") as scratch:
                for name, made in _compiled(version, missing, cache, scratch).items():
                    cache.place(made, paths[name])
    return paths


def newest_etcd_programs():
    """Return those that the toolchain brings."""
    return from_environment(os.environ).ensure("etcd", "etcdutl")


def _compiled(version, packages, cache, scratch):
    go = find_go(needed=_OLDEST_GO, path=os.environ.get("PATH")) or fetch_go(cache=cache, progress=lambda _: None)
    modules = "".join(f"require {package} v{version}\n" for package in packages.values())
    needs = _3_4_13 if version == "3.4.13" else modules
    (scratch / "go.mod").write_text(f"module clusterguard.dev/tests\n\ngo 1.24\n\n{needs}")
    env = {**go.env, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    made = {}
    for name, package in packages.items():
        made[name] = scratch / "bin" / name
        command = [go.path, "build", "-buildvcs=false", "-ldflags=-s -w", "-o", made[name], package]
        process.run(command, env=env, cwd=scratch, timeout_seconds=1800)
    return made
