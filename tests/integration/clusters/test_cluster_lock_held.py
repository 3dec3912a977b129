"""The lock of a cluster on a real API server, between real processes, and over a real restore of etcd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from clusterguard.clusters import EmbeddedCluster, KubeClient
from clusterguard.clusters.lock import LEASE, NAME, NAMESPACE, ClusterLock, lock_cluster
from clusterguard.clusters.opening import context_of
from clusterguard.errors import ClusterLockedError, ConflictError, ResourceNotFoundError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import LocalStore

pytestmark = pytest.mark.programs

DRILLS = Path(__file__).parents[3] / "drills"

# A run in a process of its own: it takes the lock, does what it is told to, and says what came of it.
CODE = """
import sys
from clusterguard.clusters import KubeClient
from clusterguard.clusters.lock import ClusterLock
from clusterguard.errors import ClusterLockedError

kubeconfig, name, duration, wait = sys.argv[1:]
api = KubeClient.from_kubeconfig(kubeconfig)
lock = ClusterLock(api, holder=name, duration_seconds=float(duration))
try:
    lock.acquire(wait_seconds=float(wait), on_wait=lambda text: print("waits", flush=True))
except ClusterLockedError as error:
    print("refused:", error.fields["holder"], flush=True)
    sys.exit()
print("holds", flush=True)
for word in sys.stdin:
    try:
        {"require": lock.require, "release": lock.release}[word.strip()]()
        print("ok", flush=True)
    except ClusterLockedError as error:
        print("lost:", error.fields["holder"], flush=True)
