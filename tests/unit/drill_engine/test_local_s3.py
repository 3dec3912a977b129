"""The throwaway S3 server, with a small program in the place of versitygw."""

import os
import signal
import socket
import sys
import textwrap
import time

import psutil
import pytest

from clusterguard import process
from clusterguard.drills.servers import local_s3
from clusterguard.drills.servers.local_s3 import LocalS3Server
from clusterguard.errors import ProvisioningError, WaitTimeoutError
from clusterguard.sockets import listening

# Listens where it is told, after it has written down how it was called.
LISTENS = """
import json, os, socket, sys, time
host, port = sys.argv[sys.argv.index("--port") + 1].split(":")
keys = {name: os.environ.get(name) for name in ("ROOT_ACCESS_KEY", "ROOT_SECRET_KEY")}
with open("FOLDER/calls.jsonl", "a") as file:
    print(json.dumps({"argv": sys.argv[1:], "keys": keys}), file=file)
server = socket.create_server((host, int(port)))
while True:
    server.accept()[0].close()
"""


@pytest.fixture
def program(tmp_path):
    def program(text):
        path = tmp_path / "versitygw"
        path.write_text(f"#!{sys.executable}\n{text.replace('FOLDER', str(tmp_path))}")
        path.chmod(0o755)
        return path

    return program


@pytest.fixture
def server(program, tmp_path):
    with LocalS3Server(program=program(LISTENS), folder=tmp_path / "s3") as server:
        yield server


def listens(server):
    return listening(server._port) is None


def test_it_serves_the_buckets_folder_on_loopback_alone(server, tmp_path):
    assert listens(server)
    called = (tmp_path / "calls.jsonl").read_text()
    assert f'"127.0.0.1:{server._port}"' in called
    assert str(tmp_path / "s3" / "buckets") in called


def test_keys_are_in_the_environment_and_on_no_command_line(server):
    (argv,) = [psutil.Process(server._process.pid).cmdline()]
    secret = server.credentials.secret_key
    assert not [word for word in argv if secret in word or server.credentials.access_key in word]
    environment = psutil.Process(server._process.pid).environ()
    assert (environment["ROOT_ACCESS_KEY"], environment["ROOT_SECRET_KEY"]) == (server.credentials.access_key, secret)
    assert secret not in repr(server)


def test_two_servers_have_ports_and_keys_of_their_own(program, tmp_path):
    one, two = (LocalS3Server(program=program(LISTENS), folder=tmp_path / name) for name in ("one", "two"))
    assert one.credentials != two.credentials
    with one, two:
        assert one.endpoint != two.endpoint
        one.stop()
        assert not listens(one)
        assert listens(two)


def test_it_comes_back_on_the_same_port_with_the_same_keys(server):
    before = (server.endpoint, server.credentials)
    server.stop()
    assert not listens(server)
    server.start()
    assert listens(server)
    assert (server.endpoint, server.credentials) == before


def test_starting_and_stopping_twice_is_the_same_as_once(server, tmp_path):
    server.start()
    assert (tmp_path / "calls.jsonl").read_text().count("\n") == 1
    server.stop()
    server.stop()


def test_a_port_that_somebody_took_meanwhile_is_told(server):
    """Their answers would pass for ours: a storage would seem reachable and be something else."""
    server.stop()
    with socket.create_server(("127.0.0.1", server._port)), pytest.raises(ProvisioningError, match="was taken"):
        server.start()


def test_a_server_that_ends_at_once_is_told_with_its_last_words(program, tmp_path):
    ends = program("import sys; print('no such backend'); sys.exit(3)")
    with pytest.raises(ProvisioningError) as caught:
        LocalS3Server(program=ends, folder=tmp_path / "s3").start()
    assert caught.value.code == "program-ended"
    assert "no such backend" in caught.value.fields["output"]


def test_a_server_that_never_answers_is_told_in_time(program, tmp_path, monkeypatch):
    monkeypatch.setattr(local_s3, "_START_SECONDS", 0.2)
    server = LocalS3Server(program=program("import time; time.sleep(600)"), folder=tmp_path / "s3")
    try:
        with pytest.raises(WaitTimeoutError, match="versitygw answers"):
            server.start()
    finally:
        server.stop()


def test_it_dies_with_us(program, tmp_path):
    """Whoever started it is killed and runs nothing more."""
    starts = textwrap.dedent(f"""
        from pathlib import Path
        from clusterguard.drills.servers.local_s3 import LocalS3Server
        server = LocalS3Server(program=Path({str(program(LISTENS))!r}), folder=Path({str(tmp_path / "s3")!r})).start()
        print(server._process.pid, flush=True)
        import time; time.sleep(600)
    """)
    said = tmp_path / "said"
    parent = process.spawn([sys.executable, "-c", starts], log=said)
    _wait_until(lambda: said.read_text().strip())
    child = psutil.Process(int(said.read_text()))
    assert child.is_running()
    os.kill(parent.pid, signal.SIGKILL)
    _wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_its_location_is_one_that_stores_are_opened_by(server):
    location = server.location("backups", "some/prefix")
    assert location.startswith("s3://backups/some/prefix?")
    assert server.credentials.secret_key not in location


def _wait_until(true, seconds=100):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
