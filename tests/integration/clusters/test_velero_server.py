"""Who has the one port of all Velero servers: real processes and locks, with a small program in Velero's place."""

from __future__ import annotations

import socket
import sys
import textwrap
import threading
import time

import pytest
from filelock import FileLock

from clusterguard import process
from clusterguard.clusters.embedded import EmbeddedCluster
from clusterguard.clusters.embedded import velero_server as module
from clusterguard.clusters.embedded.commands import Layout
from clusterguard.clusters.embedded.programs import Programs
from clusterguard.clusters.embedded.records import ClusterRecord, Ports
from clusterguard.clusters.embedded.velero_server import VeleroServer
from clusterguard.clusters.records import read_record, write_record
from clusterguard.errors import ProvisioningError, WaitTimeoutError
from clusterguard.sockets import free_ports, listening

LISTENS = """
import socket
server = socket.create_server(("127.0.0.1", PORT))
while True:
    server.accept()[0].close()
"""


@pytest.fixture
def port(monkeypatch, tmp_path):
    """A port and a lock of this test's own, in place of the machine's."""
    (port,) = free_ports(1)
    monkeypatch.setattr(module, "_PORT", port)
    monkeypatch.setattr(module, "_LOCK", tmp_path / "velero.lock")
    monkeypatch.setattr(VeleroServer, "_lock", None)
    monkeypatch.setattr(VeleroServer, "_holder", None)
    return port


@pytest.fixture
def make(port, tmp_path):
    made = []

    def make(name, text=LISTENS, *, outlive_us=False):
        layout = Layout(folder=tmp_path / name)
        layout.logs.mkdir(parents=True)
        layout.pki.mkdir()
        velero, plugin = layout.folder / "a-velero", layout.folder / "velero-plugin-for-aws"
        for path in (velero, plugin):
            path.write_text(f"#!{sys.executable}\n{text.replace('PORT', str(port))}")
            path.chmod(0o755)
        record = ClusterRecord(
            name=name, created=time.time(), owner=None, ports=Ports(etcd_client=1, etcd_peer=2, api=3), programs={}
        )
        programs = Programs(layout, record, outlive_us=outlive_us)
        paths = {"velero": velero, "velero-plugin-for-aws": plugin}
        made.append(VeleroServer(programs, lambda *_: paths))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def holds_lock():
    lock = FileLock(module._LOCK)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return True
    lock.release()
    return False


def test_a_server_runs_until_it_is_stopped_and_holds_the_lock_as_long(make, port):
    server = make("one")
    assert not server.running()
    server.start()
    assert server.running()
    assert listening(port) is None
    assert holds_lock()
    server.stop()
    assert not server.running()
    assert not holds_lock()


def test_starting_it_twice_starts_it_once(make, tmp_path):
    server = make("one")
    server.start()
    first = read_record(tmp_path / "one", ClusterRecord).processes["velero"]
    server.start()
    assert read_record(tmp_path / "one", ClusterRecord).processes["velero"] == first


def test_stopping_one_that_never_ran_is_nothing(make):
    make("one").stop()
    assert not holds_lock()


def test_another_cluster_of_this_process_takes_the_port_over_and_gives_it_back(make, port):
    one, two = make("one"), make("two")
    one.start()
    two.start()
    assert (one.running(), two.running()) == (False, True)
    one.start()
    assert (one.running(), two.running()) == (True, False)
    two.stop()  # it has nothing any more, so it must not let go of what the other one holds
    assert holds_lock()
    assert listening(port) is None


def test_the_plugin_is_laid_out_alone(make, tmp_path):
    """Velero runs every program of its folder of plugins."""
    make("one").start()
    folder = Layout(folder=tmp_path / "one").velero_plugins
    assert [path.name for path in folder.iterdir()] == ["velero-plugin-for-aws"]


def test_its_scratch_folder_is_nobody_elses(make, tmp_path):
    make("one").start()
    assert Layout(folder=tmp_path / "one").velero_scratch.stat().st_mode & 0o777 == 0o700


def test_a_port_that_another_program_has_is_told_and_nothing_is_held(make, port):
    server = make("one")
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ProvisioningError, match="taken by another") as seen:
        server.start()
    assert str(port) in seen.value.message
    assert seen.value.hint
    assert not server.running()
    assert not holds_lock()
    server.start()  # once the port is free


def test_a_server_that_ends_at_once_is_told_and_lets_go(make):
    server = make("one", "import sys; print('unknown flag'); sys.exit(1)")
    with pytest.raises(ProvisioningError) as caught:
        server.start()
    assert (caught.value.code, caught.value.fields["program"]) == ("program-ended", "velero")
    assert "unknown flag" in caught.value.fields["output"]
    assert not holds_lock()


