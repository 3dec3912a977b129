"""Kind clusters on a Docker and a kind that tests can make fail."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from fake_kind import KIND, KUBECONFIG, FakeApi, FakeDocker

from clusterguard.clusters.kind import KindCluster
from clusterguard.clusters.kube import KubeClient
from clusterguard.drills import load_drill


@pytest.fixture
def kind_folder(tmp_path):
    """What the fake kind reads and writes: existing, says, fails, hangs; calls, config.yaml, up."""
    folder = tmp_path / "kind-program"
    folder.mkdir()
    program = folder / "kind"
    program.write_text(KIND.format(folder=shlex.quote(str(folder)), kubeconfig=KUBECONFIG))
    program.chmod(0o700)
    return folder


@pytest.fixture
def docker(kind_folder):
    return FakeDocker(kind_folder)


@pytest.fixture
def api(monkeypatch, docker):
    api = FakeApi(docker)

    def from_kubeconfig(_path, *, context):
        api.cluster = context.removeprefix("kind-")
        return api

    monkeypatch.setattr(KubeClient, "from_kubeconfig", from_kubeconfig)
    return api


@pytest.fixture
def load(tmp_path):
    """Load a small drill with some parts of its spec changed."""

    def load(**changes):
        spec = {
            "backup": [{"etcdSnapshot": {"name": "before"}}],
            "fault": [{"delete": {"kind": "Pod", "namespace": "shop", "all": True}}],
            "restore": [{"etcdRestore": {"from": "before"}}],
            "verify": [{"restored": {}}],
        }
        document = {
            "apiVersion": "clusterguard.dev/v1alpha1",
            "kind": "Drill",
            "metadata": {"name": "small"},
            "spec": spec | changes,
        }
        path = tmp_path / "small.drill.yaml"
        path.write_text(yaml.safe_dump(document))
        return load_drill(path)

    return load


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def make(kind_folder, docker, api, home, monkeypatch):
    """Give a function that makes a KindCluster on the fakes."""
    monkeypatch.delenv("CLUSTERGUARD_KIND_IMAGE", raising=False)
    toolchain = SimpleNamespace(ensure=lambda *names: dict.fromkeys(names, kind_folder / "kind"))

    def make(name="test", **options):
        options = {"toolchain": toolchain, "home": home, "docker": docker, "sleep": lambda _: None} | options
        return KindCluster(name, **options)

    return make


@pytest.fixture
def program(tmp_path):
    """Give a function that makes a program of a shell script."""

    def program(text, name="docker"):
        path = Path(tmp_path, name)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
        return str(path)

    return program
