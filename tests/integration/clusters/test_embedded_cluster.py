"""Embedded clusters: what is in one, what is refused, and that nothing of it is ever left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from clusterguard.clusters import EmbeddedCluster, KubeClient
from clusterguard.clusters.embedded import PROGRAMS
from clusterguard.clusters.embedded import cluster as module
from clusterguard.clusters.embedded.commands import Layout, kubeconfig_text
from clusterguard.clusters.embedded.records import ClusterRecord
from clusterguard.clusters.records import read_record
from clusterguard.errors import (
    ClusterError,
    ConfigError,
    EtcdAuthError,
    ProvisioningError,
    ToolchainError,
    WaitTimeoutError,
)
from clusterguard.etcd.member import EtcdMember
from clusterguard.toolchain import Toolchain

pytestmark = pytest.mark.programs


def processes_in(folder):
    """Return the command lines of processes that have something to do with a folder."""
    found = {}
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if any(str(folder) in word for word in command[1:]) and process.pid != os.getpid():
            found[process.pid] = command
    return found


def alive(pid):
    """Return whether a process runs; one that nobody has collected yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def begun(process):
    """Return whether a recorded process is the program, and no more what starts it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return sys.executable not in psutil.Process(process.pid).cmdline()
    return False


def wait_until(true, seconds=15):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


class Programs(Toolchain):
    """A toolchain that has the real etcd, and something else for every other program."""

    def __init__(self, **paths):
        super().__init__()
        self.paths = paths

    def ensure(self, *names):
        return {name: self.paths.get(name, self.paths["other"]) for name in names}


@pytest.fixture
def half(toolchain, tmp_path):
    """A real etcd and an API server that never answers: a cluster that is being started for as long as wanted."""
    other = script(tmp_path / "never-ready", "exec sleep 1000")
    return Programs(etcd=toolchain.ensure("etcd")["etcd"], other=other)


# ---- what is in it


def test_its_pods_run_and_are_said_to_be_simulated(shared_cluster):
    api = shared_cluster.api
    assert shared_cluster.simulated_pods
    (node,) = api.list(api.resource("Node"))
    assert "no process runs" in node["metadata"]["annotations"]["clusterguard.dev/simulated"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "busybox:1.37"}]},
    }
    api.create(pod)
    try:
        api.wait_for(
            api.resource("Pod"),
            "probe",
            "default",
            until=lambda found: found and found["status"].get("phase") == "Running",
            what="the pod runs",
            timeout_seconds=20,
        )
    finally:
        api.delete(api.resource("Pod"), "probe", "default")


def client_of(cluster, user):
    """Return a client with the certificate of one of the cluster's components."""
    layout = Layout(folder=cluster.folder)
    return KubeClient.from_kubeconfig(layout.kubeconfig_of(user))


def test_kwok_may_not_read_secrets(shared_cluster):
    with client_of(shared_cluster, "kwok") as kwok:
        list(kwok.list(kwok.resource("Node")))
        with pytest.raises(ClusterError, match="403"):
            list(kwok.list(kwok.resource("Secret")))


def test_nobody_gets_in_without_a_certificate(shared_cluster, tmp_path):
    server = f"https://127.0.0.1:{shared_cluster.record.ports.api}"
    ca = shared_cluster.folder / "pki" / "ca.crt"
    text = kubeconfig_text(server=server, ca=ca, cert=Path("CERT"), key=Path("KEY"), context="anonymous")
    (tmp_path / "kubeconfig").write_text(text.replace('client-certificate: "CERT", client-key: "KEY"', ""))
    with KubeClient.from_kubeconfig(tmp_path / "kubeconfig") as nobody, pytest.raises(ClusterError, match=r"40[13]"):
        nobody.request("GET", "/api/v1/namespaces/default/pods")