def test_a_server_that_never_listens_is_ended_in_time(make, monkeypatch):
    monkeypatch.setattr(module, "_START_SECONDS", 0.3)
    server = make("one", "import time; time.sleep(600)")
    with pytest.raises(WaitTimeoutError, match="the Velero server starts"):
        server.start()
    assert not server.running()
    assert not holds_lock()


OTHER = """
    import sys, time
    from filelock import FileLock
    with FileLock(sys.argv[1]):
        print("has it", flush=True)
        time.sleep(600)
"""


@pytest.fixture
def elsewhere(port, tmp_path):
    """Another process that holds the lock."""
    said = tmp_path / "said"
    other = process.spawn([sys.executable, "-c", textwrap.dedent(OTHER), module._LOCK], log=said)
    while "has it" not in said.read_text():
        assert other.alive(), said.read_text()
        time.sleep(0.01)
    yield other
    other.stop(grace_seconds=0)


def test_another_process_is_waited_for_and_that_is_told(make, elsewhere):
    told = []
    server = make("one")
    starting = threading.Thread(target=server.start, kwargs={"on_wait": told.append})
    starting.start()
    while not told:
        time.sleep(0.01)
    assert f"process {elsewhere.pid} (" in told[0]
    assert str(module._PORT) in told[0]
    assert not server.running()
    elsewhere.stop(grace_seconds=0)
    starting.join(timeout=20)
    assert server.running()
    assert len(told) == 1


def test_another_process_that_keeps_the_port_is_told_in_time(make, elsewhere, monkeypatch):
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.1)
    server = make("one")
    with pytest.raises(WaitTimeoutError) as seen:
        server.start()
    assert f"process {elsewhere.pid} (" in seen.value.last_seen
    assert elsewhere.alive()
    assert VeleroServer._holder is None


def test_without_a_word_of_the_kernel_the_holder_has_no_name(tmp_path):
    assert module._holder_of(tmp_path / "nothing") == "another run of clusterguard"


STARTS_ONE = """
    import sys, time
    from pathlib import Path
    from clusterguard.clusters.embedded import velero_server as module
    from clusterguard.clusters.embedded.commands import Layout
    from clusterguard.clusters.embedded.programs import Programs
    from clusterguard.clusters.embedded.records import ClusterRecord
    from clusterguard.clusters.records import read_record

    folder, module._LOCK, module._PORT = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    programs = Programs(Layout(folder=folder), read_record(folder, ClusterRecord), outlive_us=True)
    paths = {"velero": folder / "a-velero", "velero-plugin-for-aws": folder / "velero-plugin-for-aws"}
    module.VeleroServer(programs, lambda *_: paths).start()
    print("runs", flush=True)
    time.sleep(600)
"""


def test_the_server_of_a_cluster_that_stays_ends_with_the_process_that_started_it(make, port, tmp_path):
    """The lock on its port goes with that process, however it ends."""
    server = make("one", outlive_us=True)
    write_record(tmp_path / "one", server._programs.record)
    said = tmp_path / "said"
    argv = [sys.executable, "-c", textwrap.dedent(STARTS_ONE), tmp_path / "one", module._LOCK, str(port)]
    other = process.spawn(argv, log=said)
    while "runs" not in said.read_text():
        assert other.alive(), said.read_text()
        time.sleep(0.01)
    assert holds_lock()
    started = read_record(tmp_path / "one", ClusterRecord).processes["velero"]
    other.stop(grace_seconds=0)
    while started.alive():
        time.sleep(0.01)
    assert not holds_lock()


def test_a_server_that_nobody_holds_the_lock_for_is_replaced(make, port, tmp_path):
    """An older release left it beside a cluster that stays."""
    server = make("one")
    server._programs.add_program("velero", str(server.program("velero")))
    server._lay_out_plugins()
    server._programs.start("velero")
    left = server._programs.record.processes["velero"]
    while listening(port) is not None:
        time.sleep(0.01)
    server.start()
    assert not left.alive()
    assert server.running()
    assert holds_lock()


def test_the_lock_is_never_let_go_while_one_cluster_of_this_process_follows_another(make, monkeypatch):
    one, two = make("one"), make("two")
    one.start()
    released = []
    monkeypatch.setattr(VeleroServer._lock, "release", lambda: released.append(True))
    two.start()
    assert released == []
    monkeypatch.undo()


def test_a_server_of_another_process_is_not_stopped(make, elsewhere, tmp_path):
    server = make("one")
    server._programs.add_program("velero", str(server.program("velero")))
    server._programs.start("velero")
    server.stop()
    assert server.running()
    server._programs.stop("velero", grace_seconds=0)


def test_closing_a_cluster_that_stays_stops_the_server_that_was_started_beside_it(make, tmp_path):
    server = make("one", outlive_us=True)
    cluster = EmbeddedCluster("one", home=tmp_path)
    cluster.created_by_us, cluster._velero = False, server
    server.start()
    cluster.close()
    assert not server.running()
    assert not holds_lock()
