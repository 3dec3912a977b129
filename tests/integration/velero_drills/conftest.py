"""One cluster with a real Velero server for a module: both are slow to start, and a machine has one server only."""

import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from clusterguard.clusters import EmbeddedCluster
from clusterguard.drills import DrillRunner, DrillSettings, Verdict
from clusterguard.drills.steps.registry import verbs
from clusterguard.velero import InstallOptions, VeleroClient
from clusterguard.velero.install import install

# Taken by every test with a server, before the server's own lock, which runs outside of tests hold, too.
LOCK = FileLock(Path(tempfile.gettempdir()) / "clusterguard-test-velero.lock")


@pytest.fixture(scope="session")
def velero_lock():
    """What a test takes whose drill starts a server of its own."""
    return LOCK


@pytest.fixture(scope="module")
def velero_cluster(toolchain, tmp_path_factory):
    home = tmp_path_factory.mktemp("clusters")
    with LOCK, EmbeddedCluster(toolchain=toolchain, home=home) as cluster:
        program = cluster.velero_server.program("velero")
        install(InstallOptions(replicas=0), api=cluster.api, velero=program)
        cluster.velero_server.start()
        yield cluster


@pytest.fixture(scope="module")
def api(velero_cluster):
    return velero_cluster.api


@pytest.fixture(scope="module")
def velero(api):
    return VeleroClient(api=api)


@pytest.fixture
def run(velero_cluster):
    """Run a drill on the module's cluster; whatever comes of it, nothing stays."""

    def run(drill, **settings):
        defaults = {"open": lambda _: velero_cluster, "longest_wait": timedelta(seconds=60)}
        result = DrillRunner(settings=DrillSettings(**(defaults | settings))).run(drill)
        assert [step for step in result.steps if step.phase == "cleanup" and step.verdict is not Verdict.PASS] == []
        return result

    return run


@pytest.fixture
def around(monkeypatch):
    """Do something before and after a verb of a drill: `around("veleroRestore", after=…)`."""

    def around(verb, *, before=lambda *_: None, after=lambda *_: None):
        real = verbs()[verb].perform

        def patched(action, here):
            before(here.run, action)
            said = real(action, here)
            after(here.run, action)
            return said

        monkeypatch.setattr(verbs()[verb], "perform", patched)

    return around