def test_etcd_lets_nobody_in_without_a_certificate_of_its_own_authority(shared_cluster):
    pki = shared_cluster.folder / "pki"
    etcd = shared_cluster.etcd
    assert EtcdMember(etcd, etcd.endpoints[0]).status().revision > 0
    for cert, key in ((None, None), (pki / "admin.crt", pki / "admin.key")):
        with pytest.raises(EtcdAuthError):
            EtcdMember(replace(etcd, cert=cert, key=key), etcd.endpoints[0]).status()


def test_it_listens_on_loopback_alone(shared_cluster):
    listening = [
        connection.laddr.ip
        for process in shared_cluster.record.processes.values()
        for connection in psutil.Process(process.pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}


def test_nobody_else_may_read_its_keys(shared_cluster):
    assert (shared_cluster.folder.stat().st_mode & 0o777) == 0o700
    assert (shared_cluster.kubeconfig.stat().st_mode & 0o777) == 0o600


def test_the_certificate_is_good_for_its_address(shared_cluster):
    context = ssl.create_default_context(cafile=str(shared_cluster.folder / "pki" / "ca.crt"))
    port = shared_cluster.record.ports.api
    with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1"):
        pass


# ---- what is refused


def test_a_name_that_is_taken_is_refused_and_the_other_cluster_lives_on(shared_cluster, toolchain):
    twin = EmbeddedCluster(shared_cluster.name, home=shared_cluster.folder.parent, toolchain=toolchain)
    with pytest.raises(ConfigError) as caught:
        twin.start()
    assert (caught.value.code, caught.value.fields["cluster"]) == ("cluster-exists", shared_cluster.name)
    assert shared_cluster.api.ready()


def test_a_program_of_another_version_is_refused_by_name(tmp_path):
    old = script(tmp_path / "etcd", "echo etcd Version: 3.3.1")
    cluster = EmbeddedCluster(toolchain=Toolchain(explicit={"etcd": old}), home=tmp_path / "home")
    with pytest.raises(ToolchainError, match=r"3\.3\.1") as raised:
        cluster.start()
    assert str(old) in raised.value.message
    assert not (tmp_path / "home").exists()


def test_a_program_that_is_not_there_is_refused_by_name(tmp_path):
    cluster = EmbeddedCluster(toolchain=Toolchain(explicit={"kwok": tmp_path / "kwok"}), home=tmp_path / "home")
    with pytest.raises(ToolchainError, match=str(tmp_path / "kwok")):
        cluster.start()
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver"])
def test_a_program_that_dies_at_once_is_told_with_its_last_words(half, tmp_path, name):
    half.paths[name] = script(tmp_path / name, "echo unknown flag: --x; exit 2")
    with pytest.raises(ProvisioningError) as caught:
        EmbeddedCluster(toolchain=half, home=tmp_path / "home").start()
    assert (caught.value.code, caught.value.fields["program"]) == ("program-ended", name)
    assert "unknown flag: --x" in caught.value.fields["output"]
    assert list((tmp_path / "home").iterdir()) == []
    assert processes_in(tmp_path / "home") == {}


def test_a_program_that_never_gets_ready_is_told_with_its_last_words(half, tmp_path, monkeypatch):
    monkeypatch.setattr("clusterguard.clusters.embedded.control_plane._API_SECONDS", 0.3)
    half.paths["kube-apiserver"] = script(tmp_path / "slow", "echo still thinking; exec sleep 1000")
    with pytest.raises(WaitTimeoutError) as raised:
        EmbeddedCluster(toolchain=half, home=tmp_path / "home").start()
    assert (raised.value.what, raised.value.seconds) == ("the API server answers", 0.3)
    assert "still thinking" in raised.value.hint
    assert list((tmp_path / "home").iterdir()) == []
    assert processes_in(tmp_path / "home") == {}


# ---- several, and nothing left


def test_several_at_once_whose_ports_somebody_takes_meanwhile(toolchain, tmp_path, monkeypatch):
    taken = socket.create_server(("127.0.0.1", 0))
    real, asked = module.free_ports, []

    def free_ports(count):
        ports = real(count)
        asked.append(ports)
        if len(asked) <= 2:  # etcd's port for one of them, the API server's for the other
            ports[(0, 2)[len(asked) - 1]] = taken.getsockname()[1]
        return ports

    monkeypatch.setattr(module, "free_ports", free_ports)
    home, failures = tmp_path / "home", []
    both_run, seen = threading.Barrier(2, timeout=120), {}

    def fail_if(true):
        return 1 / (not true)

    def live(name):
        try:
            with EmbeddedCluster(name, toolchain=toolchain, home=home) as cluster:
                both_run.wait()
                seen[name] = (cluster.record.ports.api, [each.name for each in EmbeddedCluster.known(home=home)])
                assert cluster.api.ready()
                fail_if(name == "b")
        except ZeroDivisionError:
            pass
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)
            both_run.abort()

    threads = [threading.Thread(target=live, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.close()
    assert failures == []
    assert len(asked) >= 4, "nobody met the taken port"
    assert seen["a"][0] != seen["b"][0]
    assert seen["a"][1] == ["a", "b"]
    assert list(home.iterdir()) == []
    assert processes_in(home) == {}


STARTING = """
    import sys
    from pathlib import Path
    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.toolchain import Toolchain

    class Programs(Toolchain):
        def ensure(self, *names):
            return {name: Path(sys.argv[2] if name == "etcd" else sys.argv[3]) for name in names}

    EmbeddedCluster("c", toolchain=Programs(), home=Path(sys.argv[1]), outlive_us=sys.argv[4] == "True").start()
"""


@pytest.fixture
def starting(half, tmp_path):
    """A process that is starting a cluster: etcd runs, the API server is being waited for."""
    processes = []

    def start(*, outlive_us=False):
        home = tmp_path / "home"
        words = [home, half.paths["etcd"], half.paths["other"], outlive_us]
        argv = [sys.executable, "-c", textwrap.dedent(STARTING), *map(str, words)]
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True)
        processes.append(process)

        def waits_for_the_api_server():
            assert process.poll() is None, process.stderr.read()
            record = read_record(home / "c", ClusterRecord)
            # Up to the byte that lets it go on, a child is a Python that ends with its parent.
            return record is not None and sum(map(begun, record.processes.values())) == 2

        wait_until(waits_for_the_api_server)
        return process, home, [each.pid for each in read_record(home / "c", ClusterRecord).processes.values()]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()
    EmbeddedCluster.sweep(home=tmp_path / "home")  # what was to outlive the process does
    assert processes_in(tmp_path) == {}


def test_ctrl_c_while_it_starts_leaves_nothing(starting):
    process, home, children = starting()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in said
    assert list(home.iterdir()) == []
    assert not any(map(alive, children))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_its_programs_die_with_their_owner_and_the_next_start_reaps_the_folder(starting, how):
    process, home, children = starting()
    process.send_signal(how)
    process.communicate(timeout=20)
    wait_until(lambda: not any(map(alive, children)))
    assert EmbeddedCluster.known(home=home) == []
    assert EmbeddedCluster.sweep(home=home) == ["c"]
    assert list(home.iterdir()) == []


def test_one_that_was_to_stay_but_never_got_ready_is_reaped_too(starting):
    process, home, children = starting(outlive_us=True)
    process.kill()
    process.communicate()
    assert all(map(alive, children))  # they were not tied to it
    assert EmbeddedCluster.sweep(home=home) == ["c"]
    assert not any(map(alive, children))
    assert list(home.iterdir()) == []


def test_while_it_starts_nobody_else_recovers_it(starting):
    _, home, children = starting(outlive_us=True)
    attached = EmbeddedCluster.attach("c", home=home)
    assert sorted(each.pid for each in attached.record.processes.values()) == sorted(children)
    assert EmbeddedCluster.sweep(home=home) == []


def test_it_has_every_program_it_asks_the_toolchain_for(shared_cluster):
    assert set(shared_cluster.record.programs) == set(PROGRAMS)
    assert set(shared_cluster.record.running()) == set(PROGRAMS) - {"etcdutl"}
    json.dumps(shared_cluster.record.programs)
