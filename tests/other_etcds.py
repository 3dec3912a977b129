"""Programs of other releases than the toolchain's, compiled from their Go modules: the first use takes minutes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from clusterguard.process import run
from clusterguard.toolchain.golang import find_go

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clusterguard-etcds"
# Up to 3.4 etcd was one module, whose releases have no version that Go understands: this is the commit of 3.4.13.
_ONE_MODULE = {"3.4.13": "v0.5.0-alpha.5.0.20200910180754-dd1b699fc489"}


def etcd_program(version, name="etcd"):
    """Return etcd, etcdctl or (from 3.5 on) etcdutl of a release."""
    if version in _ONE_MODULE:
        package = "go.etcd.io/etcd" if name == "etcd" else f"go.etcd.io/etcd/{name}"
        return _program(version, name, package, f"go.etcd.io/etcd@{_ONE_MODULE[version]}")
    package = f"go.etcd.io/etcd/{'server' if name == 'etcd' else name}/v3"
    return _program(version, name, package, f"{package}@v{version}")


def kine_program(version="0.17.5"):
    """Return kine, which puts etcd's API in front of a SQL database."""
    return _program(f"kine-{version}", "kine", "github.com/k3s-io/kine", f"github.com/k3s-io/kine@v{version}")


def _program(folder, name, package, module):
    path = CACHE / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "lock"):
        if not path.exists():
            _build(path, package, module)
    return path


def _build(path, package, module):
    go = find_go(needed=(1, 25, 0), path=os.environ.get("PATH"))
    if go is None:
        pytest.skip(f"NOT RUN: no Go to compile {module} with")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        Path(scratch, "go.mod").write_text("module example.invalid/programs\n\ngo 1.25\n")
        env = {**go.env, "GOFLAGS": "-mod=mod -buildvcs=false"}
        run([go.path, "get", module], cwd=Path(scratch), env=env, timeout_seconds=600)
        run([go.path, "build", "-o", "program", package], cwd=Path(scratch), env=env, timeout_seconds=1800)
        Path(scratch, "program").rename(path)