"""


class Run:
    def __init__(self, process):
        self.process = process

    def hear(self):
        return self.process.stdout.readline().strip()

    def say(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.hear()

    def signal(self, number):
        self.process.send_signal(number)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def cluster(toolchain, home):
    with EmbeddedCluster("lab", home=home / "clusterguard" / "clusters", toolchain=toolchain) as cluster:
        yield cluster


@pytest.fixture
def api(cluster):
    yield cluster.api
    with pytest.raises(ResourceNotFoundError):  # whatever the test did, nothing of it stays
        cluster.api.get(LEASE, NAME, NAMESPACE)


@pytest.fixture
def run(cluster):
    """Start a run whose lease holds for some seconds."""
    with contextmanager(_runs)(cluster.kubeconfig) as run:
        yield run


def _runs(kubeconfig):
    started = []

    def run(name, *, duration=4, wait=0):
        words = [sys.executable, "-c", CODE, kubeconfig, name, str(duration), str(wait)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return Run(process)

    try:
        yield run
    finally:
        for process in started:
            with process:
                process.kill()


def holder(api):
    return api.get(LEASE, NAME, NAMESPACE)["spec"]["holderIdentity"]


# ---- what a real API server makes of it ------------------------------------------------------------------


def test_of_two_writes_at_once_one_is_refused(api):
    """A Lease may be created by a PUT: only its uid keeps one from coming back to life by a late write."""
    one, two = (ClusterLock(api, holder=name, background=False) for name in ("one", "two"))
    one.acquire()
    old = two._read()
    one.renew()
    with pytest.raises(ConflictError):
        two._write(old)
    with pytest.raises(ConflictError):
        api.delete(LEASE, NAME, NAMESPACE, uid=old.uid, resource_version=old.version)
    with pytest.raises(ConflictError):
        two._write(None)
    newest = two._read()
    one.release()
    with pytest.raises(ConflictError):
        two._write(newest)


# ---- between processes -----------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_told_by_whom(api, run):
    first = run("game day")
    assert first.hear() == "holds"
    second = run("too early")
    assert [second.hear(), second.hear()] == ["waits", "refused: game day"]
    assert first.say("require") == "ok"
    assert first.say("release") == "ok"


def test_a_process_that_was_killed_gives_way(api, run):
    first = run("killed")
    assert first.hear() == "holds"
    first.signal(signal.SIGKILL)
    second = run("next")
    assert [second.hear(), second.hear()] == ["waits", "holds"]
    assert holder(api) == "next"
    assert second.say("release") == "ok"


def test_a_process_that_was_stopped_finds_that_it_lost(api, run):
    first = run("stopped")
    assert first.hear() == "holds"
    first.signal(signal.SIGSTOP)
    second = run("next")
    assert [second.hear(), second.hear()] == ["waits", "holds"]
    first.signal(signal.SIGCONT)
    assert first.say("require") == "lost: next"
    assert second.say("require") == "ok"
    assert first.say("release") == "ok"
    assert holder(api) == "next"  # not removed by who lost it
    assert second.say("release") == "ok"


def test_a_process_that_waits_gets_it_in_the_end(api, run):
    first, second = run("first"), None
    assert first.hear() == "holds"
    second = run("second", wait=600)
    assert second.hear() == "waits"
    assert first.say("release") == "ok"
    assert second.hear() == "holds"
    assert second.say("release") == "ok"


# ---- over a restore of etcd ------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before anybody held it", "while another run held it"])
def test_a_restore_takes_the_lock_from_nobody(api, cluster, run, tmp_path, when):
    """Afterwards the Lease says what it said then. A run that waits all the while does not take that for the truth."""
    snapshotter = EtcdSnapshotter(store=LocalStore(tmp_path), access=cluster.etcd)
    if when == "while another run held it":
        earlier = lock_cluster(api, what="earlier")
        snapshotter.save("then")
        earlier.release()
    else:
        snapshotter.save("then")
    lock = lock_cluster(api, what="restores")
    waiting = run("waits", wait=600)
    assert waiting.hear() == "waits"
    snapshotter.restore("then", cluster)
    assert holder(api) == lock.holder
    for _ in range(3):
        lock.require()
    lock.release()
    assert waiting.hear() == "holds"
    assert waiting.say("release") == "ok"


def test_a_restore_whose_lock_was_lost_touches_nothing(api, cluster, tmp_path):
    snapshotter = EtcdSnapshotter(store=LocalStore(tmp_path), access=cluster.etcd)
    snapshotter.save("then")
    marker = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "since", "namespace": "default"}}
    api.apply(marker)
    lock = lock_cluster(api, what="lost")
    lease = api.get(LEASE, NAME, NAMESPACE)
    api.replace({**lease, "spec": {**lease["spec"], "holderIdentity": "somebody else"}})
    with pytest.raises(ClusterLockedError):
        snapshotter.restore("then", cluster)
    assert api.get(api.resource("ConfigMap"), "since", "default")
    lock.release()
    api.delete(LEASE, NAME, NAMESPACE)


# ---- drills ----------------------------------------------------------------------------------------------


@pytest.fixture
def cli(home):
    def cli(*arguments):
        words = [sys.executable, "-m", "clusterguard", *map(str, arguments)]
        env = {**os.environ, "XDG_STATE_HOME": str(home), "COLUMNS": "200"}
        return subprocess.run(words, check=False, capture_output=True, text=True, timeout=250, env=env)

    return cli


ALLOWED = ["--cluster", "embedded:lab", "--allow-context", "clusterguard-lab"]


def test_a_cluster_is_allowed_by_the_context_of_its_own_kubeconfig(cluster, cli):
    """What `cluster up` prints, and kubectl shows, is what has to be written."""
    told = yaml.safe_load(cluster.kubeconfig.read_text())["current-context"]
    assert told == context_of("embedded:lab") == "clusterguard-lab"
    refused = cli("drill", "run", DRILLS / "deleted-pods.drill.yaml", "--cluster", "embedded:lab")
    assert refused.returncode == 2
    assert "--allow-context 'clusterguard-lab'" in refused.stdout


def test_a_drill_is_refused_while_another_run_is_at_work(api, cli):
    game_day = lock_cluster(api, what="game day")
    refused = cli("drill", "run", DRILLS / "deleted-namespace.drill.yaml", *ALLOWED)
    assert refused.returncode == 2
    assert "game day" in refused.stdout
    assert not [item for item in api.list(api.resource("Namespace")) if item["metadata"]["name"] == "shop"]
    game_day.require()
    game_day.release()


def test_a_drill_that_restores_etcd_holds_its_lock_to_the_end(api, cli, tmp_path):
    done = cli("drill", "run", DRILLS / "deleted-namespace.drill.yaml", *ALLOWED, "--evidence", tmp_path)
    assert done.returncode == 0, done.stdout
    (result,) = tmp_path.glob("*/result.json")
    assert json.loads(result.read_text())["verdict"] == "PASS"


@pytest.mark.slow
def test_drills_of_several_workers_wait_for_each_other(api, home, tmp_path):
    """They name one cluster, and each breaks and restores the whole of it."""
    names = ("deleted-namespace", "deleted-pods")
    env = {**os.environ, "XDG_STATE_HOME": str(home), "PYTEST_ADDOPTS": ""}
    words = [sys.executable, "-m", "pytest", *(str(DRILLS / f"{name}.drill.yaml") for name in names)]
    options = ["-n", "2", "--drill-cluster=embedded:lab", "--drill-allow-context=clusterguard-lab", "-q"]
    options += ["--drill-lock-timeout=10m", f"--drill-evidence={tmp_path}", "-p", "no:cacheprovider"]
    done = subprocess.run([*words, *options], check=False, capture_output=True, text=True, timeout=280, env=env)
    assert done.returncode == 0, done.stdout
    results = [json.loads(path.read_text()) for path in tmp_path.glob("*/result.json")]
    assert sorted(result["verdict"] for result in results) == ["PASS", "PASS"]


def test_tests_that_use_the_fixture_hold_the_lock_over_their_restores(api, home, tmp_path):
    (tmp_path / "test_mine.py").write_text(
        """
from clusterguard.clusters.lock import LEASE, NAME, NAMESPACE

def test_restore(drill_cluster, etcd_snapshotter):
    def holder():
        return drill_cluster.api.get(LEASE, NAME, NAMESPACE)["spec"]["holderIdentity"]

    assert holder().startswith("tests that use drill_cluster")
    etcd_snapshotter.save("before")
    etcd_snapshotter.restore("before", drill_cluster)
    assert holder().startswith("tests that use drill_cluster")
"""
    )
    env = {**os.environ, "XDG_STATE_HOME": str(home), "PYTEST_ADDOPTS": ""}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    options = ["--drill-cluster=embedded:lab", "--drill-allow-context=clusterguard-lab"]
    done = subprocess.run([*words, *options], check=False, capture_output=True, text=True, timeout=280, env=env)
    assert done.returncode == 0, done.stdout


def test_two_clients_of_one_cluster_are_one_lock_in_one_thread(api, cluster):
    """A drill reaches by `kubeconfig:` what the session's fixture reaches by its name."""
    with KubeClient.from_kubeconfig(cluster.kubeconfig) as other:
        first, second = lock_cluster(api, what="session"), lock_cluster(other, what="drill")
        assert first is second
        second.release()
        first.require()
        first.release()
